"""Fabricated records in a temporary folder, and how they are read with what lies beside them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msam.analysis import cost, levels, profiles, provenance
from msam.analysis.sources import evidence, modalities, read, record_json

MODALITIES = {
    "av_digits": ["image", "audio"],
    "controlled": ["m1", "m2", "m3"],
    "av_mnist": ["image", "audio"],
    "mosi": ["text", "audio", "video"],
}
COMPACT = ("av_mnist", "mosi")
METHODS = ["joint", "sam", "msam", "msam+response", "msam+encoder", "mixture"]
LEVEL = {"joint": 0.60, "sam": 0.62, "msam": 0.70, "msam+encoder": 0.61, "mixture": 0.62}


def metrics(rng, names, level, gap, late):
    """One split's metrics, around `level` for the fused output."""
    accuracy = {"fused": level + gap + 0.004 * rng.standard_normal()}
    accuracy |= {m: level - 0.1 * (i + 1) + gap for i, m in enumerate(names)}
    return {
        "loss": float(-np.log(accuracy["fused"] / 1.3)),
        "accuracy": {k: float(v) for k, v in accuracy.items()},
        "head_accuracy": {m: float(accuracy[m] - 0.01) for m in names} if late else {},
        "shares": {m: 1 / len(names) for m in names},
    }


def seed_record(seed, names, method, level, epochs, late):
    rng = np.random.default_rng([seed, len(method)])
    sharing = method.startswith("msam")
    rows = []
    for epoch in range(1, epochs + 1):
        now = level * (1 - np.exp(-epoch / 2))
        shares = {m: (0.7 if i == 0 else 0.3 / (len(names) - 1)) for i, m in enumerate(names)}
        rows.append(
            {
                "epoch": epoch,
                "lr": 0.1,
                "train": metrics(rng, names, now, 0.1, late),
                "validation": metrics(rng, names, now, 0.0, late),
                "test": metrics(rng, names, now, -0.01, late),
                "step_loss": 2.0 / epoch,
                "shares": shares if sharing else {},
                "dominant_share": 0.7 if sharing else None,
                "dominance": {m: (9 if i == 0 else 1) for i, m in enumerate(names)} if sharing else {},
                "switches": seed if sharing else 0,
            }
        )
    last = {key: rows[-1][key] for key in ("epoch", "train", "validation", "test")}
    return {
        "seed": seed,
        "state": "done",
        "reason": "",
        "seconds": 2.5,
        "steps": 10 * epochs,
        "gradient_evaluations": (10 if method == "joint" else 20) * epochs,
        "epochs": rows,
        "final": {"last": last, "best_validation": last, "best_test": last},
    }


def cell_record(dataset, fusion, name, seeds=3, epochs=4, device="cpu: test"):
    method, _, variant = name.partition("+")
    names = MODALITIES[dataset]
    own = [variant] if method == "unimodal" else names
    level = LEVEL.get(name, 0.5)
    return {
        "schema": 1,
        "state": "done",
        "key": "0" * 64,
        "config": {
            "profile": "embedded",
            "study": "main",
            "dataset": dataset,
            "dataset_options": {},
            "fusion": fusion,
            "method": method,
            "variant": variant,
            "options": {},
            "epochs": epochs,
            "batch_size": 64,
            "optimizer": {
                "lr": 0.1,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "milestones": [0.7],
                "gamma": 0.1,
            },
            "rho": 0.05 if "sam" in name else None,
            "width": 16,
            "threads": 1,
        },
        "provenance": {
            "commit": "abc1234def",
            "dirty": False,
            "versions": {"python": "3.11", "torch": "2.12.1"},
            "device": device,
            "data_checksum": "ff",
            "finished": "2026-11-24T02:00:00Z",
            "seconds": 7.5,
            "peak_memory_mb": 400.0,
        },
        "seeds": [seed_record(s, own, name, level, epochs, fusion == "late") for s in range(seeds)],
    }


