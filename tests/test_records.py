"""Records: what is refused, what a crash leaves behind, and the frames, against hand-written ones."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msam import records

CELL = ["toy", "late", "msam+encoder"]


def metrics(accuracy, late=True):
    return {
        "loss": 1.5,
        "accuracy": {"fused": accuracy, "a": accuracy / 2, "b": accuracy / 4},
        "head_accuracy": {"a": 0.3, "b": 0.2} if late else {},
        "shares": {"a": 0.75, "b": 0.25},
    }


def record(seeds=(0,), dataset="toy", **config):
    epoch = {
        "epoch": 1,
        "lr": 0.1,
        "train": metrics(0.9),
        "validation": metrics(0.8),
        "test": metrics(0.7),
        "step_loss": 0.5,
        "shares": {"a": 0.6, "b": 0.4},
        "dominant_share": 0.7,
        "dominance": {"a": 3, "b": 1},
        "switches": 2,
    }
    chosen = {k: epoch[k] for k in ("epoch", "train", "validation", "test")}
    seed = {"state": "done", "reason": "", "seconds": 2.0, "steps": 4, "gradient_evaluations": 8}
    seed |= {"epochs": [epoch], "final": dict.fromkeys(("last", "best_validation", "best_test"), chosen)}
    return {
        "schema": 1,
        "state": "done",
        "key": "k",
        "config": {
            "dataset": dataset,
            "fusion": "late",
            "method": "msam",
            "variant": "encoder",
            "epochs": 1,
            "optimizer": {"lr": 0.1},
            "options": {"reading": "encoder"},
            "rho": 0.05,
            **config,
        },
        "provenance": {
            "commit": "c",
            "dirty": False,
            "versions": {},
            "device": "cpu: x",
            "data_checksum": "d",
            "seconds": 2.0,
            "finished": "2026-01-01T00:00:00Z",
            "peak_memory_mb": 100.0,
        },
        "seeds": [copy.deepcopy({"seed": n, **seed}) for n in seeds],
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toy" / "late" / "msam+encoder.json"


def test_what_is_written_is_read(path):
    records.write(path, record())
    assert records.read(path) == record()
    assert json.loads(path.read_text()) == record()


@pytest.mark.parametrize(
    "value",
    [{}, [], [[]], {"a": {}}, 1.5, None, "é\n", {"a": [{"b": [{"c": {"d": [1, {"e": [[]]}]}}]}]}],
    ids=repr,
)
def test_pretty_form_is_the_same_json(tmp_path, value):
    records.write(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == value


def test_an_epoch_is_one_line(path):
    records.write(path, record(seeds=(0, 1)))
    lines = [line for line in path.read_text().splitlines() if '"step_loss"' in line]
    assert [json.loads(line)["epoch"] for line in lines] == [1, 1]


def wrong(*keys, value=None):
    """A record with the field at `keys` deleted, or set to `value`."""
    content = record()
    *parents, last = keys
    part = content
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (wrong("key"), "record.key "),
        (wrong("seeds", value={}), "record.seeds "),
        (wrong("config", "optimizer"), "config.optimizer "),
        (wrong("config", "epochs", value="1"), "config.epochs "),
        (wrong("config", "rho"), "config.rho "),
        (wrong("config", "optimizer", value={}), "config.optimizer.lr "),
        (wrong("provenance", "device"), "provenance.device "),
        (wrong("provenance", "data_checksum"), "provenance.data_checksum "),
        (wrong("seeds", 0, "final"), "seeds[0].final "),
        (wrong("seeds", 0, "final", value={"last": {}}), "seeds[0].final.last.epoch "),
        (wrong("seeds", 0, "final", "last", "test", value={}), "seeds[0].final.last.test.loss "),
        (wrong("seeds", 0, "epochs", 0, "switches"), "seeds[0].epochs[0].switches "),
        (wrong("seeds", 0, value=7), "seeds[0].seed "),
        (wrong("seeds", 0, "epochs", 0, "test"), "seeds[0].epochs[0].test "),
        (wrong("seeds", 0, "epochs", 0, "test", "shares"), "seeds[0].epochs[0].test.shares "),
        (wrong("schema", value=2), "schema 2, this version reads 1"),
        ("[]", "record.schema "),
        ("3", "record.schema "),
        ("", "not a readable record"),
        (json.dumps(record())[:-40], "not a readable record"),
    ],
)
def test_a_wrong_record_is_refused_by_file_and_field(path, text, field):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(records.RecordError) as error:
        records.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert field in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(records.RecordError, match=r"msam\+encoder"):
        records.load(path.parents[2])


def test_bytes_that_are_no_text_are_refused(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(records.RecordError, match="not a readable record"):
        records.read(path)


def test_a_corrupt_note_of_a_failure_is_named(path):
    path.parent.mkdir(parents=True)
    path.with_suffix(".failed.json").write_text("{")
    with pytest.raises(records.RecordError, match=r"failed\.json: not a readable record"):
        records.load(path.parents[2])


def test_a_crash_while_writing_leaves_the_old_record(path, monkeypatch):
    records.write(path, record())

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            records.write(path, record(seeds=(0, 1, 2)))
    assert records.read(path) == record()
    assert len(records.load(path.parents[2]).cells) == 1


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        records.write(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize("folder", ["", "absent"])
def test_frames_of_no_records_have_their_columns(tmp_path, folder):
    frames = records.load(tmp_path / folder)
    for name, columns in records.COLUMNS.items():
        assert list(getattr(frames, name).columns) == columns.split()
        assert getattr(frames, name).empty


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A done cell, one with a diverged seed, an undefined, a failed one, and files that are no records."""
    folder = tmp_path_factory.mktemp("study")
    records.write(folder / "toy/late/msam+encoder.json", record(seeds=(0, 1)))
    diverged = record(dataset="outside.rings", method="outside.signed", variant="", rho=None)
    diverged["seeds"][0] |= {"state": "diverged", "reason": "not finite in epoch 2", "final": {}}
    records.write(folder / "rings/late/signed.json", diverged)
    undefined = record(seeds=(), fusion="early") | {"state": "undefined", "reason": "needs two"}
    del undefined["provenance"]["peak_memory_mb"]
    records.write(folder / "toy/early/msam+encoder.json", undefined)
    failed = {"schema": 1, "state": "failed", "config": record()["config"] | {"variant": "response"}}
    records.write(folder / "toy/late/msam+response.failed.json", failed | {"reason": "bug", "traceback": "t"})
    records.write(folder / "toy/late/joint.partial.json", record(method="joint"))
    (folder / "toy/late/.sam.json.123").write_text("half a rec")
    (folder / "toy/late/sam.ipynb").write_text("{}")
    return records.load(folder)


