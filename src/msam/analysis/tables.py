"""What depends on our definitions: the epoch that is tested, the accuracy of a modality."""

from __future__ import annotations

import pandas as pd

from msam.analysis.metrics import by_seed
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import Interval, mean_interval, paired_difference, spread
from msam.analysis.table import Block, Table, number, percent

RULES = {"last": "last epoch", "best_validation": "best validation epoch", "best_test": "best test epoch"}


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
        data.append({**_keys(cell), **numbers, **spread("optimism", optimism)})
    note = (
        "Fused test accuracy in percent. Optimism: best test epoch minus best validation epoch, paired by "
        "seed, with its 95 % interval: what choosing the epoch on the test split adds."
    )
    title = "Three rules for choosing the epoch"
    return Table(title, _one(rows), pd.DataFrame(data), note, footer(study), file="selection_rules")


def rules_sentence(study: Study) -> str:
    """How much choosing the epoch on the test split adds, over the cells with numbers."""
    by_rule = {rule: by_seed(study.frames.runs, rule=rule) for rule in ("best_test", "best_validation")}
    keys = by_rule["best_test"].keys()
    points = [100 * _difference(by_rule["best_test"], by_rule["best_validation"], key).mean for key in keys]
    if not points:
        return "There are no records yet."
    return (
        f"Choosing the best test epoch instead of the best validation epoch adds {min(points):.2f} to "
        f"{max(points):.2f} points over {len(points)} cells, {sum(points) / len(points):.2f} in the mean."
    )


def heads_table(study: Study) -> Table:
    """Late fusion: accuracy of each modality's Shapley response beside that of its own linear head."""
    runs = study.frames.runs
    names = sorted({name for dataset in study.datasets for name in modalities(study, dataset)})
    responses = {name: by_seed(runs, name) for name in names}
    heads = {name: by_seed(runs, name, value="head_accuracy") for name in names}
    empty = pd.Series(dtype=float)
    rows, data = [], []
    for cell in study.cells.itertuples():
        if cell.fusion != "late" or cell.name.startswith("unimodal"):
            continue
        for modality in modalities(study, cell.dataset):
            key = (cell.dataset, cell.fusion, cell.name)
            response, head = responses[modality].get(key, empty), heads[modality].get(key, empty)
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
            data.append(_keys(cell) | {"modality": modality} | spread("difference", difference))
    note = "Test accuracy in percent after the last epoch; differences paired by seed with 95 % intervals."
    title = "Two definitions of a modality's accuracy, late fusion"
    return Table(title, _one(rows), pd.DataFrame(data), note, footer(study), file="heads")


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


def _one(rows: list[dict], heading: str = "") -> tuple[Block, ...]:
    return (Block(pd.DataFrame(rows), heading),)
