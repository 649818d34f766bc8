"""What a study file, and a single run, may be given: the fields of each part, and what each must be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a field must be: in words, and as a test.

    Attributes:
        words: for the message: "epochs must be <words>, not 'ten'".
        holds: whether a value is that.
        required: whether the field must be there.
    """

    words: str
    holds: Callable[[Any], bool]
    required: bool = False

    def needed(self) -> Rule:
        """The same for a field that must be there."""
        return Rule(self.words, self.holds, True)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any) -> bool:
    return _list_of(_is_number)(value) and len(value) == 2 and 0 < value[0] <= value[1]


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(holds, value))


def _mapping_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def _is_section(value: Any) -> bool:
    return value is None or isinstance(value, dict)


COUNT = Rule("a whole number, at least 1", lambda v: _is_whole(v) and v >= 1)
POSITIVE = Rule("a number above 0", lambda v: _is_number(v) and v > 0)
NOT_NEGATIVE = Rule("a number, finite and at least 0", lambda v: _is_number(v) and v >= 0)
FRACTION = Rule("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1)
FRACTIONS = Rule("a list of numbers from 0 to 1", lambda v: v == [] or _list_of(FRACTION.holds)(v))
TEXT = Rule("text", lambda v: isinstance(v, str))
TEXTS = Rule("a list of names", _list_of(TEXT.holds))
RANGE = Rule("a range [low, high] above 0", _is_range)
RANGES = Rule("a range [low, high] above 0 for each option", _mapping_of(_is_range))
MAPPING = Rule("a mapping", lambda v: isinstance(v, dict))
SECTION = Rule("a mapping", _is_section)
MAPPINGS = Rule("a mapping of mappings", lambda v: bool(v) and _mapping_of(_is_section)(v))
EACH = Rule(
    "`modality` or one option with a list of values",
    lambda v: (
        v == "modality" or (isinstance(v, dict) and len(v) == 1 and _mapping_of(_list_of(lambda _: True))(v))
    ),
)

PROFILE = {
    "seeds": COUNT.needed(),
    "defaults": MAPPING.needed(),
    "studies": MAPPINGS.needed(),
    "search": MAPPING,
}
STUDY = {
    "datasets": MAPPINGS.needed(),
    "fusions": TEXTS.needed(),
    "methods": MAPPINGS.needed(),
    "from": TEXT,
    "seeds": COUNT,
    "defaults": SECTION,
    "margin": POSITIVE,
}
DATASET = {"modalities": TEXTS, "options": SECTION, "methods": MAPPINGS}
SEARCH = {
    "trials": COUNT.needed(),
    "seed": Rule("a whole number", _is_whole, True),
    "lr": RANGE.needed(),
    "rho": RANGE.needed(),
}
SETTINGS = {
    "epochs": COUNT.needed(),
    "batch_size": COUNT.needed(),
    "width": COUNT.needed(),
    "optimizer": MAPPING.needed(),
    "rho": Rule(
        "false or a number, finite and at least 0", lambda v: v is None or NOT_NEGATIVE.holds(v), True
    ),
    "threads": COUNT.needed(),
    "label_noise": FRACTION,
    "gradient_norm": Rule("true or false", lambda v: isinstance(v, bool)),
    "probes": TEXTS,
    "size": Rule("small or paper", lambda v: v in ("small", "paper")),
    "fast": TEXTS,
}
CHOSEN = {"lr": POSITIVE.needed(), "rho": SETTINGS["rho"], "options": MAPPING.needed()}
"""What the search writes of a cell."""

METHOD = {"each": EACH, "search": RANGES, "like": TEXT}
"""Fields of a method's entry beside its options and `msam.studies.SETTINGS`."""

SINGLE_RUN = {
    "profile": TEXT,
    "study": TEXT,
    "dataset": TEXT,
    "fusion": TEXT,
    "method": TEXT,
    "seeds": COUNT,
    "results": TEXT,
    "device": TEXT,
    "epochs": COUNT,
    "lr": POSITIVE,
    "rho": NOT_NEGATIVE,
    "options": MAPPING,
}
"""Parameters of `msam.cells.train`."""

OPTIMIZER = {
    "lr": POSITIVE.needed(),
    "momentum": NOT_NEGATIVE.needed(),
    "weight_decay": NOT_NEGATIVE.needed(),
    "milestones": FRACTIONS.needed(),
    "gamma": POSITIVE.needed(),
}


def check_names(names: Iterable[Any], where: str, reserved: Sequence[str] = ()) -> None:
    """Refuse names that cannot be those of files, or would be taken for something else.

    Raises:
        ValueError: a name is one of `reserved`, or not of letters, digits, and ._+- between them.
    """
    for name in names:
        valid = isinstance(name, str) and re.fullmatch(r"\w[\w.+-]*", name)
        if not valid or name.endswith((".partial", ".failed")) or name in reserved:
            raise ValueError(f"{where}: {name!r} cannot be a name here; use letters, digits and . _ + -")


def check(content: Any, rules: Mapping[str, Rule], where: str) -> None:
    """Refuse a part of a study file.

    Raises:
        ValueError: it is no mapping, a field is missing or unknown, or a value is not what it must be.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where} must be a mapping, not {content!r}")
    for field, rule in rules.items():
        if rule.required and field not in content:
            raise ValueError(f"{where} lacks the field {field!r}")
    for field, value in content.items():
        if field not in rules:
            raise ValueError(f"{where} has the unknown field {field!r}; choose from {', '.join(rules)}")
        if not rules[field].holds(value):
            raise ValueError(f"{where}: {field} must be {rules[field].words}, not {value!r}")