def test_frames_have_the_documented_columns(frames):
    for name, columns in records.COLUMNS.items():
        assert list(getattr(frames, name).columns) == columns.split()
        assert not getattr(frames, name).empty


def test_every_cell_has_its_row(frames):
    rows = frames.cells.set_index(["dataset", "fusion", "name"])
    assert {where: (row["state"], row["reason"], row["n_seeds"]) for where, row in rows.iterrows()} == {
        ("toy", "late", "msam+encoder"): ("done", "", 2),
        ("rings", "late", "signed"): ("done", "", 1),
        ("toy", "early", "msam+encoder"): ("undefined", "needs two", 0),
        ("toy", "late", "msam+response"): ("failed", "bug", 0),
    }
    row = rows.loc[tuple(CELL)]
    assert row["path"] == "toy/late/msam+encoder.json"
    assert (row["method"], row["variant"], row["lr"], row["rho"]) == ("msam", "encoder", 0.1, 0.05)
    assert (row["commit"], row["dirty"], row["device"], row["epochs"]) == ("c", False, "cpu: x", 1)


def test_runs_by_hand(frames):
    done = frames.runs[frames.runs["name"] == "msam+encoder"]
    assert len(done) == 2 * 3 * 3 * 3  # seeds, rules, splits, outputs
    assert frames.runs["state"].eq("done").all()  # a diverged seed has no final numbers
    one = done[(done["seed"] == 1) & (done["rule"] == "last") & (done["split"] == "test")]
    one = one.set_index("output")
    assert one["accuracy"].to_dict() == {"fused": 0.7, "a": 0.35, "b": 0.175}
    assert one.loc[["a", "b"], "head_accuracy"].tolist() == [0.3, 0.2]
    assert one["loss"].dropna().to_dict() == {"fused": 1.5}


