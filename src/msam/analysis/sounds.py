"""Sounds of a dataset's samples to listen to, inside the page itself."""

from __future__ import annotations

from html import escape
from typing import Any

from msam.analysis.table import Html


def players(description: dict[str, Any] | None) -> Html | None:
    """A player for every sound of the samples with whose it is below; None where there are none."""
    samples = [sample for sample in (description or {}).get("samples", ()) if sample.get("sounds")]
    if not samples:
        return None
    columns = [[_player(sample["label"], sound) for sound in sample["sounds"]] for sample in samples]
    parts = "".join(f"<div>{''.join(column)}</div>" for column in columns)
    credits = dict.fromkeys(s["credit"] for sample in samples for s in sample["sounds"][-1:] if s["credit"])
    below = f'<p class="table-footer"><small>{escape(". ".join(credits))}.</small></p>' if credits else ""
    return Html(f'<div class="msam-table"><div class="msam-sounds">{parts}</div>{below}</div>')


def _player(label: str, sound: dict[str, str]) -> str:
    text = escape(f"{label}, {sound['title']}")
    source = f"data:audio/wav;base64,{sound['wav']}"
    return f'<label>{text}<audio controls preload="metadata" src="{source}"></audio></label>'
