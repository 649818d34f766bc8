"""The page of the paper's networks: differences by hand, equivalence by SciPy, its words without records."""

import numpy as np
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import paper, resnet
from msam.analysis.sources import read
from msam.analysis.table import DASH

ACCURACY = {
    "joint": [0.70, 0.71, 0.69, 0.70, 0.72],
    "sam": [0.80, 0.82, 0.81, 0.80, 0.83],
    "msam": [0.801, 0.819, 0.812, 0.800, 0.829],
}
DESCRIPTION = {"level": "compact", "stands_for": "AV-MNIST", "modalities": {"image": {}, "audio": {}}}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "results" / "resnet"
    for name, values in ACCURACY.items():
        record = cell_record("av_digits", "late", name, seeds=5, epochs=2)
        record["config"] |= {"profile": "resnet", "dataset": "av_mnist"}
        for seed, value in zip(record["seeds"], values, strict=True):
            seed["final"]["last"]["test"]["accuracy"] |= {"fused": value, "image": value / 2}
        write(folder / "main" / "av_mnist" / "late" / f"{name}.json", record)
    write(folder / "data" / "av_mnist.json", DESCRIPTION | {"splits": {"train": {"size": 1234}}})
    return read(folder.parent, only=[resnet.PROFILE])


def test_differences_are_those_by_hand(study):
    found = resnet.difference_table(study).data.set_index(["first", "second", "output"])
    assert found.loc[("sam", "joint", "fused"), "points"] == pytest.approx(10.8)
    assert found.loc[("sam", "joint", "image"), "points"] == pytest.approx(5.4)
    apart = 100 * np.subtract(ACCURACY["msam"], ACCURACY["sam"])
    half = stats.sem(apart) * stats.t.ppf(0.975, 4)
    row = found.loc[("msam", "sam", "fused")]
    assert [row["points"], row["points_low"], row["points_high"]] == pytest.approx(
        [apart.mean(), apart.mean() - half, apart.mean() + half]
    )
    below = stats.ttest_1samp(apart, -1, alternative="greater").pvalue
    above = stats.ttest_1samp(apart, 1, alternative="less").pvalue
    assert row["p_equal"] == pytest.approx(max(below, above))


def test_a_method_that_was_not_run_has_dashes(study):
    rows = resnet.difference_table(study).blocks[0].rows
    assert rows["reading"].tolist() == [
        "is higher",
        "is higher",
        "cannot be told apart",
        "too few common seeds",
    ]
    assert rows["p (equal)"].iloc[-1] == DASH
    assert resnet.answer(study).endswith("share too few seeds.")


def test_the_papers_numbers_stand_beside_ours(study):
    rows = resnet.accuracy_table(study).blocks[0].rows.set_index("method")
    reported = paper.reported().query("dataset == 'AV-MNIST' and fusion == 'late' and method == 'M-SAM'")
    theirs = reported.set_index("output")["accuracy"]
    assert rows.loc["M-SAM", "image, the paper"] == f"{theirs['video']:.2f}"
    assert rows.loc["M-SAM", "fused, the paper"] == f"{theirs['fused']:.2f}"
    assert rows.loc["SAM", "fused"].startswith("81.2 ± ")


def test_the_answer_says_what_was_trained(study):
    text = resnet.answer(study)
    assert text.startswith("With ResNet18 for each modality, 1,234 train images and 2 epochs")
    assert "SAM is higher than joint (+10.80 ± " in text
    assert "M-SAM cannot be told apart from SAM (" in text


def test_without_records_the_page_says_so(tmp_path):
    study = read(tmp_path, only=[resnet.PROFILE])
    assert resnet.answer(study) == resnet.NO_RECORDS
    assert resnet.accuracy_table(study).blocks
    assert resnet.difference_table(study).blocks
