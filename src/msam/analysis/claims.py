"""The paper's claims C1 to C8: the elementary tests of each, made from the records of one profile.

`msam claims` writes what `evaluate` gives to <results>/<profile>/claims.json, which the overview page reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from msam.analysis import paper, profiles, rate, sources
from msam.analysis.dominance import dominant_by_seed
from msam.analysis.metrics import by_seed, gaps_by_seed, per_seed, relative_gain
from msam.analysis.names import label
from msam.analysis.probes import WHOLE, log_flatness
from msam.analysis.provenance import commits
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import equivalent, paired_test
from msam.analysis.verdicts import ALPHA, RULE, SEEDS, Block, Check, judge, signed, untested
from msam.records import commit_name

MARGIN = 0.009  # of accuracy: less than the paper's smallest gain over SAM, 0.91 points
FILE = "claims.json"
STUDIES = ("main", "probes", "dominance")

POINTS, PERCENT = "points of test accuracy", "% of the other method's test accuracy"
FLATNESS = {
    "hessian_top": "log10 of the largest Hessian eigenvalue",
    "adaptive_sharpness": "log10 of the adaptive sharpness",
}
COMPARED = ("agm", "sam")  # what the paper's text and Figures 1 and 2 call less flat

Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Evidence:
    """The records of one profile, study by study."""

    main: Study
    probes: Study
    dominance: Study

    @cached_property
    def blocks(self) -> list[Block]:
        """(dataset, fusion) of every M-SAM cell of the main study, also those without a record."""
        cells = self.main.cells
        rows = cells.loc[cells["name"] == "msam", ["dataset", "fusion"]]
        return list(rows.itertuples(index=False, name=None))

    @cached_property
    def accuracy(self) -> dict[Cell, pd.Series]:
        """Fused test accuracy of the main study after the last epoch, by seed."""
        return by_seed(self.main.frames.runs)


@dataclass(frozen=True)
class Claim:
    """What the paper says, how it is tested here, and which page shows more."""

    name: str
    statement: str
    place: str
    rule: str
    page: str
    checks: Callable[[Evidence], Iterable[Check]]


def evaluate(root: str | Path, profile: str) -> dict[str, Any]:
    """Every claim judged by the records of a profile: what the file `claims.json` holds."""
    evidence = Evidence(*(sources.read(root, study, [profile]) for study in STUDIES))
    judged = [
        {"claim": one.name, "statement": one.statement, "place": one.place, "rule": one.rule}
        | judge(list(one.checks(evidence)))
        for one in claims()
    ]
    return {
        "schema": 1,
        "profile": profile,
        "level": evidence.main.level,
        "rule": RULE,
        "alpha": ALPHA,
        "seeds": SEEDS,
        "margin": MARGIN,
        "commits": _commits(evidence, {path for one in judged for path in one["records"]}),
        "claims": judged,
    }


def _commits(evidence: Evidence, used: set[str]) -> list[str]:
    """The commits that made the records used."""
    cells = pd.concat([study.frames.cells for study in (evidence.main, evidence.probes, evidence.dominance)])
    found = commits(cells[cells["path"].isin(used)])
    if record := rate.read(evidence.main.root):
        found.append(commit_name(record["provenance"]["commit"], record["provenance"]["dirty"]))
    return found


def evaluate_all(root: str | Path) -> dict[str, dict[str, Any]]:
    """Profile -> `evaluate` of it, for every profile that the pages show."""
    return {profile: evaluate(root, profile) for profile in profiles.shown(Path(root).resolve())}


def read_all(root: str | Path) -> dict[str, dict[str, Any]]:
    """`evaluate_all`, taken from the files that `write` has left, where there are any."""
    found = {}
    for profile in profiles.shown(Path(root).resolve()):
        path = Path(root, profile, FILE)
        found[profile] = json.loads(path.read_text()) if path.is_file() else evaluate(root, profile)
    return found


def write(root: Path) -> dict[str, dict[str, Any]]:
    """Write the file of each profile; what was written."""
    from msam import records

    found = evaluate_all(root)
    for profile, judged in found.items():
        records.write(root / profile / FILE, judged)
    return found


def over_sam() -> pd.Series:
    """The paper's gains over SAM in fused accuracy, in points, a row a cell of its tables."""
    return pd.concat([paper.margins("late", "SAM"), paper.margins("early", "SAM")])