def description(dataset):
    kinds = {"image": [1, 8, 8], "audio": [2, 20]}
    shapes = {m: kinds.get(m, [6]) for m in MODALITIES[dataset]}
    rng = np.random.default_rng(0)
    return {
        "name": dataset,
        "title": f"{dataset} for tests",
        "level": "compact" if dataset in COMPACT else "embedded",
        "origin": "made up",
        "licence": "none",
        "stands_for": "AV-MNIST" if dataset.startswith("av_") else None,
        "options": {},
        "checksum": "0123456789abcdef",
        "classes": ["one", "two"],
        "modalities": {m: {"kind": "any", "shape": shape} for m, shape in shapes.items()},
        "splits": {
            split: {"size": 20, "class_counts": [9, 11], "groups": {"voice": 4}}
            for split in ("train", "validation", "test")
        },
        "shared_groups": {"voice": 0},
        "samples": [
            {
                "label": label,
                "inputs": {m: rng.random(shape).round(3).tolist() for m, shape in shapes.items()},
            }
            for label in ("one", "two")
        ],
    }


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def fabricate(results: Path, seeds: int = 3, epochs: int = 4, datasets=("av_digits", "controlled")) -> Path:
    """A study with done, failed, undefined, missing and partly diverged cells; returns `results`."""
    for dataset in datasets:
        write(results / "data" / f"{dataset}.json", description(dataset))
        for fusion in ("late", "early"):
            for name in [*METHODS, *(f"unimodal+{m}" for m in MODALITIES[dataset])]:
                record = cell_record(dataset, fusion, name, seeds, epochs)
                write(results / "main" / dataset / fusion / f"{name}.json", record)
    if "av_digits" in datasets:
        add_flaws(results, seeds, epochs)
    add_search(results, datasets[0])
    add_costs(results.parent)
    return results


def fabricate_both(root: Path) -> Path:
    """Two profiles with different numbers of seeds; returns the root."""
    fabricate(root / "embedded")
    fabricate(root / "compact", seeds=2, datasets=COMPACT)
    return root


def add_flaws(results: Path, seeds: int, epochs: int) -> None:
    early = results / "main" / "av_digits" / "early"
    (early / "sam.json").unlink()
    failed = cell_record("av_digits", "early", "sam")["config"]
    failure = {"schema": 1, "state": "failed", "config": failed, "reason": "out of memory", "traceback": ""}
    write(early / "sam.failed.json", failure)
    (early / "mixture.json").unlink()
    undefined = cell_record("av_digits", "early", "msam+encoder") | {"state": "undefined", "seeds": []}
    write(early / "msam+encoder.json", undefined | {"reason": "needs <late> fusion"})
    diverged = cell_record("av_digits", "late", "mixture", seeds, epochs)
    diverged["seeds"][0] |= {"state": "diverged", "reason": "loss is nan", "final": {}}
    write(results / "main" / "av_digits" / "late" / "mixture.json", diverged)


def add_search(results: Path, dataset: str) -> None:
    write(
        results / "search.json",
        {
            "budget": 2,
            "seed": 0,
            "space": {"lr": [0.01, 0.1], "rho": [0.05, 0.1]},
            "trials": [
                {
                    "dataset": dataset,
                    "fusion": "late",
                    "name": name,
                    "trial": trial,
                    "lr": 0.1,
                    "rho": None if name == "joint" else 0.05,
                    "validation_accuracy": 0.6 if trial else None,
                    "validation_loss": 1.0 if trial else None,
                    "state": "done" if trial else "diverged",
                }
                for name in ("sam", "joint")
                for trial in (0, 1)
            ],
            "chosen": [{"dataset": dataset, "fusion": "late", "name": "joint", "lr": 0.1, "rho": None}],
        },
    )


