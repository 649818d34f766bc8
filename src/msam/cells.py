"""Train one cell of a study and write its record."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msam import records
from msam.studies import Cell, cells, load, schema

if TYPE_CHECKING:
    from msam.datasets import Dataset

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every epoch with the seed, the epoch's number and its entry of the record."""

DIGITS = 16
"""Of the hash in the name of a checkpoint."""


def run(
    cell: Cell,
    seeds: Iterable[int],
    *,
    results: Path | None = None,
    device: str = "auto",
    progress: Progress = lambda seed, epoch, entry: None,
) -> dict[str, Any]:
    """Train the seeds of a cell.

    Every finished seed is kept in `<record>.partial.json` and an unfinished one in a checkpoint, so a run
    that was killed goes on after its last epoch. Seeds of an older record with the same key are kept.

    Args:
        cell: the cell, from `msam.studies.cells`.
        seeds: the seeds.
        results: folder of the results; None reads and writes nothing.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        progress: see `Progress`.

    Returns:
        The record.

    Raises:
        ValueError: a name or a value in the configuration is wrong, or a needed record is missing.
        OSError: the results folder cannot be written.
    """
    import torch

    from msam import datasets
    from msam.methods import UnsupportedCell

    seeds = list(seeds)
    if not seeds:
        raise ValueError("there must be at least one seed")
    torch.set_num_threads(cell.config["threads"])
    target = torch.device(device_name(device, torch.cuda.is_available()))
    data = placed(datasets.load(cell.config["dataset"], cell.config["dataset_options"]), target)
    record: dict[str, Any] = {
        "schema": records.SCHEMA,
        "state": "done",
        "key": cell.key,
        "config": cell.config,
    }
    record["provenance"] = records.provenance(describe_device(target), data.checksum)
    path = cell.path(results) if results else None
    if path:
        records.make_folder(path.parent)
    done = _finished(path, cell.key, data.checksum)
    try:
        done |= _train_together(cell, data, [s for s in seeds if s not in done], results, progress)
        for seed in seeds:
            if seed not in done:
                done[seed] = _train_seed(cell, data, seed, results, partial(progress, seed))
            trained = [done[s] for s in sorted(done)]
            record["seeds"] = trained
            record["provenance"] |= {
                "finished": records.now(),
                "seconds": round(sum(s["seconds"] for s in trained), 2),
                "peak_memory_mb": max(s["peak_memory_mb"] for s in trained),
            }
            if path:
                records.write(_partial(path), record)
                _remove_checkpoints(path)
    except UnsupportedCell as reason:
        record |= {"state": "undefined", "reason": str(reason), "seeds": []}
        record["provenance"]["seconds"] = 0.0
    if path:
        records.write(path, record)
        clear_up(path)
    return record


