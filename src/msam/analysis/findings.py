"""What the records say: paired comparisons, and sentences whose words they choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import pandas as pd

from msam.analysis import levels
from msam.analysis.metrics import by_seed, gaps_by_seed, is_unimodal
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import Interval, paired_difference, supported_best
from msam.analysis.table import Block, Table, number

VERDICTS = {
    "higher": "is higher",
    "lower": "is lower",
    "apart": "cannot be told apart",
    "unknown": "too few common seeds",
}
CONTROLS = ("sam", "joint", "mixture")
COLLAPSE = 0.1  # of accuracy
NO_RECORDS = "no records yet"


def verdict(difference: Interval) -> str:
    """A key of `VERDICTS`: what an interval of a difference allows to say."""
    if not difference.exists:
        return "unknown"
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "apart"


def compare_methods(study: Study, first: str, second: str, output: str = "fused") -> pd.DataFrame:
    """Test accuracy of `first` minus `second`, paired by seed, in each dataset x fusion that has either.

    Returns:
        A row for each: dataset, fusion, difference (Interval, fraction), verdict.
    """
    return _paired(study, by_seed(study.frames.runs, output), first, second)


def compare_gaps(study: Study, first: str, second: str) -> pd.DataFrame:
    """Fused overfitting gap tau of `first` minus `second`, as in `compare_methods`."""
    return _paired(study, gaps_by_seed(study.frames.runs), first, second)


def pairwise_table(study: Study, first: str = "msam", others: Iterable[str] = CONTROLS) -> Table:
    """Differences of `first` to each of `others` in fused test accuracy, with intervals and words."""
    rows, data = [], []
    for other in others:
        for row in compare_methods(study, first, other).itertuples():
            points = row.difference.scaled(100)
            rows.append(
                {
                    "dataset": row.dataset,
                    "evidence": evidence(study, row.dataset),
                    "fusion": row.fusion,
                    "comparison": f"{label(first)} minus {label(other)}",
                    "difference (points)": number(points, 2, signed=True),
                    "n": points.n,
                    "reading": VERDICTS[row.verdict],
                }
            )
            data.append(
                {
                    "dataset": row.dataset,
                    "level": evidence(study, row.dataset),
                    "fusion": row.fusion,
                    "first": first,
                    "second": other,
                    "points": points.mean,
                    "low": points.low,
                    "high": points.high,
                    "n": points.n,
                    "reading": VERDICTS[row.verdict],
                }
            )
    note = "Fused test accuracy after the last epoch, in points, paired by seed, ± half of the 95 % interval."
    title = "Differences, paired by seed"
    return Table(
        title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(study), file="comparisons"
    )


def count_sentence(study: Study, first: str, second: str) -> str:
    """In how many blocks `first` is higher or lower than `second`, or cannot be told apart from it."""
    compared = compare_methods(study, first, second)
    if study.frames.runs.empty or compared.empty:
        return f"{label(first)} against {label(second)}: no records yet."
    return f"{label(first)} against {label(second)}: {_counts(study, compared)}."


def gap_sentence(study: Study, first: str, second: str) -> str:
    """As `count_sentence`, for the overfitting gap tau of the fused output."""
    empty = study.frames.runs.empty
    counts = NO_RECORDS if empty else _counts(study, compare_gaps(study, first, second))
    return f"Overfitting gap of {label(first)} against {label(second)}: {counts}."


def collapsed_sentence(study: Study) -> str:
    """The seeds whose fused test accuracy is far below the median of their cell, which a mean would hide."""
    found = []
    for (dataset, fusion, name), values in by_seed(study.frames.runs).items():
        low = values.index[values < values.median() - COLLAPSE]
        if len(low):
            seeds = f"seed{'' if len(low) == 1 else 's'} {', '.join(map(str, low))}"
            found.append(f"{label(name)} on {dataset}, {fusion} fusion ({seeds})")
    what = f"more than {100 * COLLAPSE:.0f} points below the median of its cell"
    return f"A seed ended {what}: {'; '.join(found)}." if found else f"No seed ended {what}."


def answer(study: Study) -> str:
    """The overview's answer: M-SAM against each control, in as many sentences."""
    if study.frames.runs.empty:
        return "There are no records yet, so nothing can be said."
    sentences = [count_sentence(study, "msam", other) for other in CONTROLS]
    return " ".join(["In fused test accuracy, paired by seed with 95 % intervals:", *sentences])


def best_sentence(study: Study) -> str:
    """In how many dataset x fusion blocks a multimodal method is the supported best, and which."""
    best = supported(study)
    if not best:
        return "There are no records yet, so no method can be called best."
    names = Counter(name for name in best.values() if name)
    if not names:
        return f"In none of the {len(best)} blocks is a best method supported."
    parts = [f"{label(name)} in {n}" for name, n in names.most_common()]
    where = levels.share(study, [dataset for dataset, _ in best], map(bool, best.values()))
    return f"A best method is supported in {where}: {', '.join(parts)}."


@lru_cache(maxsize=8)
def supported(study: Study, rule: str = "last") -> dict[tuple[str, str], str | None]:
    """(dataset, fusion) -> the multimodal method supported as best, or None.

    A method that failed or is missing counts as not beaten; one that is not defined is left out.
    """
    if study.frames.runs.empty:
        return {}
    values = by_seed(study.frames.runs, rule=rule)
    cells = study.cells[~is_unimodal(study.cells["name"]) & (study.cells["state"] != "undefined")]
    empty = pd.Series(dtype=float)
    return {
        (dataset, fusion): supported_best(
            {name: values.get((dataset, fusion, name), empty) for name in block["name"]}
        )
        for (dataset, fusion), block in cells.groupby(["dataset", "fusion"], sort=False)
    }


def _paired(study: Study, values: dict, first: str, second: str) -> pd.DataFrame:
    blocks = study.cells.loc[
        study.cells["name"].isin([first, second]), ["dataset", "fusion"]
    ].drop_duplicates()
    empty = pd.Series(dtype=float)
    rows = []
    for dataset, fusion in blocks.itertuples(index=False):
        one, two = (values.get((dataset, fusion, name), empty) for name in (first, second))
        difference = paired_difference(one, two)
        rows.append((dataset, fusion, difference, verdict(difference)))
    return pd.DataFrame(rows, columns=["dataset", "fusion", "difference", "verdict"])


def _counts(study: Study, compared: pd.DataFrame) -> str:
    """In how many rows of dataset and verdict each verdict was reached, by level."""
    datasets, verdicts = compared["dataset"], compared["verdict"]
    text = f"higher in {levels.share(study, datasets, verdicts == 'higher')}"
    text += f", lower in {levels.count(study, datasets, verdicts == 'lower')}"
    text += f", cannot be told apart in {levels.count(study, datasets, verdicts == 'apart')}"
    unknown = levels.count(study, datasets, verdicts == "unknown")
    return text if unknown == "0" else f"{text}, too few common seeds in {unknown}"
