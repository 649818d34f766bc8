"""The measured rate of convergence beside the claimed one, log T / sqrt T.

The *ratio* at T is the average of |grad L(w_t)|^2 over t <= T, divided by log T / sqrt T. Of every seed the
slope of its logarithm against log T is fitted by least squares over the last two decades of T: -1/2 is a
decay as log T / T, 0 the claimed rate, 1/2 no decay but for the logarithm.

The rule: the rate is *supported* for a rule of dominance where the 95 % interval of the slope over seeds ends
at or below zero, *contradicted* where it begins above zero, *undecided* else; and undecided unless the
two-sided Student-t p value, corrected by Holm (1979) over the rules, is at most 5 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from msam.analysis.provenance import remake
from msam.analysis.statistics import CONFIDENCE, Interval, holm, mean_interval, paired_test, spread
from msam.analysis.table import DASH, Block, Table, number
from msam.records import commit_name

Record = dict[str, Any]

RECORD = "rate/rate.json"
DECADES = 2.0
NAMES = {
    "dynamic": "dominant modality",
    "fixed a": "always a",
    "fixed b": "always b",
    "random": "random modality",
    "sam": "SAM (share 1)",
    "sgd": "SGD (share 0)",
}
"""Rule of `msam.rate` -> whose share weighs the perturbed gradient."""


class Finding(NamedTuple):
    """What the record says of one rule: the slope over seeds, its corrected p value, and the verdict."""

    rule: str
    effect: Interval
    p: float
    verdict: str


def read(results: str | Path) -> Record | None:
    """The record of a folder of results or of the folder around it; None without one."""
    root = Path(results).resolve()
    paths = [folder / RECORD for folder in (root, root.parent)]
    return next((json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()), None)


def claimed(steps: Any) -> Any:
    """The claimed rate log T / sqrt T."""
    return np.log(steps) / np.sqrt(steps)


def averages(record: Record | None, schedule: str = "sqrt") -> pd.DataFrame:
    """A row for each rule, seed and T: rule, seed, steps, share, average, smallest, ratio, to_sgd.

    `to_sgd` is the average divided by that of SGD on the same batches.
    """
    columns = ["rule", "seed", "steps", "share", "average", "smallest", "ratio", "to_sgd"]
    if not record:
        return pd.DataFrame(columns=columns)
    measured = record["measured"]
    steps = np.asarray(measured["horizons"], dtype=float)
    parts = [
        pd.DataFrame({"steps": steps, "average": run["average"], "smallest": run["smallest"]}).assign(
            rule=run["rule"], seed=run["seed"], share=run["share"]
        )
        for run in measured["runs"]
        if run["schedule"] == schedule
    ]
    rows = pd.concat(parts, ignore_index=True)
    plain = rows[rows["rule"] == "sgd"].set_index(["seed", "steps"])["average"]
    own = plain.reindex(pd.MultiIndex.from_frame(rows[["seed", "steps"]])).to_numpy()
    return rows.assign(ratio=rows["average"] / claimed(rows["steps"]), to_sgd=rows["average"] / own)[columns]


def slope(steps: np.ndarray, ratio: np.ndarray) -> float:
    """Least-squares slope of log ratio against log T over the last `DECADES`."""
    late = steps >= steps.max() / 10**DECADES
    return float(np.polyfit(np.log(steps[late]), np.log(ratio[late]), 1)[0])


def slopes(record: Record | None, schedule: str = "sqrt") -> dict[str, pd.Series]:
    """Rule -> slope by seed; none without a record."""
    return {
        str(rule): pd.Series(
            {
                seed: slope(one["steps"].to_numpy(), one["ratio"].to_numpy())
                for seed, one in rows.groupby("seed")
            }
        )
        for rule, rows in averages(record, schedule).groupby("rule", sort=False)
    }


def verdict(record: Record | None, schedule: str = "sqrt") -> list[Finding]:
    """One finding a rule, by the rule of the module's text; none without a record."""
    found = slopes(record, schedule)
    corrected = holm([paired_test(values) for values in found.values()])
    intervals = {rule: mean_interval(values) for rule, values in found.items()}
    return [
        Finding(rule, effect, p, _word(effect, p))
        for (rule, effect), p in zip(intervals.items(), corrected, strict=True)
    ]


def _word(effect: Interval, p: float) -> str:
    if p <= 1 - CONFIDENCE and effect.high <= 0:
        return "supported"
    return "contradicted" if p <= 1 - CONFIDENCE and effect.low > 0 else "undecided"


