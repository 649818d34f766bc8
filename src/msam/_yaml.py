"""YAML as study files and the command line mean it: no key twice, and 1e-3 is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The one in C is ten times as fast."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(text: str) -> Any:
    """What a YAML document holds.

    Raises:
        yaml.YAMLError: it is no YAML, or a mapping has a key twice, of which YAML would keep the last.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(root: yaml.Node) -> None:
    """Refuse a key that stands twice in one mapping; what `<<` brings may be replaced."""
    todo, known = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in known:  # an alias
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        if isinstance(node, yaml.MappingNode):
            todo += [value for _, value in node.value]
            _check_keys([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])


def _check_keys(keys: list[yaml.ScalarNode]) -> None:
    seen = set()
    for key in keys:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise yaml.YAMLError(f"the key {key.value!r} is there twice, the second time in line {line}")
        seen.add(key.value)
