"""Files of the MNIST database: the idx format, gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

UNSIGNED_BYTES = 8
"""The third byte of an idx file: the type of its numbers."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes.

    Args:
        path: the file.
        dimensions: number of axes it must have.

    Raises:
        DatasetError: it is no such file, or not a complete one.
    """
    import numpy as np

    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged or no gzip file ({error}); download it again") from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, UNSIGNED_BYTES, dimensions)) or len(content) < start:
        raise DatasetError(f"{path} is no idx file of bytes in {dimensions} dimensions; download it again")
    shape = np.frombuffer(content[4:start], ">u4").astype(np.int64)
    if len(content) != start + shape.prod():
        raise DatasetError(
            f"{path} holds {len(content) - start} bytes for {'x'.join(map(str, shape))}; download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
