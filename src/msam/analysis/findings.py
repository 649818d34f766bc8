"""What the records say: paired comparisons, the state of each claim, sentences whose words they choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pandas as pd

from msam.analysis import levels, paper
from msam.analysis.metrics import by_seed, final_gaps, is_unimodal
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import Interval, paired_difference, supported_best
from msam.analysis.table import Block, Table, number

VERDICTS = {
    "higher": "is higher",
    "lower": "is lower",
    "apart": "cannot be told apart",
    "unknown": "too few common seeds",
}
CONTROLS = ("sam", "joint", "mixture")
NOT_TESTED = "not yet tested"
NO_RECORDS = "no records yet"
SAID = "what the records here say"


def verdict(difference: Interval) -> str:
    """A key of `VERDICTS`: what an interval of a difference allows to say."""
    if not difference.exists:
        return "unknown"
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "apart"


def compare_methods(study: Study, first: str, second: str, output: str = "fused") -> pd.DataFrame:
    """Test accuracy of `first` minus `second`, paired by seed, in each dataset x fusion that has either.

    Returns:
        A row for each: dataset, fusion, difference (Interval, fraction), verdict.
    """
    return _paired(study, by_seed(study.frames.runs, output), first, second)


def compare_gaps(study: Study, first: str, second: str) -> pd.DataFrame:
    """Fused overfitting gap tau of `first` minus `second`, as in `compare_methods`."""
    gaps = final_gaps(study.frames.runs)
    gaps = gaps[gaps["output"] == "fused"]
    values = {key: rows.set_index("seed")["tau"] for key, rows in gaps.groupby(["dataset", "fusion", "name"])}
    return _paired(study, values, first, second)


def pairwise_table(study: Study, first: str = "msam", others: Iterable[str] = CONTROLS) -> Table:
    """Differences of `first` to each of `others` in fused test accuracy, with intervals and words."""
    evidence = study.cells.set_index("dataset")["evidence"].to_dict()
    rows, data = [], []
    for other in others:
        for row in compare_methods(study, first, other).itertuples():
            points = row.difference.scaled(100)
            rows.append(
                {
                    "dataset": row.dataset,
                    "evidence": evidence[row.dataset],
                    "fusion": row.fusion,
                    "comparison": f"{label(first)} minus {label(other)}",
                    "difference (points)": number(points, 2, signed=True),
                    "n": points.n,
                    "reading": VERDICTS[row.verdict],
                }
            )
            data.append(
                {
                    "dataset": row.dataset,
                    "level": evidence[row.dataset],
                    "fusion": row.fusion,
                    "first": first,
                    "second": other,
                    "points": points.mean,
                    "low": points.low,
                    "high": points.high,
                    "n": points.n,
                    "reading": VERDICTS[row.verdict],
                }
            )
    note = "Fused test accuracy after the last epoch, in points, paired by seed, ± half of the 95 % interval."
    title = "Differences, paired by seed"
    return Table(
        title, (Block(pd.DataFrame(rows)),), pd.DataFrame(data), note, footer(study), file="comparisons"
    )


def count_sentence(study: Study, first: str, second: str) -> str:
    """In how many cells `first` is higher or lower than `second`, or cannot be told apart from it."""
    compared = compare_methods(study, first, second)
    if study.frames.runs.empty or compared.empty:
        return f"{label(first)} against {label(second)}: no records yet."
    return f"{label(first)} against {label(second)}: {_counts(study, compared)}."


def gap_sentence(study: Study, first: str, second: str) -> str:
    """As `count_sentence`, for the overfitting gap tau of the fused output."""
    empty = study.frames.runs.empty
    counts = NO_RECORDS if empty else _counts(study, compare_gaps(study, first, second))
    return f"Overfitting gap of {label(first)} against {label(second)}: {counts}."


def cell_sentence(study: Study, dataset: str, fusion: str, first: str, second: str) -> str:
    """One comparison in words, for instance "M-SAM is lower than SAM by 1.2 points (95 % interval ...)"."""
    compared = compare_methods(study, first, second)
    row = compared[(compared["dataset"] == dataset) & (compared["fusion"] == fusion)]
    where = f"on {dataset} with {fusion} fusion"
    if row.empty:
        return f"{label(first)} and {label(second)} have no records {where}."
    points = row.iloc[0]["difference"].scaled(100)
    interval = f"{number(points, 2, signed=True)} points over {points.n} seeds"
    if row.iloc[0]["verdict"] == "unknown":
        return f"{label(first)} and {label(second)} share too few seeds {where} to be compared."
    if row.iloc[0]["verdict"] == "apart":
        return f"{label(first)} and {label(second)} cannot be told apart {where} ({interval})."
    word = row.iloc[0]["verdict"]
    return f"{label(first)} is {word} than {label(second)} {where} ({interval})."


def answer(study: Study) -> str:
    """The overview's answer: M-SAM against each control, in as many sentences."""
    if study.frames.runs.empty:
        return "There are no records yet, so nothing can be said."
    sentences = [count_sentence(study, "msam", other) for other in CONTROLS]
    return " ".join(["In fused test accuracy, paired by seed with 95 % intervals:", *sentences])


