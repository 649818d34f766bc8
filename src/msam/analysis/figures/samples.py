"""Examples of a dataset to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.analysis.figures.draw import WIDTH, empty, picture
from msam.analysis.names import PALETTE


@picture
def samples(description: dict[str, Any] | None) -> Figure:
    """The samples of a data description: a column for each, a row for each modality."""
    if not description or "samples" not in description:
        return empty("no samples")
    if not description["samples"]:
        return empty("no samples: the licence does not allow them to be passed on")
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


def _draw_input(axes: Axes, values: np.ndarray, kind: str) -> None:
    """A picture or spectrogram, the first of several; traces (channels x time); a sequence; or a vector."""
    axes.set_xticks([])
    axes.set_yticks([])
    if values.ndim >= 3:
        picture = values.reshape(-1, *values.shape[-3:])[0].mean(axis=0)
        axes.imshow(picture, cmap="gray", origin="lower" if kind == "spectrogram" else "upper")
    elif kind in ("sequence", "segments"):
        axes.imshow(values.T, cmap="gray", aspect="auto")
    elif values.ndim == 2:
        for i, channel in enumerate(values):
            axes.plot(channel, color=PALETTE[i % len(PALETTE)], linewidth=1)
    else:
        axes.bar(range(values.size), values.ravel(), color=PALETTE[3])