def test_epochs_and_dominance_by_hand(frames):
    one = frames.epochs[(frames.epochs["dataset"] == "rings") & (frames.epochs["split"] == "validation")]
    one = one.set_index("output")
    assert one["accuracy"].to_dict() == {"fused": 0.8, "a": 0.4, "b": 0.2}
    assert one["share"].dropna().to_dict() == {"a": 0.75, "b": 0.25}
    assert one["loss"].dropna().to_dict() == {"fused": 1.5}
    steps = frames.dominance[frames.dominance["dataset"] == "rings"].set_index("modality")
    assert steps["share"].to_dict() == {"a": 0.6, "b": 0.4}
    assert steps["count"].to_dict() == {"a": 3, "b": 1}
    assert steps["dominant_share"].tolist() == [0.7, 0.7]
    assert steps["switches"].tolist() == [2, 2]


def test_the_gradient_norm_stands_with_the_loss_it_belongs_to(tmp_path):
    content = record()
    content["seeds"][0]["epochs"][0]["gradient_norm"] = 0.25
    records.write(tmp_path / "toy/late/msam+encoder.json", content)
    records.write(tmp_path / "toy/late/joint.json", record(method="joint", variant=""))
    rows = records.load(tmp_path).epochs.dropna(subset=["gradient_norm"])
    assert rows[["name", "split", "output", "gradient_norm"]].to_numpy().tolist() == [
        ["msam+encoder", "train", "fused", 0.25]
    ]


def test_seeds_keep_the_diverged_one(frames):
    seeds = frames.seeds.set_index(["name", "seed"])
    assert seeds.loc[("signed", 0), ["state", "reason"]].tolist() == ["diverged", "not finite in epoch 2"]
    assert seeds.loc[("msam+encoder", 1), ["seconds", "steps", "gradient_evaluations"]].tolist() == [2, 4, 8]
    assert len(seeds) == 3


def test_provenance_says_whether_the_code_is_the_commit(tmp_path):
    """In a repository of its own: clean, with a changed module, with a new module, with a changed text."""
    package = tmp_path / "src" / "msam"
    package.mkdir(parents=True)
    shutil.copy(records.__file__, package / "records.py")
    (tmp_path / "README.md").write_text("a")

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def provenance():
        code = f"""
import importlib.util as u, json
s = u.spec_from_file_location("r", {str(package / "records.py")!r}); m = u.module_from_spec(s)
import sys; sys.modules["r"] = m; s.loader.exec_module(m); print(json.dumps(m.provenance("cpu", "x")))
"""
        command = [sys.executable, "-B", "-c", code]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    git("init", "-q")
    assert provenance()["commit"] == ""
    git("add", "-A")
    git("commit", "-qm", "a")
    assert provenance()["commit"] == git("rev-parse", "HEAD")
    assert not provenance()["dirty"]
    (tmp_path / "README.md").write_text("b")
    assert not provenance()["dirty"]
    (package / "new.py").write_text("")
    assert provenance()["dirty"]
    (package / "new.py").unlink()
    (package / "records.py").write_text((package / "records.py").read_text() + "\n")
    assert provenance()["dirty"]


@pytest.mark.parametrize(
    ("note", "field"), [("{}", "failure.state "), ('{"state": "failed", "config": {}}', "")]
)
def test_a_wrong_note_of_a_failure_is_refused(path, note, field):
    target = path.with_name("sam.failed.json")
    target.parent.mkdir(parents=True)
    target.write_text(note)
    with pytest.raises(records.RecordError, match=rf"sam\.failed\.json: {field}"):
        records.load(path.parents[2])
