"""Reads everything a page is made from: records, data descriptions, the search, the step costs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msam.analysis.metrics import CELL
from msam.analysis.names import in_order

if TYPE_CHECKING:
    from msam.records import Frames

RELATIONS = {"embedded": "miniature of {}", "compact": "{} rebuilt from its public ingredients"}
"""Evidence level -> what a dataset at it is to the paper's."""

OLDER = " (numbers are of an older record)"


@dataclass(frozen=True)
class Study:
    """The records of one study with what was written beside them.

    Attributes:
        folder: the study's folder, for instance results/embedded/main.
        frames: tidy frames of `msam.records.load`.
        descriptions: dataset name -> data description record.
        search: the hyper-parameter search, None where there is none.
        costs: the measured step costs ("rows" and "environment"), None where there are none.
    """

    folder: Path
    frames: Frames
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    costs: dict[str, Any] | None = None

    @property
    def profile(self) -> str:
        """Name of the profile the study ran under, for instance embedded."""
        return self.folder.parent.name

    @property
    def level(self) -> str:
        """Evidence level of the data: embedded, compact or paper; several are joined."""
        levels = dict.fromkeys(data["level"] for data in self.descriptions.values())
        return ", ".join(levels) or self.profile

    @property
    def label(self) -> str:
        """The study's folder from results/ on, as people write it; never a path of one machine."""
        parts = self.folder.parts
        start = max((i for i, part in enumerate(parts) if part == "results"), default=len(parts) - 2)
        return "/".join(parts[max(start, 0) :])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell the tables show, one row each: dataset, fusion, name, state, reason, text, evidence.

        These are the cells of the study file and all that have a record; a cell that nobody ran has the state
        "missing". `text` says what is to be known about a cell's state, for instance "done", "failed: out of
        memory" or "diverged 1/5 seeds".
        """
        return _expected_cells(self)

    @property
    def datasets(self) -> list[str]:
        """Datasets of the cells, in alphabetical order."""
        return sorted(self.cells["dataset"].unique())


def read(results: str | Path, study: str = "main") -> Study:
    """Read the records, descriptions, search and costs of `<results>/<study>`; what is absent stays empty."""
    from msam.records import load

    results = Path(results).resolve()
    descriptions = {path.stem: _json(path) for path in sorted((results / "data").glob("*.json"))}
    nearby = [folder / "benchmarks" / "step_cost.json" for folder in list(results.parents)[:2]]
    costs = next((path for path in nearby if path.is_file()), None)
    search = results / "search.json"
    return Study(
        folder=results / study,
        frames=load(results / study),
        descriptions=descriptions,
        search=_json(search) if search.is_file() else None,
        costs=_json(costs) if costs else None,
    )


def evidence(study: Study, dataset: str) -> str:
    """Evidence level of a dataset as each row says it, for instance "embedded (miniature of AV-MNIST)"."""
    description = study.descriptions.get(dataset, {})
    level = description.get("level") or study.profile
    stands_for = description.get("stands_for")
    return f"{level} ({RELATIONS.get(level, '{}').format(stands_for)})" if stands_for else level


def modalities(study: Study, dataset: str) -> list[str]:
    """Modalities of a dataset in the order of its description, or as found in the records."""
    described = study.descriptions.get(dataset, {}).get("modalities")
    if described:
        return list(described)
    runs = study.frames.runs
    found = runs.loc[runs["dataset"] == dataset, "output"].unique()
    return sorted(output for output in found if output != "fused")


def _expected_cells(study: Study) -> pd.DataFrame:
    cells = study.frames.cells
    found = cells.assign(failed=cells["state"] == "failed").sort_values("failed", kind="stable")
    older = found[found.duplicated(CELL, keep="last")].set_index(CELL).index
    found = found.drop_duplicates(CELL, keep="last")[[*CELL, "state", "reason"]]
    out = pd.DataFrame([*_planned(study), *found[CELL].itertuples(index=False, name=None)], columns=CELL)
    out = sorted_cells(out.drop_duplicates()).merge(found, on=CELL, how="left")
    out["state"] = out["state"].fillna("missing")
    out["reason"] = out["reason"].fillna("")
    seeds = study.frames.seeds
    counts = seeds.assign(bad=seeds["state"] == "diverged").groupby(CELL)["bad"].agg(["sum", "count"])
    diverged = {key: (int(row["sum"]), int(row["count"])) for key, row in counts.iterrows()}
    keys = list(out[CELL].itertuples(index=False, name=None))
    out["text"] = [
        _state(state, reason, *diverged.get(key, (0, 0))) + (OLDER if key in older else "")
        for key, state, reason in zip(keys, out["state"], out["reason"], strict=True)
    ]
    out["evidence"] = [evidence(study, dataset) for dataset in out["dataset"]]
    return out


def _planned(study: Study) -> list[tuple[str, str, str]]:
    """The cells that the study file lists, where the package has one for the profile."""
    from msam import studies

    if study.profile not in studies.names():
        return []
    profile = studies.load(study.profile)
    if study.folder.name not in profile["studies"]:
        return []
    titles = [cell.title.split("/") for cell in studies.cells(profile, study.folder.name)]
    return [(dataset, fusion, name) for dataset, fusion, name in titles]


def sorted_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells by dataset, late fusion first, methods in reading order."""
    order = {name: i for i, name in enumerate(in_order(cells["name"]))}
    ranks = cells.assign(late=cells["fusion"] != "late", order=cells["name"].map(order))
    return ranks.sort_values(["dataset", "late", "fusion", "order"]).drop(columns=["late", "order"])


def record_json(study: Study, path: str | Path) -> dict[str, Any]:
    """The JSON of one record, `path` as in the frame `cells`; empty where it cannot be read."""
    file = record_path(study, path)
    return _json(file) if file.is_file() else {}


def record_path(study: Study, path: str | Path) -> Path:
    """Where a record of the frame `cells` lies."""
    path = Path(path)
    return path if path.is_absolute() or path.is_file() else study.folder / path


def _state(state: str, reason: str, diverged: int, n: int) -> str:
    if state == "failed":
        return reason if reason.startswith("not run: ") else f"failed: {reason}"
    if state == "undefined":
        return f"not defined: {reason}"
    if state == "missing":
        return "missing: no record"
    return f"diverged {diverged}/{n} seeds" if diverged else "done"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
