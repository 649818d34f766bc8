"""Tests and verdicts of the claims: statistics against SciPy and brute force, claims on made-up records."""

import json
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_analysis_records import cell_record, description, fabricate, write

from msam import cli
from msam.analysis import claims, claims_table, paper
from msam.analysis.probes import MEASURES
from msam.analysis.statistics import detectable, equivalent, holm, paired_test
from msam.analysis.verdicts import (
    ALPHA,
    CONTRADICTED,
    NOT,
    NOT_HERE,
    PARTLY,
    REPRODUCED,
    SEEDS,
    SUPPORTED,
    UNDECIDED,
    UNTESTED,
    Check,
    judge,
    verdict,
)

RNG = np.random.default_rng(3)
RESULTS = Path(__file__).parents[1] / "results"
LATE, EARLY = ("controlled", "late"), ("controlled", "early")


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_paired_test_is_scipys(alternative, n):
    first, second = RNG.normal(size=n), RNG.normal(0.3, size=n)
    expected = stats.ttest_rel(first, second, alternative=alternative).pvalue
    assert paired_test(first - second, alternative) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("differences", "greater", "less", "both"),
    [([0, 0, 0], 1, 1, 1), ([0.1 + 0.2, 0.3], 0, 1, 0), ([-2, -2], 1, 0, 0), ([5], 1, 1, 1), ([], 1, 1, 1)],
)
def test_the_paired_test_where_scipy_has_no_number(differences, greater, less, both):
    found = [paired_test(differences, side) for side in ("greater", "less", "two-sided")]
    assert found == [greater, less, both]


def closed_testing(p_values, alpha):
    """Hypotheses that the closed Bonferroni procedure rejects, from its definition: Holm's are the same."""
    everyone = range(len(p_values))
    sets = list(chain.from_iterable(combinations(everyone, k) for k in range(1, len(p_values) + 1)))
    rejected = {s for s in sets if len(s) * min(p_values[i] for i in s) <= alpha}
    return [all(s in rejected for s in sets if i in s) for i in everyone]


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_holm_rejects_what_closed_testing_does(n):
    for _ in range(50):
        p_values = RNG.beta(0.3, 2, size=n)
        corrected = holm(p_values)
        for alpha in (0.01, 0.05, 0.3):
            assert [p <= alpha for p in corrected] == closed_testing(p_values, alpha)


@pytest.mark.parametrize(("n", "alpha", "power"), [(5, 0.05, 0.8), (5, 0.05 / 6, 0.8), (10, 0.01, 0.5)])
def test_a_detectable_effect_is_found_with_its_probability(n, alpha, power):
    differences = np.random.default_rng(0).normal(3, 2, n)
    shift = detectable(differences, alpha, power) / (np.std(differences, ddof=1) / np.sqrt(n))
    critical = stats.t.isf(alpha, n - 1)
    assert stats.nct.sf(critical, n - 1, shift) == pytest.approx(power, abs=1e-6)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


def test_equivalence_is_two_tests_of_scipy():
    values = RNG.normal(0.1, 0.4, size=9)
    lower = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert equivalent(values, 0.5) == pytest.approx(max(lower, upper))


@pytest.mark.parametrize("mean", [0.0, 0.3, 0.9, 1.1])
def test_equivalence_is_the_90_percent_interval_within_the_margin(mean):
    values = mean + RNG.normal(0, 0.2, size=6)
    low, high = stats.t.interval(0.9, 5, loc=values.mean(), scale=stats.sem(values))
    assert (equivalent(values, 1.0) <= 0.05) == (low > -1 and high < 1)


def test_the_effect_of_dependent_tests_is_averaged_seed_by_seed():
    shared = RNG.normal(1, 0.2, size=SEEDS)
    effects = [shared + RNG.normal(0, 0.001, size=SEEDS) for _ in range(4)]
    tests = [Check(LATE, "x", "points", pd.Series(effect), 0.5, 0.5) for effect in effects]
    low, high = stats.t.interval(0.95, SEEDS - 1, loc=shared.mean(), scale=stats.sem(shared))
    (found,) = judge(tests)["effects"]
    assert (found["effect"], found["low"], found["high"]) == pytest.approx(
        (shared.mean(), low, high), abs=0.003
    )


