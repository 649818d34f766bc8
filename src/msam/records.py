"""Records: one JSON file a cell, with everything that made its numbers; and tidy frames made from them.

A record holds `schema`, `state` ("done", or "undefined" with a `reason`), `key` (hash of configuration
and code), `config`, `provenance` and `seeds`. A seed holds its `state` ("done" or "diverged"), costs,
`epochs` (loss, accuracies and shares of each split, what the steps reported, and `gradient_norm`, the squared
norm of the train split's gradient, where the configuration asks for it), `final` (the epoch each selection
rule picks) and, where the configuration has `probes`, what these measured (`msam.probes`). Of a failed cell
there is `<name>.failed.json` with the reason and no record.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
SPLITS = ("train", "validation", "test")

_NUMBER = (int, float)
_OPTIONAL = (int, float, type(None))

_SHAPE: dict[str, dict[str, type | tuple[type, ...]]] = {
    "record": {"schema": int, "state": str, "key": str, "config": dict, "provenance": dict, "seeds": list},
    "failure": {"state": str, "config": dict, "reason": str},
    "config": {
        "dataset": str,
        "fusion": str,
        "method": str,
        "variant": str,
        "epochs": int,
        "optimizer": dict,
        "options": dict,
        "rho": _OPTIONAL,
    },
    "optimizer": {"lr": _NUMBER},
    "provenance": {
        "commit": str,
        "dirty": bool,
        "versions": dict,
        "device": str,
        "data_checksum": str,
        "seconds": _NUMBER,
    },
    "seed": {
        "seed": int,
        "state": str,
        "reason": str,
        "steps": int,
        "gradient_evaluations": int,
        "seconds": _NUMBER,
        "epochs": list,
        "final": dict,
    },
    "epoch": {
        "epoch": int,
        "step_loss": float,
        **dict.fromkeys(SPLITS, dict),
        "shares": dict,
        "dominance": dict,
        "dominant_share": _OPTIONAL,
        "switches": int,
    },
    "final": {"epoch": int, **dict.fromkeys(SPLITS, dict)},
    "split": {"loss": float, "accuracy": dict, "head_accuracy": dict, "shares": dict},
}


class RecordError(ValueError):
    """A record is corrupt or does not fit the schema; the message names the file."""


def read(path: Path) -> dict[str, Any]:
    """Read a record and check it against the schema.

    Raises:
        RecordError: the file is no JSON, or a field is missing or of another type.
    """
    record = _json(path)
    _check(path, _parts(record))
    if record["schema"] != SCHEMA:
        raise RecordError(f"{path}: schema {record['schema']}, this version reads {SCHEMA}")
    return record


def _read_failure(path: Path) -> dict[str, Any]:
    """The note of a failed cell, checked as `read` does."""
    note = _json(path)
    _check(path, _outer_parts("failure", note))
    return note


def _check(path: Path, parts: Iterable[tuple[str, str, Any]]) -> None:
    for where, kind, value in parts:
        for field, types in _SHAPE[kind].items():
            if not isinstance(value, dict) or not isinstance(value.get(field, ...), types):
                raise RecordError(f"{path}: {where}.{field} is missing or of a wrong type; delete the record")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise RecordError(
            f"{path}: not a readable record ({error}); delete it and train the cell again"
        ) from error


def _outer_parts(kind: str, content: Any) -> Iterator[tuple[str, str, Any]]:
    yield kind, kind, content
    yield "config", "config", content["config"]
    yield "config.optimizer", "optimizer", content["config"]["optimizer"]


def _parts(record: Any) -> Iterator[tuple[str, str, Any]]:
    """(where, kind, value) of everything that `_SHAPE` describes, lazily, outer parts first."""
    yield from _outer_parts("record", record)
    yield "provenance", "provenance", record["provenance"]
    for i, seed in enumerate(record["seeds"]):
        yield f"seeds[{i}]", "seed", seed
        entries = {f"epochs[{j}]": ("epoch", epoch) for j, epoch in enumerate(seed["epochs"])}
        entries |= {f"final.{rule}": ("final", epoch) for rule, epoch in seed["final"].items()}
        for name, (kind, epoch) in entries.items():
            yield f"seeds[{i}].{name}", kind, epoch
            for split in SPLITS:
                yield f"seeds[{i}].{name}.{split}", "split", epoch[split]


def write(path: Path, record: dict[str, Any] | list[Any]) -> None:
    """Write a record so that the path holds the old content or the new one, never a part.

    Raises:
        OSError: the folder cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(_text(record) + "\n")
    temporary.replace(path)


def make_folder(folder: Path) -> None:
    """Make a folder of records.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"cannot write to {folder}")


def _text(value: Any, depth: int = 0) -> str:
    """JSON with one line an epoch: short enough to read, long enough to keep a diff small."""
    if depth == 4 or not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    pad, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, list):
        return f"[{pad}" + f",{pad}".join(_text(v, depth + 1) for v in value) + f"{end}]"
    items = (f"{json.dumps(k)}: {_text(v, depth + 1)}" for k, v in value.items())
    return f"{{{pad}" + f",{pad}".join(items) + f"{end}}}"


def provenance(device: str, data_checksum: str) -> dict[str, Any]:
    """Who made a record, and when: commit, versions, device, data."""
    packages = ("torch", "numpy")
    commit, dirty = code_state("src", "notebooks")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": device,
        "data_checksum": data_checksum,
        "finished": now(),
    }


def now() -> str:
    """The time, UTC: "2026-11-24T02:00:00Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def code_state(*folders: str) -> tuple[str, bool]:
    """The commit of the code, "" where there is no repository, and whether these folders differ from it."""
    return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--", *(f":/{f}" for f in folders)))


