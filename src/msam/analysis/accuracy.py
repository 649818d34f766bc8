"""The paper's Tables 1 and 2 on our data: datasets across, methods down; and the same numbers in detail."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd

from msam.analysis import paper
from msam.analysis.findings import supported
from msam.analysis.metrics import by_seed, final_gaps, is_unimodal
from msam.analysis.names import in_order, label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence, modalities
from msam.analysis.statistics import Interval, mean_interval
from msam.analysis.table import DASH, Block, Table, ends, grouped, number, percent

NUMBERS = {"late": 1, "early": 2}
SINGLE = "unimodal"
NOTE = (
    "Test accuracy in percent after the last epoch, mean ± half of the 95 % Student-t interval over n seeds. "
    "Accuracy of a modality: of its Shapley response, which with early fusion contains a part of the fused "
    "output and so is not what the modality knows alone. "
    "Bold: the paired difference to every other multimodal method of that dataset and fusion, those of other "
    "tables included, has an interval above zero."
)
SINGLE_NOTE = "Single-*: each column has the network trained on that modality alone."


class Line(NamedTuple):
    """A line of the layout: its heading, and the cell that stands in each output's column."""

    heading: str
    name: str

    def cell(self, output: str) -> str | None:
        """Name of the cell of an output; single modalities have a cell for each and none for fused."""
        if self.name != SINGLE:
            return self.name
        return None if output == "fused" else f"{SINGLE}+{output}"


def paper_layout(study: Study, fusion: str) -> Table:
    """Table 1 (late) or 2 (early) on our data, with exactly the paper's rows."""
    title = f"Table {NUMBERS[fusion]}, our data: {fusion} fusion, the paper's methods"
    return _layout(study, fusion, _paper_lines(fusion), title, f"table{NUMBERS[fusion]}_{fusion}")


def additional_layout(study: Study, fusion: str) -> Table:
    """The methods that the paper's table of this fusion does not have, in the same layout."""
    theirs = _paper_lines(fusion)
    cells = study.cells[study.cells["fusion"] == fusion]
    names = [SINGLE, *in_order(cells.loc[~is_unimodal(cells["name"]), "name"])]
    known = {line.name for line in theirs}
    lines = [Line(_heading(name), name) for name in names if name not in known]
    title = f"Table {NUMBERS[fusion]}, our data: {fusion} fusion, additional methods"
    return _layout(study, fusion, lines, title, f"table{NUMBERS[fusion]}_{fusion}_additional")


def detail_table(study: Study, fusion: str) -> Table:
    """Every method of a fusion: accuracies, n, interval, tau, state; a part for each dataset."""
    cells = study.cells[study.cells["fusion"] == fusion]
    data = accuracy_data(study, fusion)
    blocks = tuple(
        _detail_block(rows, modalities(study, dataset), data[data["dataset"] == dataset])
        for dataset, rows in cells.groupby("dataset", sort=False)
    )
    note = f"{NOTE} Tau: overfitting gap of the fused output (Eq. 1)."
    title = f"Every cell with {fusion} fusion in detail"
    return Table(title, blocks, data, note, footer(study), file=f"accuracy_{fusion}")


@lru_cache(maxsize=8)
def accuracy_data(study: Study, fusion: str) -> pd.DataFrame:
    """The numbers of a fusion's tables, a row for each cell and output; one without numbers keeps its row."""
    runs = study.frames.runs[study.frames.runs["fusion"] == fusion]
    best = supported(study)
    rows = []
    for dataset, cells in study.cells[study.cells["fusion"] == fusion].groupby("dataset", sort=False):
        outputs = [*modalities(study, dataset), "fused"]
        mine = runs[runs["dataset"] == dataset]
        accuracies = {output: by_seed(mine, output) for output in outputs}
        gaps = final_gaps(mine).groupby(["name", "output"])["tau"]
        taus = {key: values.to_list() for key, values in gaps}
        for cell in cells.itertuples():
            for output in [cell.name.partition("+")[2]] if _single(cell.name) else outputs:
                source = "fused" if _single(cell.name) else output
                accuracy = mean_interval(accuracies[source].get((dataset, fusion, cell.name), []))
                tau = mean_interval(taus.get((cell.name, source), []))
                rows.append(
                    {
                        "dataset": dataset,
                        "level": cell.evidence,
                        "fusion": fusion,
                        "method": cell.name,
                        "output": output,
                        "accuracy": accuracy.mean,
                        "accuracy_low": accuracy.low,
                        "accuracy_high": accuracy.high,
                        "n": accuracy.n,
                        "tau": tau.mean,
                        "tau_low": tau.low,
                        "tau_high": tau.high,
                        "supported_best": output == "fused" and best.get((dataset, fusion)) == cell.name,
                        "state": cell.text,
                    }
                )
    return pd.DataFrame(rows)


