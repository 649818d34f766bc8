"""AGM: adaptive gradient modulation (Li et al., ICCV 2023).

    s_m     = mean over the batch of -log softmax(Phi_m)[y]
    r_m     = exp(M / (M - 1) * (mean of all s - s_m))            discrepancy of the batch
    R_m     = the same from S_m, the mean of s_m over all steps so far (before this one)
    kappa_m = exp(alpha * min(R_m - r_m, cap))
    dL/dPhi_m  <-  kappa_m * dL/dPhi_m,    L = CE(sum_m Phi_m, y)

Phi_m are Shapley responses, so their sum is the fused output T, and with all kappa equal this is joint
training. For two modalities the modulated gradient is, with g = dL/dT and f(m) the output where only m is
present,

    g . d[(kappa_a + kappa_v) / 2 * T + (kappa_a - kappa_v) / 2 * (f(a) - f(v))]

Acts on all parameters, the muted forward passes included, with both fusions and any number of modalities.

From the authors' code: probabilities of at least 1e-8 in s_m; the cap of 10 (CREMA-D; 7 for UR-Funny, none
for AV-MNIST); the clipping of the global norm to 1 where an entry of the output layer's gradient exceeds 1.
Their kappa keeps acting after the window of modulation; here the window is the whole training, as in their
reported runs.
Ours: present modalities keep the features of the training pass (the code runs them again in evaluation
mode).
Cost: one forward and one backward pass, and a pass of the fusion a coalition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.coalitions import coalition_logits, responses, true_class
from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import parameters_of
from msam.models import MultimodalClassifier

FLOOR = 1e-8


def discrepancy(scores: Tensor) -> Tensor:
    """r_m from the scores s_m, shapes (M,); > 1 for a modality that is better than the mean."""
    m = len(scores)
    return torch.exp(m / (m - 1) * (scores.mean() - scores))


class AGM(Method):
    """Adaptive gradient modulation.

    Args:
        alpha: strength, >= 0 (the authors: 2.5 AV-MNIST, 1.5 CREMA-D, 4 UR-Funny with late fusion, 6 early).
        cap: upper bound of R_m - r_m.
    """

    compares = True

    def __init__(self, alpha: float = 1.5, cap: float = 10.0) -> None:
        self.alpha, self.cap = alpha, cap

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Start the running scores at zero."""
        super().setup(model, optimizer, config)
        self.steps = 0
        self.running = torch.zeros(len(model.modalities)).to(next(model.parameters()))

    @torch.no_grad()
    def kappa(self, answers: Tensor, labels: Tensor) -> Tensor:
        """kappa_m, shape (M,), from the responses, M x B x C; moves the running scores."""
        truth = true_class(answers.softmax(-1), labels)
        scores = -truth.clamp(min=FLOOR).log().mean(1)
        gap = discrepancy(self.running) - discrepancy(scores)
        self.steps += 1
        self.running = self.running + (scores - self.running) / self.steps
        return torch.exp(self.alpha * gap.clamp(max=self.cap))

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        self.optimizer.zero_grad()
        features = self.model.encode(batch.inputs)
        fused = self.model.fuse(features)
        answers = responses(
            coalition_logits(self.model, batch.inputs, features, fused), self.model.modalities
        )
        output = fused.detach().requires_grad_()
        loss = F.cross_entropy(output, batch.labels)
        (slope,) = torch.autograd.grad(loss, output)
        modulated = self.kappa(answers, batch.labels)[:, None, None] * slope
        answers.backward(modulated)
        self._clip()
        self.optimizer.step()
        return StepReport(loss.detach(), 1)

    def _clip(self) -> None:
        outputs = parameters_of(self.model.fusion.outputs)
        if max(p.grad.abs().max() for p in outputs if p.grad is not None) > 1:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
