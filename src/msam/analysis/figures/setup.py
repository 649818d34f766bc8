"""Samples of the data and trials of the search."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis.figures.draw import LEGEND_COLUMNS, WIDTH, empty, picture, strip
from msam.analysis.names import PALETTE, SHOWN, color, label, marker, shown
from msam.analysis.setup import trials
from msam.analysis.sources import Study


@picture
def samples(study: Study, dataset: str) -> Figure:
    """A few samples of a dataset: a column for each, a row for each modality."""
    description = study.descriptions.get(dataset)
    if not description or not description.get("samples"):
        return empty(f"no data description of {dataset}")
    drawn, names = description["samples"], list(description["modalities"])
    figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(drawn), squeeze=False)
    for row, modality in enumerate(names):
        for column, sample in enumerate(drawn):
            axes = grid[row, column]
            kind = description["modalities"][modality].get("kind", "")
            _draw_input(axes, np.asarray(sample["inputs"][modality], dtype=float), kind)
            if row == 0:
                axes.set_title(str(sample["label"]))
            if column == 0:
                axes.set_ylabel(modality)
    return figure


@picture
def search_points(study: Study, methods: Iterable[str] = SHOWN) -> Figure:
    """Validation accuracy of every trial of the search against its learning rate; rows are datasets."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    found = trials(study)
    names = shown(found["name"], methods)
    found = found[found["name"].isin(names) & (found["state"] == "done")]
    datasets = list(dict.fromkeys(found["dataset"]))
    grid = sns.relplot(
        found.assign(accuracy=100 * found["validation_accuracy"], method=found["name"].map(label)),
        x="lr",
        y="accuracy",
        row="dataset",
        col="fusion",
        hue="method",
        style="method",
        hue_order=[label(name) for name in names],
        palette={label(name): color(name) for name in names},
        markers={label(name): marker(name) for name in names},
        height=2,
        aspect=WIDTH / 4,
        facet_kws={"sharey": "row"},
    )
    grid.set_titles("{row_name}, {col_name}").set_axis_labels("learning rate", "validation (%)")
    for row, dataset in zip(grid.axes, datasets, strict=True):
        strip(row, study.levels[dataset])
    for panel in grid.axes.flat:
        panel.set_xscale("log")
        panel.set_xticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"], minor=False)
        panel.minorticks_off()
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.5, 0), ncol=LEGEND_COLUMNS, title=None)
    grid.figure.subplots_adjust(left=0.12, right=0.94, bottom=1.1 / grid.figure.get_figheight())
    plt.close(grid.figure)
    return grid.figure


def _draw_input(axes: Axes, values: np.ndarray, kind: str) -> None:
    """A picture or spectrogram (channels x height x width), a trace (channels x time), or a vector."""
    axes.set_xticks([])
    axes.set_yticks([])
    if values.ndim == 3:
        axes.imshow(values.mean(axis=0), cmap="gray", origin="lower" if kind == "spectrogram" else "upper")
    elif values.ndim == 2:
        for i, channel in enumerate(values.T if kind == "sequence" else values):
            axes.plot(channel, color=PALETTE[i % len(PALETTE)], linewidth=1)
    else:
        axes.bar(range(values.size), values.ravel(), color=PALETTE[3])
