"""Extraction of a downloaded archive that nobody trusts.

Nothing is written outside the target folder. No link is ever made: one to a file of the same archive becomes
a copy, any other is refused, so no later entry can be written through it.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from ._disk import writing
from ._types import DatasetError
from ._verify import CHUNK, counted

MAX_FILES = 1_000_000
MAX_BYTES = 200 * 2**30

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression Python does not know
    RuntimeError,  # a password
)


class ArchiveError(DatasetError):
    """An archive that cannot or must not be extracted; the message is one line."""


class _RefusedError(Exception):
    """Why an archive must not be extracted."""


@dataclass(frozen=True)
class _Entry:
    """One thing in an archive.

    Attributes:
        name: as the archive gives it.
        open: opens its content; None for anything but a file.
        link: what it points to, as seen from the archive's top; "" if it is no link.
        folder: it is one.
    """

    name: str
    open: Callable[[], IO[bytes] | None] | None = None
    link: str = ""
    folder: bool = False


def extract(archive: Path, kind: str, target: Path, members: Iterable[tuple[str, int]]) -> None:
    """Extract an archive beside `target`, and give the result that name when it is complete.

    Args:
        archive: the file.
        kind: "tar", "tar.gz" or "zip".
        target: folder to make; must not exist or be empty.
        members: patterns and counts that must be in it; where they are found only below the archive's single
            top folder, that folder is dropped.

    Raises:
        ArchiveError: the archive is truncated or damaged, has an entry that would leave the folder or too
            many of them, or lacks members.
        DatasetError: the disk cannot be written.
    """
    temporary = target.with_name(target.name + ".extracting")
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(target.parent, "MSAM_DATA"):
        try:
            temporary.mkdir(parents=True)
            _unpack(archive, kind, temporary)
            _top(temporary, tuple(members)).rename(target)
        except DAMAGE as error:
            raise ArchiveError(f"archive {archive} is truncated or damaged ({error})") from error
        except _RefusedError as error:
            raise ArchiveError(f"archive {archive} is refused: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, kind: str, folder: Path) -> None:
    entries = _zip_entries(archive) if kind == "zip" else _tar_entries(archive, kind)
    links: list[tuple[Path, Path]] = []
    count = size = 0
    with closing(entries):
        for entry in entries:
            count += 1
            if count > MAX_FILES:
                raise _RefusedError(f"it has more than {MAX_FILES:,} entries")
            place = folder / _inside(entry.name, entry.name)
            if entry.folder:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.link:
                links.append((place, folder / _inside(entry.link, entry.name)))
            elif entry.open and (stream := entry.open()):
                with stream:
                    size += _copy(stream, place, MAX_BYTES - size)
            else:
                raise _RefusedError(f"'{entry.name}' is a device or something else that is no file")
    for place, source in links:
        if not source.is_file():
            raise _RefusedError(f"link '{place.relative_to(folder)}' points to no file of the archive")
        with source.open("rb") as stream:
            size += _copy(stream, place, MAX_BYTES - size)


def _inside(path: str, name: str) -> PurePosixPath:
    """The path if it stays in the folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise _RefusedError(f"'{name}' leaves the folder")
    return parts


def _copy(stream: IO[bytes], place: Path, allowed: int) -> int:
    """Write a file of at most `allowed` bytes; return how many it has."""
    size = 0
    with place.open("wb") as file:
        while block := stream.read(CHUNK):
            size += len(block)
            if size > allowed:
                raise _RefusedError(f"its content has more than {MAX_BYTES:,} bytes")
            file.write(block)
    return size


def _tar_entries(archive: Path, kind: str) -> Generator[_Entry, None, None]:
    """Entries in the order of the archive; every one must be read before the next is asked for."""
    with closing(gzip.open(archive) if kind == "tar.gz" else archive.open("rb")) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                beside = os.path.dirname(member.name)
                if member.isdir():
                    yield _Entry(member.name, folder=True)
                elif member.issym():
                    yield _Entry(member.name, link=os.path.normpath(os.path.join(beside, member.linkname)))
                elif member.islnk():
                    yield _Entry(member.name, link=os.path.normpath(member.linkname))
                elif member.isfile():
                    yield _Entry(member.name, partial(tar.extractfile, member))
                else:
                    yield _Entry(member.name)
            stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")
        while stream.read(CHUNK):  # gzip's own checksum comes last
            pass


def _zip_entries(archive: Path) -> Generator[_Entry, None, None]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                yield _Entry(info.filename, folder=True)
            elif stat.S_ISLNK(mode):
                with file.open(info) as stream:
                    target = stream.read(4096).decode(errors="replace")
                beside = os.path.dirname(info.filename)
                yield _Entry(info.filename, link=os.path.normpath(os.path.join(beside, target)))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                yield _Entry(info.filename, partial(file.open, info))
            else:
                yield _Entry(info.filename)


def _top(folder: Path, members: tuple[tuple[str, int], ...]) -> Path:
    """The folder that has the members: the given one, or its only entry."""
    inside = list(folder.iterdir())
    candidates = [folder, *(inside if len(inside) == 1 and inside[0].is_dir() else [])]
    lacking = []
    for candidate in candidates:
        lacking = [
            f"{found:,} of {count:,} {pattern}"
            for pattern, count, found in counted(candidate, members)
            if found < count
        ]
        if not lacking:
            return candidate
    raise _RefusedError(f"it has only {', '.join(lacking)}")
