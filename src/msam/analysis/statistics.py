"""Means, paired differences, their Student-t intervals and tests over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and its Student-t interval, whose ends are NaN for fewer than two seeds."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval, NaN where there is none."""
        return (self.high - self.low) / 2

    @property
    def exists(self) -> bool:
        """Whether there were enough seeds for an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def scaled(self, factor: float) -> Interval:
        """The interval in other units, for instance percent."""
        return Interval(factor * self.mean, factor * self.low, factor * self.high, self.n)

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside the interval, the ends included; False without an interval."""
        return self.exists and self.low <= value <= self.high


def t_quantile(n: float | np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Two-sided Student-t quantile for `n` observations (NaN for n < 2)."""
    from scipy.special import stdtrit

    freedom = np.asarray(n, dtype=float) - 1
    return np.where(freedom > 0, stdtrit(np.where(freedom > 0, freedom, 1.0), 0.5 + confidence / 2), np.nan)


def mean_interval(values: Iterable[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of `values` (one a seed, NaN left out) with its Student-t interval."""
    data = np.asarray(list(values), dtype=float)
    data = data[~np.isnan(data)]
    n = len(data)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(data.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = float(t_quantile(n, confidence)) * float(data.std(ddof=1)) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def combined_interval(groups: Sequence[tuple[float, np.ndarray]], confidence: float = CONFIDENCE) -> Interval:
    """Weighted sum of the means of independent groups, with the interval of Welch (1947) and Satterthwaite.

    Args:
        groups: weight and values (one a seed, no NaN) of each; one group of weight 1 gives `mean_interval`.
        confidence: of the interval.

    Returns:
        The sum; n is that of the smallest group. No interval where a group has fewer than two values.
    """
    n = min(len(values) for _, values in groups)
    mean = float(sum(weight * values.mean() for weight, values in groups)) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    variances = np.array([weight**2 * values.var(ddof=1) / len(values) for weight, values in groups])
    freedoms = np.array([len(values) - 1 for _, values in groups])
    total = variances.sum()
    freedom = total**2 / (variances**2 / freedoms).sum() if total else 1.0
    half = float(t_quantile(freedom + 1, confidence) * np.sqrt(total))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(first: pd.Series, second: pd.Series, confidence: float = CONFIDENCE) -> Interval:
    """Mean of first - second over the seeds both have, with its interval; both series are indexed by seed."""
    return mean_interval((first - second).dropna(), confidence)


def paired_test(differences: Iterable[float], alternative: str = "two-sided") -> float:
    """P value of Student's t test that the mean of paired differences is zero.

    Args:
        differences: one a seed, no NaN. Where all are equal, the test is certain unless they are zero.
        alternative: two-sided, greater or less, as in SciPy.

    Returns:
        The p value; 1 for fewer than two seeds.
    """
    from scipy.special import stdtr

    data = np.asarray(list(differences), dtype=float)
    n = len(data)
    if n < 2:
        return 1.0
    error = data.std(ddof=1) / np.sqrt(n)
    mean = data.mean()
    if error <= np.finfo(float).eps * abs(mean):  # equal values, up to rounding
        right = {"two-sided": mean != 0, "greater": mean > 0, "less": mean < 0}[alternative]
        return float(not right)
    t = mean / error
    tails = {"two-sided": 2 * stdtr(n - 1, -abs(t)), "greater": stdtr(n - 1, -t), "less": stdtr(n - 1, t)}
    return float(tails[alternative])


def equivalent(differences: Iterable[float], margin: float) -> float:
    """P value of the two one-sided tests (Schuirmann, 1987) that the mean lies between -margin and margin.

    Args:
        differences: one a seed, no NaN.
        margin: in the unit of the differences.
    """
    data = np.asarray(list(differences), dtype=float)
    return max(paired_test(data + margin, "greater"), paired_test(data - margin, "less"))


def detectable(differences: Iterable[float], alpha: float, power: float) -> float:
    """The true mean that a one-sided t test of paired differences would find with a given probability.

    Args:
        differences: one a seed, two or more, no NaN; only their number and their spread count.
        alpha: level of the test.
        power: that probability.
    """
    from scipy.special import nctdtrinc, stdtrit

    data = np.asarray(list(differences), dtype=float)
    n = len(data)
    shift = nctdtrinc(n - 1, 1 - power, stdtrit(n - 1, 1 - alpha))  # in standard errors
    return float(shift * data.std(ddof=1) / np.sqrt(n))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down rule (1979), in the order given."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(raised, 1.0)[np.argsort(order)].tolist()


def supported_best(values: Mapping[str, pd.Series], confidence: float = CONFIDENCE) -> str | None:
    """Name of the method whose paired difference to *every* other one has an interval above zero.

    All comparisons have to hold at once (an intersection-union test), so their number needs no correction.

    Args:
        values: method name -> accuracies indexed by seed. A method without values (failed, missing) counts as
            not beaten; leave out a method that is not defined here.
        confidence: of each interval.

    Returns:
        The name, or None where no method is supported by the seeds there are (one method alone never is).
    """
    present = {name: series.mean() for name, series in values.items() if series.notna().any()}
    if not present or len(values) < 2:
        return None
    best = max(present, key=lambda name: present[name])
    others = [series for name, series in values.items() if name != best]
    above = [paired_difference(values[best], series, confidence).low > 0 for series in others]
    return best if all(above) else None


def summarize(frame: pd.DataFrame, by: list[str], value: str, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Mean, interval and number of seeds of `value` in each group: the columns `by`, mean, low, high, n."""
    groups = frame.dropna(subset=[value]).groupby(by, sort=False)[value]
    out = groups.agg(mean="mean", deviation="std", n="count").reset_index()
    n = out["n"].to_numpy(dtype=float)
    half = t_quantile(n, confidence) * out["deviation"].to_numpy(dtype=float) / np.sqrt(np.maximum(n, 1))
    out["low"], out["high"] = out["mean"] - half, out["mean"] + half
    return out[[*by, "mean", "low", "high", "n"]]


def spread(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns of a CSV."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high, "n": interval.n}
