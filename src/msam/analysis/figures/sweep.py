"""Curves over a number in the names of cells, a panel for each dataset and fusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.figures.draw import LEGEND_COLUMNS, band, empty, legend, panels, picture, strip
from msam.analysis.mixing import placed_readings
from msam.analysis.names import color, dashes, in_order, label, marker
from msam.analysis.radius import tradeoff
from msam.analysis.sources import Study
from msam.analysis.statistics import mean_interval, summarize
from msam.analysis.sweep import Cells, swept


@picture
def sweep_curves(study: Study, measures: Mapping[str, Cells], option: str, text: str) -> Figure:
    """A row of panels for each measure and dataset, a line for each method.

    Args:
        study: the records.
        measures: what the y axis says -> numbers of each cell; drawn on a logarithmic axis where the text
            ends with "(log)".
        option: the option that is swept.
        text: of the x axis.
    """
    parts = {name: swept(values, option) for name, values in measures.items()}
    lines = [(name, dataset) for dataset in study.datasets for name in parts]
    return _curves(study, parts, lines, text)


@picture
def mixing_curves(study: Study, values: Cells) -> Figure:
    """Accuracy against a constant share, and each reading of M-SAM at the mean share of its own runs."""
    parts = {"test (%)": swept(values, "share")}
    return _curves(study, parts, [("test (%)", d) for d in study.datasets], "share of the SAM gradient", True)


@picture
def tradeoff_points(study: Study) -> Figure:
    """Test accuracy against top eigenvalue, a point for each radius, joined in their order."""
    rows = tradeoff(study)
    if rows.empty:
        return empty("no records yet")
    datasets, fusions = (list(dict.fromkeys(rows[key])) for key in ("dataset", "fusion"))
    methods = in_order(rows["method"])
    figure, grid = panels(len(fusions), len(datasets), legend_lines=ceil(len(methods) / LEGEND_COLUMNS))
    for line, fusion in zip(grid, fusions, strict=True):
        for axes, dataset in zip(line, datasets, strict=True):
            mine = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)]
            best = mine["accuracy"].max()
            for method in methods:
                part = mine[mine["method"] == method].sort_values("x")
                style = {"color": color(method), "marker": marker(method), "markersize": 4}
                axes.plot(part["top"], part["accuracy"] - best, label=label(method), **style)
            axes.set_xscale("log")
            axes.set_title(f"{dataset}, {fusion}")
            if axes is line[0]:
                axes.set_ylabel("below the best (points)")
    for axes in grid[-1]:
        axes.set_xlabel("top eigenvalue")
    legend(figure, *grid.flat)
    return figure


def _curves(
    study: Study,
    parts: Mapping[str, pd.DataFrame],
    lines: Iterable[tuple[str, str]],
    text: str,
    readings: bool = False,
) -> Figure:
    methods = in_order(name for rows in parts.values() for name in rows["method"])
    if not methods:
        return empty("no records yet")
    lines = list(lines)
    fusions = list(dict.fromkeys(study.cells["fusion"]))
    entries = len(methods) + (3 if readings else 0)
    figure, grid = panels(len(lines), len(fusions), legend_lines=ceil(entries / LEGEND_COLUMNS))
    for row, (name, dataset) in zip(grid, lines, strict=True):
        rows = parts[name]
        for axes, fusion in zip(row, fusions, strict=True):
            mine = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)]
            places = {x: i for i, x in enumerate(sorted(rows["x"].unique()))}
            for method in methods:
                found = summarize(mine[mine["method"] == method], ["x"], "value")
                if not readings:
                    found = found.assign(x=found["x"].map(places))
                band(axes, found, color(method), dashes(method), label(method))
            if readings:
                for reading, (share, series) in placed_readings(study, dataset, fusion).items():
                    interval = mean_interval(100 * series)
                    at = {"color": color(reading), "zorder": 3}
                    axes.plot([share, share], [interval.low, interval.high], linewidth=2, **at)
                    axes.plot(share, interval.mean, marker(reading), label=label(reading), **at)
            else:
                axes.set_xticks(list(places.values()), [f"{x:g}" for x in places])
            if name.endswith("(log)"):
                axes.set_yscale("log")
            axes.set_title(f"{dataset}, {fusion}")
            if axes is row[0]:
                axes.set_ylabel(name.removesuffix(" (log)"))
        strip(row, study.levels[dataset])
    for axes in grid[-1]:
        axes.set_xlabel(text)
    legend(figure, *grid.flat)
    return figure
