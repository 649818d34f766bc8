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

from msam.coalitions import (
    NORMALIZATIONS,
    VALUES,
    batch_shares,
    coalition_logits,
    contributions,
)
from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._dominance import Dominance, at
from msam.methods._modality import GRADIENT, squared_gradients
from msam.methods._response import response_step
from msam.models import MultimodalClassifier
from msam.optim import ModalityAwareSAM
from msam.shapley import sampled_weights

READINGS = ("loss", "response", "encoder")


class MSAM(Method):
    """Modality-aware SAM.

    Args:
        reading: one of `READINGS`.
        dominance: one of `msam.methods._dominance.RULES`.
        value: scalar value of a coalition, one of `msam.coalitions.VALUES`, or `GRADIENT`.
        normalization: one of `msam.coalitions.NORMALIZATIONS`.
        permutations: orders from which Shapley values are estimated; 0 for the exact ones.
    """

    compares = True

    def __init__(
        self,
        reading: str = "loss",
        dominance: str = "shapley",
        value: str = "accuracy",
        normalization: str = "linear",
        permutations: int = 0,
    ) -> None:
        values = VALUES if reading == "response" else (*VALUES, GRADIENT)
        for name, choice, choices in (
            ("reading", reading, READINGS),
            ("value", value, values),
            ("normalization", normalization, NORMALIZATIONS),
        ):
            if choice not in choices:
                raise ValueError(f"unknown {name} {choice!r}; choose from {', '.join(choices)}")
        self.reading, self.rule, self.value = reading, dominance, value
        self.normalization, self.permutations = normalization, permutations

    def check(self, fusion: str, modalities: Sequence[str]) -> None:
        """Refuse a rule of dominance that does not fit the modalities, too."""
        super().check(fusion, modalities)
        Dominance(self.rule, modalities)

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        self.sam = ModalityAwareSAM(None, optimizer, rho=config["rho"], skip_nonfinite=False)
        super().setup(model, self.sam, config)
        self.dominance = Dominance(self.rule, model.modalities)

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """The rule `epoch` reads the shares of the validation split."""
        self.dominance.end_epoch(validation["shares"])

    def step(self, batch: Split) -> StepReport:
        """One step: two gradients, three in the reading `response`."""
        if self.reading == "response":
            return response_step(self.sam, self.model, batch, self._choose)
        return self._loss_step(batch)

    def _loss_step(self, batch: Split) -> StepReport:
        steer: list[Tensor] = []  # shares and the index of the dominant modality

        def closure() -> Tensor:
            self.sam.zero_grad()
            features = self.model.encode(batch.inputs)
            logits = self.model.fuse(features)
            loss = F.cross_entropy(logits, batch.labels)
            loss.backward()
            if not steer:  # in the first pass
                steer.extend(self.dominance.choose(lambda: self._shares(batch, features, logits)))
            return loss

        def dominant() -> str:
            return self.model.modalities[int(steer[1])]

        loss = self.sam.step(
            closure,
            share=lambda: at(*steer),
            dominant=dominant if self.reading == "encoder" else None,
        )
        return StepReport(loss, 2, *steer)

    @torch.no_grad()
    def _shares(self, batch: Split, features: Mapping[str, Tensor], fused: Tensor) -> Tensor:
        """Shares of the batch; reads the gradients of the first pass where these are the value."""
        normalize = NORMALIZATIONS[self.normalization]
        if self.value == GRADIENT:
            return normalize(squared_gradients(self.model))
        if self.permutations:
            weights = sampled_weights(tuple(self.model.modalities), self.permutations)
            sets = sorted({s for row in weights.values() for s in row if s}, key=len)
            logits = coalition_logits(self.model, batch.inputs, features, fused, sets)
            return normalize(contributions(VALUES[self.value](logits, batch.labels), sets, weights))
        logits = coalition_logits(self.model, batch.inputs, features, fused)
        return self._exact(logits, batch)

    def _exact(self, logits: Tensor, batch: Split) -> Tensor:
        """Shares of the batch by the logits of all coalitions."""
        return batch_shares(logits, batch.labels, self.model.modalities, self.value, self.normalization)

    def _choose(self, logits: Tensor, batch: Split) -> tuple[Tensor, Tensor]:
        """Shares and the index of the dominant modality by the logits of all coalitions."""
        return self.dominance.choose(lambda: self._exact(logits, batch))
