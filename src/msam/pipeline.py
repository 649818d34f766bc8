"""A run: find what is missing, let Snakemake train it, show how far it is; and publish what came out."""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from msam import cells as runner
from msam import forking, records
from msam.notebooks import without_traces
from msam.studies import Cell

if TYPE_CHECKING:
    from msam.estimate import Cost

ROOT = Path(__file__).parents[2]
"""The project: where the Snakefile, the notebooks and the book lie."""

PROFILES = ROOT / "workflow" / "profiles"
"""A folder an executor."""

START = 1.5
"""Seconds that a cell takes to start, in forks of a process that has imported everything."""


WAIT = 2.0
"""Seconds that the processes of a killed run have to end, before the next one is refused."""

PATIENCE = 10.0
"""Seconds that a local Snakemake has to end when it is told to; on Slurm it first cancels its jobs."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""

UNFINISHED = r"\..+(\.json\.\d+|\.\d+\.ipynb)"
"""Names of files that are being written, with the process in them."""


DEPTH = 5
"""Parts of a record's path: profile, study, dataset, fusion, name."""


class PipelineError(RuntimeError):
    """The run cannot start or did not finish; the message says why in one line."""


@dataclass(frozen=True)
class Run:
    """How to train: what, how many seeds, jobs at once, where to, and a folder of workflow/profiles."""

    profile: str
    study: str
    seeds: int
    workers: int
    results: Path
    executor: str = "local"


@dataclass(frozen=True)
class Job:
    """A cell that must be trained.

    Attributes:
        cell: the cell.
        reason: why.
        seconds: expected duration, on one core or GPU, from earlier runs or `cost`, None where both lack.
        cost: estimate of what it takes on a GPU, where no earlier run says it.
    """

    cell: Cell
    reason: str
    seconds: float | None
    cost: Cost | None = None


def plan(cells: Sequence[Cell], seeds: int, results: Path, published: Path) -> list[Job]:
    """The cells without a good record, in order, with the time that earlier runs took, or an estimate."""
    jobs: list[Job] = []
    for cell in cells:
        reason = runner.stale(cell, seeds, results)
        if not reason and not _is_notebook(records.content(cell.path(results).with_suffix(".ipynb"))):
            reason = "its notebook is missing or damaged"
        if not reason and cell.needs and any(job.cell == cell.needs for job in jobs):
            reason = f"it needs {cell.needs.name}"
        if reason:
            todo = seeds - runner.kept(cell, seeds, results)
            seconds = _recorded_seconds(cell, todo, (results, published))
            cost = _estimate(cell, todo) if seconds is None else None
            jobs.append(Job(cell, reason, START + cost.seconds if cost else seconds, cost))
    return jobs


def _is_notebook(content: Any) -> bool:
    return isinstance(content, dict) and "cells" in content


def _recorded_seconds(cell: Cell, seeds: int, folders: Sequence[Path]) -> float | None:
    for folder in folders:
        try:
            record = records.read(cell.path(folder))
        except records.RecordError:
            continue
        trained = record["seeds"]
        if trained and record["config"]["epochs"] and record["config"]["dataset"] == cell.config["dataset"]:
            a_seed = sum(seed["seconds"] for seed in trained) / len(trained)
            return START + seeds * a_seed * cell.config["epochs"] / record["config"]["epochs"]
    return None


def _estimate(cell: Cell, seeds: int) -> Cost | None:
    """None for small networks, which train on processors too and whose steps are mostly overhead."""
    if cell.config.get("size") != "paper":
        return None
    from msam import estimate

    return estimate.cost(cell.config, seeds)


def clear_up(jobs: Sequence[Job], cells: Sequence[Cell], results: Path) -> None:
    """Remove what a killed run left behind and no run takes up again.

    Args:
        jobs: from `plan`; the records of these cells are not whole, so their seeds and checkpoints stay.
        cells: all cells of the study.
        results: folder of the results, held with `exclusive`.
    """
    for folder in {results / cell.config["profile"] for cell in cells}:
        for path in folder.rglob(".*"):
            if re.fullmatch(UNFINISHED, path.name):
                path.unlink()
    todo = [job.cell for job in jobs]
    for cell in cells:
        if cell not in todo:
            runner.clear_up(cell.path(results))


