"""What cheaper forms of M-SAM keep of its accuracy: cost beside accuracy, and a criterion on both."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis import cost
from msam.analysis.metrics import CELL, by_seed
from msam.analysis.names import in_order, joined, label, stem
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, benchmark, modalities
from msam.analysis.statistics import Interval, mean_interval, paired_difference, spread
from msam.analysis.table import DASH, Block, Table, number, percent

STUDY, BENCHMARK = "lazy", "modalities"
FULL, REFERENCE, PLAIN = "msam", "sam", "joint"
CHEAPER = ("msam", "lazy_msam")
"""The methods whose variants are cheaper forms of M-SAM."""

LIMIT = 0.6
"""The largest cost of a step, in those of SAM's, that counts as cheap."""

NOTE = (
    "Gradients: gradient evaluations of a step, in those of SAM's, exactly from the records. Step time: the "
    "same ratio measured by `make benchmark` for as many modalities, on other inputs. Seconds of an epoch: "
    "with the evaluation of all splits, measured beside other work on the machine, so only a rough guide. "
    "Difference: to M-SAM, paired by seed, ± half of the 95 % interval. Place: of the mean accuracy, in "
    f"M-SAM's 95 % interval. Reached: at most {LIMIT} of SAM's gradients, inside, and not lower by the "
    "paired difference; this is no test that they are equal. By time: the upper quartile of repeats."
)


def variants(study: Study) -> pd.DataFrame:
    """Cost and accuracy of every cell of a study that has SAM and M-SAM.

    Returns:
        A row a cell: dataset, evidence, fusion, name, text (its state), accuracy and difference to M-SAM
        (Interval each, fractions), gradients and time of a step in SAM's (NaN where not known), epoch
        (seconds), place ("inside", "above" or "below" M-SAM's interval, "" where there is none), variant
        (whether it is a cheaper form of M-SAM), reached and reached_time (whether it meets the criterion by
        gradients, and by time).
    """
    accuracies, spent, times = by_seed(study.frames.runs), gradients(study), step_times(study)
    seconds = _epoch_seconds(study)
    empty = pd.Series(dtype=float)
    rows = []
    for cell in study.cells.itertuples():
        block = (cell.dataset, cell.fusion)
        mine, full = (accuracies.get((*block, name), empty) for name in (cell.name, FULL))
        place = placed(mean_interval(mine).mean, mean_interval(full))
        share = spent.get((*block, cell.name), float("nan")) / spent.get((*block, REFERENCE), float("nan"))
        key = (len(modalities(study, cell.dataset)), cell.fusion, cell.name)
        time, upper = times.get(key, (float("nan"), float("nan")))
        difference = paired_difference(mine, full)
        variant = stem(cell.name) in CHEAPER and cell.name != FULL
        rows.append(
            {key: getattr(cell, key) for key in ("dataset", "evidence", "fusion", "name", "text")}
            | {"accuracy": mean_interval(mine), "difference": difference}
            | {"gradients": share, "time": time, "epoch": seconds.get((*block, cell.name), float("nan"))}
            | {"place": place, "variant": variant}
            | {"reached": variant and reaches(share, place, difference)}
            | {"reached_time": variant and reaches(upper, place, difference)}
        )
    columns = ["dataset", "evidence", "fusion", "name", "text", "accuracy", "difference", "gradients", "time"]
    return pd.DataFrame(rows, columns=[*columns, "epoch", "place", "variant", "reached", "reached_time"])


def placed(mean: float, interval: Interval) -> str:
    """Where a mean lies: "inside", "above" or "below" an interval, "" where either is missing."""
    if not interval.exists or pd.isna(mean):
        return ""
    return "inside" if interval.contains(mean) else "above" if mean > interval.high else "below"


def reaches(cost: float, place: str, difference: Interval) -> bool:
    """The criterion: at most `LIMIT` of SAM's cost, a mean inside M-SAM's interval and not lower by seed."""
    return cost <= LIMIT and place == "inside" and not difference.high < 0


def gradients(study: Study) -> dict[tuple[str, str, str], float]:
    """Gradient evaluations of a step in each cell, over all steps of the runs that ended."""
    done = study.frames.seeds[study.frames.seeds["state"] == "done"]
    total = done.groupby(CELL)[["gradient_evaluations", "steps"]].sum()
    return (total["gradient_evaluations"] / total["steps"]).to_dict()


def step_times(study: Study) -> dict[tuple[int, str, str], tuple[float, float]]:
    """(modalities, fusion, method) -> measured time of a step in SAM's: median and upper quartile."""
    return {
        (row.modalities, row.fusion, row.method): (row.ratio_to_sam, row.ratio_to_sam_iqr[1])
        for row in measured(study).itertuples()
    }


def measured(study: Study) -> pd.DataFrame:
    """The rows of the benchmark of the shares; none where it was not run."""
    return pd.DataFrame((benchmark(study.root, BENCHMARK) or {"rows": []})["rows"])


