"""The perturbation radius rho, which the paper does not give: accuracy, overfitting gap, sharpness."""

from __future__ import annotations

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import verdict
from msam.analysis.metrics import by_seed, gaps_by_seed
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import mean_interval, paired_difference
from msam.analysis.sweep import Cells, place_in, swept
from msam.analysis.table import Block, Table, number

OPTION = "rho"
ACCURACY, GAP, SHARPNESS = "test (%)", "tau", "top eigenvalue (log)"


def measures(study: Study) -> dict[str, Cells]:
    """Text of an axis -> numbers of each cell by seed: test accuracy, tau, top Hessian eigenvalue."""
    tops: dict[tuple[str, str, str], dict[int, float]] = {}
    for where, seed, found in study.probed:
        if "sharpness" in found:
            tops.setdefault(where, {})[seed] = found["sharpness"]["hessian_top"]
    return {
        ACCURACY: {key: 100 * series for key, series in by_seed(study.frames.runs).items()},
        GAP: gaps_by_seed(study.frames.runs),
        SHARPNESS: {key: pd.Series(values) for key, values in tops.items()},
    }


def radius_table(study: Study) -> Table:
    """Every radius of SAM and M-SAM: the three measures with intervals."""
    keys = ["dataset", "fusion", "method", "x"]
    parts = {
        name: dict(list(swept(values, OPTION).groupby(keys)["value"]))
        for name, values in measures(study).items()
    }
    states = {
        (cell.dataset, cell.fusion, *place): cell.text
        for cell in study.cells.itertuples()
        if (place := place_in(cell.name, OPTION))
    }
    rows, data = [], []
    for key in parts[ACCURACY]:
        where = dict(zip(keys, key, strict=True))
        row = {
            "dataset": where["dataset"],
            "evidence": evidence(study, where["dataset"]),
            "fusion": where["fusion"],
            "method": label(where["method"]),
            "rho": f"{where['x']:g}",
        }
        for name, digits in ((ACCURACY, 1), (GAP, 3), (SHARPNESS, 2)):
            interval = mean_interval(parts[name].get(key, []))
            row[name.removesuffix(" (log)")] = number(interval, digits)
            row |= {"n": interval.n} if name == ACCURACY else {}
            data.append(
                where
                | {"measure": name, "mean": interval.mean, "low": interval.low}
                | {"high": interval.high, "n": interval.n}
            )
        rows.append(row | {"state": states[key]})
    note = (
        "After the last epoch, ± half of the 95 % interval over seeds. Learning rates are those of SAM and "
        "M-SAM in the main study, the same for every radius; a radius of 0 is joint training at that rate. "
        "Top eigenvalue: of the Hessian of the training loss."
    )
    return Table(
        "Radius", (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(study), file="radius"
    )


def radius_sentence(study: Study) -> str:
    """How M-SAM compares with SAM at equal radius, and whether flatter networks are more accurate."""
    values = by_seed(study.frames.runs)
    rows = [
        (dataset, verdict(paired_difference(series, values[dataset, fusion, f"sam{name[4:]}"])))
        for (dataset, fusion, name), series in values.items()
        if (place := place_in(name, OPTION))
        and place[0] == "msam"
        and place[1] > 0  # at 0 both are joint training
        and (dataset, fusion, f"sam{name[4:]}") in values
    ]
    if not rows:
        return "There are no records of the study `radius` yet."
    datasets = [dataset for dataset, _ in rows]
    higher, lower = ([word == which for _, word in rows] for which in ("higher", "lower"))
    where = levels.share(study, datasets, higher, "settings")
    return (
        f"At equal radius above zero M-SAM is higher than SAM in {where} and lower in "
        f"{levels.count(study, datasets, lower)}."
    )


def growth_sentence(study: Study) -> str:
    """In how many sweeps tau and the top eigenvalue fall with the radius, by rank correlation."""
    keys, parts = ["dataset", "fusion", "method"], []
    for name, text in ((GAP, "tau"), (SHARPNESS, "the top eigenvalue")):
        rows = swept(measures(study)[name], OPTION)
        if rows.empty:
            continue
        means = rows.groupby([*keys, "x"])["value"].mean().rename("mean").reset_index()
        found = means.groupby(keys)[["x", "mean"]].apply(
            lambda part: part["x"].corr(part["mean"], "spearman")
        )
        parts.append(f"{text} falls in {int((found < 0).sum())} of {len(found)} sweeps")
    return f"As the radius grows, {' and '.join(parts)} (rank correlation below zero)." if parts else ""


def tradeoff_sentence(study: Study) -> str:
    """Rank correlation of top eigenvalue and accuracy over the radii, for each method and block."""
    rows = tradeoff(study)
    if rows.empty:
        return "No record of this study holds the top eigenvalue yet."
    found = rows.groupby(["dataset", "fusion", "method"])[["top", "accuracy"]].apply(
        lambda part: part["top"].corr(part["accuracy"], method="spearman")
    )
    return (
        f"Over the radii, the rank correlation between top eigenvalue and test accuracy is negative (the "
        f"flatter, the more accurate) in {int((found < 0).sum())} of {len(found)} sweeps; it lies between "
        f"{found.min():+.2f} and {found.max():+.2f}."
    )


def tradeoff(study: Study) -> pd.DataFrame:
    """Mean top eigenvalue and mean accuracy of each radius: dataset, fusion, method, x, top, accuracy."""
    found = measures(study)
    keys = ["dataset", "fusion", "method", "x"]
    means = {
        text: swept(found[name], OPTION).groupby(keys)["value"].mean().rename(text)
        for name, text in ((SHARPNESS, "top"), (ACCURACY, "accuracy"))
    }
    return pd.concat(means.values(), axis=1).dropna().reset_index()
