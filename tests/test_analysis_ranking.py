"""Statistics over blocks against SciPy and by hand; ranks, differences and budgets on hand-made records."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import aggregate, budget, figures, paper, ranking, ranking_table
from msam.analysis.names import SHOWN, STYLES, in_order, label, shown, style
from msam.analysis.sources import read

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 30])
def test_iqm_is_scipys_trimmed_mean(n):
    values = RNG.normal(size=(5, n))
    assert aggregate.iqm(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=-1))


def test_iqm_ignores_the_outer_quarters():
    assert aggregate.iqm(np.array([-1e9, 1.0, 2.0, 1e9])) == 1.5


def test_ranks_are_scipys_from_the_top():
    values = RNG.integers(0, 4, size=(20, 7)).astype(float)  # with ties
    assert aggregate.ranks(values) == pytest.approx(stats.rankdata(-values, axis=-1))


def test_what_is_absent_has_no_rank_and_moves_no_other():
    ranks = aggregate.ranks(np.array([0.2, np.nan, 0.9]))
    assert ranks[[0, 2]].tolist() == [2, 1]
    assert np.isnan(ranks[1])


def test_probability_of_improvement_is_mann_whitneys_u():
    first, second = RNG.integers(0, 5, size=8).astype(float), RNG.integers(0, 5, size=6).astype(float)
    expected = stats.mannwhitneyu(first, second).statistic / 48
    assert aggregate.probability_of_improvement(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "probability"),
    [([1, 2], [0, 0.5], 1), ([1, 1], [1, 1], 0.5), ([0, 2], [1, 1], 0.5), ([1, 2], [1, 3], 3 / 8)],
)
def test_probability_of_improvement_by_hand(first, second, probability):
    assert aggregate.probability_of_improvement(np.array(first), np.array(second)) == probability


def test_profile_counts_runs_strictly_above():
    profile = aggregate.performance_profile(np.array([0.1, 0.2, 0.2, 0.4]), np.array([0, 0.1, 0.2, 0.4]))
    assert profile.tolist() == [1, 0.75, 0.25, 0]


def test_profile_integrates_to_the_mean():
    scores, thresholds = RNG.random((3, 9)), np.linspace(0, 1, 100_001)
    area = np.trapezoid(aggregate.performance_profile(scores, thresholds), thresholds)
    assert area == pytest.approx(scores.mean(axis=-1), abs=1e-4)


def test_mean_leaves_out_what_is_absent():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert aggregate.mean(values, axis=0)[0] == 2
    assert np.isnan(aggregate.mean(values, axis=0)[1])


def pooled_mean(samples):
    return np.concatenate(samples, axis=-1).mean(axis=-1)


def test_bootstrap_of_one_stratum_is_scipys():
    values = RNG.normal(size=25)
    estimate, low, high = aggregate.stratified_bootstrap([values], pooled_mean, repeats=20_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert estimate == values.mean()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_draws_within_strata_only():
    strata = [np.zeros(4), np.ones(4)]
    estimate, low, high = aggregate.stratified_bootstrap(strata, pooled_mean)
    assert estimate == low == high == 0.5


def test_pooled_runs_weigh_every_cell_alike():
    cells = [RNG.normal(size=(7, n)) for n in (5, 3, 2)]
    pooled = aggregate.pooled(cells)
    assert pooled.shape == (7, 90)
    assert pooled.mean(axis=-1) == pytest.approx(np.mean([cell.mean(axis=-1) for cell in cells], axis=0))
    alike = [RNG.normal(size=4), RNG.normal(size=4)]
    assert aggregate.pooled(alike).tolist() == np.concatenate(alike).tolist()


def test_bootstrap_is_the_same_every_time_and_needs_two_runs():
    strata = [RNG.normal(size=5), RNG.normal(size=5)]
    assert aggregate.stratified_bootstrap(strata, pooled_mean) == aggregate.stratified_bootstrap(
        strata, pooled_mean
    )
    estimate, low, high = aggregate.stratified_bootstrap([strata[0], np.array([0.5])], pooled_mean)
    assert np.isfinite(estimate)
    assert np.isnan([low, high]).all()


def test_bootstrap_keeps_the_methods_of_a_seed_together():
    noise = RNG.normal(size=(6, 1))
    runs = noise + np.array([[0.0, 1e-6]])  # the second is always ahead by less than the noise

    def ranks(samples):
        return aggregate.ranks(samples[0].mean(axis=-2))

    estimate, low, high = aggregate.stratified_bootstrap([runs], ranks)
    assert estimate.tolist() == low.tolist() == high.tolist() == [2, 1]


def study_of(folder, accuracies, study="main", evaluations=80, profile="made"):
    """Records with these fused test accuracies: (dataset, fusion, name) -> one a seed, None for diverged."""
    results = folder / "results" / profile
    for (dataset, fusion, name), values in accuracies.items():
        record = cell_record(dataset, fusion, name, seeds=len(values))
        for seed, value in zip(record["seeds"], values, strict=True):
            seed["gradient_evaluations"] = evaluations
            if value is None:
                seed |= {"state": "diverged", "final": {}}
            else:
                last = json.loads(json.dumps(seed["final"]["last"]))
                last["test"]["accuracy"]["fused"] = value
                seed["final"] = dict.fromkeys(("last", "best_validation", "best_test"), last)
        write(results / study / dataset / fusion / f"{name}.json", record)
    return read(results.parent, study)


D, C = ("av_digits", "late"), ("controlled", "early")
TWO_CELLS = {
    (*D, "joint"): [0.50, 0.52, 0.54],
    (*D, "sam"): [0.60, 0.62, 0.61],
    (*D, "msam"): [0.70, 0.69, 0.72],
    (*D, "ogm_ge"): [0.90, 0.91, 0.92],
    (*C, "joint"): [0.40, 0.40, 0.43],
    (*C, "sam"): [0.42, 0.47, 0.44],
    (*C, "msam"): [0.41, 0.45, 0.39],
}


@pytest.fixture
def two_cells(tmp_path):
    return study_of(tmp_path, TWO_CELLS)


def test_mean_ranks_by_hand(two_cells):
    found = ranking.ranking(two_cells).set_index("name")
    assert found.loc["sam", "rank"].mean == (3 + 1) / 2
    assert found.loc["msam", "rank"].mean == pytest.approx((2 + (2 + 2 + 3) / 3) / 2)
    assert found.loc["joint", "rank"].mean == pytest.approx((4 + (3 + 3 + 2) / 3) / 2)
    assert found.loc["ogm_ge", ["blocks", "complete", "n"]].tolist() == [1, False, 3]
    assert list(found.index) == ["sam", "msam", "joint", "ogm_ge"]  # the last is first, but not in all cells
    sam, joint = found.loc["sam", "rank"], found.loc["joint", "rank"]
    assert (sam.low, sam.high) == (2, 2)  # the same place for every seed
    assert (joint.low, joint.high) == ((4 + 2) / 2, (4 + 3) / 2)


def test_a_diverged_run_is_last_and_a_seed_that_was_not_run_has_no_rank(tmp_path):
    accuracies = {(*D, "joint"): [0.5, 0.5], (*D, "sam"): [None, 0.6], (*D, "msam"): [0.4, 0.7, 0.7]}
    found = ranking.ranking(study_of(tmp_path, accuracies)).set_index("name")["rank"]
    means = {name: interval.mean for name, interval in found.items()}
    assert means == {"joint": (1 + 3) / 2, "sam": (3 + 2) / 2, "msam": (2 + 1 + 1) / 3}


def test_methods_that_lack_cells_stand_apart(two_cells):
    complete, rest = ranking_table.ranking_table(two_cells).blocks
    assert set(complete.rows["method"]) == {"joint", "SAM", "M-SAM"}
    assert rest.heading == f"{complete.heading}: not in all blocks"
    assert list(rest.rows["method"]) == ["OGM-GE"]


def test_score_is_the_interquartile_mean_in_percent_of_joints_mean(two_cells):
    found = ranking.ranking(two_cells).set_index("name")["score"]
    runs = [100 * np.array(TWO_CELLS[*D, "msam"]) / 0.52, 100 * np.array(TWO_CELLS[*C, "msam"]) / 0.41]
    assert found["msam"].mean == pytest.approx(stats.trim_mean(np.concatenate(runs), 0.25))
    assert found["msam"].low < found["msam"].mean < found["msam"].high


def test_differences_are_paired_by_seed_and_averaged_over_cells(two_cells):
    row = ranking.against(two_cells).set_index("name").loc["sam"]
    cells = [(np.array(TWO_CELLS[*cell, "msam"]), np.array(TWO_CELLS[*cell, "sam"])) for cell in (D, C)]
    by_seed = np.mean([first - second for first, second in cells], axis=0)
    low, high = stats.t.interval(0.95, 2, loc=by_seed.mean(), scale=stats.sem(by_seed))
    assert (row["difference"].mean, row["difference"].low, row["difference"].high) == pytest.approx(
        (by_seed.mean(), low, high)
    )
    u = [stats.mannwhitneyu(first, second).statistic / 9 for first, second in cells]
    assert row["probability"].mean == pytest.approx(np.mean(u))
    assert (row["blocks"], row["n"]) == (2, 3)
    assert (row["higher"], row["lower"], row["apart"], row["unknown"]) == (1, 0, 1, 0)


def test_a_difference_over_cells_uses_the_seeds_that_all_have(tmp_path):
    study = study_of(tmp_path, TWO_CELLS | {(*C, "sam"): [None, 0.47, 0.44]})
    row = ranking.against(study).set_index("name").loc["sam"]
    expected = np.mean([0.69 - 0.62 + 0.45 - 0.47, 0.72 - 0.61 + 0.39 - 0.44]) / 2
    assert (row["difference"].mean, row["n"]) == (pytest.approx(expected), 2)
    u = stats.mannwhitneyu(TWO_CELLS[*C, "msam"], [-1, 0.47, 0.44]).statistic / 9  # the diverged run loses
    assert row["probability"].mean == pytest.approx((1 + u) / 2)
    assert ranking.ranking(study).set_index("name").loc["sam", "n"] == 2


@pytest.fixture
def two_levels(tmp_path):
    """Two levels with different numbers of seeds: the blocks of `TWO_CELLS`, and one with two seeds."""
    more = {
        ("mosi", "late", "joint"): [0.70, 0.71],
        ("mosi", "late", "sam"): [0.75, 0.74],
        ("mosi", "late", "msam"): [0.60, 0.66],
    }
    study_of(tmp_path, TWO_CELLS, profile="embedded")
    study = study_of(tmp_path, more, profile="compact")
    keys = dict.fromkeys((dataset, fusion) for dataset, fusion, _ in [*TWO_CELLS, *more])
    assert list(ranking.grids(study)) == sorted(keys, key=lambda key: key[0] == "mosi")
    return study


def test_levels_are_combined_as_groups_with_their_own_seeds(two_levels):
    row = ranking.against(two_levels).set_index("name").loc["sam"]
    cells = [np.array(TWO_CELLS[*cell, "msam"]) - TWO_CELLS[*cell, "sam"] for cell in (D, C)]
    first, second = np.mean(cells, axis=0), np.array([0.60 - 0.75, 0.66 - 0.74])
    assert row["difference"].mean == pytest.approx((2 * first.mean() + second.mean()) / 3)
    welch = stats.ttest_ind(2 * first / 3, -second / 3, equal_var=False).confidence_interval(0.95)
    assert (row["difference"].low, row["difference"].high) == pytest.approx((welch.low, welch.high))
    assert (row["n"], row["most"], row["blocks"]) == (2, 3, 3)
    for level, expected in (("embedded", first), ("compact", second)):
        alone = ranking.against(two_levels, level=level).set_index("name").loc["sam"]
        assert alone["difference"].mean == pytest.approx(expected.mean())
        assert alone["n"] == alone["most"] == len(expected)


def test_cells_weigh_alike_in_the_interquartile_mean_whatever_their_seeds(two_levels):
    found = ranking.ranking(two_levels).set_index("name")
    runs = [
        np.repeat(100 * np.array(TWO_CELLS[*D, "msam"]) / 0.52, 2),
        np.repeat(100 * np.array(TWO_CELLS[*C, "msam"]) / 0.41, 2),
        np.repeat(100 * np.array([0.60, 0.66]) / 0.705, 3),
    ]
    assert found.loc["msam", "score"].mean == pytest.approx(stats.trim_mean(np.concatenate(runs), 0.25))
    assert found.loc["msam", ["n", "most", "blocks"]].tolist() == [2, 3, 3]
    profile = ranking.profile(two_levels, ["msam"])
    at = profile.iloc[60]
    assert at["mean"] == pytest.approx(np.mean([np.mean(run > at["x"]) for run in runs]))


def test_tables_show_all_levels_together_and_each_apart(two_levels):
    shown = {
        block.heading: block.rows.set_index("method")
        for block in ranking_table.ranking_table(two_levels).blocks
    }
    together, *apart = (heading for heading in shown if "not in all" not in heading)
    assert (together, apart) == ("all: embedded, compact", ["embedded", "compact"])
    assert shown["compact"].loc["SAM", "mean rank"].startswith("1.0")
    assert [shown[head].loc["SAM", "n"] for head in (together, *apart)] == ["2 to 3", "3", "2"]
    assert [shown[head].loc["SAM", "blocks"] for head in (together, *apart)] == [3, 2, 1]
    assert "OGM-GE" not in shown[together].index
    assert "OGM-GE" in shown[f"{together}: not in all blocks"].index
    blocks = ranking_table.against_table(two_levels).blocks
    assert [block.heading for block in blocks] == [together, *apart]
    assert [len(block.rows) for block in blocks] == [3, 3, 2]
    text = ranking_table.rank_sentence(two_levels)
    assert text.startswith("Among the 3 methods in all blocks (3), SAM has the best mean rank")
    assert "Among the 3 methods in all blocks at the level compact (1), SAM has" in text
    assert "; at the level embedded it is" in ranking_table.against_sentence(two_levels)


def test_a_budget_table_names_the_levels_it_has(two_levels, tmp_path):
    longer = study_of(tmp_path, {(*D, "joint"): [0.71, 0.72, 0.74]}, "budget", 160, profile="embedded")
    assert set(budget.budget_table(two_levels, longer).blocks[0].rows["", "evidence"]) == {"embedded"}


def test_sentences_say_who_is_where(two_cells):
    assert ranking_table.rank_sentence(two_cells).startswith(
        "Among the 3 methods in all blocks (2), SAM has the best mean rank, 2.0"
    )
    text = ranking_table.against_sentence(two_cells)
    assert "is higher than" in text
    assert "of 3 methods, lower than 1 (OGM-GE)" in text


def test_methods_before_it_are_counted(two_cells):
    assert ranking_table.rank_sentence(two_cells).endswith("with 1 method before it.")
    assert "before" not in ranking_table.rank_sentence(two_cells, "sam")


def test_cells_without_numbers_are_dashes(two_cells):
    rows = ranking_table.cells_table(two_cells).blocks[0].rows.set_index(("", "method"))
    column = ("controlled: made", "early")
    assert rows.loc["OGM-GE", column] == "\N{EN DASH}"
    assert rows.loc["joint", column].startswith("+0.67 ± ")
    strong = {(rows.index[i], column) for i, column in ranking_table.cells_table(two_cells).blocks[0].strong}
    assert ("OGM-GE", ("av_digits: made", "late")) in strong
    assert ("SAM", column) not in strong


def test_one_seed_gives_numbers_without_intervals(tmp_path):
    study = study_of(tmp_path, {key: values[:1] for key, values in TWO_CELLS.items()})
    found = ranking.ranking(study)
    assert found["rank"].map(lambda rank: np.isfinite(rank.mean) and not rank.exists).all()
    assert not ranking.against(study)["difference"].map(lambda value: value.exists).any()
    assert "3 share too few seeds" in ranking_table.against_sentence(study)
    shown = ranking_table.cells_table(study).blocks[0].rows.set_index(("", "method"))
    assert shown.loc["SAM", ("av_digits: made", "late")] == "+10.00 (n = 1)"


def test_without_joint_or_msam_the_rest_stands(tmp_path):
    kept = {key: values for key, values in TWO_CELLS.items() if key[2] == "sam"}
    study = study_of(tmp_path, kept)
    found = ranking.ranking(study).set_index("name")
    assert found.loc["sam", "rank"].mean == 1
    assert np.isnan(found.loc["sam", "score"].mean)
    assert ranking.against(study).empty
    assert "M-SAM has no runs in some of them" in ranking_table.rank_sentence(study)
    assert ranking_table.against_sentence(study) == "There are no records of M-SAM beside another method yet."
    for draw in (figures.rank_points, figures.against_points, figures.profile_curves):
        assert "<svg" in draw(study).svg


def test_profiles_fall_from_one_to_zero_and_lie_in_their_bands(two_cells):
    found = ranking.profile(two_cells, ["joint", "msam", "nobody"])
    assert set(found["name"]) == {"joint", "msam"}
    for _, curve in found.groupby("name"):
        assert curve["mean"].iloc[0] == 1
        assert curve["mean"].iloc[-1] == 0
        assert curve["mean"].is_monotonic_decreasing
        assert (curve["low"] <= curve["mean"]).all()
        assert (curve["mean"] <= curve["high"]).all()
    joint = found[found["name"] == "joint"]
    runs = np.concatenate([np.array([0.50, 0.52, 0.54]) / 0.52, np.array([0.40, 0.40, 0.43]) / 0.41])
    at = joint.iloc[60]
    assert at["mean"] == np.mean(100 * runs > at["x"])


@pytest.fixture
def both(tmp_path):
    longer = {
        (*D, "joint"): [0.71, 0.72, 0.74],
        (*C, "joint"): [0.45, 0.46, 0.46],
        (*D, "ogm_ge"): [None] * 3,
    }
    return study_of(tmp_path, TWO_CELLS), study_of(tmp_path, longer, "budget", evaluations=160)


def test_the_second_study_gives_the_second_difference(both):
    found = budget.differences(*both).set_index(["dataset", "name"])
    row = found.loc[("av_digits", "joint")]
    assert row["epochs"].tolist() == pytest.approx([0.20, 0.17, 0.18])
    assert row["evaluations"].tolist() == pytest.approx([-0.01, -0.03, -0.02])
    spent = [f"evaluations_{which}" for which in ("first", "epochs", "evaluations")]
    assert row[spent].tolist() == [80, 80, 160]
    assert found.loc[("av_digits", "ogm_ge"), "text"] == "diverged 3/3 seeds"


def test_budgets_are_averaged_over_cells(both):
    overall = budget.overall_differences(both[0], budget.differences(*both)).set_index("name")
    assert list(overall.index) == ["joint"]  # OGM-GE has no numbers in the second study
    longer = np.mean([[-0.01, -0.03, -0.02], [0.41 - 0.45, 0.45 - 0.46, 0.39 - 0.46]], axis=0)
    interval = overall.loc["joint", "evaluations"]
    low, high = stats.t.interval(0.95, 2, loc=longer.mean(), scale=stats.sem(longer))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    text = budget.budget_sentence(*both)
    assert "at equal epochs M-SAM is higher than 1 of 1 methods" in text
    assert "at equal gradient evaluations M-SAM is higher than 0 of 1 methods" in text


def test_budget_tables_print_the_evaluations(both):
    rows = budget.budget_cells_table(*both).blocks[0].rows
    joint = rows[rows["", "dataset"] == "av_digits"].iloc[0]
    assert joint["", "evaluations of M-SAM"] == "80"
    assert joint["equal epochs", "evaluations"] == "80"
    assert joint["equal gradient evaluations", "evaluations"] == "160"
    assert joint["equal epochs", "difference (points)"].startswith("+18.33 ± ")
    assert joint["equal gradient evaluations", "difference (points)"].startswith("-2.00 ± ")
    assert budget.budget_table(*both).blocks[0].rows["", "blocks"].tolist() == [2]


def test_no_second_study_is_said(two_cells):
    absent = read(two_cells.root, "budget")
    assert budget.budget_sentence(two_cells, absent) == budget.NO_RECORDS
    assert "No records yet." in budget.budget_table(two_cells, absent).to_html()
    assert "no records with more epochs yet" not in figures.budget_points(two_cells, two_cells).svg


def test_every_method_of_the_paper_has_a_name_here():
    theirs = set(paper.reported()["method"])
    assert set(paper.OURS.values()) == {text for text in theirs if not text.startswith("Single-")}
    late, early = paper.methods("late"), paper.methods("early")
    assert late == list(paper.OURS)
    assert [paper.OURS[name] for name in early] == list(
        paper.reported().query("fusion == 'early'")["method"].unique()
    )
    assert in_order(paper.OURS) == late


def test_no_two_methods_look_alike():
    drawn = [*STYLES, "of another package"]
    assert len({(style(name).color, style(name).marker) for name in drawn}) == len(drawn)
    assert len({(style(name).color, style(name).dashes) for name in drawn}) == len(drawn)
    assert len({style(name).color for name in SHOWN}) == len(SHOWN)
    assert max(pd.Series([style(name).color for name in STYLES]).value_counts()) <= 4


def test_labels_and_order():
    names = ["masam", "mine", "msam+encoder", "unimodal+a", "ogm", "msam", "joint", "msam (naive)", "ogm_ge"]
    assert [label(name) for name in in_order(names)] == [
        *("only a", "joint", "OGM-GE", "M-SAM", "M-SAM (naive)", "M-SAM (encoder)"),
        *("OGM", "MASAM", "mine"),
    ]
    assert shown(names) == ["joint", "msam", "mine"]
    assert shown(names, ["ogm"]) == ["ogm", "mine"]


def test_curves_show_a_selection_or_what_is_asked_for(two_cells):
    def entries(picture):
        return [text.get_text() for text in picture.figure.legends[0].get_texts()]

    assert entries(figures.accuracy_curves(two_cells)) == ["joint", "SAM", "M-SAM"]
    assert entries(figures.accuracy_curves(two_cells, methods=["ogm_ge"])) == ["OGM-GE"]
    assert entries(figures.evaluation_curves(two_cells, methods=["sam"])) == ["SAM"]
    assert entries(figures.profile_curves(two_cells, methods=["ogm_ge", "joint"])) == ["joint", "OGM-GE"]
