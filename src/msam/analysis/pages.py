"""What the notebooks say and link: glued texts and the line of provenance under a figure."""

from __future__ import annotations

from typing import Any

from msam.analysis.provenance import footer
from msam.analysis.sources import Study


class Text(str):
    """A text whose representation has no quotes, so that glue keeps it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def say(**texts: Any) -> None:
    """Glue each text under its name, to be pasted with {glue:text} into the same notebook."""
    from myst_nb import glue

    for name, text in texts.items():
        glue(name, Text(text), display=False)


def caption(*studies: Study) -> Any:
    """The line of provenance under a figure made from the records."""
    return line(" ".join(map(footer, studies)))


def line(text: str) -> Any:
    """A line under a figure, as Markdown."""
    return markdown(f"*{text}*")


def markdown(text: str) -> Any:
    """A text in Markdown."""
    from IPython.display import Markdown

    return Markdown(text)


def conclude(*sentences: str) -> Any:
    """The notebook's answer, as Markdown."""
    return markdown(" ".join(sentences))
