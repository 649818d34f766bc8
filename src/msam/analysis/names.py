"""How methods are called, ordered and colored on every page."""

from __future__ import annotations

from collections.abc import Iterable

ORDER = ["unimodal", "joint", "sam", "msam", "mixture"]
LABELS = {
    "joint": "joint",
    "sam": "SAM",
    "msam": "M-SAM",
    "mixture": "SAM/SGD mixture",
    "msam (naive)": "M-SAM (naive)",
}

GRAY = "#7a7a7a"
# Okabe and Ito's palette, without its black and yellow: each is lost on one of the two backgrounds.
PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"]
COLORS = {
    "joint": GRAY,
    "sam": "#E69F00",
    "msam": "#0072B2",
    "msam+response": "#56B4E9",
    "msam+encoder": "#009E73",
    "mixture": "#CC79A7",
}
MARKERS = {
    "joint": "s",
    "sam": "^",
    "msam": "o",
    "msam+response": "D",
    "msam+encoder": "v",
    "mixture": "P",
}
DASHES = {"joint": (0, (1, 1)), "sam": (0, (4, 1.5)), "mixture": (0, (4, 1.5, 1, 1.5))}


def label(name: str) -> str:
    """A method's name for readers: "msam+encoder" is M-SAM (encoder), "unimodal+image" is only image."""
    stem, _, variant = name.partition("+")
    if stem == "unimodal":
        return f"only {variant}"
    text = LABELS.get(stem, stem)
    return f"{text} ({variant})" if variant else text


def in_order(names: Iterable[str]) -> list[str]:
    """Method names in reading order: single modalities, joint, SAM, M-SAM and its variants, mixture, rest."""

    def rank(name: str) -> tuple[int, str]:
        stem = name.split("+")[0]
        return (ORDER.index(stem) if stem in ORDER else len(ORDER), name)

    return sorted(set(names), key=rank)


def color(name: str) -> str:
    """The color of a method, the same in every figure; single modalities and unknown methods share one."""
    return COLORS.get(name, "#D55E00")


def marker(name: str) -> str:
    """The marker of a method."""
    return MARKERS.get(name, "X")


def dashes(name: str) -> str | tuple:
    """The line style of a method, so that color is never the only difference."""
    return (0, (6, 2)) if name.startswith("unimodal") else DASHES.get(name, "solid")
