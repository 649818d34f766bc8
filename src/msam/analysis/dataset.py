"""What a page says about one dataset: from its module, and from its description where there is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msam.analysis import docstrings, profiles
from msam.analysis.sources import relation, study_file
from msam.analysis.table import DASH, Block, Html, Table

if TYPE_CHECKING:
    from msam.datasets._expected import Expected
    from msam.datasets._raw import RawFile
    from msam.datasets._source import Source

LEVELS = {
    "embedded": "made from what Python packages ship, so everybody has it, without a network",
    "compact": "made from public files that are downloaded first, and small enough for two processor cores",
    "paper": "one of the paper's datasets, made from its public files, for a GPU",
}
"""Evidence level -> what it says about a dataset."""


@dataclass(frozen=True)
class Entry:
    """One dataset.

    Attributes:
        source: its module, with the options of the description, or else those of the study file.
        description: its data description record, None where there is none.
        made_from: where that lies, as people write it; "" where there is none.
        records: profile -> number of records on it.
        without: what is said where there are no records.
    """

    source: Source
    description: dict[str, Any] | None
    made_from: str
    records: dict[str, int]
    without: str

    @property
    def evidence(self) -> str:
        """Evidence level and what it stands for, as "embedded (miniature of AV-MNIST)"."""
        return relation(self.source.level, self.source.constant("STANDS_FOR"))

    @property
    def state(self) -> str:
        """How many records there are, or that it was not run."""
        counts = ", ".join(f"{profile}: {count} records" for profile, count in self.records.items())
        return counts or self.without


def read(results: str | Path, name: str) -> Entry:
    """Read what there is on a dataset.

    Args:
        results: folder that holds the profiles.
        name: a dataset of the package.

    Raises:
        DatasetError: there is no such dataset.
    """
    from msam.datasets._source import find
    from msam.records import is_record

    root, level = Path(results).resolve(), find(name).level
    others = (path for path in root.glob("*") if path.name not in (level, *profiles.APART))
    places = [root / level, *sorted(others)]
    path = next((p for place in places if (p := place / "data" / f"{name}.json").is_file()), None)
    description = json.loads(path.read_text(encoding="utf-8")) if path else None
    records = Counter(
        file.relative_to(root).parts[0]
        for file in sorted(root.glob(f"*/*/{name}/*/*.json"))
        if is_record(file)
    )
    options = description["options"] if description else planned(name, level)
    made_from = profiles.label(path) if path else ""
    source = find(name, options)
    absent = not description and source.constant("FILES")
    without = profiles.not_run(root) if absent else "no records yet"
    return Entry(source, description, made_from, dict(records), without)


def read_all(results: str | Path) -> list[Entry]:
    """Every dataset of the package, by evidence level."""
    from msam.datasets import names

    return sorted((read(results, name) for name in names()), key=lambda e: list(LEVELS).index(e.source.level))


def planned(name: str, level: str) -> dict[str, Any] | None:
    """The options with which the profile of a level runs a dataset, None where it does not run it."""
    studies = study_file(level).values()
    listed = [study["datasets"][name] or {} for study in studies if name in study["datasets"]]
    return (listed[0].get("options") or {}) if listed else None


# Texts


def lead(entry: Entry) -> str:
    """What it is, what it stands for, and whether it was run."""
    level = entry.source.level
    title = f"**{docstrings.summary(entry.source.module.__doc__)}**"
    about = f"Evidence level *{level}*: {LEVELS[level]}. {_relation(entry)} {_state_sentence(entry)}"
    return f"{title}\n\n{about}"


def _state_sentence(entry: Entry) -> str:
    return f"{entry.state[0].upper()}{entry.state[1:]}."


def _relation(entry: Entry) -> str:
    level, stands_for = entry.source.level, entry.source.constant("STANDS_FOR")
    if not stands_for:
        return "It stands for none of the paper's datasets."
    if level == "paper":
        return f"It is the paper's {stands_for}."
    return f"Tables call it *{entry.evidence}*: its numbers are not numbers on the paper's {stands_for}."


def recipe(entry: Entry) -> str:
    """The module's docstring without its first line: how the data are made, and what deviates."""
    return docstrings.body(entry.source.module.__doc__)