def _paper_lines(fusion: str) -> list[Line]:
    """The rows of the paper's table; its single modalities, which have other names here, are one row."""
    single = paper.reported().query("fusion == @fusion")["method"].str.startswith("Single-").any()
    lines = [Line(paper.OURS[name], name) for name in paper.methods(fusion)]
    return [Line(_heading(SINGLE), SINGLE), *lines] if single else lines


def _heading(name: str) -> str:
    return "Single-*" if name == SINGLE else paper.OURS.get(name) or label(name)


def _layout(study: Study, fusion: str, lines: list[Line], title: str, file: str) -> Table:
    cells = study.cells[study.cells["fusion"] == fusion]
    states = {(cell.dataset, cell.name): cell.state for cell in cells.itertuples()}
    data = accuracy_data(study, fusion)
    found = {(row["dataset"], row["method"], row["output"]): row for row in data.to_dict("records")}
    blocks = []
    for level in dict.fromkeys(study.levels[dataset] for dataset in cells["dataset"]):
        datasets = [name for name in dict.fromkeys(cells["dataset"]) if study.levels[name] == level]
        blocks.append(_block(study, datasets, lines, found, states))
    shown = {line.name for line in lines}
    names = [name for name in cells["name"] if (SINGLE if _single(name) else name) in shown]
    notes = [NOTE, SINGLE_NOTE if SINGLE in shown else "", _states(cells[cells["name"].isin(names)])]
    note = " ".join(filter(None, notes))
    kept = data[data["method"].isin(names)] if len(data) else data
    return Table(title, tuple(blocks), kept, note, footer(study), file=file)


def _block(
    study: Study,
    datasets: list[str],
    lines: list[Line],
    found: Mapping[Any, dict[str, Any]],
    states: Mapping[Any, str],
) -> Block:
    """The datasets of one level side by side: a part that fits a page."""
    rows: list[dict[tuple[str, str], Any]] = [{("", "method"): line.heading} for line in lines]
    strong = set()
    for dataset in datasets:
        group = f"{dataset}: {evidence(study, dataset)}"
        outputs = [*modalities(study, dataset), "fused"]
        for i, line in enumerate(lines):
            counts = []
            for output in outputs:
                name = line.cell(output)
                row = found.get((dataset, name, output), {})
                own = output == "fused" or line.name == SINGLE
                state = states.get((dataset, name), "not run") if name and own else "undefined"
                rows[i][group, output] = percent(interval(row)) if row.get("n") else without(state)
                counts += [row["n"]] if row else []
                if row.get("supported_best"):
                    strong.add((i, (group, output)))
            rows[i][group, "n"] = seeds_text(counts)
    return Block(grouped(rows), strong=frozenset(strong))


def without(state: str) -> str:
    """What stands where a cell of this state has no number."""
    return {"undefined": DASH, "done": "diverged"}.get(state, state)


def _states(cells: pd.DataFrame) -> str:
    """What is to be known about cells that are not simply done: each text with its methods and datasets."""
    texts: dict[str, dict[str, list[str]]] = {}
    for cell in cells[cells["text"] != "done"].itertuples():
        texts.setdefault(cell.text, {}).setdefault(cell.name, []).append(cell.dataset)
    sentences = []
    for text, places in texts.items():
        groups: dict[str, list[str]] = {}
        for name, datasets in places.items():
            groups.setdefault(", ".join(datasets), []).append(label(name))
        where = "; ".join(f"{', '.join(names)} on {datasets}" for datasets, names in groups.items())
        sentences.append(f"{text[0].upper()}{text[1:]} ({where}).")
    return " ".join(sentences)


def seeds_text(counts: list[int]) -> str:
    """Numbers of seeds as "5" or "3 to 5", a dash for none."""
    if not any(counts):
        return DASH
    ends = sorted({min(counts), max(counts)})
    return " to ".join(map(str, ends))


def _single(name: str) -> bool:
    return name.startswith(SINGLE)


def _detail_block(cells: pd.DataFrame, names: list[str], data: pd.DataFrame) -> Block:
    rows, strong = [], set()
    for i, cell in enumerate(cells.itertuples()):
        mine = {row["output"]: row for row in data[data["method"] == cell.name].to_dict("records")}
        own = mine.get("fused") or next(iter(mine.values()))
        accuracy = interval(own)
        row = {"method": label(cell.name), "evidence": cell.evidence}
        row |= {output: percent(interval(mine.get(output, {}))) for output in [*names, "fused"]}
        row |= {
            "n": accuracy.n,
            "95 % interval": ends(accuracy.scaled(100)),
            "tau": number(interval(own, "tau"), 2),
            "state": cell.text,
        }
        if own["supported_best"]:
            strong.add((i, "fused"))
        rows.append(row)
    first = cells.iloc[0]
    return Block(pd.DataFrame(rows), f"{first['dataset']}: {first['evidence']}", frozenset(strong))


def interval(row: dict[str, Any], value: str = "accuracy") -> Interval:
    """The interval in a row of `accuracy_data`."""
    if not row:
        return mean_interval([])
    return Interval(row[value], row[f"{value}_low"], row[f"{value}_high"], int(row["n"]))
