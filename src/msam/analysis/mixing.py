"""Is it the modality, or the mixing? M-SAM against a constant mixture of SAM's gradient and the plain one."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import CELL, by_seed
from msam.analysis.names import READINGS, label
from msam.analysis.provenance import footer
from msam.analysis.ranking_table import UNCORRECTED
from msam.analysis.sources import Study, evidence, sorted_cells, study_file
from msam.analysis.statistics import equivalent, mean_interval
from msam.analysis.sweep import best, swept
from msam.analysis.table import Block, Table, number

CONTROL = "mixture"
ALPHA = 0.05
EQUAL = "equal within the margin"


def margin() -> float:
    """The equivalence margin that the study file states, a fraction."""
    return float(study_file("embedded")["mixing"]["margin"])


def mean_shares(study: Study) -> dict[tuple[str, str, str], float]:
    """(dataset, fusion, reading of M-SAM) -> mean share of its dominant modality over all runs."""
    rows = study.frames.dominance
    rows = rows[rows["name"].isin(READINGS)]
    return rows.groupby(CELL)["dominant_share"].mean().to_dict()


def differences(study: Study) -> pd.DataFrame:
    """Each reading minus the constant mixture of the mean share of M-SAM's run, paired by seed.

    Returns:
        A row for each block and reading: dataset, fusion, name, difference (Interval, fraction, 95 %), inner
        (the 90 % interval, of the two one-sided tests at 5 %), reading (a word).
    """
    values = by_seed(study.frames.runs)
    rows = []
    for dataset, fusion, name in values:
        if name not in READINGS or (dataset, fusion, CONTROL) not in values:
            continue
        by = (values[dataset, fusion, name] - values[dataset, fusion, CONTROL]).dropna()
        where = {"dataset": dataset, "fusion": fusion, "name": name, "difference": mean_interval(by)}
        inner = mean_interval(by, 1 - 2 * ALPHA)
        rows.append(where | {"inner": inner, "reading": reading(by, margin())})
    columns = ["dataset", "fusion", "name", "difference", "inner", "reading"]
    return sorted_cells(pd.DataFrame(rows, columns=columns), study.homes)


def reading(differences: Iterable[float], within: float) -> str:
    """What paired differences, one a seed, say; equivalence comes first."""
    by = list(differences)
    return EQUAL if equivalent(by, within) < ALPHA else VERDICTS[verdict(mean_interval(by))]


def mixing_table(study: Study) -> Table:
    """`differences` as a table, with the best constant share of the sweep."""
    found = differences(study)
    tops = best(swept(by_seed(study.frames.runs), "share"))
    rows, data = [], []
    for row in found.itertuples():
        share, top = tops.get((row.dataset, row.fusion, CONTROL), (float("nan"), mean_interval([])))
        points = row.difference.scaled(100)
        rows.append(
            {
                "dataset": row.dataset,
                "evidence": evidence(study, row.dataset),
                "fusion": row.fusion,
                "reading of M-SAM": label(row.name),
                "minus mixture (points)": number(points, 2, signed=True),
                "n": points.n,
                "result": row.reading,
                "best constant share": f"{share:g}: {number(top.scaled(100), 1)} %",
            }
        )
        data.append(
            {"dataset": row.dataset, "fusion": row.fusion, "name": row.name, "points": points.mean}
            | {"low": points.low, "high": points.high, "low_90": 100 * row.inner.low}
            | {"high_90": 100 * row.inner.high, "n": points.n, "result": row.reading}
        )
    note = (
        "Fused test accuracy after the last epoch, paired by seed, ± half of the 95 % interval. The mixture "
        "has M-SAM's learning rate and radius and the mean share of its run of the same seed. Equal within "
        f"the margin: the 90 % interval lies within ± {100 * margin():.1f} points, two one-sided tests "
        "at 5 %; the study file stated the margin before the runs. Best constant share: of the sweep, by the "
        f"mean test accuracy, to look at and not to choose by. {UNCORRECTED}"
    )
    frame = pd.DataFrame(data)
    return Table(
        "Readings of M-SAM against a constant mixture",
        (Block(pd.DataFrame(rows)),),
        frame,
        note,
        footer(study),
        file="mixing",
    )


def mixing_sentence(study: Study) -> str:
    """How many blocks are equal within the margin, higher, lower or undecided, for each reading."""
    found = differences(study)
    if found.empty:
        return "There are no records of the study `mixing` yet."
    parts = []
    for name in READINGS:
        mine = found[found["name"] == name]
        if mine.empty:
            continue
        equal = levels.share(study, mine["dataset"], mine["reading"] == EQUAL)
        higher, lower, apart = (
            levels.count(study, mine["dataset"], mine["reading"] == VERDICTS[word])
            for word in ("higher", "lower", "apart")
        )
        parts.append(
            f"{label(name)} is equal within the margin in {equal}, higher in {higher}, lower in {lower}, and "
            f"cannot be told apart in {apart}"
        )
    return f"Against a constant mixture (margin {100 * margin():.1f} points) {'; '.join(parts)}."


def sweep_sentence(study: Study) -> str:
    """In how many blocks some constant share of the sweep has a higher mean than M-SAM."""
    values = by_seed(study.frames.runs)
    rows = swept(values, "share")
    tops = best(rows)
    blocks = [key for key in tops if (*key[:2], "msam") in values]
    if not blocks:
        return "There is no sweep of the share yet."
    above = [tops[key][1].mean >= values[*key[:2], "msam"].mean() for key in blocks]
    shares = rows.groupby(["dataset", "fusion"])["x"].nunique().max()
    where = levels.share(study, [dataset for dataset, _, _ in blocks], above)
    chance = len(blocks) * shares / (shares + 1)
    return (
        f"Some constant share of the sweep has at least the mean test accuracy of M-SAM in {where}; that the "
        f"best of {shares} shares does so is expected in {chance:.1f} if all are equal."
    )