def commands(entry: Entry) -> str:
    """How to get the data and run the dataset, as Markdown."""
    source, lines = entry.source, []
    if source.constant("FILES"):
        consent = " --accept-licence" if source.constant("CONSENT") else ""
        lines += [f"msam data get {source.name}{consent}", f"msam data verify {source.name}"]
    lines.append(source.command("prepare"))
    if planned(source.name, source.level) is not None:
        lines.append(f"make reproduce PROFILE={source.level}")
    consent = source.constant("CONSENT")
    return "\n".join(["```bash", *lines, "```", *(["", consent] if consent else [])])


def answer(entry: Entry) -> str:
    """Sizes and state in a sentence."""
    name, data = entry.source.name, entry.description
    if not data:
        return f"{name}: {entry.state}."
    sizes = ", ".join(f"{split['size']:,} for {_PURPOSES[name]}" for name, split in data["splits"].items())
    shared = sum(data["shared_groups"].values())
    leak = f"{shared} groups are in two splits" if shared else "no group is in two splits"
    return f"{name} has {len(data['classes'])} classes; examples: {sizes}; {leak}. {_state_sentence(entry)}"


_PURPOSES = {"train": "training", "validation": "validation", "test": "testing"}


def footer(entry: Entry) -> str:
    """Where what is said about the data comes from and how to remake it, or that there is nothing."""
    remake = f"{entry.source.command('describe')} --output {entry.made_from}"
    return f"{_made_from(entry)[:-1]}; remake: `{remake}`." if entry.description else _state_sentence(entry)


def _made_from(entry: Entry) -> str:
    return f"Made from {entry.made_from}." if entry.description else ""


def levels() -> str:
    """What the evidence levels mean, as a list in Markdown."""
    return "\n".join(f"* *{level}*: {text}." for level, text in LEVELS.items())


def count_sentence(entries: Iterable[Entry]) -> str:
    """How many datasets have records."""
    entries = list(entries)
    run = [entry.source.name for entry in entries if entry.records]
    return f"{len(run)} of {len(entries)} datasets have records here: {', '.join(run) or 'none'}."


# Tables


def summary_table(entries: Iterable[Entry], pages: str = "") -> Table:
    """Every dataset in one row, with a link to its page.

    Args:
        entries: the datasets.
        pages: folder of their pages, as seen from the page that shows the table.
    """
    rows, data = [], []
    for entry in entries:
        name, source = entry.source.name, entry.source
        row = {
            "dataset": name,
            "evidence": entry.evidence,
            "records": entry.state,
            "title": source.constant("TITLE"),
            "modalities": ", ".join(source.kinds),
        }
        data.append(row)
        rows.append(row | {"dataset": Html(f'<a href="{escape(pages + name)}.html">{escape(name)}</a>')})
    made = "Made from the datasets' modules and the records; remake: `make reproduce`."
    return Table("The datasets", (Block(pd.DataFrame(rows)),), pd.DataFrame(data), "", made, file="datasets")


def facts_table(entry: Entry) -> Table:
    """Origin, licence and what else a module says of its dataset in a line."""
    source = entry.source
    facts = {
        "title": source.constant("TITLE"),
        "evidence": entry.evidence,
        "stands for": source.constant("STANDS_FOR") or "none of the paper's datasets",
        "origin": source.constant("ORIGIN"),
        "licence": source.constant("LICENSE"),
        "classes": f"{len(source.classes)}: {', '.join(source.classes)}",
        "checksum": (entry.description or {}).get("checksum", DASH)[:12],
        "records": entry.state,
    }
    return _table(entry, "In short", [{"": key, " ": value} for key, value in facts.items()], "facts")


