"""From records to a rendered book: execute the notebooks, then let Jupyter Book set the pages.

The book reads records and never trains. A page of `book/_toc.yml` is either a text, `book/<page>.md`, or a
notebook, `notebooks/<page>.ipynb`, that is executed first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from msam import forking, notebooks, records
from msam.analysis import profiles

COMPARISON = "comparison"
"""The page "Your run against the published one"."""

DATASETS, ONE_DATASET = "data/index", "data/"
"""The page that lists the datasets, and the folder of the page of each."""

EXAMPLES = "examples"
"""The folder of the scripts that the guides show, beside that of the pages."""

MADE_OF = ("book", "notebooks", EXAMPLES, "src", "results")
"""What the book is made of, as far as it is in the repository."""

AT_ONCE = 4  # on two cores: two draw while the others start or wait
STAMP = ".inputs"
TOOLS = ("jupyter-book", "sphinx-book-theme", "papermill")


class BookError(RuntimeError):
    """The book cannot be built; every line of the message names one cause."""


def build(results: Path, out: Path, published: Path | None = None) -> Path:
    """Build the book, unless the one in `out` was made from the same inputs.

    Args:
        results: folder of the profiles to show, results or results/local; all that have records are shown.
        out: folder for the HTML; it is replaced as a whole, once the new book is complete.
        published: folder of the published profiles, where `results` is a run of the reader's own: adds the
            page that compares the two, if they have a profile in common.

    Returns:
        Path of the book's index.html.

    Raises:
        BookError: a folder or page is missing, a notebook fails, or Jupyter Book finds something to warn of.
    """
    results, out = results.resolve(), out.resolve()
    check_target(out)
    if not profiles.shown(results):
        raise BookError(f"there are no records at {results}; train first: make reproduce")
    published = published and published.resolve()
    if published and (published == results or not profiles.shared(published, results)):
        published = None
    root = project_root()
    index, stamp = out / "index.html", out / STAMP
    fingerprint = inputs_hash(root, results, published)
    if index.is_file() and stamp.is_file() and stamp.read_text() == fingerprint:
        print("book is up to date")
        return index
    work = root / "build" / "book.work"
    source, executed = work / "src", work / "executed"
    with _alone(work), _jupyter_book(source, work) as render:
        contents = table_of_contents(root / "book", with_comparison=published is not None)
        pages = notebook_pages(root, contents)
        for stale in (source, executed, work / EXAMPLES, work / "_build"):
            shutil.rmtree(stale, ignore_errors=True)
        execute(pages, executed, results, published)
        shutil.copytree(root / "book", source)
        shutil.copytree(root / EXAMPLES, work / EXAMPLES)
        (source / "_toc.yml").write_text(yaml.safe_dump(contents, sort_keys=False), encoding="utf-8")
        sign(source / "_config.yml")
        for name in pages:
            page = source / f"{name}.ipynb"
            page.parent.mkdir(exist_ok=True)
            executed_page = executed / page.relative_to(source)
            page.write_text(notebooks.without_traces(executed_page, parameters=False), encoding="utf-8")
        html = render()
        for folder in filter(None, (results, published)):
            copy_records(folder, html)
        (html / STAMP).write_text(fingerprint)
        _replace(out, html)
    return index


def check_target(out: Path) -> None:
    """Refuse a folder that a book would replace and that holds none.

    Raises:
        BookError: what is there is no book.
    """
    if out.exists() and not (out / STAMP).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise BookError(f"{out} is there and holds no book; name a new folder")


def project_root() -> Path:
    """The folder that holds `book` and `notebooks`: where we are, or where the package was installed from."""
    places = (Path.cwd(), Path(__file__).resolve().parents[2])
    for place in places:
        if (place / "book" / "_toc.yml").is_file() and (place / "notebooks").is_dir():
            return place
    raise BookError(f"there is no book/_toc.yml beside a notebooks folder in {' or '.join(map(str, places))}")


def inputs_hash(root: Path, results: Path, published: Path | None) -> str:
    """SHA-256 of all that the book is made from: records, step costs, notebooks, pages, code, tools."""
    digest = hashlib.sha256(" ".join(f"{t}={version(t)}" for t in TOOLS).encode())
    sources = [root / "book", root / "notebooks", root / EXAMPLES, Path(__file__).resolve().parent]
    sources += [folder for run in (results, published) if run for folder in profiles.folders(run)]
    for folder in sources:
        digest.update(f"\0{folder}".encode())
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\0{path.relative_to(folder)}\0{content}".encode())
    return digest.hexdigest()


def table_of_contents(book: Path, *, with_comparison: bool) -> dict[str, Any]:
    """What `_toc.yml` says, without the page that compares two runs where there is one run only."""
    contents = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    return contents if with_comparison else _without(contents, COMPARISON)


def pages(root: Path) -> set[str]:
    """The pages that `_toc.yml` lists, for instance data/index."""
    return set(_files(table_of_contents(root / "book", with_comparison=True)))


def notebook_pages(root: Path, contents: Mapping[str, Any]) -> dict[str, Path]:
    """Page -> its notebook, of the pages of a table of contents that are no texts.

    The page data/index is datasets.ipynb; data/<name> is dataset.ipynb, see `one_dataset`.

    Raises:
        BookError: a page is neither a text nor a notebook.
    """
    pages = {
        name: root / "notebooks" / _notebook(name)
        for name in _files(contents)
        if not (root / "book" / f"{name}.md").is_file()
    }
    missing = [name for name, path in pages.items() if not path.is_file()]
    if missing:
        raise BookError(
            "\n".join(f"page {n!r} has neither book/{n}.md nor notebooks/{_notebook(n)}" for n in missing)
        )
    return pages


def _notebook(page: str) -> str:
    if page == DATASETS:
        return "datasets.ipynb"
    return "dataset.ipynb" if page.startswith(ONE_DATASET) else f"{page}.ipynb"


def sign(config: Path) -> None:
    """Let every page say which commit the book is of."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    commit, dirty = records.code_state(*MADE_OF)
    text = f"commit {records.commit_name(commit, dirty)}" if commit else "no known commit"
    content["sphinx"]["config"]["html_theme_options"]["extra_footer"] = f"<p>Book of {text}.</p>"
    config.write_text(yaml.safe_dump(content), encoding="utf-8")


