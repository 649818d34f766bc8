"""The loss around trained weights along two random directions."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from msam.analysis.figures.draw import WIDTH, empty, picture, strip
from msam.analysis.names import RED, label
from msam.analysis.probes import landscapes
from msam.analysis.sources import Study, fusion_order

SIDE = 1.45  # inches of a panel
LINES = 12
SHADES = mpl.colormaps["viridis"](np.linspace(0.35, 0.8, LINES))
"""Neither too dark for a black page nor too light for a white one."""


@picture
def landscape_contours(
    study: Study, dataset: str, methods: Iterable[str] = ("joint", "sam", "msam"), seed: int = 0
) -> Figure:
    """Contours of the training loss, a row for each fusion, a panel for each method.

    Levels are spaced evenly in the logarithm and are the same along a row, so that panels can be compared.

    Args:
        study: the records.
        dataset: the dataset shown.
        methods: the methods shown, where they were probed.
        seed: of the networks.
    """
    found = landscapes(study, dataset, seed)
    names = [name for name in methods if any(key[1] == name for key in found)]
    fusions = [fusion for fusion in fusion_order(study.cells) if any((fusion, n) in found for n in names)]
    if not fusions:
        return empty(f"no landscape of {dataset} recorded yet")
    figure = Figure(figsize=(WIDTH, 0.5 + len(fusions) * (SIDE + 0.4)), layout="constrained")
    grid = figure.subplots(len(fusions), len(names), squeeze=False, sharex=True, sharey=True)
    for line, fusion in zip(grid, fusions, strict=True):
        mine = {name: found[fusion, name] for name in names if (fusion, name) in found}
        losses = {name: np.asarray(shown["loss"], dtype=float) for name, shown in mine.items()}
        every = np.concatenate([loss.ravel() for loss in losses.values()])
        every = every[np.isfinite(every) & (every > 0)]
        levels = np.geomspace(every.min(), every.max(), LINES)
        for axes, name in zip(line, names, strict=True):
            axes.set_title(f"{label(name)}, {fusion}")
            axes.set_box_aspect(1)
            if name not in mine:
                continue
            x = mine[name]["x"]
            drawn = axes.contour(x, x, losses[name].T, levels=levels, colors=SHADES, linewidths=1.2)
            axes.clabel(drawn, levels=levels[1::2], fmt="%.2g", fontsize=7.5)
            axes.plot(0, 0, "+", color=RED, markersize=7)
        strip(line, study.levels[dataset])
    figure.supxlabel("one random direction", fontsize="medium")
    figure.supylabel("another direction", fontsize="medium")
    return figure
