"""What a test set of n examples can show: which accuracies it can give, which margins it can tell apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from msam.analysis import paper
from msam.analysis.statistics import CONFIDENCE
from msam.analysis.table import Block, Table

STEPS = 10_000  # printed accuracies have two decimals of a percent
SOURCE = "Made from src/msam/analysis/paper.csv and paper_splits.csv."
READINGS = {
    "both": "beyond both limits",
    "best case": "only in the best case",
    "neither": "below both limits",
}


def attainable(accuracies: pd.Series | np.ndarray, size: int) -> np.ndarray:
    """Which accuracies in percent with two decimals are k of `size` examples for a whole k, rounded.

    k / size rounds to P / 10,000 where |10,000 k - P size| <= size / 2, and the best k leaves the distance of
    P size to the next multiple of 10,000. Where it ends in 5, both ways of rounding count.
    """
    left = np.rint(100 * np.asarray(accuracies)).astype(int) * size % STEPS
    return 2 * np.minimum(left, STEPS - left) <= size


def chance(size: int) -> float:
    """Part of all accuracies with two decimals that `size` examples can give."""
    return float(attainable(np.arange(STEPS + 1) / 100, size).mean())


def grain() -> pd.DataFrame:
    """How many of the paper's accuracies each possible test set can give.

    Returns:
        A row for each size of `paper.splits`: its columns, values (number of accuracies printed for the
        dataset), hits, expected (hits of accuracies that have nothing to do with the size) and p (the
        binomial probability of so many hits or more).
    """
    from scipy.special import bdtrc

    printed = paper.reported().groupby("dataset")["accuracy"]
    rows = []
    for split in paper.splits().itertuples(index=False):
        values = printed.get_group(split.dataset)
        hits, by_chance = int(attainable(values, split.size).sum()), chance(split.size)
        p = bdtrc(hits - 1, len(values), by_chance) if hits and by_chance < 1 else 1.0
        expected = by_chance * len(values)
        rows.append({**split._asdict(), "values": len(values), "hits": hits, "expected": expected, "p": p})
    return pd.DataFrame(rows)


def fitting(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of `grain` with more hits than chance gives, corrected for the number of rows (Bonferroni)."""
    return found[found["p"] * len(found) < 1 - CONFIDENCE]


def half_width(first: float, second: float, size: int) -> float:
    """Half of the 95 % normal interval of a difference of two accuracies.

    Args:
        first: an accuracy, fraction.
        second: another, measured independently of the first.
        size: test examples of each.

    Returns:
        z sqrt((p (1 - p) + q (1 - q)) / n), a fraction. Training anew adds to it.
    """
    from scipy.special import ndtri

    variance = (first * (1 - first) + second * (1 - second)) / size
    return float(ndtri(0.5 + CONFIDENCE / 2) * math.sqrt(variance))


def best_case_p(more: int) -> float:
    """Smallest two-sided p of McNemar's exact test for two networks on the same test set.

    Args:
        more: how many more examples the first network gets right. The test looks at the examples that only
            one of them gets right; its p is smallest where the second never is that one.

    Returns:
        min(1, 2^(1 - more)).
    """
    return min(1.0, 2.0 ** (1 - more))


def best_case_needed() -> int:
    """The smallest number of examples with `best_case_p` below 5 %."""
    return next(more for more in range(STEPS) if best_case_p(more) < 1 - CONFIDENCE)


