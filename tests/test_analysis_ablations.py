"""Mixing, radius and values: hand-made records, and SciPy as oracle of the equivalence test."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_analysis_records import cell_record, description, write

from msam.analysis import mixing, radius, values
from msam.analysis.sources import read
from msam.analysis.sweep import best, swept

BLOCK = ("controlled", "late")


def record(name, accuracies, probes=None):
    """A record whose runs end with these fused test accuracies."""
    made = cell_record(*BLOCK, name, seeds=len(accuracies))
    for seed, accuracy in zip(made["seeds"], accuracies, strict=True):
        seed["final"]["last"]["test"]["accuracy"]["fused"] = accuracy
        if probes:
            seed["probes"] = probes(seed["seed"])
    return made


def study_of(root, name, records):
    write(root / "embedded" / "data" / "controlled.json", description("controlled"))
    write(root / "embedded" / "main" / "controlled" / "late" / "joint.json", cell_record(*BLOCK, "joint"))
    for cell, made in records.items():
        write(root / "embedded" / name / "controlled" / "late" / f"{cell}.json", made)
    return read(root, study=name)


def test_sweeps_are_read_from_the_names_of_cells():
    series = pd.Series([0.5, 0.7], index=[0, 1])
    found = swept({("d", "late", "mixture+share_0.25"): series, ("d", "late", "msam"): series}, "share")
    assert found.to_dict("list") == {
        "dataset": ["d", "d"],
        "fusion": ["late", "late"],
        "method": ["mixture", "mixture"],
        "x": [0.25, 0.25],
        "seed": [0, 1],
        "value": [0.5, 0.7],
    }
    more = swept({("d", "late", "m+rho_0.1"): series, ("d", "late", "m+rho_1.0"): series + 1}, "rho")
    x, interval = best(more)["d", "late", "m"]
    assert (x, interval.mean, interval.n) == (1.0, pytest.approx(1.6), 2)


@pytest.mark.parametrize("shift", [0.0, 0.004, -0.008, 0.02, -0.05])
@pytest.mark.parametrize("spread", [0.001, 0.01, 0.03])
def test_equal_within_the_margin_is_two_one_sided_tests(shift, spread):
    rng = np.random.default_rng(3)
    by = shift + spread * rng.standard_normal(10)
    within = 0.009
    p = max(
        stats.ttest_1samp(by, -within, alternative="greater").pvalue,
        stats.ttest_1samp(by, within, alternative="less").pvalue,
    )
    word = mixing.reading(by, within)
    assert (word == mixing.EQUAL) == (p < 0.05)
    if p >= 0.05:
        two_sided = stats.ttest_1samp(by, 0).pvalue
        expected = (
            "cannot be told apart" if two_sided >= 0.05 else "is higher" if by.mean() > 0 else "is lower"
        )
        assert word == expected


def test_readings_are_compared_with_the_mixture_by_seed(tmp_path):
    base = [0.60, 0.65, 0.70, 0.75]
    study = study_of(
        tmp_path,
        "mixing",
        {
            "mixture": record("mixture", base),
            "msam": record("msam", [a + d for a, d in zip(base, [0.001, -0.001, 0.002, 0], strict=True)]),
            "msam+response": record(
                "msam+response", [a - d for a, d in zip(base, [0.05, 0.06] * 2, strict=True)]
            ),
            "mixture+share_0.0": record("mixture+share_0.0", [0.5] * 4),
            "mixture+share_1.0": record("mixture+share_1.0", [0.9] * 4),
        },
    )
    found = mixing.differences(study).set_index("name")["reading"].to_dict()
    assert found == {"msam": mixing.EQUAL, "msam+response": "is lower"}
    said = mixing.mixing_sentence(study)
    assert "M-SAM is equal within the margin in 1 of 1 blocks, higher in 0, lower in 0, and cannot" in said
    assert "M-SAM in 1 of 1 blocks; " in mixing.sweep_sentence(study)
    assert mixing.sweep_sentence(study).endswith("in 0.7 if all are equal.")  # two shares of three numbers
    assert "1: 90.0 ± 0.0 %" in mixing.mixing_table(study).to_html()


def test_radius_reads_accuracy_gap_and_sharpness(tmp_path):
    records = {}
    for rho, accuracy, top in ((0.0, 0.5, 30.0), (0.1, 0.7, 10.0), (0.5, 0.6, 3.0)):
        for method, better in (("sam", 0.0), ("msam", 0.1)):
            name = f"{method}+rho_{rho}"

            def probes(seed, top=top):
                return {"sharpness": {"hessian_top": top + seed}}

            accuracies = [accuracy + better + 0.001 * k for k in (0, 1, 3)]
            records[name] = record(name, accuracies, probes)
    study = study_of(tmp_path, "radius", records)
    rows = radius.tradeoff(study)
    msam = rows[rows["method"] == "msam"].sort_values("x")
    assert msam["top"].tolist() == [31, 11, 4]
    assert msam["accuracy"].tolist() == pytest.approx([60.13, 80.13, 70.13], abs=0.01)
    assert "higher than SAM in 2 of 2 settings and lower in 0" in radius.radius_sentence(study)
    table = radius.radius_table(study).blocks[0].rows
    assert table[["n", "state"]].drop_duplicates().to_numpy().tolist() == [[3, "done"]]
    assert "in 2 of 2 sweeps; it lies between -0.50 and -0.50" in radius.tradeoff_sentence(study)


def test_identification_reads_the_true_modality_and_agreement(tmp_path):
    def probes(seed):
        return {
            "identification": {
                "dominant": {
                    "accuracy": {"8": {"m1": 0.5 + seed / 10, "m2": 0.5}, "64": {"m1": 1.0, "m2": 0.0}}
                },
                "agreement": {
                    "accuracy": {"accuracy": 1.0, "loss": 0.8},
                    "loss": {"accuracy": 0.8, "loss": 1.0},
                },
                "distance": {
                    "accuracy": {"accuracy": 0.0, "loss": 0.1},
                    "loss": {"accuracy": 0.1, "loss": 0.0},
                },
            }
        }

    study = study_of(tmp_path, "probes", {"msam": record("msam", [0.6, 0.6, 0.6], probes)})
    rows = values.identified(study)
    assert rows[rows["size"] == 8]["fraction"].tolist() == [0.5, 0.6, 0.7]
    assert "60 ± 25 % of the batches of 8, 100 ± 0 % of the batches of 64" in values.identification_sentence(
        study
    )
    assert "least with loss (80 % of the batches)" in values.agreement_sentence(study)
