"""Figures of the book: transparent SVG, readable on white and on near-black, and at a width of 400 px."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis.metrics import CELL, by_seed, epoch_gaps, gains_over_joint, is_unimodal
from msam.analysis.names import GRAY, PALETTE, color, dashes, in_order, label, marker
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import mean_interval, summarize

WIDTH = 5.4  # inches: narrow, so that little is lost when it shrinks to a phone
STYLE: Any = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "text.color": GRAY,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.titlecolor": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": GRAY,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "msam",
}


@dataclass(frozen=True, repr=False)
class Picture:
    """A finished figure; Jupyter shows it as SVG. `svg` is the same text for the same records."""

    svg: str
    figure: Figure

    def _repr_svg_(self) -> str:
        return self.svg


def picture(draw: Callable[..., Figure]) -> Callable[..., Picture]:
    """Run a drawing function in the book's style and render its figure."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Picture:
        with mpl.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        return Picture(file.getvalue(), figure)

    return drawn


@picture
def accuracy_points(study: Study) -> Figure:
    """Fused test accuracy of every multimodal method: mean, 95 % interval, each seed; rows are datasets."""
    values = by_seed(study.frames.runs)
    cells = study.cells[~is_unimodal(study.cells["name"])]
    return _points(
        cells, lambda key: 100 * values.get(key, pd.Series(dtype=float)), "fused test accuracy (%)"
    )


@picture
def gain_points(study: Study) -> Figure:
    """Gain over joint training D_rel (Eq. 21): mean, 95 % interval, each seed; rows are datasets."""
    gains = gains_over_joint(study.frames.runs)
    values = {key: rows.set_index("seed")["gain"] for key, rows in gains.groupby(CELL)}
    cells = study.cells[~is_unimodal(study.cells["name"]) & (study.cells["name"] != "joint")]
    return _points(
        cells, lambda key: values.get(key, pd.Series(dtype=float)), "gain over joint (%)", zero=True
    )


@picture
def search_points(study: Study) -> Figure:
    """Validation accuracy of every trial of the search against its learning rate; rows are datasets."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    trials = pd.DataFrame((study.search or {})["trials"])
    trials = trials[~is_unimodal(trials["name"]) & (trials["state"] == "done")]
    names = in_order(trials["name"].unique())
    grid = sns.relplot(
        trials.assign(accuracy=100 * trials["validation_accuracy"], method=trials["name"].map(label)),
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
    for panel in grid.axes.flat:
        panel.set_xscale("log")
        panel.set_xticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"], minor=False)
        panel.minorticks_off()
    sns.move_legend(grid, "lower center", bbox_to_anchor=(0.5, 0), ncol=3, title=None)
    grid.figure.subplots_adjust(left=0.12, right=0.98, bottom=0.2)
    plt.close(grid.figure)
    return grid.figure


@picture
def accuracy_curves(study: Study, output: str = "fused", split: str = "validation") -> Figure:
    """Accuracy after each epoch with 95 % bands; `output` "fused" or "modalities" (one row each)."""
    epochs = study.frames.epochs
    kept = epochs[epochs["split"] == split].assign(accuracy=lambda rows: 100 * rows["accuracy"])
    return _output_curves(study, kept, "accuracy", output, f"{split} (%)")


@picture
def evaluation_curves(study: Study, split: str = "validation") -> Figure:
    """Fused accuracy against gradient evaluations, the fair axis: SAM and M-SAM pay two for a step."""
    epochs = study.frames.epochs
    kept = epochs[(epochs["split"] == split) & (epochs["output"] == "fused") & ~is_unimodal(epochs["name"])]
    seeds = study.frames.seeds[[*CELL, "seed", "gradient_evaluations"]]
    kept = kept.merge(seeds, on=[*CELL, "seed"])
    last = kept.groupby([*CELL, "seed"])["epoch"].transform("max")
    kept["spent"] = kept["gradient_evaluations"] * kept["epoch"] / last / 1000
    kept["accuracy"] = 100 * kept["accuracy"]
    rows = [(dataset, dataset) for dataset in study.datasets]
    select = {dataset: kept[kept["dataset"] == dataset] for dataset in study.datasets}
    return _curves(study, rows, select, "accuracy", f"{split} (%)", "spent", "thousand gradient evaluations")


@picture
def loss_curves(study: Study) -> Figure:
    """Training loss of the fused output after each epoch, with 95 % bands."""
    epochs = study.frames.epochs
    kept = epochs[(epochs["split"] == "train")]
    return _output_curves(study, kept, "loss", "fused", "training loss")


@picture
def gap_curves(study: Study, output: str = "fused") -> Figure:
    """Overfitting gap tau (Eq. 1) after each epoch; `output` "fused" or "modalities" (one row each)."""
    return _output_curves(study, epoch_gaps(study.frames.epochs), "tau", output, "tau")


@picture
def share_curves(study: Study, name: str = "msam") -> Figure:
    """Mean share of each modality over the steps of each epoch, for one method."""
    return _modality_curves(study, name, "share", "mean share")


@picture
def dominance_curves(study: Study, name: str = "msam") -> Figure:
    """Fraction of an epoch's batches in which each modality was dominant, for one method."""
    return _modality_curves(study, name, "fraction", "share of batches")