def bound(record: Record, steps: np.ndarray, share: float = 1.0) -> np.ndarray:
    """What the repaired proof guarantees for the average at T, in expectation.

    (L_1 / eta_0 + (v K G rho_0 + K G^2 eta_0 / 2) (1 + log T)) / sqrt T, with the mean L_1 over the seeds and
    inf L >= 0.
    """
    known = record["settings"]
    first = np.mean([run["loss"] for run in record["measured"]["runs"] if run["schedule"] == "sqrt"])
    lipschitz, most, eta, rho = (known[name] for name in ("lipschitz", "bound", "eta", "rho"))
    per_log = share * lipschitz * most * rho + lipschitz * most**2 * eta / 2
    return (first / eta + per_log * (1 + np.log(steps))) / np.sqrt(steps)


def rate_table(record: Record | None) -> Table:
    """Slope, p value and verdict of every rule, and where its average ended."""
    found = averages(record)
    last = found[found["steps"] == found["steps"].max()]
    rows, data = [], []
    for rule, effect, p, word in verdict(record):
        mine = last[last["rule"] == rule]
        share, end = mean_interval(mine["share"]), mean_interval(mine["average"])
        rows.append(
            {
                "rule": NAMES[rule],
                "mean share": number(share, 2),
                "average at the last T (1e-5)": number(end.scaled(1e5), 2),
                "slope": number(effect, 3, signed=True),
                "n": effect.n,
                "p (Holm)": f"{p:.2g}",
                "claimed rate": word,
            }
        )
        data.append(
            {"rule": rule, **spread("slope", effect), "p": p, "verdict": word} | spread("average", end)
        )
    note = (
        "Slope: of the logarithm of average / (log T / sqrt T) against log T over the last two decades of T, "
        "mean ± half of the 95 % Student-t interval over n seeds; at most 0 where the claimed rate holds. "
        "Supported: the interval ends at or below 0 and the p value, corrected over the rules, is <= 5 %."
    )
    return Table(
        "Measured rate",
        (Block(pd.DataFrame(rows)),),
        pd.DataFrame(data),
        note,
        rate_footer(record),
        file="rate",
    )


def descent_table(record: Record | None) -> Table:
    """The change of the loss at single steps with the full gradient, beside the terms of its bound."""
    rows = record["descent"]["rows"] if record else []
    parts = ("gradient", "perturbation", "curvature")
    data = pd.DataFrame([row | {"bound": sum(row[part] for part in parts)} for row in rows])
    heads = {
        "step": "step",
        "change": "change of the loss",
        "bound": "bound",
        "gradient": "-eta |g|^2",
        "perturbation": "v K G eta rho",
        "curvature": "K G^2 eta^2 / 2",
    }
    shown = pd.DataFrame(
        [{head: _digits(row[key]) for key, head in heads.items()} for row in data.to_dict("records")[::3]]
    )
    return Table(
        "The bound at single steps", (Block(shown),), data, "", rate_footer(record), file="rate_descent"
    )


def _digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2e}"


def descent_sentence(record: Record | None) -> str:
    """At how many steps of a run with the full gradient the repaired bound was broken."""
    if not record:
        return "No record of the bound yet."
    found = record["descent"]
    return f"The bound was broken at {found['violations']} of {found['steps']} steps."


def rate_sentences(record: Record | None) -> tuple[str, str]:
    """The answer: for which rules the rate holds; and what the paper's practice does."""
    found = verdict(record)
    if not record or not found:
        return "No rate is recorded yet; `make rate` measures it.", ""
    return _held(found), _practice(record)


def _held(found: list[Finding]) -> str:
    held = [one.rule for one in found if one.verdict == "supported"]
    ordered = sorted(one.effect.mean for one in found)
    low, high = (f"{slope:+.2f}" for slope in (ordered[0], ordered[-1]))
    spread = f"are all {low}" if low == high else f"run from {low} to {high}"
    some = f"{len(held)} of the {len(found)} rules ({', '.join(NAMES[rule] for rule in held) or DASH})"
    return (
        "The claimed rate is supported for "
        f"{f'all {len(found)} rules, SAM and SGD among them' if len(held) == len(found) else some}: "
        f"the slopes of the ratio {spread}, and 0 is the claimed rate."
    )


def _practice(record: Record) -> str:
    texts = []
    for schedule, unit in (("steps", "iterations"), ("epochs", "epochs")):
        effect = next(one.effect for one in verdict(record, schedule) if one.rule == "dynamic")
        texts.append(f"{number(effect, 2, signed=True)} with a decay every 70 {unit}")
    return f"Under the paper's step decay the slope for the dominant modality is {' and '.join(texts)}."


def rate_footer(record: Record | None) -> str:
    """Where the measured rate comes from."""
    again = remake("rate", ())
    if not record:
        return f"{again[0].upper()}{again[1:]}."
    about = record["provenance"]
    commit = commit_name(about["commit"], about["dirty"])
    return f"Made from results/{RECORD}, commit {commit}; {about['device']}; {again}."
