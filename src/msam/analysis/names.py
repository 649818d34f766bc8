"""How methods are called, ordered and drawn on every page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

ORDER = (
    *("unimodal", "joint", "mses", "mslr", "ogm_ge", "agm", "mmpareto", "cggm", "reconboost", "sam", "msam"),
    *("lazy_msam", "mixture", "uniform", "ogm", "pmr", "asam", "masam"),
)
"""The rows of the paper's tables from above, then what this study adds."""

LABELS = {
    "mses": "MSES",
    "mslr": "MSLR",
    "ogm": "OGM",
    "ogm_ge": "OGM-GE",
    "agm": "AGM",
    "mmpareto": "MM-Pareto",
    "cggm": "CGGM",
    "reconboost": "Recon-Boost",
    "pmr": "PMR",
    "sam": "SAM",
    "asam": "ASAM",
    "msam": "M-SAM",
    "masam": "MASAM",
    "lazy_msam": "lazy M-SAM",
    "mixture": "SAM/SGD mixture",
    "msam (naive)": "M-SAM (naive)",
    "sam (pytorch-optimizer)": "SAM of pytorch-optimizer",
    "sam (two calls)": "SAM by two calls",
}

SHOWN = ("joint", "agm", "sam", "msam", "mixture")
"""The methods that curves show unless others are asked for: more lines in one panel would be unreadable."""

READINGS = ("msam", "msam+response", "msam+encoder")
"""M-SAM in each reading of the paper's text."""

GRAY = "#7a7a7a"
# Okabe and Ito's palette, without its black and yellow: each is lost on one of the two backgrounds.
ORANGE, SKY, GREEN, BLUE, RED, PINK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
PALETTE = (ORANGE, SKY, GREEN, BLUE, RED, PINK)
SOLID, DASHED, LONG = "solid", (0, (4, 1.5)), (0, (8, 2))
DOTTED, DASHDOT = (0, (1, 1)), (0, (4, 1.5, 1, 1.5))


class Style(NamedTuple):
    """How one method is drawn: color, marker, line style."""

    color: str
    marker: str
    dashes: str | tuple


# A color stands for at most four methods; each pair of color and marker, and of color and dashes, for one.
STYLES = {
    "joint": Style(GRAY, "s", DOTTED),
    "uniform": Style(GRAY, "d", DASHDOT),
    "mses": Style(GRAY, "<", LONG),
    "mslr": Style(GRAY, ">", DASHED),
    "sam": Style(ORANGE, "^", DASHED),
    "asam": Style(ORANGE, "d", DASHDOT),
    "ogm": Style(ORANGE, "p", LONG),
    "msam": Style(BLUE, "o", SOLID),
    "masam": Style(BLUE, "h", DASHED),
    "lazy_msam": Style(BLUE, "<", DOTTED),
    "msam+response": Style(SKY, "D", SOLID),
    "ogm_ge": Style(SKY, "p", LONG),
    "pmr": Style(SKY, "*", DOTTED),
    "msam+encoder": Style(GREEN, "v", SOLID),
    "agm": Style(GREEN, "p", LONG),
    "reconboost": Style(GREEN, "*", DOTTED),
    "mixture": Style(PINK, "P", DASHDOT),
    "mmpareto": Style(PINK, "h", DASHED),
    "cggm": Style(RED, "8", SOLID),
    "unimodal": Style(RED, "X", LONG),
}
OTHER = Style(RED, "D", DOTTED)


def stem(name: str) -> str:
    """The method without its variant: "msam" of "msam+encoder" and of "msam (naive)"."""
    return name.partition("+")[0].partition(" (")[0]


def label(name: str) -> str:
    """A method's name for readers: "msam+value_loss" is M-SAM (value loss), "unimodal+a" is only a."""
    method, _, variant = name.partition("+")
    if method == "unimodal":
        return f"only {variant}"
    text = LABELS.get(method, method)
    return f"{text} ({variant.replace('_', ' ')})" if variant else text


def in_order(names: Iterable[str]) -> list[str]:
    """Method names in the order of `ORDER`; a variant follows its method, unknown ones come last."""

    def rank(name: str) -> tuple:
        method = stem(name)
        return (ORDER.index(method) if method in ORDER else len(ORDER), *_natural(name))

    unique = names.unique() if isinstance(names, pd.Series) else names  # a set reads one by one, slowly
    return sorted(set(unique), key=rank)


def _natural(name: str) -> tuple[str, float]:
    """What sorts "every_5" before "every_10"."""
    text, _, value = name.rpartition("_")
    try:
        return text, float(value)
    except ValueError:
        return name, 0.0


def joined(texts: Iterable[object]) -> str:
    """Texts in a row: "a", "a and b" or "a, b and c"; "" for none."""
    *first, last = [str(text) for text in texts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def shown(names: Iterable[str], methods: Iterable[str] = SHOWN) -> list[str]:
    """The names that are among `methods`, or no methods of this package, in reading order."""
    return [name for name in in_order(names) if name in methods or stem(name) not in ORDER]


def style(name: str) -> Style:
    """How a method is drawn in every figure; a variant without a style of its own has its method's."""
    return STYLES.get(name, STYLES.get(stem(name), OTHER))


def color(name: str) -> str:
    """The color of a method."""
    return style(name).color


def marker(name: str) -> str:
    """The marker of a method."""
    return style(name).marker


def dashes(name: str) -> str | tuple:
    """The line style of a method, so that color is never the only difference."""
    return style(name).dashes
