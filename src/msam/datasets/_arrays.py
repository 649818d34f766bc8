"""Arrays on disk: one .npy file each in a folder; they may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Arrays = dict[str, "np.ndarray"]

BLOCK = 32 * 2**20


def blocks(value: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive rows of an array, about 32 MiB at a time."""
    if value.ndim == 0:
        yield value
        return
    rows = max(1, BLOCK * len(value) // max(1, value.nbytes))
    for start in range(0, len(value), rows):
        yield value[start : start + rows]


def write(folder: Path, arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Write every array into `folder`.

    Returns:
        Name -> type, shape and size of the file, which `read` compares.
    """
    from numpy.lib import format

    table = {}
    for name, value in arrays.items():
        path = _path(folder, name)
        header = format.header_data_from_array_1_0(value) | {"fortran_order": False}
        with path.open("wb") as file:  # not np.save: on a full disk its error does not say so
            format.write_array_header_1_0(file, header)
            for block in blocks(value):
                file.write(block.tobytes())
        table[name] = {
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "bytes": path.stat().st_size,
        }
    return table


def read(folder: Path, table: dict[str, dict[str, Any]], mapped: bool) -> Arrays:
    """Read the arrays of a table.

    Args:
        folder: where `write` put them.
        table: what `write` returned.
        mapped: map the files instead of reading them; what is written into such an array stays in memory.

    Raises:
        ValueError: a file is missing, cannot be read or does not fit the table; the message says which.
    """
    import numpy as np

    arrays = {}
    for name, entry in table.items():
        path = _path(folder, name)
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise ValueError(f"{size} bytes instead of {entry['bytes']}")
            value = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise ValueError(f"{path.name} is missing") from error
        except Exception as error:  # whatever a damaged header makes NumPy raise
            raise ValueError(f"{path.name} cannot be read: {error}") from error
        if (value.dtype.str, list(value.shape)) != (entry["dtype"], entry["shape"]):
            raise ValueError(f"{path.name} holds {value.dtype} {value.shape}")
        arrays[name] = np.asarray(value)
    return arrays


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '__')}.npy"