def add_costs(root: Path) -> None:
    rows = [
        {
            "net": "small",
            "fusion": fusion,
            "modalities": size,
            "method": method,
            "ratio_to_sam": ratio + 0.1 * (size - 2),
            "ratio_to_sam_iqr": [ratio + 0.1 * (size - 2) - 0.05, ratio + 0.1 * (size - 2) + 0.05],
            "ratio_to_joint": 2 * ratio,
            "median_ms": 20 * ratio,
            "forward": 2.05,
            "fuse": 4.0,
            "backward": 2,
        }
        for fusion in ("late", "early")
        for size in (2, 3)
        for method, ratio in (("joint", 0.5), ("sam", 1.0), ("msam", 1.04), ("msam (naive)", 1.7))
    ]
    write(
        root / "benchmarks" / "step_cost.json",
        {"rows": rows, "environment": {"device": "cpu: test", "repeats": 9}},
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read(fabricate(tmp_path_factory.mktemp("project") / "results" / "embedded").parent)


def test_every_cell_says_its_state(study):
    texts = study.cells.set_index(["dataset", "fusion", "name"])["text"]
    assert texts["av_digits", "late", "msam"] == "done"
    assert texts["av_digits", "early", "sam"] == "failed: out of memory"
    assert texts["av_digits", "early", "msam+encoder"] == "not defined: needs <late> fusion"
    assert texts["av_digits", "early", "mixture"] == "missing: no record"
    assert texts["av_digits", "late", "mixture"] == "diverged 1/3 seeds"
    assert texts["watch", "late", "joint"] == "missing: no record"  # the study file lists it


def test_a_failure_after_an_older_record_is_said(tmp_path):
    results = fabricate(tmp_path / "results" / "embedded")
    config = cell_record("av_digits", "late", "sam")["config"]
    failure = {"schema": 1, "state": "failed", "config": config, "reason": "killed", "traceback": ""}
    write(results / "main" / "av_digits" / "late" / "sam.failed.json", failure)
    cells = read(results.parent).cells.set_index(["dataset", "fusion", "name"])
    assert (
        cells.loc[("av_digits", "late", "sam"), "text"] == "failed: killed (numbers are of an older record)"
    )


def test_a_stand_in_is_named_on_its_row(study):
    assert evidence(study, "av_digits") == "embedded (miniature of AV-MNIST)"
    assert evidence(study, "controlled") == "embedded"


def test_modalities_come_from_the_description_or_the_records(study, tmp_path):
    assert modalities(study, "av_digits") == ["image", "audio"]
    results = fabricate(tmp_path / "results" / "embedded")
    for path in (results / "data").glob("*.json"):
        path.unlink()
    assert modalities(read(results.parent), "av_digits") == ["audio", "image"]
    assert evidence(read(results.parent), "av_digits") == "embedded"


def test_labels_hold_no_path_of_this_machine(study):
    assert profiles.label(study.root) == "results"
    assert profiles.label(study.root / "local") == "results/local"
    assert profiles.label(Path("/home/me/results/results/x")) == "results/x"
    assert profiles.label(Path("/home/me/mine")) == "mine"


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("/me/results", "records"),
        ("/me/results/local", "records/local"),
        ("/me/build/smoke/results", "records"),
        ("/me/mine", "records/mine"),
    ],
)
def test_the_book_keeps_records_below_its_own_folder(root, place):
    assert profiles.link(Path(root)) == place


def test_a_record_is_found_from_its_frame(study):
    path = study.frames.cells.loc[study.frames.cells["name"] == "joint", "path"].iloc[0]
    assert path == "embedded/main/av_digits/early/joint.json"
    assert record_json(study, path)["config"]["method"] == "joint"


def test_an_absent_folder_is_an_empty_study(tmp_path):
    study = read(tmp_path / "results")
    assert study.cells.empty
    assert study.frames.runs.empty
    assert study.searches == {}
    assert cost.cost_rows(study).empty


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return fabricate_both(tmp_path_factory.mktemp("project") / "results")


def test_profiles_with_records_are_shown_in_the_order_of_their_evidence(both, tmp_path):
    assert profiles.shown(both) == ["embedded", "compact"]
    for name in ("paper", "zebra", "mine", "local", "benchmarks", "recipes", "scaling"):
        write(tmp_path / name / "main" / "d" / "late" / "sam.json", {})
    write(tmp_path / "compact" / "main" / "d" / "late" / "sam.failed.json", {})
    write(tmp_path / "embedded" / "main" / "d" / "late" / "sam.partial.json", {})
    write(tmp_path / "other" / "budget" / "d" / "late" / "sam.json", {})
    write(tmp_path / "searched" / "search.json", {})
    assert profiles.shown(tmp_path) == ["compact", "paper", "mine", "zebra"]
    assert profiles.shown(tmp_path / "none") == []
    assert [folder.name for folder in profiles.folders(tmp_path)] == [
        *("compact", "paper", "mine", "zebra", "recipes", "scaling", "benchmarks")
    ]
    assert profiles.shared(tmp_path, both) == ["compact"]


