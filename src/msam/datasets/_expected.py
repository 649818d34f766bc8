"""How much a dataset will hold, said before it is prepared, for `msam plan`.

The datasets of this package say it here and not in their modules: what a module holds is part of the key of
its records, and no number depends on this. A dataset outside the package has a function ``EXPECTED``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._available import state
from ._cache import describe
from ._source import Source, find
from ._types import SPLITS

BYTES = {"float32": 4, "float16": 2, "uint8": 1}
LABEL = 8
"""Bytes of a label."""


@dataclass(frozen=True)
class Expected:
    """What there will be.

    Attributes:
        sizes: examples of "train", "validation" and "test".
        shapes: modality -> shape of one example.
    """

    sizes: tuple[int, int, int]
    shapes: dict[str, tuple[int, ...]]

    def nbytes(self, stored: dict[str, str]) -> int:
        """Bytes of inputs and labels, from the type of each modality."""
        example = sum(math.prod(shape) * BYTES[stored[m]] for m, shape in self.shapes.items())
        return sum(self.sizes) * (example + LABEL)


def expected(source: Source) -> Expected | None:
    """What a prepared dataset holds, or what one that is not prepared says.

    None if it says nothing, or has an option out of range, which `build` refuses.
    """
    if state(source) == "prepared":
        record = describe(source.name, source.options)
        train, validation, test = (record["splits"][split]["size"] for split in SPLITS)
        shapes = {m: tuple(part["shape"]) for m, part in record["modalities"].items()}
        return Expected((train, validation, test), shapes)
    declared = getattr(source.module, "EXPECTED", None) or EXPECTED.get(source.name)
    try:
        return declared(**source.options) if declared else None
    except KeyError:
        return None


def outlook(name: str, options: dict[str, Any]) -> str:
    """How large a dataset is that is made from downloaded files, and what is here; "" for others."""
    source = find(name, options)
    if not source.constant("FILES"):
        return ""
    here, content = state(source), expected(source)
    size = "" if content is None else f"{sum(content.sizes):,} examples, {_gb(content.nbytes(source.stored))}"
    size += " once prepared" if content and here != "prepared" else ""
    if here == "raw":
        here = f"to be prepared from {_gb(_raw_bytes(source))} of raw files here"
    if here == "absent":
        here = f"not here: {source.command('get')}"
    return f"{name}: {', '.join(filter(None, (size, here)))}"


def _raw_bytes(source: Source) -> int:
    places = [file.place for file in source.constant("FILES")]
    files = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    return sum(path.stat().st_size for path in files)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _av_mnist(train: int | None, size: int, **_: Any) -> Expected:
    return Expected((train or 55_000, 5_000, 10_000), {"image": (1, 28, 28), "audio": (1, size, size)})


def _crema_d(
    protocol: str, spectrogram: str, frames: int, side: int, validation: float, **_: Any
) -> Expected:
    """Public lists of 6,698 and 744 clips; without them a tenth of the 91 actors each, of 7,442 clips."""
    held = round(validation * 6_698)
    sizes = {
        "lists": (6_698 - held, held, 744),
        "agm": (6_028, 745, 669),
        "actor": (5_970, 736, 736),
    }
    length = {"paper": 299, "agm": 188}[spectrogram]
    return Expected(sizes[protocol], {"audio": (1, 257, length), "visual": _frames(frames, side)})


def _ur_funny(length: int, **_: Any) -> Expected:
    """Version 2, which MultiBench's file holds, padded to 50 time steps."""
    steps = length or 50
    return Expected((7_614, 980, 994), {"audio": (steps, 81), "visual": (steps, 371), "text": (steps, 300)})


def _ave(kind: str, duplicates: str, frames: int, side: int, **_: Any) -> Expected:
    """The public lists, which repeat 46 of 4,143 videos: 45 of them in the train list."""
    sizes = (3_339, 402, 402) if duplicates == "keep" else (3_294, 402, 401)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "features": {"audio": (128,), "visual": (512,)},
        "segments": {"audio": (10, 128), "visual": (10, 49, 512)},
        "sequences": {"audio": (10, 128), "visual": (10, 512)},
        "clips": {"audio": (1, 257, 1004), "visual": _frames(frames, side)},
    }
    train, validation, test = (10 * n for n in sizes) if kind == "features" else sizes
    return Expected((train, validation, test), shapes[kind])


def _frames(count: int, side: int) -> tuple[int, ...]:
    return (3, side, side) if count == 1 else (count, 3, side, side)


EXPECTED: dict[str, Callable[..., Expected]] = {
    "av_mnist": _av_mnist,
    "crema_d": _crema_d,
    "ur_funny": _ur_funny,
    "ave": _ave,
}
"""Dataset -> from all its options to what is expected of its public files."""
