"""One line for each method: its mean, interval and seeds, a panel for each dataset and fusion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis.figures.draw import ROW, below, empty, interval_point, method_rows, panels, picture, strip
from msam.analysis.metrics import CELL, by_seed, gains_over_joint, is_unimodal, per_seed
from msam.analysis.names import GRAY, color, in_order, label
from msam.analysis.sources import Study, fusion_order
from msam.analysis.statistics import mean_interval


@picture
def accuracy_points(study: Study) -> Figure:
    """Fused test accuracy of every multimodal method: mean, 95 % interval, each seed; rows are datasets."""
    values = by_seed(study.frames.runs)
    cells = study.cells[~is_unimodal(study.cells["name"])]
    return _points(
        study, cells, lambda key: 100 * values.get(key, pd.Series(dtype=float)), "fused test accuracy (%)"
    )


@picture
def gain_points(study: Study) -> Figure:
    """Gain over joint training D_rel (Eq. 21): mean, 95 % interval, each seed; rows are datasets."""
    values = per_seed(gains_over_joint(study.frames.runs), "gain")
    cells = study.cells[~is_unimodal(study.cells["name"]) & (study.cells["name"] != "joint")]
    return _points(
        study, cells, lambda key: values.get(key, pd.Series(dtype=float)), "gain over joint (%)", zero=True
    )


def _points(study: Study, cells: pd.DataFrame, values: Callable, text: str, zero: bool = False) -> Figure:
    """One panel for each dataset x fusion, one line for each method; a cell without numbers says why."""
    if cells.empty:
        return empty("no records yet")
    datasets, fusions = list(dict.fromkeys(cells["dataset"])), fusion_order(cells)
    names = {dataset: in_order(part["name"]) for dataset, part in cells.groupby("dataset", sort=False)}
    heights = [ROW * len(mine) for mine in names.values()]
    texts = {label(name) for mine in names.values() for name in mine}
    figure, grid = panels(heights, len(fusions), names=texts)
    states = cells.set_index(CELL)["state"].to_dict()
    for row, dataset in enumerate(datasets):
        for column, fusion in enumerate(fusions):
            axes = grid[row, column]
            for height, name in enumerate(names[dataset]):
                series = values((dataset, fusion, name)).dropna()
                _point(axes, height, name, series, states.get((dataset, fusion, name), "missing"))
            if zero:
                axes.axvline(0, color=GRAY, linewidth=0.8)
            axes.set_title(f"{dataset}, {fusion}")
            method_rows(axes, names[dataset])
        strip(grid[row], study.levels[dataset])
    below(figure, text)
    return figure


def _point(axes: Axes, height: int, name: str, series: pd.Series, state: str) -> None:
    if series.empty:
        reason = {"undefined": "not defined", "done": "diverged"}.get(state, state)
        axes.text(0.02, height, reason, transform=axes.get_yaxis_transform(), va="center", style="italic")
        return
    axes.plot(series, np.full(len(series), height), "|", color=color(name), markersize=7, alpha=0.5)
    interval_point(axes, height, name, mean_interval(series))
