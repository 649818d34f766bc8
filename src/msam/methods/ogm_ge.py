"""OGM-GE: OGM with generalization enhancement, noise on the gradients (Peng et al., CVPR 2022, Eq. 12).

    gradient of a tensor of encoder m  <-  k_m * gradient + N(0, sigma^2)

sigma is the standard deviation of the tensor's entries before the modulation; the noise goes to all
modalities, also where k_m is 1. Everything else, what is ours included, is as in `msam.methods.ogm`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msam.methods.ogm import OGM


class OGMGE(OGM):
    """On-the-fly gradient modulation with generalization enhancement; options as `OGM`."""

    def modulate(self, k: Tensor) -> None:
        """Scale the gradients by k_m, shape (M,), and add the noise."""
        gradients = [p.grad for weights in self.weights.values() for p in weights if p.grad is not None]
        noise = [torch.randn_like(g) * (g.std(correction=0) + 1e-8) for g in gradients]
        super().modulate(k)
        torch._foreach_add_(gradients, noise)