def claims() -> list[Claim]:
    """The eight claims; numbers in their statements are those of the paper's tables."""
    gains = over_sam()
    margin = f"{100 * MARGIN:g} points"
    return [
        Claim(
            "C1",
            f"M-SAM has the highest fused accuracy in all {len(gains)} cells",
            "Tables 1, 2",
            "A test a block: M-SAM is higher than every other method of the paper's table (largest p of the "
            "comparisons; a method without records counts as not beaten, one with a diverged run is no "
            "candidate), against: some method is higher (smallest p times their number). Effect: M-SAM minus "
            "the method of the largest p, without an interval, because the results choose that method: it is "
            "below zero even if all are equal.",
            "results",
            _highest_of_table,
        ),
        Claim(
            "C2",
            f"up to {_largest_relative_gain():.1f} % above the best other method",
            "Section 4.3.1, Tables 1, 2",
            "A test a block: M-SAM is higher than the method of the paper's table with the best mean "
            "validation accuracy after the last epoch, so that the choice does not use the test split. A "
            "method with a diverged run is no candidate. Not tested where another has too few seeds. Effect: "
            "relative gain in %.",
            "ranking",
            _over_best_other,
        ),
        Claim(
            "C3",
            "better generalization and flatter minima than AGM and SAM",
            "Figures 1, 2",
            "Six tests a block: tau of the fused output, the largest Hessian eigenvalue and the adaptive "
            "sharpness of the whole network, each against AGM and against SAM. Effect: the other method's "
            "minus M-SAM's, of the two sharpnesses in log10, as they differ by orders of magnitude between "
            "datasets. The networks are those of each method's own learning rate and radius. The "
            "claim has four parts: generalization and flatness, against AGM and against SAM.",
            "flatness",
            _flatter,
        ),
        Claim(
            "C4",
            "finding the dominant modality for each batch beats a fixed choice",
            "Section 3",
            "A test a block, as for C1: M-SAM is higher than M-SAM with each modality as a fixed choice. "
            "In the reading `loss` a choice only changes the weight of the SAM gradient.",
            "ablation_dominance",
            _over_fixed,
        ),
        Claim(
            "C5",
            "converges at the rate O(log T / sqrt T)",
            "Section 3.6",
            "A test a rule that selects a modality: the slope of log(ratio) against log T is below zero; "
            "the ratio is the average squared gradient norm over the claimed rate. It is measured where the "
            "gradient is known, on a smooth non-convex problem, the same for every profile. Effect: minus "
            "the slope.",
            "rate",
            _rate,
        ),
        Claim(
            "C6",
            "works with both fusions and with two and three modalities",
            "Tables 1, 2",
            f"A test a block: no seed failed, M-SAM is above the largest class share of the test split, and "
            f"less than {margin} below joint training (larger p of the two), against: M-SAM is below that "
            f"share or more than {margin} below joint training (smaller p times two). A fusion or number of "
            "modalities without data counts as a test not made. Effect: M-SAM minus joint training.",
            "results",
            _works,
        ),
        Claim(
            "C7",
            "non-dominant modalities improve over joint training",
            "Tables 1, 2",
            "A test a block, non-dominant modality and definition of its accuracy: by Shapley response, and "
            "for late fusion also by the modality's own head. Dominant is the one that dominated the most "
            "batches; not tested where M-SAM's runs disagree on it. With early fusion the response "
            "contains a part of the fused output. Effect: M-SAM minus joint training.",
            "results",
            _harmonizes,
        ),
        Claim(
            "C8",
            f"beats SAM everywhere, by {gains.min():.2f} to {gains.max():.2f} points",
            "Tables 1, 2",
            f"A test a block: M-SAM is higher than SAM, each at its own settings from the search. Beside it "
            f"an equivalence test: the difference is less than {margin} either way. The page compares them "
            "at equal settings too.",
            "ranking",
            _over_sam,
        ),
    ]


def _highest_of_table(evidence: Evidence) -> Iterator[Check]:
    for block in evidence.blocks:
        rivals = _table_rivals(evidence, block)
        values = {name: evidence.accuracy.get((*block, name)) for name in ("msam", *rivals)}
        yield _highest(block, values, _paths(evidence.main, block, values))


