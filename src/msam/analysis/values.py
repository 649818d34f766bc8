"""What a modality is worth: values of coalitions and how far they agree on the dominant modality (OQ1)."""

from __future__ import annotations

import pandas as pd

from msam.analysis.provenance import footer
from msam.analysis.sources import Study
from msam.analysis.statistics import mean_interval
from msam.analysis.table import Block, Table, number, percent

PROBE = "identification"
TRUTH = {"controlled": "m1"}
"""Dataset -> the modality that dominates by construction, the one with the largest signal-to-noise ratio."""
METHOD = "msam"


def pairs(study: Study, measure: str, method: str = METHOD) -> pd.DataFrame:
    """`agreement` or `distance` of two values in each run: dataset, fusion, seed, first, second, number."""
    rows = [
        {"dataset": where[0], "fusion": where[1], "seed": seed, "first": a, "second": b, "number": number}
        for where, seed, found in study.probed
        if where[2] == method and PROBE in found
        for a, others in found[PROBE][measure].items()
        for b, number in others.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "fusion", "seed", "first", "second", "number"])


def agreement_table(study: Study) -> Table:
    """Part of the batches in which two values name the same dominant modality, and distance of the shares."""
    agree, apart = pairs(study, "agreement"), pairs(study, "distance")
    names = list(dict.fromkeys(agree["first"]))

    def text(a: str, b: str) -> str:
        same, distance = (
            rows[(rows["first"] == a) & (rows["second"] == b)].groupby(["dataset", "fusion"])["number"].mean()
            for rows in (agree, apart)
        )
        return f"{percent(mean_interval(same))} ({distance.mean():.2f})"

    rows = [{"value": a} | {b: text(a, b) if a != b else "" for b in names} for a in names]
    note = (
        "Percent of the test batches of 64 in which both values name the same dominant modality, ± half of "
        "the 95 % interval over the blocks of dataset and fusion, each the mean of its seeds; in "
        "brackets the mean total variation distance of the shares. Networks trained by M-SAM. "
        "gradient: squared norm of the loss gradient in a modality's encoder."
    )
    data = agree.rename(columns={"number": "agreement"}).assign(distance=apart["number"])
    title = "Agreement between values"
    return Table(title, (Block(pd.DataFrame(rows)),), data, note, footer(study), file="agreement")


def agreement_sentence(study: Study) -> str:
    """The range of agreement between accuracy, the paper's value, and the others."""
    rows = pairs(study, "agreement")
    rows = rows[(rows["first"] == "accuracy") & (rows["second"] != "accuracy")]
    if rows.empty:
        return "No network has been probed yet."
    means = rows.groupby("second")["number"].mean().sort_values()
    return (
        f"On the dominant modality of a batch of 64, accuracy agrees least with {means.index[0]} "
        f"({100 * means.iloc[0]:.0f} % of the batches) and most with {means.index[-1]} "
        f"({100 * means.iloc[-1]:.0f} %)."
    )


def identified(study: Study, method: str = METHOD) -> pd.DataFrame:
    """How often the true modality is named: dataset, fusion, seed, value, size (of a batch), fraction."""
    rows = [
        {"dataset": dataset, "fusion": fusion, "seed": seed, "value": value, "size": int(size)}
        | {"fraction": fractions[TRUTH[dataset]]}
        for (dataset, fusion, name), seed, found in study.probed
        if name == method and dataset in TRUTH and PROBE in found
        for value, sizes in found[PROBE]["dominant"].items()
        for size, fractions in sizes.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "fusion", "seed", "value", "size", "fraction"])


def identification_sentence(study: Study, size: int = 64) -> str:
    """How often accuracy names the true modality, at the study's batch size and at the ends."""
    rows = identified(study)
    rows = rows[rows["value"] == "accuracy"]
    if rows.empty:
        return "No network of the dataset with a known dominant modality has been probed yet."
    means = {
        size: mean_interval(part.groupby("seed")["fraction"].mean()) for size, part in rows.groupby("size")
    }
    sizes = [n for n in (min(means), size, max(means)) if n in means]
    texts = [f"{number(means[n].scaled(100), 0)} % of the batches of {n}" for n in dict.fromkeys(sizes)]
    return f"Where the truth is known, accuracy names the dominant modality in {', '.join(texts)}."