def variant_table(study: Study) -> Table:
    """Every cell of the study: cost, accuracy, difference to M-SAM, and whether it reaches the criterion."""
    rows, data = [], []
    for row in variants(study).to_dict("records"):
        kept = {key: row[key] for key in ("dataset", "evidence", "fusion")}
        rows.append(
            kept
            | {"method": label(row["name"]), "test (%)": percent(row["accuracy"])}
            | {"difference (points)": _difference(row), "n": row["accuracy"].n}
            | {"gradients / SAM's": _ratio(row["gradients"], 4), "step time / SAM's": _ratio(row["time"], 2)}
            | {"epoch (s)": _ratio(row["epoch"], 2), "place": row["place"] or DASH}
            | {"reached": ("yes" if row["reached"] else "no") if row["variant"] and row["place"] else DASH}
            | {"state": row["text"]}
        )
        numbers = spread("accuracy", row["accuracy"]) | {
            f"points_{end}": getattr(row["difference"].scaled(100), end) for end in ("mean", "low", "high")
        }
        plain = ("gradients", "time", "epoch", "place", "reached", "reached_time")
        data.append(kept | {"method": row["name"]} | numbers | {key: row[key] for key in plain})
    block = Block(pd.DataFrame(rows))
    return Table("Cheaper forms", (block,), pd.DataFrame(data), NOTE, footer(study), file="overhead")


def benchmark_table(study: Study) -> Table:
    """Measured time, gradients and passes of a step, a column for each number of modalities."""
    data = measured(study)
    blocks = [
        Block(_by_modalities(data, value), heading)
        for value, heading in (
            ("ratio_to_sam", "time of a step / SAM's"),
            ("median_ms", "time of a step (ms)"),
            ("backward", "backward passes of a step"),
            ("fuse", "fusion passes of a step"),
        )
        if len(data)
    ]
    note = (
        "One batch of 64 examples, one thread. Ratios are medians over repeats of twenty steps, the methods "
        "side by side; times are medians by themselves, so one is not the quotient of the others. An epoch "
        "of N examples takes N / 64 times as much. Evidence level: own timing."
    )
    title = "A step against the number of modalities"
    return Table(title, tuple(blocks), data, note, benchmark_footer(study), file=BENCHMARK)


def benchmark_footer(study: Study) -> str:
    """Where the step times come from."""
    return cost.benchmark_footer(benchmark(study.root, BENCHMARK), BENCHMARK)


def _by_modalities(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    wide = rows.pivot(index="method", columns="modalities", values=value)
    return pd.DataFrame(
        [
            {"method": label(name)} | {str(count): _ratio(wide.at[name, count], 2) for count in wide}
            for name in in_order(wide.index)
        ]
    )


def overhead_sentence(study: Study) -> str:
    """Which cheaper forms reach the criterion on each dataset: by gradients, by time; and joint beside."""
    found = variants(study)
    known = found[found["place"] != ""]
    if not known["variant"].any():
        return f"There are no records of cheaper forms beside M-SAM in the study `{STUDY}` yet."
    return (
        f"A step of at most {LIMIT} of SAM's gradient evaluations, with a mean accuracy inside M-SAM's 95 % "
        f"interval and not lower by the paired one: {_reached(known, 'reached')}. "
        f"{_by_time(known)}; {_plain(known)}."
    )


def exact_sentence(study: Study) -> str:
    """What a step of M-SAM with exact shares takes as modalities grow, in steps of SAM."""
    rows = measured(study)
    if rows.empty:
        return "The step has not been timed against the number of modalities."
    mine = rows[rows["method"] == FULL].sort_values("modalities")
    parts = [f"{row.ratio_to_sam:.2f} with {row.modalities}" for row in mine.itertuples()]
    return f"A step with exact shares takes, in steps of SAM, {', '.join(parts)} modalities."


def _plain(known: pd.DataFrame) -> str:
    """Where joint training is as cheap and as accurate, which needs no M-SAM at all."""
    free = [
        row.dataset
        for row in known.itertuples()
        if row.name == PLAIN and reaches(row.gradients, row.place, row.difference)
    ]
    where = f"on {joined(free)}, where this shows nothing of M-SAM to be kept" if free else "nowhere"
    return f"{label(PLAIN)} training meets the same conditions {where}"


def _by_time(known: pd.DataFrame) -> str:
    if known.loc[known["variant"], "time"].isna().all():
        return "By measured time nothing is known (`make benchmark`)"
    return f"By measured time instead: {_reached(known[known['time'].notna()], 'reached_time')}"


def _reached(known: pd.DataFrame, which: str) -> str:
    """The forms that reach the criterion on each dataset, in words."""
    parts = []
    for dataset, part in known[known["variant"]].groupby("dataset", sort=False):
        names = in_order(part.loc[part[which].astype(bool), "name"])
        parts.append(f"on {dataset} {joined(map(label, names)) or 'none'}")
    return "; ".join(parts)


def _difference(row: dict[str, Any]) -> str:
    return DASH if row["name"] == FULL else number(row["difference"].scaled(100), 2, signed=True)


def _ratio(value: float, digits: int) -> str:
    return DASH if pd.isna(value) else f"{value:.{digits}f}"


def _epoch_seconds(study: Study) -> dict[tuple[str, str, str], float]:
    """Seconds of an epoch, mean over the runs that ended."""
    done = study.frames.seeds[study.frames.seeds["state"] == "done"]
    epochs = study.frames.cells.drop_duplicates(CELL, keep="last").set_index(CELL)["epochs"]
    means = done.groupby(CELL)["seconds"].mean()
    return (means / epochs.reindex(means.index)).to_dict()
