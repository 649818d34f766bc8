"""Training methods: one file a method, found by its file name.

To add a method, add a module with one subclass of `Method` to this package, or anywhere else and name it
with its dots (`my_project.my_method`), and list it in a study file. Modules that start with an underscore
are helpers.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from msam.methods._base import Method, StepReport, UnsupportedCell

__all__ = ["Method", "StepReport", "UnsupportedCell", "build", "names"]


def names() -> list[str]:
    """Names of the built-in methods."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def build(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Make a method by name.

    Args:
        name: a built-in name, or the dotted name of a module that holds one subclass of `Method`.
        options: keyword arguments of its constructor.

    Raises:
        ValueError: unknown method or option, or a wrong value.
    """
    if "." not in name and name not in names():
        raise ValueError(f"unknown method {name!r}; choose from {', '.join(names())}")
    module = import_module(name if "." in name else f"msam.methods.{name}")
    (cls,) = (
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Method) and c.__module__ == module.__name__
    )
    known = list(inspect.signature(cls).parameters)
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"method {name!r} has no option {unknown[0]!r}; known: {', '.join(known) or 'none'}")
    return cls(**(options or {}))
