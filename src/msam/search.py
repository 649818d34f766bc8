"""Choose hyper-parameters on the validation splits: the same number of draws for every method.

Every method tries the same learning rates and, if it has one, radii; an option of its own is drawn beside
them. A setting that comes twice, as for a method without options at a fixed learning rate, is tried once. A
trial is one training run of one cell with a seed that the study does not use, on data without the test
split, on a GPU if there is one. The trial with the highest validation accuracy after the last epoch wins, at
a tie the lower validation loss.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from msam import records, studies
from msam.studies import Cell

Trial = dict[str, Any]

WRITE_EVERY = 10


def draws(space: dict[str, Any], own: Mapping[str, list[float]] | None = None) -> list[dict[str, float]]:
    """What every trial takes: log-uniform in each range, a stratum a trial, paired at random.

    Args:
        space: `trials`, `seed`, and the ranges of `lr` and `rho`.
        own: further ranges; a range for `rho` replaces that of the space. The strata of `lr` and `rho` are
            the same whatever is here.
    """
    source = random.Random(space["seed"])
    ranges = {name: space[name] for name in ("lr", "rho")} | dict(own or {})
    columns = []
    for bounds in ranges.values():
        low, high = map(math.log, bounds)
        strata = list(range(space["trials"]))
        source.shuffle(strata)
        columns.append([math.exp(low + (high - low) * (s + source.random()) / len(strata)) for s in strata])
    rows = zip(*columns, strict=True)
    return [{name: float(f"{x:.3g}") for name, x in zip(ranges, row, strict=True)} for row in rows]


def run(profile: dict[str, Any], study: str, workers: int, output: Path) -> None:
    """Run the trials that `output` lacks, then write them all there and the winners beside the profile.

    Args:
        profile: a profile with a `search` entry.
        study: the study whose cells are searched; a cell that reads another's record takes its winner.
        workers: trials at once.
        output: file of the trials, `<results>/<profile>/search.json`.

    Raises:
        ValueError: the profile has no search, or `output` is damaged.
    """
    if "search" not in profile:
        raise ValueError(f"profile {profile['profile']!r} has no search")
    space = profile["search"]
    distinct: dict[str, tuple[Trial, Cell]] = {}
    for base in studies.cells(profile, study):
        for trial, cell in _trials(base, space) if base.needs is None else ():
            distinct.setdefault(trial["key"], (trial, cell))
    todo = list(distinct.values())
    old = _old_trials(output)
    done = {trial["key"]: trial for trial in old}
    missing = [(trial, cell) for trial, cell in todo if trial["key"] not in done]
    methods = {cell.name: cell.space for _, cell in todo if cell.space}

    def write(done: dict[str, Trial]) -> list[Trial]:
        trials = [done[trial["key"]] for trial, _ in todo if trial["key"] in done]
        bounds = {name: space[name] for name in ("lr", "rho")} | {"methods": methods}
        content = {"budget": space["trials"], "seed": space["seed"], "space": bounds}
        records.write(output, {**content, "trials": trials, "chosen": winners(trials)})
        return trials

    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(_evaluate, trial, cell, space["seed"]) for trial, cell in missing]
        try:
            for count, future in enumerate(as_completed(futures), 1):
                trial = future.result()
                done[trial["key"]] = trial
                where = f"{trial['dataset']}/{trial['fusion']}/{trial['name']}"
                more = "".join(f" {name} {value}" for name, value in trial["options"].items())
                values = f"lr {trial['lr']} rho {trial['rho']}{more}: {trial['validation_accuracy']}"
                print(f"[{count}/{len(missing)}] {where} {values}", flush=True)
                if count % WRITE_EVERY == 0:
                    write(done)
        except BaseException:
            if len(done) > len(old):
                write(done)
            pool.shutdown(cancel_futures=True)
            raise
    records.write(studies.chosen_path(profile), winners(write(done)))


def _old_trials(output: Path) -> list[Trial]:
    try:
        trials = json.loads(output.read_text())["trials"] if output.is_file() else []
        return [trial for trial in trials if trial["key"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{output} is damaged; delete it to search anew") from None


def winners(trials: list[Trial]) -> list[dict[str, Any]]:
    """The best trial of every cell that has one that did not diverge."""
    best: dict[tuple[str, str, str], Trial] = {}
    for trial in trials:
        where = (trial["dataset"], trial["fusion"], trial["name"])
        if trial["state"] == "done" and (where not in best or _rank(trial) > _rank(best[where])):
            best[where] = trial
    return [{k: t[k] for k in ("dataset", "fusion", "name", "lr", "rho", "options")} for t in best.values()]


def _rank(trial: Trial) -> tuple[float, float]:
    return trial["validation_accuracy"], -trial["validation_loss"]


def _trials(base: Cell, space: dict[str, Any]) -> Iterator[tuple[Trial, Cell]]:
    for number, drawn in enumerate(draws(space, base.space)):
        lr, rho = drawn.pop("lr"), drawn.pop("rho")
        cell = studies.with_hyperparameters(base, lr, None if base.config["rho"] is None else rho, drawn)
        config = cell.config
        where = {"dataset": config["dataset"], "fusion": config["fusion"], "name": cell.name, "trial": number}
        values = {"lr": lr, "rho": config["rho"], "options": drawn}
        yield {**where, **values, "key": f"{cell.key}-{space['seed']}"}, cell


def _evaluate(trial: Trial, cell: Cell, seed: int) -> Trial:
    import torch

    from msam import datasets
    from msam.cells import device_name, placed
    from msam.methods import UnsupportedCell
    from msam.training import train_seed

    torch.set_num_threads(cell.config["threads"])
    device = torch.device(device_name("auto", torch.cuda.is_available()))
    data = datasets.load(cell.config["dataset"], cell.config["dataset_options"])
    visible = {name: split for name, split in data.splits.items() if name != "test"}
    try:
        result = train_seed(cell.config, placed(replace(data, splits=visible), device), seed)
    except UnsupportedCell:
        result = {"state": "undefined", "final": {}, "seconds": 0.0}
    last = result["final"]["last"]["validation"] if result["final"] else None
    return {
        **trial,
        "state": result["state"],
        "validation_accuracy": last and last["accuracy"]["fused"],
        "validation_loss": last and last["loss"],
        "seconds": result["seconds"],
    }
