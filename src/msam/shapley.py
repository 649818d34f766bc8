"""Shapley values of modalities and the shares that steer M-SAM (paper, Appendix B)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, reduce
from itertools import combinations
from math import factorial
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value", bound=Tensor | float)
Coalition = frozenset[str]


@cache
def coalitions(modalities: tuple[str, ...]) -> tuple[Coalition, ...]:
    """All 2^M - 1 non-empty sets of modalities, smallest first, the full set last."""
    sizes = range(1, len(modalities) + 1)
    return tuple(frozenset(c) for size in sizes for c in combinations(modalities, size))


@cache
def shapley_weights(modalities: tuple[str, ...]) -> dict[str, dict[Coalition, float]]:
    """Weight c_m(S) of every coalition, the empty one included, in Phi_m = sum_S c_m(S) v(S)."""
    k = len(modalities)

    def chance(size: int) -> float:
        """Chance that m finds this set of others when the modalities arrive in random order."""
        return factorial(size) * factorial(k - size - 1) / factorial(k)

    sets = (frozenset(), *coalitions(modalities))
    return {m: {s: chance(len(s) - 1) if m in s else -chance(len(s)) for s in sets} for m in modalities}


def sampled_weights(modalities: tuple[str, ...], permutations: int) -> dict[str, dict[Coalition, float]]:
    """Weights of `shapley_weights` estimated from random orders of arrival (Castro et al., 2009).

    Args:
        modalities: names.
        permutations: orders that are drawn with torch's global generator.

    Returns:
        Modality -> coalition -> weight; a coalition that no order passes through is absent, so its value is
        not needed. The mean over many draws is `shapley_weights`, and the values always sum to v(all).
    """
    weights: dict[str, dict[Coalition, float]] = {m: {} for m in modalities}
    for _ in range(permutations):
        present: Coalition = frozenset()
        for place in torch.randperm(len(modalities)).tolist():
            m, more = modalities[place], present | {modalities[place]}
            weights[m][more] = weights[m].get(more, 0.0) + 1 / permutations
            weights[m][present] = weights[m].get(present, 0.0) - 1 / permutations
            present = more
    return weights


def shapley_values(values: Mapping[Coalition, Value]) -> dict[str, Value]:
    r"""Shapley value of every modality.

    .. math:: \Phi_m = \sum_{S \subseteq M \setminus \{m\}} \frac{|S|!\,(k-|S|-1)!}{k!}
        \left[v(S \cup \{m\}) - v(S)\right]

    with v(empty) = 0 where it is absent, so that the values sum to v(all) (Eq. 18). For two modalities this
    is half of v(1, 2) - v(2) + v(1); Eq. 19 as printed omits the factor on v(1) and does not sum to v(all).

    Args:
        values: coalition of modality names -> value, a number or a tensor of any shape (logits B x C, say).
            Every non-empty coalition must be there; the empty one may be absent.

    Returns:
        Modality name -> Shapley value, in the shape and unit of the values.

    Raises:
        ValueError: there is no modality, or a coalition is missing.

    Example:
        >>> shapley_values({frozenset("a"): 1.0, frozenset("v"): 3.0, frozenset("av"): 6.0})
        {'a': 2.0, 'v': 4.0}
    """
    names = tuple(sorted({m for s in values for m in s}))
    missing = [set(s) for s in coalitions(names) if s not in values]
    if not names or missing:
        raise ValueError(f"coalition values are missing: {missing or 'there is no modality'}")
    weights = shapley_weights(names)
    return {m: _total(c * values[s] for s, c in weights[m].items() if s in values) for m in names}


def _total(terms: Iterable[Any]) -> Any:
    return reduce(add, terms)


def modality_shares(contributions: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
    """Shares v_m = Phi_m / sum Phi (Eq. 20), made a point of the simplex.

    The paper leaves negative contributions open: they are clipped to 0 before the division, and where
    nothing positive is left, every modality gets 1/M.

    Args:
        contributions: modality name -> scalar contribution, a number or a 0-dim tensor.

    Returns:
        Modality name -> share, 0-dim tensors that are >= 0 and sum to 1, on the device of the contributions;
        all NaN where a contribution or the sum of the positive ones is not finite.

    Raises:
        ValueError: there is no modality, or a contribution is no scalar.

    Example:
        >>> {m: round(float(v), 2) for m, v in modality_shares({"a": 1.0, "v": 3.0, "t": -1.0}).items()}
        {'a': 0.25, 'v': 0.75, 't': 0.0}
    """
    if not contributions:
        raise ValueError("shares need at least one modality")
    scalars = {m: torch.as_tensor(c) for m, c in contributions.items()}
    for m, c in scalars.items():
        if c.ndim:
            raise ValueError(
                f"the contribution of {m!r} must be a number, not a tensor of shape {list(c.shape)}"
            )
    vector = torch.stack(list(scalars.values()))
    wide = vector.to(torch.promote_types(vector.dtype, torch.float32))
    finite = wide.isfinite().all() & wide.clamp(min=0).sum().isfinite()
    shares = torch.where(finite, normalized(wide), torch.nan)
    kept = vector.dtype if vector.is_floating_point() else wide.dtype
    return dict(zip(contributions, shares.to(kept).unbind(), strict=True))


def normalized(contributions: Tensor) -> Tensor:
    """`modality_shares` of a vector of contributions, shape (M,), or of several, shape (..., M)."""
    positive = contributions.clamp(min=0)
    total = positive.sum(-1, keepdim=True)
    return torch.where(total == 0, 1 / positive.shape[-1], positive / total)
