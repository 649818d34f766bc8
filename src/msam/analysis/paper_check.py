"""The paper against itself: its formulas with numbers put in, its sentences against its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from msam.analysis import paper
from msam.analysis.metrics import final_gaps, overfitting_gap
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.sources import Study, evidence
from msam.analysis.table import DASH, Block, Table

ONE, TWO, BOTH = frozenset("1"), frozenset("2"), frozenset("12")
Values = Mapping[frozenset[str], np.ndarray]
Form = Callable[[Values], Mapping[str, np.ndarray]]

DRAWS = 10_000
CLAIMED = (1.4, 2.3)
"""Gain over the best other method in percent, as Section 4.3.1 has it for early fusion: smallest, largest."""

CLASSES = {"AV-MNIST": 10, "CREMA-D": 6, "UR-Funny": 2, "AVE": 28}
SOURCE = "Made from src/msam/analysis/paper.csv."
FIGURES = "Made from src/msam/analysis/paper.csv and paper_figures.csv."


def printed(values: Values) -> dict[str, np.ndarray]:
    """Eq. 19 as printed: the bracket closes before the last term."""
    return {
        "1": (values[BOTH] - values[TWO]) / 2 + values[ONE],
        "2": (values[BOTH] - values[ONE]) / 2 + values[TWO],
    }


def without_empty(values: Values) -> dict[str, np.ndarray]:
    """The general formula over non-empty sets S only, as the text above Eq. 18 has it."""
    return {"1": (values[BOTH] - values[TWO]) / 2, "2": (values[BOTH] - values[ONE]) / 2}


def shares(form: Form, values: Values) -> np.ndarray:
    """Share of the first of two modalities (Eq. 20)."""
    found = form(values)
    return found["1"] / (found["1"] + found["2"])


def efficiency(exact: Form) -> pd.DataFrame:
    """Each form of the Shapley values put into Eq. 18, whose two sides have to be equal.

    Args:
        exact: `msam.shapley.shapley_values`.

    Returns:
        A row for each form: form; phi_1, phi_2, total, response (the two sides of Eq. 18) of the first of
        `DRAWS` random triples of responses, uniform in [0.5, 1] so that all values are positive; over all of
        them mean_miss and largest_miss (of |total - response|), same (part in which the dominant modality is
        that of `exact`) and share_miss (mean difference of v_1 to that of `exact`).
    """
    random = np.random.default_rng(0)
    values = {coalition: random.uniform(0.5, 1, DRAWS) for coalition in (ONE, TWO, BOTH)}
    forms = {"Eq. 19 as printed": printed, "without the empty set": without_empty, "repaired": exact}
    right, truth = shares(exact, values), exact(values)
    rows = []
    for name, form in forms.items():
        found = form(values)
        total = found["1"] + found["2"]
        miss = np.abs(total - values[BOTH])
        same = (found["1"] > found["2"]) == (truth["1"] > truth["2"])
        first = {"phi_1": found["1"][0], "phi_2": found["2"][0], "total": total[0]}
        rows.append(
            {"form": name, **first, "response": values[BOTH][0]}
            | {"mean_miss": miss.mean(), "largest_miss": miss.max(), "same": same.mean()}
            | {"share_miss": np.abs(shares(form, values) - right).mean()}
        )
    return pd.DataFrame(rows)


def bound() -> pd.DataFrame:
    """Where the paper's own accuracies let tau exceed 1: those below 50 %, if training reaches 100 %.

    Returns:
        A row for each of the paper's datasets: dataset, values (accuracies printed), below (number under
        50 %), lowest (percent), largest (tau of that one at a training accuracy of 100 %), chance (tau of
        guessing among the classes after learning by heart).
    """
    rows = []
    for dataset, printed_values in paper.reported().groupby("dataset", sort=False)["accuracy"]:
        tests = pd.Series([printed_values.min() / 100, 1 / CLASSES[str(dataset)]])
        largest, guessing = overfitting_gap(pd.Series([1.0, 1.0]), tests)
        rows.append(
            {"dataset": dataset, "values": len(printed_values), "below": int((printed_values < 50).sum())}
            | {"lowest": printed_values.min(), "largest": largest, "chance": guessing}
        )
    return pd.DataFrame(rows)


def beyond_bound(study: Study) -> pd.DataFrame:
    """Tau above 1 in the records, after the last epoch.

    Returns:
        A row for each dataset and output: dataset, output, runs, above (number with tau > 1), largest, fusion
        and name (where that one is).
    """
    gaps = final_gaps(study.frames.runs)
    rows = []
    for (dataset, output), part in gaps.groupby(["dataset", "output"], sort=False):
        top = part.loc[part["tau"].idxmax()] if part["tau"].notna().any() else None
        if top is not None:
            where = {"largest": top["tau"], "fusion": top["fusion"], "name": top["name"]}
            counts = {"runs": len(part), "above": int((part["tau"] > 1).sum())}
            rows.append({"dataset": dataset, "output": output, **counts, **where})
    return pd.DataFrame(rows, columns=["dataset", "output", "runs", "above", "largest", "fusion", "name"])


def gains() -> pd.DataFrame:
    """Readings of the claimed gain: against whom, with which fusion, in which unit.

    Returns:
        A row for each: fusion, over, unit, a column for each dataset, low and high (of the four), upper and
        lower (whether they are the claim's ends, rounded as it is), inside (datasets within the claim).
    """
    rows = []
    for fusion in ("late", "early"):
        table = paper.fused(fusion)
        mine, others = table.loc["M-SAM"], table.drop("M-SAM")
        for over, other in {
            "best other": others.max(),
            "CGGM": others.loc["CGGM"],
            "SAM": others.loc["SAM"],
        }.items():
            for unit, gain in {"points": mine - other, "%": 100 * (mine / other - 1)}.items():
                rounded = gain.round(1)
                rows.append(
                    {
                        "fusion": fusion,
                        "over": over,
                        "unit": unit,
                        **gain,
                        "low": gain.min(),
                        "high": gain.max(),
                    }
                    | {"lower": rounded.min() == CLAIMED[0], "upper": rounded.max() == CLAIMED[1]}
                    | {"inside": int(rounded.between(*CLAIMED).sum())}
                )
    return pd.DataFrame(rows)


def harmony() -> pd.DataFrame:
    """M-SAM's accuracy in each single modality among the multimodal methods of the same table.

    Returns:
        A row for each fusion, dataset, output: msam, place (1 is best), best (method), joint and alone
        (accuracies of joint training and of the network of that modality only), methods (how many).
    """
    rows = paper.reported().query("output != 'fused'")
    alone = rows[rows["method"].str.startswith("Single-")].set_index(["dataset", "output"])["accuracy"]
    several = rows[~rows["method"].str.startswith("Single-")]
    found = []
    for (fusion, dataset, output), part in several.groupby(["fusion", "dataset", "output"], sort=False):
        values = part.set_index("method")["accuracy"]
        found.append(
            {"fusion": fusion, "dataset": dataset, "output": output, "msam": values["M-SAM"]}
            | {"place": 1 + int((values > values["M-SAM"]).sum()), "best": values.idxmax()}
            | {"joint": values["Joint-Train"], "alone": alone[dataset, output], "methods": len(values)}
        )
    return pd.DataFrame(found)


def conflicts() -> pd.DataFrame:
    """What the paper gives outside its tables against its tables.

    Returns:
        The rows of `paper.elsewhere` with table (the accuracy there; of an axis, the lowest one), off (points
        by which the table is above the value; NaN for "best"), above and methods (how many of the methods are
        above the end of the axis, or above the one called best) and holds (a value: within its last digit;
        an axis: no method above it; a best one: no method above it).
    """
    tables = paper.reported().set_index(["fusion", "dataset", "output"])
    rows = []
    for row in paper.elsewhere().itertuples(index=False):
        part = tables.loc[(row.fusion, row.dataset, row.output)]
        values = part[~part["method"].str.startswith("Single-")].set_index("method")["accuracy"]
        table = values.min() if row.kind == "axis end" else values[row.method]
        limit = table if row.kind == "best" else row.value
        above = int((values > limit).sum()) if row.kind != "value" else np.nan
        holds = abs(table - row.value) <= 0.5 if row.kind == "value" else above == 0
        found = {"table": table, "off": table - row.value, "above": above, "methods": len(values)}
        rows.append({**row._asdict(), **found, "holds": holds})
    return pd.DataFrame(rows)


def efficiency_table(exact: Form) -> Table:
    """`efficiency` as a table."""
    found = efficiency(exact)
    rows = pd.DataFrame(
        {"form": found["form"]}
        | {
            heading: found[column].map("{:.3f}".format)
            for heading, column in {
                "Phi_1": "phi_1",
                "Phi_2": "phi_2",
                "sum": "total",
                "Phi(1, 2)": "response",
                "mean miss": "mean_miss",
                "largest miss": "largest_miss",
            }.items()
        }
        | {
            "same dominant modality (%)": found["same"].map("{:.1%}".format).str.rstrip("%"),
            "mean error of v_1": found["share_miss"].map("{:.3f}".format),
        }
    )
    note = (
        f"First four numbers: one example. The others: {DRAWS:,} random examples, each response uniform in "
        "[0.5, 1]. Miss: distance of the sum to Phi(1, 2), which Eq. 18 wants to be zero. v_1: share of the "
        "first modality (Eq. 20), against the repaired form's. Repaired: `msam.shapley`."
    )
    source = "Made by src/msam/analysis/paper_check.py."
    return Table("Three forms put into Eq. 18", (Block(rows),), found, note, source, file="efficiency")


def bound_table() -> Table:
    """`bound` as a table."""
    found = bound()
    rows = pd.DataFrame(
        {
            "dataset": found["dataset"],
            "accuracies": found["values"],
            "below 50 %": found["below"],
            "lowest (%)": found["lowest"].map("{:.2f}".format),
            "tau there": found["largest"].map("{:.2f}".format),
            "tau of guessing": found["chance"].map("{:.0f}".format),
        }
    )
    note = (
        "Tau exceeds 1 exactly where the training accuracy is more than twice the test accuracy, so only "
        "below 50 %. Tau there: at the lowest printed accuracy, if the training accuracy is 100 %. Tau of "
        "guessing: a network that knows the training split by heart and guesses among the classes: their "
        "number less 1."
    )
    return Table(
        "How large tau can be on the paper's data", (Block(rows),), found, note, SOURCE, file="bound"
    )


def beyond_table(study: Study) -> Table:
    """`beyond_bound` as a table."""
    found = beyond_bound(study)
    rows = [
        {
            "dataset": row.dataset,
            "evidence": evidence(study, row.dataset),
            "output": row.output,
            "runs": row.runs,
            "tau above 1": row.above,
            "largest tau": f"{row.largest:.2f}",
            "where": f"{label(row.name)}, {row.fusion} fusion",
        }
        for row in found.itertuples(index=False)
    ]
    note = "Every run of every method after the last epoch."
    block = Block(pd.DataFrame(rows))
    return Table("Tau above 1 in our records", (block,), found, note, footer(study), file="beyond")


def gains_table() -> Table:
    """`gains` as a table; bold are the ends that are the claim's."""
    found = gains()
    texts = {name: found[name].map("{:.2f}".format) for name in [*paper.OUTPUTS, "low", "high"]}
    ends = {"lowest": texts.pop("low"), "highest": texts.pop("high")}
    lead = {"fusion": found["fusion"], "over": found["over"], "unit": found["unit"]}
    rows = pd.DataFrame(lead | texts | ends | {"inside the claim": found["inside"].map("{} of 4".format)})
    strong = {(i, "lowest") for i in found.index[found["lower"]]}
    strong |= {(i, "highest") for i in found.index[found["upper"]]}
    note = (
        f"Fused accuracy of M-SAM over another method's. The claim: {CLAIMED[0]} to {CLAIMED[1]} % with "
        "early fusion. Bold: an end that rounds to the claim's. Inside: datasets whose gain, rounded, lies "
        "within it."
    )
    block = Block(rows, strong=frozenset(strong))
    return Table("Readings of the claimed gain", (block,), found, note, SOURCE, file="gains")


def harmony_table() -> Table:
    """`harmony` as a table; bold where M-SAM is the best."""
    found = harmony()
    rows = pd.DataFrame(
        {
            "fusion": found["fusion"],
            "dataset": found["dataset"],
            "modality": found["output"],
            "M-SAM": found["msam"].map("{:.2f}".format),
            "place": [f"{row.place} of {row.methods}" for row in found.itertuples()],
            "best": found["best"],
            "minus joint": (found["msam"] - found["joint"]).map("{:+.2f}".format),
            "minus that modality alone": (found["msam"] - found["alone"]).map("{:+.2f}".format),
        }
    )
    strong = frozenset((i, "place") for i in found.index[found["place"] == 1])
    note = (
        "Accuracy of a single modality in percent, among the multimodal methods of the same table; ties "
        "share the better place. Networks of one modality alone are in Table 1 only, and stand beside both "
        "fusions."
    )
    title = "M-SAM in the single modalities"
    return Table(title, (Block(rows, strong=strong),), found, note, SOURCE, file="harmony")


def conflicts_table() -> Table:
    """`conflicts` as a table."""
    found = conflicts()
    said = {
        "axis end": "{row.above:.0f} of {row.methods} methods are above it; the lowest has {row.table:.2f}",
        "value": "{row.table:.2f}, {row.off:+.2f} points",
        "best": "{row.table:.2f}; {row.above:.0f} of {row.methods} methods are above it",
    }
    rows = [
        {
            "in": row.source,
            "fusion": row.fusion,
            "dataset": row.dataset,
            "output": row.output,
            "what": {"axis end": "the axis ends at"}.get(row.kind, f"{row.method}: {row.kind}"),
            "there (%)": DASH if row.kind == "best" else f"{row.value:g}",
            "in the table (%)": said[row.kind].format(row=row),
            "agree": "yes" if row.holds else "no",
        }
        for row in found.itertuples()
    ]
    note = (
        "Axis ends are the last labels in the text of the PDF; its pictures were not measured, and an axis "
        "may go on a little beyond its last label. The curves are of the validation split by their "
        "captions, the tables name no split. The prose gives its accuracies as approximate, with two digits; "
        "one agrees if it is within half a point."
    )
    title = "Figures and prose against the tables"
    return Table(title, (Block(pd.DataFrame(rows)),), found, note, FIGURES, file="conflicts")


def formulas_sentence(exact: Form) -> str:
    """What is wrong with Eq. 19 and with the bound of tau, and what it changes."""
    found = efficiency(exact).set_index("form")
    wrong, low = found.loc["Eq. 19 as printed"], bound()
    return (
        f"Eq. 19 as printed misses Eq. 18 by {wrong['mean_miss']:.2f} in the mean of random responses "
        f"between 0.5 and 1, the repaired form by {_zero(found.loc['repaired', 'largest_miss'])}, though "
        f"both name the same dominant modality in {100 * wrong['same']:.0f} % of them; and tau can exceed "
        f"its stated bound of 1 at {low['below'].sum()} of the {low['values'].sum()} printed accuracies, "
        "those below 50 %."
    )


def beyond_sentence(study: Study) -> str:
    """In how many of our runs and outputs tau is above 1."""
    found = beyond_bound(study)
    if found.empty:
        return "There are no records yet in which tau could exceed 1."
    top = found.loc[found["largest"].idxmax()]
    return (
        f"In our records tau exceeds 1 in {found['above'].sum()} of {found['runs'].sum():,} values of runs "
        f"and outputs; the largest is {top['largest']:.2f} ({label(top['name'])}, {top['output']} on "
        f"{top['dataset']}, {top['fusion']} fusion)."
    )


def gains_sentence() -> str:
    """Which readings give the upper end of the claimed gain, and whether any gives both ends."""
    found = gains()
    upper, both = found[found["upper"]], found[found["upper"] & found["lower"]]
    most = upper["inside"].max() if len(upper) else 0
    whole = "none gives both ends" if both.empty else f"both ends are given by {_readings(both)}"
    return (
        f"Of {len(found)} readings of the claimed gain {len(upper)} have the upper end, {CLAIMED[1]}: "
        f"{_readings(upper)}; {whole}, and at most {most} of the four datasets are inside the claim."
    )


def harmony_sentence() -> str:
    """In how many single modalities M-SAM is the best method, above joint training, above that one alone."""
    found = harmony()
    best = [
        f"{(part['place'] == 1).sum()} of {len(part)} with {fusion} fusion"
        for fusion, part in found.groupby("fusion", sort=False)
    ]
    return (
        f"M-SAM has the highest accuracy of a single modality in {' and '.join(best)}; it is above joint "
        f"training in {(found['msam'] > found['joint']).sum()} of {len(found)} and above a network of that "
        f"modality alone in {(found['msam'] > found['alone']).sum()}."
    )


def conflicts_sentence() -> str:
    """How many statements outside the tables agree with them, by kind."""
    found = conflicts().groupby("kind")["holds"].agg(["sum", "size"])
    kinds = {"value": "accuracies", "axis end": "ends of axes", "best": "claims of the first place"}
    parts = [f"{found.at[kind, 'sum']} of {found.at[kind, 'size']} {text}" for kind, text in kinds.items()]
    return f"With the tables agree {', '.join(parts)}."


def _readings(found: pd.DataFrame) -> str:
    return ", ".join(_said(found.itertuples()))


def _said(rows: Iterable) -> Iterable[str]:
    for row in rows:
        over = "the best other method" if row.over == "best other" else row.over
        unit = "percent" if row.unit == "%" else row.unit
        yield f"{row.fusion} fusion over {over} in {unit}"


def _zero(value: float) -> str:
    return "nothing but rounding" if value < 1e-12 else f"{value:.2f}"
