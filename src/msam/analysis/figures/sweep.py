"""Curves over a number in the names of cells, a panel for each dataset and fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis.figures.draw import PANEL, band, below, empty, legend, log_scale, panels, picture, strip
from msam.analysis.mixing import mean_shares
from msam.analysis.names import READINGS, color, dashes, in_order, label, marker
from msam.analysis.radius import tradeoff
from msam.analysis.sources import Study, fusion_order
from msam.analysis.statistics import Interval, mean_interval, summarize
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
    places = {x: i for i, x in enumerate(sorted({x for rows in parts.values() for x in rows["x"]}))}

    def fill(axes: Axes, rows: pd.DataFrame) -> None:
        _bands(axes, rows.assign(x=rows["x"].map(places)))
        axes.set_xticks(list(places.values()), [f"{x:g}" for x in places])

    return _panels(study, parts, text, fill)


@picture
def mixing_curves(study: Study, values: Cells) -> Figure:
    """Accuracy against a constant share, and each reading of M-SAM at the mean share of its own runs."""
    shares = mean_shares(study)

    def fill(axes: Axes, rows: pd.DataFrame) -> None:
        _bands(axes, rows)
        blocks = set(rows[["dataset", "fusion"]].itertuples(index=False, name=None))
        for key in shares:
            if key[:2] in blocks and key in values:
                _mark(axes, key[2], shares[key], mean_interval(values[key]))

    parts = {"test (%)": swept(values, "share")}
    return _panels(study, parts, "share of the SAM gradient", fill, len(READINGS))


@picture
def tradeoff_points(study: Study) -> Figure:
    """Test accuracy against top eigenvalue, a point for each radius, joined in their order."""
    rows = tradeoff(study)
    if rows.empty:
        return empty("no records yet")
    datasets, fusions = list(dict.fromkeys(rows["dataset"])), fusion_order(rows)
    methods = in_order(rows["method"])
    figure, grid = panels([PANEL] * len(fusions), len(datasets), len(methods))
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
    below(figure, "top eigenvalue")
    legend(figure, *grid.flat)
    return figure


def _panels(
    study: Study,
    parts: Mapping[str, pd.DataFrame],
    text: str,
    fill: Callable[[Axes, pd.DataFrame], None],
    more: int = 0,
) -> Figure:
    """A row of panels for each dataset and measure, a panel for each fusion, filled with its rows.

    Args:
        study: the records.
        parts: measure -> its rows, from `swept`.
        text: of the x axis.
        fill: draws the rows of a measure into a panel.
        more: entries of the legend beside the methods.
    """
    methods = {name for rows in parts.values() for name in rows["method"]}
    if not methods:
        return empty("no records yet")
    lines = [(name, dataset) for dataset in study.datasets for name in parts]
    fusions = fusion_order(study.cells)
    figure, grid = panels([PANEL] * len(lines), len(fusions), len(methods) + more)
    for line, (name, dataset) in zip(grid, lines, strict=True):
        rows = parts[name]
        for axes, fusion in zip(line, fusions, strict=True):
            fill(axes, rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)])
            axes.set_title(f"{dataset}, {fusion}")
        line[0].set_ylabel(name.removesuffix(" (log)"))
        if name.endswith("(log)"):
            log_scale(line[0], "y", 3)
        strip(line, study.levels[dataset])
    for axes in grid[-1]:
        axes.set_xlabel(text)
    legend(figure, *grid.flat)
    return figure


def _bands(axes: Axes, rows: pd.DataFrame) -> None:
    for method in in_order(rows["method"]):
        found = summarize(rows[rows["method"] == method], ["x"], "value")
        band(axes, found, color(method), dashes(method), label(method))


def _mark(axes: Axes, name: str, x: float, interval: Interval) -> None:
    """A method's mean as its marker above x, and its interval as a bar."""
    axes.plot([x, x], [interval.low, interval.high], color=color(name), linewidth=2, zorder=3)
    axes.plot(x, interval.mean, marker(name), color=color(name), label=label(name), zorder=3)
