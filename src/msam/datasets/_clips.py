"""Many clips, read by several processes into arrays on the disk, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

FEW = 32
"""Up to so many clips are read by this process alone."""

EVERY = 200
"""Clips from one line of progress, and one save, to the next."""

SHOWN = 5


@dataclass(frozen=True)
class Clip:
    """What became of one clip.

    Attributes:
        arrays: its row of every array; empty if it cannot be used.
        notes: what had to be changed: "mixed", "resampled", "damaged", ...
        problem: why it cannot be used, one line.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Shelf:
    """All clips, in the order of their names.

    Attributes:
        arrays: name -> array, one row a clip, mapped from the disk; rows of unusable clips are zero.
        notes: clip -> what had to be changed.
        problems: clip -> why it cannot be used.
    """

    arrays: dict[str, np.ndarray]
    notes: dict[str, list[str]]
    problems: dict[str, str]

    def noted(self, note: str) -> list[str]:
        """Clips with that note."""
        return [name for name, notes in self.notes.items() if note in notes]


def gather(
    folder: Path,
    dataset: str,
    names: Sequence[str],
    read: Callable[[str], Clip],
    shapes: dict[str, tuple[tuple[int, ...], str]],
) -> Shelf:
    """Read every clip that an earlier run has not read yet.

    Args:
        folder: for the arrays and the notes; kept by the caller until the dataset is prepared.
        dataset: its name, for messages.
        names: of the clips; the same ones in every run.
        read: picklable; returns the clip of a name.
        shapes: array -> shape of a row, and type.

    Raises:
        DatasetError: a process died.
    """
    journal, key = folder / "clips.json", hashlib.sha256("\n".join(names).encode()).hexdigest()
    done = json.loads(journal.read_text()) if journal.is_file() else {}
    resumed = done.get("names") == key
    arrays: dict[str, np.ndarray] = {
        name: on_disk(folder / f"{name}.npy", (len(names), *shape), dtype, resumed)
        for name, (shape, dtype) in shapes.items()
    }
    if not resumed:
        done = {"names": key, "notes": {}, "problems": {}}
        _write(journal, json.dumps(done))
    todo = [row for row, name in enumerate(names) if name not in done["notes"]]
    done["problems"] = {}  # what failed is tried again
    started = time.monotonic()
    for count, (row, clip) in enumerate(_read(dataset, read, names, todo), 1):
        if clip.problem:
            done["problems"][names[row]] = clip.problem
        else:
            for name, value in clip.arrays.items():
                arrays[name][row] = value
            done["notes"][names[row]] = list(clip.notes)
        if count % EVERY == 0 or count == len(todo):
            for values in arrays.values():
                cast("np.memmap", values).flush()
            _write(journal, json.dumps(done))
            left = (time.monotonic() - started) / count * (len(todo) - count)
            print(
                f"dataset '{dataset}': {len(names) - len(todo) + count} of {len(names)} clips read,"
                f" {len(done['problems'])} unusable, about {left:.0f} s left",
                file=sys.stderr,
            )
    return Shelf(
        arrays,
        {name: done["notes"][name] for name in names if name in done["notes"]},
        {name: done["problems"][name] for name in names if name in done["problems"]},
    )


def refuse_if_many(dataset: str, problems: dict[str, str], tolerated: int) -> None:
    """Raise `DatasetError` if more clips than tolerated cannot be used."""
    if len(problems) > tolerated:
        shown = "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DatasetError(
            f"dataset '{dataset}': {len(problems)} clips cannot be used, more than the option tolerate ="
            f" {tolerated} ({shown}{more})"
        )


def split_rows(
    arrays: dict[str, np.ndarray], names: Sequence[str], sizes: dict[str, int], left_out: dict[str, str]
) -> dict[str, tuple[dict[str, np.ndarray], list[int]]]:
    """Cut arrays whose rows are the splits one after the other, without the rows left out.

    Returns:
        split -> (array -> its rows, numbers of these rows); a view where nothing is left out.
    """
    parts, start = {}, 0
    for split, size in sizes.items():
        rows = [row for row in range(start, start + size) if names[row] not in left_out]
        index: Any = rows if len(rows) < size else slice(start, start + size)
        parts[split] = ({name: values[index] for name, values in arrays.items()}, rows)
        start += size
    return parts


def on_disk(path: Path, shape: tuple[int, ...], dtype: str, resumed: bool = False) -> np.memmap:
    """An array of zeros in a new file, mapped; the one that is there, where a run goes on."""
    from numpy.lib.format import open_memmap

    if resumed:
        return open_memmap(path, mode="r+")
    array = open_memmap(path, "w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk says so here, not by a signal in the middle
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _read(
    dataset: str, read: Callable[[str], Clip], names: Sequence[str], todo: list[int]
) -> Iterator[tuple[int, Clip]]:
    workers = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16
    )
    chosen = [names[row] for row in todo]
    if len(todo) <= FEW or workers == 1:
        yield from zip(todo, map(read, chosen), strict=True)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from zip(todo, pool.map(read, chosen, chunksize=4), strict=True)
        except BrokenProcessPool as error:
            raise DatasetError(
                f"dataset '{dataset}': a process that reads clips died (a full memory, or a script without"
                " `if __name__ == '__main__'`); run it again, it goes on where it was"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