def train(
    profile: str,
    study: str,
    dataset: str,
    fusion: str,
    method: str,
    seeds: int,
    results: str = "",
    *,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train a cell by the names of its parts and print a line an epoch: what the notebook calls.

    Seeds that are there already are not trained again; the first line says how many.

    Args:
        profile: name or path of a study file.
        study: a study of the profile.
        dataset: a dataset of the study.
        fusion: a fusion of the study.
        method: a method of the study, with its variant: "msam+encoder".
        seeds: number of seeds, from 0.
        results: folder of the results; empty to read and write nothing.
        device: see `run`.
        **settings: see `override`.

    Returns:
        The record.
    """
    names = {"profile": profile, "study": study, "dataset": dataset, "fusion": fusion, "method": method}
    schema.check(
        {**names, "seeds": seeds, "results": results, "device": device}, schema.SINGLE_RUN, "parameters"
    )
    (cell,) = cells(load(profile), study, dataset, fusion, method)
    cell = override(cell, **settings)

    def progress(seed: int, epoch: int, entry: dict[str, Any]) -> None:
        fused = entry["validation"]["accuracy"]["fused"]
        print(
            f"seed {seed}  epoch {epoch:>3}/{cell.config['epochs']}  loss {entry['step_loss']:.3f}", end="  "
        )
        print(f"validation accuracy {fused:.3f}")

    folder = Path(results) if results else None
    if folder and (there := kept(cell, seeds, folder)):
        print(f"{there} of {seeds} seeds are there already")
    return run(cell, range(seeds), results=folder, device=device, progress=progress)


def check_method(cell: Cell) -> None:
    """Raise `ValueError` where the method of a cell does not take its options.

    A share that another cell's record gives counts as a number here.
    """
    from msam import methods
    from msam.datasets._source import find

    config = cell.config
    given = config["options"] | ({"share": 1.0} if cell.needs else {})
    try:
        method = methods.build(config["method"], given)
        kinds = find(config["dataset"], config["dataset_options"]).kinds
        method.check(config["fusion"], method.modalities(list(kinds)))
    except methods.UnsupportedCell:
        return
    except (ValueError, TypeError, ImportError) as error:
        where = f"profile {config['profile']}, study {config['study']!r}, {cell.title}"
        raise ValueError(f"{where}: {error}") from None


def failed(path: Path) -> Path:
    """Where the reason lies why a cell has no record."""
    return path.with_suffix(".failed.json")


def set_aside(cell: Cell, results: Path) -> None:
    """Make way for a new record; finished seeds stay in the partial one, which `run` may take over."""
    path = cell.path(results)
    failed(path).unlink(missing_ok=True)
    if path.is_file():
        path.replace(_partial(path))


def clear_up(path: Path) -> None:
    """Remove what lies beside a whole record: the partial one, the checkpoint, the note of a failure."""
    _partial(path).unlink(missing_ok=True)
    failed(path).unlink(missing_ok=True)
    _remove_checkpoints(path)


def write_failure(cell: Cell, results: Path, reason: str, traceback: str) -> None:
    """Note that the cell failed."""
    note = {"schema": records.SCHEMA, "state": "failed", "config": cell.config}
    records.write(failed(cell.path(results)), note | {"reason": reason, "traceback": traceback})


def why(cell: Cell, results: Path) -> str:
    """The reason in the note of a failed cell."""
    return json.loads(failed(cell.path(results)).read_text())["reason"]


def stale(cell: Cell, seeds: int, results: Path) -> str:
    """Why the cell must be trained (again), "" if its record is good."""
    path = cell.path(results)
    if not path.is_file():
        return "failed before" if failed(path).is_file() else "not trained yet"
    try:
        record = records.read(path)
    except records.RecordError:
        return "the record is corrupt"
    if record["key"] != cell.key:
        return "its configuration or code has changed"
    have = {seed["seed"] for seed in record["seeds"]}
    if record["state"] == "done" and not have >= set(range(seeds)):
        return f"it has {len(have)} of {seeds} seeds"
    if _data_checksum(cell) not in (None, record["provenance"]["data_checksum"]):
        return "its data have changed"
    return ""


def kept(cell: Cell, seeds: int, results: Path) -> int:
    """How many of the seeds `run` would not train again."""
    path = cell.path(results)
    if not (path.is_file() or _partial(path).is_file()):
        return 0
    return len(_finished(path, cell.key, _data_checksum(cell)).keys() & set(range(seeds)))


def _data_checksum(cell: Cell) -> str | None:
    """None where the data are not here, so that there is nothing to compare with."""
    from msam import datasets
    from msam.datasets._available import get_command

    name, options = cell.config["dataset"], cell.config["dataset_options"]
    return None if get_command(name, options) else datasets.describe(name, options)["checksum"]


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial.json")


def _finished(path: Path | None, key: str, data_checksum: str | None) -> dict[int, dict[str, Any]]:
    """Seed -> its entry, from an older or a partial record with the same key and data.

    The partial one is read first: a run that is being killed may just make it the whole one.
    """
    found: dict[int, dict[str, Any]] = {}
    for candidate in (_partial(path), path) if path else ():
        try:
            record = records.read(candidate)
        except records.RecordError:
            continue
        if (record["key"], record["provenance"]["data_checksum"]) == (key, data_checksum):
            found |= {seed["seed"]: seed for seed in record["seeds"]}
    return found


def _train_seed(
    cell: Cell,
    data: Dataset,
    seed: int,
    results: Path | None,
    progress: Callable[[int, dict[str, Any]], None],
) -> dict[str, Any]:
    """Train one seed; without training it is diverged where the needed run left no share to take."""
    from msam.training import train_seed

    needed = _needed_seed(cell, seed, results)
    if cell.needs and needed and not needed["epochs"]:
        reason = f"{cell.needs.name} diverged in its first epoch, so there is no share to take"
        return needed | {"seconds": 0.0, "steps": 0, "gradient_evaluations": 0, "reason": reason}
    config = _with_share(cell, needed)
    checkpoint = _checkpoint(cell.path(results), [config, cell.key, data.checksum, seed]) if results else None
    return train_seed(config, data, seed, progress, checkpoint)


def _train_together(
    cell: Cell, data: Dataset, seeds: list[int], results: Path | None, progress: Progress
) -> dict[int, dict[str, Any]]:
    """The seeds' entries from one stacked run, if the study asks for it and it saves time; else none."""
    if "stacked" not in cell.config.get("fast", ()):
        return {}
    from msam.stacked import train_seeds, worthwhile

    needed = {seed: _needed_seed(cell, seed, results) for seed in seeds}
    configs = {seed: _with_share(cell, n) for seed, n in needed.items() if n is None or n["epochs"]}
    wanted = bool(configs) and worthwhile(next(iter(configs.values())), data, len(configs))
    return dict(zip(configs, train_seeds(configs, data, progress), strict=True)) if wanted else {}


def _checkpoint(path: Path, run: list[Any]) -> Path:
    """Where the unfinished seed lies; another run has another name."""
    digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:DIGITS]
    return path.with_name(f".{path.stem}.{digest}.pt")


