"""Writing into a folder of the user: locks between processes, and one line where the disk says no."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._types import DatasetError

FULL = (errno.ENOSPC, errno.EDQUOT)


def writable(folder: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, may be written.

    A folder whose mode forbids writing counts as read-only for root, too.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and bool(folder.stat().st_mode & 0o222)


def unwritable(folder: Path, variable: str, error: OSError) -> DatasetError:
    """The line for a folder that cannot be written: why, and which environment variable chooses another."""
    need = "with more space" if error.errno in FULL else "you can write"
    reason = error.strerror or error
    return DatasetError(f"cannot write to the folder {folder} ({reason}); set {variable} to a folder {need}")


@contextmanager
def writing(folder: Path, variable: str) -> Iterator[None]:
    """Turn an `OSError` into the line of `unwritable`."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, variable, error) from error


@contextmanager
def locked(path: Path, variable: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, across processes; wait for it."""
    import fcntl

    with writing(path.parent, variable):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        with writing(path.parent, variable):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def swap(new: Path, place: Path) -> None:
    """Give the finished folder `new` the name `place`, and delete the folder that had it."""
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
