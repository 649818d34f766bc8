"""A table of texts that can be shown as HTML and saved as CSV."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from msam.analysis.statistics import Interval

DASH = "\N{EN DASH}"
LONG = 24  # characters


@dataclass(frozen=True)
class Html:
    """A text that is markup already, for instance a link; every other cell is escaped."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Block:
    """A part of a table with its own columns.

    Attributes:
        rows: the texts shown; columns of two levels give two lines of headings.
        heading: a line above the part, may be empty.
        strong: (row position, column) of the cells in bold.
    """

    rows: pd.DataFrame
    heading: str = ""
    strong: frozenset[tuple[int, Any]] = frozenset()


@dataclass(frozen=True, repr=False)
class Table:
    """What one table of the book is made of; Jupyter shows it as HTML.

    Attributes:
        title: the caption.
        blocks: the parts shown, one below the other.
        data: the numbers behind it, tidy and not rounded: what the CSV holds.
        note: how to read it.
        footer: from which records it was made.
    """

    title: str
    blocks: tuple[Block, ...]
    data: pd.DataFrame
    note: str = ""
    footer: str = ""
    file: str = field(default="table", kw_only=True)

    def to_html(self) -> str:
        """The table as HTML, each part in a container that scrolls sideways."""
        parts = [f"<p><strong>{escape(self.title)}</strong></p>"]
        for block in self.blocks:
            if block.heading:
                parts.append(f"<p>{escape(block.heading)}</p>")
            parts.append(f'<div class="table-scroll">{_html(block)}</div>')
        if not any(len(block.rows) or block.heading for block in self.blocks):
            parts.append("<p>No records yet.</p>")
        parts.append(f'<p class="table-footer"><small>{" ".join(self._footnotes())}</small></p>')
        return f'<div class="msam-table">{"".join(parts)}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()

    def _footnotes(self) -> list[str]:
        notes = [_code(text) for text in (self.note, self.footer) if text]
        if len(self.data):
            content = base64.b64encode(self.data.to_csv(index=False, lineterminator="\n").encode()).decode()
            link = f'<a download="{self.file}.csv" href="data:text/csv;base64,{content}">Numbers as CSV</a>.'
            notes.append(link)
        return notes


def grouped(rows: list[dict[tuple[str, str], Any]]) -> pd.DataFrame:
    """Rows whose columns are pairs, a group's heading ("" for none) and a column's own."""
    frame = pd.DataFrame(rows)
    return frame.set_axis(pd.MultiIndex.from_tuples(frame.columns), axis=1) if rows else frame


def percent(interval: Interval) -> str:
    """Fractions in [0, 1] as "61.2 ± 1.3" percent; without an interval "61.2", without a number a dash."""
    return number(interval.scaled(100), 1)


def number(interval: Interval, digits: int, signed: bool = False) -> str:
    """A mean and half its interval as text."""
    if np.isnan(interval.mean):
        return DASH
    value = round(interval.mean, digits) + 0.0  # no "-0.00"
    mean = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return f"{mean} ± {interval.half_width:.{digits}f}" if interval.exists else mean


def ends(interval: Interval, digits: int = 1, signed: bool = False) -> str:
    """The ends of an interval as "59.9 to 62.5", or why there is none."""
    if interval.exists:
        sign = "+" if signed else ""
        return f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}"
    return "one seed: no interval" if interval.n == 1 else DASH


def _html(block: Block) -> str:
    pairs = block.rows.columns.nlevels == 2
    head = _grouped_head(block.rows.columns) if pairs else _head(block.rows.columns)
    body = []
    for i, row in enumerate(block.rows.itertuples(index=False)):
        cells = []
        for column, value in zip(block.rows.columns, row, strict=True):
            text = value.text if isinstance(value, Html) else _code(str(value))
            text = f"<strong>{text}</strong>" if (i, column) in block.strong else text
            style = "" if isinstance(value, Html) else _wrap(str(value))
            cells.append(f"<td{style}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    kind = "dataframe grouped" if pairs else "dataframe"
    return f'<table class="{kind}"><thead>{head}</thead><tbody>{"".join(body)}</tbody></table>'


def _head(columns: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<th>{escape(str(column))}</th>' for column in columns)}</tr>"


def _grouped_head(columns: Iterable[tuple[str, str]]) -> str:
    """Two lines: a heading above each run of columns of the same group, then the columns' own."""
    groups = [(group, len(list(run))) for group, run in groupby(columns, key=lambda column: column[0])]
    above = "".join(
        f'<th colspan="{size}">{escape(group)}</th>' if group else "<th></th>" * size
        for group, size in groups
    )
    return f"<tr>{above}</tr>{_head(column for _, column in columns)}"


def _wrap(text: str) -> str:
    """Long texts break into lines instead of pushing the numbers out of sight."""
    if len(text) <= LONG:
        return ""
    return f' style="white-space: normal; min-width: {9 if len(text) <= 2 * LONG else 12}em"'


def _code(text: str) -> str:
    """Escape a line and turn its `backticks` into code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