def with_data(jobs: Sequence[Job], cells: Sequence[Cell], results: Path) -> tuple[list[Job], list[str]]:
    """Leave out the jobs whose data are not here, with a note for the book.

    Args:
        jobs: from `plan`.
        cells: all cells of the study.
        results: folder of the results.

    Returns:
        The other jobs, and a line for each dataset left out.

    Raises:
        PipelineError: not one cell has its data; the message says how to get them.
    """
    from msam.datasets._available import get_command

    absent = [
        (command, [job for job in jobs if _dataset(job.cell) == given])
        for given in _datasets(jobs)
        if (command := get_command(*given))
    ]
    left_out = [job for _, mine in absent for job in mine]
    if left_out and len(left_out) == len(cells):
        raise PipelineError(f"data not available here: {', '.join(command for command, _ in absent)}")
    lines = []
    for command, mine in absent:
        reason = f"data not available here: {command}"
        for job in mine:
            runner.write_failure(job.cell, results, f"not run: {reason}", "")
        lines.append(f"not run: {mine[0].cell.config['dataset']}, {len(mine)} cells: {reason}")
    return [job for job in jobs if job not in left_out], lines


def _dataset(cell: Cell) -> tuple[str, dict[str, Any]]:
    return cell.config["dataset"], cell.config["dataset_options"]


def _datasets(jobs: Sequence[Job]) -> list[tuple[str, dict[str, Any]]]:
    """Name and options of every dataset of the jobs; a name may come with several options."""
    found: list[tuple[str, dict[str, Any]]] = []
    for job in jobs:
        if _dataset(job.cell) not in found:
            found.append(_dataset(job.cell))
    return found


def data_outlook(jobs: Sequence[Job]) -> list[str]:
    """A line about each dataset of the jobs that is made from downloaded files."""
    from msam.datasets._expected import outlook

    return [line for given in _datasets(jobs) if (line := outlook(*given))]


def seconds_left(jobs: Sequence[Job], todo: Sequence[Job], elapsed: float, workers: int) -> float:
    """Expected duration of what is left: that of the plan, corrected by how long the rest took.

    At first the plan counts more, as a tenth of its work done in its time would: the first jobs wait for
    datasets to be made, and those that are running have not ended.
    """
    mean = _mean_seconds(jobs)
    unknown = 1.0 if mean is None else mean
    whole, left = (sum(unknown if j.seconds is None else j.seconds for j in part) for part in (jobs, todo))
    trusted = 0.0 if mean is None else whole / 10
    slowness = (elapsed * workers + trusted) / (whole - left + trusted)
    return slowness * left / workers


def total_seconds(jobs: Sequence[Job]) -> float | None:
    """Expected duration of the jobs one after the other; those without one take the mean."""
    mean = _mean_seconds(jobs)
    return None if mean is None else mean * len(jobs)


def _mean_seconds(jobs: Sequence[Job]) -> float | None:
    """Of the jobs whose duration is expected, None where there are none."""
    known = [job.seconds for job in jobs if job.seconds is not None]
    return sum(known) / len(known) if known else None


def total(jobs: Sequence[Job], workers: int) -> str:
    """Expected duration of the jobs, at least of the longest, for people; "" where there is none."""
    seconds = total_seconds(jobs)
    longest = max((job.seconds or 0.0 for job in jobs), default=0.0)
    return "" if seconds is None else clock(max(seconds / workers, longest))


def clock(seconds: float) -> str:
    """90 -> "1:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def exclusive(results: Path) -> Iterator[int]:
    """Refuse a second run on the same results; the lock dies with the processes that hold its descriptor."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        handle = (results / ".lock").open("a+")
    except OSError as error:
        raise PipelineError(f"cannot write to {results}: {error.strerror}") from error
    with handle:
        end = time.monotonic() + WAIT
        while not _locked(handle):
            if time.monotonic() > end:
                handle.seek(0)
                raise PipelineError(
                    f"another run is working on {results}; wait for it or stop it: kill {handle.read()}"
                )
            time.sleep(0.05)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield handle.fileno()


