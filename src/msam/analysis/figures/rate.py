"""The average squared gradient norm against the number of steps, beside the claimed rate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from msam.analysis.figures.draw import PANEL, band, empty, legend, panels, picture
from msam.analysis.names import DASHDOT, DASHED, DOTTED, GRAY, LONG, PALETTE, SOLID
from msam.analysis.rate import NAMES, Record, averages, bound, claimed
from msam.analysis.statistics import summarize

DASHES = (SOLID, DASHED, LONG, DASHDOT, DASHED, DOTTED)
PRACTICE = {"steps": "x 0.1 every 70 iterations", "epochs": "x 0.1 every 70 epochs"}


@picture
def rate_curves(record: Record | None) -> Figure:
    """The average with the proof's schedule; its ratio to the claimed rate; its ratio to SGD's by seed."""
    rows = averages(record)
    if record is None or rows.empty:
        return empty("no records yet")
    figure, grid = panels([PANEL] * 3, 1, len(NAMES) + 2)
    above, middle, below = grid[:, 0]
    steps = np.unique(rows["steps"])
    _lines(above, rows, "average")
    above.plot(steps, claimed(steps), color=GRAY, linestyle=SOLID, linewidth=1, label="log T / sqrt T")
    above.plot(steps, bound(record, steps), color=GRAY, linestyle=DOTTED, label="repaired bound")
    _finish(above, "", "average")
    _lines(middle, rows, "ratio")
    _finish(middle, "", "ratio to claim")
    _lines(below, rows, "to_sgd")
    _finish(below, "", "ratio to SGD")
    below.set_yscale("linear")
    below.yaxis.set_major_locator(MaxNLocator(3))
    below.set_xlabel("steps T")
    legend(figure, above)
    return figure


@picture
def decay_curves(record: Record | None) -> Figure:
    """The ratio of the average to the claimed rate under the paper's practice, one panel for each reading."""
    parts = {schedule: averages(record, schedule) for schedule in PRACTICE}
    if record is None or not any(len(rows) for rows in parts.values()):
        return empty("no records yet")
    figure, grid = panels([PANEL], len(parts), len(NAMES))
    for axes, (schedule, rows) in zip(grid[0], parts.items(), strict=True):
        _lines(axes, rows, "ratio")
        _finish(axes, PRACTICE[schedule], "ratio to claim" if schedule == "steps" else "")
        axes.set_xlabel("steps T")
    legend(figure, grid[0, 0])
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, value: str) -> None:
    found = summarize(rows, ["rule", "steps"], value).rename(columns={"steps": "x"})
    found["low"] = found["low"].clip(lower=found["mean"] / 100)  # a logarithmic axis ends above zero
    for rule, shade, dashes in zip(NAMES, PALETTE, DASHES, strict=True):
        band(axes, found[found["rule"] == rule], shade, dashes, NAMES[rule])


def _finish(axes: Axes, title: str, text: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title)
    axes.set_ylabel(text)
