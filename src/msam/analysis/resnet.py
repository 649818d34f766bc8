"""The paper's networks on whole AV-MNIST, trained on a GPU for a part of the paper's epochs."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pandas as pd

from msam.analysis import paper
from msam.analysis.accuracy import SINGLE, Line, accuracy_data, interval, seeds_text, without
from msam.analysis.claims import MARGIN
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import by_seed
from msam.analysis.names import joined, label, stem
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, modalities, record_json
from msam.analysis.statistics import Interval, equivalent, paired_difference, spread
from msam.analysis.table import DASH, Block, Table, number, percent

PROFILE, DATASET, FUSIONS = "resnet", "av_mnist", ("late", "early")
THEIRS = "AV-MNIST"
MIXTURE = "mixture+share_0.5"
METHODS = ("joint", "agm", "sam", "msam", MIXTURE)  # of the curves
NO_RECORDS = "The paper's networks have no records here."

RESPONSE, HEAD = "accuracy", "head_accuracy"
DEFINITIONS = {RESPONSE: "", HEAD: ", own head"}

PAIRS = (("sam", "joint"), ("msam", "joint"), ("msam", "agm"), ("msam", "sam"), ("msam", MIXTURE))


def accuracy_table(study: Study) -> Table:
    """Accuracy of each method for every output, its overfitting gap, and the paper's numbers beside."""
    blocks = tuple(Block(_accuracies(study, fusion), f"{fusion} fusion") for fusion in FUSIONS)
    data = pd.concat([accuracy_data(study, fusion) for fusion in FUSIONS])
    note = (
        "Test accuracy in percent after the last epoch, mean ± half of the 95 % Student-t interval over n "
        "seeds. Accuracy of a modality: of its Shapley response; single modalities: of the network trained "
        "on that modality alone. Tau: overfitting gap of the fused output (Eq. 1). The paper's numbers are "
        "those of its Tables 1 and 2, after more epochs, on a folder whose recipe is not known."
    )
    return Table(
        "The paper's networks on rebuilt AV-MNIST (compact)", blocks, data, note, footer(study), file="resnet"
    )


def difference_table(study: Study) -> Table:
    """Paired differences between the methods, for every output; and whether they lie within the margin."""
    data: list[dict[str, Any]] = []
    blocks = tuple(Block(_differences(study, fusion, data), f"{fusion} fusion") for fusion in FUSIONS)
    note = (
        "Test accuracy after the last epoch, in points, paired by seed, ± half of the 95 % interval; of a "
        "modality by its Shapley response, with late fusion by its own head too. "
        "Reading: of the fused output; not corrected for the number of comparisons. p (equal): of two "
        f"one-sided tests that the fused difference lies within {100 * MARGIN:g} points of zero, the "
        "margin of claim C8."
    )
    name = "resnet_differences"
    return Table(
        "Differences between them, rebuilt AV-MNIST (compact)",
        blocks,
        pd.DataFrame(data),
        note,
        footer(study),
        file=name,
    )


def answer(study: Study) -> str:
    """What was trained, and how the methods differ, in words."""
    config = next((record_json(study, path).get("config") for path in study.frames.cells["path"]), None)
    if config is None:
        return NO_RECORDS
    train = study.descriptions[DATASET]["splits"]["train"]["size"]
    about = f"With ResNet18 for each modality, {train:,} train images and {config['epochs']} epochs"
    clauses = [clause for first, second in PAIRS for clause in _clauses(study, first, second)]
    fused = f"{about}, in fused test accuracy: {'; '.join(clauses) or 'nothing can be compared yet'}."
    texts = [fused]
    for value, how in ((RESPONSE, "by its Shapley response"), (HEAD, "by its own head")):
        single = [_clauses(study, "msam", "sam", m, value) for m in modalities(study, DATASET)]
        if any(single):
            texts.append(f"In one modality, {how}: {'; '.join(chain(*single))}.")
    return " ".join(texts)


