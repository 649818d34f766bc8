"""What the paper does not test: noisy and missing modalities, wrong labels, datasets of other kinds."""

from __future__ import annotations

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, compare_methods, verdict
from msam.analysis.metrics import by_seed, per_seed
from msam.analysis.names import in_order, label
from msam.analysis.probes import MISSING, differences, robustness
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import mean_interval, paired_difference, spread
from msam.analysis.sweep import Cells, swept
from msam.analysis.table import Block, Table, number, percent

FIRST, OTHERS = "msam", ("joint", "sam")
OPTION = "label_noise"


def disturbed(study: Study, level: float | str) -> pd.DataFrame:
    """Test accuracy in percent with one modality disturbed: the rows of `robustness` of one level."""
    rows = robustness(study)
    rows = rows[rows["level"] == level]
    return rows.assign(value=100 * rows["value"])


def robustness_table(study: Study) -> Table:
    """Test accuracy of every method with each modality clean, noisy or missing."""
    found = robustness(study)
    rows, data = [], []
    for (dataset, fusion, part), block in found.groupby(["dataset", "fusion", "part"], sort=False):
        for name in in_order(block["name"]):
            mine = block[block["name"] == name]
            where = {"dataset": dataset, "evidence": evidence(study, dataset), "fusion": fusion}
            intervals = {
                level: mean_interval(values) for level, values in mine.groupby("level", sort=False)["value"]
            }
            texts = {_level_text(level): percent(interval) for level, interval in intervals.items()}
            seeds = levels.span(interval.n for interval in intervals.values())
            rows.append(where | {"disturbed": part, "method": label(name)} | texts | {"n": seeds})
            data += [
                where | {"modality": part, "name": name, "level": level} | spread("accuracy", interval)
                for level, interval in intervals.items()
            ]
    note = (
        "Fused test accuracy in percent, ± half of the 95 % interval over n seeds. Noise is Gaussian, in "
        "standard deviations of that input in the train split; a missing modality is a zero input. No method "
        "saw either in training."
    )
    title = "Test accuracy with one modality disturbed"
    return Table(
        title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(study), file="robustness"
    )


def label_noise(study: Study, main: Study) -> Cells:
    """Test accuracy in percent of the cells with wrong labels, and of those without, from the main study."""
    noisy = {key: 100 * series for key, series in by_seed(study.frames.runs).items()}
    blocks = {(dataset, fusion, name.partition("+")[0]) for dataset, fusion, name in noisy}
    clean = {
        (dataset, fusion, f"{name}+{OPTION}_0.0"): 100 * series
        for (dataset, fusion, name), series in by_seed(main.frames.runs).items()
        if (dataset, fusion, name) in blocks
    }
    return clean | noisy


def label_table(study: Study, main: Study) -> Table:
    """`label_noise` as a table, with the differences of M-SAM to the others."""
    found = swept(label_noise(study, main), OPTION)
    rows, data = [], []
    for (dataset, fusion, x), block in found.groupby(["dataset", "fusion", "x"], sort=True):
        where = {"dataset": dataset, "evidence": evidence(study, dataset), "fusion": fusion}
        values = per_seed(block, by="method")
        texts = {label(name): number(mean_interval(values[name]), 1) for name in in_order(values)}
        for other in OTHERS:
            if FIRST in values and other in values:
                difference = paired_difference(values[FIRST], values[other])
                texts[f"M-SAM minus {label(other)}"] = (
                    f"{number(difference, 2, signed=True)} {VERDICTS[verdict(difference)]}"
                )
        seeds = levels.span(len(values[name]) for name in values)
        rows.append(where | {"wrong labels (%)": f"{100 * x:g}"} | texts | {"n": seeds})
        data += [
            where | {"label_noise": x, "name": name} | spread("accuracy", mean_interval(series))
            for name, series in values.items()
        ]
    note = (
        "Fused test accuracy in percent after the last epoch, ± half of the 95 % interval; differences in "
        "points, paired by seed. Labels of the train split only, each wrong one drawn from the other "
        "classes; learning rates and radii are those of the main study, whose runs the rows without "
        "wrong labels are."
    )
    title = "Test accuracy with wrong labels in training"
    return Table(title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(study), file="labels")


