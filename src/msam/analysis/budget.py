"""M-SAM against methods that need one gradient a step: at equal epochs and at equal gradient evaluations."""

from __future__ import annotations

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import CELL, by_seed, is_unimodal
from msam.analysis.names import in_order, label
from msam.analysis.provenance import footer
from msam.analysis.ranking import overall
from msam.analysis.ranking_table import UNCORRECTED, readings
from msam.analysis.sources import Study
from msam.analysis.statistics import Interval, mean_interval, spread
from msam.analysis.table import DASH, Block, Table, grouped, number

COMPARISONS = {"epochs": "equal epochs", "evaluations": "equal gradient evaluations"}
EVALUATIONS = ("first", *COMPARISONS)
NO_RECORDS = "There are no records of the study `budget` yet, in which other methods train longer."


def differences(study: Study, budget: Study, first: str = "msam") -> pd.DataFrame:
    """`first` of `study` minus each method of `budget`, by seed, trained as in `study` and as in `budget`.

    Returns:
        A row for each multimodal cell of `budget`: dataset, evidence, fusion, name, text (its state), epochs
        and evaluations (the differences by seed, a Series each), and the gradient evaluations of a run, mean
        over seeds: of `first`, of the method in `study` and in `budget` (evaluations_first,
        evaluations_epochs, evaluations_evaluations).
    """
    main, longer = by_seed(study.frames.runs), by_seed(budget.frames.runs)
    spent = [_evaluations(study), _evaluations(budget)]
    empty = pd.Series(dtype=float)
    rows = []
    for cell in budget.cells[~is_unimodal(budget.cells["name"])].itertuples():
        key, mine = (cell.dataset, cell.fusion, cell.name), (cell.dataset, cell.fusion, first)
        one = main.get(mine, empty)
        rows.append(
            {
                "dataset": cell.dataset,
                "evidence": cell.evidence,
                "fusion": cell.fusion,
                "name": cell.name,
                "text": cell.text,
                "epochs": (one - main.get(key, empty)).dropna(),
                "evaluations": (one - longer.get(key, empty)).dropna(),
                "evaluations_first": spent[0].get(mine),
                "evaluations_epochs": spent[0].get(key),
                "evaluations_evaluations": spent[1].get(key),
            }
        )
    spendings = [f"evaluations_{which}" for which in EVALUATIONS]
    columns = ["dataset", "evidence", "fusion", "name", "text", *COMPARISONS, *spendings]
    return pd.DataFrame(rows, columns=columns)


def overall_differences(study: Study, found: pd.DataFrame) -> pd.DataFrame:
    """Means over the blocks in which both comparisons have seeds, a row for each method of `differences`.

    Returns:
        name, blocks, level (of the blocks), epochs and evaluations (Interval each), and the mean gradient
        evaluations of a run.
    """
    both = found[(found["epochs"].map(len) > 0) & (found["evaluations"].map(len) > 0)]
    rows = []
    for name in in_order(both["name"]):
        part = both[both["name"] == name]
        apart = {which: levels.grouped(study, part["dataset"], part[which]) for which in COMPARISONS}
        row = {"name": name, "blocks": len(part), "level": ", ".join(apart["epochs"])}
        row |= {which: overall(differences) for which, differences in apart.items()}
        rows.append(
            row | {f"evaluations_{which}": part[f"evaluations_{which}"].mean() for which in EVALUATIONS}
        )
    spendings = [f"evaluations_{which}" for which in EVALUATIONS]
    return pd.DataFrame(rows, columns=["name", "blocks", "level", *COMPARISONS, *spendings])


def budget_table(study: Study, budget: Study, first: str = "msam") -> Table:
    """The mean over blocks of both comparisons for each method."""
    found = overall_differences(study, differences(study, budget, first))
    rows = [
        {("", "method"): label(row["name"]), ("", "evidence"): row["level"], ("", "blocks"): row["blocks"]}
        | _texts(row, {which: row[which] for which in COMPARISONS}, first)
        for row in found.to_dict("records")
    ]
    data = [_data(row, {which: row[which] for which in COMPARISONS}) for row in found.to_dict("records")]
    title = "Equal epochs beside equal gradient evaluations, mean over blocks"
    return _table(title, rows, data, study, budget, first, "budget")


def budget_cells_table(study: Study, budget: Study, first: str = "msam") -> Table:
    """Both comparisons in each block."""
    rows, data = [], []
    for row in differences(study, budget, first).to_dict("records"):
        intervals = {which: mean_interval(row[which]) for which in COMPARISONS}
        lead = {("", key): row[key] for key in ("dataset", "evidence", "fusion")}
        lead |= {("", "method"): label(row["name"]), ("", "state"): row["text"]}
        rows.append(lead | _texts(row, intervals, first))
        data.append(_data(row, intervals) | {"state": row["text"]})
    title = "Equal epochs beside equal gradient evaluations, block by block"
    return _table(title, rows, data, study, budget, first, "budget_cells")


def budget_sentence(study: Study, budget: Study, first: str = "msam") -> str:
    """Than how many methods `first` is higher at equal epochs, and at equal gradient evaluations."""
    found = overall_differences(study, differences(study, budget, first))
    if found.empty:
        return NO_RECORDS
    parts = [f"at {text} {label(first)} {readings(found, which)}" for which, text in COMPARISONS.items()]
    return f"Beside the methods that were also trained longer: {'; '.join(parts)}."


def _evaluations(study: Study) -> dict[tuple[str, str, str], float]:
    """Gradient evaluations of a run that ended, mean over seeds."""
    seeds = study.frames.seeds[study.frames.seeds["state"] == "done"]
    return seeds.groupby(CELL)["gradient_evaluations"].mean().to_dict()


def _texts(row: dict, intervals: dict[str, Interval], first: str) -> dict[tuple[str, str], object]:
    texts: dict[tuple[str, str], object] = {
        ("", f"evaluations of {label(first)}"): _count(row["evaluations_first"])
    }
    for which, group in COMPARISONS.items():
        interval = intervals[which]
        texts |= {
            (group, "evaluations"): _count(row[f"evaluations_{which}"]),
            (group, "difference (points)"): number(interval.scaled(100), 2, signed=True),
            (group, "n"): interval.n,
            (group, "reading"): VERDICTS[verdict(interval)],
        }
    return texts


def _data(row: dict, intervals: dict[str, Interval]) -> dict[str, object]:
    kept = {key: value for key, value in row.items() if key not in (*COMPARISONS, "text")}
    for which, interval in intervals.items():
        numbers = spread(f"points_{which}", interval.scaled(100))
        kept |= {f"n_{which}" if key == "n" else key: value for key, value in numbers.items()}
    return kept


def _table(
    title: str, rows: list[dict], data: list[dict], study: Study, budget: Study, first: str, file: str
) -> Table:
    note = (
        f"{label(first)} minus the method in points of fused test accuracy, paired by seed, ± half of the "
        f"95 % interval over n seeds. Evaluations: gradients of one run. {UNCORRECTED}"
    )
    source = f"{footer(study)} Longer: {footer(budget)}"
    return Table(title, (Block(grouped(rows)),), pd.DataFrame(data), note, source, file=file)


def _count(value: float | None) -> str:
    return (
        DASH if value is None or pd.isna(value) else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    )
