"""The paper's margins beside the smallest that its test sets can show."""

from __future__ import annotations

from matplotlib.figure import Figure

from msam.analysis.figures.draw import WIDTH, legend, picture
from msam.analysis.names import GRAY, color, marker
from msam.analysis.resolution import margins

LINE = 0.24  # inches


@picture
def margin_points() -> Figure:
    """M-SAM's margins over the best other method and over SAM; a bar and a tick for the two limits."""
    found = margins()
    parts = dict(list(found.groupby("over", sort=False)))
    cells = [f"{row.dataset}, {row.fusion}" for row in next(iter(parts.values())).itertuples()]
    figure = Figure(figsize=(WIDTH, 1.2 + LINE * len(cells)), layout="constrained")
    places = range(len(cells))
    grid = figure.subplots(1, len(parts), sharey=True, sharex=True)
    for axes, (over, rows) in zip(grid, parts.items(), strict=True):
        axes.barh(
            places, rows["half_width"], 0.5, color=GRAY, alpha=0.25, label="not told apart: independent"
        )
        axes.plot(rows["best_case"], places, "|", color=GRAY, markersize=11, label="best case")
        axes.plot(
            rows["margin"], places, marker("msam"), color=color("msam"), markersize=6, label="M-SAM's margin"
        )
        axes.set_title(f"over {'the best other' if over == 'best other' else over}")
        axes.set_xlabel("points")
    grid[0].set_yticks(places, cells)
    grid[0].set_ylim(len(cells) - 0.5, -0.5)
    for axes in grid:
        axes.tick_params(axis="y", length=0)
    legend(figure, *grid)
    return figure
