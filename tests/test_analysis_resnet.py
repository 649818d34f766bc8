"""The page of the paper's networks: differences by hand, equivalence by SciPy, its words without records."""

import numpy as np
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import paper, resnet
from msam.analysis.claims import MARGIN
from msam.analysis.sources import read
from msam.analysis.table import DASH

ACCURACY = {
    "joint": [0.70, 0.71, 0.69, 0.70, 0.72],
    "sam": [0.80, 0.82, 0.81, 0.80, 0.83],
    "msam": [0.801, 0.819, 0.812, 0.800, 0.829],
}
DESCRIPTION = {"level": "compact", "stands_for": "AV-MNIST", "modalities": {"image": {}, "audio": {}}}


EARLY = {"sam": [0.60, 0.61, 0.60, 0.61, 0.60], "msam": [0.50, 0.52, 0.51, 0.50, 0.51]}
ALONE = {"unimodal+image": [0.40, 0.41, 0.42, 0.43, 0.44]}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "results" / "resnet"
    for fusion, accuracies in {"late": ACCURACY | ALONE, "early": EARLY}.items():
        for name, values in accuracies.items():
            record = cell_record("av_digits", fusion, name, seeds=5, epochs=2)
            record["config"] |= {"profile": "resnet", "dataset": "av_mnist"}
            for seed, value in zip(record["seeds"], values, strict=True):
                last = seed["final"]["last"]["test"]
                last["accuracy"] |= {"fused": value, "image": value / 2}
                last["head_accuracy"] = {"image": value / 4} if fusion == "late" else {}
            write(folder / "main" / "av_mnist" / fusion / f"{name}.json", record)
    write(folder / "data" / "av_mnist.json", DESCRIPTION | {"splits": {"train": {"size": 1234}}})
    return read(folder.parent, only=[resnet.PROFILE])


def test_differences_are_those_by_hand(study):
    data = resnet.difference_table(study).data
    data = data[data["of"] != "head_accuracy"].set_index(["fusion", "first", "second", "output"])
    assert data.loc[("early", "msam", "sam", "fused"), "points"] == pytest.approx(-9.6)
    found = data.loc["late"]
    assert found.loc[("sam", "joint", "fused"), "points"] == pytest.approx(10.8)
    assert found.loc[("sam", "joint", "image"), "points"] == pytest.approx(5.4)
    apart = 100 * np.subtract(ACCURACY["msam"], ACCURACY["sam"])
    half = stats.sem(apart) * stats.t.ppf(0.975, 4)
    row = found.loc[("msam", "sam", "fused")]
    assert [row["points"], row["points_low"], row["points_high"]] == pytest.approx(
        [apart.mean(), apart.mean() - half, apart.mean() + half]
    )
    margin = 100 * MARGIN
    below = stats.ttest_1samp(apart, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(apart, margin, alternative="less").pvalue
    assert row["p_equal"] == pytest.approx(max(below, above))


def test_a_modality_of_late_fusion_is_compared_by_its_head_too(study):
    data = resnet.difference_table(study).data
    heads = data[data["of"] == "head_accuracy"].set_index(["fusion", "first", "second", "output"])
    assert heads.loc[("late", "sam", "joint", "image"), "points"] == pytest.approx(2.7)
    assert "early" not in heads.index.get_level_values("fusion")
    assert "by its own head: M-SAM cannot be told apart from SAM in image" in resnet.answer(study)


def test_a_method_that_was_not_run_has_dashes(study):
    rows = resnet.difference_table(study).blocks[0].rows
    assert rows["reading"].tolist() == [
        "is higher",
        "is higher",
        "too few common seeds",
        "cannot be told apart",
        "too few common seeds",
    ]
    assert rows["p (equal)"].iloc[-1] == DASH
    assert "mixture" not in resnet.answer(study)
    rows = resnet.accuracy_table(study).blocks[0].rows.set_index("method")
    assert rows.loc["AGM", ["image", "fused", "n", "tau"]].tolist() == ["missing", "missing", DASH, DASH]


def test_the_papers_numbers_stand_beside_ours(study):
    rows = resnet.accuracy_table(study).blocks[0].rows.set_index("method")
    reported = paper.reported().query("dataset == 'AV-MNIST' and fusion == 'late' and method == 'M-SAM'")
    theirs = reported.set_index("output")["accuracy"]
    assert rows.loc["M-SAM", "image, the paper"] == f"{theirs['video']:.2f}"
    assert rows.loc["M-SAM", "fused, the paper"] == f"{theirs['fused']:.2f}"
    assert rows.loc["SAM", "fused"].startswith("81.2 ± ")
    alone = rows.loc["single modalities"]
    assert [alone["fused"], alone["audio"], alone["n"]] == [DASH, "missing", "0 to 5"]
    assert alone["image"].startswith("42.0 ± ")
    assert [alone["image, the paper"], alone["fused, the paper"]] == ["65.14", DASH]


def test_the_answer_says_what_was_trained(study):
    text = resnet.answer(study)
    assert text.startswith("With ResNet18 for each modality, 1,234 train images and 2 epochs")
    assert "SAM is higher than joint with late fusion (+10.80 ± " in text
    assert "; M-SAM cannot be told apart from SAM with late fusion (" in text
    assert "; M-SAM is lower than SAM with early fusion (-9.60 ± " in text


def test_without_records_the_page_says_so(tmp_path):
    study = read(tmp_path, only=[resnet.PROFILE])
    assert resnet.answer(study) == resnet.NO_RECORDS
    assert resnet.accuracy_table(study).blocks
    assert resnet.difference_table(study).blocks
