"""The cache: a dataset is built once into one .npz file and a .json manifest, and read from there.

The folder is the environment variable `MSAM_DATA`, or `~/.cache/msam`. The manifest is written last: a
dataset without one is not there yet. Both files appear under their names only when complete, and a lock file
keeps two processes from building the same dataset at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ._check import Arrays, checksum, collect, description
from ._source import Source, find, names
from ._types import SPLITS, Dataset, DatasetError, Split

__all__ = ["build", "describe", "load", "names"]

PACKAGES = ("numpy", "scipy", "mlxtend", "espeakng-loader", "seglearn")


def folder() -> Path:
    """The cache folder: `MSAM_DATA`, or `~/.cache/msam`."""
    return Path(os.environ.get("MSAM_DATA") or Path.home() / ".cache" / "msam").expanduser()


def load(name: str, options: dict[str, Any] | None = None) -> Dataset:
    """Load a dataset as tensors on the CPU, building it first if it is not in the cache.

    Args:
        name: one of `names()`, or the dotted path of a module outside this package.
        options: keywords of the dataset's `build`; the others keep their defaults.

    Raises:
        DatasetError: unknown name or option, a dataset that fails its checks, a missing package, or a cache
            that cannot be read or written.
    """
    import torch

    source = find(name, options)
    stem = _ensure(source)
    manifest, arrays = _manifest(source, stem), _arrays(source, stem)
    if checksum(arrays) != manifest["checksum"]:
        raise _damaged(source, stem.with_name(stem.name + ".npz"), "its checksum is wrong")
    splits = {
        split: Split(
            {modality: torch.from_numpy(arrays[f"{split}/{modality}"]) for modality in source.kinds},
            torch.from_numpy(arrays[f"{split}/label"]),
        )
        for split in SPLITS
    }
    return Dataset(name, source.classes, source.kinds, splits, manifest["checksum"])


def describe(name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a dataset's description record (plain JSON), building the dataset if need be.

    Does not import torch. Raises as `load` does.
    """
    source = find(name, options)
    return _manifest(source, _ensure(source))["description"]


def build(name: str, options: dict[str, Any] | None = None, *, force: bool = False) -> Path:
    """Build a dataset into the cache unless it is there, and return the path of its .npz file.

    Args:
        name: as for `load`.
        options: as for `load`.
        force: build it anew even if it is there, which also mends a damaged cache.

    Raises:
        DatasetError: as `load`.
    """
    stem = _ensure(find(name, options), force)
    return stem.with_name(stem.name + ".npz")


def _ensure(source: Source, force: bool = False) -> Path:
    """Build what is missing; return the path of the cache files without their suffix."""
    stem = folder() / source.stem
    data, manifest = stem.with_name(stem.name + ".npz"), stem.with_name(stem.name + ".json")
    if data.exists() and manifest.exists() and not force:
        return stem
    with _locked(stem.with_name(stem.name + ".lock")):
        if force or not (data.exists() and manifest.exists()):
            arrays = collect(source, _built(source))
            record = description(source, arrays)
            text = json.dumps(
                {
                    "checksum": record["checksum"],
                    "builder": source.code_hash,
                    "versions": _versions(),
                    "options": source.options,
                    "description": record,
                }
            )
            with _writing(manifest.parent):
                _replace(data, arrays)
                _replace(manifest, text)
    return stem


def _built(source: Source) -> dict[str, Arrays]:
    try:
        return source.module.build(**source.options)
    except DatasetError:
        raise
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"dataset '{source.name}' cannot be built with {json.dumps(source.options)}: {error}"
        ) from error
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"dataset '{source.name}' needs the package {error.name}: run `pip install 'msam[study]'`"
        ) from error


@contextmanager
def _writing(where: Path) -> Iterator[None]:
    """Turn an `OSError` of the cache folder into one line that names the folder and its variable."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(
            f"cannot write to the data folder {where} ({reason}); set MSAM_DATA to a folder you can write"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, across processes."""
    import fcntl

    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        with _writing(path.parent):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: Arrays | str) -> None:
    """Write a file under a temporary name, then give it its own."""
    import numpy as np

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            else:
                np.savez(file, allow_pickle=False, **content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _manifest(source: Source, stem: Path) -> dict[str, Any]:
    path = stem.with_name(stem.name + ".json")
    try:
        manifest = json.loads(path.read_text())
        if manifest["checksum"] != manifest["description"]["checksum"]:
            raise _damaged(source, path, "its two checksums differ")
        return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise _damaged(source, path, "it is not a manifest") from error


def _arrays(source: Source, stem: Path) -> Arrays:
    import numpy as np

    path = stem.with_name(stem.name + ".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # whatever a damaged zip file makes NumPy or zipfile raise
        raise _damaged(source, path, "it cannot be read") from error


def _damaged(source: Source, path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"cached file {path} is damaged ({reason}); delete it or run `msam data build {source.name} --force`"
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