def test_an_effect_that_the_results_chose_has_no_interval():
    effect = pd.Series(RNG.normal(size=SEEDS))
    found = judge([Check(LATE, "x", "points", effect, 0.5, 0.5, chosen=True)])
    for row in (*found["effects"], *found["tests"]):
        assert row["effect"] == pytest.approx(effect.mean())
        assert (row["low"], row["high"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([SUPPORTED] * 3, REPRODUCED),
        ([SUPPORTED, SUPPORTED, UNDECIDED], PARTLY),
        ([SUPPORTED, SUPPORTED, CONTRADICTED], PARTLY),
        ([SUPPORTED, UNTESTED], PARTLY),
        ([SUPPORTED, CONTRADICTED], NOT),
        ([UNDECIDED, UNTESTED], NOT),
        ([CONTRADICTED] * 2, NOT),
        ([UNTESTED] * 2, NOT_HERE),
        ([], NOT_HERE),
    ],
)
def test_verdicts_follow_the_rule(words, expected):
    assert verdict(words) == expected


def check(support, against, n=SEEDS):
    effect = pd.Series(np.linspace(0.5, 1.5, n))
    return Check(LATE, "x", "points", effect, support, against, records=("a", f"{support}"))


def test_tests_are_corrected_over_the_claim_and_only_those_made():
    found = judge([check(0.02, 1), check(0.03, 1), check(1, 0.01), check(0, 0, n=SEEDS - 1)])
    assert [row["outcome"] for row in found["tests"]] == [UNDECIDED, UNDECIDED, CONTRADICTED, UNTESTED]
    assert found["tests"][0]["p_supported"] == pytest.approx(0.06)  # 3 tests, not 4
    assert found["smallest_p"] == pytest.approx({SUPPORTED: 0.06, CONTRADICTED: 0.03})
    assert found["verdict"] == NOT
    assert found["n"] == [SEEDS, SEEDS]
    assert found["effects"][0]["tests"] == 3
    assert found["effects"][0]["effect"] == pytest.approx(1)
    assert judge([check(0.02, 1)])["verdict"] == REPRODUCED


# The accuracies of five seeds around a level: no two methods have the same noise.
def around(level, noise=0.004, seeds=SEEDS):
    return (level + noise * np.random.default_rng(int(1e6 * level)).standard_normal(seeds)).tolist()


def record(block, name, values, study="main", change=None):
    """A record whose fused accuracy by seed is `values` on test and validation, 0.1 more on train."""
    made = cell_record(*block, name, seeds=len(values), epochs=1)
    made["config"]["study"] = study
    for seed, value in zip(made["seeds"], values, strict=True):
        last = json.loads(json.dumps(seed["final"]["last"]))
        for split, shift in (("train", 0.1), ("validation", 0), ("test", 0)):
            last[split]["accuracy"]["fused"] = value + shift
        if change:
            change(seed, last)
        seed["final"] = dict.fromkeys(("last", "best_validation", "best_test"), last)
    return made


def study_of(folder, accuracies, study="main", change=None):
    """A profile "made" with these fused accuracies: (dataset, fusion, name) -> one a seed; the root."""
    root = folder / "results"
    for (dataset, fusion, name), values in accuracies.items():
        path = root / "made" / study / dataset / fusion / f"{name}.json"
        write(path, record((dataset, fusion), name, values, study, change))
        write(root / "made" / "data" / f"{dataset}.json", description(dataset))
    return root