def test_a_study_has_the_rows_of_all_its_profiles(both):
    study = read(both)
    assert study.datasets == ["av_digits", "controlled", "watch", "av_mnist", "mosi"]
    assert study.profiles == ["embedded", "compact"]
    assert study.level == "embedded, compact"
    assert set(study.searches) == {"embedded", "compact"}
    for profile in study.profiles:
        alone = read(both, only=[profile])
        assert alone.profiles == [profile]
        for part in ("cells", "runs", "epochs", "dominance", "seeds"):
            frame = getattr(study.frames, part)
            mine = frame[frame["dataset"].map(study.homes) == profile].reset_index(drop=True)
            pd.testing.assert_frame_equal(mine, getattr(alone.frames, part), check_dtype=False)
        cells = study.cells[study.cells["dataset"].map(study.homes) == profile].reset_index(drop=True)
        pd.testing.assert_frame_equal(cells, alone.cells)
    assert evidence(study, "av_mnist") == "compact (AV-MNIST rebuilt from its public ingredients)"
    assert evidence(study, "mosi") == "compact"


def test_a_dataset_of_two_profiles_has_two_names(tmp_path):
    results, second = tmp_path / "results", "av_digits (smoke)"
    fabricate(results / "embedded", datasets=("av_digits",))
    fabricate(results / "smoke", datasets=("av_digits",), seeds=2)
    for name in ("main", "budget"):
        study = read(results, name)
        assert (study.homes["av_digits"], study.homes[second]) == ("embedded", "smoke")
    study = read(results)
    counts = study.frames.cells.query("n_seeds > 0").groupby("dataset")["n_seeds"].unique().map(list)
    assert counts.to_dict() == {"av_digits": [3], second: [2]}
    states = study.cells.set_index(["dataset", "fusion", "name"])["state"]
    assert states[second, "late", "msam"] == "done"
    assert states[second, "late", "agm"] == "missing"  # the study file lists it
    assert (second, "late", "masam") not in states  # only the other profile's file does
    assert {row["dataset"] for row in study.searches["smoke"]["trials"]} == {second}
    assert modalities(study, second) == ["image", "audio"]
    paths = study.frames.cells.set_index("dataset")["path"]
    assert all(path.startswith("smoke/main/av_digits/") for path in paths[second])


def test_counts_say_how_they_divide_among_levels(both):
    study = read(both)
    datasets = ["mosi", "watch", "av_mnist", "watch"]
    assert levels.share(study, datasets, [True, False, False, True]) == (
        "2 of 4 blocks (embedded 1 of 2, compact 1 of 2)"
    )
    assert levels.share(study, ["watch", "av_digits"], [True, True], "blocks") == "2 of 2 blocks"
    assert levels.share(study, [], []) == "0 of 0 blocks"
    assert levels.count(study, datasets, [True, False, True, False]) == "2 (embedded 0, compact 2)"
    assert levels.count(study, datasets, [False] * 4) == "0"
    assert levels.seeds(study, datasets, [3, 5, 2, 5]) == "5 (embedded) and 2 to 3 (compact)"
    assert levels.seeds(study, datasets, [5] * 4) == "5"
    assert levels.seeds(study, [], []) == "no"


def test_footers_name_every_profile_with_its_command(both):
    text = provenance.footer(read(both))
    assert "records under results/embedded/main and 34 records under results/compact/main, commit" in text
    assert text.endswith("remake: `make reproduce SEEDS=3`, `make reproduce PROFILE=compact SEEDS=2`.")
    assert provenance.footer(read(both, "budget")).endswith("remake: `make reproduce STUDY=budget`.")
