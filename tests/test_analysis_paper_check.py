"""The paper against itself: brute force, SciPy and hand-made records as oracles."""

import re
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import figures, paper, paper_check, resolution
from msam.analysis.sources import read
from msam.shapley import shapley_values


@pytest.mark.parametrize("size", [7, 402, 669, 744, 9000, 10_000, 12_345])
def test_attainable_accuracies_are_those_of_all_counts(size):
    exact = [Decimal(100) * k / Decimal(size) for k in range(size + 1)]
    cents = Decimal("0.01")
    reached = {x.quantize(cents, way) for x in exact for way in (ROUND_HALF_UP, ROUND_HALF_DOWN)}
    every = [Decimal(step) / 100 for step in range(10_001)]
    expected = [value in reached for value in every]
    assert resolution.attainable(np.array(every, dtype=float), size).tolist() == expected
    assert resolution.chance(size) == pytest.approx(np.mean(expected))


def test_grain_counts_printed_accuracies_and_its_p_is_scipys():
    found = resolution.grain()
    assert len(found) == len(paper.splits())
    for row in found.itertuples():
        values = paper.reported().query("dataset == @row.dataset")["accuracy"]
        nearest = np.rint(values / 100 * row.size) / row.size * 100
        assert row.hits == (np.abs(nearest - values) <= 0.005 + 1e-9).sum()
        p = stats.binom.sf(row.hits - 1, row.values, resolution.chance(row.size))
        assert row.p == pytest.approx(p)


def test_a_grain_that_is_there_is_found_and_others_are_not(monkeypatch):
    random = np.random.default_rng(0)
    made = pd.DataFrame({"dataset": "AVE", "accuracy": np.round(random.integers(200, 300, 40) / 3.84, 2)})
    splits = pd.DataFrame({"dataset": "AVE", "size": [402, 384, 381], "unit": "example", "examples": "made"})
    monkeypatch.setattr(paper, "reported", lambda: made)
    monkeypatch.setattr(paper, "splits", lambda: splits)
    found = resolution.grain()
    assert resolution.fitting(found)["size"].tolist() == [384]
    assert "40 of 40 accuracies on AVE fit n = 384" in resolution.grain_sentence()


@pytest.mark.parametrize("more", range(12))
def test_the_best_case_is_mcnemars_exact_test_at_its_smallest(more):
    """Every number of examples that only the other network gets right makes p larger."""
    tests = [
        stats.binomtest(other + more, 2 * other + more, 0.5).pvalue for other in range(40) if other + more
    ]
    assert resolution.best_case_p(more) == pytest.approx(min(tests))


def test_six_examples_are_needed():
    needed = resolution.best_case_needed()
    assert stats.binomtest(needed, needed).pvalue < 0.05 < stats.binomtest(needed - 1, needed - 1).pvalue


@pytest.mark.parametrize(
    ("first", "second", "size"), [(0.7, 0.68, 744), (0.5, 0.5, 100), (0.8, 0.78, 10_000)]
)
def test_the_independent_limit_is_the_spread_of_binomial_draws(first, second, size):
    random = np.random.default_rng(0)
    differences = (random.binomial(size, first, 200_000) - random.binomial(size, second, 200_000)) / size
    half = resolution.half_width(first, second, size)
    assert half == pytest.approx(1.959964 * differences.std(), rel=0.01)


def test_readings_of_the_margins_are_those_of_scipys_tests():
    found = resolution.margins()
    assert len(found) == 16
    for row in found.itertuples():
        mine = paper.fused(row.fusion).loc["M-SAM", row.dataset]
        right = np.array([mine, mine - row.margin]) / 100 * row.size
        apart = stats.chi2_contingency([right, row.size - right], correction=False).pvalue
        examples = int(np.ceil(round(row.margin / 100 * row.size, 6)))
        best = stats.binomtest(examples, examples).pvalue
        expected = "both" if apart < 0.05 else "best case" if best < 0.05 else "neither"
        assert (row.reading, row.more) == (expected, examples)
        assert row.margin == paper.margins(row.fusion, "SAM" if row.over == "SAM" else None)[row.dataset]


def test_one_form_fulfils_eq_18_and_the_printed_one_misses_it_as_predicted():
    found = paper_check.efficiency(shapley_values).set_index("form")
    assert found.loc["repaired", "largest_miss"] < 1e-12
    for form in (
        "Eq. 19 as printed",
        "without the empty set",
    ):  # half of the single responses: 0.75 in the mean
        assert found.loc[form, "mean_miss"] == pytest.approx(0.75, abs=0.01)
        assert found.loc[form, "same"] == 1
    row = found.loc["Eq. 19 as printed"]
    assert row["total"] == row["phi_1"] + row["phi_2"] != row["response"]


def test_forms_by_hand():
    values = {frozenset("1"): 1.0, frozenset("2"): 3.0, frozenset("12"): 6.0}
    assert paper_check.printed(values) == {"1": 2.5, "2": 5.5}
    assert paper_check.without_empty(values) == {"1": 1.5, "2": 2.5}
    assert paper_check.shares(paper_check.printed, values) == 2.5 / 8


