"""The tables and sentences of the comparison of all methods over the blocks of dataset and fusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.names import in_order, label
from msam.analysis.provenance import footer
from msam.analysis.ranking import against, grids, ranking
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import Interval, paired_difference, spread
from msam.analysis.table import DASH, Block, Table, grouped, number

NO_RECORDS = "There are no records yet, so nothing can be compared."
BOOTSTRAP = (
    "95 % intervals of ranks, interquartile means and probabilities: percentile bootstrap over the seeds of "
    "each cell, which is too narrow for so few."
)
UNCORRECTED = "Readings are not corrected for the number of comparisons."


def parts(study: Study) -> dict[str, str | None]:
    """The groups of blocks that tables show: heading -> level; all together first where there are several."""
    found = levels.grouped(study, [dataset for dataset, _ in grids(study)], grids(study))
    every = {f"all: {', '.join(found)}": None} if len(found) > 1 else {}
    return every | {level: level for level in found}


def ranking_table(study: Study) -> Table:
    """Mean rank and interquartile mean of every method; those that lack blocks in parts of their own."""
    found = {heading: ranking(study, level) for heading, level in parts(study).items()}
    blocks = tuple(
        Block(pd.DataFrame([_ranking_texts(row) for row in rows.itertuples()]), heading + more)
        for heading, part in found.items()
        for rows, more in ((part[part["complete"]], ""), (part[~part["complete"]], ": not in all blocks"))
        if len(rows)
    )
    data = _numbers(found, {"rank": 1, "score": 1})
    note = (
        "Mean rank: by fused test accuracy among the methods, mean over seeds and blocks, 1 is best; a run "
        "that diverged is last there and left out of the interquartile mean. "
        "Interquartile mean: the middle half of all runs, each in percent of joint training's mean in its "
        "block; blocks weigh alike, however many seeds they have. n: seeds of a cell. A method that lacks "
        "blocks is ranked only where it has runs, so its numbers are not comparable with the others'. "
        f"{BOOTSTRAP}"
    )
    return Table("Mean rank and interquartile mean", blocks, data, note, footer(study), file="ranking")


def against_table(study: Study, first: str = "msam", noun: str = "method") -> Table:
    """`against` as a table: the mean difference in points, P(first > method), and counts of blocks.

    Args:
        study: the records.
        first: the method that the others are compared with.
        noun: what the others are, in the study's words.
    """
    found = {heading: against(study, first, level) for heading, level in parts(study).items()}

    def texts(row: Any) -> dict[str, Any]:
        return {
            noun: label(row.name),
            "difference (points)": number(row.difference.scaled(100), 2, signed=True),
            "n": levels.span((row.n, row.most)),
            "reading": VERDICTS[verdict(row.difference)],
            "P(better)": span(row.probability, 2),
            "blocks": row.blocks,
            "higher": row.higher,
            "lower": row.lower,
            "not told apart": row.apart,
        }

    blocks = [
        Block(pd.DataFrame([texts(row) for row in part.itertuples()]), heading)
        for heading, part in found.items()
    ]
    note = (
        f"{label(first)} minus the {noun} in fused test accuracy after the last epoch, mean over the blocks "
        "in which both have runs, paired by seed, ± half of the 95 % Student-t interval over n seeds: within "
        "a level the blocks are averaged seed by seed. Levels together: each weighs by its blocks, Welch's "
        "interval, as groups that are independent of each other. "
        f"P: probability that a run of {label(first)} is better than one of the {noun} in the same block, "
        "ties count one half, a run that diverged is worse than any other. Higher, lower: in how many "
        f"blocks. {UNCORRECTED} {BOOTSTRAP}"
    )
    title = f"{label(first)} against every {noun}"
    data = _numbers(found, {"difference": 100, "probability": 1})
    return Table(title, tuple(blocks), data, note, footer(study), file="against")


def cells_table(study: Study, first: str = "msam", noun: str = "method") -> Table:
    """Differences of `first` to every method in each block; bold where the interval excludes zero."""
    cells = grids(study)
    names = in_order(name for grid in cells.values() for name in grid.columns if name != first)
    counts: list[tuple[str, int]] = []
    rows, strong, data = [], set(), []
    for i, name in enumerate(names):
        row = {("", noun): label(name)}
        for (dataset, fusion), grid in cells.items():
            column = (f"{dataset}: {evidence(study, dataset)}", fusion)
            row[column] = DASH
            if {first, name} <= set(grid.columns):
                points = paired_difference(grid[first], grid[name]).scaled(100)
                row[column] = (
                    f"{number(points, 2, signed=True)}{'' if points.exists else f' (n = {points.n})'}"
                )
                if verdict(points) in ("higher", "lower"):
                    strong.add((i, column))
                where = {
                    "dataset": dataset,
                    "level": evidence(study, dataset),
                    "fusion": fusion,
                    "method": name,
                }
                data.append(where | spread("points", points))
                counts.append((dataset, points.n))
        rows.append(row)
    seeds = levels.seeds(study, [dataset for dataset, _ in counts], [n for _, n in counts])
    note = (
        f"{label(first)} minus the {noun} in points of fused test accuracy, paired by seed, ± half of the "
        f"95 % interval over seeds: {seeds}. Bold: the interval excludes zero. {UNCORRECTED}"
    )
    title = f"{label(first)} minus every {noun}, block by block"
    blocks = (Block(grouped(rows), strong=frozenset(strong)),)
    return Table(title, blocks, pd.DataFrame(data), note, footer(study), file="against_cells")


def rank_sentence(study: Study, name: str = "msam") -> str:
    """The mean rank of a method among those in all blocks, and which one ranks best; then level by level."""
    texts = [_place(ranking(study, level), at, name) for level, at in _places(study)]
    return " ".join(texts) or NO_RECORDS


def _places(study: Study) -> list[tuple[str | None, str]]:
    """The level of each of `parts`, and how a sentence says it: not where there is only one."""
    found = parts(study).values()
    return [(level, f" at the level {level}" if level and len(found) > 1 else "") for level in found]


def _place(found: pd.DataFrame, at: str, name: str) -> str:
    found = found[found["complete"]].reset_index(drop=True)
    if found.empty:
        return f"No method has runs in all blocks{at}."
    best = found.iloc[0]
    where = f"Among the {len(found)} methods in all blocks{at} ({best['blocks']})"
    lead = f"{label(best['name'])} has the best mean rank, {span(best['rank'], 1)}"
    if name not in set(found["name"]):
        return f"{where}, {lead}; {label(name)} has no runs in some of them."
    if best["name"] == name:
        return f"{where}, {lead}."
    mine = found.set_index("name").loc[name, "rank"]
    better = int((found["rank"].map(lambda rank: rank.mean) < mine.mean).sum())
    before = f"{better} method{'' if better == 1 else 's'}"
    return f"{where}, {lead}; {label(name)} has {span(mine, 1)}, with {before} before it."


def against_sentence(study: Study, first: str = "msam", noun: str = "methods") -> str:
    """Than how many others `first` is higher in the mean over blocks, and than which it is lower."""
    found = {
        at: readings(rows, "difference", noun)
        for level, at in _places(study)
        if len(rows := against(study, first, level))
    }
    (at, text), *more = found.items() or [("", "")]
    text = f"In the mean over blocks{at}, {label(first)} {text}"
    text += "".join(f";{other} it {its}" for other, its in more)
    return f"{text}." if found else f"There are no records of {label(first)} beside another method yet."


def readings(found: pd.DataFrame, column: str, noun: str = "methods") -> str:
    """Counts of what the intervals of a column say about each row, with the names of the lower ones."""
    words = found[column].map(verdict)
    names = [label(name) for name in found.loc[words == "lower", "name"]]
    counts = Counter(words)
    text = f"is higher than {counts['higher']} of {len(found)} {noun}, lower than {counts['lower']}"
    text += f" ({', '.join(names)})" if names else ""
    text += f", and cannot be told apart from {counts['apart']}"
    return text + (f"; {counts['unknown']} share too few seeds with it" if counts["unknown"] else "")


def span(interval: Interval, digits: int) -> str:
    """An estimate and the ends of its interval: "0.71 (0.60 to 0.82)"."""
    if np.isnan(interval.mean):
        return DASH
    value = f"{interval.mean:.{digits}f}"
    ends = f" ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
    return value + (ends if interval.exists else "")


def _ranking_texts(row: Any) -> dict[str, Any]:
    return {
        "method": label(row.name),
        "mean rank": span(row.rank, 1),
        "interquartile mean (% of joint)": span(row.score, 1),
        "blocks": row.blocks,
        "n": levels.span((row.n, row.most)),
    }


def _numbers(found: Mapping[str, pd.DataFrame], columns: Mapping[str, float]) -> pd.DataFrame:
    """The frames of all groups of blocks, each column of intervals, times a factor, as three of numbers."""
    frames = []
    for heading, part in found.items():
        out = part.drop(columns=list(columns))
        out.insert(0, "evidence", heading)
        for name, factor in columns.items():
            intervals = [interval.scaled(factor) for interval in part[name]]
            for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
                out[name + suffix] = [getattr(interval, end) for interval in intervals]
        frames.append(out)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