def _remove_checkpoints(path: Path) -> None:
    digest = "[0-9a-f]" * DIGITS  # not any text: `sam+rho_0` must leave `sam+rho_0.1` its own
    for checkpoint in path.parent.glob(f".{path.stem}.{digest}.pt*"):
        checkpoint.unlink()


def _needed_seed(cell: Cell, seed: int, results: Path | None) -> dict[str, Any] | None:
    """The needed cell's run of the seed, None where the cell needs no other."""
    if cell.needs is None:
        return None
    path = cell.needs.path(results) if results else None
    if path is None or not path.is_file():
        raise ValueError(
            f"{cell.title} takes its share from the record of {cell.needs.title}, which is not there:"
            " train that first in the same results folder, or give a number as share"
        )
    entry = next((s for s in records.read(path)["seeds"] if s["seed"] == seed), None)
    if entry is None or any(epoch["dominant_share"] is None for epoch in entry["epochs"]):
        raise ValueError(f"{cell.title}: the record of {cell.needs.title} has no usable seed {seed}")
    return entry


def _with_share(cell: Cell, needed: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration, with the mean dominant share of the needed run put in."""
    if needed is None:
        return cell.config
    shares = [epoch["dominant_share"] for epoch in needed["epochs"]]
    return cell.config | {"options": cell.config["options"] | {"share": sum(shares) / len(shares)}}


def override(
    cell: Cell,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    rho: float | None = None,
    options: dict[str, Any] | None = None,
) -> Cell:
    """The same cell with other settings; a number as `share` needs no other record.

    Raises:
        ValueError: a value is wrong, or the method has no radius.
    """
    given = {"epochs": epochs, "lr": lr, "rho": rho, "options": options}
    given = {name: value for name, value in given.items() if value is not None}
    schema.check(given, schema.SINGLE_RUN, "parameters")
    if "rho" in given and cell.config["rho"] is None:
        raise ValueError(f"parameters: {cell.name} has no radius rho")
    config = cell.config | {"options": cell.config["options"] | given.pop("options", {})}
    if "lr" in given:
        config["optimizer"] = config["optimizer"] | {"lr": given.pop("lr")}
    config |= given
    return Cell(config, None if "share" in (options or {}) else cell.needs)


def device_name(name: str, cuda: bool) -> str:
    """The device that a setting means; "auto" is a GPU if there is one."""
    if name == "auto":
        return "cuda" if cuda else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}; choose from auto, cpu, cuda, cuda:0, ...")
    if name.startswith("cuda") and not cuda:
        raise ValueError(f"device {name!r}: there is no CUDA device here; choose cpu or auto")
    return name


def placed(data: Dataset, device: Any) -> Dataset:
    """The data on the device; on a GPU that has no room for twice their size, the labels only."""
    import torch

    inputs = [x for split in data.splits.values() for x in split.inputs.values()]
    if device.type == "cpu" or 2 * sum(x.nbytes for x in inputs) < torch.cuda.mem_get_info(device)[0]:
        return data.to(device)
    splits = {name: replace(s, labels=s.labels.to(device)) for name, s in data.splits.items()}
    return replace(data, splits=splits)


def describe_device(device: Any) -> str:
    """Name of the device; of a CPU with the instructions that torch uses, by which sums are rounded."""
    import torch

    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), model)
    return f"cpu: {model}, {torch.backends.cpu.get_cpu_capability()}"
