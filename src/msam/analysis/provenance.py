"""The line under every figure and table: which records, which commit, which device, how to remake it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from msam.analysis import profiles
from msam.analysis.sources import Study
from msam.records import commit_name

DEFAULT = "embedded"
"""The profile that `make` takes when none is named."""


def footer(study: Study) -> str:
    """One line of provenance for a figure or table made from all records of `study`."""
    cells = study.frames.cells
    done = cells[cells["state"] == "done"]
    count = " and ".join(_counts(study, done))
    seeds = done["n_seeds"].groupby(done["dataset"].map(study.homes)).max().to_dict()
    again = remake("reproduce", study.profiles, study.name, seeds)
    if done.empty:
        return f"Made from {count}; {again}."
    return f"Made from {count}, {listed_commits(commits(done))}; {listed(done['device'], ' and ')}; {again}."


def remake(
    target: str, homes: Iterable[str], study: str = "main", seeds: Mapping[str, int] | None = None
) -> str:
    """The `make` commands that make the records of a study anew, one a profile, with its number of seeds."""
    usual = {"PROFILE": DEFAULT, "STUDY": "main", "SEEDS": None}
    commands = []
    for profile in list(homes) or [DEFAULT]:
        settings = {"PROFILE": profile, "STUDY": study, "SEEDS": (seeds or {}).get(profile)}
        words = [f"{name}={value}" for name, value in settings.items() if value != usual[name]]
        commands.append(f"`{' '.join(['make', target, *words])}`")
    return f"remake: {', '.join(commands)}"


def _counts(study: Study, done: pd.DataFrame) -> list[str]:
    """How many records there are, and where, one text a profile."""
    root, found = profiles.label(study.root), done["dataset"].map(study.homes).value_counts()
    counts = {profile: int(found.get(profile, 0)) for profile in study.profiles}
    texts = [
        f"{count} record{'' if count == 1 else 's'} under {root}/{profile}/{study.name}"
        for profile, count in counts.items()
    ]
    return texts or [f"0 records under {root}"]


def commits(cells: pd.DataFrame) -> list[str]:
    """The commits that made the records of some cells: "2316926 (clean)"."""
    return sorted({commit_name(row.commit, row.dirty) for row in cells.itertuples()})


def listed_commits(names: Iterable[str]) -> str:
    """Commits as a footer tells them, the first three of them."""
    texts = list(dict.fromkeys(names))
    return ("commit " if len(texts) == 1 else "commits ") + listed(texts)


def listed(values: pd.Series | list[str], between: str = ", ", most: int = 3) -> str:
    """The different values, the first `most` of them by name."""
    texts = list(dict.fromkeys(str(value) for value in values))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more