def further(main: Study) -> list[str]:
    """The datasets that the paper does not have: those that stand for none of its datasets."""
    return [d for d in main.datasets if not main.descriptions.get(d, {"stands_for": True})["stands_for"]]


def further_differences(main: Study) -> pd.DataFrame:
    """M-SAM minus each other method on the further datasets, as in `compare_methods`, and other."""
    parts = [compare_methods(main, FIRST, other).assign(other=other) for other in OTHERS]
    found = pd.concat(parts, ignore_index=True)
    return found[found["dataset"].isin(further(main))]


def further_table(main: Study) -> Table:
    """`further_differences` as a table."""
    found = further_differences(main)
    rows, data = [], []
    for row in found.itertuples():
        where = {"dataset": row.dataset, "evidence": evidence(main, row.dataset), "fusion": row.fusion}
        points = row.difference.scaled(100)
        rows.append(
            where
            | {
                "comparison": f"{label(FIRST)} minus {label(row.other)}",
                "difference (points)": number(points, 2, signed=True),
                "n": points.n,
                "reading": VERDICTS[row.verdict],
            }
        )
        data.append(where | {"first": FIRST, "second": row.other} | spread("points", points))
    note = "Fused test accuracy after the last epoch, in points, paired by seed, ± half of the 95 % interval."
    title = "Datasets that the paper does not have"
    return Table(
        title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(main), file="further_datasets"
    )


def disturbed_sentence(study: Study, labels: Study) -> str:
    """In how many cases M-SAM is higher than joint training and SAM with a disturbance of any kind."""
    rows = robustness(study)
    rows = rows[rows["level"] != 0.0]
    found = differences(rows, FIRST, OTHERS, ["part", "level"])
    kinds = {
        "with noise in a modality": found[found["level"] != MISSING],
        "with a missing modality": found[found["level"] == MISSING],
        "with wrong labels": _label_differences(labels),
    }
    parts = [f"{text} {_counted(study, mine)}" for text, mine in kinds.items() if len(mine)]
    if not parts:
        return "There are no records of disturbed inputs or labels yet."
    return f"M-SAM's test accuracy, paired by seed, is {'; '.join(parts)}."


def further_sentence(main: Study) -> str:
    """In how many cells of further datasets M-SAM is higher than joint training and SAM."""
    found = further_differences(main)
    if found.empty:
        return "There are no records of a dataset that the paper does not have yet."
    names = [dataset for dataset in further(main) if (found["dataset"] == dataset).any()]
    return f"On the datasets that the paper does not have ({', '.join(names)}) it is {_counted(main, found)}."


def _label_differences(study: Study) -> pd.DataFrame:
    rows = swept(by_seed(study.frames.runs), OPTION).rename(columns={"method": "name"})
    return differences(rows, FIRST, OTHERS, ["x"])


def _counted(study: Study, rows: pd.DataFrame) -> str:
    """What the intervals support: "higher than SAM in 1 of 6 cells and lower in 0"."""
    texts = []
    for other in OTHERS:
        mine = rows[rows["other"] == other]
        words = [verdict(difference) for difference in mine["difference"]]
        higher, lower = ([word == which for word in words] for which in ("higher", "lower"))
        text = f"higher than {label(other)} in {levels.share(study, mine['dataset'], higher, 'cases')}"
        text += f" and lower in {levels.count(study, mine['dataset'], lower)}"
        texts += [text] if len(mine) else []
    return ", ".join(texts)


def _level_text(level: float | str) -> str:
    return "missing" if level == MISSING else "clean" if level == 0 else f"noise {level:g}"