def _over_best_other(evidence: Evidence) -> Iterator[Check]:
    validation = by_seed(evidence.main.frames.runs, split="validation")
    what = "M-SAM against the best other method on validation"
    for block in evidence.blocks:
        rivals = _table_rivals(evidence, block)
        mine = evidence.accuracy.get((*block, "msam"))
        others = {name: evidence.accuracy.get((*block, name)) for name in rivals}
        records = _paths(evidence.main, block, ["msam", *rivals])
        lacking = [label(name) for name, other in others.items() if len(_minus(mine, other)) < SEEDS]
        if lacking or not rivals:
            reason = f"too few seeds of {', '.join(lacking)}" if lacking else "there is none"
            yield untested(block, f"{what}: {reason}", PERCENT, records)
            continue
        best = max(rivals, key=lambda name: validation[*block, name].mean())
        gain = relative_gain(mine, others[best])
        yield signed(block, f"{what}, {label(best)}", PERCENT, gain, records)


def _flatter(evidence: Evidence) -> Iterator[Check]:
    measures = [(evidence.main, "tau", gaps_by_seed(evidence.main.frames.runs))]
    probed = _flatness(evidence.probes)
    measures += [(evidence.probes, text, probed.get(key, {})) for key, text in FLATNESS.items()]
    for block, (study, unit, values), other in product(evidence.blocks, measures, COMPARED):
        effect = _minus(values.get((*block, other)), values.get((*block, "msam")))
        what = f"{unit} of {label(other)} minus that of M-SAM"
        part = f"{'generalization' if unit == 'tau' else 'flatness'} against {label(other)}"
        yield signed(block, what, unit, effect, _paths(study, block, ["msam", other]), part=part)


def _over_fixed(evidence: Evidence) -> Iterator[Check]:
    accuracy = by_seed(evidence.dominance.frames.runs)
    for block in evidence.blocks:
        names = ["msam", *(f"msam+fixed_{m}" for m in modalities(evidence.main, block[0]))]
        values = {name: accuracy.get((*block, name)) for name in names}
        yield _highest(block, values, _paths(evidence.dominance, block, names))


def _rate(evidence: Evidence) -> Iterator[Check]:
    found = rate.slopes(rate.read(evidence.main.root))
    for rule, name in rate.NAMES.items():
        if rule in found and rule not in ("sam", "sgd"):
            yield signed(
                ("problem of known gradient", "late"), name, "minus slope", -found[rule], (rate.RECORD,)
            )


def _works(evidence: Evidence) -> Iterator[Check]:
    sizes = {block: len(modalities(evidence.main, block[0])) for block in evidence.blocks}
    for block, size in sizes.items():
        yield _trains(evidence, block, f"{size} modalities: M-SAM above chance and not below joint")
    covered = {(fusion, size) for (_, fusion), size in sizes.items()}
    for fusion, size in product(("late", "early"), (2, 3)):
        if evidence.blocks and (fusion, size) not in covered:
            yield untested(("none", fusion), f"{size} modalities: no data", POINTS)


def _trains(evidence: Evidence, block: Block, what: str) -> Check:
    mine, joint = (evidence.accuracy.get((*block, name)) for name in ("msam", "joint"))
    records = _paths(evidence.main, block, ["msam", "joint"])
    splits = evidence.main.descriptions.get(block[0], {}).get("splits")
    if mine is None or joint is None or splits is None:
        return untested(block, what, POINTS, records)
    counts = splits["test"]["class_counts"]
    over_chance, difference = mine - max(counts) / sum(counts), (mine - joint).dropna()
    parts = (over_chance.dropna(), difference + MARGIN)
    support = max(paired_test(part, "greater") for part in parts)
    against = min(1.0, len(parts) * min(paired_test(part, "less") for part in parts))
    seeds = evidence.main.frames.seeds
    states = seeds.loc[(seeds[["dataset", "fusion", "name"]] == [*block, "msam"]).all(axis=1), "state"]
    support = support if (states == "done").all() else 1.0
    return Check(block, what, POINTS, 100 * difference, support, against, records=records)


