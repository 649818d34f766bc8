"""The reader's own run against the published one, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msam.analysis import profiles
from msam.analysis.metrics import CELL, by_seed
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, read, sorted_cells
from msam.analysis.statistics import mean_interval, paired_difference
from msam.analysis.table import Block, Table, number, percent

EPOCH_KEYS = ["seed", "epoch", "split", "output"]
EPOCH_NUMBERS = ["accuracy", "loss", "share"]
SETTINGS = ["epochs", "lr", "rho"]


def read_both(results: str | Path, local: str | Path) -> tuple[Study, Study]:
    """The published run and the reader's own, of the profiles that both have."""
    both = profiles.shared(Path(results), Path(local))
    return read(results, only=both), read(local, only=both)


@lru_cache(maxsize=8)
def compare(published: Study, local: Study) -> pd.DataFrame:
    """Compare fused test accuracy after the last epoch, and every number of every epoch, cell by cell.

    Returns:
        A row for each cell of either run: dataset, fusion, name, published (Interval), local (Interval),
        difference (Interval of local - published over common seeds), inside ("yes", "no": whether the local
        mean lies in the published interval; "no interval"), identical ("yes", "no": whether all numbers of
        common seeds are equal bit for bit; "other device": they are not, and need not be; "other settings",
        "no common seed"), state.
    """
    first, second = by_seed(published.frames.runs), by_seed(local.frames.runs)
    empty = pd.Series(dtype=float)
    done = [_by_cell(study.frames.cells.query("state == 'done'")) for study in (published, local)]
    epochs = [_by_cell(study.frames.epochs) for study in (published, local)]
    merged = sorted_cells(_all_cells(published, local), [*published.homes, *local.homes])
    rows = []
    for cell in merged.itertuples():
        key = (cell.dataset, cell.fusion, cell.name)
        theirs, mine = first.get(key, empty), second.get(key, empty)
        interval, mean = mean_interval(theirs), mean_interval(mine)
        rows.append(
            {
                "dataset": cell.dataset,
                "evidence": cell.evidence,
                "fusion": cell.fusion,
                "name": cell.name,
                "published": interval,
                "local": mean,
                "difference": paired_difference(mine, theirs),
                "inside": _inside(interval, mean.mean),
                "identical": _identical([rows[key] for rows in (*done, *epochs) if key in rows]),
                "state": cell.state,
            }
        )
    columns = ["dataset", "evidence", "fusion", "name", "published", "local", "difference"]
    return pd.DataFrame(rows, columns=[*columns, "inside", "identical", "state"])


def comparison_table(published: Study, local: Study) -> Table:
    """`compare` as a table, a block of rows for each dataset and fusion."""
    compared = compare(published, local)
    blocks = tuple(
        Block(
            pd.DataFrame([_texts(row) for row in part.itertuples()]), f"{dataset}, {fusion} fusion: {level}"
        )
        for (dataset, level, fusion), part in compared.groupby(["dataset", "evidence", "fusion"], sort=False)
    )
    data = compared.drop(columns=["published", "local", "difference"]).assign(
        **{
            f"{column}_{part}": [getattr(interval, part) for interval in compared[column]]
            for column in ("published", "local", "difference")
            for part in ("mean", "low", "high", "n")
        }
    )
    note = (
        "Fused test accuracy in percent after the last epoch, ± half of the 95 % interval. Inside: your mean "
        "lies in the published interval. Bit-identical: all numbers of all epochs of the common seeds are "
        "equal, which they must be only where device and settings are the same."
    )
    source = f"Published: {footer(published)} Yours: {footer(local)}"
    title = "Cell by cell"
    return Table(title, blocks, data, note, source, file="comparison")


def _texts(row: Any) -> dict[str, object]:
    return {
        "method": label(row.name),
        "published": percent(row.published),
        "yours": percent(row.local),
        "inside": row.inside,
        "bit-identical": row.identical,
        "difference (points)": number(row.difference.scaled(100), 2, signed=True),
        "common seeds": row.difference.n,
        "state": row.state,
    }


def comparison_sentence(published: Study, local: Study) -> str:
    """How many cells lie inside the published interval, and how many are bit-identical."""
    for study in (local, published):
        if study.frames.cells.empty:
            return f"There are no records under {profiles.label(study.root)} to compare."
    compared = compare(published, local)
    judged = compared[compared["inside"].isin(["yes", "no"])]
    inside = int((judged["inside"] == "yes").sum())
    found = compared["identical"].value_counts()
    same, differing, elsewhere = (found.get(answer, 0) for answer in ("yes", "no", "other device"))
    return (
        f"Of {len(compared)} cells, {len(judged)} can be judged against a published interval and {inside} "
        f"lie inside it. {same + differing + elsewhere} were run with the same settings and seeds: {same} "
        f"are bit-identical, {differing} are not, and {elsewhere} are not but come from another device."
    )


def _all_cells(published: Study, local: Study) -> pd.DataFrame:
    columns = [*CELL, "text", "evidence"]
    both = published.cells[columns].merge(
        local.cells[columns], on=CELL, how="outer", suffixes=("", "_local"), sort=False
    )
    rename = {"text": "published", "text_local": "yours"}
    both["evidence"] = both["evidence"].fillna(both["evidence_local"])
    texts = [
        "; ".join(
            f"{who} {_text(row[column])}" for column, who in rename.items() if _text(row[column]) != "done"
        )
        for _, row in both.iterrows()
    ]
    return both.assign(state=[text or "done" for text in texts])


def _text(value: object) -> str:
    return value if isinstance(value, str) else "missing: no record"


def _inside(interval, value: float) -> str:
    if np.isnan(value):
        return "no local number"
    if not interval.exists:
        return "no interval"
    return "yes" if interval.contains(value) else "no"


def _by_cell(frame: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    return dict(iter(frame.groupby(CELL)))


def _identical(found: Sequence[pd.DataFrame]) -> str:
    """The word for a cell, of which `found` are the rows among the cells and the epochs of both runs."""
    if len(found) < 4:
        return "no common seed"
    (one, two), epochs = (rows.iloc[0] for rows in found[:2]), found[2:]
    if any(_differs(one[column], two[column]) for column in SETTINGS):
        return "other settings"
    common = set.intersection(*(set(rows["seed"]) for rows in epochs))
    if not common:
        return "no common seed"
    first, second = (
        rows[rows["seed"].isin(common)].set_index(EPOCH_KEYS)[EPOCH_NUMBERS].sort_index() for rows in epochs
    )
    if first.equals(second):
        return "yes"
    return "no" if one["device"] == two["device"] else "other device"


def _differs(one: object, two: object) -> bool:
    return one != two and not (pd.isna(one) and pd.isna(two))
