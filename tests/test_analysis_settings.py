"""M-SAM against SAM at own and at equal settings, on hand-made records."""

import pytest
from test_analysis_ranking import C, D, study_of

from msam.analysis import equal_settings

OWN = {
    (*D, "sam"): [0.60, 0.61, 0.62],
    (*D, "msam"): [0.70, 0.72, 0.71],
    (*C, "sam"): [0.50, 0.52, 0.54],
    (*C, "msam"): [0.50, 0.54, 0.52],
}
EQUAL = {
    (*D, "mixture+share_1.0"): [0.71, 0.70, 0.73, 0.72],
    (*D, "mixture+share_0.0"): [0.10, 0.10, 0.10, 0.10],
    (*D, "msam"): [0.70, 0.72, 0.71, 0.73],
}


@pytest.fixture
def both(tmp_path):
    study_of(tmp_path, OWN)
    mixing = study_of(tmp_path, EQUAL, "mixing")
    return study_of(tmp_path, {}), mixing


def test_the_same_method_is_compared_with_both_kinds_of_settings(both):
    (row,) = equal_settings.comparisons(*both).to_dict("records")  # the other block is in one study only
    assert (row["dataset"], row["fusion"]) == D
    assert (row["own"].mean, row["own"].n) == (pytest.approx(0.1), 3)
    assert (row["same"].mean, row["same"].n) == (pytest.approx(-0.01 / 3), 3)  # not the fourth seed
    assert (row["equal"].mean, row["equal"].n) == (pytest.approx(0), 4)
    assert (row["settings"].mean, row["settings"].n) == (pytest.approx(0.1 + 0.01 / 3), 3)
    assert row["alike"]


def test_table_and_sentence_say_what_is_left_of_a_gain(both):
    said = equal_settings.settings_sentence(*both)
    assert "on the same seeds, M-SAM is higher than SAM in 0 of 1 blocks and lower in 0;" in said
    assert "on all seeds of that study (4) higher in 0 and lower in 0." in said
    assert "av_digits late +10.00 ± 2.48 and -0.33 ± 5.17 points, so the settings make +10.33 ± 2.87." in said
    shown = equal_settings.settings_table(*both).blocks[0].rows.iloc[0]
    assert shown["rho", "SAM"] == shown["rho", "M-SAM"] == "0.05"
    assert shown["each at its own", "reading"] == "is higher"
    assert shown["both at M-SAM's", "reading"] == "cannot be told apart"


def test_without_the_study_mixing_nothing_is_said(both):
    assert "not been run" in equal_settings.settings_sentence(both[0], both[0])
