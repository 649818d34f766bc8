"""The paper's own Tables 1 and 2, and ours beside each of its datasets that was run here."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis import paper, profiles
from msam.analysis.accuracy import NOTE, NUMBERS, accuracy_data, interval, seeds_text, without
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence, modalities, record_json
from msam.analysis.table import DASH, Block, Table, grouped, percent

NOT_RUN = "not run"
SINGLE = "Single-"
STAND_IN = "embedded"
"""Datasets of this level only imitate one of the paper's and never stand beside its numbers."""

ENCODERS = {"small": "small encoders", "paper": "encoders of the paper's size"}
COLUMNS = (
    *("method", "dataset", "output", "ours", "our_output", "level", "text"),
    *("accuracy", "accuracy_low", "accuracy_high", "n", "supported_best"),
)


def paper_table(study: Study, fusion: str) -> Table:
    """The paper's numbers in the paper's layout; beside each dataset ours, or that it was not run."""
    reported = paper.reported().query("fusion == @fusion")
    ours = {theirs: counterparts(study, theirs) for theirs in paper.OUTPUTS}
    mine = beside(study, fusion)
    rows, strong = [], set()
    for i, (method, values) in enumerate(reported.groupby("method", sort=False)):
        accuracy = values.set_index(["dataset", "output"])["accuracy"]
        row: dict[tuple[str, str], Any] = {("", "method"): method}
        for theirs, outputs in paper.OUTPUTS.items():
            for output in outputs:
                value = accuracy.get((theirs, output))
                row[f"{theirs}: reported by the paper", output] = DASH if value is None else f"{value:.2f}"
            for dataset in ours[theirs]:
                group = f"ours: {described(study, dataset, fusion)}"
                part = mine[(mine["method"] == method) & (mine["ours"] == dataset)]
                row |= {(group, cell.our_output): cell.text for cell in part.itertuples()}
                row[group, "n"] = seeds_text(list(part["n"].dropna().astype(int)))
                strong |= {(i, (group, output)) for output in part.loc[part["supported_best"], "our_output"]}
            if not ours[theirs]:
                row[theirs, "ours"] = NOT_RUN
        rows.append(row)
    data = reported.rename(columns={"accuracy": "reported"})
    data = data.merge(mine.drop(columns="text"), how="left", on=["method", "dataset", "output"])
    block = Block(grouped(rows), strong=frozenset(strong))
    title = f"Table {NUMBERS[fusion]}, the paper's data: {fusion} fusion"
    source = f"Reported: src/msam/analysis/paper.csv.{f' Ours: {footer(study)}' if len(mine) else ''}"
    return Table(title, (block,), data, _note(study, ours), source, file=f"paper_{fusion}")


def beside(study: Study, fusion: str) -> pd.DataFrame:
    """Our numbers for the rows and columns of the paper's table.

    Returns:
        A row for each method (the paper's name), dataset of ours that may stand there, and output: method,
        dataset and output (the paper's names), ours (dataset), our_output, level, text, accuracy (fraction)
        with its interval, n, supported_best. A method without a number in a column has a dash as text.
    """
    data = accuracy_data(study, fusion)
    found = {(row["dataset"], row["method"], row["output"]): row for row in data.to_dict("records")}
    states = study.cells[study.cells["fusion"] == fusion].set_index(["dataset", "name"])["state"].to_dict()
    rows = []
    for method in paper.reported().query("fusion == @fusion")["method"].unique():
        for theirs, outputs in paper.OUTPUTS.items():
            for dataset in counterparts(study, theirs):
                for output, our_output in _outputs(study, dataset, outputs).items():
                    cell = _cell(method, output, our_output)
                    number = found.get((dataset, cell, our_output), {})
                    own = output == "fused" or method.startswith(SINGLE)
                    state = states.get((dataset, cell), "not run") if cell and own else "undefined"
                    rows.append(
                        {"method": method, "dataset": theirs, "output": output}
                        | {"ours": dataset, "our_output": our_output, "level": evidence(study, dataset)}
                        | {"text": percent(interval(number)) if number.get("n") else without(state)}
                        | {key: number.get(key) for key in ("accuracy", "accuracy_low", "accuracy_high", "n")}
                        | {"supported_best": number.get("supported_best", False)}
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


def counterparts(study: Study, theirs: str) -> list[str]:
    """Our datasets that are one of the paper's, or its rebuild, as their descriptions say; no stand-in."""
    stands_for = {name: text.get("stands_for") for name, text in study.descriptions.items()}
    return [
        name for name in study.datasets if stands_for.get(name) == theirs and study.levels[name] != STAND_IN
    ]


def described(study: Study, dataset: str, fusion: str) -> str:
    """What a dataset of ours is beside the paper's: its level, how many train samples, which encoders."""
    cells = study.frames.cells
    mine = cells[(cells["dataset"] == dataset) & (cells["fusion"] == fusion) & (cells["state"] == "done")]
    sizes = {record_json(study, path)["config"].get("size", "small") for path in mine["path"]}
    samples = study.descriptions[dataset]["splits"]["train"]["size"]
    parts = [f"{dataset}, {evidence(study, dataset)}", f"{samples:,} train samples"]
    return ", ".join([*parts, *(ENCODERS[size] for size in sorted(sizes))])


def _note(study: Study, ours: dict[str, list[str]]) -> str:
    absent = [theirs for theirs, mine in ours.items() if not mine]
    notes = ["Accuracy in percent. Reported: one number each, no interval."]
    if any(ours.values()):
        notes.append(f"Ours: {NOTE[0].lower()}{NOTE[1:]}")
    if absent:
        commands = ", ".join(f"`msam data get {paper.DATASETS[theirs]}`" for theirs in absent)
        told = profiles.not_run(study.root)
        notes.append(
            f"{told[0].upper()}{told[1:]} ({', '.join(absent)}). To run them: {commands}, then "
            "`make reproduce PROFILE=paper`."
        )
    notes.append(
        "A dataset that only imitates one of the paper's stands in the table of our data, never here."
    )
    return " ".join(notes)


def _outputs(study: Study, dataset: str, theirs: list[str]) -> dict[str, str]:
    """The paper's outputs and our names of them, in the paper's order."""
    names = {paper.MODALITIES.get(name, name): name for name in [*modalities(study, dataset), "fused"]}
    return {output: names[output] for output in theirs if output in names}


def _cell(method: str, output: str, our_output: str) -> str | None:
    """Our cell for a row and column of the paper's table; a row Single-video has one in its own column."""
    if method.startswith(SINGLE):
        return f"unimodal+{our_output}" if method == f"{SINGLE}{output}" else None
    return next(name for name, theirs in paper.OURS.items() if theirs == method)
