"""The paper's networks on whole AV-MNIST: four methods, trained on a GPU for a part of the paper's epochs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis import paper
from msam.analysis.accuracy import accuracy_data, interval
from msam.analysis.claims import MARGIN
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import by_seed
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, modalities, record_json
from msam.analysis.statistics import Interval, equivalent, paired_difference, spread
from msam.analysis.table import DASH, Block, Table, number, percent

PROFILE, DATASET, FUSION = "resnet", "av_mnist", "late"
THEIRS = "AV-MNIST"
MIXTURE = "mixture+share_0.5"
METHODS = ("joint", "sam", "msam", MIXTURE)  # of the curves
NO_RECORDS = "The paper's networks have no records here."

PAIRS = (("sam", "joint"), ("msam", "joint"), ("msam", "sam"), ("msam", MIXTURE))


def accuracy_table(study: Study) -> Table:
    """Accuracy of each method for every output, its overfitting gap, and the paper's numbers beside."""
    data, reported = accuracy_data(study, FUSION), _reported()
    outputs = [*modalities(study, DATASET), "fused"]
    rows = []
    for name, mine in data.groupby("method", sort=False):
        found = {row["output"]: row for row in mine.to_dict("records")}
        row: dict[str, Any] = {"method": label(name)}
        row |= {output: percent(interval(found[output])) for output in outputs}
        row |= {"n": int(found["fused"]["n"]), "tau": number(interval(found["fused"], "tau"), 3)}
        for output in outputs:
            theirs = reported.get((paper.OURS.get(name, ""), paper.MODALITIES.get(output, output)))
            row[f"{output}, the paper"] = DASH if theirs is None else f"{theirs:.2f}"
        rows.append(row)
    note = (
        "Test accuracy in percent after the last epoch, mean ± half of the 95 % Student-t interval over n "
        "seeds. Accuracy of a modality: of its Shapley response. Tau: overfitting gap of the fused output "
        "(Eq. 1). The paper's numbers are those of its Table 1, after more epochs, on a folder whose recipe "
        "is not known."
    )
    block = Block(pd.DataFrame(rows))
    return Table("The paper's networks on AV-MNIST", (block,), data, note, footer(study), file="resnet")


def difference_table(study: Study) -> Table:
    """Paired differences between the methods, for every output; and whether they lie within the margin."""
    rows, data = [], []
    for first, second in PAIRS:
        row: dict[str, Any] = {"comparison": f"{label(first)} minus {label(second)}"}
        for output in [*modalities(study, DATASET), "fused"]:
            points, equal = _compare(study, first, second, output)
            row[f"{output} (points)"] = number(points, 2, signed=True)
            if output == "fused":
                row |= {"n": points.n, "reading": VERDICTS[verdict(points)]}
                row["p (equal)"] = DASH if equal is None else f"{equal:.2g}"
            pair = {"first": first, "second": second, "output": output}
            data.append({**pair, **spread("points", points), "p_equal": equal})
        rows.append(row)
    note = (
        "Test accuracy after the last epoch, in points, paired by seed, ± half of the 95 % interval. "
        "Reading: of the fused output; not corrected for the number of comparisons. p (equal): of two "
        f"one-sided tests that the fused difference lies within {100 * MARGIN:g} point of zero, the "
        "margin of claim C8."
    )
    block = Block(pd.DataFrame(rows))
    name = "resnet_differences"
    return Table("Differences between them", (block,), pd.DataFrame(data), note, footer(study), file=name)


def answer(study: Study) -> str:
    """What was trained, and how the methods differ, in words."""
    config = next((record_json(study, path).get("config") for path in study.frames.cells["path"]), None)
    if config is None:
        return NO_RECORDS
    train = study.descriptions[DATASET]["splits"]["train"]["size"]
    texts = [_text(study, first, second) for first, second in PAIRS]
    return (
        f"With ResNet18 for each modality, {train:,} train images and {config['epochs']} epochs, in fused "
        f"test accuracy: {'; '.join(texts)}."
    )


def _compare(study: Study, first: str, second: str, output: str = "fused") -> tuple[Interval, float | None]:
    """The difference in points, and the p value of equivalence where there is an interval."""
    values, empty = by_seed(study.frames.runs, output), pd.Series(dtype=float)
    one, two = (values.get((DATASET, FUSION, name), empty) for name in (first, second))
    points = paired_difference(one, two).scaled(100)
    return points, equivalent((one - two).dropna(), MARGIN) if points.exists else None


def _text(study: Study, first: str, second: str) -> str:
    points, _ = _compare(study, first, second)
    reading = {"higher": "is higher than", "lower": "is lower than", "apart": "cannot be told apart from"}
    words = reading.get(verdict(points))
    if words is None:
        return f"{label(first)} and {label(second)} share too few seeds"
    return f"{label(first)} {words} {label(second)} ({number(points, 2, signed=True)} points)"


def _reported() -> dict[tuple[str, str], float]:
    """(the paper's method, its output) -> its accuracy in percent."""
    rows = paper.reported().query("dataset == @THEIRS and fusion == @FUSION")
    return {(row.method, row.output): row.accuracy for row in rows.itertuples()}
