"""MASAM: modality-aware adaptive SAM (ICLR 2026), the perturbation restricted to one encoder.

    L   = CE(fused logits, y) + sum_m L_m,   L_m = CE(a_m(h_m), y)      a_m auxiliary heads as in `uniform`
    g_m, u_m    gradients of the first term and of L_m in encoder m, tensor by tensor
    D_m = w * max(0, L_m of the last step - average of L_m) + (1 - w) * mean over tensors of cos(u_m, g_m)
    d   = argmax D_m
    dir = projection of u_d on g_d where u_d . g_d > 0, else g_d        tensor by tensor
    eps = rho * dir / ||dir||_2                                         in encoder d only
    encoders: gradient of L at w + eps;   fusion and heads: gradient of L at w

The average is exponential and includes the present step. Not to be confused with M-SAM, whose reading
`encoder` is alike. Cost: two forward and three backward passes; the same with both fusions, any number of
modalities.

The authors' code multiplies eps by the cosine of the tensor that happens to come last, and by default
divides by a norm that is scaled by the weights, so that the length of eps is not rho; neither is done here.
Ours: the base optimizer is that of every other method (theirs AdamW).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import StepReport
from msam.methods.uniform import Gradients, Uniform
from msam.models import MultimodalClassifier
from msam.optim import SAM
from msam.optim._passes import random_state
from msam.optim.sam import FirstPass


def agreement(g: list[Tensor], u: list[Tensor]) -> Tensor:
    """Mean over the tensors of cos(u, g)."""
    pairs = zip(g, u, strict=True)
    return torch.stack([F.cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in pairs]).mean()


def direction(g: Tensor, u: Tensor) -> Tensor:
    """The projection of u on g where they do not conflict, else g."""
    inner = (u * g).sum()
    return g * torch.where(inner > 0, inner / (g * g).sum().clamp(min=1e-12), 1.0)


class MASAM(Uniform):
    """Modality-aware adaptive SAM.

    Args:
        mix: weight w of the loss in the score (the authors: 0.8 on CREMA-D, 0.5 on UR-Funny).
        decay: of the average of the losses (the authors: 0.91 and 0.9).
    """

    compares = True

    def __init__(self, mix: float = 0.8, decay: float = 0.9) -> None:
        self.mix, self.decay = mix, decay

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        super().setup(model, optimizer, config)
        self.sam = SAM(None, optimizer, rho=config["rho"])
        self.last: Tensor | None = None
        self.average = torch.zeros(0)

    def step(self, batch: Split) -> StepReport:
        """One step, three gradients; the report holds the joint loss alone."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        before = random_state(parameters)
        joint, alone, g, u = self.gradients(batch)
        d = int(self._scores(alone, g, u).argmax())
        chosen = self.sam.param_groups[d]
        directions = {p: direction(g[p], u[p]) for p in chosen["params"]}
        first = FirstPass(joint, [directions.get(p) for p in parameters], before)
        self.sam.second_pass(self.closure(batch), first, [chosen])
        encoded = set(self.model.encoders.parameters())
        for p in parameters:
            if p not in encoded:
                p.grad = g[p] + u[p]
        self.optimizer.step()
        return StepReport(joint, 3)

    def closure(self, batch: Split) -> Callable[[], Tensor]:
        """Gradients of the sum of all losses."""

        def evaluate() -> Tensor:
            joint, alone = self.losses(batch)
            loss = joint + alone.sum()
            loss.backward()
            return loss

        return evaluate

    def _scores(self, losses: Tensor, g: Gradients, u: Gradients) -> Tensor:
        """D_m, shape (M,); moves the average."""
        last = losses if self.last is None else self.last
        average = losses if self.last is None else self.decay * self.average + (1 - self.decay) * losses
        self.last, self.average = losses, average
        own = [list(encoder.parameters()) for encoder in self.model.encoders.values()]
        agree = torch.stack([agreement([g[p] for p in ps], [u[p] for p in ps]) for ps in own])
        return self.mix * (last - average).clamp(min=0) + (1 - self.mix) * agree
