"""The arithmetic of SAM and M-SAM on lists of tensors: no optimizer, no state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msam.optim import _workers

EPSILON = 1e-12
"""Added to the gradient norm, so that a zero gradient gives a zero perturbation."""


def global_norm(gradients: list[Tensor]) -> Tensor:
    """L2 norm over all entries of all tensors, a 0-dim tensor (no host synchronization)."""
    half = any(g.dtype in (torch.float16, torch.bfloat16) for g in gradients)
    norms = torch._foreach_norm(gradients, 2, torch.float32 if half else None)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def fused_check(tensors: list[Tensor]) -> Tensor:
    """A 0-dim tensor that is finite where all entries are (and can be added)."""
    if not _loops(tensors[0]):
        return global_norm(tensors)
    return torch._utils._flatten_dense_tensors(tensors).sum()  # faster than a norm a tensor


def _loops(tensor: Tensor) -> bool:
    """Whether torch takes lists of such tensors one by one: plain ones on the CPU."""
    return tensor.device.type == "cpu" and not hasattr(tensor, "full_tensor")


def _factor(radii: list[float], beside: list[Tensor]) -> list[float] | Tensor:
    """What a list of tensors is multiplied by; one by one a 0-dim tensor of their type is the fastest.

    In half precision it would be rounded first.
    """
    first = beside[0]
    alike = len(set(radii)) == 1 and len({t.dtype for t in beside}) == 1
    fast = alike and _loops(first) and first.dtype.itemsize > 2
    return torch.tensor(radii[0], dtype=first.dtype, device=first.device) if fast else radii


def _separate(tensors: list[Tensor]) -> bool:
    """Whether every entry has memory of its own; autograd may give two parameters views of one gradient."""
    parts = _workers.local(tensors)
    storages = [t.untyped_storage() for t in parts]
    whole = all(s.nbytes() >= t.nbytes for s, t in zip(storages, parts, strict=True))
    return whole and len({s.data_ptr() for s in storages}) == len(storages)


def ascend(
    parameters: list[Tensor],
    gradients: list[Tensor],
    radii: list[float],
    adaptive: bool = False,
    consume: bool = False,
) -> Tensor:
    """Move every parameter in place by eps = rho * g / ||g||_2 (M-SAM Algorithm 1, line 5; SAM Eq. 2).

    Args:
        parameters: tensors that are moved.
        gradients: one gradient a parameter; the norm is taken over all of them together.
        radii: one perturbation radius rho a parameter, in units of the weights.
        adaptive: eps = rho * w^2 * g / || |w| * g ||_2, entry by entry (ASAM, Kwon et al., ICML 2021, Eq. 8,
            without the constant beside |w|); rho then has no unit.
        consume: overwrite the gradients where that is safe, instead of making new tensors.

    Returns:
        The norm that eps was divided by, 0-dim.
    """
    eps = gradients
    if adaptive:
        sizes = list(torch._foreach_abs(parameters))
        eps = list(torch._foreach_mul(gradients, sizes))  # type: ignore[arg-type]
    norm = global_norm(eps)
    if adaptive or (consume and _separate(eps)):
        torch._foreach_div_(eps, norm + EPSILON)
    else:
        eps = list(torch._foreach_div(eps, norm + EPSILON))
    if adaptive:
        torch._foreach_mul_(eps, sizes)  # type: ignore[arg-type]
    torch._foreach_mul_(eps, _factor(radii, eps))
    torch._foreach_add_(parameters, eps)
    return norm


def interpolate(
    clean: Sequence[Tensor | None],
    perturbed: Sequence[Tensor | None],
    share: Tensor | float,
    consume: bool = False,
) -> list[Tensor | None]:
    """Gradient (1 - share) * clean + share * perturbed of Algorithm 1, line 6, with L_d = share * L.

    A missing gradient (None) counts as zero; None where both are missing. Exact at share 0 and 1.

    Args:
        clean: gradients at w.
        perturbed: gradients at w + eps.
        share: a number, or a 0-dim tensor, which the host does not read if it lies where the gradients do.
        consume: overwrite `perturbed` where that is safe.
    """
    whole = [(g, h) for g, h in zip(clean, perturbed, strict=True) if g is not None and h is not None]
    alike = len(whole) == len(clean) and len({g.dtype for g, _ in whole}) == 1
    if alike and not any(hasattr(g, "full_tensor") for g, _ in whole):  # torch shards no _foreach_lerp
        before, after = map(list, zip(*whole, strict=True))
        if isinstance(share, float):
            return list(torch._foreach_lerp(before, after, share))
        share = share.to(before[0].device, before[0].dtype)
        mixed = torch._foreach_mul(before, 1 - share)
        if consume and _separate(after):
            torch._foreach_mul_(after, share)
        else:
            after = list(torch._foreach_mul(after, share))
        torch._foreach_add_(mixed, after)
        return list(mixed)
    return [_mixed(g, h, share) for g, h in zip(clean, perturbed, strict=True)]


def _mixed(g: Tensor | None, h: Tensor | None, share: Tensor | float) -> Tensor | None:
    if g is None or h is None:
        return h * share if h is not None else g * (1 - share) if g is not None else None
    return torch.lerp(g, h, share) if isinstance(share, float) else g * (1 - share) + h * share
