"""Statistics over the runs of many cells: interquartile mean, ranks, probability of improvement, profile.

The estimators and the bootstrap are those of Agarwal et al. (2021), "Deep reinforcement learning at the edge
of the statistical precipice", NeurIPS 34.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from msam.analysis.statistics import CONFIDENCE

REPEATS = 2000
SEED = 0  # of the bootstrap's generator: the same records give the same interval


def iqm(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis: a quarter, rounded down, is cut off each end."""
    n = values.shape[-1]
    return np.sort(values, axis=-1)[..., n // 4 : n - n // 4].mean(axis=-1)


def pooled(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The runs of several cells on one axis, the last, repeated until every cell has as many.

    So cells weigh alike, however many seeds each has.
    """
    sizes = [rows.shape[-1] for rows in samples]
    most = math.lcm(*sizes)
    repeated = [np.repeat(rows, most // size, axis=-1) for rows, size in zip(samples, sizes, strict=True)]
    return np.concatenate(repeated, axis=-1)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value on the last axis, 1 for the largest; ties share their mean, NaN has none."""
    mine, others = values[..., :, None], values[..., None, :]
    place = 0.5 + (others > mine).sum(axis=-1) + (others == mine).sum(axis=-1) / 2
    return np.where(np.isnan(values), np.nan, place)


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """P(X > Y) + P(X = Y) / 2 over all pairs of runs of the last axes: Mann and Whitney's U / (n m)."""
    return np.heaviside(first[..., :, None] - second[..., None, :], 0.5).mean(axis=(-2, -1))


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Fraction of the scores of the last axis that are above each threshold: a last axis of thresholds."""
    return (scores[..., :, None] > thresholds).mean(axis=-2)


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis of the values that are numbers, NaN where there is none."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def stratified_bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    confidence: float = CONFIDENCE,
    repeats: int = REPEATS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A statistic of runs in strata, with a percentile interval: runs are drawn again within each stratum.

    Args:
        strata: arrays runs x anything, for instance the seeds of one cell.
        statistic: takes the strata with one more axis in front, the samples; gives an array with that axis.
        confidence: of the interval.
        repeats: number of samples.

    Returns:
        Estimate, low and high; the ends are NaN where a stratum has fewer than two runs.
    """
    random = np.random.default_rng(SEED)
    samples = [rows[random.integers(len(rows), size=(repeats, len(rows)))] for rows in strata]
    estimate = statistic([rows[None] for rows in strata])[0]
    if min(map(len, strata)) < 2:
        return estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(samples), [tail, 1 - tail], axis=0)
    return estimate, low, high
