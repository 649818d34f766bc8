"""Reads everything a page is made from: records, data descriptions, the searches, the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msam.analysis import profiles
from msam.analysis.metrics import CELL
from msam.analysis.names import in_order

if TYPE_CHECKING:
    from msam.records import Frames

RELATIONS = {"embedded": "miniature of {}", "compact": "{} rebuilt from its public ingredients"}
"""Evidence level -> what a dataset at it is to the paper's."""

OLDER = " (numbers are of an older record)"


@dataclass(frozen=True, eq=False)
class Study:
    """The records of one study in several profiles, with what was written beside them.

    Nothing of it changes, and it equals itself alone, so that what follows from it can be cached.

    Attributes:
        root: the folder of the profiles, for instance results.
        name: the study, a folder of each profile, for instance main.
        homes: dataset -> the profile it was run in, in the order of the pages. A dataset of a second
            profile has that profile behind its name, "av_mnist (paper)", here and everywhere else.
        frames: tidy frames of `msam.records.load`, of all profiles; paths are those under `root`.
        descriptions: dataset -> data description record.
        searches: profile -> its hyper-parameter search, where there was one.
    """

    root: Path
    name: str
    homes: dict[str, str]
    frames: Frames
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def levels(self) -> dict[str, str]:
        """Dataset -> evidence level: embedded, compact or paper; its profile where no description says it."""
        return {
            dataset: self.descriptions.get(dataset, {}).get("level") or profile
            for dataset, profile in self.homes.items()
        }

    @cached_property
    def level(self) -> str:
        """Evidence levels of the datasets, joined: "embedded, compact"."""
        levels = self.levels
        return ", ".join(dict.fromkeys(levels[dataset] for dataset in self.datasets))

    @cached_property
    def profiles(self) -> list[str]:
        """The profiles that have cells in this study, in the order of the pages."""
        return list(dict.fromkeys(self.homes[dataset] for dataset in self.datasets))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell the tables show, one row each: dataset, fusion, name, state, reason, text, evidence.

        These are the cells of the study files and all that have a record; a cell that nobody ran has the
        state "missing". `text` says what is to be known about a cell's state, for instance "done", "failed:
        out of memory" or "diverged 1/5 seeds".
        """
        return _expected_cells(self)

    @cached_property
    def probed(self) -> list[tuple[tuple[str, str, str], int, dict[str, Any]]]:
        """((dataset, fusion, name), seed, probe -> its numbers) of every run that was probed."""
        return [
            ((cell.dataset, cell.fusion, cell.name), seed["seed"], seed["probes"])
            for cell in self.frames.cells.itertuples()
            for seed in record_json(self, cell.path).get("seeds", ())
            if "probes" in seed
        ]

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets of the cells, in the order of the pages: by profile, then by name."""
        return list(dict.fromkeys(self.cells["dataset"]))


def read(results: str | Path, study: str = "main", only: Iterable[str] | None = None) -> Study:
    """Read the records, descriptions and searches under `results`; what is absent stays empty.

    Args:
        results: the folder of the profiles.
        study: the study to read of each.
        only: the profiles to read; all that pages show (`profiles.shown`) if not given.
    """
    root = Path(results).resolve()
    return _read(root, study, None if only is None else tuple(only), _stamp(root))


def _stamp(root: Path) -> tuple[int, int]:
    """Changes whenever a file under the root does."""
    times = [path.stat().st_mtime_ns for path in root.rglob("*.json")]
    return len(times), max(times, default=0)


@lru_cache(maxsize=32)
def _read(root: Path, study: str, only: tuple[str, ...] | None, _stamp: tuple[int, int]) -> Study:
    from msam.records import load

    names: dict[tuple[str, str], str] = {}
    descriptions: dict[str, dict[str, Any]] = {}
    searches: dict[str, dict[str, Any]] = {}
    parts = [load(root / "none")]
    for profile in profiles.shown(root) if only is None else only:
        folder = root / profile
        taken = set(names.values())
        mine = {name: f"{name} ({profile})" if name in taken else name for name in _dataset_names(folder)}
        names |= {(profile, name): text for name, text in mine.items()}
        parts.append(_placed(load(folder / study), f"{profile}/{study}", mine))
        descriptions |= {mine[path.stem]: _json(path) for path in sorted((folder / "data").glob("*.json"))}
        if (folder / "search.json").is_file():
            searches[profile] = _search(folder / "search.json", mine)
    return Study(
        root=root,
        name=study,
        homes={text: profile for (profile, _), text in names.items()},
        frames=_joined(parts),
        descriptions=descriptions,
        searches=searches,
    )


def benchmark(root: Path, name: str) -> dict[str, Any] | None:
    """What `make benchmark` wrote as benchmarks/<name>.json in a run, else in the published one; or None."""
    files = [folder / "benchmarks" / f"{name}.json" for folder in (root, root.parent)]
    return next((_json(path) for path in files if path.is_file()), None)


def evidence(study: Study, dataset: str) -> str:
    """Evidence level of a dataset as each row says it, for instance "embedded (miniature of AV-MNIST)"."""
    stands_for = study.descriptions.get(dataset, {}).get("stands_for")
    return relation(study.levels.get(dataset, ""), stands_for)


