"""Tables 1 and 2 from our records, the paper's own numbers, and what depends on our definitions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from msam.analysis import paper
from msam.analysis.findings import supported
from msam.analysis.metrics import by_seed, final_gaps
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import Interval, mean_interval, paired_difference
from msam.analysis.table import DASH, Block, Table, ends, number, percent

NUMBERS = {"late": 1, "early": 2}
RULES = {"last": "last epoch", "best_validation": "best validation epoch", "best_test": "best test epoch"}
NOT_RUN = "not run: data not available at level {level}"
NOTE = (
    "Test accuracy in percent after the last epoch, mean ± half of the 95 % Student-t interval over n seeds. "
    "Accuracy of a modality: of its Shapley response; a network of one modality stands in its column. "
    "Tau: overfitting gap of the fused output (Eq. 1). "
    "Bold: the paired difference to every other multimodal method has an interval above zero."
)


def accuracy_table(study: Study, fusion: str, rule: str = "last") -> Table:
    """Table 1 (late) or 2 (early) on our data: accuracy per modality and fused, n, interval, tau, state."""
    cells = study.cells[study.cells["fusion"] == fusion]
    data = accuracy_data(study, fusion, rule)
    blocks = tuple(
        _accuracy_block(rows, modalities(study, dataset), data[data["dataset"] == dataset])
        for dataset, rows in cells.groupby("dataset", sort=False)
    )
    title = f"Table {NUMBERS[fusion]}, our data: {fusion} fusion"
    return Table(title, blocks, data, NOTE, footer(study), file=f"table{NUMBERS[fusion]}_{fusion}")


def accuracy_data(study: Study, fusion: str, rule: str = "last") -> pd.DataFrame:
    """The numbers of `accuracy_table`, a row for each cell and output; one without numbers keeps its row."""
    runs = study.frames.runs[study.frames.runs["fusion"] == fusion]
    test = runs[(runs["rule"] == rule) & (runs["split"] == "test")]
    gaps = final_gaps(runs, rule)
    best = supported(study, rule)
    rows = []
    for cell in study.cells[study.cells["fusion"] == fusion].itertuples():
        for output in _outputs(study, cell.dataset, cell.name):
            source = "fused" if cell.name.startswith("unimodal") else output
            accuracy = mean_interval(_pick(test, cell, source)["accuracy"])
            tau = mean_interval(_pick(gaps, cell, source)["tau"])
            rows.append(
                {
                    "dataset": cell.dataset,
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
                    "supported_best": output == "fused" and best.get((cell.dataset, fusion)) == cell.name,
                    "state": cell.text,
                }
            )
    return pd.DataFrame(rows)


def paper_table(study: Study, fusion: str) -> Table:
    """The paper's table in the paper's layout, with a column for us beside each of its datasets."""
    reported = paper.reported().query("fusion == @fusion")
    rows = []
    for method in reported["method"].unique():
        mine = reported[reported["method"] == method].set_index(["dataset", "output"])["accuracy"]
        row = {"method": method, "evidence": "reported by the paper"}
        for dataset, outputs in paper.OUTPUTS.items():
            for output in outputs:
                value = mine.get((dataset, output))
                row[f"{dataset} {output}"] = DASH if value is None else f"{value:.2f}"
            row[f"{dataset} ours"] = NOT_RUN.format(level=study.level)
        rows.append(row)
    heading = "Accuracy in percent as the paper prints it: one number each, no interval."
    title = f"Table {NUMBERS[fusion]}, the paper's data: {fusion} fusion"
    note = "Our stand-ins for these datasets are in the table of our data, never here."
    source = "Made from src/msam/analysis/paper.csv."
    return Table(title, _one(rows, heading), reported, note, source, file=f"paper_{fusion}")


def rules_table(study: Study) -> Table:
    """Fused test accuracy under three selection rules, and what choosing the epoch on the test split adds."""
    runs = study.frames.runs
    by_rule = {rule: by_seed(runs, rule=rule) for rule in RULES}
    rows, data = [], []
    for cell in study.cells.itertuples():
        key = (cell.dataset, cell.fusion, cell.name)
        means = {rule: mean_interval(by_rule[rule].get(key, [])) for rule in RULES}
        optimism = _difference(by_rule["best_test"], by_rule["best_validation"], key)
        rows.append(
            _lead(cell)
            | {RULES[rule]: percent(means[rule]) for rule in RULES}
            | {"optimism (points)": number(optimism.scaled(100), 2, signed=True), "n": optimism.n}
            | {"state": cell.text}
        )
        numbers = {rule: means[rule].mean for rule in RULES}
        data.append({**_keys(cell), **numbers, **_spread("optimism", optimism)})
    note = (
        "Fused test accuracy in percent. Optimism: best test epoch minus best validation epoch, paired by "
        "seed, with its 95 % interval: what choosing the epoch on the test split adds."
    )
    title = "Three rules for choosing the epoch"
    return Table(title, _one(rows), pd.DataFrame(data), note, footer(study), file="selection_rules")


def heads_table(study: Study) -> Table:
    """Late fusion: accuracy of each modality's Shapley response beside that of its own linear head."""
    runs = study.frames.runs
    rows, data = [], []
    for cell in study.cells.itertuples():
        if cell.fusion != "late" or cell.name.startswith("unimodal"):
            continue
        for modality in modalities(study, cell.dataset):
            key = (cell.dataset, cell.fusion, cell.name)
            response = by_seed(runs, modality).get(key, pd.Series(dtype=float))
            head = by_seed(runs, modality, value="head_accuracy").get(key, pd.Series(dtype=float))
            difference = paired_difference(response, head)
            rows.append(
                _lead(cell)
                | {
                    "modality": modality,
                    "response": percent(mean_interval(response)),
                    "head": percent(mean_interval(head)),
                    "response minus head (points)": number(difference.scaled(100), 2, signed=True),
                    "n": difference.n,
                    "state": cell.text,
                }
            )
            data.append(_keys(cell) | {"modality": modality} | _spread("difference", difference))
    note = "Test accuracy in percent after the last epoch; differences paired by seed with 95 % intervals."
    title = "Two definitions of a modality's accuracy, late fusion"
    return Table(title, _one(rows), pd.DataFrame(data), note, footer(study), file="heads")


