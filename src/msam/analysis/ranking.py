"""All methods side by side over the blocks, dataset x fusion: ranks, means, M-SAM against each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pandas as pd

from msam.analysis import aggregate, levels
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import CELL, is_unimodal
from msam.analysis.names import in_order
from msam.analysis.sources import Study
from msam.analysis.statistics import Interval, combined_interval, mean_interval, paired_difference

Grids = dict[tuple[str, str], pd.DataFrame]


@lru_cache(maxsize=32)
def grids(study: Study, level: str | None = None, rule: str = "last") -> Grids:
    """(dataset, fusion) -> fused test accuracy, seeds x multimodal methods, NaN: none; all levels or one."""
    runs = study.frames.runs
    runs = runs[(runs["rule"] == rule) & (runs["split"] == "test") & (runs["output"] == "fused")]
    runs = runs[~is_unimodal(runs["name"])]
    found = {key: rows.pivot(index="seed", columns="name", values="accuracy") for key, rows in _blocks(runs)}
    order = list(study.cells[["dataset", "fusion"]].drop_duplicates().itertuples(index=False, name=None))
    return {key: found[key] for key in order if key in found and level in (None, study.levels[key[0]])}


def normalized(cells: Grids, reference: str = "joint") -> Grids:
    """Accuracies in percent of the reference's mean in the same block; blocks without it are left out."""
    return {
        key: 100 * grid / grid[reference].mean() for key, grid in cells.items() if reference in grid.columns
    }


@lru_cache(maxsize=8)
def ranking(study: Study, level: str | None = None, rule: str = "last") -> pd.DataFrame:
    """Every multimodal method with records, those in all blocks first, best mean rank first.

    Args:
        study: the records.
        level: evidence level of the blocks; all blocks if not given.
        rule: which chooses the epoch.

    Returns:
        A row for each: name, blocks (number it has runs in), complete (whether these are all), rank
        (Interval: mean over its blocks and seeds of its rank among the methods there), score (Interval:
        interquartile mean of its runs' accuracies in percent of joint's mean, blocks weighing alike), n and
        most (seeds of the cells with fewest and with most).
    """
    cells = grids(study, level, rule)
    names = in_order(name for grid in cells.values() for name in grid.columns)
    rank, scores = _mean_ranks(study, cells, names), normalized(cells)
    rows = []
    for name in names:
        counts = [int(grid[name].count()) for grid in cells.values() if name in grid.columns]
        runs = strata(scores, name)
        score = Interval(*_bootstrap(runs, _pooled_iqm), min(map(len, runs))) if runs else mean_interval([])
        complete = len(counts) == len(cells)
        rows.append((name, len(counts), complete, rank[name], score, min(counts), max(counts)))
    columns = ["name", "blocks", "complete", "rank", "score", "n", "most"]
    out = pd.DataFrame(rows, columns=columns).astype({"complete": bool})
    place = [(not row.complete, row.rank.mean) for row in out.itertuples()]
    return out.iloc[sorted(range(len(out)), key=place.__getitem__)].reset_index(drop=True)


@lru_cache(maxsize=8)
def against(study: Study, first: str = "msam", level: str | None = None) -> pd.DataFrame:
    """`first` against every other multimodal method over the blocks where both have runs.

    Args:
        study: the records.
        first: a method.
        level: evidence level of the blocks; all blocks if not given.

    Returns:
        A row for each: name, blocks, n and most (seeds of the levels with fewest and with most), difference
        (Interval: first - name, see `overall`), probability (Interval: P(first > name), mean over blocks),
        and higher, lower, apart, unknown (in how many blocks the interval of the difference says so).
    """
    cells = grids(study, level)
    names = in_order(name for grid in cells.values() for name in grid.columns if first in grid.columns)
    full = {key: _diverged_last(study, key, grid) for key, grid in cells.items()}
    rows = []
    for name in names:
        if name == first:
            continue
        both = {key: grid[[first, name]] for key, grid in cells.items() if {first, name} <= set(grid.columns)}
        found = Counter(verdict(paired_difference(grid[first], grid[name])) for grid in both.values())
        apart = levels.grouped(study, [d for d, _ in both], [g[first] - g[name] for g in both.values()])
        difference, most = overall(apart), max(len(_by_seed(part)) for part in apart.values())
        row = {"name": name, "blocks": len(both), "n": difference.n, "most": most, "difference": difference}
        row |= {"probability": _improvement([full[key] for key in both], first, name)}
        rows.append(row | {word: found[word] for word in VERDICTS})
    columns = ["name", "blocks", "n", "most", "difference", "probability", *VERDICTS]
    return pd.DataFrame(rows, columns=columns)


