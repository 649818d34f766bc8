"""Statistics against SciPy and by hand, the paper's numbers against its text, metrics by hand."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msam.analysis import paper
from msam.analysis.metrics import by_seed, final_gaps, gains_over_joint, overfitting_gap, relative_gain
from msam.analysis.statistics import (
    Interval,
    combined_interval,
    mean_interval,
    paired_difference,
    summarize,
    supported_best,
    t_quantile,
)

RNG = np.random.default_rng(0)


def series(values):
    return pd.Series(values, index=range(len(values)), dtype=float)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_is_scipys(n, confidence):
    values = RNG.normal(size=n)
    interval = mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert interval.low == pytest.approx(low)
    assert interval.high == pytest.approx(high)
    assert interval.n == n


def test_interval_by_hand():
    interval = mean_interval([1.0, 2.0, 3.0])  # deviation 1, t(2) = 4.3027
    assert interval.mean == 2
    assert interval.half_width == pytest.approx(4.30265 / np.sqrt(3), rel=1e-5)
    assert interval.contains(2)
    assert not interval.contains(5)


def test_few_or_no_seeds_give_no_interval():
    assert mean_interval([0.5]).n == 1
    assert not mean_interval([0.5]).exists
    assert not mean_interval([0.5]).contains(0.5)
    assert mean_interval([]).n == 0
    assert np.isnan(mean_interval([np.nan]).mean)
    assert np.isnan(t_quantile(1))


def test_paired_difference_is_scipys_and_uses_common_seeds_only():
    first, second = series(RNG.normal(size=6)), series(RNG.normal(size=6)).iloc[1:]
    result = paired_difference(first, second)
    expected = stats.ttest_rel(first.iloc[1:], second).confidence_interval(0.95)
    assert result.n == 5
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("n", "m"), [(5, 3), (2, 9), (4, 4)])
def test_combined_interval_is_welchs(n, m):
    """SciPy has the difference of two means: weights 1 and -1."""
    one, two = RNG.normal(size=n), 3 * RNG.normal(size=m)
    found = combined_interval([(1, one), (-1, two)])
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.n) == (pytest.approx(one.mean() - two.mean()), min(n, m))


def test_combined_interval_of_one_group_is_its_own_and_few_values_give_none():
    values = RNG.normal(size=4)
    assert vars(combined_interval([(1, values)])) == pytest.approx(vars(mean_interval(values)))
    halves = combined_interval([(0.5, values), (0.5, values)])
    assert halves.mean == pytest.approx(values.mean())
    assert halves.half_width < mean_interval(values).half_width
    few = combined_interval([(0.5, values), (0.5, values[:1])])
    assert (few.n, few.exists, np.isfinite(few.mean)) == (1, False, True)
    assert combined_interval([(1, values[:0])]).n == 0
    constant = combined_interval([(0.5, np.ones(3)), (0.5, np.ones(2))])
    assert (constant.mean, constant.low, constant.high) == (1, 1, 1)


def test_supported_best_needs_every_comparison():
    noise = series([0.00, 0.01, -0.01])
    good, close, bad = 0.9 + noise, 0.89 + series([0.03, -0.02, 0.0]), 0.5 + noise
    assert supported_best({"a": good, "b": bad}) == "a"
    assert supported_best({"a": good, "b": bad, "c": close}) is None
    assert supported_best({"a": good, "b": good}) is None
    assert supported_best({"a": good}) is None
    assert supported_best({"a": good.iloc[:1], "b": bad.iloc[:1]}) is None


def test_a_method_without_numbers_is_not_beaten():
    good, bad = series([0.9, 0.91]), series([0.5, 0.51])
    assert supported_best({"a": good, "b": bad, "failed": pd.Series(dtype=float)}) is None


def test_summaries_are_the_intervals_of_the_groups():
    frame = pd.DataFrame({"g": list("aabbb"), "x": [1.0, 2.0, 3.0, 5.0, np.nan]})
    out = summarize(frame, ["g"], "x").set_index("g")
    for group, values in frame.groupby("g")["x"]:
        expected = mean_interval(values)
        assert tuple(out.loc[group, ["mean", "low", "high", "n"]]) == pytest.approx(
            (expected.mean, expected.low, expected.high, expected.n)
        )


def test_overfitting_gap_is_eq_1_and_may_exceed_one():
    assert overfitting_gap(series([1.0, 0.5]), series([0.4, 0.0])).round(6).tolist()[0] == 1.5
    assert overfitting_gap(series([0.5]), series([0.0])).isna().all()
    assert overfitting_gap(series([0.4]), series([0.5]))[0] == pytest.approx(0.2)


def test_relative_gain_is_eq_21():
    assert relative_gain(series([0.66]), series([0.60]))[0] == pytest.approx(10)


def runs_frame():
    rows = [
        ("d", "late", name, seed, "last", split, "fused", accuracy + 0.1 * (split == "train"))
        for name, start in (("joint", 0.5), ("msam", 0.6), ("unimodal+a", 0.3))
        for seed, accuracy in enumerate([start, start + 0.02])
        for split in ("train", "test")
    ]
    return pd.DataFrame(
        rows, columns=["dataset", "fusion", "name", "seed", "rule", "split", "output", "accuracy"]
    )


def test_gains_are_paired_by_seed_and_leave_out_joint_and_single_modalities():
    gains = gains_over_joint(runs_frame())
    assert list(gains["name"].unique()) == ["msam"]
    assert gains["gain"].tolist() == pytest.approx([100 * 0.1 / 0.5, 100 * 0.1 / 0.52])


def test_final_gaps_pair_the_splits():
    gaps = final_gaps(runs_frame()).set_index(["name", "seed"])["tau"]
    assert gaps["msam", 1] == pytest.approx(0.1 / 0.62)
    assert by_seed(runs_frame())[("d", "late", "msam")].tolist() == pytest.approx([0.6, 0.62])


def test_the_papers_tables_are_complete():
    rows = paper.reported()
    assert rows["dataset"].value_counts().to_dict() == {
        "UR-Funny": 67,
        "AV-MNIST": 53,
        "CREMA-D": 53,
        "AVE": 53,
    }
    assert not rows.duplicated(["table", "method", "dataset", "output"]).any()
    assert set(zip(rows["table"], rows["fusion"], strict=True)) == {(1, "late"), (2, "early")}
    assert rows["method"].nunique() == 13
    assert set(rows.loc[rows["method"] == "OGM-GE", "dataset"]) == {"AV-MNIST", "CREMA-D", "AVE"}
    late = rows.query("table == 1 and method == 'M-SAM' and dataset == 'CREMA-D'").set_index("output")
    assert late["accuracy"].to_dict() == {"audio": 62.78, "video": 53.22, "fused": 68.56}


@pytest.mark.parametrize(
    ("fusion", "over", "points"),
    [
        ("late", None, [0.49, 1.09, 0.70, 1.65]),
        ("early", None, [1.26, 1.53, 0.94, 0.91]),
        ("late", "SAM", [0.91, 2.24, 2.36, 2.01]),
        ("early", "SAM", [1.26, 2.21, 1.05, 1.47]),
        ("late", "Joint-Train", [5.67, 7.37, 3.81, 6.48]),
        ("early", "Joint-Train", [3.33, 6.30, 2.77, 1.94]),
    ],
)
def test_the_papers_margins(fusion, over, points):
    assert paper.margins(fusion, over).tolist() == pytest.approx(points)
    assert (paper.margins(fusion, over) > 0).all()  # M-SAM is best in every cell


def test_the_papers_single_modality_wins():
    rows = paper.reported()
    rows = rows[(rows["output"] != "fused") & ~rows["method"].str.startswith("Single")]
    best = rows.loc[rows.groupby(["table", "dataset", "output"])["accuracy"].idxmax()]
    assert (best["method"] == "M-SAM").groupby(best["table"]).sum().to_dict() == {1: 2, 2: 2}


def test_interval_scales():
    assert Interval(0.5, 0.4, 0.6, 3).scaled(100).half_width == pytest.approx(10)


def test_the_modules_do_not_import_torch():
    code = (
        "import sys; from msam.analysis import accuracy, budget, claims_table, compare, cost, dominance, "
        "figures, findings, levels, pages, profiles, ranking, reported, setup, sources, status, tables; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
