"""From a dataset's name and options to the module that builds it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import pkgutil
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from msam.fingerprint import code_fingerprint

from ._types import INPUT_KINDS, LEVELS, STORED_TYPES, DatasetError

CONSTANTS = ("TITLE", "ORIGIN", "LICENSE", "STANDS_FOR", "CLASSES", "KINDS")
OPTIONAL = {"LEVEL": LEVELS[0], "STORED": {}, "FILES": (), "CONSENT": ""}


def names() -> list[str]:
    """Names of the datasets in this package, sorted: its modules that do not start with an underscore."""
    return sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name[0] != "_"
    )


@dataclass(frozen=True)
class Source:
    """A dataset module with every option decided.

    Attributes:
        name: as asked for: a module of this package, or a dotted module path.
        module: the dataset's module.
        options: every keyword of its `build`, the defaults filled in; plain JSON values.
    """

    name: str
    module: ModuleType
    options: dict[str, Any]

    def constant(self, name: str) -> Any:
        """Value of a module constant; a function is called with the options."""
        value = getattr(self.module, name, OPTIONAL.get(name))
        return value(**self.options) if callable(value) else value

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return tuple(self.constant("CLASSES"))

    @property
    def kinds(self) -> dict[str, str]:
        """Modality -> kind of input."""
        kinds = dict(self.constant("KINDS"))
        for modality, kind in kinds.items():
            if kind not in INPUT_KINDS:
                known = ", ".join(INPUT_KINDS)
                raise DatasetError(
                    f"dataset '{self.name}': {modality} has kind '{kind}'; choose from {known}"
                )
        return kinds

    @property
    def level(self) -> str:
        """Evidence level."""
        level = self.constant("LEVEL")
        if level not in LEVELS:
            raise DatasetError(f"dataset '{self.name}': LEVEL is '{level}'; choose from {', '.join(LEVELS)}")
        return level

    @property
    def stored(self) -> dict[str, str]:
        """Modality -> type of its array."""
        kinds, given = self.kinds, dict(self.constant("STORED"))
        for modality, dtype in given.items():
            if modality not in kinds or dtype not in STORED_TYPES:
                raise DatasetError(
                    f"dataset '{self.name}': STORED has '{modality}': '{dtype}'; choose a modality of"
                    f" {', '.join(kinds)} and a type of {', '.join(STORED_TYPES)}"
                )
        return {modality: given.get(modality, STORED_TYPES[0]) for modality in kinds}

    def command(self, verb: str) -> str:
        """The `msam data` command for this dataset with these options."""
        defaults = _defaults(self.module)
        changed = {key: value for key, value in self.options.items() if value != defaults[key]}
        chosen = f" --options {shlex.quote(json.dumps(changed))}" if changed else ""
        return f"msam data {verb} {self.name}{chosen}"

    @property
    def code_hash(self) -> str:
        """Hash of the code behind the arrays: the module, what it imports, and how arrays are collected."""
        return code_fingerprint([self.module.__name__, f"{__package__}._check"])

    @property
    def stem(self) -> str:
        """File name of the cache without its suffix: the name and a hash of options and code."""
        text = json.dumps(self.options, sort_keys=True) + self.code_hash
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def find(name: str, options: dict[str, Any] | None = None) -> Source:
    """Find a dataset's module and complete its options.

    Args:
        name: one of `names()`, or a dotted module path.
        options: keywords of the module's `build`; the others keep their defaults.

    Raises:
        DatasetError: unknown name or option, an option of the wrong type, or a module that lacks a part.
    """
    if name in names():
        module = importlib.import_module(f"{__package__}.{name}")
    elif "." in name.strip("."):
        module = _outside(name)
    else:
        raise DatasetError(
            f"unknown dataset '{name}'; choose from {', '.join(names())}, or a dotted module path"
        )
    missing = [part for part in (*CONSTANTS, "build") if not hasattr(module, part)]
    if missing:
        raise DatasetError(f"dataset '{name}': {module.__file__} lacks {', '.join(missing)}")
    defaults = _defaults(module)
    unknown = [key for key in options or {} if key not in defaults]
    if unknown:
        known = ", ".join(defaults) or "none"
        raise DatasetError(f"dataset '{name}' has no option '{unknown[0]}'; known options: {known}")
    complete = {
        key: _typed(name, key, default, {**defaults, **(options or {})}[key])
        for key, default in defaults.items()
    }
    return Source(name, module, complete)


def _defaults(module: ModuleType) -> dict[str, Any]:
    return {key: parameter.default for key, parameter in inspect.signature(module.build).parameters.items()}


def _typed(name: str, key: str, default: Any, value: Any) -> Any:
    """Return an option as plain JSON; a number in its default's type, so that 9 and 9.0 share a cache."""
    if type(default) in (int, float):
        if type(value) not in (int, float) or not math.isfinite(value) or type(default)(value) != value:
            kind = "a whole number" if type(default) is int else "a finite number"
            raise DatasetError(f"dataset '{name}': option {key} must be {kind}, not {value!r}")
        return type(default)(value)
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise DatasetError(f"dataset '{name}': option {key} must be plain JSON, not {value!r}") from None


def _outside(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise DatasetError(
                f"unknown dataset '{name}': no module of that name on the Python path"
            ) from None
        raise
