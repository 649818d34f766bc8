"""The verdicts on the paper's claims as tables, as lines of text and in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from msam.analysis import profiles
from msam.analysis.claims import FILE, Claim, claims, over_sam
from msam.analysis.names import joined
from msam.analysis.provenance import listed_commits
from msam.analysis.table import Block, Html, Table
from msam.analysis.verdicts import POWER, RULE, VERDICTS

Judged = Mapping[str, dict[str, Any]]
"""Profile -> what its `claims.json` holds."""

NO_RECORDS = "no records yet"

POWERED = ("C1", "C8")
RATE = "C5"
ONCE = f"{RATE} is one measurement on a generated problem, the same for every level, and not on the datasets."


def lines(judged: Judged) -> Iterator[str]:
    """A line for each profile and claim: verdict, counts, statement."""
    for profile, found in judged.items():
        for row in found["claims"]:
            yield f"{profile:<9} {row['claim']}  {row['verdict']:<19} {counts(row):<52} {row['statement']}"


def claims_table(judged: Judged, root: Path) -> Table:
    """The verdict on every claim by the records of each profile; a claim links the page that shows more.

    Args:
        judged: of every profile, may be empty.
        root: where the records were read, for the footer.
    """
    pages = _pages()
    rows: list[dict[str, Any]] = [
        {"claim": _link(one, pages), "statement": one.statement}
        | ({_heading(found): _said(_row(found, one)) for found in judged.values()} or {"verdict": NO_RECORDS})
        | {"in the paper": one.place}
        for one in claims()
    ]
    note = (
        "Counts are over tests; how many seeds, which effect and which records is in the numbers as CSV and, "
        f"for every test, in `{FILE}` of each profile. {RULE}"
    )
    title = "The paper's claims and the verdicts on them"
    return Table(
        title, (Block(pd.DataFrame(rows)),), _data(judged), note, _footer(judged, root), file="claims"
    )


def rules_table(judged: Judged, root: Path) -> Table:
    """What is tested for each claim, the mean effect over its tests and the smallest p values."""
    rows = [
        {"claim": one.name, "tests and effect": one.rule}
        | {_heading(found): _effects(_row(found, one)) for found in judged.values()}
        for one in claims()
    ]
    note = (
        "Effects: mean over the tests of a unit, averaged seed by seed, in brackets the 95 % Student-t "
        f"interval over seeds; {100 * POWER:.0f} %: the true effect that a test would support with that "
        "probability, given its seeds, their spread and the number of tests, median over them. Intervals and "
        "p values take the settings that the search chose as given. "
        "Smallest p: of the tests for the claim (supported) and against it "
        "(contradicted), corrected by Holm over its tests. Nothing is corrected for the number of claims."
    )
    title = "What is tested for each claim"
    return Table(
        title, (Block(pd.DataFrame(rows)),), _data(judged), note, _footer(judged, root), file="rules"
    )


def counts(row: Mapping[str, Any]) -> str:
    """How many tests of a claim had which outcome: "1 supported, 5 undecided; 2 equivalent"."""
    parts = [f"{count} {word}" for word, count in row["counts"].items() if count]
    same = row["equivalent"]
    return (", ".join(parts) or "no test") + (f"; {same} equivalent" if same else "")


def answer(judged: Judged) -> str:
    """How many claims have each verdict in each profile, and which are reproduced."""
    if not judged:
        return "There are no records yet. No claim can be judged."
    parts = []
    for found in judged.values():
        number = Counter(row["verdict"] for row in found["claims"])
        parts.append(f"{_level(found)}: " + ", ".join(f"{number[word]} {word}" for word in VERDICTS))
    whole: dict[str, list[str]] = {}
    for found in judged.values():
        for row in found["claims"]:
            if row["verdict"] == VERDICTS[0]:
                whole.setdefault(row["claim"], []).append(_level(found))
    said = "; ".join(f"{claim} ({joined(levels)})" for claim, levels in whole.items())
    lead = f"Of the paper's {len(claims())} claims, by level of evidence, {'; '.join(parts)}."
    return f"{lead} Reproduced as stated: {said or 'none'}." + (f" {ONCE}" if RATE in whole else "")


def power_sentence(judged: Judged) -> str:
    """How large a true gain of M-SAM the tests of C1 and C8 would find, beside the paper's gains over SAM."""
    texts = []
    for name in POWERED:
        found = {_level(one): row for one in judged.values() for row in one["claims"] if row["claim"] == name}
        sizes = [
            f"{effect['detectable']:.1f} ({level})"
            for level, row in found.items()
            for effect in row["effects"]
        ]
        texts += [f"{name} {joined(sizes)}"] if sizes else []
    if not texts:
        return "There are no tests yet whose power could be said."
    gains = over_sam()
    return (
        f"A test would be supported with a probability of {100 * POWER:.0f} % by a true gain, in points, of "
        f"{'; '.join(texts)} (median over the tests). The paper's gains over SAM are {gains.min():.2f} to "
        f"{gains.max():.2f} points, so an undecided test leaves the smaller of them open."
    )


