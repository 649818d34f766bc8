"""Points for the parts of a network, or for its modalities: a line for each part and method."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.dominance import dominant
from msam.analysis.figures.draw import (
    ROW,
    below,
    empty,
    interval_point,
    legend,
    log_scale,
    method_rows,
    panels,
    picture,
    strip,
)
from msam.analysis.names import GRAY, color, in_order, label, marker
from msam.analysis.probes import MEASURES, WHOLE, flatness
from msam.analysis.sources import Study
from msam.analysis.statistics import Interval, mean_interval

LINE = 0.115  # inches of one method of a part


@picture
def measure_points(study: Study) -> Figure:
    """Geometric means of every measure of the whole network, a row for each dataset and fusion."""
    rows = flatness(study)
    rows = rows[rows["part"] == WHOLE]
    if rows.empty:
        return empty("no records yet")
    blocks = list(rows[["dataset", "fusion"]].drop_duplicates().itertuples(index=False, name=None))
    names = in_order(rows["name"])
    heights = [ROW * len(names)] * len(blocks)
    texts = map(label, names)
    figure, grid = panels(heights, len(MEASURES), share_x="none", names=texts, bottom=0.66, beside=0.42)
    for line, (dataset, fusion) in zip(grid, blocks, strict=True):
        mine = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)]
        for axes, measure in zip(line, MEASURES, strict=True):
            found = mine[mine["measure"] == measure]
            for height, name in enumerate(names):
                interval_point(axes, height, name, _geometric(found[found["name"] == name]["value"]))
            log_scale(axes, "x", 2)
            method_rows(axes, names)
        line[0].set_title(f"{dataset}, {fusion}", loc="left")
        strip(line, study.levels[dataset])
    for axes, text in zip(grid[-1], MEASURES.values(), strict=True):
        axes.set_xlabel(text.replace(" ", "\n"))
    return figure


@picture
def part_points(study: Study, rows: pd.DataFrame, text: str, logarithmic: bool = False) -> Figure:
    """Mean and interval of each part and method, a panel for each dataset and fusion.

    The part of the modality that dominated the most batches of M-SAM is shaded.

    Args:
        study: the records.
        rows: the columns dataset, fusion, name, seed, part and value.
        text: of the x axis.
        logarithmic: whether the x axis is; the means are geometric then.
    """
    if rows.empty:
        return empty("no records yet")
    datasets, fusions = (list(dict.fromkeys(rows[key])) for key in ("dataset", "fusion"))
    names = in_order(rows["name"])
    interval = _geometric if logarithmic else mean_interval
    parts = {d: list(dict.fromkeys(mine["part"])) for d, mine in rows.groupby("dataset", sort=False)}
    heights = [LINE * (len(names) + 1) * len(mine) for mine in parts.values()]
    texts = {part for mine in parts.values() for part in mine}
    figure, grid = panels(heights, len(fusions), len(names), names=texts)
    for line, dataset in zip(grid, datasets, strict=True):
        for axes, fusion in zip(line, fusions, strict=True):
            mine = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion)]
            most = dominant(study, dataset, fusion)
            for place, part in enumerate(parts[dataset]):
                for i, name in enumerate(names):
                    values = mine[(mine["part"] == part) & (mine["name"] == name)]["value"]
                    height = place + (i + 1) / (len(names) + 1) - 0.5
                    interval_point(axes, height, name, interval(values))
                if part == most:
                    axes.axhspan(place - 0.5, place + 0.5, color=GRAY, alpha=0.15, linewidth=0)
            axes.set_yticks(range(len(parts[dataset])), parts[dataset])
            axes.set_ylim(len(parts[dataset]) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{dataset}, {fusion}")
        if logarithmic:
            for axes in line:
                log_scale(axes, "x", 3)
        strip(line, study.levels[dataset])
    for name in names:
        grid[0, 0].plot([], [], marker(name), color=color(name), label=label(name))
    below(figure, text)
    legend(figure, grid[0, 0])
    return figure


def _geometric(values: Iterable[float]) -> Interval:
    """Geometric mean and its interval: those of the logarithms; what is not positive is left out."""
    data = pd.Series(values, dtype=float)
    found = mean_interval(np.log10(data[data > 0]))
    return Interval(10**found.mean, 10**found.low, 10**found.high, found.n)
