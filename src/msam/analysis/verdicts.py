"""From elementary tests to the verdict on a claim.

A claim is a set of tests, one or more a block (dataset x fusion). Each is made twice, one-sided: for the
claim and against it. Both families of p values are corrected by Holm's rule over the tests of the claim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from msam.analysis.ranking import overall
from msam.analysis.statistics import Interval, detectable, holm, mean_interval, paired_test

Block = tuple[str, str]  # dataset, fusion

ALPHA = 0.05
POWER = 0.8
SEEDS = 5  # a 95 % interval of 5 pairs is 1.24 standard deviations to each side, of 3 pairs twice that

SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED = "supported", "contradicted", "undecided", "not tested"
WORDS = (SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED)

REPRODUCED, PARTLY, NOT, NOT_HERE = "reproduced", "partly reproduced", "not reproduced", "not testable here"
VERDICTS = (REPRODUCED, PARTLY, NOT, NOT_HERE)

RULE = (
    f"Tests are one-sided Student-t tests of differences paired by seed, for the claim and against it, each "
    f"made where there are at least {SEEDS} common seeds. A test is supported, or contradicted, where its p "
    f"value, corrected by Holm over the tests of the claim, is at most {100 * ALPHA:.0f} %; else it is "
    f"undecided. Reproduced: every test was made and is supported. Partly reproduced: at least one is "
    f"supported, and fewer are contradicted than supported. Not testable here: no test could be made. "
    f"Otherwise not reproduced, which means that the tests did not support the claim, not that it is refuted."
    f" The parts of a claim that has several get a verdict each by the same rule, too."
)


@dataclass(frozen=True)
class Check:
    """One elementary test.

    Attributes:
        block: dataset and fusion.
        what: what is compared, in words.
        unit: of the effect.
        effect: numbers by seed, positive where they speak for the claim; empty where no test could be made.
        support: p value of the test for the claim.
        against: p value of the test against it.
        equal: p value of an equivalence test, where the claim has one.
        chosen: whether the results chose what the effect is measured against; it then has no interval.
        part: of a claim that says several things, which of them.
        records: paths of the records behind it.
    """

    block: Block
    what: str
    unit: str
    effect: pd.Series
    support: float
    against: float
    equal: float | None = None
    chosen: bool = False
    part: str = ""
    records: tuple[str, ...] = ()

    @property
    def made(self) -> bool:
        """Whether there were seeds enough."""
        return len(self.effect) >= SEEDS


def untested(block: Block, what: str, unit: str, records: Iterable[str] = (), part: str = "") -> Check:
    """A test that the claim needs and that the records do not allow."""
    return Check(block, what, unit, pd.Series(dtype=float), 1.0, 1.0, part=part, records=tuple(records))


def signed(
    block: Block,
    what: str,
    unit: str,
    effect: pd.Series,
    records: Iterable[str] = (),
    equal: float | None = None,
    part: str = "",
) -> Check:
    """The test that a mean effect over seeds is above zero, and below it."""
    values = effect.dropna()
    if len(values) < SEEDS:
        return untested(block, what, unit, records, part)
    support, against = (paired_test(values, side) for side in ("greater", "less"))
    return Check(block, what, unit, values, support, against, equal, part=part, records=tuple(records))


def verdict(words: Sequence[str]) -> str:
    """One of `VERDICTS` from the words of all tests of a claim, see `RULE`."""
    counts = Counter(words)
    if counts[UNTESTED] == len(words):
        return NOT_HERE
    if counts[SUPPORTED] == len(words):
        return REPRODUCED
    return PARTLY if counts[SUPPORTED] > counts[CONTRADICTED] else NOT


def judge(checks: Sequence[Check]) -> dict[str, Any]:
    """The verdict on a claim and everything that it follows from, ready for JSON.

    Returns:
        verdict, parts (of a claim that says several things: part -> verdict), counts (word -> tests),
        equivalent (tests that an equivalence test decides, None without any), smallest_p (corrected, for and
        against), n (seeds of the tests with fewest and with most), effects (a row a unit: mean over its
        tests, averaged seed by seed, with its interval; smallest and largest test; `detectable`, the median
        over its tests of the true effect that a test would support with probability `POWER`, were its p
        value the smallest of the claim), tests (a row each), records.
    """
    made = [check for check in checks if check.made]
    support, against = (iter(holm([getattr(c, side) for c in made])) for side in ("support", "against"))
    equal = iter(holm([check.equal for check in made if check.equal is not None]))
    rows = []
    for check in checks:
        sides = [next(side) if check.made else None for side in (support, against)]
        same = next(equal) if check.made and check.equal is not None else None
        rows.append(_row(check, sides[0], sides[1], same, ALPHA / max(len(made), 1)))
    counts = Counter(row["outcome"] for row in rows)
    equals = [row["p_equivalent"] for row in rows if row["p_equivalent"] is not None]
    sizes = [len(check.effect) for check in made]
    return {
        "verdict": verdict([row["outcome"] for row in rows]),
        "parts": {
            part: verdict([row["outcome"] for row in rows if row["part"] == part])
            for part in dict.fromkeys(check.part for check in checks if check.part)
        },
        "counts": {word: counts[word] for word in WORDS},
        "equivalent": sum(p <= ALPHA for p in equals) if equals else None,
        "smallest_p": {
            word: min((row[f"p_{word}"] for row in rows if row[f"p_{word}"] is not None), default=None)
            for word in (SUPPORTED, CONTRADICTED)
        },
        "n": [min(sizes), max(sizes)] if sizes else [0, 0],
        "effects": _effects(made, rows),
        "tests": rows,
        "records": list(dict.fromkeys(path for check in checks for path in check.records)),
    }


def _row(
    check: Check, support: float | None, against: float | None, equal: float | None, level: float
) -> dict[str, Any]:
    return {
        "dataset": check.block[0],
        "fusion": check.block[1],
        "part": check.part,
        "test": check.what,
        "unit": check.unit,
        "outcome": _outcome(support, against),
        **_numbers(mean_interval(check.effect), check.chosen),
        "n": len(check.effect),
        "detectable": detectable(check.effect, level, POWER) if check.made else None,
        "p_supported": support,
        "p_contradicted": against,
        "p_equivalent": equal,
        "records": list(check.records),
    }


def _outcome(support: float | None, against: float | None) -> str:
    """One of `WORDS` from corrected p values; both cannot be small, as they add up to one or more."""
    if support is None or against is None:
        return UNTESTED
    if support <= ALPHA:
        return SUPPORTED
    return CONTRADICTED if against <= ALPHA else UNDECIDED


def _effects(made: Sequence[Check], tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for unit in dict.fromkeys(check.unit for check in made):
        checks = [check for check in made if check.unit == unit]
        means = [float(check.effect.mean()) for check in checks]
        whole = _numbers(overall({unit: [check.effect for check in checks]}), checks[0].chosen)
        ends = {"smallest": min(means), "largest": max(means)}
        found = median(t["detectable"] for t in tests if t["unit"] == unit and t["detectable"] is not None)
        rows.append({"unit": unit, "tests": len(checks), **whole, **ends, "detectable": found})
    return rows


def _numbers(interval: Interval, chosen: bool) -> dict[str, float | None]:
    """An interval as JSON, which has no NaN; its ends are left out where the results chose the effect."""
    low, high = (np.nan, np.nan) if chosen else (interval.low, interval.high)
    values = {"effect": interval.mean, "low": low, "high": high}
    return {key: float(value) if np.isfinite(value) else None for key, value in values.items()}
