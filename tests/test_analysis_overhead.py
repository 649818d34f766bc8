"""The page on overhead from made-up records: costs, the criterion, identification, and no records at all."""

import numpy as np
import pytest
from scipy import stats
from test_analysis_records import cell_record, write

from msam.analysis import figures, overhead, scaling
from msam.analysis.names import label
from msam.analysis.sources import read
from msam.analysis.statistics import Interval

SPREAD = (-0.02, -0.01, 0.0, 0.01, 0.02)
HALF = stats.t.ppf(0.975, 4) * np.std(SPREAD, ddof=1) / np.sqrt(5)  # of the 95 % interval of five seeds

CELLS = {  # name -> mean accuracy and gradient evaluations of 744 steps
    "joint": (0.70, 744),
    "sam": (0.72, 1488),
    "msam": (0.70, 1488),
    "msam+dominance_every_5": (0.70, 1488),
    "lazy_msam+every_2": (0.70, 1116),
    "lazy_msam+every_5": (0.70, 893),  # 744 steps begin 149 periods
    "lazy_msam+every_10": (0.70 + 0.99 * HALF, 819),
    "lazy_msam+every_20": (0.70 + 1.01 * HALF, 782),
}


def record(dataset, name, accuracy, evaluations, steps=744, modalities=3, fraction=0.0):
    """Five seeds around a mean accuracy; m1 dominates `fraction` of a hundred batches."""
    made = cell_record("controlled", "late", name, seeds=5, epochs=1)
    made["config"] |= {"dataset": dataset}
    names = [f"m{i + 1}" for i in range(modalities)]
    counts = dict.fromkeys(names, 0) | {"m1": round(100 * fraction), names[-1]: round(100 * (1 - fraction))}
    for seed, off in zip(made["seeds"], SPREAD, strict=True):
        seed |= {"steps": steps, "gradient_evaluations": evaluations}
        seed["final"]["last"]["test"]["accuracy"]["fused"] = accuracy + off
        shares = dict.fromkeys(names, 1 / modalities) if "msam" in name else {}
        seed["epochs"][0] |= {"shares": shares, "dominance": counts if shares else {}}
    return made


def lazy(root, cells, datasets=("controlled", "watch")):
    write(
        root / "embedded" / "main" / "controlled" / "late" / "joint.json",
        record("controlled", "joint", 0.7, 1),
    )
    for dataset in datasets:
        for name, (accuracy, evaluations) in cells.items():
            path = root / "embedded" / "lazy" / dataset / "late" / f"{name}.json"
            write(path, record(dataset, name, accuracy, evaluations))
    return root


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


def found(root):
    rows = overhead.variants(read(root, "lazy"))
    return rows[rows["dataset"] == "controlled"].set_index("name")


def test_costs_are_those_of_the_records(root):
    rows = found(lazy(root, CELLS))
    assert rows.loc["joint", "gradients"] == 0.5
    assert rows.loc["lazy_msam+every_2", "gradients"] == 0.75
    assert rows.loc["lazy_msam+every_5", "gradients"] == pytest.approx((744 + 149) / (2 * 744))
    assert rows.loc["msam+dominance_every_5", "gradients"] == 1
    assert rows.loc["msam", "epoch"] == 2.5  # seconds of a seed of one epoch
    assert np.isnan(rows.loc["msam+dominance_every_20", "gradients"])  # no record


def test_the_criterion_needs_both_a_cheap_step_and_an_accuracy_inside(root):
    rows = found(lazy(root, CELLS))
    assert list(rows.index[rows["reached"].astype(bool)]) == ["lazy_msam+every_10"]
    assert rows.loc["lazy_msam+every_10", "place"] == "inside"
    assert rows.loc["lazy_msam+every_20", "place"] == "above"
    assert rows.loc["lazy_msam+every_5", "place"] == "inside"  # but 0.6001 of SAM's gradients
    assert not rows.loc["joint", "reached"]  # no form of M-SAM


@pytest.mark.parametrize(
    ("cost", "place", "high", "reached"),
    [
        (0.6, "inside", 0.0, True),
        (0.6001, "inside", 0.0, False),
        (0.5, "below", 0.0, False),
        (float("nan"), "inside", 0.0, False),
        (0.6, "inside", -0.001, False),  # lower than M-SAM by the seeds they share
        (0.6, "inside", float("nan"), True),
    ],
)
def test_the_limit_belongs_to_the_criterion(cost, place, high, reached):
    assert overhead.reaches(cost, place, Interval(-0.01, -0.02, high, 5)) is reached


@pytest.mark.parametrize(
    ("mean", "place"), [(0.5, "inside"), (0.4, "inside"), (0.39, "below"), (0.61, "above"), (np.nan, "")]
)
def test_places(mean, place):
    assert overhead.placed(mean, Interval(0.5, 0.4, 0.6, 5)) == place
    assert overhead.placed(mean, Interval(0.5, np.nan, np.nan, 1)) == ""