def margins() -> pd.DataFrame:
    """The paper's margins of M-SAM over the best other method and over SAM, and what the test set can show.

    Returns:
        A row for each: over ("best other" or "SAM"), fusion, dataset, method (the other), margin, size (of
        the largest test set that the dataset may have had), half_width and best_case (the smallest margins
        beyond each limit, in points), more (examples in the margin, rounded up), p (`best_case_p`), reading
        (a key of `READINGS`).
    """
    sizes = paper.splits().query("unit == 'example'").groupby("dataset")["size"].max()
    rows = []
    for over in ("best other", "SAM"):
        for fusion in ("late", "early"):
            table = paper.fused(fusion)
            for dataset in table:
                others, mine = table[dataset].drop("M-SAM"), table.loc["M-SAM", dataset]
                method, size = others.idxmax() if over == "best other" else over, int(sizes[dataset])
                margin = round(mine - others[method], 2)
                more = -(-round(100 * margin) * size // STEPS)
                wide = 100 * half_width(mine / 100, others[method] / 100, size)
                reading = "both" if margin > wide else "best case"
                rows.append(
                    {"over": over, "fusion": fusion, "dataset": dataset, "method": method, "margin": margin}
                    | {"size": size, "half_width": wide, "best_case": 100 * best_case_needed() / size}
                    | {"more": more, "p": best_case_p(more)}
                    | {"reading": reading if best_case_p(more) < 1 - CONFIDENCE else "neither"}
                )
    return pd.DataFrame(rows)


def grain_table() -> Table:
    """`grain` as a table; bold where more accuracies fit than chance explains."""
    found = grain()
    rows = pd.DataFrame(
        {
            "dataset": found["dataset"],
            "test set": found["examples"],
            "n": found["size"].map("{:,}".format),
            "accuracies": found["values"],
            "attainable": found["hits"],
            "by chance": found["expected"].map("{:.1f}".format),
            "p": found["p"].map("{:.2g}".format),
        }
    )
    strong = frozenset((i, "attainable") for i in fitting(found).index)
    note = (
        "Accuracies: all that the paper prints for the dataset, single modalities included. Attainable: "
        "equal to k / n, rounded to two decimals, for a whole k. By chance: for accuracies that have "
        f"nothing to do with n. p: binomial, so many or more; bold where p times the {len(found)} sizes "
        "tried is below 0.05. A mean over several runs would hide the grain. The paper states no test size."
    )
    title = "Which of the paper's accuracies a test set can give"
    return Table(title, (Block(rows, strong=strong),), found, note, SOURCE, file="grain")


def margins_table() -> Table:
    """`margins` as a table."""
    found = margins()
    rows = pd.DataFrame(
        {
            "fusion": found["fusion"],
            "dataset": found["dataset"],
            "M-SAM minus": found["method"].where(
                found["over"] == "SAM", found["method"].map("{} (best other)".format)
            ),
            "margin (points)": found["margin"].map("{:.2f}".format),
            "n": found["size"].map("{:,}".format),
            "needed, independent": found["half_width"].map("{:.2f}".format),
            "needed, best case": found["best_case"].map("{:.2f}".format),
            "best case p": found["p"].map("{:.2g}".format),
            "reading": found["reading"].map(READINGS),
        }
    )
    note = (
        "n: the largest test set of whole examples that the dataset may have had. Independent: half of the "
        "95 % normal interval of a difference of two accuracies, each on n examples of its own. Best case: "
        "both on the same examples, and the other method never right where M-SAM is wrong, McNemar's exact "
        "test, the examples of a margin rounded up. Neither has the spread of training anew, which comes on "
        "top; not corrected for the number of margins."
    )
    title = "The paper's margins against the smallest that its test sets can show"
    return Table(title, (Block(rows),), found, note, SOURCE, file="margins")


def margins_sentence() -> str:
    """How many of the margins are beyond each limit."""
    found = margins()
    parts = []
    for over, text in (("best other", "the best other method"), ("SAM", "SAM")):
        readings = found.loc[found["over"] == over, "reading"]
        parts.append(
            f"of M-SAM's {len(readings)} margins over {text}, the interval of two independent test results "
            f"is exceeded by {(readings == 'both').sum()}, only the limit of the most favorable case by "
            f"{(readings == 'best case').sum()}, and neither by {(readings == 'neither').sum()}"
        )
    return f"One number a cell carries little evidence: {'; '.join(parts)}."


def grain_sentence() -> str:
    """Which test sizes the printed accuracies betray."""
    found = grain()
    sizes = [
        f"{row.hits} of {row.values} accuracies on {row.dataset} fit n = {row.size:,}, where chance gives "
        f"{row.expected:.1f}"
        for row in fitting(found).itertuples()
    ]
    return f"{'; '.join(sizes)}." if sizes else "No test size fits more accuracies than chance explains."
