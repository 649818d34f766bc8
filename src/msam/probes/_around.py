"""The neighbourhood of trained weights: sharpness, random directions and noise.

"Filters" are the slices of a weight along its first axis: the weights of one output. Vectors (biases, scales
of BatchNorm) are left out of random directions and noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msam.optim import _update
from msam.probes._network import Weights

Loss = Callable[[Weights], Tensor]


def sharpness(loss: Loss, weights: Weights, rho: float, adaptive: bool = False) -> float:
    """Rise of the loss along one step of SAM's ascent, L(w + eps) - L(w).

    Args:
        loss: loss of some weights.
        weights: w, which require gradients.
        rho: length of the step; eps = rho * g / ||g||, g the gradient at w.
        adaptive: ASAM's step, eps = rho * w^2 * g / || |w| * g ||.
    """
    here = loss(weights)
    gradients = torch.autograd.grad(here, list(weights.values()), materialize_grads=True)
    moved = {name: w.detach().clone() for name, w in weights.items()}
    with torch.no_grad():
        _update.ascend(list(moved.values()), list(gradients), [rho] * len(moved), adaptive)
        return float(loss(moved) - here)


def filter_direction(weights: Weights, source: torch.Generator) -> dict[str, Tensor]:
    """A Gaussian direction whose filters have the norms of the weights' filters.

    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018.
    """
    draws = filter_noise(weights, source)
    return {name: d * _norms(weights[name]) / _norms(d).clamp(min=1e-12) for name, d in draws.items()}


def filter_noise(weights: Weights, source: torch.Generator) -> dict[str, Tensor]:
    """Gaussian noise as large as the weights: its deviation is the root mean square of the filter."""
    return {
        name: torch.randn(w.shape, generator=source, dtype=w.dtype).to(w) * _norms(w) / w[0].numel() ** 0.5
        for name, w in weights.items()
        if w.dim() > 1
    }


def _norms(w: Tensor) -> Tensor:
    """Norm of every filter, in a shape that broadcasts."""
    return torch.linalg.vector_norm(w.flatten(1), dim=1).reshape(-1, *[1] * (w.dim() - 1))


def moved(weights: Weights, *steps: tuple[float, Weights]) -> dict[str, Tensor]:
    """The weights plus lengths times directions, of what the directions name."""
    return {
        name: sum((length * direction[name] for length, direction in steps), weights[name])
        for name in steps[0][1]
    }
