"""What all figures share: the style, panels of fixed size, bands over seeds, legends."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from math import ceil
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from msam.analysis.names import GRAY, color, label, marker
from msam.analysis.statistics import Interval

WIDTH = 5.4  # inches: narrow, so that little is lost when it shrinks to a phone
LEGEND_COLUMNS = 3
PANEL = 1.25  # inches of a panel with curves
APART = 0.55  # of an axis, so that two numbers do not run together
ROW = 0.19  # inches of one method in a figure of points
STYLE: Any = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "text.color": GRAY,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.titlecolor": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "axes.titley": 1.0,  # to find the place takes a twentieth of the drawing time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": GRAY,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "msam",
}


@dataclass(frozen=True, repr=False)
class Picture:
    """A finished figure; Jupyter shows it as SVG. `svg` is the same text for the same records."""

    svg: str
    figure: Figure

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:  # no address in memory: an executed page is the same text each time
        return "Picture"


def picture(draw: Callable[..., Figure]) -> Callable[..., Picture]:
    """Run a drawing function in the book's style and render its figure."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Picture:
        with mpl.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        return Picture(file.getvalue(), figure)

    return drawn


def panels(
    heights: Sequence[float],
    columns: int,
    entries: int = 0,
    share_x: Literal["row", "none"] = "row",
    names: Iterable[str] = (),
    bottom: float = 0.48,
    beside: float = 0.17,
) -> tuple[Figure, np.ndarray]:
    """Panels of fixed size: an automatic layout would take a third of the drawing time.

    Args:
        heights: of the rows of panels, inches.
        columns: number of panels in a row.
        entries: of the legend above the panels.
        share_x: panels with the same x axis.
        names: texts beside the panels, where these are not numbers and their name.
        bottom: room below the panels, inches.
        beside: room between two panels, inches.

    Returns:
        The figure, and its panels by row and column.
    """
    left, right, between = _room(names), 0.3, 0.5
    top = 0.3 + (0.15 + 0.2 * ceil(entries / LEGEND_COLUMNS) if entries else 0)
    height = top + bottom + sum(heights) + (len(heights) - 1) * between
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(
        left=left / WIDTH,
        right=1 - right / WIDTH,
        bottom=bottom / height,
        top=1 - top / height,
        hspace=between * len(heights) / sum(heights),
        wspace=beside * columns / (WIDTH - left - right - (columns - 1) * beside),
    )
    grid = figure.subplots(
        len(heights), columns, squeeze=False, sharex=share_x, sharey="row", height_ratios=heights
    )
    return figure, grid


def _room(names: Iterable[str]) -> float:
    """Inches that the longest of the names takes beside a panel, or numbers and the name of their axis."""
    font = FontProperties(size=STYLE["font.size"])
    widths = [text_to_path.get_text_width_height_descent(name, font, False)[0] / 72 for name in names]
    return max(widths) + 0.15 if widths else 0.8


def band(axes: Axes, summary: pd.DataFrame, shade: str, style: Any, text: str) -> None:
    """The mean against x as a line, its interval as a band where there is one: columns x, mean, low, high."""
    if summary.empty:
        return
    summary = summary.sort_values("x")
    axes.plot(summary["x"], summary["mean"], color=shade, linestyle=style, label=text)
    axes.fill_between(summary["x"], summary["low"], summary["high"], color=shade, alpha=0.15, linewidth=0)


def finish(axes: Axes, title: str, text: str) -> None:
    """Title, name of the y axis and whole numbers on the x axis; a panel without lines says so."""
    axes.set_title(title)
    axes.set_ylabel(text)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    if not axes.lines:
        axes.text(0.5, 0.5, "no records", transform=axes.transAxes, ha="center", style="italic")


def log_scale(axes: Axes, which: Literal["x", "y"], most: int) -> None:
    """A logarithmic axis with a few plain ticks: the roundest whose ends are `APART` of it apart."""
    axes.set(**{f"{which}scale": "log"})
    low, high = getattr(axes, f"get_{which}lim")()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in ([1], [1, 2, 5], np.arange(1, 10), np.arange(10, 100) / 10):
        inside = [x for power in powers for x in power * np.array(digits) if low <= x <= high]
        if inside and np.log(inside[-1] / inside[0]) > APART * np.log(high / low):
            break
    inside = inside or [low, high]  # a range between two ticks
    shown = [inside[i] for i in np.unique(np.linspace(0, len(inside) - 1, most).round().astype(int))]
    getattr(axes, f"set_{which}ticks")(shown, [f"{x:.4g}" for x in shown], fontsize="small")
    getattr(axes, f"{which}axis").set_minor_formatter(mpl.ticker.NullFormatter())


def below(figure: Figure, text: str) -> None:
    """One name for the x axes of all panels, at the foot of the figure."""
    figure.supxlabel(text, y=0, fontsize="medium")


def strip(row: np.ndarray, text: str) -> None:
    """What a row of panels shares, for instance its evidence level, along its right edge."""
    row[-1].annotate(text, (1, 0.5), (6, 0), "axes fraction", "offset points", rotation=270, va="center")


def legend(figure: Figure, *panels: Axes) -> None:
    """One legend above all panels, each entry once."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if entries:
        place: Any = "outside upper center" if figure.get_layout_engine() else "upper center"
        figure.legend(
            list(entries.values()),
            list(entries),
            loc=place,
            ncols=LEGEND_COLUMNS,
            columnspacing=1.2,
            handlelength=1.8,
            handletextpad=0.5,
        )


def method_rows(axes: Axes, names: list[str]) -> None:
    """A line for each method from above, with its name on the y axis and a hairline for the eye."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GRAY, linewidth=0.4, alpha=0.35)
    axes.set_axisbelow(True)


def interval_point(axes: Axes, height: float, name: str, interval: Interval, face: str = "") -> None:
    """A method's mean as its marker and its interval as a bar; `face` fills the marker otherwise."""
    if interval.exists:
        axes.plot([interval.low, interval.high], [height, height], color=color(name), linewidth=2)
    axes.plot(
        interval.mean,
        height,
        marker(name),
        color=color(name),
        markersize=6,
        markerfacecolor=face or color(name),
    )


def empty(text: str) -> Figure:
    """A line of text where there is nothing to draw."""
    figure = Figure(figsize=(WIDTH, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center", style="italic")
    return figure
