"""Two to eight generated modalities, of which the first dominates by construction: who finds it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from msam.analysis import overhead
from msam.analysis.dominance import dominance_data
from msam.analysis.metrics import by_seed
from msam.analysis.names import in_order, label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, read, study_file
from msam.analysis.statistics import mean_interval, spread
from msam.analysis.table import Block, Table, percent
from msam.analysis.values import TRUTH

PROFILE, DATASET = "scaling", "controlled"
DOMINANT = TRUTH[DATASET]

NOTE = (
    "Mean ± half of the 95 % interval over n seeds. Identified: part of all batches of the training in which "
    f"{DOMINANT} was the dominant modality, the one with the largest signal-to-noise ratio. Gradients: "
    "gradient evaluations of a step, in those of SAM's. Settings are the same for all methods; none was "
    "searched for."
)


def studies(root: Path) -> dict[int, Study]:
    """Number of modalities -> the study of it."""
    return {
        content["datasets"][DATASET]["options"]["modalities"]: read(root, name, only=[PROFILE])
        for name, content in study_file(PROFILE).items()
    }


def scaling_data(root: Path) -> pd.DataFrame:
    """A row for each number of modalities and method with a record.

    Returns:
        modalities, name, accuracy and identified (Interval each, fractions; the latter without a number for a
        method without shares), gradients (of a step, in SAM's), epoch (seconds).
    """
    rows = []
    for count, study in studies(root).items():
        dominated = dominance_data(study)
        dominated = dominated[dominated["modality"] == DOMINANT].groupby("name")["fraction"]
        fractions = {name: list(values) for name, values in dominated}
        costs = overhead.variants(study).set_index("name")
        for (_, _, name), values in by_seed(study.frames.runs).items():
            rows.append(
                {
                    "modalities": count,
                    "name": name,
                    "accuracy": mean_interval(values),
                    "identified": mean_interval(fractions.get(name, [])),
                    "gradients": costs.at[name, "gradients"],
                    "epoch": costs.at[name, "epoch"],
                }
            )
    data = pd.DataFrame(rows, columns=["modalities", "name", "accuracy", "identified", "gradients", "epoch"])
    order = {name: i for i, name in enumerate(in_order(data["name"]))}
    return data.sort_values(["modalities", "name"], key=lambda c: c.map(order) if c.name == "name" else c)


def scaling_table(root: Path) -> Table:
    """Accuracy, identification and cost of every method, for each number of modalities."""
    found = scaling_data(root)
    rows = [
        {
            "modalities": row["modalities"],
            "method": label(row["name"]),
            "test (%)": percent(row["accuracy"]),
            "identified (%)": percent(row["identified"]),
            "n": row["accuracy"].n,
            "gradients / SAM's": f"{row['gradients']:.4f}",
        }
        for row in found.to_dict("records")
    ]
    data = [
        {key: row[key] for key in ("modalities", "name", "gradients", "epoch")}
        | spread("accuracy", row["accuracy"])
        | {f"identified_{end}": getattr(row["identified"], end) for end in ("mean", "low", "high")}
        for row in found.to_dict("records")
    ]
    title = "Two to eight generated modalities (embedded)"
    return Table(title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), NOTE, source(root), file="scaling")


def scaling_sentence(root: Path) -> str:
    """How often M-SAM's exact shares name the dominant modality, and the cheaper ones, as modalities grow."""
    found = scaling_data(root)
    found = found[[interval.n > 0 for interval in found["identified"]]]
    if found.empty:
        return f"There are no records of the profile `{PROFILE}` yet."
    parts = []
    for count, part in found.groupby("modalities"):
        means = {
            name: 100 * interval.mean for name, interval in zip(part["name"], part["identified"], strict=True)
        }
        exact = f"{means.pop(overhead.FULL):.0f} %" if overhead.FULL in means else "no record"
        ends = [pick(means, key=lambda name: means[name]) for pick in (min, max)] if means else []
        others = " to ".join(f"{means[name]:.0f} % ({label(name)})" for name in dict.fromkeys(ends))
        parts.append(f"of {count} modalities {exact}, cheaper ones {others or 'no record'}")
    return f"Batches in which exact shares name the dominant modality: {'; '.join(parts)}."


def source(root: Path) -> str:
    """Where the numbers come from, one line."""
    return " ".join(footer(study) for study in studies(root).values())
