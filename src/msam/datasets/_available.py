"""Are a dataset's data on this machine?"""

from __future__ import annotations

from typing import Any

from ._cache import _finished, prepare
from ._source import Source, find
from ._types import DatasetError


def state(source: Source) -> str:
    """Return "prepared", "raw" where every raw file is in its place, unread, or else "absent"."""
    if _finished(source):
        return "prepared"
    return "raw" if all(file.place.exists() for file in source.constant("FILES")) else "absent"


def get_command(name: str, options: dict[str, Any] | None = None) -> str:
    """The command that fetches a dataset which is not here, "" for one that is.

    Where raw files are absent the dataset itself decides, as its options may do without them: preparing it
    fails before it has read anything, or was needed anyway.

    Raises:
        DatasetError: unknown name or option.
    """
    source = find(name, options)
    if state(source) == "absent":
        try:
            prepare(name, options)
        except DatasetError:
            return source.command("get")
    return ""