def _locked(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_clone() -> None:
    """Raise `PipelineError` where the package was installed without the project around it."""
    if not (ROOT / "workflow" / "Snakefile").is_file():
        raise PipelineError(
            "this command needs a clone of the project: workflow, notebooks and book lie there"
        )


def check_path(results: Path) -> None:
    """Raise `PipelineError` where papermill or Snakemake would fill in parts of a path."""
    if set("{}") & set(str(results.absolute())):
        raise PipelineError(f"{results} cannot hold records: its path has a brace in it")


def check_options(jobs: Sequence[Job]) -> None:
    """Raise `ValueError` where a method does not take its options, before any of the jobs is trained."""
    for job in jobs:
        runner.check_method(job.cell)


def check_executor(name: str) -> None:
    """Raise `PipelineError` unless workflow/profiles has a folder of that name, and its plugin is there."""
    check_clone()
    executors = sorted(p.name for p in PROFILES.iterdir())
    if name not in executors:
        raise PipelineError(f"unknown executor {name!r}; choose from {', '.join(executors)}")
    plugin = f"snakemake-executor-plugin-{name}"
    if name != "local" and find_spec(plugin.replace("-", "_")) is None:
        raise PipelineError(f"the executor {name} needs a package: pip install {plugin}")


def train(jobs: Sequence[Job], run: Run, lock: int) -> list[Cell]:
    """Train the jobs with Snakemake and print how far it is.

    Args:
        jobs: what to train, from `plan`.
        run: how.
        lock: descriptor of `exclusive`; Snakemake holds it too, so the lock outlives a killed parent.

    Returns:
        The cells that failed; `<record>.failed.json` holds the reasons.

    Raises:
        PipelineError: Snakemake itself failed.
    """
    check_executor(run.executor)
    for job in jobs:
        runner.set_aside(job.cell, run.results)
        _description(job.cell, run.results).unlink(missing_ok=True)
    log = run.results / "snakemake.log"
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            _snakemake(jobs, run),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            _watch(jobs, run, process, started)
        finally:
            if process.poll() is None:
                _stop(process, PATIENCE if run.executor == "local" else math.inf)
    failed = [job.cell for job in jobs if not job.cell.path(run.results).is_file()]
    if process.returncode and not any(_ended(job.cell, run.results) for job in jobs):
        raise PipelineError(f"Snakemake trained nothing{_said(log)}, see {log}")
    for cell in failed:
        if not _ended(cell, run.results):
            reason = f"not run: its dataset or a record it needs failed, see {log}"
            runner.write_failure(cell, run.results, reason, "")
    return failed


def _end_with_parent() -> None:
    """Be terminated when the parent is killed; otherwise Snakemake would train all that is left."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _said(log: Path) -> str:
    """The last line of the log that says what is wrong, if any."""
    said = re.findall(r"^(?:msam|snakemake): (.+)", log.read_text(errors="replace"), re.MULTILINE)
    return f": {said[-1]}" if said else ""


def _stop(process: subprocess.Popen, patience: float) -> None:
    """End Snakemake and what it has started; it may wait for ever when an interrupt and this come at once."""
    process.terminate()  # it starts no more, and waits for those that run
    end = time.monotonic() + patience
    forking.stop_below(
        process.pid, signal.SIGTERM, lambda: process.poll() is not None or time.monotonic() > end
    )
    process.kill()
    process.wait()


def _snakemake(jobs: Sequence[Job], run: Run) -> list[str]:
    settings = {
        "profile": run.profile,
        "study": run.study,
        "seeds": run.seeds,
        "results": run.results.absolute(),
    }
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(ROOT / "workflow" / "Snakefile")),
        *("--profile", str(PROFILES / run.executor)),
        *("--cores" if run.executor == "local" else "--jobs", str(run.workers)),
        *("--config", *(f"{name}={value}" for name, value in settings.items())),
        "--",
        *(str(job.cell.path(run.results).absolute()) for job in jobs),
    ]


def _watch(jobs: Sequence[Job], run: Run, process: subprocess.Popen, started: float) -> None:
    """Print a line whenever a job has ended, until the process has."""
    todo = list(jobs)
    running = True
    while running:
        running = process.poll() is None
        for job in [j for j in todo if _ended(j.cell, run.results)]:
            todo.remove(job)
            elapsed = time.monotonic() - started
            count = f"[{len(jobs) - len(todo):{len(str(len(jobs)))}}/{len(jobs)}]"
            outcome = _outcome(records.content(job.cell.path(run.results)))
            left = clock(seconds_left(jobs, todo, elapsed, run.workers))
            line = f"{count} {job.cell.title:<36} {outcome:<7} {clock(elapsed)} passed, {left} to go"
            print(line, flush=True)
        time.sleep(0.3 if running else 0)


def _outcome(record: dict[str, Any] | None) -> str:
    """How a cell ended, in a word or two."""
    if record is None:
        return "FAILED"
    if record["state"] == "undefined":
        return "not defined"
    diverged = sum(seed["state"] == "diverged" for seed in record["seeds"])
    return f"diverged in {diverged} of {len(record['seeds'])} seeds" if diverged else "done"


def _description(cell: Cell, results: Path) -> Path:
    """Where the Snakefile puts the description of the cell's dataset; made anew with each training."""
    return results / cell.config["profile"] / "data" / f"{cell.config['dataset'].rpartition('.')[2]}.json"


def restore_descriptions(cells: Sequence[Cell], results: Path) -> None:
    """Write the descriptions of trained datasets that are lost or damaged; training writes them, once."""
    from msam import datasets
    from msam.datasets._available import get_command
    from msam.datasets._publishable import publishable

    for cell in {_description(c, results): c for c in cells if c.path(results).is_file()}.values():
        path, given = _description(cell, results), _dataset(cell)
        whole = isinstance(content := records.content(path), dict) and "splits" in content
        if not whole and not get_command(*given):
            records.write(path, publishable(datasets.describe(*given)))


def _ended(cell: Cell, results: Path) -> bool:
    path = cell.path(results)
    return path.is_file() or runner.failed(path).is_file()


def _seeds(content: Any) -> int:
    """Number of seeds in a record, 0 in what other files hold."""
    return len(content.get("seeds", ())) if isinstance(content, dict) else 0


def publish(results: Path, published: Path, profile: str) -> int:
    """Copy a local run over the published one: records and notebooks of the profile, step costs, the rate.

    Returns:
        The number of files.

    Raises:
        PipelineError: there is no run of the profile, or one of the files is corrupt or has fewer seeds than
            the published record. Nothing has been copied then.
    """
    source = results / profile
    if not source.is_dir():
        raise PipelineError(f"there is nothing to publish in {source}")
    folders = (source, results / "benchmarks", results / "rate")
    files = [
        path
        for path in sorted(path for folder in folders for path in folder.rglob("[!.]*"))
        if path.suffix in (".json", ".ipynb") and records.is_record(path)
    ]
    texts = {}
    for path in files:
        content = records.content(path)
        if not (_is_notebook(content) if path.suffix == ".ipynb" else isinstance(content, dict)):
            raise PipelineError(f"{path} is corrupt; delete it and make it again")
        place = path.relative_to(results)
        if len(place.parts) == DEPTH and path.suffix == ".json":
            records.read(path)
        count = _seeds(records.content(published / place))
        if _seeds(content) < count:
            raise PipelineError(f"{path} has fewer seeds than the published record: train SEEDS={count}")
        texts[published / place] = without_traces(path) if path.suffix == ".ipynb" else path.read_text()
    for target, text in texts.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(target)
    return len(files)
