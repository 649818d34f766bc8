"""ReconBoost: one modality learns what the others get wrong, in turns (Hua et al., ICML 2024).

The output is a sum of parts f_m. Stages of `stage` epochs alternate; the k-th pair of stages is about
modality k mod M:

    boosting       q = softmax(sum of the other f_j)[y], constant
                   loss = mean of -(w1 - w2 q) / C * log softmax(f_k)[y]
                          + consolidation * mean of (softmax(f_k) - softmax(f_prev))^2
                   only what belongs to modality k moves; f_prev is the part of the pair before, constant
    rectification  loss = CE(sum of all f_m, y); everything moves

Every stage starts with a fresh optimizer state. Frozen modules run in evaluation mode, so their BatchNorm
statistics stay.

The authors' code detaches *both* arguments of the consolidation term, which leaves it without a gradient;
here only f_prev is constant. Theirs: stages of 4 epochs, hundreds of them, a head shared by the modalities
and a learnt factor on the sum; boosting moves the shared head too. Ours: the epochs, the learning rate and
the network are those of every other method, so a stage is one epoch, each modality has its own head, and
the factor is part of it. With late fusion f_m is the output of the head. With early fusion, where the
method is not defined, f_m is the Shapley response, which sums to the output as well; boosting then moves
the encoder k through the fusion in evaluation mode.
Acts on encoder (and head) of one modality, then on all; any number of modalities. Cost: one forward and one
backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.coalitions import true_class
from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import own_logits, own_modules
from msam.models import MultimodalClassifier


class ReconBoost(Method):
    """Alternating boosting of one modality and rectification of all.

    Args:
        stage: epochs of a stage (the authors: 4).
        w1: weight of the cross-entropy (the authors: 5 on CREMA-D, 4 on AVE).
        w2: weight of what the others know (the authors: 1).
        consolidation: weight of the distance to the part before (the authors: 0.5).
    """

    compares = True

    def __init__(self, stage: int = 1, w1: float = 5.0, w2: float = 1.0, consolidation: float = 0.5) -> None:
        self.stage, self.w1, self.w2, self.consolidation = stage, w1, w2, consolidation

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Begin with boosting the first modality."""
        super().setup(model, optimizer, config)
        self.epoch = 0
        self._enter()

    @property
    def boosted(self) -> int | None:
        """Index of the modality that is boosted now, None in a rectification stage."""
        number = self.epoch // self.stage
        return None if number % 2 else number // 2 % len(self.model.modalities)

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Enter the next stage when it is time."""
        self.epoch += 1
        if self.epoch % self.stage == 0:
            self._enter()

    def _enter(self) -> None:
        k = self.boosted
        self.optimizer.state.clear()
        self.model.requires_grad_(k is None)
        for module in [] if k is None else own_modules(self.model, self.model.modalities[k]):
            module.requires_grad_(True)

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        self.optimizer.zero_grad()
        k = self.boosted
        if k is None:
            loss = F.cross_entropy(self.model(batch.inputs), batch.labels)
        else:
            self.model.eval()
            self.model.encoders[self.model.modalities[k]].train()
            parts = own_logits(self.model, batch.inputs, self.model.encode(batch.inputs))
            loss = self.boosting_loss(parts, batch.labels, k)
        loss.backward()
        self.optimizer.step()
        return StepReport(loss.detach(), 1)

    def boosting_loss(self, parts: Tensor, labels: Tensor, k: int) -> Tensor:
        """Loss of the boosting stage of modality k; only `parts[k]` gets a gradient."""
        rest = torch.cat([parts[:k], parts[k + 1 :]]).sum(0).detach()
        weight = (self.w1 - self.w2 * true_class(rest.softmax(-1), labels)) / parts.shape[-1]
        loss = -(weight * true_class(parts[k].log_softmax(-1), labels)).mean()
        if self.epoch < self.stage:
            return loss
        previous = parts[k - 1].detach().softmax(-1)
        return loss + self.consolidation * F.mse_loss(parts[k].softmax(-1), previous)
