"""MSES: modality-specific early stopping (Fujimori et al., ACPR 2019), as AGM runs it.

    s_m(1) = V_m(1),  s_m(t) = 0.6 V_m(t-1) + 0.4 V_m(t)
    where s_m has not fallen below its best for more than P epochs:
        the model goes back to the epoch of the best s_m, and modality m stays as it was then

V_m(t) is the validation loss of modality m alone after epoch t. Acts on the encoder and, with late fusion,
on the head of each modality. A frozen one gets no gradient, so neither momentum nor the decay of weights
moves it, and runs in evaluation mode, so its BatchNorm statistics stay. With late fusion training ends for
good when all modalities are frozen.

Ours: loss on the validation split, where AGM's code reads the test split and freezes by zero gradients,
under which momentum and decay go on. P is a fraction of the epochs. The model goes back as a whole, its
momentum included, but not the learning rate's schedule and not what is frozen already. Where no s_m has
been finite, the best epoch is the first. With early fusion, for which AGM's code changes nothing, V_m is the
loss of the Shapley response, and the encoder is frozen while the fusion goes on.
Cost: one forward and one backward pass, less where something is frozen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import own_modules
from msam.models import MultimodalClassifier


class MSES(Method):
    """Modality-specific early stopping.

    Args:
        patience: P as a fraction of the epochs (AGM: 0.1 on AV-MNIST, 0.8 on CREMA-D, 0.3 on UR-Funny).
    """

    def __init__(self, patience: float = 0.1) -> None:
        self.patience = patience

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Start with nothing frozen."""
        super().setup(model, optimizer, config)
        self.limit = self.patience * config["epochs"]
        self.epoch = 0
        self.before: dict[str, float] = {}
        self.best = {m: (float("inf"), 0) for m in model.modalities}
        self.kept: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.frozen: list[str] = []

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient; none once everything is frozen."""
        for m in self.frozen:
            for module in own_modules(self.model, m):
                module.eval()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(batch.inputs), batch.labels)
        if not loss.requires_grad:
            return StepReport(loss, 0)
        loss.backward()
        self.optimizer.step()
        return StepReport(loss.detach(), 1)

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Keep the best state of every modality; freeze those that have stopped getting better."""
        self.epoch += 1
        losses = validation["modality_loss"]
        for m in [m for m in self.model.modalities if m not in self.frozen]:
            smooth = 0.6 * self.before.get(m, losses[m]) + 0.4 * losses[m]
            smooth = float("inf") if math.isnan(smooth) else smooth
            if m not in self.kept or smooth < self.best[m][0]:
                self.best[m] = smooth, self.epoch
                self.kept[m] = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()["state"]))
            elif self.epoch - self.best[m][1] > self.limit:
                self._freeze(m)
        self.before = losses

    def _freeze(self, modality: str) -> None:
        """Bring the model back to the modality's best epoch, except for what is frozen already."""
        frozen = [module for m in self.frozen for module in own_modules(self.model, m)]
        still = [copy.deepcopy(module.state_dict()) for module in frozen]
        weights, momenta = self.kept.pop(modality)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": momenta})
        for module, state in zip(frozen, still, strict=True):
            module.load_state_dict(state)
        self.frozen.append(modality)
        for module in own_modules(self.model, modality):
            module.requires_grad_(False)
