"""The cost of a training step."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from msam.analysis.cost import cost_rows
from msam.analysis.figures.draw import empty, legend, method_rows, panels, picture
from msam.analysis.names import GRAY, PALETTE, in_order, label
from msam.analysis.sources import Study

LINE = 0.1  # inches


@picture
def cost_points(study: Study, net: str = "small") -> Figure:
    """Median time of a training step relative to SAM's, for each method, fusion and number of modalities."""
    rows = cost_rows(study)
    rows = rows[rows["net"] == net] if len(rows) else rows
    if rows.empty:
        return empty(f"no benchmark of the network {net} recorded")
    fusions = list(dict.fromkeys(rows["fusion"]))
    methods, sizes = in_order(rows["method"]), sorted(rows["modalities"].unique())
    height = LINE * (len(sizes) + 1) * len(methods)
    figure, (grid,) = panels([height], len(fusions), len(sizes), names=map(label, methods))
    ends = np.concatenate([rows["ratio_to_sam"], *rows["ratio_to_sam_iqr"]])
    powers = 2.0 ** np.arange(*np.log2([ends.min(), 2 * ends.max()]).round())
    for axes, fusion in zip(grid, fusions, strict=True):
        for size, part in rows[rows["fusion"] == fusion].groupby("modalities"):
            place = sizes.index(size)
            heights = [methods.index(m) + (place + 1) / (len(sizes) + 1) - 0.5 for m in part["method"]]
            axes.hlines(heights, *zip(*part["ratio_to_sam_iqr"], strict=True), PALETTE[place], linewidth=2)
            style = {"color": PALETTE[place], "markersize": 4, "label": f"{size} modalities"}
            axes.plot(part["ratio_to_sam"], heights, "o", **style)
        axes.set_xscale("log")
        axes.set_xticks(powers, [f"{x:g}" for x in powers])
        axes.minorticks_off()
        axes.axvline(1, color=GRAY, linewidth=0.8)
        method_rows(axes, methods)
        axes.set_title(f"{fusion} fusion")
        axes.set_xlabel("time / time of SAM")
    legend(figure, grid[0])
    return figure