def _harmonizes(evidence: Evidence) -> Iterator[Check]:
    runs = evidence.main.frames.runs
    for block in evidence.blocks:
        names, found = modalities(evidence.main, block[0]), dominant_by_seed(evidence.main, *block)
        records = _paths(evidence.main, block, ["msam", "joint"])
        if len(found) != 1:
            what = "M-SAM's runs disagree on it" if found else "is not known"
            yield untested(block, f"the dominant modality: {what}", POINTS, records)
            continue
        (dominant,) = found
        definitions = {"accuracy": "by Shapley response"}
        definitions |= {"head_accuracy": "by its own head"} if block[1] == "late" else {}
        for name, (column, text) in product(names, definitions.items()):
            if name != dominant:
                values = by_seed(runs, name, value=column)
                effect = 100 * _minus(values.get((*block, "msam")), values.get((*block, "joint")))
                yield signed(block, f"{name} {text}, {dominant} dominant", POINTS, effect, records)


def _over_sam(evidence: Evidence) -> Iterator[Check]:
    for block in evidence.blocks:
        effect = _minus(*(evidence.accuracy.get((*block, name)) for name in ("msam", "sam")))
        records = _paths(evidence.main, block, ["msam", "sam"])
        equal = equivalent(effect.dropna(), MARGIN)
        yield signed(block, "M-SAM against SAM", POINTS, 100 * effect, records, equal)


def _highest(block: Block, values: Mapping[str, pd.Series | None], records: Sequence[str]) -> Check:
    """The test that M-SAM is higher than each other method: all comparisons have to hold at once.

    Args:
        block: dataset and fusion.
        values: "msam" and every other method -> its accuracies by seed, None without a record.
        records: of all of them.
    """
    others = [name for name in values if name != "msam"]
    differences = {name: _minus(values["msam"], values[name]).dropna() for name in others}
    made = {name: by for name, by in differences.items() if len(by) >= SEEDS}
    what = f"M-SAM against each of {len(others)} others"
    if not made:
        return untested(block, what, POINTS, records)
    p_values = {name: paired_test(by, "greater") for name, by in made.items()}
    closest = max(p_values, key=lambda name: p_values[name])
    support = p_values[closest] if len(made) == len(others) else 1.0
    against = min(1.0, len(made) * min(paired_test(by, "less") for by in made.values()))
    what += f", effect against {label(closest)}"
    return Check(
        block, what, POINTS, 100 * made[closest], support, against, chosen=True, records=tuple(records)
    )


def _table_rivals(evidence: Evidence, block: Block) -> list[str]:
    """The other methods of the paper's table that are defined in a block and have no diverged run there."""

    def names(rows: pd.DataFrame, state: str) -> set[str]:
        here = (rows["dataset"] == block[0]) & (rows["fusion"] == block[1]) & (rows["state"] == state)
        return set(rows.loc[here, "name"])

    out = names(evidence.main.cells, "undefined") | names(evidence.main.frames.seeds, "diverged") | {"msam"}
    return [name for name in paper.methods(block[1]) if name not in out]


def _minus(first: pd.Series | None, second: pd.Series | None) -> pd.Series:
    """The first minus the second over the seeds of both; empty where one is absent."""
    return pd.Series(dtype=float) if first is None or second is None else (first - second).dropna()


def _flatness(study: Study) -> dict[str, dict[Cell, pd.Series]]:
    """Measure -> its log10 of the whole network by seed, of every probed cell."""
    rows = log_flatness(study)
    rows = rows[rows["part"] == WHOLE]
    return {key: per_seed(part) for key, part in rows.groupby("measure")}


def _paths(study: Study, block: Block, names: Iterable[str]) -> tuple[str, ...]:
    """The records of these methods in a block, as paths under the root."""
    cells = study.frames.cells
    here = cells[
        (cells["dataset"] == block[0]) & (cells["fusion"] == block[1]) & cells["name"].isin(list(names))
    ]
    return tuple(here.loc[here["state"] == "done", "path"])


def _largest_relative_gain() -> float:
    """The largest gain over CGGM with early fusion in percent: it is the upper end that the paper claims."""
    rows = paper.reported().query("output == 'fused' and fusion == 'early'")
    table = rows.pivot(index="method", columns="dataset", values="accuracy")
    return float((100 * (table.loc["M-SAM"] / table.loc["CGGM"] - 1)).max())
