"""What choosing the epoch adds to a method's accuracy, and whether it changes the order of the methods."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from msam.analysis import levels, paper
from msam.analysis.findings import supported
from msam.analysis.names import in_order, joined, label
from msam.analysis.provenance import footer
from msam.analysis.ranking import grids, overall, ranking
from msam.analysis.ranking_table import parts, span
from msam.analysis.sources import Study
from msam.analysis.statistics import spread
from msam.analysis.table import DASH, Block, Table, grouped, number
from msam.analysis.tables import RULES

DIFFERENCES = {
    "validation": ("best_validation", "last"),
    "test": ("best_test", "best_validation"),
    "both": ("best_test", "last"),
}
"""What is compared: the second rule is taken away from the first."""

NO_RECORDS = "There are no records yet, so no rule can be compared."
ONE_METHOD = "Only one method has runs in all blocks, so there is no order to compare."


def said(difference: str) -> str:
    """A difference of two rules in words."""
    first, second = DIFFERENCES[difference]
    return f"{RULES[first]} minus {RULES[second]}"


def gains(study: Study, level: str | None = None) -> pd.DataFrame:
    """Fused test accuracy by one rule minus that by another, of the same runs, mean over the blocks.

    Args:
        study: the records.
        level: evidence level of the blocks; all blocks if not given.

    Returns:
        A row for each multimodal method: name, blocks, complete (whether these are all), and an Interval
        (fraction, see `ranking.overall`) for each of `DIFFERENCES`.
    """
    values = {rule: grids(study, level, rule) for rule in RULES}
    names = in_order(name for grid in values["last"].values() for name in grid.columns)
    rows = []
    for name in names:
        where = [key for key, grid in values["last"].items() if name in grid.columns]
        row = {"name": name, "blocks": len(where), "complete": len(where) == len(values["last"])}
        for difference, (first, second) in DIFFERENCES.items():
            series = [values[first][key][name] - values[second][key][name] for key in where]
            row[difference] = overall(levels.grouped(study, [dataset for dataset, _ in where], series))
        rows.append(row)
    out = pd.DataFrame(rows, columns=["name", "blocks", "complete", *DIFFERENCES])
    return out.astype({"complete": bool})


def places(study: Study) -> pd.DataFrame:
    """Mean ranks by each rule of the methods that have runs in all blocks.

    Returns:
        Methods, best by the last epoch first, x rules: Interval.
    """
    found = {rule: ranking(study, rule=rule) for rule in RULES}
    columns = {rule: part[part["complete"]].set_index("name")["rank"] for rule, part in found.items()}
    return pd.DataFrame(columns, columns=list(RULES)).reindex(columns["last"].index)


def agreement(ranks: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Kendall's tau-b between the mean ranks by two rules, for each pair; NaN for fewer than two methods."""
    from scipy.stats import kendalltau

    means = ranks.map(lambda rank: rank.mean)
    return {
        (one, two): float(kendalltau(means[one], means[two]).statistic) if len(means) > 1 else float("nan")
        for one, two in combinations(ranks.columns, 2)
    }


def changed(study: Study, rule: str) -> dict[tuple[str, str], bool]:
    """(dataset, fusion) -> whether this rule supports another best method than the last epoch, or none."""
    last, other = supported(study), supported(study, rule)
    return {key: last[key] != other[key] for key in last}


def gains_table(study: Study) -> Table:
    """`gains` of every method in points, for all levels together and each apart."""
    found = {heading: gains(study, level) for heading, level in parts(study).items()}
    names = in_order(name for part in found.values() for name in part["name"])
    rows, data = [], []
    for name in names:
        row: dict[tuple[str, str], object] = {("", "method"): label(name)}
        for heading, part in found.items():
            mine = part[part["name"] == name]
            for difference in DIFFERENCES:
                points = mine[difference].iloc[0].scaled(100) if len(mine) else None
                column = (heading, said(difference))
                row[column] = number(points, 2, signed=True) if points else DASH
                if points:
                    where = {"method": name, "evidence": heading, "difference": said(difference)}
                    data.append(where | spread("points", points))
            row[heading, "blocks"] = mine["blocks"].iloc[0] if len(mine) else 0
        rows.append(row)
    note = (
        "Fused test accuracy in points, of the same runs, mean over the blocks, ± half of the 95 % interval "
        "over seeds (levels together: Welch's). The best test epoch can never be below another; that its "
        "difference is above zero is no finding, how large it is, is one."
    )
    title = "What the choice of the epoch adds"
    return Table(title, (Block(grouped(rows)),), pd.DataFrame(data), note, footer(study), file="selection")