def overall(differences: Mapping[str, list[pd.Series]]) -> Interval:
    """Mean over blocks of a number by seed.

    Within a level it is averaged over the blocks seed by seed, over the seeds that all of them have; levels
    may have other seeds, and are combined as independent groups that weigh by their blocks.

    Args:
        differences: level -> the numbers of each of its blocks, indexed by seed.
    """
    cells = sum(map(len, differences.values()))
    return combined_interval([(len(part) / cells, _by_seed(part)) for part in differences.values()])


def _by_seed(differences: list[pd.Series]) -> np.ndarray:
    return pd.concat(differences, axis=1).mean(axis=1, skipna=False).dropna().to_numpy()


def profile(study: Study, names: Iterable[str], points: int = 121) -> pd.DataFrame:
    """Performance profiles: the fraction of a method's runs whose normalized accuracy is above a threshold.

    Returns:
        A row for each method and threshold: name, x (threshold), mean (the fraction, mean over blocks), low,
        high.
    """
    scores = normalized(grids(study))
    runs = {name: found for name in names if (found := strata(scores, name))}
    if not runs:
        return pd.DataFrame(columns=["name", "x", "mean", "low", "high"])
    every = np.concatenate([part for found in runs.values() for part in found])
    thresholds = np.linspace(every.min() - 1, every.max() + 1, points)

    def fraction(samples: Iterable[np.ndarray]) -> np.ndarray:
        return np.mean([aggregate.performance_profile(rows, thresholds) for rows in samples], axis=0)

    frames = []
    for name, found in runs.items():
        mean, low, high = aggregate.stratified_bootstrap(found, fraction)
        frames.append(pd.DataFrame({"name": name, "x": thresholds, "mean": mean, "low": low, "high": high}))
    return pd.concat(frames, ignore_index=True)


def strata(cells: Grids, name: str) -> list[np.ndarray]:
    """The runs of a method, one array a block that has any."""
    columns = [grid[name].dropna().to_numpy() for grid in cells.values() if name in grid.columns]
    return [column for column in columns if len(column)]


def _blocks(runs: pd.DataFrame) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    return ((key, rows) for key, rows in runs.groupby(["dataset", "fusion"]))


def _diverged_last(study: Study, block: tuple[str, str], grid: pd.DataFrame) -> pd.DataFrame:
    """A block's accuracies, -1 for runs that diverged."""
    seeds = study.frames.seeds[study.frames.seeds["state"] == "diverged"]
    diverged = set(seeds[[*CELL, "seed"]].itertuples(index=False, name=None))
    lost = [[(*block, name, seed) in diverged for name in grid.columns] for seed in grid.index]
    return grid.mask(np.array(lost, dtype=bool).reshape(grid.shape), -1.0)


def _mean_ranks(study: Study, cells: Grids, names: list[str]) -> dict[str, Interval]:
    """Mean over blocks of each method's mean rank over seeds, with its interval; diverged runs are last."""
    if not cells:
        return {}
    places = [
        aggregate.ranks(_diverged_last(study, block, grid.reindex(columns=names)).to_numpy())
        for block, grid in cells.items()
    ]

    def mean_rank(samples: Iterable[np.ndarray]) -> np.ndarray:
        return aggregate.mean(np.stack([aggregate.mean(sample, axis=-2) for sample in samples]), axis=0)

    estimate, low, high = aggregate.stratified_bootstrap(places, mean_rank)
    fewest = min(map(len, places))
    return {name: Interval(estimate[i], low[i], high[i], fewest) for i, name in enumerate(names)}


def _pooled_iqm(samples: Iterable[np.ndarray]) -> np.ndarray:
    return aggregate.iqm(aggregate.pooled(list(samples)))


def _improvement(both: list[pd.DataFrame], first: str, second: str) -> Interval:
    """P(first > second), mean over blocks; the runs of the two methods are drawn apart from each other."""
    pairs = [[grid[name].dropna().to_numpy() for name in (first, second)] for grid in both]
    runs = [column for pair in pairs if all(map(len, pair)) for column in pair]
    if not runs:
        return mean_interval([])

    def probability(samples) -> np.ndarray:
        found = [
            aggregate.probability_of_improvement(one, two)
            for one, two in zip(samples[::2], samples[1::2], strict=True)
        ]
        return np.mean(found, axis=0)

    return Interval(*_bootstrap(runs, probability), min(map(len, runs)))


def _bootstrap(runs: list[np.ndarray], statistic) -> tuple[float, float, float]:
    estimate, low, high = aggregate.stratified_bootstrap(runs, statistic)
    return float(estimate), float(low), float(high)