def test_differences_are_paired_by_seed(root):
    difference = found(lazy(root, CELLS)).loc["sam", "difference"]
    assert (difference.mean, difference.n) == (pytest.approx(0.02), 5)
    assert difference.half_width == pytest.approx(0, abs=1e-12)  # the seeds' spread cancels


def test_the_answer_names_the_forms_of_each_dataset(root):
    lazy(root, CELLS, ["controlled"])
    lazy(root, CELLS | {"lazy_msam+every_10": (0.5, 819), "joint": (0.5, 744)}, ["watch"])
    said = overhead.overhead_sentence(read(root, "lazy"))
    assert f"on controlled {label('lazy_msam+every_10')}; on watch none." in said
    assert "By measured time nothing is known" in said
    assert "joint training meets the same conditions on controlled, where" in said
    nowhere = {name: (0.5 if name != "msam" else 0.7, spent) for name, (_, spent) in CELLS.items()}
    said = overhead.overhead_sentence(read(lazy(root, nowhere), "lazy"))
    assert "on controlled none; on watch none" in said
    assert "joint training meets the same conditions nowhere." in said


def test_measured_times_are_of_as_many_modalities(root):
    lazy(root, CELLS)
    times = {(3, "lazy_msam+every_10"): 0.598, (3, "lazy_msam+every_5"): 0.59, (2, "lazy_msam+every_5"): 0.7}
    rows = [
        {"net": "small", "fusion": "late", "modalities": count, "method": name, "ratio_to_sam": ratio}
        | {"ratio_to_sam_iqr": [ratio, ratio + 0.005], "median_ms": 1.0, "backward": 1.1, "fuse": 1.3}
        for (count, name), ratio in times.items()
    ]
    write(root / "benchmarks" / "modalities.json", {"environment": {"repeats": 1}, "rows": rows})
    study = read(root, "lazy")
    cells = found(root)
    assert cells.loc["lazy_msam+every_5", "time"] == 0.59
    assert cells.loc["lazy_msam+every_10", "reached"]
    assert not cells.loc["lazy_msam+every_10", "reached_time"]  # the upper quartile is 0.603
    assert cells.loc["lazy_msam+every_5", "reached_time"]
    said = overhead.overhead_sentence(study)
    assert f"by the paired one: on controlled {label('lazy_msam+every_10')};" in said
    assert f"By measured time instead: on controlled {label('lazy_msam+every_5')};" in said
    table = overhead.benchmark_table(study)
    assert table.blocks[0].heading == "time of a step / SAM's"
    assert set(table.blocks[0].rows["3"]) == {"0.59", "0.60"}
    assert set(table.blocks[0].rows["2"]) == {"0.70", "\N{EN DASH}"}


def test_identification_counts_the_batches_that_m1_dominates(root):
    for count, fraction in ((2, 0.9), (8, 0.6)):
        for name, part in (("sam", 0), ("msam", fraction), ("msam+permutations_1", fraction - 0.3)):
            path = root / "scaling" / f"modalities_{count}" / "controlled" / "late" / f"{name}.json"
            write(path, record("controlled", name, 0.7, 20, 10, count, part))
    rows = scaling.scaling_data(root).set_index(["modalities", "name"])
    assert rows.loc[(2, "msam"), "identified"].mean == pytest.approx(0.9)
    assert rows.loc[(8, "msam+permutations_1"), "identified"].mean == pytest.approx(0.3)
    assert rows.loc[(8, "sam"), "identified"].n == 0
    assert rows.loc[(8, "sam"), "accuracy"].mean == pytest.approx(0.7)
    assert list(scaling.scaling_table(root).blocks[0].rows["modalities"]) == [2, 2, 2, 8, 8, 8]
    said = scaling.scaling_sentence(root)
    assert "of 2 modalities 90 %, cheaper ones 60 %" in said
    assert "of 8 modalities 60 %, cheaper ones 30 %" in said
    assert "modalities_8" in scaling.source(root)


def test_nothing_needs_records(root):
    study = read(root, "lazy")
    assert "no records" in overhead.overhead_sentence(study)
    assert "no records" in scaling.scaling_sentence(root)
    for table in (
        overhead.variant_table(study),
        overhead.benchmark_table(study),
        scaling.scaling_table(root),
    ):
        assert "No records yet." in table.to_html()
    for draw in (figures.variant_points, figures.modality_curves):
        assert draw(study).svg
    assert figures.scaling_points(root).svg


def test_figures_show_what_there_is(root):
    picture = figures.variant_points(read(lazy(root, CELLS), "lazy"))
    left, right = picture.figure.axes[:2]
    assert left.get_title() == "controlled, late"
    band = left.patches[0].get_extents().transformed(left.transData.inverted())
    assert (band.x0, band.x1) == (pytest.approx(70 - 100 * HALF), pytest.approx(70 + 100 * HALF))
    drawn = sorted(
        float(line.get_xdata()[0])
        for line in right.lines
        if line.get_marker() == "s" and len(line.get_xdata())
    )
    assert drawn == pytest.approx(sorted(spent / 1488 for _, spent in CELLS.values()))