def _accuracies(study: Study, fusion: str) -> pd.DataFrame:
    rows = accuracy_data(study, fusion).to_dict("records")
    found = {(row["method"], row["output"]): row for row in rows}
    states = {cell.name: without(cell.state) for cell in study.cells.itertuples() if cell.fusion == fusion}
    reported = _reported(fusion)
    outputs = [*modalities(study, DATASET), "fused"]
    lines = []
    for name in dict.fromkeys(SINGLE if stem(method) == SINGLE else method for method, _ in found):
        line = Line("single modalities" if name == SINGLE else label(name), name)
        cells = {output: found.get((line.cell(output), output), {}) for output in outputs}
        row: dict[str, Any] = {"method": line.heading}
        for output, cell in cells.items():
            row[output] = percent(interval(cell)) if cell.get("n") else states.get(line.cell(output), DASH)
        row["n"] = seeds_text([cell["n"] for cell in cells.values() if cell])
        row["tau"] = number(interval(cells["fused"], "tau"), 3)
        for output in outputs:
            row[f"{output}, the paper"] = reported.get((name, output), DASH)
        lines.append(row)
    return pd.DataFrame(lines)


def _differences(study: Study, fusion: str, data: list[dict[str, Any]]) -> pd.DataFrame:
    """The texts; their numbers are added to `data`."""
    rows = []
    for first, second in PAIRS:
        row: dict[str, Any] = {"comparison": f"{label(first)} minus {label(second)}"}
        for output, value in _outputs(study, fusion):
            points, equal = _compare(study, fusion, first, second, output, value)
            row[f"{output}{DEFINITIONS[value]}"] = number(points, 2, signed=True)
            if output == "fused":
                row |= {"n": points.n, "reading": VERDICTS[verdict(points)]}
                row["p (equal)"] = DASH if equal is None else f"{equal:.2g}"
            pair = {"fusion": fusion, "first": first, "second": second, "output": output, "of": value}
            data.append({**pair, **spread("points", points), "p_equal": equal})
        rows.append(row)
    return pd.DataFrame(rows)


def _outputs(study: Study, fusion: str) -> list[tuple[str, str]]:
    """Outputs and the definitions of their accuracy: early fusion has no heads of its modalities."""
    names = modalities(study, DATASET)
    heads = names if fusion == "late" else []
    return [*((m, RESPONSE) for m in names), *((m, HEAD) for m in heads), ("fused", RESPONSE)]


def _compare(
    study: Study, fusion: str, first: str, second: str, output: str = "fused", value: str = RESPONSE
) -> tuple[Interval, float | None]:
    """The difference in points, and the p value of equivalence where there is an interval."""
    values, empty = by_seed(study.frames.runs, output, value=value), pd.Series(dtype=float)
    one, two = (values.get((DATASET, fusion, name), empty) for name in (first, second))
    points = paired_difference(one, two).scaled(100)
    return points, equivalent((one - two).dropna(), MARGIN) if points.exists else None


def _clauses(
    study: Study, first: str, second: str, output: str = "fused", value: str = RESPONSE
) -> list[str]:
    """How two methods differ, one clause for all fusions where it is the same; none without numbers."""
    reading = {"higher": "is higher than", "lower": "is lower than", "apart": "cannot be told apart from"}
    places: dict[str, list[str]] = {}
    for fusion in FUSIONS:
        points, _ = _compare(study, fusion, first, second, output, value)
        if words := reading.get(verdict(points)):
            places.setdefault(words, []).append(f"{fusion} fusion ({number(points, 2, signed=True)} points)")
    where = "" if output == "fused" else f" in {output}"
    return [f"{label(first)} {words} {label(second)}{where} with {joined(p)}" for words, p in places.items()]


def _reported(fusion: str) -> dict[tuple[str, str], str]:
    """(our method, our output) -> the paper's accuracy in percent."""
    ours = {theirs: name for name, theirs in paper.OURS.items()}
    rows = paper.reported().query("dataset == @THEIRS and fusion == @fusion").itertuples()
    return {
        (
            ours.get(row.method, SINGLE),
            "image" if row.output == "video" else row.output,
        ): f"{row.accuracy:.2f}"
        for row in rows
    }