def relation(level: str, stands_for: str | None) -> str:
    """A level, and what a dataset at it is to the paper's that it stands for, if any."""
    return f"{level} ({RELATIONS.get(level, '{}').format(stands_for)})" if stands_for else level


def modalities(study: Study, dataset: str) -> list[str]:
    """Modalities of a dataset in the order of its description, or as found in the records."""
    described = study.descriptions.get(dataset, {}).get("modalities")
    if described:
        return list(described)
    runs = study.frames.runs
    found = runs.loc[runs["dataset"] == dataset, "output"].unique()
    return sorted(output for output in found if output != "fused")


def fusion_order(cells: pd.DataFrame) -> list[str]:
    """The fusions of some cells, late first."""
    return sorted(set(cells["fusion"]), key=lambda fusion: (fusion != "late", fusion))


def sorted_cells(cells: pd.DataFrame, datasets: Iterable[str]) -> pd.DataFrame:
    """Rows by dataset in this order, late fusion first, methods in reading order."""
    places = {name: i for i, name in enumerate(dict.fromkeys(datasets))}
    columns = {fusion: i for i, fusion in enumerate(fusion_order(cells))}
    order = {name: i for i, name in enumerate(in_order(cells["name"]))}
    ranks = cells.assign(
        place=cells["dataset"].map(places),
        column=cells["fusion"].map(columns),
        order=cells["name"].map(order),
    )
    keys = ["place", "column", "order"]
    return ranks.sort_values(keys, kind="stable").drop(columns=keys)


def record_json(study: Study, path: str | Path) -> dict[str, Any]:
    """The JSON of one record, `path` as in the frame `cells`; empty where it cannot be read."""
    file = study.root / path
    return _json(file) if file.is_file() else {}


def _dataset_names(profile: Path) -> list[str]:
    """Datasets of a profile in alphabetical order: described, with records, or listed in its study file."""
    found = {path.stem for path in profile.glob("data/*.json")}
    found |= {path.parts[-3] for path in profile.glob("*/*/*/*.json")}
    for study in study_file(profile.name).values():
        found |= {name.rpartition(".")[2] for name in study["datasets"]}
    return sorted(found)


@cache
def study_file(profile: str) -> dict[str, Any]:
    """The studies that the package's file of a profile lists; none where there is no such file."""
    from msam import studies

    return studies.load(profile)["studies"] if profile in studies.names() else {}


def _placed(frames: Frames, place: str, names: dict[str, str]) -> Frames:
    """Frames of one profile with the names its datasets have among several, and paths from the root on."""
    named = {
        part.name: (frame := getattr(frames, part.name)).assign(dataset=frame["dataset"].map(names))
        for part in fields(frames)
    }
    cells = named["cells"]
    return type(frames)(**named | {"cells": cells.assign(path=f"{place}/" + cells["path"])})


def _joined(parts: list[Frames]) -> Frames:
    """The rows of all parts; the first part may be empty."""
    joined = {}
    for part in fields(parts[0]):
        every = [getattr(frames, part.name) for frames in parts]
        joined[part.name] = pd.concat([rows for rows in every if len(rows)] or every[:1], ignore_index=True)
    return type(parts[0])(**joined)


def _search(path: Path, names: dict[str, str]) -> dict[str, Any]:
    """A search with the names its datasets have among several profiles."""
    search = _json(path)
    try:
        return search | {
            part: [row | {"dataset": names[row["dataset"].rpartition(".")[2]]} for row in search[part]]
            for part in ("trials", "chosen")
        }
    except (KeyError, TypeError):
        raise ValueError(f"{path} is not what `msam search` writes; restore it or delete it") from None


def _expected_cells(study: Study) -> pd.DataFrame:
    cells = study.frames.cells
    found = cells.assign(failed=cells["state"] == "failed").sort_values("failed", kind="stable")
    older = found[found.duplicated(CELL, keep="last")].set_index(CELL).index
    found = found.drop_duplicates(CELL, keep="last")[[*CELL, "state", "reason"]]
    out = pd.DataFrame([*_planned(study), *found[CELL].itertuples(index=False, name=None)], columns=CELL)
    out = sorted_cells(out.drop_duplicates(), study.homes).merge(found, on=CELL, how="left")
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
    """The cells that the study files list, where the package has one for the profile."""
    from msam import studies

    rows = []
    for profile in dict.fromkeys(study.homes.values()):
        if study.name in study_file(profile):
            for cell in studies.cells(studies.load(profile), study.name):
                dataset, fusion, name = cell.title.split("/")
                placed = f"{dataset} ({profile})"
                rows.append((placed if placed in study.homes else dataset, fusion, name))
    return rows


def _state(state: str, reason: str, diverged: int, n: int) -> str:
    if state == "failed":
        return reason if reason.startswith("not run: ") else f"failed: {reason}"
    if state == "undefined":
        return f"not defined: {reason}"
    if state == "missing":
        return "missing: no record"
    return f"diverged {diverged}/{n} seeds" if diverged else "done"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again what makes it") from None
