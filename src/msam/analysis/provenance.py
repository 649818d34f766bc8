"""The line under every figure and table: which records, which commit, which device, how to remake it."""

from __future__ import annotations

import pandas as pd

from msam.analysis.sources import Study

REMAKE = "make reproduce"


def footer(study: Study) -> str:
    """One line of provenance for a figure or table made from all records of `study`."""
    cells = study.frames.cells
    done = cells[cells["state"] == "done"]
    count = f"{len(done)} record{'' if len(done) == 1 else 's'} under {study.label}"
    if done.empty:
        return f"Made from {count}; remake: `{REMAKE}`."
    return f"Made from {count}, {_commits(done)}; {listed(done['device'])}; remake: `{REMAKE}`."


def _commits(cells: pd.DataFrame) -> str:
    states = sorted({(str(row.commit)[:7], bool(row.dirty)) for row in cells.itertuples()})
    texts = [f"{commit} ({'dirty' if dirty else 'clean'})" for commit, dirty in states]
    return ("commit " if len(texts) == 1 else "commits ") + listed(texts)


def listed(values: pd.Series | list[str], most: int = 3) -> str:
    """The different values, the first `most` of them by name."""
    texts = list(dict.fromkeys(str(value) for value in values))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
