"""Flatness, disturbed inputs and wrong labels: hand-made records, SciPy as oracle, rescaled layers."""

import numpy as np
import pytest
import torch
from scipy import stats
from test_analysis_ablations import record, study_of
from test_analysis_records import cell_record

from msam.analysis import beyond, figures, flatness, probes
from msam.analysis.dominance import dominant
from msam.analysis.sources import read
from msam.probes import _around

PARTS = ("whole", "m1", "m2", "m3")
TOPS = {"msam": [1.0, 2.0, 1.5], "sam": [10.0, 21.0, 14.0], "joint": [1.1, 1.9, 1.6], "agm": [0.1, 0.2, 0.1]}


def found(name, seed):
    """The probes of a run: every part has the same top eigenvalue, but m3, where all methods are equal."""
    top = TOPS[name][seed]
    block = {"hessian_top": top, "hessian_trace": 5 * top, "sharpness": 0.1, "adaptive_sharpness": 0.2}
    blocks = dict.fromkeys(("m1", "m2"), block) | {"m3": block | {"hessian_top": 3.0}}
    better = 0.1 if name == "msam" else 0.0
    return {
        "flatness": {
            "whole": block,
            "blocks": blocks,
            "landscape": {
                "x": [-1.0, 0.0, 1.0],
                "loss": [[3.0, 2.0, 3.0], [2.0, 1.0 + seed, 2.0], [4.0] * 3],
            },
            "weight_noise": {"levels": [0.1, 0.2], "accuracy": {part: [0.5, 0.4] for part in PARTS}},
        },
        "robustness": {
            "clean": 0.6,
            "noise": {
                m: {"levels": [1.0, 2.0], "accuracy": [0.5 + better + 0.001 * seed, 0.4]}
                for m in ("m1", "m2", "m3")
            },
            "missing": dict.fromkeys(("m1", "m2", "m3"), 0.3 - better - 0.001 * seed),
        },
    }


def probed_record(name):
    return record(name, [0.6, 0.65, 0.7], lambda seed: found(name, seed))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    records = {name: probed_record(name) for name in TOPS}
    return study_of(tmp_path_factory.mktemp("results"), "probes", records)


def row(rows, **where):
    (only,) = [r for r in rows.itertuples() if all(getattr(r, k) == v for k, v in where.items())]
    return only


@pytest.mark.parametrize(("other", "word"), [("sam", "lower"), ("agm", "higher"), ("joint", "apart")])
def test_ratios_are_paired_t_intervals_of_logarithms(study, other, word):
    mine = row(flatness.ratios(study), part="whole", measure="hessian_top", other=other)
    oracle = stats.ttest_rel(np.log10(TOPS["msam"]), np.log10(TOPS[other])).confidence_interval(0.95)
    assert (mine.difference.low, mine.difference.high) == pytest.approx((oracle.low, oracle.high))
    assert mine.verdict == word


def test_the_dominant_encoder_is_told_from_the_others(study):
    assert dominant(study, "controlled", "late") == "m1"
    roles = flatness.ratios(study).groupby("part", sort=False)["role"].first().to_dict()
    expected = {"whole": "whole", "m1": "dominant", "m2": "non-dominant", "m3": "non-dominant"}
    assert roles == expected
    assert list(roles) == list(PARTS)


def test_without_shares_of_msam_no_encoder_counts_as_non_dominant(tmp_path):
    made = probed_record("msam")
    for seed in made["seeds"]:
        for epoch in seed["epochs"]:
            epoch |= {"dominance": {}, "shares": {}, "dominant_share": None}
    study = study_of(tmp_path, "probes", {"msam": made, "sam": probed_record("sam")})
    assert set(flatness.ratios(study)["role"]) == {"whole", "unknown"}
    assert flatness.encoder_sentence(study).startswith("There are no records")


def test_the_answer_counts_what_the_intervals_support(study):
    assert flatness.flatness_sentence(study) == (
        "Paired by seed, the whole network of M-SAM is, "
        "against SAM, flatter in 1 of 1 cases and sharper in 0 by top eigenvalue, "
        "flatter in 0 of 1 cases and sharper in 0 by adaptive sharpness; "
        "against AGM, flatter in 0 of 1 cases and sharper in 1 by top eigenvalue, "
        "flatter in 0 of 1 cases and sharper in 0 by adaptive sharpness."
    )
    assert "against SAM, flatter in 1 of 2 cases and sharper in 0 by top" in flatness.encoder_sentence(study)
    assert "<td>m1 (dominant)</td>" in flatness.flatness_table(study).to_html()


def test_a_number_that_is_not_positive_has_no_ratio(tmp_path):
    made = probed_record("msam")
    made["seeds"][1]["probes"]["flatness"]["whole"] = {
        **made["seeds"][1]["probes"]["flatness"]["whole"],
        "hessian_trace": -1.0,
    }
    study = study_of(tmp_path, "probes", {"msam": made, "sam": probed_record("sam")})
    mine = row(flatness.ratios(study), part="whole", measure="hessian_trace", other="sam")
    assert mine.difference.n == 2
    assert mine.difference.mean == pytest.approx((np.log10(1 / 10) + np.log10(1.5 / 14)) / 2)


