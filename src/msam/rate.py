r"""The claimed rate on a problem whose gradient is known: `msam rate`.

A linear classifier w of two modalities x = (x_a, x_b), labels y in {-1, 1}, the loss of Geman and McClure:

    L(w) = mean of psi(y - <x, w>),    psi(r) = r^2 / (2 (1 + r^2))

It is smooth, not convex, and bounded. Every example has length one, |psi'| <= 9 / (16 sqrt 3) and
-1/4 <= psi'' <= 1, so the gradient of every batch is bounded by `BOUND` and `LIPSCHITZ`-Lipschitz.
Steps are those of Algorithm 1 with mini-batches; the share of the perturbed gradient is chosen by a rule.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msam.cells import describe_device
from msam.optim._update import EPSILON
from msam.records import provenance, write
from msam.shapley import normalized, shapley_values

LIPSCHITZ = 1.0
BOUND = 9 / (16 * math.sqrt(3))
EXAMPLES, DIMENSIONS, BATCH = 256, 4, 32
STRENGTHS, FLIPPED = (1.0, 0.5), 0.1
ETA, RHO = 1 / LIPSCHITZ, 0.5
CONSTANT_RHO = 0.05
STEPS, SEEDS, HORIZONS, DESCENT_STEPS = 30_000, 12, 20, 2000
EPOCH = EXAMPLES // BATCH

SCHEDULES: dict[str, Callable[[int], tuple[float, float]]] = {
    "sqrt": lambda t: (ETA / math.sqrt(t), RHO / math.sqrt(t)),
    "steps": lambda t: (ETA * 0.1 ** ((t - 1) // 70), CONSTANT_RHO),
    "epochs": lambda t: (ETA * 0.1 ** ((t - 1) // (70 * EPOCH)), CONSTANT_RHO),
}
"""Step t = 1, 2, ... -> learning rate and radius: the proof's, and the paper's practice, times 0.1 every 70
iterations (its Section 3.6) or epochs (its Section 4.2)."""

RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dynamic": lambda shares, _coin: shares.amax(-1),
    "fixed a": lambda shares, _coin: shares[..., 0],
    "fixed b": lambda shares, _coin: shares[..., 1],
    "random": lambda shares, coin: torch.where(coin[:, None], shares[..., 0], shares[..., 1]),
    "sam": lambda shares, _coin: torch.ones_like(shares[..., 0]),
    "sgd": lambda shares, _coin: torch.zeros_like(shares[..., 0]),
}
"""Rule -> share of the perturbed gradient, S x R, from the shares of the batch, S x R x 2, and a coin, S."""


class Problem(NamedTuple):
    """Examples of length one, N x 2 D with modality a first, and labels in {-1, 1}, N; float64."""

    inputs: Tensor
    labels: Tensor


def problem() -> Problem:
    """The examples: modality a is twice as strong as b, and a tenth of the labels is flipped."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(EXAMPLES).remainder(2).double() * 2 - 1
    noise = torch.randn(EXAMPLES, 2 * DIMENSIONS, generator=source, dtype=torch.float64)
    strength = torch.tensor(STRENGTHS, dtype=torch.float64).repeat_interleave(DIMENSIONS)
    inputs = torch.nn.functional.normalize(labels[:, None] * strength + noise)
    flipped = torch.rand(EXAMPLES, generator=source) < FLIPPED
    return Problem(inputs, torch.where(flipped, -labels, labels))


