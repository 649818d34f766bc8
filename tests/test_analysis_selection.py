"""Three rules for the epoch on made-up records: by hand, and with SciPy as oracle."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import figures, findings, ranking, selection
from msam.analysis.sources import read
from msam.analysis.statistics import mean_interval
from msam.analysis.tables import RULES

D, C = ("av_digits", "late"), ("controlled", "early")
# Last, best validation and best test epoch, each with one accuracy a seed.
RUNS = {
    (*D, "joint"): ([0.50, 0.52, 0.54], [0.51, 0.50, 0.54], [0.60, 0.53, 0.54]),
    (*D, "sam"): ([0.80, 0.82, 0.81], [0.80, 0.82, 0.81], [0.81, 0.83, 0.82]),
    (*D, "msam"): ([0.70, 0.69, 0.72], [0.71, 0.69, 0.71], [0.91, 0.90, 0.92]),
    (*C, "joint"): ([0.40, 0.40, 0.43], [0.41, 0.42, 0.43], [0.44, 0.42, 0.43]),
    (*C, "sam"): ([0.46, 0.47, 0.48], [0.46, 0.47, 0.48], [0.46, 0.47, 0.48]),
    (*C, "msam"): ([0.41, 0.45, 0.39], [0.44, 0.45, 0.44], [0.45, 0.46, 0.50]),
    (*C, "agm"): ([0.30, 0.31, 0.32], [0.30, 0.31, 0.32], [0.99, 0.99, 0.99]),
}


def study_of(folder, runs, profile="made"):
    for (dataset, fusion, name), rules in runs.items():
        record = cell_record(dataset, fusion, name, seeds=len(rules[0]))
        for i, seed in enumerate(record["seeds"]):
            last = seed["final"]["last"]
            seed["final"] = {
                rule: last | {"test": last["test"] | {"accuracy": {"fused": values[i]}}}
                for rule, values in zip(RULES, rules, strict=True)
            }
        write(folder / profile / "main" / dataset / fusion / f"{name}.json", record)
    return read(folder)


@pytest.fixture
def study(tmp_path):
    return study_of(tmp_path, RUNS)


@pytest.mark.parametrize(("difference", "pair"), [("validation", (1, 0)), ("test", (2, 1)), ("both", (2, 0))])
@pytest.mark.parametrize("name", ["joint", "msam"])
def test_gains_are_paired_by_seed_and_averaged_over_cells(study, difference, pair, name):
    cells = [np.array(RUNS[*cell, name]) for cell in (D, C)]
    first, second = (np.mean([runs[i] for runs in cells], axis=0) for i in pair)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = selection.gains(study).set_index("name").loc[name]
    assert found[difference].mean == pytest.approx(np.mean(first - second))
    assert (found[difference].low, found[difference].high) == pytest.approx((expected.low, expected.high))
    assert (found["blocks"], found["complete"]) == (2, True)


def test_a_method_that_lacks_cells_is_in_the_table_but_in_no_mean(study):
    found = selection.gains(study).set_index("name")
    assert found.loc["agm", ["blocks", "complete"]].tolist() == [1, False]
    table = selection.gains_table(study).blocks[0].rows.set_index(("", "method"))
    assert table.loc["AGM", ("made", "best test epoch minus last epoch")].startswith("+68.00")
    assert "AGM" not in selection.gains_sentence(study)
    assert "agm" not in selection.places(study).index


def test_the_sentence_holds_the_means_and_counts_the_papers_smaller_margins(study):
    both = {
        name: 100
        * np.mean([np.mean(RUNS[*cell, name][2]) - np.mean(RUNS[*cell, name][0]) for cell in (D, C)])
        for name in ("joint", "sam", "msam")
    }
    text = selection.gains_sentence(study)
    assert f"adds {np.mean(list(both.values())):.2f} points to the last epoch" in text
    assert f"({both['sam']:.2f} for SAM to {both['msam']:.2f} for M-SAM)" in text
    assert "8 of the paper's 8 margins" in text


def test_ranks_are_those_of_each_rule(study):
    ranks = selection.places(study)
    assert list(ranks.index) == ["sam", "msam", "joint"]
    for i, rule in enumerate(RULES):
        places = []
        for cell in (D, C):
            names = [name for *where, name in RUNS if tuple(where) == cell]
            place = stats.rankdata(-np.array([RUNS[*cell, name][i] for name in names]), axis=0).mean(axis=1)
            places.append(dict(zip(names, place, strict=True)))
        for name in ranks.index:
            expected = np.mean([place[name] for place in places])
            assert ranks.loc[name, rule].mean == pytest.approx(expected)


def test_agreement_is_the_share_of_pairs_in_order_less_those_in_disorder():
    orders = {"one": [1, 2, 3, 4], "two": [1, 2, 4, 3], "three": [4, 3, 2, 1]}
    frame = pd.DataFrame({rule: [mean_interval([x]) for x in order] for rule, order in orders.items()})
    found = selection.agreement(frame)
    assert found["one", "two"] == pytest.approx((5 - 1) / 6)
    assert found["one", "three"] == pytest.approx(-1)
    assert found["two", "three"] == pytest.approx(-4 / 6)


def test_the_rule_can_change_the_first_method_and_the_supported_one(study):
    assert findings.supported(study) == {D: "sam", C: None}
    assert findings.supported(study, "best_test") == {D: "msam", C: "agm"}
    assert selection.changed(study, "best_test") == {D: True, C: True}
    assert not any(selection.changed(study, "best_validation").values())
    text = selection.order_sentence(study)
    assert "changes in 2 of 2 blocks" in text
    assert (
        "M-SAM is number 2, 2 and 1 of 3 by the last epoch, best validation epoch and best test epoch" in text
    )
    assert "SAM by the last epoch, SAM by the best validation epoch and M-SAM by the best test epoch" in text


def test_bold_is_the_first_method_of_each_rule(study):
    table = selection.order_table(study)
    bold = {column[1]: table.blocks[0].rows.loc[i, ("", "method")] for i, column in table.blocks[0].strong}
    assert bold == {"last epoch": "SAM", "best validation epoch": "SAM", "best test epoch": "M-SAM"}


def test_a_method_that_is_first_by_every_rule_is_said_once(tmp_path):
    runs = {key: rules[:1] * 3 for key, rules in RUNS.items()}
    text = selection.order_sentence(study_of(tmp_path, runs))
    assert "Kendall's tau of 1.00: SAM has the best mean rank by every rule" in text
    assert "changes in 0 of 2 blocks" in text


def test_without_the_method_the_rest_stands(tmp_path):
    study = study_of(tmp_path, {key: rules for key, rules in RUNS.items() if key[2] != "msam"})
    assert "M-SAM has no runs in some blocks" in selection.order_sentence(study)


def test_rules_read_their_own_numbers(study):
    for i, rule in enumerate(RULES):
        grid = ranking.grids(study, rule=rule)[D]
        assert grid["msam"].tolist() == RUNS[*D, "msam"][i]


def test_no_order_of_no_method_or_one(tmp_path):
    empty = read(tmp_path / "none")
    assert selection.order_sentence(empty) == selection.gains_sentence(empty) == selection.NO_RECORDS
    assert "No records yet." in selection.gains_table(empty).to_html()
    assert "nan" not in selection.order_table(empty).note
    one = study_of(tmp_path, {(*D, "msam"): RUNS[*D, "msam"]})
    assert selection.order_sentence(one) == selection.ONE_METHOD
    assert "nan" not in selection.order_table(one).note
    assert "<svg" in figures.selection_points(one).svg
    assert "no records yet" in figures.selection_points(empty).figure.texts[0].get_text()
