"""The two optimizers once more, for reading: slow, on a whole model, one line a line of the algorithm.

The tests hold `SAM` and `ModalityAwareSAM` equal to these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

Gradients = dict[str, Tensor]


def gradients_of(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Gradients:
    """Gradient of `loss(model)` by parameter name; zeros where the loss does not depend on it."""
    parameters = dict(model.named_parameters())
    values = torch.autograd.grad(loss(model), list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, values, strict=True))


def gradients_at_perturbed(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    direction: Gradients,
    rho: float,
    only: Collection[str] | None = None,
    adaptive: bool = False,
) -> Gradients:
    """Gradient of the loss at w + rho * T^2 direction / ||T direction||, T = |w| if adaptive, else 1.

    `only` names the parameters that are moved.
    """
    chosen = list(direction) if only is None else list(only)
    scale = {n: model.get_parameter(n).detach().abs() if adaptive else 1.0 for n in chosen}
    norm = sum((scale[n] * direction[n]).square().sum() for n in chosen) ** 0.5
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with torch.no_grad():
        for n in chosen:
            model.get_parameter(n).add_(rho * scale[n] ** 2 * direction[n] / (norm + 1e-12))
    gradients = gradients_of(model, loss)
    model.load_state_dict(before)
    return gradients


def _step(model: nn.Module, base: torch.optim.Optimizer, gradients: Gradients) -> None:
    for n, p in model.named_parameters():
        p.grad = gradients[n]
    base.step()


def sam_step(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    base: torch.optim.Optimizer,
    rho: float,
    adaptive: bool = False,
) -> None:
    """One step of SAM, or of ASAM."""
    random_state = torch.get_rng_state()
    clean = gradients_of(model, loss)
    torch.set_rng_state(random_state)
    _step(model, base, gradients_at_perturbed(model, loss, clean, rho, adaptive=adaptive))


def modality_aware_step(
    model: nn.Module,
    dominant_loss: Callable[[nn.Module], Tensor],
    rest_loss: Callable[[nn.Module], Tensor],
    base: torch.optim.Optimizer,
    rho: float,
    only: Collection[str] | None = None,
) -> None:
    """One step of Algorithm 1 with any L_d and L_s; `only` names the perturbed parameters."""
    random_state = torch.get_rng_state()
    clean = gradients_of(model, dominant_loss)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    torch.set_rng_state(random_state)
    rest = gradients_of(model, rest_loss)
    for n, b in buffers.items():
        model.get_buffer(n).copy_(b)
    torch.set_rng_state(random_state)
    perturbed = gradients_at_perturbed(model, dominant_loss, clean, rho, only)
    _step(model, base, {n: perturbed[n] + rest[n] for n in clean})