def best_sentence(study: Study) -> str:
    """In how many dataset x fusion blocks a multimodal method is the supported best, and which."""
    best = supported(study)
    if not best:
        return "There are no records yet, so no method can be called best."
    names = Counter(name for name in best.values() if name)
    if not names:
        return f"In none of the {len(best)} blocks is a best method supported."
    parts = [f"{label(name)} in {n}" for name, n in names.most_common()]
    where = levels.share(study, [dataset for dataset, _ in best], map(bool, best.values()), "blocks")
    return f"A best method is supported in {where}: {', '.join(parts)}."


def supported(study: Study, rule: str = "last") -> dict[tuple[str, str], str | None]:
    """(dataset, fusion) -> the multimodal method supported as best, or None.

    A method that failed or is missing counts as not beaten; one that is not defined is left out.
    """
    if study.frames.runs.empty:
        return {}
    values = by_seed(study.frames.runs, rule=rule)
    cells = study.cells[~is_unimodal(study.cells["name"]) & (study.cells["state"] != "undefined")]
    empty = pd.Series(dtype=float)
    return {
        (dataset, fusion): supported_best(
            {name: values.get((dataset, fusion, name), empty) for name in block["name"]}
        )
        for (dataset, fusion), block in cells.groupby(["dataset", "fusion"], sort=False)
    }


def claims(study: Study) -> pd.DataFrame:
    """The paper's claims C1 to C8: claim, statement, place in the paper, what the records here say so far."""
    late, early = paper.margins("late", "SAM"), paper.margins("early", "SAM")
    over_sam = pd.concat([late, early])
    cells = len(over_sam)
    rows: list[tuple[str, str, str, str | Callable[[Study], str]]] = [
        ("C1", f"M-SAM has the highest fused accuracy in all {cells} cells", "Tables 1, 2", _best),
        (
            "C2",
            f"up to {_largest_relative_gain():.1f} % above the best other method",
            "Section 4.3.1, Tables 1, 2",
            _over_best_other,
        ),
        ("C3", "better generalization and flatter minima than AGM and SAM", "Figures 1, 2", _generalization),
        ("C4", "finding the dominant modality for each batch beats a fixed choice", "Section 3", NOT_TESTED),
        ("C5", "converges at the rate O(log T / sqrt T)", "Section 3.6", NOT_TESTED),
        ("C6", "works with both fusions and with two and three modalities", "Tables 1, 2", _scope),
        ("C7", "non-dominant modalities improve over joint training", "Tables 1, 2", _harmony),
        (
            "C8",
            f"beats SAM everywhere, by {over_sam.min():.2f} to {over_sam.max():.2f} points",
            "Tables 1, 2",
            _against_sam,
        ),
    ]
    empty = study.frames.runs.empty

    def say(text: str | Callable[[Study], str]) -> str:
        if isinstance(text, str):
            return text
        return NO_RECORDS if empty else text(study)

    said = [(claim, statement, place, say(text)) for claim, statement, place, text in rows]
    return pd.DataFrame(said, columns=["claim", "statement", "in the paper", SAID])


def claims_table(study: Study) -> Table:
    """`claims` as a table, with the evidence level on each row."""
    rows = claims(study)
    tested = ~rows[SAID].str.startswith((NOT_TESTED, NO_RECORDS))
    rows.insert(2, "evidence", tested.map({True: study.level, False: "none"}))
    rows.insert(2, SAID, rows.pop(SAID))
    note = (
        "Each count is over the cells of dataset and fusion in the records; a cell counts as higher or lower "
        "only where the 95 % interval of the difference, paired by seed, excludes zero."
    )
    title = "The paper's claims and what can be said so far"
    return Table(title, (Block(rows),), rows, note, footer(study), file="claims")


def _paired(study: Study, values: dict, first: str, second: str) -> pd.DataFrame:
    blocks = study.cells.loc[
        study.cells["name"].isin([first, second]), ["dataset", "fusion"]
    ].drop_duplicates()
    empty = pd.Series(dtype=float)
    rows = []
    for dataset, fusion in blocks.itertuples(index=False):
        one, two = (values.get((dataset, fusion, name), empty) for name in (first, second))
        difference = paired_difference(one, two)
        rows.append((dataset, fusion, difference, verdict(difference)))
    return pd.DataFrame(rows, columns=["dataset", "fusion", "difference", "verdict"])


