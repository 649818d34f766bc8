"""The cost of a training step."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from msam.analysis.cost import cost_rows
from msam.analysis.figures.draw import WIDTH, empty, legend, method_rows, picture
from msam.analysis.names import GRAY, PALETTE, in_order
from msam.analysis.sources import Study

BAR, LINE = 0.14, 0.24  # inches


@picture
def cost_bars(study: Study, net: str = "small") -> Figure:
    """Median time of a training step relative to SAM's, for each method, fusion and number of modalities."""
    rows = cost_rows(study)
    rows = rows[rows["net"] == net] if len(rows) else rows
    if rows.empty:
        return empty(f"no benchmark of the network {net} recorded")
    fusions = list(dict.fromkeys(rows["fusion"]))
    methods, sizes = in_order(rows["method"]), sorted(rows["modalities"].unique())
    row = max(BAR * len(sizes), LINE)
    figure = Figure(figsize=(WIDTH, 0.9 + row * len(methods)), layout="constrained")
    grid = figure.subplots(1, len(fusions), squeeze=False, sharex=True, sharey=True)[0]
    for axes, fusion in zip(grid, fusions, strict=True):
        for i, size in enumerate(sizes):
            part = rows[(rows["fusion"] == fusion) & (rows["modalities"] == size)].set_index("method")
            part = part.reindex(methods)
            heights = np.arange(len(methods)) + (i - (len(sizes) - 1) / 2) * 0.8 / len(sizes)
            axes.barh(
                heights, part["ratio_to_sam"], 0.75 / len(sizes), color=PALETTE[i], label=f"{size} modalities"
            )
            for height, ends in zip(heights, part["ratio_to_sam_iqr"], strict=True):
                if isinstance(ends, list):
                    axes.plot(ends, [height, height], color=GRAY, linewidth=1.2)
        axes.axvline(1, color=GRAY, linewidth=0.8)
        method_rows(axes, methods)
        axes.set_title(f"{fusion} fusion")
        axes.set_xlabel("time / time of SAM")
    legend(figure, grid[0])
    return figure
