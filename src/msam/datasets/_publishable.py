"""What of a data description may be passed on: no examples where the licence does not allow it.

A module says so itself, with ``PRIVATE = True``. It is read here and not in `_source`, which is part of the
key of every record.
"""

from __future__ import annotations

from typing import Any

from ._source import find


def publishable(description: dict[str, Any]) -> dict[str, Any]:
    """The description, without its samples (pictures, spectrograms, sounds) where its dataset is private."""
    private = getattr(find(description["name"]).module, "PRIVATE", False)
    return {**description, "samples": []} if private else description