def table_of(block, mine, best_other):
    """Accuracies of every method of the paper's table: M-SAM's, the best other's (CGGM), all others lower."""
    levels = dict.fromkeys(paper.methods(block[1]), best_other - 0.05)
    levels |= {"msam": mine, "cggm": best_other}
    return {(*block, name): around(level + 1e-4 * i) for i, (name, level) in enumerate(levels.items())}


def found(root, claim):
    rows = claims.evaluate(root, "made")["claims"]
    return next(row for row in rows if row["claim"] == claim)


@pytest.mark.parametrize(
    ("late", "early", "expected"),
    [(0.9, 0.9, REPRODUCED), (0.9, 0.7, PARTLY), (0.9, 0.6, NOT), (0.6, 0.6, NOT)],
)
def test_c1_and_c2_on_a_whole_table(tmp_path, late, early, expected):
    root = study_of(tmp_path, table_of(LATE, late, 0.7) | table_of(EARLY, early, 0.7))
    for claim in ("C1", "C2"):
        whole = found(root, claim)
        assert whole["verdict"] == expected
        assert {t["fusion"]: t["outcome"] for t in whole["tests"]} == {
            fusion: {0.9: SUPPORTED, 0.7: UNDECIDED, 0.6: CONTRADICTED}[level]
            for fusion, level in (("late", late), ("early", early))
        }


def test_c1_takes_the_largest_p_for_and_the_smallest_times_their_number_against(tmp_path):
    accuracies = table_of(LATE, 0.701, 0.7)
    test = found(study_of(tmp_path, accuracies), "C1")["tests"][0]
    mine = accuracies[*LATE, "msam"]
    others = {name: values for (*_, name), values in accuracies.items() if name != "msam"}
    above = {k: stats.ttest_rel(mine, v, alternative="greater").pvalue for k, v in others.items()}
    below = [stats.ttest_rel(mine, v, alternative="less").pvalue for v in others.values()]
    assert test["p_supported"] == pytest.approx(max(above.values()))
    assert test["p_contradicted"] == pytest.approx(min(1, len(others) * min(below)))
    assert test["effect"] == pytest.approx(100 * (np.mean(mine) - np.mean(others["cggm"])))
    assert test["records"] == sorted(test["records"])
    assert len(test["records"]) == len(accuracies)


def test_a_missing_method_of_the_table_is_not_beaten(tmp_path):
    accuracies = table_of(LATE, 0.9, 0.7)
    del accuracies[*LATE, "mses"]
    root = study_of(tmp_path, accuracies)
    assert found(root, "C1")["tests"][0]["outcome"] == UNDECIDED
    second = found(root, "C2")["tests"][0]
    assert second["outcome"] == UNTESTED
    assert second["test"].endswith("too few seeds of MSES")
    write(
        root.joinpath("made", "main", *LATE, "mses.json"), record(LATE, "mses", around(0.7, seeds=SEEDS - 1))
    )
    assert found(root, "C1")["tests"][0]["outcome"] == UNDECIDED
    assert found(root, "C2")["tests"][0]["outcome"] == UNTESTED


def test_a_method_that_is_undefined_in_a_block_is_no_candidate(tmp_path):
    root = study_of(tmp_path, table_of(LATE, 0.9, 0.7))
    path = root.joinpath("made", "main", *LATE, "mses.json")
    write(path, json.loads(path.read_text()) | {"state": "undefined", "seeds": [], "reason": "by definition"})
    for claim in ("C1", "C2"):
        assert found(root, claim)["tests"][0]["outcome"] == SUPPORTED


def diverged(root, name):
    """The last seed of a record is a diverged one."""
    path = root.joinpath("made", "main", *LATE, f"{name}.json")
    broken = json.loads(path.read_text())
    broken["seeds"][-1] |= {"state": "diverged", "reason": "loss is nan", "final": {}}
    write(path, broken)


