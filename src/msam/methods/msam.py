"""M-SAM (Algorithm 1) in the three readings that the paper's text allows.

    loss      L_m = v_m L: literal; eps is SAM's, the step is v_d grad L(w + eps) + (1 - v_d) grad L(w)
    response  L_m = v_m CE(Phi_m, y), a loss of the modality's own Shapley response Phi_m
    encoder   as `loss`, eps restricted to the encoder of the dominant modality

v_m is the share of modality m in the batch, held constant in the backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.coalitions import VALUES, batch_shares, coalition_logits
from msam.datasets import Split
from msam.methods._base import Method, StepReport, UnsupportedCell
from msam.methods._dominance import Dominance
from msam.models import MultimodalClassifier
from msam.optim import ModalityAwareSAM
from msam.shapley import Coalition, shapley_values

READINGS = ("loss", "response", "encoder")


class MSAM(Method):
    """Modality-aware SAM.

    Args:
        reading: one of `READINGS`.
        dominance: one of `msam.methods._dominance.RULES`.
        value: scalar value of a coalition, one of `msam.coalitions.VALUES`.
    """

    def __init__(self, reading: str = "loss", dominance: str = "shapley", value: str = "accuracy") -> None:
        for name, choice, choices in (("reading", reading, READINGS), ("value", value, VALUES)):
            if choice not in choices:
                raise ValueError(f"unknown {name} {choice!r}; choose from {', '.join(choices)}")
        self.reading, self.rule, self.value = reading, dominance, value

    def check(self, fusion: str, modalities: Sequence[str]) -> None:
        """M-SAM compares modalities, so it needs two."""
        if len(modalities) < 2:
            raise UnsupportedCell("M-SAM needs at least two modalities")
        Dominance(self.rule, modalities)

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        super().setup(model, ModalityAwareSAM(None, optimizer, rho=config["rho"]), config)
        self.dominance = Dominance(self.rule, model.modalities)

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """The rule `epoch` reads the shares of the validation split."""
        self.dominance.end_epoch(validation["shares"])

    def step(self, batch: Split) -> StepReport:
        """One step: two gradients, three in the reading `response`."""
        return self._response_step(batch) if self.reading == "response" else self._loss_step(batch)

    def _loss_step(self, batch: Split) -> StepReport:
        first: list[dict[str, Tensor] | Tensor] = []
        steer: list[Tensor] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            features = self.model.encode(batch.inputs)
            logits = self.model.fuse(features)
            loss = F.cross_entropy(logits, batch.labels)
            loss.backward()
            if not first:
                first.extend((features, logits))
            return loss

        @torch.no_grad()
        def share() -> Tensor:
            read = self.dominance.reads_batch
            steer.extend(
                self._steer(coalition_logits(self.model, batch.inputs, *first) if read else {}, batch)
            )
            return steer[0][steer[1]]

        def dominant() -> str:
            return self.model.modalities[int(steer[1])]

        encoder = dominant if self.reading == "encoder" else None
        loss = self.optimizer.step(closure, share, dominant=encoder)
        return StepReport(loss, 2, *steer)

    def _response_step(self, batch: Split) -> StepReport:
        losses: list[Tensor] = []  # one a modality, of the first pass
        steer: list[Tensor] = []
        fused_loss: list[Tensor] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            features = self.model.encode(batch.inputs)
            logits = coalition_logits(self.model, batch.inputs, features, self.model.fuse(features))
            responses = shapley_values(logits)
            each = [F.cross_entropy(responses[m], batch.labels) for m in self.model.modalities]
            if not losses:
                losses.extend(each)
                steer.extend(self._steer({s: z.detach() for s, z in logits.items()}, batch))
                fused_loss.append(F.cross_entropy(logits[max(logits, key=len)], batch.labels).detach())
            shares, dominant = steer
            loss = shares[dominant] * each[int(dominant)]
            loss.backward(retain_graph=len(each) > 1)
            return loss

        def rest() -> None:
            shares, dominant = steer
            sum(
                v * loss for i, (v, loss) in enumerate(zip(shares, losses, strict=True)) if i != dominant
            ).backward()

        self.optimizer.step(closure, rest=rest)
        return StepReport(fused_loss[0], 3, *steer)

    def _steer(self, logits: Mapping[Coalition, Tensor], batch: Split) -> tuple[Tensor, Tensor]:
        """Shares, shape (M,), and the index of the dominant modality."""
        if not logits:
            return self.dominance.choose(None)
        shares = batch_shares(logits, batch.labels, self.value)
        return self.dominance.choose(torch.stack([shares[m] for m in self.model.modalities]))
