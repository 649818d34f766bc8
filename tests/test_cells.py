"""Training of a cell: it repeats itself, goes on where it stopped, and refuses in one line."""

import json
import math
import os
import time

import pytest
import torch
from conftest import without_costs

from msam import cells, records, studies, training


@pytest.fixture(scope="module")
def tiny(toy, outside):
    """The cell of the study "tiny" by fusion and name."""
    grid = {(c.config["fusion"], c.name): c for c in studies.cells(studies.load(toy), "tiny", "controlled")}
    return lambda name, fusion="late": grid[fusion, name]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Folder with the records of M-SAM and joint training, two seeds each."""
    results = tmp_path_factory.mktemp("results")
    for name in ("msam", "joint"):
        run(tiny(name), range(2), results=results)
    return results


@pytest.fixture
def trained_seeds(monkeypatch):
    """Seeds that were really trained, in order."""
    seen = []
    train_seed = training.train_seed

    def spy(config, data, seed, *more):
        seen.append(seed)
        return train_seed(config, data, seed, *more)

    monkeypatch.setattr(training, "train_seed", spy)
    return seen


def run(cell, seeds, device="cpu", **more):
    """`cells.run` where the sums are the same in every run."""
    return cells.run(cell, seeds, device=device, **more)


def seeds(record):
    return [without_costs(seed) for seed in record["seeds"]]


def test_a_record_says_what_made_it(tiny, trained):
    record = records.read(tiny("msam").path(trained))
    assert record["config"] == tiny("msam").config
    assert record["key"] == tiny("msam").key
    assert record["provenance"]["device"].startswith("cpu: ")
    assert record["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["provenance"]["seconds"] == pytest.approx(sum(s["seconds"] for s in record["seeds"]))
    assert [(s["seed"], s["state"], len(s["epochs"])) for s in record["seeds"]] == [
        (0, "done", 2),
        (1, "done", 2),
    ]
    assert [p.name for p in tiny("msam").path(trained).parent.iterdir() if p.stem.startswith("msam")] == [
        "msam.json"
    ]


def test_a_record_says_when_its_last_seed_was_finished(tiny, tmp_path, monkeypatch):
    seconds, gmtime = [0], time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda *_: gmtime(seconds[0]))

    def progress(seed, epoch, entry):
        seconds[0] = 60 * seed + epoch

    run(tiny("joint"), range(2), results=tmp_path, progress=progress)
    finished = records.read(tiny("joint").path(tmp_path))["provenance"]["finished"]
    assert finished == "1970-01-01T00:01:02Z"


def test_the_same_seeds_give_the_same_record(tiny, trained):
    torch.rand(3)
    again = run(tiny("msam"), range(2))
    old = records.read(tiny("msam").path(trained))
    assert seeds(again) == seeds(old)
    assert again["key"] == old["key"]
    assert again["provenance"]["data_checksum"] == old["provenance"]["data_checksum"]
    assert seeds(again)[0]["epochs"] != seeds(again)[1]["epochs"]


def test_a_killed_run_goes_on_with_the_missing_seed(tiny, trained, tmp_path, trained_seeds, monkeypatch):
    cell, spy = tiny("msam"), training.train_seed

    def kill(config, data, seed, *more):
        if seed == 1:
            raise KeyboardInterrupt
        return spy(config, data, seed, *more)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_seed", kill)
        with pytest.raises(KeyboardInterrupt):
            run(cell, range(2), results=tmp_path)
    assert not cell.path(tmp_path).exists()
    assert trained_seeds == [0]
    record = run(cell, range(2), results=tmp_path)
    assert trained_seeds == [0, 1]
    assert seeds(record) == seeds(records.read(cell.path(trained)))
    assert record == records.read(cell.path(tmp_path))
    assert [p.name for p in cell.path(tmp_path).parent.iterdir()] == ["msam.json"]


def copy_record(cell, source, target, **changes):
    record = records.read(cell.path(source)) | changes
    records.write(cell.path(target), record)
    return record


def test_an_older_record_gives_its_seeds(tiny, trained, tmp_path, trained_seeds):
    cell = tiny("joint")
    old = copy_record(cell, trained, tmp_path)
    assert cells.stale(cell, 2, tmp_path) == ""
    assert cells.stale(cell, 3, tmp_path) == "it has 2 of 3 seeds"
    cells.set_aside(cell, tmp_path)
    assert not cell.path(tmp_path).exists()
    record = run(cell, range(3), results=tmp_path)
    assert trained_seeds == [2]
    assert record["seeds"][:2] == old["seeds"]


def test_seeds_of_another_key_are_not_taken_over(tiny, trained, tmp_path, trained_seeds):
    cell = tiny("joint")
    copy_record(cell, trained, tmp_path, key="another")
    assert cells.stale(cell, 2, tmp_path) == "its configuration or code has changed"
    run(cell, range(2), results=tmp_path)
    assert trained_seeds == [0, 1]
    assert cells.stale(cell, 2, tmp_path) == ""


def test_seeds_of_other_data_are_not_taken_over(tiny, trained, tmp_path, trained_seeds):
    cell = tiny("joint")
    old = records.read(cell.path(trained))["provenance"]
    copy_record(cell, trained, tmp_path, provenance=old | {"data_checksum": "another"})
    assert cells.stale(cell, 2, tmp_path) == "its data have changed"
    run(cell, range(2), results=tmp_path)
    assert trained_seeds == [0, 1]
    assert cells.stale(cell, 2, tmp_path) == ""


def test_a_corrupt_record_is_trained_again(tiny, trained, tmp_path, trained_seeds):
    cell = tiny("joint")
    copy_record(cell, trained, tmp_path)
    path = cell.path(tmp_path)
    path.write_text(path.read_text()[:300])
    assert cells.stale(cell, 2, tmp_path) == "the record is corrupt"
    cells.set_aside(cell, tmp_path)
    record = run(cell, range(2), results=tmp_path)
    assert trained_seeds == [0, 1]
    assert seeds(record) == seeds(records.read(cell.path(trained)))


def test_a_failure_is_noted_and_cleared(tiny, tmp_path):
    cell = tiny("joint")
    assert cells.stale(cell, 1, tmp_path) == "not trained yet"
    cells.write_failure(cell, tmp_path, "why", "trace")
    assert cells.stale(cell, 1, tmp_path) == "failed before"
    note = json.loads((cell.path(tmp_path).parent / "joint.failed.json").read_text())
    assert note == {
        "schema": 1,
        "state": "failed",
        "config": cell.config,
        "reason": "why",
        "traceback": "trace",
    }
    run(cell, [0], results=tmp_path)
    assert [p.name for p in cell.path(tmp_path).parent.iterdir()] == ["joint.json"]


def test_without_a_folder_nothing_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(tiny("joint"), [3])["seeds"][0]["seed"] == 3
    assert not list(tmp_path.iterdir())


def test_an_undefined_cell_has_a_record_that_says_so(tiny, tmp_path):
    cell = tiny("undefined", "early")
    record = run(cell, range(2), results=tmp_path)
    assert records.read(cell.path(tmp_path)) == record
    assert (record["state"], record["reason"], record["seeds"]) == (
        "undefined",
        "it needs one head a modality",
        [],
    )
    assert cells.stale(cell, 2, tmp_path) == ""
    assert run(tiny("undefined"), [0])["state"] == "done"
    row = records.load(tmp_path / "toy" / "tiny").cells.iloc[0]
    assert (row["state"], row["reason"]) == ("undefined", "it needs one head a modality")


def test_a_diverging_seed_does_not_stop_the_next(tiny, tmp_path):
    cell = studies.with_hyperparameters(tiny("joint"), 1e30, None)
    record = run(cell, range(2), results=tmp_path)
    assert record["state"] == "done"
    assert [(s["seed"], s["state"], s["final"]) for s in record["seeds"]] == [
        (0, "diverged", {}),
        (1, "diverged", {}),
    ]
    assert "not finite" in record["seeds"][0]["reason"]
    assert cells.stale(cell, 2, tmp_path) == ""


def test_a_mixture_takes_the_mean_dominant_share_of_the_same_seed(tiny, trained, monkeypatch):
    given = {}
    train_seed = training.train_seed

    def spy(config, data, seed, *more):
        given[seed] = config["options"]["share"]
        return train_seed(config, data, seed, *more)

    monkeypatch.setattr(training, "train_seed", spy)
    record = run(tiny("mixture"), range(2), results=trained)
    for seed in records.read(tiny("msam").path(trained))["seeds"]:
        shares = [epoch["dominant_share"] for epoch in seed["epochs"]]
        assert given[seed["seed"]] == pytest.approx(math.fsum(shares) / 2, rel=1e-12)
        assert 0.5 <= given[seed["seed"]] <= 1
    assert given[0] != given[1]
    assert record["config"]["options"] == {"share": "msam"}
    tiny("mixture").path(trained).unlink()


def test_settings_of_a_single_run_replace_those_of_the_study(tiny):
    base = tiny("mixture")
    other = cells.override(base, epochs=1, lr=0.3, rho=0.2, options={"share": 0.25})
    assert (other.config["epochs"], other.config["rho"], other.config["options"]) == (1, 0.2, {"share": 0.25})
    assert other.config["optimizer"] == base.config["optimizer"] | {"lr": 0.3}
    assert other.needs is None
    assert base.config["optimizer"]["lr"] == 0.1  # untouched
    assert cells.override(base) == base


def test_a_single_run_by_names_prints_a_line_an_epoch(toy, outside, trained, tiny, capsys):
    record = cells.train(toy, "tiny", "controlled", "late", "msam", 2, device="cpu", epochs=None)
    assert seeds(record) == seeds(records.read(tiny("msam").path(trained)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 2
    fused = record["seeds"][1]["epochs"][1]["validation"]["accuracy"]["fused"]
    assert lines[-1].startswith("seed 1  epoch   2/2  loss ")
    assert lines[-1].endswith(f"validation accuracy {fused:.3f}")


def test_a_single_run_goes_on_with_the_seeds_that_are_not_there(toy, outside, tiny, tmp_path, capsys):
    for count, lines in ((1, 2), (2, 3), (2, 1)):
        cells.train(toy, "tiny", "controlled", "late", "msam", count, str(tmp_path), device="cpu")
        told = capsys.readouterr().out.splitlines()
        assert len(told) == lines
    assert told == ["2 of 2 seeds are there already"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("msam", {"rho": -0.1}, "parameters: rho must be a number, finite and at least 0, not -0.1"),
        ("msam", {"rho": NAN}, "parameters: rho must be a number, finite and at least 0, not nan"),
        ("msam", {"rho": INF}, "parameters: rho must be a number, finite and at least 0, not inf"),
        ("msam", {"rho": "nan"}, "parameters: rho must be a number, finite and at least 0, not 'nan'"),
        ("joint", {"rho": 0.1}, "parameters: joint has no radius rho"),
        ("msam", {"epochs": 0}, "parameters: epochs must be a whole number, at least 1, not 0"),
        ("msam", {"epochs": "x"}, "parameters: epochs must be a whole number, at least 1, not 'x'"),
        ("joint", {"lr": -1.0}, "parameters: lr must be a number above 0, not -1.0"),
        ("msam", {"seeds": 0}, "parameters: seeds must be a whole number, at least 1, not 0"),
        ("msam", {"seeds": 1.5}, "parameters: seeds must be a whole number, at least 1, not 1.5"),
        ("msam", {"options": [1]}, "parameters: options must be a mapping, not [1]"),
        ("msam", {"device": 3}, "parameters: device must be text, not 3"),
        (7, {}, "parameters: method must be text, not 7"),
        ("mixture", {"options": {"share": 1.5}}, "share must be a number in [0, 1], not 1.5"),
        ("mixture", {"options": {"share": -0.1}}, "share must be a number in [0, 1], not -0.1"),
        ("mixture", {"options": {"share": NAN}}, "share must be a number in [0, 1], not nan"),
        (
            "mixture",
            {},
            "controlled/late/mixture takes its share from the record of controlled/late/msam, which is not"
            " there: train that first in the same results folder, or give a number as share",
        ),
        ("joint", {"device": "tpu"}, "unknown device 'tpu'; choose from auto, cpu, cuda, cuda:0, ..."),
        ("joint", {"device": "cpu:x"}, "unknown device 'cpu:x'; choose from auto, cpu, cuda, cuda:0, ..."),
        ("joint", {"options": {"x": 1}}, "method 'joint' has no option 'x'; known: none"),
        ("msam", {"options": {"reading": "x"}}, "unknown reading 'x'; choose from loss, response, encoder"),
        (
            "unimodal+m1",
            {"options": {"modality": "m9"}},
            "unknown modality 'm9'; choose from m1, m2",
        ),
        (
            "nope",
            {},
            "unknown method 'nope'; choose from unimodal+m1, unimodal+m2, joint, agm, msam, mixture,"
            " undefined",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_in_one_line_and_leave_nothing(
    toy, outside, tmp_path, name, settings, message
):
    settings = {"seeds": 1, **settings}
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        cells.train(toy, "tiny", "controlled", "late", name, results=str(tmp_path), **settings)
    assert str(error.value) == message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny):
    with pytest.raises(ValueError, match="there is no CUDA device here"):
        run(tiny("joint"), [0], device="cuda")


def test_a_seed_whose_needed_run_diverged_at_once_is_recorded_as_diverged(
    tiny, trained, tmp_path, trained_seeds
):
    cell = tiny("mixture")
    seeds = records.read(cell.needs.path(trained))["seeds"]
    gone = {"state": "diverged", "reason": "not finite", "epochs": [], "final": {}}
    copy_record(cell.needs, trained, tmp_path, seeds=[seeds[0] | gone, seeds[1]])
    record = run(cell, range(2), results=tmp_path)
    assert [seed["state"] for seed in record["seeds"]] == ["diverged", "done"]
    assert "msam diverged in its first epoch" in record["seeds"][0]["reason"]
    assert trained_seeds == [1]
    assert records.read(cell.path(tmp_path)) == record


def test_a_needed_record_without_the_seed_is_refused(tiny, trained):
    with pytest.raises(
        ValueError, match=r"controlled/late/mixture: the record of .*/msam has no usable seed 7"
    ):
        run(tiny("mixture"), [7], results=trained)


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    tiny, tmp_path, trained_seeds, monkeypatch
):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(tiny("joint"), [0], results=tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="cannot write to "):
        run(tiny("joint"), [0], results=tmp_path / "folder")
    assert trained_seeds == []