@pytest.mark.parametrize(("mine", "expected"), [(0.9, SUPPORTED), (0.6, CONTRADICTED)])
def test_a_method_that_diverged_is_no_candidate_for_the_highest(tmp_path, mine, expected):
    accuracies = table_of(LATE, mine, 0.7)
    root = study_of(tmp_path, accuracies | {(*LATE, "mses"): around(0.99)})
    for claim in ("C1", "C2"):
        assert found(root, claim)["tests"][0]["outcome"] == CONTRADICTED
    diverged(root, "mses")
    for claim in ("C1", "C2"):
        assert found(root, claim)["tests"][0]["outcome"] == expected


def test_a_block_without_a_method_of_the_table_is_not_tested(tmp_path):
    root = study_of(
        tmp_path, {(LATE[0], "psp", "msam"): around(0.9), (LATE[0], "psp", "mixture"): around(0.8)}
    )
    (only,) = found(root, "C2")["tests"]
    assert (only["outcome"], only["test"].rpartition(": ")[2]) == (UNTESTED, "there is none")


def test_c2_chooses_by_validation_not_by_test(tmp_path):
    def swap(seed, last):
        last["validation"]["accuracy"]["fused"] *= -1  # the best on test is the worst on validation

    accuracies = table_of(LATE, 0.69, 0.7)
    test = found(study_of(tmp_path, accuracies, change=swap), "C2")["tests"][0]
    assert "CGGM" not in test["test"]
    assert test["outcome"] == SUPPORTED
    lowest = min((k for k in accuracies), key=lambda k: np.mean(accuracies[k]))
    gains = 100 * (np.array(accuracies[*LATE, "msam"]) / accuracies[lowest] - 1)
    assert test["effect"] == pytest.approx(gains.mean())
    assert test["p_supported"] == pytest.approx(stats.ttest_1samp(gains, 0, alternative="greater").pvalue)


@pytest.mark.parametrize("seeds", [3, SEEDS - 1])
def test_four_seeds_carry_no_verdict(tmp_path, seeds):
    accuracies = {(*LATE, n): around(v, seeds=seeds) for n, v in (("msam", 0.9), ("sam", 0.5))}
    assert found(study_of(tmp_path, accuracies), "C8")["verdict"] == NOT_HERE


def test_seeds_are_paired(tmp_path):
    noise = 0.1 * RNG.standard_normal(SEEDS)
    accuracies = {
        (*LATE, "msam"): (0.6 + noise + around(0.01, 1e-3)).tolist(),
        (*LATE, "sam"): (0.6 + noise).tolist(),
    }
    whole = found(study_of(tmp_path, accuracies), "C8")
    assert whole["verdict"] == REPRODUCED  # the seeds' noise is ten times the difference
    assert whole["equivalent"] in (0, 1)


@pytest.mark.parametrize(("sam", "same"), [(0.6001, 1), (0.607, 1), (0.612, 0), (0.5, 0)])
def test_c8_says_where_both_are_equal_within_the_margin(tmp_path, sam, same):
    accuracies = {(*LATE, "msam"): around(0.6, 0.001), (*LATE, "sam"): around(sam, 0.001)}
    assert found(study_of(tmp_path, accuracies), "C8")["equivalent"] == same


def probed(folder, block, flat):
    """Records of the study probes; `flat`: name -> level of both measures of flatness."""

    def probe(level):
        values = iter(around(level, 0.1))

        def change(seed, _):
            value = next(values)
            whole = dict.fromkeys(MEASURES, value) | {"adaptive_sharpness": value / 10}
            seed["probes"] = {"flatness": {"whole": whole, "blocks": {}}}

        return change

    for name, level in flat.items():
        study_of(folder, {(*block, name): around(0.6)}, "probes", probe(level))


