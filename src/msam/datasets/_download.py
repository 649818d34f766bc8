"""From the public addresses of a dataset's raw files to a complete data folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import _http
from ._archive import ArchiveError, extract
from ._disk import locked, writing
from ._raw import RawFile, raw_folder
from ._source import find
from ._types import DatasetError
from ._verify import content_problem, inspect


def get(name: str, options: dict[str, Any] | None = None, accept_licence: bool = False) -> list[str]:
    """Fetch every raw file of a dataset that is not there, and print what is done.

    Args:
        name: of the dataset.
        options: of the dataset, which may decide what files it needs.
        accept_licence: whoever asks accepts the licence of a dataset with ``CONSENT``.

    Returns:
        One line for each file that is still not there: why, and what to do by hand.

    Raises:
        DatasetError: unknown name or option, a licence that was not accepted, or a folder that cannot be
            written.
    """
    source = find(name, options)
    again = source.command("get")
    lacking: list[RawFile] = []
    declared = source.constant("FILES")
    if not declared:
        print(f"{name} needs no files")
    for file in declared:
        if all(state.good for state in inspect(file)):
            print(f"{file.path}: there")
        else:
            lacking.append(file)
    consent = source.constant("CONSENT")
    if lacking and consent and not accept_licence:
        raise DatasetError(
            f"dataset '{name}' is under the licence {source.constant('LICENSE')}. {consent} If you accept"
            f" that, run `{again} --accept-licence`"
        )
    if not lacking:
        return []
    with locked(raw_folder() / f"{name}.get.lock", "MSAM_DATA"):
        return [problem for file in lacking if (problem := _obtain(file, again))]


def _obtain(file: RawFile, again: str) -> str:
    """Fetch one file, and extract it if it is an archive; "" or why it is still not there.

    Args:
        file: the file.
        again: the command that does this again.
    """
    states = inspect(file)
    if all(state.good for state in states):  # by the process that had the lock
        return ""
    if file.place.is_dir() and any(file.place.iterdir()):
        found = ", ".join(f"{state.path}: {state.detail}" for state in states if not state.good)
        advice = "move the folder away and run this again" if file.urls else file.note
        return f"{file.place} is not complete ({found}); {advice}"
    by_hand = bool(file.archive) and file.download.is_file()
    problem = _content(file, file.download) if by_hand else _fetched(file)
    if problem:
        return f"{file.path}: {problem}; {_by_hand(file, again)}"
    if file.archive:
        print(f"{file.path}: extracting", flush=True)
        try:
            extract(file.download, file.archive, file.place, file.members)
        except ArchiveError as error:
            if by_hand:
                return f"{error}; put a good one there, or delete it and run `{again}` again"
            file.download.unlink()
            return f"{error}; it is deleted, run `{again}` again"
        if not by_hand:
            file.download.unlink()
    print(f"{file.path}: complete")
    return ""


def _fetched(file: RawFile) -> str:
    """Fetch a file from the first address that has it; "" or what went wrong."""
    part = file.download.with_name(file.download.name + ".part")
    problems = []
    for url in file.urls:
        try:
            _http.fetch(url, part, file.path)
        except _http.FetchError as error:
            problems.append(str(error))
            continue
        wrong = _content(file, part)
        if not wrong:
            with writing(part.parent, "MSAM_DATA"):
                os.replace(part, file.download)
                _http.forget(part)
            return ""
        _http.forget(part)
        problems.append(wrong)
    reasons = "; ".join(dict.fromkeys(problems)) or "it has no address for a program"
    return f"cannot be fetched ({reasons})"


def _content(file: RawFile, path: Path) -> str:
    return content_problem(path, file.checksum, not file.archive and file.path.endswith(".gz"))


def _by_hand(file: RawFile, again: str) -> str:
    fetch = f"fetch {' or '.join(file.urls)} by hand" if file.urls else ""
    todo = ", ".join(filter(None, (fetch, file.note)))
    return f"{todo}, put it at {file.download}, then run `{again}` again"
