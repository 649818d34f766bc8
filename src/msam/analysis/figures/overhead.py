"""Cheaper forms of M-SAM: accuracy beside cost, and both against the number of modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis import overhead, scaling
from msam.analysis.figures.draw import (
    ROW,
    WIDTH,
    empty,
    interval_point,
    legend,
    method_rows,
    panels,
    picture,
    strip,
)
from msam.analysis.names import (
    BLUE,
    DASHED,
    GRAY,
    ORANGE,
    PALETTE,
    SOLID,
    color,
    in_order,
    label,
)
from msam.analysis.sources import Study

LINES = (SOLID, DASHED)

TIMED = (
    *("joint", "msam", "msam+dominance_every_10", "msam+dominance_ema", "msam+permutations_1"),
    *("msam+permutations_4", "lazy_msam+every_5", "lazy_msam+every_20"),
)
"""The methods of the curves of step times; the table has all."""


@picture
def variant_points(study: Study) -> Figure:
    """A panel row for each dataset: accuracy, M-SAM's interval as a band; cost of a step with the limit."""
    found = overhead.variants(study)
    found = found[[interval.n > 0 for interval in found["accuracy"]]]
    if found.empty:
        return empty("no records yet")
    blocks = found.groupby(["dataset", "fusion"], sort=False)
    figure, grid = _rows([part for _, part in blocks], entries=3)
    for line, ((dataset, fusion), part) in zip(grid, blocks, strict=True):
        names = list(part["name"])
        accuracies = [interval.scaled(100) for interval in part["accuracy"]]
        _intervals(line[0], names, accuracies)
        full = dict(zip(names, accuracies, strict=True)).get(overhead.FULL)
        if full and full.exists:
            line[0].axvspan(full.low, full.high, color=BLUE, alpha=0.12, linewidth=0)
        for height, row in enumerate(part.itertuples()):
            line[1].plot(row.gradients, height, "s", color=color(row.name), markersize=6)
            line[1].plot(row.time, height, "o", color=GRAY, markersize=6, markerfacecolor="none")
        line[1].axvline(overhead.LIMIT, color=ORANGE, linewidth=1.2, linestyle=DASHED)
        line[0].set_title(f"{dataset}, {fusion}")
        line[1].set_xlim(0.4, 1.05 * max(1.0, found["gradients"].max(), found["time"].max()))
        strip(line, study.levels[dataset])
    grid[-1, 0].set_xlabel("test accuracy\n(%)")
    grid[-1, 1].set_xlabel("cost of a step\n/ SAM's")
    axes = grid[0, 1]
    axes.plot([], [], "s", color=GRAY, label="gradient evaluations")
    if found["time"].notna().any():
        axes.plot([], [], "o", color=GRAY, markerfacecolor="none", label="measured time")
    axes.plot([], [], color=ORANGE, linewidth=1.2, linestyle=DASHED, label=f"limit, {overhead.LIMIT}")
    legend(figure, axes)
    return figure


@picture
def scaling_points(root: Path) -> Figure:
    """A panel row for each number of modalities: accuracy, and how often the dominant one was named."""
    found = scaling.scaling_data(root)
    if found.empty:
        return empty("no records yet")
    figure, grid = _rows([part for _, part in found.groupby("modalities")])
    for line, (count, part) in zip(grid, found.groupby("modalities"), strict=True):
        for axes, value in zip(line, ("accuracy", "identified"), strict=True):
            _intervals(axes, list(part["name"]), [interval.scaled(100) for interval in part[value]])
        line[0].set_title(f"{count} modalities")
        line[1].set_xlim(-3, 103)
    grid[-1, 0].set_xlabel("test accuracy\n(%)")
    grid[-1, 1].set_xlabel(f"{scaling.DOMINANT} dominates\n(% of batches)")
    return figure


@picture
def modality_curves(study: Study) -> Figure:
    """Measured time of a step relative to SAM's against the number of modalities, a line for each method."""
    rows = overhead.measured(study)
    if rows.empty:
        return empty("no benchmark recorded yet: make benchmark")
    names = [name for name in in_order(rows["method"]) if name in TIMED]
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        mine = rows[rows["method"] == name].sort_values("modalities")
        shade, line = PALETTE[i % len(PALETTE)], LINES[i // len(PALETTE) % len(LINES)]
        axes.plot(mine["modalities"], mine["ratio_to_sam"], color=shade, linestyle=line, label=label(name))
    axes.axhline(1, color=GRAY, linewidth=0.8)
    axes.set(xlabel="modalities", ylabel="time of a step / SAM's", xticks=sorted(rows["modalities"].unique()))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _rows(parts: list[pd.DataFrame], entries: int = 0) -> tuple[Figure, np.ndarray]:
    """Two panels for each part, with a line for each of its methods."""
    texts = {label(name) for part in parts for name in part["name"]}
    heights = [ROW * len(part) for part in parts]
    figure, grid = panels(heights, 2, entries, "none", texts, bottom=0.66)
    for line, part in zip(grid, parts, strict=True):
        method_rows(line[0], list(part["name"]))
        line[1].grid(axis="y", color=GRAY, linewidth=0.4, alpha=0.35)
        line[1].tick_params(axis="y", length=0)
    return figure, grid


def _intervals(axes: Axes, names: list[str], intervals: list[Any]) -> None:
    for height, (name, interval) in enumerate(zip(names, intervals, strict=True)):
        if interval.n:
            interval_point(axes, height, name, interval)
