"""Raw files that somebody downloads: where they lie, where they come from, and that they are all there.

A dataset made from raw files declares them as ``FILES``; `build` finds them through `locate`, and may keep
what it has done so far in a `work_folder`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._disk import writable, writing
from ._types import DatasetError


@dataclass(frozen=True)
class RawFile:
    """One file, or one archive of files, of a dataset's public source.

    Attributes:
        path: where it lies under the data folder; the folder of its content, for an archive.
        urls: public addresses, tried in order; empty where it cannot be fetched by a program.
        checksum: "md5:..." or "sha256:..." of the content, of the decompressed content for a .gz file, of the
            downloaded file for an archive; "" where none is published.
        archive: "" for a plain file, else "tar", "tar.gz" or "zip": the download is extracted into `path`.
        members: paths below `path` that must be there after the extraction; glob patterns with counts. Where
            they are found only below the archive's single top folder, that folder is dropped.
        note: what to do by hand where there is no address.
    """

    path: str
    urls: tuple[str, ...] = ()
    checksum: str = ""
    archive: str = ""
    members: tuple[tuple[str, int], ...] = ()
    note: str = ""

    @property
    def place(self) -> Path:
        """`path` in the data folder."""
        return raw_folder() / self.path

    @property
    def download(self) -> Path:
        """The file that is fetched, in the data folder: `place`, or beside it for an archive."""
        return self.place.with_name(f"{self.place.name}.{self.archive}") if self.archive else self.place


def raw_folder() -> Path:
    """Folder of the raw files: `MSAM_DATA`, or `~/.cache/msam`."""
    return Path(os.environ.get("MSAM_DATA") or _home()).expanduser()


def prepared_folders() -> tuple[Path, ...]:
    """Folders of the prepared datasets: the first is written, all are read, in this order.

    They are `MSAM_CACHE`; or else the data folder; or else, if that is read-only, `~/.cache/msam` before it.
    """
    chosen, data = os.environ.get("MSAM_CACHE"), raw_folder()
    if chosen:
        return (Path(chosen).expanduser(),)
    return (data,) if writable(data) else (_home(), data)


def _home() -> Path:
    return Path.home() / ".cache" / "msam"


def locate(name: str, paths: Iterable[str]) -> dict[str, Path]:
    """Relative path -> file or folder under the data folder.

    Raises:
        DatasetError: one is missing; the message says which and how to get it.
    """
    found = {path: raw_folder() / path for path in paths}
    missing = [path for path, place in found.items() if not place.exists()]
    if missing:
        raise DatasetError(
            f"dataset '{name}' needs {', '.join(missing)} in {raw_folder()}; run `msam data get {name}`,"
            " or set MSAM_DATA to the folder that has them"
        )
    return found


def hash_options(options: Mapping[str, Any]) -> str:
    """Hash of all options of a `build`, 12 hex digits, for `work_folder`."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def work_folder(name: str, options_hash: str) -> Path:
    """Folder for what a `build` has done so far.

    It outlives a `build` that is killed and is there for the next one with the same options and the same
    code. It is deleted once the dataset is prepared.

    Args:
        name: of the dataset.
        options_hash: `hash_options` of every option, also of those left at their defaults.
    """
    folder = prepared_folders()[0] / f"{name}-{options_hash}.work"
    with writing(folder.parent, "MSAM_CACHE"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