def test_c3_needs_tau_and_flatness(tmp_path):
    # tau = 0.1 / test accuracy, so the most accurate has the smallest
    root = study_of(tmp_path, {(*LATE, n): around(v) for n, v in (("msam", 0.9), ("sam", 0.6), ("agm", 0.6))})
    without = found(root, "C3")
    assert without["counts"] == {SUPPORTED: 2, CONTRADICTED: 0, UNDECIDED: 0, UNTESTED: 4}
    assert without["verdict"] == PARTLY
    probed(tmp_path, LATE, {"msam": 1, "sam": 5, "agm": 5})
    whole = found(root, "C3")
    assert whole["verdict"] == REPRODUCED
    assert {row["unit"]: row["tests"] for row in whole["effects"]} == {
        "tau": 2,
        "log10 of the largest Hessian eigenvalue": 2,
        "log10 of the adaptive sharpness": 2,
    }
    assert any("/probes/" in path for path in whole["records"])
    probed(tmp_path, LATE, {"msam": 9})
    mixed = found(root, "C3")
    assert mixed["counts"][CONTRADICTED] == 4
    assert mixed["parts"] == {
        f"{what} against {other}": verdict
        for what, verdict in (("generalization", REPRODUCED), ("flatness", NOT))
        for other in ("AGM", "SAM")
    }


@pytest.mark.parametrize(("fixed", "expected"), [(0.5, REPRODUCED), (0.9, NOT)])
def test_c4_compares_with_every_fixed_modality(tmp_path, fixed, expected):
    main = {(*LATE, "msam"): around(0.1)}  # of the main study, which C4 does not read
    study_of(tmp_path, main)
    values = {"msam": 0.7, "msam+fixed_m1": 0.5, "msam+fixed_m2": 0.5, "msam+fixed_m3": fixed}
    root = study_of(tmp_path, {(*LATE, n): around(v) for n, v in values.items()}, "dominance")
    assert found(root, "C4")["verdict"] == expected
    (root / "made/dominance/controlled/late/msam+fixed_m2.json").unlink()
    assert found(root, "C4")["verdict"] == NOT


def blocks_of(accuracies):
    """The same accuracies in both fusions of two and of three modalities."""
    blocks = [(d, f) for d in ("controlled", "av_digits") for f in ("late", "early")]
    return {(*block, name): values for block in blocks for name, values in accuracies.items()}


@pytest.mark.parametrize(
    ("msam", "joint", "expected"),
    [
        (0.8, 0.8, REPRODUCED),
        (0.795, 0.8, REPRODUCED),  # half a point less is within the margin
        (0.7, 0.8, NOT),  # ten points less
        (0.785, 0.8, NOT),  # 1.5 points less
        (0.53, 0.53, NOT),  # the largest class is 11 of 20
        (0.5, 0.5, NOT),
    ],
)
def test_c6_is_above_chance_and_not_below_joint(tmp_path, msam, joint, expected):
    accuracies = {"msam": around(msam, 0.001), "joint": around(joint, 0.001)}
    assert found(study_of(tmp_path, blocks_of(accuracies)), "C6")["verdict"] == expected


def test_c6_speaks_against_by_the_smaller_p_times_two(tmp_path):
    mine, joint = around(0.547, 0.004), around(0.56, 0.004)
    test = found(study_of(tmp_path, {(*LATE, "msam"): mine, (*LATE, "joint"): joint}), "C6")["tests"][0]
    chance = stats.ttest_1samp(mine, 11 / 20, alternative="less").pvalue
    below = stats.ttest_1samp(np.subtract(mine, joint), -claims.MARGIN, alternative="less").pvalue
    assert 0.01 < min(chance, below) < max(chance, below) < 0.5
    assert test["p_contradicted"] == pytest.approx(2 * min(chance, below))


def test_c6_needs_both_fusions_and_both_numbers_of_modalities(tmp_path):
    accuracies = blocks_of({"msam": around(0.8, 0.001), "joint": around(0.7, 0.001)})
    late = {key: values for key, values in accuracies.items() if key[1] == "late"}
    whole = found(study_of(tmp_path, late), "C6")
    assert whole["counts"] == {SUPPORTED: 2, CONTRADICTED: 0, UNDECIDED: 0, UNTESTED: 2}
    assert whole["verdict"] == PARTLY


