"""The arithmetic of SAM and M-SAM on lists of tensors: no optimizer, no state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-12
"""Added to the gradient norm, so that a zero gradient gives a zero perturbation."""


def global_norm(gradients: list[Tensor]) -> Tensor:
    """L2 norm over all entries of all tensors, a 0-dim tensor (no host synchronization)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def ascend(
    parameters: list[Tensor], gradients: list[Tensor], radii: list[float], adaptive: bool = False
) -> None:
    """Move every parameter in place by eps = rho * g / ||g||_2 (M-SAM Algorithm 1, line 5; SAM Eq. 2).

    Args:
        parameters: tensors that are moved.
        gradients: one gradient a parameter; the norm is taken over all of them together.
        radii: one perturbation radius rho a parameter, in units of the weights.
        adaptive: eps = rho * w^2 * g / || |w| * g ||_2, entry by entry (ASAM, Kwon et al., ICML 2021, Eq. 8,
            without the constant beside |w|); rho then has no unit.
    """
    eps = gradients
    if adaptive:
        sizes = list(torch._foreach_abs(parameters))
        eps = list(torch._foreach_mul(gradients, sizes))  # type: ignore[arg-type]
    eps = list(torch._foreach_div(eps, global_norm(eps) + EPSILON))
    if adaptive:
        torch._foreach_mul_(eps, sizes)  # type: ignore[arg-type]
    torch._foreach_mul_(eps, radii)
    torch._foreach_add_(parameters, eps)


def interpolate(
    clean: Sequence[Tensor | None], perturbed: Sequence[Tensor | None], share: Tensor | float
) -> list[Tensor | None]:
    """Gradient (1 - share) * clean + share * perturbed of Algorithm 1, line 6, with L_d = share * L.

    A missing gradient (None) counts as zero; None where both are missing. Exact at share 0 and 1.
    """
    whole = [(g, h) for g, h in zip(clean, perturbed, strict=True) if g is not None and h is not None]
    if isinstance(share, float) and len(whole) == len(clean):
        return list(torch._foreach_lerp([g for g, _ in whole], [h for _, h in whole], share))
    mixed: list[Tensor | None] = []
    for g, h in zip(clean, perturbed, strict=True):
        if g is None or h is None:
            mixed.append(h * share if h is not None else g * (1 - share) if g is not None else None)
        else:
            mixed.append(torch.lerp(g, h, torch.as_tensor(share, dtype=g.dtype, device=g.device)))
    return mixed
