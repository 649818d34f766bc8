"""Trials of the search."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.figure import Figure

from msam.analysis.figures.draw import LEGEND_COLUMNS, WIDTH, picture, strip
from msam.analysis.names import SHOWN, color, label, marker, shown
from msam.analysis.setup import trials
from msam.analysis.sources import Study


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
