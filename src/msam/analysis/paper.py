"""The numbers the paper reports: Table 1 (late fusion) and Table 2 (early fusion) of arXiv 2510.24919."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

OUTPUTS = {
    "AV-MNIST": ["audio", "video", "fused"],
    "CREMA-D": ["audio", "video", "fused"],
    "UR-Funny": ["audio", "video", "text", "fused"],
    "AVE": ["audio", "video", "fused"],
}
DATASETS = {"AV-MNIST": "av_mnist", "CREMA-D": "crema_d", "UR-Funny": "ur_funny", "AVE": "ave"}
"""The paper's dataset, and what `msam data get` calls it."""

MODALITIES = {"image": "video", "visual": "video"}
"""Our name of a modality where the paper has another."""

OURS = {
    "joint": "Joint-Train",
    "mses": "MSES",
    "mslr": "MSLR",
    "ogm_ge": "OGM-GE",
    "agm": "AGM",
    "mmpareto": "MM-Pareto",
    "cggm": "CGGM",
    "reconboost": "Recon-Boost",
    "sam": "SAM",
    "msam": "M-SAM",
}
"""Our name of each multimodal method of the paper, and the paper's."""


def methods(fusion: str) -> list[str]:
    """Our names of the multimodal methods in the paper's table of this fusion, from above."""
    theirs = set(reported().query("fusion == @fusion")["method"])
    return [name for name, text in OURS.items() if text in theirs]


def reported() -> pd.DataFrame:
    """Both tables as tidy rows: table, fusion, method, dataset, output, accuracy in percent."""
    return _rows("paper.csv")


def splits() -> pd.DataFrame:
    """Sizes that the test sets may have had: dataset, size, unit (example, or a segment of one), examples.

    The paper states none. They are those of the public lists, and what public code makes of them. Independent
    examples come first, the largest set on top.
    """
    return _rows("paper_splits.csv")


def elsewhere() -> pd.DataFrame:
    """Accuracies that the paper gives outside its tables, in percent.

    Returns:
        Rows of source, kind, fusion, dataset, output, method, value. The kind "axis end" is the last label on
        the axis of a figure (no method: the figure shows several), "value" a number in the prose, and "best"
        the statement that a method is the best one there (no value).
    """
    return _rows("paper_figures.csv").astype({"method": object})


def fused(fusion: str) -> pd.DataFrame:
    """Fused accuracy in percent: methods x datasets."""
    rows = reported().query("fusion == @fusion and output == 'fused'")
    return rows.pivot(index="method", columns="dataset", values="accuracy")[list(OUTPUTS)]


def margins(fusion: str, over: str | None = None) -> pd.Series:
    """Points by which the paper's M-SAM is above `over`, or above the best other method, by dataset."""
    table = fused(fusion)
    other = table.drop(index="M-SAM").max() if over is None else table.loc[over]
    return (table.loc["M-SAM"] - other).round(2)


def _rows(file: str) -> pd.DataFrame:
    with files("msam.analysis").joinpath(file).open(encoding="utf-8") as lines:
        return pd.read_csv(lines)
