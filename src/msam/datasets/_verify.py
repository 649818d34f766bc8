"""What of a dataset's raw files is there, missing, or not what it should be."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._raw import RawFile
from ._source import find

CHUNK = 2**20


@dataclass(frozen=True)
class State:
    """One line about the data folder.

    Attributes:
        path: a file, or a pattern of files, below the data folder.
        good: it is as it should be.
        detail: what was found, in words.
    """

    path: str
    good: bool
    detail: str


def verify(name: str, options: dict[str, Any] | None = None) -> list[State]:
    """The state of all raw files of a dataset; empty for one that a package ships.

    Raises:
        DatasetError: unknown name or option.
    """
    return [state for file in find(name, options).constant("FILES") for state in inspect(file)]


def inspect(file: RawFile) -> list[State]:
    """The state of a file, or of each pattern of its members."""
    place = file.place
    if file.members:
        return [
            State(f"{file.path}/{pattern}", found >= count, f"{found:,} of {count:,} files")
            for pattern, count, found in counted(place, file.members)
        ]
    if not place.exists():
        return [State(file.path, False, "missing")]
    if file.archive or place.is_dir():
        return [State(file.path, True, "there")]
    problem = content_problem(place, file.checksum, file.path.endswith(".gz"))
    return [State(file.path, not problem, problem or ("checksum right" if file.checksum else "there"))]


def counted(folder: Path, members: Iterable[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """(pattern, number of files that must be there, number that are) of every pattern."""
    return [(pattern, count, sum(1 for _ in folder.glob(pattern))) for pattern, count in members]


def content_problem(path: Path, checksum: str, compressed: bool) -> str:
    """What is wrong with a file's content, "" if nothing.

    Args:
        path: of the file.
        checksum: "algorithm:digits", or "" if none is known.
        compressed: look at the content of a gzip file.
    """
    if not (checksum or compressed):
        return ""
    algorithm = checksum.partition(":")[0] or "md5"
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with closing(gzip.open(path) if compressed else path.open("rb")) as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"truncated or damaged ({error})"
    found = f"{algorithm}:{digest.hexdigest()}"
    return f"wrong checksum {found}, not {checksum}" if checksum and found != checksum.lower() else ""
