"""The command `msam`: what Make, Snakemake and people call."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import yaml

from msam import _yaml, forking, pipeline, studies
from msam.analysis import profiles

PUBLISHED = Path("results")
LOCAL = PUBLISHED / "local"
ALL = "all"
"""Stands for every study of a profile."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what it should, 1 and one line on the error stream if not."""
    options = _parser().parse_args(arguments)
    for name in ("MSAM_CACHE", "MSAM_DATA"):  # for processes that start elsewhere
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be told to end is to be interrupted
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("msam: stopped; the next run goes on from here", file=sys.stderr)
    except BrokenPipeError:  # of a reader like head, who has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError as error:
        print(f"msam: not enough memory: {error}", file=sys.stderr)
    except OSError as error:
        print(f"msam: {_about(error)}", file=sys.stderr)
    except (ValueError, RuntimeError) as error:
        print(f"msam: {error}", file=sys.stderr)
    return 1


def _about(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _plan(options: argparse.Namespace) -> int:
    profile = _profile(options)
    jobs: list[pipeline.Job] = []
    counts = []
    for name, seeds in _studies(options, profile).items():
        cells = studies.cells(profile, name)
        mine = pipeline.plan(cells, seeds, options.results, PUBLISHED)
        pipeline.check_options(mine)
        lead = f"{name}: " if options.study == ALL else ""
        for job in mine:
            print(f"{lead}{job.cell.title:<36} {_expected(job)}  {job.reason}")
        counts.append(f"{lead}{len(mine)} of {len(cells)} cells to train, {seeds} seeds each")
        jobs += mine
    for line in pipeline.data_outlook(jobs):
        print(line)
    print("\n".join(counts) + f": {_forecast(jobs, options.jobs)}")
    if any(job.cost for job in jobs):
        from msam import estimate

        print(estimate.NOTE)
    return 0


def _expected(job: pipeline.Job) -> str:
    if job.cost and job.seconds is not None:
        return f"~ {job.seconds / 3600:5.2f} GPU h {job.cost.memory / 1e9:5.1f} GB"
    return f"{'?' if job.seconds is None else pipeline.clock(job.seconds):>7}"


def _forecast(jobs: Sequence[pipeline.Job], workers: int) -> str:
    if not jobs:
        return "nothing to do"
    memory = max((job.cost.memory for job in jobs if job.cost), default=0)
    if memory:
        hours = (pipeline.total_seconds(jobs) or 0) / 3600
        return f"about {hours:,.1f} GPU hours, up to {memory / 1e9:.1f} GB of its memory a cell"
    expected = pipeline.total(jobs, workers)
    return f"about {expected} with {workers} at once" if expected else "no time was recorded for any of them"


def _reproduce(options: argparse.Namespace) -> int:
    from msam import book

    pipeline.check_executor(options.executor)
    pipeline.check_path(options.results)
    book.check_target(options.book)
    profile = _profile(options)
    todo = _studies(options, profile)
    problems: list[str] = []
    with pipeline.exclusive(options.results) as lock, ExitStack() as stack:
        for study, seeds in todo.items():
            cells = studies.cells(profile, study)
            jobs = pipeline.plan(cells, seeds, options.results, PUBLISHED)
            pipeline.check_options(jobs)
            pipeline.clear_up(jobs, cells, options.results)
            jobs, without_data = pipeline.with_data(jobs, cells, options.results)
            lead = f"{study}: " if options.study == ALL else ""
            forecast = _forecast(jobs, options.jobs)
            for line in (*without_data, f"{lead}{len(jobs)} of {len(cells)} cells to train: {forecast}"):
                print(line, flush=True)
            problems += without_data
            if jobs:
                if options.executor == "local":
                    stack.enter_context(forking.preloaded(lock=lock))
                run = pipeline.Run(
                    options.profile, study, seeds, options.jobs, options.results, options.executor
                )
                failed = pipeline.train(jobs, run, lock)
                problems += [f"failed: {c.title}: {pipeline.runner.why(c, options.results)}" for c in failed]
            pipeline.restore_descriptions(cells, options.results)
        try:
            _take_search(profile["profile"], options.results)
            _judge(options.results)
            code = _book(options) if profiles.shown(options.results) else _no_book()
        finally:
            print("".join(f"{line}\n" for line in problems), end="", file=sys.stderr)
    return 1 if problems else code


def _take_search(profile: str, results: Path) -> None:
    """The published search chose the hyper-parameters of this run too, so its table belongs in this book."""
    source, target = PUBLISHED / profile / "search.json", results / profile / "search.json"
    if source.is_file() and source != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _claims(options: argparse.Namespace) -> int:
    from msam.analysis import claims_table

    verdicts = _judge(options.results)
    if not verdicts:
        raise ValueError(
            f"there are no records of a study main at {options.results}; train first: make reproduce"
        )
    for line in claims_table.lines(verdicts):
        print(line)
    return 0


def _judge(results: Path) -> dict[str, Any]:
    from msam.analysis import claims

    return claims.write(results)


def _book(options: argparse.Namespace) -> int:
    from msam import book

    page = book.build(options.results, options.book, PUBLISHED)
    print(f"the book is at {page}")
    return 0


def _no_book() -> int:
    print("there is no book yet: it needs the study main of a profile like embedded, as from make reproduce")
    return 0


def _cell(options: argparse.Namespace) -> int:
    from msam import records

    pipeline.check_path(options.results)
    profile = _profile(options)
    seeds = _seeds(options, profile, options.study)
    cell = next((c for c in studies.cells(profile, options.study) if c.title == options.cell), None)
    if cell is None:
        raise ValueError(f"unknown cell {options.cell!r}; `msam plan` lists them")
    records.make_folder(cell.path(options.results).parent)
    with nullcontext() if options.of_run else pipeline.exclusive(options.results):
        return _train(cell, seeds, options)


def _train(cell: studies.Cell, seeds: int, options: argparse.Namespace) -> int:
    from msam import notebooks

    source = pipeline.ROOT / "notebooks" / "train.ipynb"
    parameters = {
        "profile": options.profile,
        "study": options.study,
        "dataset": cell.config["dataset"],
        "fusion": cell.config["fusion"],
        "method": cell.name,
        "seeds": seeds,
        "results": os.path.relpath(options.results.resolve(), source.parent.resolve()),
    }
    try:
        notebooks.execute(source, cell.path(options.results).with_suffix(".ipynb"), parameters)
    except Exception as error:
        pipeline.runner.set_aside(cell, options.results)  # a notebook may fail after its record
        pipeline.runner.write_failure(cell, options.results, str(error), traceback.format_exc())
        raise
    return 0


def _search(options: argparse.Namespace) -> int:
    from msam import search

    profile = _profile(options)
    studies.seeds(profile, options.study)  # an unknown study is refused
    output = PUBLISHED / profile["profile"] / "search.json"
    search.run(profile, options.study, options.jobs, output)
    return 0


def _rate(options: argparse.Namespace) -> int:
    from msam import rate, records

    records.make_folder(options.output.parent)
    record = rate.run(options.output)
    print(f"the rate was measured in {record['provenance']['seconds']:.0f} s: {options.output}")
    return 0


def _notebook(options: argparse.Namespace) -> int:
    from msam import notebooks

    source = Path(options.name)
    if source.suffix != ".ipynb":
        pipeline.check_clone()
        source = pipeline.ROOT / "notebooks" / f"{options.name}.ipynb"
    target = LOCAL / "notebooks" / source.name
    notebooks.execute(source, target, {name: _value(value, name) for name, value in options.parameters})
    print(f"the executed notebook is at {target}")
    return 0


def _describe(options: argparse.Namespace) -> int:
    from msam import datasets, records
    from msam.datasets._publishable import publishable

    description = datasets.describe(options.name, _mapping(options.options))
    if options.output:
        records.write(options.output, publishable(description))
    else:
        del description["samples"]
        print(yaml.safe_dump(description, sort_keys=False), end="")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from msam import datasets

    chosen = _mapping(options.options)
    print(datasets.prepare(options.name, chosen, force=options.force))
    description = datasets.describe(options.name, chosen)
    if "report" in description:
        print(yaml.safe_dump({"report": description["report"]}, sort_keys=False), end="")
    return 0


def _get(options: argparse.Namespace) -> int:
    from msam.datasets import _download

    problems = _download.get(options.name, _mapping(options.options), options.accept_licence)
    for problem in problems:
        print(f"msam: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _verify(options: argparse.Namespace) -> int:
    from msam.datasets import _verify

    states = _verify.verify(options.name, _mapping(options.options))
    for state in states:
        print(f"{'ok ' if state.good else 'BAD'} {state.path}: {state.detail}")
    if not states:
        print(f"{options.name} needs no files")
    return 0 if all(state.good for state in states) else 1


def _publish(options: argparse.Namespace) -> int:
    from msam.analysis import figures, sources

    count = pipeline.publish(options.results, PUBLISHED, _profile(options)["profile"])
    _judge(PUBLISHED)
    (PUBLISHED / "overview.svg").write_text(figures.rank_points(sources.read(PUBLISHED)).svg)
    print(f"{count} files are now the published run")
    return 0


def _profile(options: argparse.Namespace) -> dict[str, Any]:
    """The profile; makes its path absolute for processes that start elsewhere.

    Raises:
        ValueError: it cannot be read or expanded.
    """
    if options.profile.endswith(".yaml"):
        options.profile = str(Path(options.profile).absolute())
    try:
        profile = studies.load(options.profile)
        for name in profile["studies"]:
            studies.cells(profile, name)
    except UnicodeDecodeError:
        raise ValueError(f"profile {Path(options.profile).name} is no text") from None
    return profile


def _studies(options: argparse.Namespace, profile: dict[str, Any]) -> dict[str, int]:
    """The studies that the options mean, each with its number of seeds."""
    names = list(profile["studies"]) if options.study == ALL else [options.study]
    return {name: _seeds(options, profile, name) for name in names}


def _seeds(options: argparse.Namespace, profile: dict[str, Any], study: str) -> int:
    own = studies.seeds(profile, study)
    return own if options.seeds is None else options.seeds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


def _value(text: str, what: str) -> Any:
    try:
        return _yaml.load(text)
    except yaml.YAMLError:
        raise ValueError(f"{what} is no YAML: {text!r}") from None


def _mapping(text: str) -> dict[str, Any]:
    value = _value(text, "--options")
    if not isinstance(value, dict):
        raise ValueError(f"--options must be a mapping like '{{seed: 1}}', not {text!r}")
    return value


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, like the rest of this program."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"msam: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="msam", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    options: dict[str, dict[str, Any]] = {
        "profile": {"default": "embedded", "help": "name of a profile or path of a YAML file"},
        "study": {"default": "main", "help": f"a study of the profile, or {ALL}"},
        "seeds": {"type": _count, "help": "number of seeds; the study's own if not given"},
        "jobs": {"type": _count, "default": 2, "help": "cells at once"},
        "results": {"type": Path, "default": LOCAL, "help": "folder of the records"},
        "executor": {"default": "local", "help": "folder of workflow/profiles: local or slurm"},
    }

    def some(*names: str) -> argparse.ArgumentParser:
        parent = argparse.ArgumentParser(add_help=False)
        for name in names:
            parent.add_argument(f"--{name}", **options[name])
        return parent

    pages = argparse.ArgumentParser(add_help=False)
    pages.add_argument(
        "--book", type=Path, default=Path("build/book/html"), help="folder of the rendered book"
    )
    published = argparse.ArgumentParser(add_help=False)
    published.add_argument("--results", **options["results"] | {"default": PUBLISHED})
    single = argparse.ArgumentParser(add_help=False)
    single.add_argument("--study", **options["study"] | {"help": "a study of the profile"})
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("name", help="a dataset")
    data.add_argument("--options", default="{}", help="its options, YAML")

    def add(
        group: Any, name: str, function: Callable[..., int], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        command = group.add_parser(name, help=text, description=text, parents=parents)
        command.set_defaults(run=function)
        return command

    text = "list the cells that would be trained, with their expected times"
    add(commands, "plan", _plan, text, some("profile", "study", "seeds", "jobs", "results"))
    text = "train what is missing or stale, then build the book of all profiles in the same folder"
    add(commands, "reproduce", _reproduce, text, some(*options), pages)
    text = "train one cell through its notebook"
    cell = add(commands, "cell", _cell, text, some("profile", "seeds", "results"), single)
    cell.add_argument("cell", help="dataset/fusion/method")
    cell.add_argument("--of-run", action="store_true", help="of a run that holds the results, as Snakemake's")
    text = "choose hyper-parameters on the validation splits"
    add(commands, "search", _search, text, some("profile", "jobs"), single)
    add(commands, "book", _book, "build the book of all profiles that have records", pages, published)
    text = "judge the paper's claims by the records, write claims.json of each profile and print the verdicts"
    add(commands, "claims", _claims, text, published)
    text = "make the local records of a profile, the step costs and the rate the published ones"
    add(commands, "publish", _publish, text, some("profile", "results"))
    measured = add(commands, "rate", _rate, "measure the rate of convergence where the gradient is known")
    measured.add_argument("--output", type=Path, default=LOCAL / "rate" / "rate.json", help="file to write")
    notebook = add(commands, "notebook", _notebook, "run one notebook through papermill")
    notebook.add_argument("name", help="a notebook of notebooks/, or a path")
    notebook.add_argument(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    group = commands.add_parser("data", help="fetch, verify, prepare or describe a dataset").add_subparsers(
        required=True, metavar="command"
    )
    describe = add(group, "describe", _describe, "sizes, class counts, shapes, license, origin", data)
    describe.add_argument("--output", type=Path, help="write the description, with samples, as JSON")
    get = add(group, "get", _get, "download the files a dataset is made from", data)
    get.add_argument("--accept-licence", action="store_true", help="of a dataset that asks for it")
    add(group, "verify", _verify, "say which of these files are there, missing or wrong", data)
    prepare = add(group, "prepare", _prepare, "make the arrays of a dataset, ready for training", data)
    prepare.add_argument("--force", action="store_true", help="even if they are there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
