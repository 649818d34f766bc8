"""Are M-SAM's minima flatter, and are those of its non-dominant encoders sharper (OQ2)?

Compared are ratios of logarithms: log10 of one method's sharpness minus log10 of another's, of the same seed,
because the scales differ by orders of magnitude between datasets, parts and measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pandas as pd

from msam.analysis import levels
from msam.analysis.dominance import dominant
from msam.analysis.findings import verdict
from msam.analysis.metrics import by_seed, per_seed
from msam.analysis.names import in_order, label
from msam.analysis.probes import MEASURES, RUN, WHOLE, differences, flatness, log_flatness, weight_noise
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import Interval, mean_interval, spread
from msam.analysis.table import DASH, Block, Table, number

FIRST, OTHERS = "msam", ("sam", "agm", "joint")
COUNTED = ("hessian_top", "adaptive_sharpness")
"""The measures that the answer counts: the usual one, and the one that ignores rescaled layers."""
WORDS = {"higher": "sharper", "lower": "flatter", "apart": "cannot be told apart", "unknown": "too few seeds"}
DIGITS = 3  # significant ones


@lru_cache(maxsize=8)
def ratios(study: Study) -> pd.DataFrame:
    """log10 of the sharpness of M-SAM over that of each other method, paired by seed.

    A number that is not positive has no logarithm; its seed is left out.

    Returns:
        A row for each: dataset, fusion, part, measure, other, difference (Interval), verdict, role.
    """
    found = differences(log_flatness(study), FIRST, OTHERS, ["part", "measure"])
    found["verdict"] = [verdict(difference) for difference in found["difference"]]
    found["role"] = roles(study, found)
    return found


def roles(study: Study, rows: pd.DataFrame) -> list[str]:
    """What each part is: "whole", "dominant", "non-dominant", or "unknown" where M-SAM has no shares."""
    blocks = rows[["dataset", "fusion"]].drop_duplicates().itertuples(index=False, name=None)
    most = {(dataset, fusion): dominant(study, dataset, fusion, FIRST) for dataset, fusion in blocks}

    def role(part: str, first: str | None) -> str:
        if part == WHOLE:
            return WHOLE
        return "unknown" if first is None else "dominant" if part == first else "non-dominant"

    return [role(row.part, most[row.dataset, row.fusion]) for row in rows.itertuples()]


def lost(study: Study) -> pd.DataFrame:
    """Points of test accuracy that noise in the weights of a part costs: a row as in `weight_noise`."""
    rows = weight_noise(study)
    clean = by_seed(study.frames.runs)
    before = [
        clean[row.dataset, row.fusion, row.name].get(row.seed) for row in rows[RUN].itertuples(index=False)
    ]
    return rows.assign(value=100 * (pd.Series(before, rows.index, dtype=float) - rows["value"]))


def flatness_table(study: Study) -> Table:
    """Every measure of every network and encoder, a block of rows for each dataset and fusion."""
    rows, found = flatness(study), []
    rows["role"] = roles(study, rows)
    blocks = []
    for (dataset, fusion), block in rows.groupby(["dataset", "fusion"], sort=False):
        values = {measure: per_seed(mine, by=["part", "name"]) for measure, mine in block.groupby("measure")}
        texts = []
        for part, role in block[["part", "role"]].drop_duplicates().itertuples(index=False):
            for name in in_order(block["name"]):
                intervals = {m: mean_interval(values[m].get((part, name), [])) for m in MEASURES}
                texts.append(
                    {"part": _part_text(part, role), "method": label(name)}
                    | {MEASURES[m]: significant(interval) for m, interval in intervals.items()}
                    | {"n": levels.span(interval.n for interval in intervals.values())}
                )
                found += [
                    {"dataset": dataset, "level": evidence(study, dataset), "fusion": fusion, "part": part}
                    | {"name": name, "measure": m}
                    | spread("value", interval)
                    for m, interval in intervals.items()
                ]
        blocks.append(Block(pd.DataFrame(texts), f"{dataset}, {fusion} fusion: {evidence(study, dataset)}"))
    note = (
        "Means over n seeds, ± half of the 95 % interval. Of the mean cross-entropy in nats on examples of "
        "the train split, in evaluation mode; of an encoder, with all else held fixed. Sharpness: rise of "
        "the loss along SAM's step; adaptive sharpness: along ASAM's. Dominant: the modality that "
        "dominated the most batches of M-SAM."
    )
    return Table("Flatness", tuple(blocks), pd.DataFrame(found), note, footer(study), file="flatness")


def ratio_table(study: Study) -> Table:
    """`ratios` as a table, a column for each measure."""
    found = ratios(study)
    rows = []
    keys = ["dataset", "fusion", "part", "role", "other"]
    for (dataset, fusion, part, role, other), mine in found.groupby(keys, sort=False):
        texts = {
            MEASURES[row.measure]: f"{number(row.difference, 2, signed=True)} {WORDS[row.verdict]}"
            for row in mine.itertuples()
        }
        rows.append(
            {
                "dataset": dataset,
                "evidence": evidence(study, dataset),
                "fusion": fusion,
                "part": _part_text(part, role),
                "comparison": f"{label(FIRST)} over {label(other)}",
            }
            | texts
            | {"n": levels.span(interval.n for interval in mine["difference"])}
        )
    data = found.drop(columns="difference").assign(first=FIRST)
    numbers = pd.DataFrame([spread("log10_ratio", interval) for interval in found["difference"]])
    note = (
        "log10 of the ratio, paired by seed, ± half of the 95 % interval: -1 is ten times as flat, +1 ten "
        "times as sharp. Sharper or flatter only where the interval excludes zero; the intervals are not "
        "corrected for their number. A seed whose number is not positive is left out."
    )
    return Table(
        "Sharpness of M-SAM relative to other methods, paired by seed",
        (Block(pd.DataFrame(rows)),),
        data.join(numbers),
        note,
        footer(study),
        file="flatness_ratios",
    )


def flatness_sentence(study: Study) -> str:
    """In how many networks M-SAM is flatter or sharper than SAM and AGM, by two measures."""
    counts = _counts(study, WHOLE, ("sam", "agm"))
    if not counts:
        return "There are no records of the flatness of M-SAM beside SAM or AGM yet."
    return f"Paired by seed, the whole network of M-SAM is, {counts}."


def encoder_sentence(study: Study) -> str:
    """In how many cases non-dominant encoders of M-SAM are sharper than those of joint training and SAM."""
    counts = _counts(study, "non-dominant", ("joint", "sam"))
    if not counts:
        return "There are no records of non-dominant encoders of M-SAM beside joint training or SAM yet."
    return f"Its encoders of non-dominant modalities are, {counts}."


def significant(interval: Interval) -> str:
    """A positive or negative number of any size and half its interval, with as many digits: "12.3 ± 0.4"."""
    if not np.isfinite(interval.mean):
        return DASH
    size = max(abs(interval.mean), 1e-12)
    digits = max(DIGITS - 1 - int(np.floor(np.log10(size))), 0)
    return number(interval, min(digits, 8))


def _counts(study: Study, role: str, others: Iterable[str]) -> str:
    """What the intervals support for parts of one role, by each measure and against each other method."""
    found = ratios(study)
    found = found[found["role"] == role]
    texts = []
    for other in others:
        parts = []
        for measure in COUNTED:
            mine = found[(found["other"] == other) & (found["measure"] == measure)]
            flatter, sharper = (mine["verdict"] == word for word in ("lower", "higher"))
            text = f"flatter in {levels.share(study, mine['dataset'], flatter, 'cases')}"
            text += f" and sharper in {levels.count(study, mine['dataset'], sharper)}"
            parts += [f"{text} by {MEASURES[measure]}"] if len(mine) else []
        texts += [f"against {label(other)}, {', '.join(parts)}"] if parts else []
    return "; ".join(texts)


def _part_text(part: str, role: str) -> str:
    return f"{part} (dominant)" if role == "dominant" else part