def modalities_table(entry: Entry) -> Table:
    """Kind, shape and stored type of every modality."""
    described = (entry.description or {}).get("modalities", {})
    expected = _expected(entry)
    shapes = {m: told["shape"] for m, told in described.items()} or (expected.shapes if expected else {})
    rows = [
        {
            "modality": modality,
            "kind": kind,
            "shape": " x ".join(map(str, shapes.get(modality, ()))) or DASH,
            "stored as": entry.source.stored[modality],
        }
        for modality, kind in entry.source.kinds.items()
    ]
    note = (
        "Shapes without the batch: channels x height x width, channels x time, time x features, or features."
    )
    return _table(entry, "Modalities", rows, "modalities", note)


def splits_table(entry: Entry) -> Table:
    """Each split: number of examples, distinct groups, and groups found in two splits."""
    data = entry.description or {"splits": {}}
    rows = [
        {
            "split": split,
            "examples": content["size"],
            "distinct groups": ", ".join(f"{n} {group}" for group, n in content["groups"].items()) or DASH,
            "shared with another split": ", ".join(
                f"{data['shared_groups'][group]} {group}" for group in content["groups"]
            )
            or DASH,
        }
        for split, content in data["splits"].items()
    ]
    if rows:
        note = "The groups named should not be in two splits; the last column says whether they are."
        return _table(entry, "Splits", rows, "splits", note)
    expected = _expected(entry)
    sizes = zip(_PURPOSES, expected.sizes, strict=True) if expected else ()
    rows = [{"split": split, "expected examples": size} for split, size in sizes]
    return _table(entry, "Splits", rows, "splits", _state_sentence(entry))


def _expected(entry: Entry) -> Expected | None:
    """What the public files should give, None where that is not known."""
    from msam.datasets._expected import EXPECTED

    source = entry.source
    return EXPECTED[source.name](**source.options) if source.name in EXPECTED else None


def classes_table(entry: Entry) -> Table:
    """Examples of each class in each split."""
    data = entry.description or {"classes": [], "splits": {}}
    counts = {split: content["class_counts"] for split, content in data["splits"].items()}
    rows = [
        {"class": name, **{split: numbers[k] for split, numbers in counts.items()}}
        for k, name in enumerate(data["classes"])
    ]
    return _table(entry, "Examples of each class", rows, "classes")


def options_table(entry: Entry) -> Table:
    """Every option of the dataset with the value used, its default and its meaning."""
    from msam.datasets._source import find

    defaults = find(entry.source.name).options
    meanings = docstrings.arguments(entry.source.module.build.__doc__)
    rows = [
        {
            "option": option,
            "meaning": meanings.get(option, DASH).replace("`", ""),
            "used": json.dumps(value),
            "default": json.dumps(defaults[option]),
        }
        for option, value in entry.source.options.items()
    ]
    return _table(entry, "Options", rows, "options")


def files_table(entry: Entry) -> Table:
    """The files it is made from: where they go, where they come from, how they are checked."""
    rows = [
        {"file or folder": file.path, "from": _origin(file), "checked": _checked(file)}
        for file in entry.source.constant("FILES")
    ]
    note = "Paths are below the folder MSAM_DATA."
    return _table(entry, "Files", rows, "files", note, "Nothing is downloaded.")


def _origin(file: RawFile) -> Html | str:
    if not file.urls:
        return file.note
    address = escape(file.urls[0])
    return Html(f'<a href="{address}" style="overflow-wrap: anywhere">{address}</a>')


def _checked(file: RawFile) -> str:
    counts = [f"{count:,} files {pattern}" for pattern, count in file.members]
    return (
        ", ".join([*([f"{file.checksum[:16]}..."] if file.checksum else []), *counts]) or "that it is there"
    )


def _table(entry: Entry, title: str, rows: list[dict], file: str, note: str = "", without: str = "") -> Table:
    frame = pd.DataFrame(rows)
    data = frame.map(lambda value: value.text if isinstance(value, Html) else value)
    block = Block(frame, "" if rows else without or _state_sentence(entry))
    name = f"{entry.source.name}_{file}"
    return Table(title, (block,), data, note if rows else "", _made_from(entry), file=name)