def _said(row: Mapping[str, Any]) -> str:
    by_verdict: dict[str, list[str]] = {}
    for part, verdict in row["parts"].items():
        by_verdict.setdefault(verdict, []).append(part)
    parts = [f" {verdict.capitalize()}: {joined(names)}." for verdict, names in by_verdict.items()]
    return f"{row['verdict']}: {counts(row)}" + (f".{''.join(parts)}" if parts else "")


def _effects(row: Mapping[str, Any]) -> str:
    texts = []
    for one in row["effects"]:
        interval = "" if one["low"] is None else f" ({one['low']:+.3g} to {one['high']:+.3g})"
        power = f"{100 * POWER:.0f} %: {one['detectable']:.2g}"
        texts.append(f"{one['effect']:+.3g}{interval} {one['unit']}{_apart(row, one['unit'])}, {power}")
    smallest = ", ".join(f"{word} {p:.2g}" for word, p in row["smallest_p"].items() if p is not None)
    return "; ".join(texts) + (f"; smallest p: {smallest}" if smallest else "none")


def _apart(row: Mapping[str, Any], unit: str) -> str:
    """Counts of the tests in one unit, where a claim has tests in several."""
    if len(row["effects"]) < 2:
        return ""
    outcomes = Counter(test["outcome"] for test in row["tests"] if test["unit"] == unit)
    return f" [{', '.join(f'{outcomes[word]} {word}' for word in row['counts'] if outcomes[word])}]"


def _row(found: Mapping[str, Any], claim: Claim) -> dict[str, Any]:
    return next(row for row in found["claims"] if row["claim"] == claim.name)


def _level(found: Mapping[str, Any]) -> str:
    return found["level"] or found["profile"]


def _heading(found: Mapping[str, Any]) -> str:
    """Of a column; names the profile too where it is not the level's."""
    level, profile = _level(found), found["profile"]
    return f"evidence: {level}" + ("" if level == profile else f" ({profile})")


def _data(judged: Judged) -> pd.DataFrame:
    """Every test of every claim, a row each."""
    rows = [
        {"profile": profile, "level": found["level"], "claim": claim["claim"], "verdict": claim["verdict"]}
        | test
        | {"records": " ".join(test["records"])}
        for profile, found in judged.items()
        for claim in found["claims"]
        for test in claim["tests"]
    ]
    return pd.DataFrame(rows)


def _footer(judged: Judged, root: Path) -> str:
    used = {path for found in judged.values() for claim in found["claims"] for path in claim["records"]}
    made = f"Made from {len(used)} records under {profiles.label(root)}"
    if used:
        made += f", {listed_commits(chain(*(found['commits'] for found in judged.values())))}"
    return f"{made}; remake: `make claims`."


def _pages() -> set[str]:
    from msam import book

    return book.pages(book.project_root())


def _link(claim: Claim, pages: set[str]) -> Html | str:
    """A claim's name, a link to its page where the book has it."""
    if claim.page not in pages:
        return claim.name
    return Html(f'<a href="{escape(claim.page)}.html">{claim.name}</a>')