def loss(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss, ... x R, of weights ... x R x D on inputs ... x B x D and labels ... x B."""
    squares = _residuals(weights, inputs, labels).square()
    return (squares / (2 * (1 + squares))).mean(-1)


def gradient(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of `loss`, ... x R x D."""
    residuals = _residuals(weights, inputs, labels)
    slopes = residuals / (1 + residuals.square()).square()
    return slopes @ inputs / -inputs.shape[-2]


def _residuals(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    return labels[..., None, :] - weights @ inputs.mT


def shares(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Shares of both modalities, ... x R x 2, from the accuracies of the coalitions (Eq. 20).

    As `msam.coalitions.batch_shares`, for many runs at once.
    """
    parts = {"a": slice(None, DIMENSIONS), "b": slice(DIMENSIONS, None), "ab": slice(None)}
    scores = {names: weights[..., part] @ inputs[..., part].mT for names, part in parts.items()}
    right = {frozenset(names): labels[..., None, :] * score > 0 for names, score in scores.items()}
    values = shapley_values({names: hit.double().mean(-1) for names, hit in right.items()})
    return normalized(torch.stack([values["a"], values["b"]], -1))


def mixed_gradient(weights: Tensor, inputs: Tensor, labels: Tensor, share: Tensor, rho: Tensor) -> Tensor:
    """Gradient of Algorithm 1, ... x R x D: share * g(w + eps) + (1 - share) * g(w).

    `share` and `rho`, the length of eps, are ... x R. As `msam.ModalityAwareSAM`, for many runs at once.
    """
    clean = gradient(weights, inputs, labels)
    eps = rho[..., None] * clean / (clean.norm(dim=-1, keepdim=True) + EPSILON)
    return torch.lerp(clean, gradient(weights + eps, inputs, labels), share[..., None])


def spaced(steps: int) -> list[int]:
    """About 20 whole numbers from 10 to `steps`, evenly spaced in their logarithm."""
    return sorted({round(10 * (steps / 10) ** (i / (HORIZONS - 1))) for i in range(HORIZONS)})


def measure(data: Problem, steps: int = STEPS, seeds: int = SEEDS) -> dict[str, Any]:
    """Squared norms of the full gradient along runs of every schedule, rule and seed.

    A seed fixes the first weights and the batches, which are drawn with replacement; all schedules and rules
    see the same ones.

    Returns:
        `horizons`: numbers of steps T. `runs`: of each schedule, rule and seed the `average` and the
        `smallest` of |grad L(w_t)|^2, t = 1 ... T, at every horizon T, `loss` at w_1 and the mean `share`.
    """
    horizons = spaced(steps)
    sources = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    lines = [(schedule, rule) for schedule in SCHEDULES for rule in RULES]
    first = torch.stack([torch.randn(2 * DIMENSIONS, generator=g, dtype=torch.float64) for g in sources])
    weights = first[:, None].repeat(1, len(lines), 1)
    start = loss(weights, *data)
    total, taken = torch.zeros_like(start), torch.zeros_like(start)
    least = torch.full_like(start, math.inf)
    averages, smallest = [], []
    for t in range(1, steps + 1):
        squared = gradient(weights, *data).square().sum(-1)
        total, least = total + squared, torch.minimum(least, squared)
        if t in horizons:
            averages.append(total / t)
            smallest.append(least)
        chosen = torch.stack([torch.randint(EXAMPLES, (BATCH,), generator=g) for g in sources])
        coin = torch.stack([torch.rand((), generator=g) < 0.5 for g in sources])
        weights, share = _step(weights, data.inputs[chosen], data.labels[chosen], coin, t)
        taken = taken + share
    kept, low = torch.stack(averages, -1), torch.stack(smallest, -1)
    runs = [
        {"schedule": schedule, "rule": rule, "seed": seed, "loss": float(start[seed, i])}
        | {"share": float(taken[seed, i] / steps)}
        | {"average": _short(kept[seed, i]), "smallest": _short(low[seed, i])}
        for i, (schedule, rule) in enumerate(lines)
        for seed in range(seeds)
    ]
    return {"horizons": horizons, "runs": runs}


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _step(weights: Tensor, inputs: Tensor, labels: Tensor, coin: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Weights after step t, S x R x D with R schedules times rules, and the shares used, S x R."""
    found = shares(weights, inputs, labels).unflatten(1, (len(SCHEDULES), len(RULES)))
    share = torch.stack([choose(found[:, :, i], coin) for i, choose in enumerate(RULES.values())], 2).flatten(
        1
    )
    pairs = torch.tensor([schedule(t) for schedule in SCHEDULES.values()], dtype=weights.dtype)
    eta, rho = pairs.repeat_interleave(len(RULES), 0).T
    return weights - eta[:, None] * mixed_gradient(weights, inputs, labels, share, rho), share


def descent(data: Problem, steps: int = DESCENT_STEPS) -> list[dict[str, Any]]:
    """Steps with the full gradient and the rule `dynamic`, against the bound on the change of the loss.

    Returns:
        A row a step: `step`, `share`, `change` = L(w_{t+1}) - L(w_t), and the three terms of the bound:
        `gradient` = -eta |g|^2, `perturbation` = v K G eta rho, `curvature` = K G^2 eta^2 / 2.
    """
    weights = torch.randn(1, 2 * DIMENSIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = []
    for t in range(1, steps + 1):
        eta, rho = SCHEDULES["sqrt"](t)
        share = shares(weights, *data).amax(-1)
        step = mixed_gradient(weights, *data, share, torch.tensor([rho], dtype=weights.dtype))
        after = weights - eta * step
        rows.append(
            {
                "step": t,
                "share": float(share),
                "change": float(loss(after, *data) - loss(weights, *data)),
                "gradient": -eta * float(gradient(weights, *data).square().sum()),
                "perturbation": float(share) * LIPSCHITZ * BOUND * eta * rho,
                "curvature": LIPSCHITZ * BOUND**2 * eta**2 / 2,
            }
        )
        weights = after
    return rows


def run(output: Path, steps: int = STEPS, seeds: int = SEEDS) -> dict[str, Any]:
    """Measure, write the record, and return it.

    Raises:
        OSError: the folder of the record cannot be written.
    """
    started, data = time.perf_counter(), problem()
    checksum = hashlib.sha256(b"".join(part.numpy().tobytes() for part in data)).hexdigest()
    rows = descent(data)
    above = [row["change"] > row["gradient"] + row["perturbation"] + row["curvature"] for row in rows]
    shown = [row for row in rows if row["step"] in spaced(len(rows))]
    content: dict[str, Any] = {"descent": {"steps": len(rows), "violations": sum(above), "rows": shown}}
    content["measured"] = measure(data, steps, seeds)
    about = provenance(describe_device(torch.device("cpu")), checksum) | {
        "seconds": round(time.perf_counter() - started, 1)
    }
    settings = {"lipschitz": LIPSCHITZ, "bound": BOUND, "eta": ETA, "rho": RHO, "constant_rho": CONSTANT_RHO}
    settings |= {"steps": steps, "seeds": seeds, "examples": EXAMPLES, "batch": BATCH}
    record = {"provenance": about, "settings": settings, **content}
    write(output, record)
    return record
