"""The analysis of the measured rate, against sequences whose rate is known and SciPy."""

import json

import numpy as np
import pytest
from scipy import stats

from msam import rate as experiment
from msam.analysis import figures, rate

STEPS = np.unique(np.geomspace(10, 30_000, 20).round().astype(int))


def record(exponents, seeds=8, schedules=("sqrt", "steps", "epochs")):
    """Averages c T^exponent log T / sqrt T with c and, a little, the exponent drawn anew for every seed."""
    random = np.random.default_rng(0)
    runs = [
        {"schedule": schedule, "rule": rule, "seed": seed, "loss": 0.25, "share": 0.5}
        | {"average": average.tolist(), "smallest": (average / 2).tolist()}
        for schedule in schedules
        for rule, exponent in exponents.items()
        for seed in range(seeds)
        for average in [
            random.uniform(1, 2)
            * STEPS ** (exponent + 0.02 * random.standard_normal() * (exponent != 0))
            * np.log(STEPS)
            / np.sqrt(STEPS)
        ]
    ]
    row = {"step": 10, "share": 0.5, "change": -1.0, "gradient": -1.0, "perturbation": 0.1, "curvature": 0.2}
    return {
        "provenance": {"commit": "0123456789", "dirty": False, "device": "cpu: test"},
        "settings": {"lipschitz": 2.0, "bound": 0.5, "eta": 0.5, "rho": 0.1},
        "descent": {"steps": 9, "violations": 2, "rows": [row]},
        "measured": {"horizons": STEPS.tolist(), "runs": runs},
    }


KNOWN = {"dynamic": 0.0, "fixed a": -0.5, "fixed b": 0.3, "random": -0.04, "sam": 0.06, "sgd": 0.5}


def test_slopes_are_those_of_sequences_with_a_known_rate():
    found = {one.rule: one for one in rate.verdict(record(KNOWN))}
    assert list(found) == list(KNOWN)
    assert found["dynamic"].effect.mean == pytest.approx(0, abs=1e-12)
    for rule, exponent in KNOWN.items():
        assert found[rule].effect.mean == pytest.approx(exponent, abs=0.02)
        assert found[rule].effect.n == 8
    assert found["fixed a"].verdict == "supported"
    assert {found[rule].verdict for rule in ("fixed b", "sam", "sgd")} == {"contradicted"}


def test_only_the_last_two_decades_count():
    early = STEPS.max() > 100 * STEPS
    assert rate.slope(STEPS, np.where(early, 7.0, STEPS**0.25)) == pytest.approx(0.25)


def test_p_values_are_those_of_scipy_corrected_step_by_step():
    content = record(KNOWN | {"dynamic": 0.01})
    rows = rate.averages(content)
    late = rows[rows["steps"] >= 300]
    raw = {}
    for rule, mine in late.groupby("rule", sort=False):
        slopes = [
            stats.linregress(np.log(one["steps"]), np.log(one["ratio"])).slope
            for _, one in mine.groupby("seed")
        ]
        raw[rule] = stats.ttest_1samp(slopes, 0).pvalue
    worst = 0.0
    expected = {}
    for place, rule in enumerate(sorted(raw, key=raw.get)):
        worst = max(worst, raw[rule] * (len(raw) - place))
        expected[rule] = min(worst, 1.0)
    for one in rate.verdict(content):
        assert one.p == pytest.approx(expected[one.rule], rel=1e-6)


def test_a_slope_without_evidence_is_undecided():
    words = [one.verdict for one in rate.verdict(record({"dynamic": -0.5, "sgd": -0.5}, seeds=1))]
    assert words == ["undecided", "undecided"]
    noisy = record({"dynamic": 1e-9, "sgd": -0.5})
    assert [one.verdict for one in rate.verdict(noisy)] == ["undecided", "supported"]


def test_the_bound_by_hand():
    """K = 2, G = 1/2, eta = 1/2, rho = 1/10, L_1 = 1/4."""
    steps = np.array([1.0, np.e**2])
    per_log = 0.1 + 0.125
    expected = [0.5 + per_log, (0.5 + 3 * per_log) / np.e]
    assert rate.bound(record(KNOWN), steps) == pytest.approx(expected)
    assert rate.bound(record(KNOWN), steps, share=0.0)[0] == pytest.approx(0.625)


def test_the_bound_holds_for_what_was_measured():
    content = {
        "settings": {
            "lipschitz": 1.0,
            "bound": experiment.BOUND,
            "eta": experiment.ETA,
            "rho": experiment.RHO,
        }
    }
    content["measured"] = experiment.measure(experiment.problem(), 200, 3)
    rows = rate.averages(content)
    for steps, mine in rows.groupby("steps"):
        assert mine["average"].max() < rate.bound(content, np.array([steps]))[0]
    assert (rows.loc[rows["rule"] == "sgd", "to_sgd"] == 1).all()


def test_the_page_says_what_the_record_says_and_that_there_is_none():
    content = record(KNOWN)
    held, practice = rate.rate_sentences(content)
    assert "supported for 2 of the 6 rules (always a, random modality)" in held
    assert "-0.5" in held
    assert "+0.5" in held
    assert "every 70 iterations" in practice
    everywhere = record(dict.fromkeys(KNOWN, -0.5))
    assert "all 6 rules, SAM and SGD among them" in rate.rate_sentences(everywhere)[0]
    assert rate.descent_sentence(content) == "The bound was broken at 2 of 9 steps."
    assert rate.rate_table(content).blocks[0].rows["claimed rate"].tolist().count("contradicted") == 3
    assert rate.descent_table(content).blocks[0].rows["bound"].tolist() == ["-7.00e-01"]
    assert "make rate" in rate.rate_sentences(None)[0]
    for make in (rate.rate_table, rate.descent_table):
        assert "No records yet" in make(None).to_html()
        assert "commit 0123456 (clean); cpu: test; remake: <code>make rate</code>" in make(content).to_html()
    for draw in (figures.rate_curves, figures.decay_curves):
        assert draw(content).svg.count("<path") > 10
        assert draw(content).svg == draw(content).svg
        assert "<svg" in draw(None).svg


def test_the_record_is_found_in_the_folder_of_results_or_around_it(tmp_path):
    assert rate.read(tmp_path) is None
    path = tmp_path / "rate" / "rate.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record(KNOWN)))
    assert rate.read(tmp_path) == rate.read(tmp_path / "local") == record(KNOWN)