@picture
def switch_curves(study: Study) -> Figure:
    """How often the dominant modality changed between batches, per epoch and method."""
    rows = study.frames.dominance.drop_duplicates([*CELL, "seed", "epoch"])
    select = {dataset: rows[rows["dataset"] == dataset] for dataset in study.datasets}
    return _curves(study, [(d, d) for d in study.datasets], select, "switches", "switches", from_zero=True)


@picture
def dominant_share_curves(study: Study) -> Figure:
    """Mean share v_d of the dominant modality per epoch and method: SAM's weight in the literal reading."""
    rows = study.frames.dominance.drop_duplicates([*CELL, "seed", "epoch"])
    select = {dataset: rows[rows["dataset"] == dataset] for dataset in study.datasets}
    return _curves(study, [(d, d) for d in study.datasets], select, "dominant_share", "mean v_d")


@picture
def samples(study: Study, dataset: str) -> Figure:
    """A few samples of a dataset: a column for each, a row for each modality."""
    description = study.descriptions.get(dataset)
    if not description or not description.get("samples"):
        return _empty(f"no data description of {dataset}")
    shown, names = description["samples"], list(description["modalities"])
    figure = Figure(figsize=(WIDTH, 0.3 + 1.5 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(shown), squeeze=False)
    for row, modality in enumerate(names):
        for column, sample in enumerate(shown):
            axes = grid[row, column]
            kind = description["modalities"][modality].get("kind", "")
            _draw_input(axes, np.asarray(sample["inputs"][modality], dtype=float), kind)
            if row == 0:
                axes.set_title(str(sample["label"]))
            if column == 0:
                axes.set_ylabel(modality)
    return figure


@picture
def cost_bars(study: Study) -> Figure:
    """Median time of a training step relative to SAM's, for each method, fusion and number of modalities."""
    if not study.costs or not study.costs["rows"]:
        return _empty("no benchmark recorded")
    rows = pd.DataFrame(study.costs["rows"])
    fusions = list(dict.fromkeys(rows["fusion"]))
    methods, sizes = list(dict.fromkeys(rows["method"])), sorted(rows["modalities"].unique())
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(methods) * len(sizes)), layout="constrained")
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
        axes.set_title(f"{fusion} fusion")
        axes.set_xlabel("time / time of SAM")
    grid[0].set_yticks(range(len(methods)), [label(method) for method in methods])
    grid[0].invert_yaxis()
    _legend(figure, grid[0])
    return figure