def commit_name(commit: str, dirty: bool) -> str:
    """A state of the code as people read it: "2316926 (clean)"."""
    return f"{commit[:7]} ({'dirty' if dirty else 'clean'})"


def _git(*arguments: str) -> str:
    """Output of git in the folder of the code, "" where there is no repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass(frozen=True)
class Frames:
    """Tidy frames of a folder of records; an output is "fused" or a modality, accuracies are in [0, 1].

    Attributes:
        cells: one row a cell, failed and undefined ones included.
        runs: one row a seed, selection rule, split and output.
        epochs: one row a seed, epoch, split and output; `gradient_norm` (squared, NaN where it was not asked
            for) stands with the fused output of the train split.
        dominance: one row a seed, epoch and modality, of the methods that compute shares.
        seeds: one row a seed, diverged ones included.
    """

    cells: pd.DataFrame
    runs: pd.DataFrame
    epochs: pd.DataFrame
    dominance: pd.DataFrame
    seeds: pd.DataFrame


COLUMNS = {
    "cells": "dataset fusion method variant name state reason path commit dirty device finished seconds"
    " peak_memory_mb n_seeds lr rho epochs",
    "runs": "dataset fusion name seed state rule epoch split output accuracy head_accuracy loss",
    "epochs": "dataset fusion name seed epoch split output accuracy loss share gradient_norm",
    "dominance": "dataset fusion name seed epoch modality share count switches dominant_share",
    "seeds": "dataset fusion name seed state reason seconds steps gradient_evaluations",
}


def is_record(path: Path) -> bool:
    """Whether a file of a results folder is no note of an unfinished or a failed cell, by its name."""
    return not {".partial", ".failed"} & set(path.suffixes)


def content(path: Path) -> Any:
    """What a JSON file holds, unchecked; None where it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None


def load(folder: Path | str) -> Frames:
    """Read all records of a study, `<results>/<profile>/<study>`.

    Raises:
        RecordError: a record is corrupt.

    Returns:
        Frames, with their columns even where there is no record.
    """
    import pandas as pd

    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for path in sorted(Path(folder).glob("*/*/*.json")):
        if path.name.endswith(".partial.json"):
            continue
        record = _read_failure(path) if path.name.endswith(".failed.json") else read(path)
        config = record["config"]
        method = config["method"].rpartition(".")[2]
        name = "+".join(part for part in (method, config["variant"]) if part)
        where = (config["dataset"].rpartition(".")[2], config["fusion"], name)
        rows["cells"].append(
            dict(zip(("dataset", "fusion", "name"), where, strict=True))
            | {"method": method, "variant": config["variant"], "state": record["state"]}
            | {"reason": record.get("reason", ""), "path": str(path.relative_to(folder))}
            | record.get("provenance", {})
            | {"n_seeds": len(record.get("seeds", [])), "epochs": config["epochs"]}
            | {"lr": config["optimizer"]["lr"], "rho": config["rho"]}
        )
        for seed in record.get("seeds", []):
            _add_seed(rows, (*where, seed["seed"]), seed)
    return Frames(**{k: pd.DataFrame(v, columns=COLUMNS[k].split()) for k, v in rows.items()})


def _add_seed(rows: dict[str, list[Any]], run: tuple[Any, ...], seed: dict[str, Any]) -> None:
    """Add rows in the order of `COLUMNS`: tuples, as there are a hundred thousand and dicts take longer."""
    state = seed["state"]
    numbers = (seed[name] for name in ("reason", "seconds", "steps", "gradient_evaluations"))
    rows["seeds"].append((*run, state, *numbers))
    for rule, entry in seed["final"].items():
        rows["runs"] += [
            (*run, state, rule, entry["epoch"], split, output, accuracy, head, loss)
            for split, output, accuracy, head, loss, _ in _outputs(entry)
        ]
    for entry in seed["epochs"]:
        here = (*run, entry["epoch"])
        norm = {("train", "fused"): entry.get("gradient_norm", math.nan)}
        rows["epochs"] += [
            (*here, split, output, accuracy, loss, share, norm.get((split, output), math.nan))
            for split, output, accuracy, _, loss, share in _outputs(entry)
        ]
        rows["dominance"] += [
            (*here, m, share, entry["dominance"][m], entry["switches"], entry["dominant_share"])
            for m, share in entry["shares"].items()
        ]


def _outputs(entry: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Split, output, accuracy, accuracy of its head, loss and share; the last three not of all outputs."""
    for split in SPLITS:
        values = entry[split]
        heads, shares = values["head_accuracy"], values["shares"]
        for output, accuracy in values["accuracy"].items():
            loss = values["loss"] if output == "fused" else None
            yield split, output, accuracy, heads.get(output), loss, shares.get(output)