def test_c6_counts_a_diverged_seed_as_not_working(tmp_path):
    accuracies = {(*LATE, n): around(v, 0.001, 6) for n, v in (("msam", 0.8), ("joint", 0.7))}
    root = study_of(tmp_path, accuracies)
    diverged(root, "msam")
    assert found(root, "C6")["tests"][0]["outcome"] == UNDECIDED


def test_c7_tests_the_modalities_that_do_not_dominate_by_both_definitions(tmp_path):
    shift = {"msam": 0.2, "joint": 0.0}
    for name, value in shift.items():

        def change(seed, last, value=value):
            for column in ("accuracy", "head_accuracy"):
                for modality in set(last["test"][column]) - {"fused"}:
                    noise = np.random.default_rng([seed["seed"], len(modality + column)]).normal(0, 0.01)
                    last["test"][column][modality] += value + noise * (1 + value)

        root = study_of(tmp_path, {(*b, name): around(0.6) for b in (LATE, EARLY)}, change=change)
    whole = found(root, "C7")
    assert whole["verdict"] == REPRODUCED
    assert sorted(test["test"] for test in whole["tests"] if test["fusion"] == "late") == [
        "m2 by Shapley response, m1 dominant",
        "m2 by its own head, m1 dominant",
        "m3 by Shapley response, m1 dominant",
        "m3 by its own head, m1 dominant",
    ]
    assert len(whole["tests"]) == 6  # no heads with early fusion
    before = 100 * 0.1 * (1 - np.exp(-1 / 2))  # by which the made-up M-SAM is better without the shift
    assert whole["effects"][0]["effect"] == pytest.approx(20 + before, abs=1)


def test_c7_is_not_tested_where_runs_disagree_on_the_dominant_modality(tmp_path):
    def other(seed, _):
        seed["epochs"][0]["dominance"] = {"m1": 5 + seed["seed"], "m2": 5, "m3": 0}

    root = study_of(tmp_path, {(*LATE, n): around(0.6) for n in ("msam", "joint")}, change=other)
    assert found(root, "C7")["counts"][UNTESTED] == 0
    path = root.joinpath("made", "main", *LATE, "msam.json")
    record = json.loads(path.read_text())
    record["seeds"][0]["epochs"][0]["dominance"]["m2"] = 6
    write(path, record)
    (only,) = found(root, "C7")["tests"]
    assert (only["outcome"], only["test"]) == (UNTESTED, "the dominant modality: M-SAM's runs disagree on it")


@pytest.mark.parametrize(("slope", "word"), [(-0.2, REPRODUCED), (0.2, NOT)])
def test_c5_reads_the_measured_rate(tmp_path, slope, word):
    root = study_of(tmp_path, {(*LATE, "msam"): around(0.6)})
    assert found(root, "C5")["verdict"] == NOT_HERE
    steps = np.geomspace(10, 10_000, 12)
    runs = [
        {"rule": rule, "schedule": "sqrt", "seed": seed, "share": 0.7}
        | {"average": list(np.log(steps) / np.sqrt(steps) * steps ** (slope + 0.01 * seed))}
        | {"smallest": [0.0] * len(steps)}
        for rule in ("dynamic", "fixed a", "sam", "sgd")
        for seed in range(SEEDS)
    ]
    record = {
        "provenance": {"commit": "0123456789", "dirty": True},
        "measured": {"horizons": list(steps), "runs": runs},
    }
    write(root / "rate" / "rate.json", record)
    judged = found(root, "C5")
    assert judged["verdict"] == word
    assert [test["test"] for test in judged["tests"]] == ["dominant modality", "always a"]
    assert judged["effects"][0]["effect"] == pytest.approx(-slope - 0.01 * (SEEDS - 1) / 2)
    assert claims.evaluate(root, "made")["commits"] == ["abc1234 (clean)", "0123456 (dirty)"]


