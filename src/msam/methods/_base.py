"""What every training method offers: a set-up, one step, and what it does after an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.datasets import Split
from msam.models import MultimodalClassifier


class UnsupportedCell(Exception):  # noqa: N818 - a finding about a cell of the grid, not a fault
    """The method is not defined for this fusion or these modalities; the message says why."""


@dataclass(frozen=True)
class StepReport:
    """What one step tells the training loop.

    Attributes:
        loss: training loss at the unperturbed weights, 0-dim.
        gradient_evaluations: how many times the step ran a backward pass over the batch.
        shares: share v_m of every modality, shape (M,) in the order of `model.modalities`, or None.
        dominant: index of the dominant modality, 0-dim, or None.
    """

    loss: Tensor
    gradient_evaluations: int
    shares: Tensor | None = None
    dominant: Tensor | None = None


class Method:
    """Base of the methods; the keyword defaults of `__init__` are the options a study may set.

    The loop calls `check` before anything is built, `setup` once a seed, `step` for every batch and
    `end_epoch` with the evaluation of the validation split.
    """

    compares = False
    """Whether the method compares modalities, so that one alone is not enough."""

    reads_features = False
    """Whether it reads what the encoders give, which must then be one vector an example and modality."""

    def modalities(self, names: Sequence[str]) -> list[str]:
        """The modalities the model gets; all of them unless the method says otherwise."""
        return list(names)

    def check(self, fusion: str, modalities: Sequence[str]) -> None:
        """Raise `UnsupportedCell` where the method is not defined, `ValueError` where options are wrong."""
        if self.compares and len(modalities) < 2:
            raise UnsupportedCell("it compares modalities, so it needs at least two")
        if self.reads_features and fusion == "psp":
            raise UnsupportedCell(
                "it reads a feature vector of each modality, and in PSP's network the sound guides the"
                " attention over the places before there is one of the pictures"
            )

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Take the model, its base optimizer (one param group a modality) and the cell's configuration."""
        self.model, self.optimizer = model, optimizer

    def step(self, batch: Split) -> StepReport:
        """Train on one batch."""
        raise NotImplementedError

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Take notice of the evaluation of the validation split."""

    def closure(self, batch: Split) -> Callable[[], Tensor]:
        """Clear gradients, cross-entropy of the fused logits, backward: what an optimizer's `step` takes."""

        def evaluate() -> Tensor:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(batch.inputs), batch.labels)
            loss.backward()
            return loss

        return evaluate
