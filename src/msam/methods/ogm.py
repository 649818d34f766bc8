"""OGM: on-the-fly gradient modulation (Peng et al., CVPR 2022, Eqs. 8-10), without the noise of OGM-GE.

    S_m   = sum over the batch of softmax(z_m)[y]        how well modality m does alone
    rho_m = S_m / mean of S_k over the other modalities
    k_m   = 1 - tanh(alpha * rho_m) where rho_m > 1, else 1
    gradient of encoder m  <-  k_m * gradient

z_m are the logits of modality m alone. Acts on the weight matrices and convolution kernels of the encoders,
not on biases, BatchNorm or the fusion, and in the first `end` of the epochs only; afterwards k_m is 1.

Ours: z_m is the modality's head with late fusion and, since early fusion has none, its Shapley response
there. The paper knows two modalities, where the mean over the others is the other one. The authors' code
acts on four-dimensional tensors; weight matrices are included so that encoders without convolutions are
modulated.
Cost: one forward and one backward pass; with early fusion one more pass of the fusion a coalition.
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
from msam.methods._modality import mean_of_others, own_logits, scale_gradients
from msam.models import MultimodalClassifier


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """k_m from the scores S_m, shapes (M,)."""
    ratio = scores / mean_of_others(scores)
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))


class OGM(Method):
    """On-the-fly gradient modulation.

    Args:
        alpha: strength of the modulation, > 0 (the authors: 0.8 on CREMA-D, 0.1 on VGGSound).
        end: fraction of the epochs with modulation (the authors' default: 0.5).
    """

    compares = True

    def __init__(self, alpha: float = 0.8, end: float = 0.5) -> None:
        self.alpha, self.end = alpha, end

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Find the tensors to modulate."""
        super().setup(model, optimizer, config)
        self.weights = {m: [p for p in e.parameters() if p.ndim > 1] for m, e in model.encoders.items()}
        if not all(self.weights.values()):
            raise ValueError("OGM found an encoder without weight matrices or convolutions to modulate")
        self.epoch, self.last = 1, round(self.end * config["epochs"])

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Count the epochs."""
        self.epoch += 1

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        self.optimizer.zero_grad()
        features = self.model.encode(batch.inputs)
        fused = self.model.fuse(features)
        loss = F.cross_entropy(fused, batch.labels)
        loss.backward()
        if self.epoch <= self.last:
            with torch.no_grad():
                alone = own_logits(self.model, batch.inputs, features, fused)
                truth = true_class(alone.softmax(-1), batch.labels)
                self.modulate(coefficients(truth.sum(1), self.alpha))
        self.optimizer.step()
        return StepReport(loss.detach(), 1)

    def modulate(self, k: Tensor) -> None:
        """Scale the encoders' gradients by k_m, shape (M,)."""
        for weights, factor in zip(self.weights.values(), k, strict=True):
            scale_gradients(weights, factor)
