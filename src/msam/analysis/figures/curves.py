"""Curves over epochs or gradient evaluations, of a selection of methods that can be told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.figures.draw import (
    PANEL,
    band,
    below,
    empty,
    finish,
    legend,
    log_scale,
    panels,
    picture,
    strip,
)
from msam.analysis.metrics import CELL, epoch_gaps, is_unimodal
from msam.analysis.names import SHOWN, color, dashes, in_order, label, shown
from msam.analysis.sources import Study, fusion_order, modalities
from msam.analysis.statistics import summarize

SMALLEST = 1e-12  # on a logarithmic axis


@picture
def accuracy_curves(
    study: Study, output: str = "fused", split: str = "validation", methods: Iterable[str] = SHOWN
) -> Figure:
    """Accuracy after each epoch with 95 % bands; `output` "fused" or "modalities" (one row each)."""
    epochs = _of(study.frames.epochs, methods)
    kept = epochs[epochs["split"] == split].assign(accuracy=lambda rows: 100 * rows["accuracy"])
    return _output_curves(study, kept, "accuracy", output, f"{split} (%)")


@picture
def evaluation_curves(study: Study, split: str = "validation", methods: Iterable[str] = SHOWN) -> Figure:
    """Fused accuracy against gradient evaluations, the fair axis: SAM and M-SAM pay two for a step."""
    epochs = _of(study.frames.epochs, methods)
    kept = epochs[(epochs["split"] == split) & (epochs["output"] == "fused") & ~is_unimodal(epochs["name"])]
    seeds = study.frames.seeds[[*CELL, "seed", "gradient_evaluations"]]
    kept = kept.merge(seeds, on=[*CELL, "seed"])
    last = kept.groupby([*CELL, "seed"])["epoch"].transform("max")
    kept["spent"] = kept["gradient_evaluations"] * kept["epoch"] / last / 1000
    kept["accuracy"] = 100 * kept["accuracy"]
    return dataset_curves(
        study, kept, "accuracy", f"{split} (%)", x="spent", x_text="thousand gradient evaluations"
    )


@picture
def loss_curves(study: Study, methods: Iterable[str] = SHOWN) -> Figure:
    """Training loss of the fused output after each epoch, with 95 % bands."""
    epochs = _of(study.frames.epochs, methods)
    return _output_curves(
        study, epochs[epochs["split"] == "train"], "loss", "fused", "training loss", log=True
    )


@picture
def gap_curves(study: Study, output: str = "fused", methods: Iterable[str] = SHOWN) -> Figure:
    """Overfitting gap tau (Eq. 1) after each epoch; `output` "fused" or "modalities" (one row each)."""
    return _output_curves(study, epoch_gaps(_of(study.frames.epochs, methods)), "tau", output, "tau")


def dataset_curves(study: Study, rows: pd.DataFrame, value: str, text: str, **more: Any) -> Figure:
    """A row of panels for each dataset."""
    select = {(dataset, dataset): rows[rows["dataset"] == dataset] for dataset in study.datasets}
    return _curves(study, select, value, text, **more)


def summary(
    rows: pd.DataFrame, by: list[str], value: str, x: str = "epoch", log: bool = False
) -> pd.DataFrame:
    """Mean and interval over seeds for each group and epoch, with the mean place on the x axis as `x`.

    With `log` those of the logarithms, as positive numbers again.
    """
    if log:
        rows = rows.assign(**{value: np.log(rows[value].clip(lower=SMALLEST))})
    found = summarize(rows, [*by, "epoch"], value)
    if log:
        found[["mean", "low", "high"]] = np.exp(found[["mean", "low", "high"]])
    if x == "epoch":
        return found.assign(x=found["epoch"])
    places = rows.groupby([*by, "epoch"], sort=False)[x].mean().rename("x").reset_index()
    return found.merge(places, on=[*by, "epoch"])


def _of(epochs: pd.DataFrame, methods: Iterable[str]) -> pd.DataFrame:
    """The rows of the methods shown and of the single modalities."""
    return epochs[epochs["name"].isin(shown(epochs["name"], methods)) | is_unimodal(epochs["name"])]


def _output_curves(
    study: Study, frame: pd.DataFrame, value: str, output: str, text: str, log: bool = False
) -> Figure:
    """Curves of the fused output (a row for each dataset) or of every modality (a row for each of them)."""
    select = {}
    for dataset in study.datasets:
        for name in ["fused"] if output == "fused" else modalities(study, dataset):
            part = frame[(frame["dataset"] == dataset) & (frame["output"] == name)]
            title = dataset if output == "fused" else f"{dataset}: {name}"
            select[dataset, title] = part[~is_unimodal(part["name"]) | (part["name"] == f"unimodal+{name}")]
    return _curves(study, select, value, text, log=log)


def _curves(
    study: Study,
    select: dict[tuple[str, str], pd.DataFrame],
    value: str,
    text: str,
    x: str = "epoch",
    x_text: str = "epoch",
    from_zero: bool = False,
    log: bool = False,
) -> Figure:
    """A grid of curves: a row for each (dataset, title), a column for each fusion, a line for each method."""
    if not any(len(frame) for frame in select.values()):
        return empty("no records yet")
    fusions = fusion_order(study.cells)
    entries = {_shared_label(name) for frame in select.values() for name in frame["name"]}
    figure, grid = panels([PANEL] * len(select), len(fusions), len(entries))
    for line, ((dataset, title), rows) in enumerate(select.items()):
        found = summary(rows, ["fusion", "name"], value, x, log)
        for column, fusion in enumerate(fusions):
            part = found[found["fusion"] == fusion]
            axes = grid[line, column]
            for name in in_order(part["name"]):
                mine = part[part["name"] == name]
                band(axes, mine, color(name), dashes(name), _shared_label(name))
            finish(axes, f"{title}, {fusion}", text if column == 0 else "")
            if from_zero:
                axes.set_ylim(bottom=0)
        if log:
            log_scale(grid[line, 0], "y", 3)
        strip(grid[line], study.levels[dataset])
    below(figure, x_text)
    legend(figure, *grid.flat)
    return figure


def _shared_label(name: str) -> str:
    return "that modality alone" if name.startswith("unimodal") else label(name)
