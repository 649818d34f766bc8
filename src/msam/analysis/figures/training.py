"""What training minimizes against what it spends: epochs, steps, gradient evaluations, seconds."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.figures.curves import summary
from msam.analysis.figures.draw import PANEL, band, empty, finish, legend, log_scale, panels, picture, strip
from msam.analysis.metrics import CELL, is_unimodal
from msam.analysis.names import SHOWN, color, dashes, in_order, label, shown
from msam.analysis.sources import Study

SPENT = {
    "epoch": "epochs",
    "steps": "thousand steps",
    "gradient_evaluations": "thousand gradients",
    "seconds": "seconds",
}
TEXTS = {"loss": "training loss", "gradient_norm": "squared norm"}


@picture
def spent_curves(
    study: Study, value: str = "loss", fusion: str = "late", methods: Iterable[str] = SHOWN
) -> Figure:
    """Training loss or squared gradient norm (`value`) against each of `SPENT`.

    It shows the first dataset with such numbers. A record holds the costs of a whole run, which are spread
    evenly over its epochs.
    """
    rows = spent(study, value)
    rows = rows[(rows["fusion"] == fusion) & rows["name"].isin(shown(rows["name"], methods))]
    first = [dataset for dataset in study.datasets if dataset in set(rows["dataset"])]
    if not first:
        return empty("no records yet")
    rows = rows[rows["dataset"] == first[0]]
    names = in_order(rows["name"])
    figure, grid = panels([PANEL] * 2, 2, len(names), share_x="none")
    for axes, (x, text) in zip(grid.flat, SPENT.items(), strict=True):
        found = summary(rows, ["name"], value, x, log=True)
        for name in names:
            band(axes, found[found["name"] == name], color(name), dashes(name), label(name))
        finish(axes, "", TEXTS[value] if axes in grid[:, 0] else "")
        axes.set_xlabel(text)
    for axes in grid[:, 0]:
        log_scale(axes, "y", 3)
    grid[0, 0].set_title(f"{first[0]}, {fusion}")
    strip(grid[0], study.levels[first[0]])
    legend(figure, grid[0, 0])
    return figure


def spent(study: Study, value: str) -> pd.DataFrame:
    """A row for each multimodal run and epoch that has `value`: the value and what was spent until then."""
    epochs = study.frames.epochs
    kept = epochs[(epochs["split"] == "train") & (epochs["output"] == "fused") & ~is_unimodal(epochs["name"])]
    costs = ["steps", "gradient_evaluations", "seconds"]
    kept = kept.dropna(subset=[value]).merge(study.frames.seeds[[*CELL, "seed", *costs]], on=[*CELL, "seed"])
    part = kept["epoch"] / kept.groupby([*CELL, "seed"])["epoch"].transform("max")
    units = {"steps": 1000, "gradient_evaluations": 1000, "seconds": 1}
    return kept.assign(**{name: kept[name] * part / unit for name, unit in units.items()})