def test_a_broken_form_is_called_by_its_miss():
    text = paper_check.formulas_sentence(paper_check.printed)
    assert "the repaired form by 1.00" in text
    assert "nothing but rounding" in paper_check.formulas_sentence(shapley_values)


def test_the_bound_fails_below_one_half_only():
    found = paper_check.bound().set_index("dataset")
    for dataset, row in found.iterrows():
        values = paper.reported().query("dataset == @dataset")["accuracy"] / 100
        assert row["below"] == ((1 - values) / values > 1).sum()
        assert row["largest"] == pytest.approx(((1 - values) / values).max())
        assert row["chance"] == pytest.approx(paper_check.CLASSES[dataset] - 1)


def test_tau_above_one_is_counted_in_the_records(tmp_path):
    record = cell_record("av_digits", "late", "msam", seeds=3)
    for seed, train in zip(record["seeds"], (0.9, 0.7, 0.8), strict=True):
        last = {**seed["final"]["last"]}
        last["train"] = last["train"] | {"accuracy": {"fused": train, "image": 0.5, "audio": 0.5}}
        last["test"] = last["test"] | {"accuracy": {"fused": 0.4, "image": 0.5, "audio": 0.5}}
        seed["final"] = {"last": last}
    write(tmp_path / "embedded" / "main" / "av_digits" / "late" / "msam.json", record)
    study = read(tmp_path)
    found = paper_check.beyond_bound(study).set_index("output")
    assert found["above"].to_dict() == {"fused": 1, "image": 0, "audio": 0}  # 0.8 is twice 0.4: tau is 1
    assert found.loc["fused", "largest"] == pytest.approx(1.25)
    assert paper_check.beyond_sentence(study).startswith(
        "In our records tau exceeds 1 in 1 of 9 values of runs and outputs; the largest is 1.25 (M-SAM, fused"
    )
    assert "1.25" in paper_check.beyond_table(study).to_html()


def test_no_records_are_said(tmp_path):
    study = read(tmp_path)
    assert "No records yet." in paper_check.beyond_table(study).to_html()
    assert paper_check.beyond_sentence(study).startswith("There are no records yet")


def test_gains_are_points_and_percent_over_the_other():
    found = paper_check.gains().set_index(["fusion", "over", "unit"])
    cggm = found.loc["early", "CGGM", "%"]
    assert cggm["CREMA-D"] == pytest.approx(100 * (68.43 - 66.90) / 66.90)
    assert found.loc[("late", "SAM", "points"), "UR-Funny"] == pytest.approx(2.36)
    for key, row in found.iterrows():
        ends = [round(row[list(paper.OUTPUTS)].min(), 1), round(row[list(paper.OUTPUTS)].max(), 1)]
        assert [row["lower"], row["upper"]] == [
            a == b for a, b in zip(ends, paper_check.CLAIMED, strict=True)
        ]
        assert key[2] == "%" or not row["upper"]
    assert "early fusion over CGGM in percent" in paper_check.gains_sentence()


def test_places_in_the_single_modalities_are_scipys_ranks():
    found = paper_check.harmony()
    assert len(found) == 18
    for row in found.itertuples():
        where = "fusion == @row.fusion and dataset == @row.dataset and output == @row.output"
        part = paper.reported().query(where)
        part = part[~part["method"].str.startswith("Single")].set_index("method")["accuracy"]
        ranks = pd.Series(stats.rankdata(-part, method="min"), index=part.index)
        assert (row.place, ranks[row.best]) == (ranks["M-SAM"], 1)
        assert row.methods == len(part)


def test_conflicts_are_found_and_agreements_too():
    found = paper_check.conflicts()
    axis = found[found["kind"] == "axis end"].set_index(["fusion", "dataset", "output"])
    assert axis.loc[("late", "CREMA-D", "video"), ["above", "methods", "table"]].tolist() == [10, 10, 44.32]
    values = found[found["kind"] == "value"].set_index(["output", "method"])
    assert values.loc[("fused", "SAM"), "off"] == pytest.approx(2.17)
    assert values["holds"].to_dict()[("fused", "M-SAM")]
    assert not values["holds"].to_dict()[("fused", "SAM")]
    assert found.set_index("kind").loc["best", "above"] == 5  # of M-SAM on CREMA-D's video


@pytest.mark.parametrize(
    "table",
    [
        resolution.grain_table,
        resolution.margins_table,
        lambda: paper_check.efficiency_table(shapley_values),
        paper_check.bound_table,
        paper_check.gains_table,
        paper_check.harmony_table,
        paper_check.conflicts_table,
    ],
)
def test_tables_of_the_paper_are_sound_and_say_what_they_are_made_from(table):
    html = table().to_html()
    assert html.count("<table") == html.count("</table>") == 1
    assert not re.search(r"\bnan\b", html)
    assert re.search(r"paper(_check\.py|\.csv)", html)


def test_the_margins_are_drawn():
    assert figures.margin_points().svg == figures.margin_points().svg
