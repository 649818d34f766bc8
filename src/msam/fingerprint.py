"""A hash of the code a number depends on: modules and what they import, less comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def code_fingerprint(modules: Iterable[str]) -> str:
    """Hash of modules and, recursively, of the modules they import (sha256, 16 hex digits).

    Followed are imports of `msam` modules and of modules in the importing module's own package.

    Raises:
        ValueError: there is no such module.
    """
    todo, seen = list(modules), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += _imports(name)
    text = "\n".join(f"{name} {_code(name)}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def built_in(kind: str, name: str) -> str:
    """The module of a "dataset", "method" or "probe"; a name with dots is a module of somebody else's.

    Raises:
        ValueError: the package has none of that name.
    """
    if "." in name:
        return name
    names = sorted(p.stem for p in (PACKAGE / f"{kind}s").glob("[!_]*.py"))
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(names)}")
    return f"msam.{kind}s.{name}"


def _path(module: str) -> Path | None:
    """File of a module inside a package; found without importing it, which may cost seconds."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    folders = [PACKAGE] if top == "msam" else (spec and spec.submodule_search_locations) or []
    bases = [Path(folder).joinpath(*parts) for folder in folders]
    candidates = (c for base in bases for c in (base / "__init__.py", base.with_suffix(".py")))
    return next((p for p in candidates if p.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise ValueError(f"there is no module {module!r}")
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [n for n in node.body if not _is_docstring(n)]
    return tree


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@cache
def _code(module: str) -> str:
    return hashlib.sha256(_text(_tree(module)).encode()).hexdigest()


def _text(part: Any) -> str:
    """A syntax tree as text; what `ast.unparse` and `ast.dump` write depends on the version of Python."""
    if isinstance(part, list):
        return f"[{','.join(map(_text, part))}]"
    if not isinstance(part, ast.AST):
        return repr(part)
    fields = (f"{name}={_text(value)}" for name, value in ast.iter_fields(part) if value not in (None, []))
    return f"{type(part).__name__}({','.join(fields)})"


@cache
def _imports(module: str) -> list[str]:
    places = ("msam.", f"{module.partition('.')[0]}.")
    return [m for m in _named_imports(module) if m.startswith(places) and _path(m) is not None]


def _named_imports(module: str) -> Iterator[str]:
    tree, path = _tree(module), _path(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