def _points(cells: pd.DataFrame, values: Callable, text: str, zero: bool = False) -> Figure:
    """One panel for each dataset x fusion, one line for each method; a cell without numbers says why."""
    if cells.empty:
        return _empty("no records yet")
    datasets, fusions = list(dict.fromkeys(cells["dataset"])), list(dict.fromkeys(cells["fusion"]))
    names = in_order(cells["name"])
    size = (WIDTH, 0.6 + (0.5 + 0.22 * len(names)) * len(datasets))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(datasets), len(fusions), squeeze=False, sharey=True, sharex="row")
    states = cells.set_index(CELL)["state"].to_dict()
    for row, dataset in enumerate(datasets):
        for column, fusion in enumerate(fusions):
            axes = grid[row, column]
            for height, name in enumerate(names):
                series = values((dataset, fusion, name)).dropna()
                _point(axes, height, name, series, states.get((dataset, fusion, name), "missing"))
            if zero:
                axes.axvline(0, color=GRAY, linewidth=0.8)
            axes.set_title(f"{dataset}, {fusion}")
            axes.set_yticks(range(len(names)), [label(name) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
    for axes in grid[-1]:
        axes.set_xlabel(text)
    return figure


def _point(axes: Axes, height: int, name: str, series: pd.Series, state: str) -> None:
    if series.empty:
        reason = {"undefined": "not defined", "done": "diverged"}.get(state, state)
        axes.text(0.02, height, reason, transform=axes.get_yaxis_transform(), va="center", style="italic")
        return
    interval = mean_interval(series)
    axes.plot(series, np.full(len(series), height), "|", color=color(name), markersize=7, alpha=0.5)
    if interval.exists:
        axes.plot([interval.low, interval.high], [height, height], color=color(name), linewidth=2)
    axes.plot(interval.mean, height, marker(name), color=color(name), markersize=6)


def _output_curves(study: Study, frame: pd.DataFrame, value: str, output: str, text: str) -> Figure:
    """Curves of the fused output (a row for each dataset) or of every modality (a row for each of them)."""
    rows, select = [], {}
    for dataset in study.datasets:
        for shown in ["fused"] if output == "fused" else modalities(study, dataset):
            part = frame[(frame["dataset"] == dataset) & (frame["output"] == shown)]
            key = (dataset, shown)
            rows.append((key, dataset if output == "fused" else f"{dataset}: {shown}"))
            select[key] = part[~is_unimodal(part["name"]) | (part["name"] == f"unimodal+{shown}")]
    return _curves(study, rows, select, value, text)


def _curves(
    study: Study,
    rows: list[tuple[Any, str]],
    select: dict[Any, pd.DataFrame],
    value: str,
    text: str,
    x: str = "epoch",
    x_text: str = "epoch",
    from_zero: bool = False,
) -> Figure:
    """A grid of curves: a row for each of `rows`, a column for each fusion, a line for each method."""
    if not any(len(frame) for frame in select.values()):
        return _empty("no records yet")
    fusions = list(dict.fromkeys(study.cells["fusion"]))
    more = any(is_unimodal(frame["name"]).any() for frame in select.values())  # a third line of legend
    figure, grid = _grid(len(rows), len(fusions), top=1.05 if more else 0.85)
    for line, (key, title) in enumerate(rows):
        summary = _summary(select[key], ["fusion", "name"], value, x)
        for column, fusion in enumerate(fusions):
            part = summary[summary["fusion"] == fusion]
            axes = grid[line, column]
            for name in in_order(part["name"]):
                mine = part[part["name"] == name]
                _band(axes, mine, color(name), dashes(name), _shared_label(name))
            _finish(axes, f"{title}, {fusion}", text if column == 0 else "")
            if from_zero:
                axes.set_ylim(bottom=0)
    for axes in grid[-1]:
        axes.set_xlabel(x_text)
    _legend(figure, *grid.flat)
    return figure


def _modality_curves(study: Study, name: str, value: str, text: str) -> Figure:
    """Curves of one method, a line for each modality; colors go by the modality's place in its dataset."""
    rows = study.frames.dominance
    rows = rows[rows["name"] == name].copy()
    if rows.empty:
        return _empty(f"no records of {label(name)} with shares yet")
    rows["fraction"] = rows["count"] / rows.groupby([*CELL, "seed", "epoch"])["count"].transform("sum")
    summary = _summary(rows, ["dataset", "fusion", "modality"], value)
    fusions = list(dict.fromkeys(study.cells["fusion"]))
    figure, grid = _grid(len(study.datasets), len(fusions), top=0.3)
    for line, dataset in enumerate(study.datasets):
        for column, fusion in enumerate(fusions):
            axes = grid[line, column]
            part = summary[(summary["dataset"] == dataset) & (summary["fusion"] == fusion)]
            for i, modality in enumerate(modalities(study, dataset)):
                mine = part[part["modality"] == modality]
                style = ["solid", (0, (4, 1.5)), (0, (1, 1))][i % 3]
                _band(axes, mine, ["#0072B2", "#E69F00", "#009E73"][i % 3], style, modality)
            _finish(axes, f"{dataset}, {fusion}", text if column == 0 else "")
            axes.set_ylim(-0.03, 1.03)
            if not part.empty:
                axes.legend(loc="best", handlelength=1.6)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def _grid(rows: int, columns: int, top: float) -> tuple[Figure, np.ndarray]:
    """Panels of fixed size in inches: an automatic layout would take a third of the drawing time."""
    bottom, panel, between = 0.45, 1.25, 0.5
    height = top + bottom + rows * panel + (rows - 1) * between
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(
        left=0.65 / WIDTH,
        right=1 - 0.1 / WIDTH,
        bottom=bottom / height,
        top=1 - top / height,
        hspace=between / panel,
        wspace=0.08,
    )
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="row", sharey="row")


def _summary(rows: pd.DataFrame, by: list[str], value: str, x: str = "epoch") -> pd.DataFrame:
    """Mean and interval over seeds for each group and epoch, with the mean place on the x axis as `x`."""
    summary = summarize(rows, [*by, "epoch"], value)
    if x == "epoch":
        return summary.assign(x=summary["epoch"])
    places = rows.groupby([*by, "epoch"], sort=False)[x].mean().rename("x").reset_index()
    return summary.merge(places, on=[*by, "epoch"])


def _band(axes: Axes, summary: pd.DataFrame, shade: str, style: Any, text: str) -> None:
    """Mean over seeds as a line, its 95 % interval as a band where there is one."""
    if summary.empty:
        return
    summary = summary.sort_values("x")
    axes.plot(summary["x"], summary["mean"], color=shade, linestyle=style, label=text)
    axes.fill_between(summary["x"], summary["low"], summary["high"], color=shade, alpha=0.15, linewidth=0)


def _finish(axes: Axes, title: str, text: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(text)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    if not axes.lines:
        axes.text(0.5, 0.5, "no records", transform=axes.transAxes, ha="center", style="italic")


def _shared_label(name: str) -> str:
    return "that modality alone" if name.startswith("unimodal") else label(name)


def _legend(figure: Figure, *panels: Axes) -> None:
    """One legend above all panels, each entry once."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if entries:
        place: Any = "outside upper center" if figure.get_layout_engine() else "upper center"
        figure.legend(
            list(entries.values()),
            list(entries),
            loc=place,
            ncols=3,
            columnspacing=1.2,
            handlelength=1.8,
            handletextpad=0.5,
        )


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


def _empty(text: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center", style="italic")
    return figure
