"""Which modality dominates, how strongly, and how steadily."""

from __future__ import annotations

import pandas as pd

from msam.analysis import levels
from msam.analysis.metrics import CELL
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence, sorted_cells
from msam.analysis.statistics import mean_interval
from msam.analysis.table import Block, Table, number, percent

NOUN = "blocks of dataset and fusion"
STEADY = 0.9  # a modality that dominates more batches than this is called steady


def dominance_data(study: Study) -> pd.DataFrame:
    """Over all epochs of each seed: dataset, fusion, name, seed, modality, fraction, share, v_d, switches.

    `fraction` is the part of all batches in which the modality dominated, `share` its mean share, `v_d` the
    mean share of the dominant modality, and `switches` the mean number of changes in an epoch.
    """
    rows = study.frames.dominance
    keys = [*CELL, "seed", "modality"]
    means = rows.groupby(keys, sort=False).agg(
        count=("count", "sum"),
        share=("share", "mean"),
        v_d=("dominant_share", "mean"),
        switches=("switches", "mean"),
    )
    means = means.reset_index()
    means["fraction"] = means["count"] / means.groupby([*CELL, "seed"])["count"].transform("sum")
    return means.drop(columns="count")


def dominance_table(study: Study) -> Table:
    """For each cell with shares: how often each modality dominated, mean v_d, switches in an epoch."""
    data = dominance_data(study)
    rows = []
    for (dataset, fusion, name), part in sorted_cells(data, study.homes).groupby(CELL, sort=False):
        once = part.drop_duplicates("seed")
        dominated = {m: mean_interval(mine["fraction"]) for m, mine in part.groupby("modality", sort=False)}
        rows.append(
            {
                "dataset": dataset,
                "evidence": evidence(study, dataset),
                "fusion": fusion,
                "method": label(name),
                "batches dominated (%)": ", ".join(f"{m} {percent(value)}" for m, value in dominated.items()),
                "mean v_d": number(mean_interval(once["v_d"]), 3),
                "switches an epoch": number(mean_interval(once["switches"]), 1),
                "n": len(once),
            }
        )
    note = "Means over all epochs and steps, ± half of the 95 % interval over n seeds."
    return Table("Dominance", (Block(pd.DataFrame(rows)),), data, note, footer(study), file="dominance")


def dominance_sentence(study: Study, name: str = "msam") -> str:
    """In how many cells one modality dominated nearly all batches, and how large v_d was."""
    data = dominance_data(study)
    data = data[data["name"] == name]
    if data.empty:
        return f"There are no records of {label(name)} with shares yet."
    fractions = data.groupby(["dataset", "fusion", "modality"])["fraction"].mean()
    most = fractions.groupby(["dataset", "fusion"]).max()
    steady = levels.share(study, most.index.get_level_values("dataset"), most > STEADY, NOUN)
    means = data.groupby(["dataset", "fusion"])[["v_d", "switches"]].mean()
    (v_d, switches) = ([means[column].min(), means[column].max()] for column in means)
    return (
        f"In {steady} one modality dominates more than "
        f"{100 * STEADY:.0f} % of the batches; the mean share of the dominant modality, v_d, lies between "
        f"{v_d[0]:.2f} and {v_d[1]:.2f}. The dominant modality changes {switches[0]:.1f} to "
        f"{switches[1]:.1f} times in an epoch, mean of a block."
    )


def dominant(study: Study, dataset: str, fusion: str, name: str = "msam") -> str | None:
    """The modality that dominated the most batches of a method, or None where no shares were recorded."""
    counts = _batches(study, dataset, fusion, name).groupby("modality").sum()
    return None if counts.empty else str(counts.idxmax())


def dominant_by_seed(study: Study, dataset: str, fusion: str) -> set[str]:
    """The modalities that dominated the most batches in a run of M-SAM; one where all its runs agree."""
    return set(_batches(study, dataset, fusion, "msam").unstack().idxmax(axis=1))


def _batches(study: Study, dataset: str, fusion: str, name: str) -> pd.Series:
    """In how many batches each modality dominated, by seed and modality."""
    rows = study.frames.dominance
    rows = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion) & (rows["name"] == name)]
    return rows.groupby(["seed", "modality"])["count"].sum()
