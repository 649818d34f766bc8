"""Curves of the modalities' shares and of their dominance."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from msam.analysis.figures.curves import dataset_curves, summary
from msam.analysis.figures.draw import PANEL, band, empty, finish, panels, picture, strip
from msam.analysis.metrics import CELL
from msam.analysis.names import BLUE, DASHED, DOTTED, GREEN, ORANGE, READINGS, SOLID, label
from msam.analysis.sources import Study, fusion_order, modalities


@picture
def share_curves(study: Study, name: str = "msam") -> Figure:
    """Mean share of each modality over the steps of each epoch, for one method."""
    return _modality_curves(study, name, "share", "mean share")


@picture
def dominance_curves(study: Study, name: str = "msam") -> Figure:
    """Fraction of an epoch's batches in which each modality was dominant, for one method."""
    return _modality_curves(study, name, "fraction", "part of batches")


@picture
def switch_curves(study: Study) -> Figure:
    """How often the dominant modality changed between batches, per epoch and reading of M-SAM."""
    return dataset_curves(study, _readings(study), "switches", "switches", from_zero=True)


@picture
def dominant_share_curves(study: Study) -> Figure:
    """Mean share v_d of the dominant modality per epoch and reading of M-SAM: the literal SAM weight."""
    return dataset_curves(study, _readings(study), "dominant_share", "mean v_d")


def _readings(study: Study) -> pd.DataFrame:
    """One row a seed and epoch of each reading of M-SAM."""
    rows = study.frames.dominance
    return rows[rows["name"].isin(READINGS)].drop_duplicates([*CELL, "seed", "epoch"])


def _modality_curves(study: Study, name: str, value: str, text: str) -> Figure:
    """Curves of one method, a line for each modality; colors go by the modality's place in its dataset."""
    rows = study.frames.dominance
    rows = rows[rows["name"] == name].copy()
    if rows.empty:
        return empty(f"no records of {label(name)} with shares yet")
    rows["fraction"] = rows["count"] / rows.groupby([*CELL, "seed", "epoch"])["count"].transform("sum")
    found = summary(rows, ["dataset", "fusion", "modality"], value)
    found[["low", "high"]] = found[["low", "high"]].clip(0, 1)  # a symmetric interval does not know the ends
    fusions = fusion_order(study.cells)
    figure, grid = panels([PANEL] * len(study.datasets), len(fusions))
    for line, dataset in enumerate(study.datasets):
        for column, fusion in enumerate(fusions):
            axes = grid[line, column]
            part = found[(found["dataset"] == dataset) & (found["fusion"] == fusion)]
            for i, modality in enumerate(modalities(study, dataset)):
                mine = part[part["modality"] == modality]
                style = [SOLID, DASHED, DOTTED][i % 3]
                band(axes, mine, [BLUE, ORANGE, GREEN][i % 3], style, modality)
            finish(axes, f"{dataset}, {fusion}", text if column == 0 else "")
            axes.set_ylim(-0.03, 1.4)  # with room for the legend above the curves
            axes.set_yticks([0, 0.5, 1])
            if not part.empty:
                axes.legend(
                    loc="upper center", ncols=3, handlelength=1.2, columnspacing=0.8, borderaxespad=0.1
                )
        strip(grid[line], study.levels[dataset])
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure
