"""Docstrings as texts of a page: their prose as Markdown, the arguments of a function one by one."""

from __future__ import annotations

import inspect
import re


def summary(doc: str | None) -> str:
    """The first line."""
    return inspect.cleandoc(doc or "").partition("\n")[0]


def body(doc: str | None) -> str:
    """What follows the first line: paragraphs, lists and indented formulas, which are Markdown already."""
    return inspect.cleandoc(doc or "").partition("\n")[2].strip()


def arguments(doc: str | None) -> dict[str, str]:
    """Argument -> its text, from the section "Args:" of a docstring in Google's style."""
    section = re.search(r"^Args:\n((?: {4}.*\n?)*)", inspect.cleandoc(doc or ""), re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