def test_noise_in_the_weights_costs_accuracy_of_the_same_seed(study):
    rows = flatness.lost(study)
    mine = rows[(rows["name"] == "sam") & (rows["part"] == "m2") & (rows["level"] == 0.2)]
    assert mine["value"].tolist() == pytest.approx([20, 25, 30])


def test_landscapes_are_those_of_one_seed(study):
    shown = probes.landscapes(study, "controlled", seed=2)
    assert set(shown) == {("late", name) for name in TOPS}
    assert shown["late", "msam"]["loss"][1][1] == 3
    assert figures.landscape_contours(study, "controlled").svg.count("<path") > 10


def test_disturbed_inputs_are_counted_by_kind(study):
    rows = beyond.disturbed(study, 1.0)
    mine = rows[(rows["name"] == "msam") & (rows["part"] == "m1")]
    assert mine["value"].tolist() == pytest.approx([60, 60.1, 60.2])
    assert "60.0 ± 0.0" in beyond.robustness_table(study).to_html()


def test_every_level_of_noise_is_a_case(tmp_path):
    def changed(name, add):
        made = probed_record(name)
        for k, seed in enumerate(made["seeds"]):
            kind = seed["probes"]["robustness"]
            kind["noise"]["m2"]["accuracy"] = [0.5 + add + 0.001 * k**2, 0.4]
            kind["missing"]["m3"] = 0.2 - add - 0.001 * k**2
        return made

    study = study_of(tmp_path, "probes", {"msam": changed("msam", 0.1), "sam": changed("sam", 0.0)})
    found = probes.differences(probes.robustness(study), "msam", ["sam"], ["part", "level"])
    assert row(found, part="m2", level=1.0).difference.mean == pytest.approx(0.1)
    assert row(found, part="m3", level="missing").difference.mean == pytest.approx(-0.1)
    assert row(found, part="m3", level=0.0).difference.mean == pytest.approx(0)


def test_wrong_labels_are_shown_beside_the_main_runs_without(tmp_path):
    names = {f"{m}+label_noise_{x}": level for x, level in ((0.2, 0.5), (0.4, 0.4)) for m in ("sam", "msam")}
    records = {
        name: record(name, [level + (0.1 if name[0] == "m" else 0) + d for d in (0, 0.01, 0.03)])
        for name, level in names.items()
    }
    records["sam+label_noise_0.2"]["seeds"].pop()
    labels = study_of(tmp_path, "labels", records)
    for name in ("sam", "unimodal+m1"):
        made = cell_record("controlled", "late", name)
        for seed in made["seeds"]:
            seed["final"]["last"]["test"]["accuracy"]["fused"] = 0.7
        study_of(tmp_path, "main", {name: made})
    main = read(tmp_path)
    cells = beyond.label_noise(labels, main)
    assert {name for _, _, name in cells} == {*names, "sam+label_noise_0.0"}
    assert cells["controlled", "late", "sam+label_noise_0.0"].tolist() == pytest.approx([70, 70, 70])
    table = beyond.label_table(labels, main).blocks[0].rows.set_index("wrong labels (%)")
    assert table.loc["20", "M-SAM minus SAM"] == "+10.00 ± 0.00 is higher"
    assert table.loc["20", "n"] == "2 to 3"
    assert "with wrong labels higher than SAM in 2 of 2 cases" in beyond.disturbed_sentence(labels, labels)


def test_further_datasets_stand_for_none_of_the_papers(tmp_path):
    main = read(study_of(tmp_path, "main", {n: record(n, TOPS[n]) for n in ("joint", "msam")}).root)
    assert beyond.further(main) == ["controlled", "watch"] or beyond.further(main) == ["controlled"]
    main.descriptions["controlled"]["stands_for"] = "AVE"
    assert "controlled" not in beyond.further(main)


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_adaptive_sharpness_and_filter_directions_ignore_rescaled_layers(scale):
    source = torch.Generator().manual_seed(0)
    first, second, x = (
        torch.randn(s, generator=source, dtype=torch.float64) for s in ((4, 3), (2, 4), (9, 3))
    )
    labels = torch.arange(9) % 2

    def loss(weights):
        return torch.nn.functional.cross_entropy((x @ weights["a"].T).relu() @ weights["b"].T, labels)

    def measured(factor):
        weights = {
            name: w.clone().requires_grad_() for name, w in (("a", first * factor), ("b", second / factor))
        }
        direction = _around.filter_direction(weights, torch.Generator().manual_seed(1))
        along = float(loss(_around.moved(weights, (0.5, direction))))
        adaptive = _around.sharpness(loss, weights, 0.5, adaptive=True)
        return _around.sharpness(loss, weights, 0.05), adaptive, along

    before, after = measured(1.0), measured(scale)
    assert after[1:] == pytest.approx(before[1:], rel=1e-6)
    assert abs(np.log10(after[0] / before[0])) > 0.3
