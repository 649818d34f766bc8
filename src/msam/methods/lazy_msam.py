"""Lazy M-SAM: shares and perturbed pass at every k-th step only, reused in between.

    every k-th step    g = grad L(w), h = grad L(w + eps), d = v_d (h - g) / ||g||; step with g + ||g|| d
    other steps        g = grad L(w);                                               step with g + ||g|| d

so that k steps cost k + 1 gradients in place of 2 k. At k = 1 it is M-SAM. After LookSAM (Liu et al., CVPR
2022), which reuses the part of h that is orthogonal to g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import StepReport
from msam.methods._modality import parameters_of
from msam.methods.msam import MSAM
from msam.models import MultimodalClassifier
from msam.optim._update import EPSILON, global_norm


class LazyMSAM(MSAM):
    """M-SAM (reading `loss`, exact values) that looks around at every k-th step.

    Args:
        every: k, at least 1.
    """

    def __init__(self, every: int = 5) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self.every = every

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        super().setup(model, optimizer, config)
        self.parameters = parameters_of([model])
        self.steps = 0

    def step(self, batch: Split) -> StepReport:
        """One step: two gradients at every k-th, one at the others, which report the shares of that one."""
        looks, self.steps = self.steps % self.every == 0, self.steps + 1
        return self._look(batch) if looks else self._reuse(batch)

    def _look(self, batch: Split) -> StepReport:
        report = self._loss_step(batch)
        difference = torch._foreach_sub(self._gradients(), self.clean)
        self.direction = torch._foreach_div(difference, global_norm(self.clean) + EPSILON)
        self.steering = report.shares, report.dominant
        return report

    def _reuse(self, batch: Split) -> StepReport:
        loss = self.closure(batch)()
        gradients = self._gradients()
        again = torch._foreach_mul(self.direction, global_norm(gradients))
        torch._foreach_add_(gradients, list(again))
        self.sam.base.step()
        return StepReport(loss.detach(), 1, *self.steering)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    @torch.no_grad()
    def _shares(self, batch: Split, features: Mapping[str, Tensor], fused: Tensor) -> Tensor:
        """Shares of the batch, read after the first pass: the gradients are those at w."""
        self.clean = self._gradients()
        return super()._shares(batch, features, fused)
