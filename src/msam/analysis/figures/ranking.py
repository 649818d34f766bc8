"""All methods side by side over the blocks: ranks, differences to M-SAM, performance profiles."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis import budget as budgets
from msam.analysis import ranking, selection
from msam.analysis.figures.draw import ROW, WIDTH, band, empty, interval_point, legend, method_rows, picture
from msam.analysis.names import GRAY, SHOWN, color, dashes, label, shown
from msam.analysis.sources import Study
from msam.analysis.statistics import Interval


@picture
def rank_points(study: Study) -> Figure:
    """Mean rank and interquartile mean of every method that has runs in all blocks, best rank first."""
    found = ranking.ranking(study)
    found = found[found["complete"]]
    names = list(found["name"])
    if not names:
        return empty("no records yet")
    figure, (left, right) = _two(names)
    _estimates(left, names, found["rank"], "mean rank (1 is best)")
    _estimates(right, names, found["score"], "interquartile mean\n(% of joint)", 100)
    return figure


@picture
def against_points(study: Study, first: str = "msam") -> Figure:
    """Mean difference of `first` to every method, and the probability that its run is the better one."""
    found = ranking.against(study, first)
    names = list(found["name"])
    if not names:
        return empty("no records yet")
    figure, (left, right) = _two(names)
    points = [difference.scaled(100) for difference in found["difference"]]
    _estimates(left, names, points, f"{label(first)} minus method\n(points)", 0)
    _estimates(right, names, found["probability"], f"P({label(first)} > method)", 0.5)
    return figure


@picture
def profile_curves(study: Study, methods: Iterable[str] = SHOWN) -> Figure:
    """Fraction of the runs whose accuracy, in percent of joint's mean, is above a threshold, with bands."""
    names = shown((name for grid in ranking.grids(study).values() for name in grid.columns), methods)
    found = ranking.profile(study, names)
    if found.empty:
        return empty("no records yet")
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in names:
        band(axes, found[found["name"] == name], color(name), dashes(name), label(name))
    axes.set(
        xlabel="accuracy in percent of joint's mean", ylabel="fraction of runs above", ylim=(-0.02, 1.02)
    )
    legend(figure, axes)
    return figure


@picture
def budget_points(study: Study, budget: Study, first: str = "msam") -> Figure:
    """Mean difference of `first` to each method at equal epochs and at equal gradient evaluations."""
    found = budgets.overall_differences(study, budgets.differences(study, budget, first))
    names = list(found["name"])
    if not names:
        return empty("no records with more epochs yet")
    figure = Figure(figsize=(WIDTH, 1.1 + 2 * ROW * len(names)), layout="constrained")
    axes = figure.subplots()
    method_rows(axes, names)
    for which, shift, face in (("epochs", -0.17, "none"), ("evaluations", 0.17, "")):
        for height, (name, interval) in enumerate(zip(names, found[which], strict=True)):
            interval_point(axes, height + shift, name, interval.scaled(100), face)
        axes.plot([], [], "s", color=GRAY, markerfacecolor=face or GRAY, label=budgets.COMPARISONS[which])
    axes.axvline(0, color=GRAY, linewidth=0.8)
    axes.set_xlabel(f"{label(first)} minus method (points)")
    legend(figure, axes)
    return figure


@picture
def selection_points(study: Study) -> Figure:
    """What choosing the epoch on the validation split adds to a method, and on the test split beyond that."""
    found = selection.gains(study)
    names = list(found["name"])
    if not names:
        return empty("no records yet")
    figure, panels = _two(names)
    for axes, difference in zip(panels, ("validation", "test"), strict=True):
        points = [interval.scaled(100) for interval in found[difference]]
        text = fill(selection.said(difference), 22)
        _estimates(axes, names, points, f"{text}\n(points)", 0)
    return figure


def _two(names: list[str]) -> tuple[Figure, tuple[Axes, Axes]]:
    """Two panels that share their lines, one for each method."""
    figure = Figure(figsize=(WIDTH, 0.85 + ROW * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    return figure, (left, right)


def _estimates(
    axes: Axes, names: list[str], values: Iterable[Interval], text: str, reference: float | None = None
) -> None:
    method_rows(axes, names)
    for height, (name, interval) in enumerate(zip(names, values, strict=True)):
        interval_point(axes, height, name, interval)
    if reference is not None:
        axes.axvline(reference, color=GRAY, linewidth=0.8)
    axes.set_xlabel(text)
