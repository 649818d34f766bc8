"""Largest eigenvalue and trace of the Hessian of a loss, from Hessian-vector products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

TOLERANCE, VECTORS = 1e-3, 10
"""Of Lanczos: relative error of the eigenvalue, and vectors kept between restarts."""
AT_ONCE = 10
"""Products with as many vectors in one pass."""


def hessian(
    model: nn.Module, parameters: list[nn.Parameter], inputs: Mapping[str, Tensor], labels: Tensor
) -> Any:
    """Hessian of the mean cross-entropy by some parameters, the others held fixed, as a linear operator.

    Args:
        model: maps the inputs to logits, B x C; in evaluation mode.
        parameters: those to differentiate by, in the order of the operator's rows.
        inputs: modality -> input, B x ...
        labels: class numbers, shape (B,).
    """
    from curvlinops import HessianLinearOperator

    return HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        parameters,
        [(dict(inputs), labels)],
        check_deterministic=False,
        batch_size_fn=lambda batch: len(next(iter(batch.values()))),
    )


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Let attention run through operators that have second derivatives."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def top_eigenvalue(operator: Any, source: torch.Generator) -> float:
    """Largest eigenvalue of a symmetric operator by Lanczos iterations from a random vector.

    Where the first product is zero or not finite, as with a dead encoder or an infinite loss, there is
    nothing to iterate on: the result is 0 or not a number.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    start = torch.randn(operator.shape[0], generator=source).to(operator.device, operator.dtype)
    first = operator @ start
    if not first.isfinite().all():
        return math.nan
    if not first.any():
        return 0.0

    def product(v: np.ndarray) -> np.ndarray:
        return (operator @ torch.from_numpy(v).to(start)).double().cpu().numpy()

    (top,) = eigsh(
        LinearOperator(operator.shape, matvec=product, dtype=np.float64),
        k=1,
        which="LA",
        v0=start.double().cpu().numpy(),
        ncv=min(VECTORS, operator.shape[0]),
        tol=TOLERANCE,
        return_eigenvectors=False,
    )
    return float(top)


def trace(operator: Any, samples: int, source: torch.Generator) -> tuple[float, float]:
    """Trace of a symmetric operator and its standard error (Hutchinson 1989).

    Mean of v^T A v over random vectors v of signs.
    """
    signs = 2.0 * torch.randint(2, (samples, operator.shape[0]), generator=source) - 1
    found = []
    for part in signs.to(operator.device, operator.dtype).split(AT_ONCE):
        found.append((part.T * (operator @ part.T)).sum(0))
    products = torch.cat(found)
    return float(products.mean()), float(products.std() / samples**0.5)