def order_table(study: Study) -> Table:
    """Mean rank of every method in all blocks by each rule, and Kendall's tau between the orders."""
    ranks = places(study)
    where = study.level if len(ranks) else ""
    rows = [
        {("", "method"): label(str(name))}
        | {(f"evidence: {where}", RULES[rule]): span(row[rule], 1) for rule in RULES}
        for name, row in ranks.iterrows()
    ]
    strong = set()
    for rule in RULES if len(ranks) else ():
        strong.add((_order(ranks, rule).index(0), (f"evidence: {where}", RULES[rule])))
    data = pd.DataFrame(
        [
            {"method": name, "rule": RULES[rule], **spread("rank", row[rule])}
            for name, row in ranks.iterrows()
            for rule in RULES
        ]
    )
    note = (
        "Mean rank over seeds and blocks by fused test accuracy, 1 is best, with its 95 % bootstrap "
        "interval; bold is the best."
    )
    if len(ranks) > 1:
        agree = (f"{RULES[a]} and {RULES[b]} {tau:.2f}" for (a, b), tau in agreement(ranks).items())
        note += f" Kendall's tau between the orders: {', '.join(agree)}."
    title = "The order of the methods by each rule"
    block = Block(grouped(rows), strong=frozenset(strong))
    return Table(title, (block,), data, note, footer(study), file="selection_order")


def gains_sentence(study: Study) -> str:
    """What the best test epoch adds in the mean over methods, and beside the paper's margins."""
    found = gains(study)
    found = found[found["complete"]]
    if found.empty:
        return NO_RECORDS
    means = {name: 100 * found[name].map(lambda interval: interval.mean) for name in DIFFERENCES}
    both, test = means["both"], means["test"]
    margins = pd.concat([paper.margins(fusion) for fusion in ("late", "early")])
    least, most = (label(found.loc[at, "name"]) for at in (both.idxmin(), both.idxmax()))
    return (
        f"Reporting the best test epoch adds {both.mean():.2f} points to the last epoch in the mean over "
        f"{len(found)} methods ({both.min():.2f} for {least} to {both.max():.2f} for {most}) and "
        f"{test.mean():.2f} to the best validation epoch; {(margins < both.mean()).sum()} of the paper's "
        f"{len(margins)} margins over the best other method are smaller than the first of these."
    )


def order_sentence(study: Study, name: str = "msam") -> str:
    """Whether the rule changes the order of the methods, who is first, and where one of them stands."""
    ranks = places(study)
    if len(ranks) < 2:
        return ONE_METHOD if len(ranks) else NO_RECORDS
    tau = agreement(ranks)
    first = {rule: label(str(ranks.index[_order(ranks, rule).index(0)])) for rule in RULES}
    if len(set(first.values())) == 1:
        lead = f"{first['last']} has the best mean rank by every rule"
    else:
        who = joined(f"{name} by the {RULES[rule]}" for rule, name in first.items())
        lead = f"the method with the best mean rank is {who}"
    mine = (
        f"{label(name)} is number "
        f"{joined(1 + _order(ranks, rule)[ranks.index.get_loc(name)] for rule in RULES)} of {len(ranks)} by "
        f"the {joined(RULES.values())}"
        if name in ranks.index
        else f"{label(name)} has no runs in some blocks"
    )
    other = changed(study, "best_test")
    where = levels.share(study, [dataset for dataset, _ in other], other.values())
    return (
        "The order by the best test epoch agrees with that by the last epoch to a Kendall's tau of "
        f"{tau['last', 'best_test']:.2f}: {lead}, {mine}, and the method supported as best, or that there is "
        f"none, changes in {where}."
    )


def _order(ranks: pd.DataFrame, rule: str) -> list[int]:
    """How many methods have a better mean rank by a rule than each; of equal ones the upper row is first."""
    means = ranks[rule].map(lambda rank: rank.mean)
    return (means.rank(method="first").astype(int) - 1).tolist()
