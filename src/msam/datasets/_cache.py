"""The cache: a dataset is prepared once into a folder of .npy files with a manifest, and read from there.

`_raw.prepared_folders` says where. The folder appears under its name only when it is complete, its manifest
is written last, and a lock file keeps two processes from preparing the same dataset at once.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import _arrays
from ._check import checksum, collect, description
from ._disk import FULL, locked, swap, unwritable, writing
from ._raw import hash_options, prepared_folders, work_folder
from ._source import Source, find, names
from ._types import SPLITS, Dataset, DatasetError, Split

__all__ = ["describe", "load", "names", "prepare"]

PACKAGES = ("numpy", "scipy", "mlxtend", "espeakng-loader", "seglearn", "soundfile", "av", "h5py")
MANIFEST = "manifest.json"
SMALL = 256 * 2**20
VARIABLE = "MSAM_CACHE"


def load(name: str, options: dict[str, Any] | None = None) -> Dataset:
    """Load a dataset as tensors on the CPU, preparing it first if it is not in the cache.

    A small dataset is read and its checksum verified. A large one (256 MiB or more) is mapped into memory,
    and only the types, shapes and sizes of its files are verified; its checksum is the one taken when it was
    prepared. Writing into a tensor never changes a file.

    Args:
        name: one of `names()`, or the dotted path of a module outside this package.
        options: keywords of the dataset's `build`; the others keep their defaults.

    Raises:
        DatasetError: unknown name or option, a dataset that fails its checks, a missing package or raw file,
            or a cache that cannot be read or written.
    """
    import torch

    source = find(name, options)
    folder = _ensure(source)
    manifest = _manifest(source, folder)
    small = sum(entry["bytes"] for entry in manifest["arrays"].values()) < SMALL
    try:
        arrays = _arrays.read(folder, manifest["arrays"], mapped=not small)
    except ValueError as error:
        raise _damaged(source, folder, str(error)) from error
    if small and checksum(arrays) != manifest["checksum"]:
        raise _damaged(source, folder, "its checksum is wrong")
    splits = {
        split: Split(
            {modality: torch.from_numpy(arrays[f"{split}/{modality}"]) for modality in source.kinds},
            torch.from_numpy(arrays[f"{split}/label"]),
        )
        for split in SPLITS
    }
    return Dataset(name, source.classes, source.kinds, splits, manifest["checksum"])


def describe(name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a dataset's description record (plain JSON), preparing the dataset if need be.

    Does not import torch. Raises as `load` does.
    """
    source = find(name, options)
    return _manifest(source, _ensure(source))["description"]


def prepare(name: str, options: dict[str, Any] | None = None, *, force: bool = False) -> Path:
    """Prepare a dataset in the cache unless it is there, and return its folder.

    Args:
        name: as for `load`.
        options: as for `load`.
        force: prepare it anew even if it is there, which also mends a damaged cache.

    Raises:
        DatasetError: as `load`.
    """
    return _ensure(find(name, options), force)


def _ensure(source: Source, force: bool = False) -> Path:
    """Prepare what is missing; return the folder."""
    found = _finished(source)
    if found and not force:
        return found
    folder = prepared_folders()[0] / source.stem
    with locked(folder.with_name(folder.name + ".lock"), VARIABLE):
        found = _finished(source)  # by the process that had the lock
        if found and not force:
            return found
        _write(source, folder, force)
    return folder


def _finished(source: Source) -> Path | None:
    folders = (place / source.stem for place in prepared_folders())
    return next((folder for folder in folders if (folder / MANIFEST).is_file()), None)


def _write(source: Source, folder: Path, force: bool) -> None:
    """Build the dataset into `folder`, under another name until it is complete."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    work = _work(source, force)
    try:
        built = dict(_built(source))
        report, heard = built.pop("report", None), built.pop("sounds", None)
        arrays = collect(source, built)
        record = description(source, arrays, report, heard)
        with writing(folder.parent, VARIABLE):
            temporary.mkdir()
            manifest = {
                "checksum": record["checksum"],
                "builder": source.code_hash,
                "versions": _versions(),
                "options": source.options,
                "arrays": _arrays.write(temporary, arrays),
                "description": record,
            }
            (temporary / MANIFEST).write_text(json.dumps(manifest))
            swap(temporary, folder)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if work.exists() and len(list(work.iterdir())) == 1:
            shutil.rmtree(work, ignore_errors=True)


def _work(source: Source, force: bool) -> Path:
    """The work folder of this dataset, emptied if other code began it, or if all is to be made anew."""
    folder = work_folder(source.name, hash_options(source.options))
    mark = folder / ".code"
    with writing(folder.parent, VARIABLE):
        if force or not mark.is_file() or mark.read_text() != source.code_hash:
            shutil.rmtree(folder)
            folder.mkdir()
            mark.write_text(source.code_hash)
    return folder


def _built(source: Source) -> dict[str, Any]:
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
    except OSError as error:
        if error.errno in FULL:
            raise unwritable(prepared_folders()[0], VARIABLE, error) from error
        raise


def _manifest(source: Source, folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["checksum"] != manifest["description"]["checksum"]:
            raise ValueError("two checksums")
        for entry in manifest["arrays"].values():
            _ = entry["dtype"], entry["shape"], entry["bytes"]
        return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(source, folder, f"{MANIFEST} is not its manifest") from error


def _damaged(source: Source, folder: Path, reason: str) -> DatasetError:
    mend = f"{source.command('prepare')} --force"
    return DatasetError(f"prepared dataset {folder} is damaged ({reason}); delete it or run `{mend}`")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
