"""MMPareto (Wei and Hu, ICML 2024): joint and single-modality losses without conflict in the encoders.

    L = CE(fused logits, y) + sum_m CE(a_m(h_m), y)             as `uniform`, a_m auxiliary linear heads
    in encoder m, g the gradient of the first term, u that of the m-th of the sum:
        g . u > 0 :  weights (1/2, 1/2)
        else      :  the weights of the shortest vector w g + (1 - w) u      (Pareto direction)
        n         =  2 w g + 2 (1 - w) u
        gradient of a tensor  <-  gamma * n * max(1, |g + u| / |n|)          norms of that tensor

The sign of g . u and w are those of the whole encoder. Heads and fusion get the plain gradient of L.

From the authors' code, which rescales tensor by tensor and bounds w to [0.001, 0.999].
Ours: the learning rate falls as for every method (their scheduler is made, but never stepped).
Acts on the encoders, the same with both fusions, any number of modalities. Cost: one forward, two backward
passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msam.datasets import Split
from msam.methods._base import StepReport
from msam.methods.uniform import Uniform


def min_norm_weight(gg: Tensor, gu: Tensor, uu: Tensor) -> Tensor:
    """The w in [0.001, 0.999] of the shortest w g + (1 - w) u, from the inner products."""
    inner = (uu - gu) / (gg + uu - 2 * gu)
    return torch.where(gu >= gg, 0.999, torch.where(gu >= uu, 0.001, inner)).clamp(0.001, 0.999)


def combine(g: list[Tensor], u: list[Tensor], gamma: float) -> list[Tensor]:
    """New gradient of an encoder from those of the joint loss and of its own, a list of tensors each."""
    flat_g, flat_u = (torch.cat([x.flatten() for x in part]) for part in (g, u))
    gg, gu, uu = flat_g @ flat_g, flat_g @ flat_u, flat_u @ flat_u
    w = torch.where(gu > 0, 0.5, min_norm_weight(gg, gu, uu))
    combined = []
    for a, b in zip(g, u, strict=True):
        n = 2 * w * a + 2 * (1 - w) * b
        longer = (a + b).norm() / n.norm().clamp(min=1e-12)
        combined.append(gamma * n * longer.clamp(min=1))
    return combined


class MMPareto(Uniform):
    """Pareto integration of joint and single-modality gradients.

    Args:
        gamma: factor on the encoders' gradients (the authors: 1.5).
    """

    def __init__(self, gamma: float = 1.5) -> None:
        self.gamma = gamma

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients; the report holds the joint loss alone."""
        joint, _, g, u = self.gradients(batch)
        for p in [*self.model.fusion.parameters(), *self.heads.parameters()]:
            p.grad = g[p] + u[p]
        for encoder in self.model.encoders.values():
            own = list(encoder.parameters())
            combined = combine([g[p] for p in own], [u[p] for p in own], self.gamma)
            for p, gradient in zip(own, combined, strict=True):
                p.grad = gradient
        self.optimizer.step()
        return StepReport(joint, 2)
