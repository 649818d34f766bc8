"""How often the truly dominant modality of a batch is named, against the size of the batch."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.figures.draw import PANEL, band, empty, legend, panels, picture, strip
from msam.analysis.names import DASHDOT, DASHED, DOTTED, LONG, PALETTE, SOLID
from msam.analysis.sources import Study
from msam.analysis.statistics import summarize
from msam.analysis.values import identified


@picture
def identification_curves(study: Study) -> Figure:
    """A line for each value of a coalition, a panel for each fusion."""
    rows = identified(study).assign(fraction=lambda frame: 100 * frame["fraction"])
    if rows.empty:
        return empty("no network of a dataset with a known dominant modality has been probed yet")
    fusions, datasets = (list(dict.fromkeys(rows[key])) for key in ("fusion", "dataset"))
    values, sizes = list(dict.fromkeys(rows["value"])), sorted(rows["size"].unique())
    figure, grid = panels([PANEL] * len(datasets), len(fusions), len(values))
    styles = (SOLID, DASHED, DOTTED, DASHDOT, LONG)
    for line, dataset in zip(grid, datasets, strict=True):
        for axes, fusion in zip(line, fusions, strict=True):
            mine = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)]
            for i, value in enumerate(values):
                found = summarize(mine[mine["value"] == value], ["size"], "fraction")
                found = found.assign(x=found["size"].map(sizes.index))
                band(axes, pd.DataFrame(found), PALETTE[i % len(PALETTE)], styles[i % len(styles)], value)
            axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
            axes.set_title(f"{dataset}, {fusion}")
            axes.set_ylim(-3, 103)
            if axes is line[0]:
                axes.set_ylabel("identified (%)")
        strip(line, study.levels[dataset])
    for axes in grid[-1]:
        axes.set_xlabel("batch size")
    legend(figure, *grid.flat)
    return figure
