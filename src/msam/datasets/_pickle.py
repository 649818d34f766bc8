"""Reading a pickle that may hold nothing but built-in containers, numbers, strings and NumPy arrays.

A pickle is a program: it names functions and calls them. Here every name is looked up in a fixed list, and
behind each is either a constructor of NumPy or a small stand-in, so a hostile file runs nothing of its own.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ._types import DatasetError


def load_arrays(path: Path) -> Any:
    """Content of a pickle of arrays.

    Raises:
        DatasetError: the file asks for anything but arrays, or is no pickle.
    """
    try:
        with path.open("rb") as file:
            return _unpickler(file).load()
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path} is refused: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever damaged bytes make pickle or NumPy raise
        raise DatasetError(f"{path} is no pickle of arrays ({type(error).__name__}: {error})") from error


def _unpickler(file: Any) -> pickle.Unpickler:
    import numpy as np
    from numpy._core import multiarray

    def latin(text: str, encoding: str) -> bytes:
        """How old protocols write bytes."""
        if type(text) is not str or encoding != "latin1":
            raise pickle.UnpicklingError("bytes in another encoding than latin1")
        return text.encode("latin1")

    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: str, axis_order: Any = None) -> Any:
        """How protocol 5 writes arrays."""
        flat: Any = np.frombuffer(buffer, dtype)
        if axis_order is None:
            return flat.reshape(shape, order=order)
        return flat.reshape(shape, order="C").transpose(np.argsort(axis_order))

    known: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): latin,
    }
    for package in ("numpy.core", "numpy._core"):
        known[f"{package}.multiarray", "_reconstruct"] = multiarray._reconstruct
        known[f"{package}.multiarray", "scalar"] = multiarray.scalar
        known[f"{package}.numeric", "_frombuffer"] = from_buffer

    class Restricted(pickle.Unpickler):
        """An unpickler that knows those names only."""

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in known:
                raise pickle.UnpicklingError(
                    f"it asks for {module}.{name}, and only NumPy arrays are read from a pickle"
                )
            return known[module, name]

    return Restricted(file)