def test_every_planned_block_counts(tmp_path):
    root = fabricate(tmp_path / "results" / "embedded", seeds=SEEDS).parent
    rows = {row["claim"]: row for row in claims.evaluate(root, "embedded")["claims"]}
    assert list(rows) == [f"C{i}" for i in range(1, 9)]
    outcomes = {(t["dataset"], t["fusion"]): t["outcome"] for t in rows["C8"]["tests"]}
    assert outcomes["watch", "late"] == UNTESTED  # the study file lists it, nobody ran it
    assert outcomes["av_digits", "early"] == UNTESTED  # SAM failed
    assert outcomes["controlled", "late"] == SUPPORTED
    assert rows["C8"]["verdict"] == PARTLY
    assert {row["claim"] for row in rows.values() if row["verdict"] == NOT_HERE} == {"C2", "C4", "C5"}


def test_the_command_writes_what_is_computed_and_prints_it(tmp_path, capsys):
    root = fabricate(tmp_path / "results" / "embedded", seeds=SEEDS).parent
    assert cli.main(["claims", "--results", str(root)]) == 0
    written = json.loads((root / "embedded" / claims.FILE).read_text())
    assert written == json.loads(json.dumps(claims.evaluate(root, "embedded"), allow_nan=False))
    assert claims.read_all(root) == {"embedded": written}
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(written["claims"])
    for line, row in zip(printed, written["claims"], strict=True):
        assert line.split()[:2] == ["embedded", row["claim"]]
        assert row["verdict"] in line
    assert (written["alpha"], written["seeds"], written["margin"]) == (ALPHA, SEEDS, claims.MARGIN)


@pytest.mark.parametrize("profile", ["embedded", "compact"])
def test_the_published_verdicts_are_those_of_the_published_records(profile):
    written = json.loads((RESULTS / profile / claims.FILE).read_text())
    computed = claims.evaluate(RESULTS, profile)
    assert [row["verdict"] for row in written["claims"]] == [row["verdict"] for row in computed["claims"]]
    assert (written["rule"], written["commits"]) == (computed["rule"], computed["commits"])
    for mine, theirs in zip(written["claims"], computed["claims"], strict=True):
        assert {k: mine[k] for k in ("claim", "statement", "rule", "counts", "records")} == {
            k: theirs[k] for k in ("claim", "statement", "rule", "counts", "records")
        }
        for one, other in zip(mine["tests"], theirs["tests"], strict=True):
            assert one["effect"] == pytest.approx(other["effect"])
    assert all((RESULTS / path).is_file() for row in written["claims"] for path in row["records"])


def test_the_table_links_pages_that_exist_and_no_other(tmp_path, monkeypatch):
    root = study_of(tmp_path, {(*LATE, "msam"): around(0.9), (*LATE, "sam"): around(0.5)})
    monkeypatch.setattr("msam.book.pages", lambda _: {"ranking", "convergence"})
    table = claims_table.claims_table(claims.evaluate_all(root), root)
    assert table.footer.endswith(", commit abc1234 (clean); remake: `make claims`.")
    rows = table.blocks[0].rows
    assert rows.loc[1, "claim"].text == '<a href="ranking.html">C2</a>'
    assert rows.loc[0, "claim"] == "C1"  # its page is not among them
    assert rows.filter(like="evidence").loc[7].tolist() == ["reproduced: 1 supported"]


def test_the_answer_counts_verdicts(tmp_path):
    root = study_of(tmp_path, {(*LATE, "msam"): around(0.9), (*LATE, "sam"): around(0.5)})
    judged = claims.evaluate_all(root)
    text = claims_table.answer(judged)
    verdicts = [row["verdict"] for row in judged["made"]["claims"]]
    assert f"{verdicts.count(NOT)} not reproduced, {verdicts.count(NOT_HERE)} not testable here" in text
    assert text.endswith("Reproduced as stated: C8 (embedded).")
    assert claims_table.answer({}) == "There are no records yet. No claim can be judged."