def write_tables(study: Study, folder: Path) -> list[Path]:
    """Write the result tables as CSV files into `folder`."""
    made = [accuracy_table(study, fusion) for fusion in NUMBERS]
    return [table.write_csv(folder) for table in [*made, rules_table(study), heads_table(study)]]


def _accuracy_block(cells: pd.DataFrame, names: list[str], data: pd.DataFrame) -> Block:
    rows, strong = [], set()
    for i, cell in enumerate(cells.itertuples()):
        mine = data[data["method"] == cell.name].set_index("output")
        own = "fused" if "fused" in mine.index else mine.index[0]
        accuracy = _interval(mine, own)
        row = {"method": label(cell.name), "evidence": cell.evidence}
        row |= {output: percent(_interval(mine, output)) for output in [*names, "fused"]}
        row |= {
            "n": accuracy.n,
            "95 % interval": ends(accuracy.scaled(100)),
            "tau": number(_interval(mine, own, "tau"), 2),
            "state": cell.text,
        }
        if mine["supported_best"].any():
            strong.add((i, "fused"))
        rows.append(row)
    first = cells.iloc[0]
    return Block(pd.DataFrame(rows), f"{first['dataset']}: {first['evidence']}", frozenset(strong))


def _interval(rows: pd.DataFrame, output: str, value: str = "accuracy") -> Interval:
    if output not in rows.index:
        return mean_interval([])
    row = rows.loc[output]
    return Interval(row[value], row[f"{value}_low"], row[f"{value}_high"], int(row["n"]))


def _outputs(study: Study, dataset: str, name: str) -> list[str]:
    """A single-modality network has one output, which stands in its modality's column."""
    return [name.partition("+")[2]] if name.startswith("unimodal") else [*modalities(study, dataset), "fused"]


def _pick(frame: pd.DataFrame, cell, output: str) -> pd.DataFrame:
    return frame[
        (frame["dataset"] == cell.dataset) & (frame["name"] == cell.name) & (frame["output"] == output)
    ]


def _lead(cell) -> dict[str, str]:
    return {
        "dataset": cell.dataset,
        "evidence": cell.evidence,
        "fusion": cell.fusion,
        "method": label(cell.name),
    }


def _keys(cell) -> dict[str, str]:
    return {"dataset": cell.dataset, "level": cell.evidence, "fusion": cell.fusion, "method": cell.name}


def _difference(first: dict, second: dict, key: tuple) -> Interval:
    empty = pd.Series(dtype=float)
    return paired_difference(first.get(key, empty), second.get(key, empty))


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high, "n": interval.n}


def _one(rows: list[dict], heading: str = "") -> tuple[Block, ...]:
    return (Block(pd.DataFrame(rows), heading),)