def _counts(study: Study, compared: pd.DataFrame) -> str:
    """In how many rows of dataset and verdict each verdict was reached, by level."""
    datasets, verdicts = compared["dataset"], compared["verdict"]
    text = f"higher in {levels.share(study, datasets, verdicts == 'higher')}"
    text += f", lower in {levels.count(study, datasets, verdicts == 'lower')}"
    text += f", cannot be told apart in {levels.count(study, datasets, verdicts == 'apart')}"
    unknown = levels.count(study, datasets, verdicts == "unknown")
    return text if unknown == "0" else f"{text}, too few common seeds in {unknown}"


def _best(study: Study) -> str:
    """C1: among all multimodal methods of the records, the paper's and others."""
    best = supported(study)
    datasets = [dataset for dataset, _ in best]
    mine = [name == "msam" for name in best.values()]
    other = [name not in ("msam", None) for name in best.values()]
    none = [name is None for name in best.values()]
    return (
        f"supported as best in {levels.share(study, datasets, mine)}, another method in "
        f"{levels.count(study, datasets, other)}, none in {levels.count(study, datasets, none)}; "
        f"highest mean in {_highest_means(study)}"
    )


def _highest_means(study: Study) -> str:
    """In how many cells M-SAM has the highest mean accuracy of all multimodal methods."""
    runs = study.frames.runs
    means = pd.Series({k: v.mean() for k, v in by_seed(runs[~is_unimodal(runs["name"])]).items()})
    highest = means.groupby(level=[0, 1]).idxmax()
    return levels.count(study, [dataset for dataset, _, _ in highest], [n == "msam" for _, _, n in highest])


def _over_best_other(study: Study) -> str:
    """C2: against the method of the paper's table with the highest mean, where one of its baselines ran."""
    values = by_seed(study.frames.runs)
    gains, counts, rows = [], [], []
    for dataset, fusion in study.cells[["dataset", "fusion"]].drop_duplicates().itertuples(index=False):
        means = {
            name: values[dataset, fusion, name].mean()
            for name in paper.methods(fusion)
            if (dataset, fusion, name) in values
        }
        mine = means.pop("msam", None)
        if mine is None or not set(means) - {"joint", "sam"}:
            continue
        best = max(means, key=lambda name: means[name])
        difference = paired_difference(values[dataset, fusion, "msam"], values[dataset, fusion, best])
        gains.append(100 * (mine / means[best] - 1))
        counts.append(len(means))
        rows.append((dataset, verdict(difference)))
    if not rows:
        return f"{NOT_TESTED}: no record of those methods beside one of M-SAM"
    return (
        f"{min(gains):+.1f} to {max(gains):+.1f} % against the highest mean of {levels.span(counts)} other "
        f"methods of the paper's table: {_counts(study, pd.DataFrame(rows, columns=['dataset', 'verdict']))}"
    )


def _generalization(study: Study) -> str:
    ran = set(study.frames.runs["name"])
    parts = [
        f"against {label(other)}: "
        + (_counts(study, compare_gaps(study, "msam", other)) if other in ran else NO_RECORDS)
        for other in ("agm", "sam")
    ]
    return f"tau of M-SAM {'; '.join(parts)}; flatness {NOT_TESTED}"


def _scope(study: Study) -> str:
    cells = study.cells[study.cells["name"] == "msam"]
    done = cells[cells["state"] == "done"]
    sizes = sorted({len(modalities(study, dataset)) for dataset in done["dataset"]})
    fusions = " and ".join(done["fusion"].unique()) or "no"
    counts = " and ".join(map(str, sizes)) or "no"
    where = levels.share(study, cells["dataset"], cells["state"] == "done")
    return f"trained in {where}: {fusions} fusion, {counts} modalities"


def _harmony(study: Study) -> str:
    parts = []
    for dataset in study.datasets:
        for modality in modalities(study, dataset):
            compared = compare_methods(study, "msam", "joint", modality)
            compared = compared[compared["dataset"] == dataset]
            weak = [
                _dominant(study, dataset, fusion) not in (modality, None) for fusion in compared["fusion"]
            ]
            parts.append(compared[weak])
    compared = pd.concat(parts) if parts else pd.DataFrame(columns=["dataset", "verdict"])
    return f"accuracy of non-dominant modalities against joint: {_counts(study, compared)}"


def _dominant(study: Study, dataset: str, fusion: str) -> str | None:
    """The modality that dominated the most batches of M-SAM."""
    rows = study.frames.dominance
    rows = rows[(rows["dataset"] == dataset) & (rows["fusion"] == fusion) & (rows["name"] == "msam")]
    counts = rows.groupby("modality")["count"].sum()
    return None if counts.empty else str(counts.idxmax())


def _against_sam(study: Study) -> str:
    return _counts(study, compare_methods(study, "msam", "sam"))


def _largest_relative_gain() -> float:
    """The largest gain over CGGM with early fusion in percent: the only reading that gives the claim."""
    rows = paper.reported().query("output == 'fused' and fusion == 'early'")
    table = rows.pivot(index="method", columns="dataset", values="accuracy")
    return float((100 * (table.loc["M-SAM"] / table.loc["CGGM"] - 1)).max())
