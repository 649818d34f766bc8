"""What ran, on what, how long, and what did not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from msam.analysis import levels, profiles
from msam.analysis.metrics import CELL
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence, read, record_json
from msam.analysis.table import DASH, Block, Html, Table


def status_table(study: Study) -> Table:
    """One row a cell: state with its reason, seeds, costs, commit, end, links of its record and notebook."""
    found = study.frames.cells.drop_duplicates(CELL).set_index(CELL)
    blocks: dict[str, list[dict[str, Any]]] = {}
    for cell in study.cells.itertuples():
        key = (cell.dataset, cell.fusion, cell.name)
        record = found.loc[key] if key in found.index else None
        numbers = dict.fromkeys(["seeds", "seconds", "peak memory (MB)", "commit", "finished"], DASH)
        if record is not None and cell.state == "done":
            numbers = {
                "seeds": str(record["n_seeds"]),
                "seconds": _rounded(record["seconds"]),
                "peak memory (MB)": _rounded(record["peak_memory_mb"]),
                "commit": _commit(record),
                "finished": str(record["finished"])[:16],
            }
        row = {"method": label(cell.name), "state": cell.text, **numbers, "record": _links(study, record)}
        blocks.setdefault(f"{cell.dataset}, {cell.fusion} fusion: {cell.evidence}", []).append(row)
    data = study.frames.cells.drop(columns="path", errors="ignore")
    note = "Seconds: the whole cell, all seeds. A commit with a + had changes that were not committed."
    parts = tuple(Block(pd.DataFrame(rows), heading) for heading, rows in blocks.items())
    return Table("Every cell", parts, data, note, footer(study), file="status")


def failures_table(study: Study) -> Table:
    """Cells that failed, are missing or not defined, and seeds that diverged, each with its reason.

    Of the other studies only what failed or diverged.
    """
    rows = _failures(study, study.cells["state"] != "done")
    troubled = _troubled(study)
    for other in troubled:
        rows += _failures(other, other.cells["state"] == "failed")
    frame = pd.DataFrame(rows)
    heading = "" if rows else "Nothing failed, diverged or is missing."
    note = f"Cells that are missing or not defined are told of the study `{study.name}` only."
    source = " ".join(footer(one) for one in (study, *troubled))
    return Table("What did not work", (Block(frame, heading),), frame, note, source, file="failures")


def _troubled(study: Study) -> list[Study]:
    """The other studies of the same profiles that have a failed cell or a diverged seed."""
    found = {
        name
        for profile in study.profiles
        for path in study.root.glob(f"{profile}/*/*/*/*.json")
        if (name := path.relative_to(study.root).parts[1]) != study.name
        and re.search(rb'"state": "(failed|diverged)"', path.read_bytes())
    }
    return [read(study.root, name, study.profiles) for name in sorted(found)]


def _failures(study: Study, wanted: pd.Series) -> list[dict[str, str]]:
    rows = [
        _failure(study, cell, cell.text.split(":")[0], cell.reason or "no record", "all")
        for cell in study.cells[wanted].itertuples()
    ]
    seeds = study.frames.seeds[study.frames.seeds["state"] == "diverged"]
    return rows + [
        _failure(study, seed, "diverged", seed.reason, str(seed.seed)) for seed in seeds.itertuples()
    ]


def totals_table(study: Study) -> Table:
    """Cells, seeds, seconds, steps and gradient evaluations for each dataset and in all."""
    seeds, cells = study.frames.seeds, study.frames.cells
    rows = [_totals(study, name, cells[cells["dataset"] == name], seeds) for name in study.datasets]
    if rows:
        rows.append(_totals(study, "all", cells, seeds))
    frame = pd.DataFrame(rows)
    note = "Training of the records only: without installation, data preparation and search."
    return Table("What it took", (Block(frame),), frame, note, footer(study), file="totals")


def versions_table(study: Study) -> Table:
    """Devices and package versions of the records, with the number of records for each."""
    counts: dict[tuple[str, str], int] = {}
    for path in study.frames.cells.loc[study.frames.cells["state"] == "done", "path"]:
        provenance = record_json(study, path).get("provenance", {})
        items = [("device", provenance.get("device", DASH)), *provenance.get("versions", {}).items()]
        for item in items:
            counts[item] = counts.get(item, 0) + 1
    rows = [{"what": what, "version": version, "records": n} for (what, version), n in counts.items()]
    frame = pd.DataFrame(rows)
    return Table("Device and versions", (Block(frame),), frame, "", footer(study), file="versions")


def status_sentence(study: Study) -> str:
    """How many cells are done and how many are not, in a sentence."""
    if study.frames.cells.empty:
        return "There are no records yet."
    counts = study.cells["state"].value_counts()
    texts = {"failed": "failed", "undefined": "not defined", "missing": "missing"}
    parts = [f"{counts[state]} {text}" for state, text in texts.items() if state in counts]
    diverged = int((study.frames.seeds["state"] == "diverged").sum())
    parts += [f"{diverged} seed{'' if diverged == 1 else 's'} diverged"] if diverged else []
    minutes = study.frames.cells["seconds"].sum() / 60
    rest = f" ({', '.join(parts)})" if parts else ""
    done = levels.share(study, study.cells["dataset"], study.cells["state"] == "done", "cells")
    return f"{done} are done{rest}; training took {minutes:.0f} minutes."


def _failure(study: Study, row, state: str, reason: str, seed: str) -> dict[str, str]:
    return {
        "study": study.name,
        "dataset": row.dataset,
        "evidence": evidence(study, row.dataset),
        "fusion": row.fusion,
        "method": label(row.name),
        "seed": seed,
        "state": state,
        "reason": reason,
    }


def _totals(study: Study, dataset: str, cells: pd.DataFrame, seeds: pd.DataFrame) -> dict[str, object]:
    mine = seeds if dataset == "all" else seeds[seeds["dataset"] == dataset]
    return {
        "dataset": dataset,
        "evidence": _levels(study, cells["dataset"].unique()),
        "cells": int((cells["state"] == "done").sum()),
        "seeds": len(mine),
        "minutes": f"{cells['seconds'].sum() / 60:.1f}",
        "steps": int(mine["steps"].sum()),
        "gradient evaluations": int(mine["gradient_evaluations"].sum()),
    }


def _levels(study: Study, datasets: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(evidence(study, dataset) for dataset in datasets))


def _links(study: Study, record: pd.Series | None) -> Html | str:
    """Links of a record and, where there is one, of the executed notebook that made it."""
    if record is None:
        return DASH
    path = Path(record["path"])
    found = {path: path.name}
    if (study.root / path.with_suffix(".ipynb")).is_file():
        found[path.with_suffix(".ipynb")] = "notebook"
    folder = profiles.link(study.root)
    links = (f'<a href="{escape(f"{folder}/{p}")}">{escape(text)}</a>' for p, text in found.items())
    return Html(" ".join(links))


def _commit(record: pd.Series) -> str:
    return str(record["commit"])[:7] + ("+" if bool(record["dirty"]) else "")


def _rounded(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.0f}"