def one_dataset(notebook: Path, name: str, into: Path) -> Path:
    """Copy `notebook` into a folder with the title, parameter and label of the dataset `name`; the copy."""
    text = notebook.read_text(encoding="utf-8")
    copy = into / f"{name}.source.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text.replace("# One dataset", f"# {name}").replace("av_digits", name), encoding="utf-8")
    return copy


def execute(pages: Mapping[str, Path], into: Path, results: Path, published: Path | None) -> None:
    """Execute the notebooks of pages, `AT_ONCE` at a time, into `into`/<page>.ipynb.

    Their parameter `results` is the folder of the records.
    The comparison reads two runs: the published one as `results` and the reader's own as `local`.

    Raises:
        BookError: one line for each reason why notebooks failed, with their names.
    """
    own = {"results": str(results)}
    both = {"results": str(published), "local": str(results)}
    into.mkdir(parents=True)
    sources = {
        page: one_dataset(path, page.removeprefix(ONE_DATASET), into / ONE_DATASET)
        if path.stem == "dataset"
        else path
        for page, path in pages.items()
    }
    with forking.preloaded(results), ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {
            page: pool.submit(_execute, path, into / f"{page}.ipynb", both if page == COMPARISON else own)
            for page, path in sorted(sources.items(), key=lambda source: -_figures(source[1]))
        }
        failures: dict[str, list[str]] = {}
        try:
            for page, run in runs.items():
                if reason := run.result():
                    failures.setdefault(reason, []).append(page)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            forking.stop_below(os.getpid(), signal.SIGKILL, lambda: all(run.done() for run in runs.values()))
            raise
    if failures:
        raise BookError(
            "\n".join(f"no page {', '.join(sorted(names))}: {why}" for why, names in failures.items())
        )


def _figures(notebook: Path) -> int:
    """Number of a notebook's figures, which take most of its time: the longest are executed first."""
    return notebook.read_text(encoding="utf-8").count("figures.")


def _execute(notebook: Path, target: Path, parameters: dict[str, str]) -> str | None:
    """Execute one notebook in its own folder; None, or in one line what went wrong."""
    started = time.perf_counter()
    try:
        notebooks.execute(notebook, target, parameters)
    except (notebooks.NotebookError, RuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    print(f"executed {target.name} in {time.perf_counter() - started:.1f} s", flush=True)
    return None


def copy_records(results: Path, into: Path) -> None:
    """Copy records and executed notebooks to where pages link them: results/a.json -> records/a.json."""
    for folder in profiles.folders(results):
        for path in folder.rglob("*"):
            if path.suffix in (".json", ".ipynb"):
                target = into / profiles.link(results) / path.relative_to(results)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _without(entry: Any, page: str) -> Any:
    if isinstance(entry, dict):
        return {key: _without(value, page) for key, value in entry.items()}
    if isinstance(entry, list):
        return [_without(e, page) for e in entry if not (isinstance(e, dict) and e.get("file") == page)]
    return entry


def _files(entry: Any) -> Iterator[str]:
    for key, value in entry.items() if isinstance(entry, dict) else enumerate(entry):
        if key in ("root", "file"):
            yield value
        elif isinstance(value, (dict, list)):
            yield from _files(value)


@contextmanager
def _jupyter_book(source: Path, work: Path) -> Iterator[Callable[[], Path]]:
    """Start Jupyter Book, whose imports need not wait for the notebooks; what is yielded lets it render."""
    command = [sys.executable, "-m", "msam._typeset", "build", str(source)]
    command += ["--path-output", str(work), "-W", "--keep-going"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    try:
        yield partial(_render, process, source, work)
    finally:
        process.kill()
        process.communicate()


def _render(process: subprocess.Popen, source: Path, work: Path) -> Path:
    """Let Jupyter Book go on, with warnings as errors; the folder of the HTML."""
    said, _ = process.communicate("go\n")
    log = work / "jupyter-book.log"
    log.write_text(said, encoding="utf-8")
    if process.returncode:
        plain = re.sub(r"\x1b\[[\d;]*m", "", said).replace(f"{source}{os.sep}", "")
        causes = [line.strip() for line in plain.splitlines() if re.search(r"(WARNING|ERROR|Error):\s", line)]
        raise BookError("\n".join(dict.fromkeys(causes)) or f"Jupyter Book failed; its output is in {log}")
    return work / "_build" / "html"


def _replace(folder: Path, new: Path) -> None:
    """Put a finished folder in the place of another."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    shutil.move(new, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Let one build at a time use the work folder."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BookError(f"another build of the book is using {work}; wait for it to end") from None
        yield
