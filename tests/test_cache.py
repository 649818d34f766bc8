"""The cache: its format, damage, kills, full disks and two at once; what is refused; every message."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from msam import cli, datasets, fingerprint
from msam.datasets import DatasetError, _arrays, _cache, controlled
from msam.datasets._check import check_split, checksum
from msam.datasets._raw import hash_options, locate, prepared_folders, work_folder

SPLITS = ("train", "validation", "test")
SMALL = {"train": 60, "validation": 30, "test": 30}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("MSAM_CACHE", raising=False)
    return tmp_path / "cache"


def entries(folder):
    return sorted(path.suffix or path.name.split("-")[0] for path in folder.iterdir())


# Where and how


def test_a_prepared_dataset_is_a_folder_of_arrays_and_a_manifest(cache):
    folder = datasets.prepare("controlled", SMALL)
    parts = [f"{split}__{part}" for split in SPLITS for part in ("group_index", "label", "m1", "m2", "m3")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["manifest.json", *(f"{part}.npy" for part in parts)]
    )
    assert entries(cache) == [".lock", "controlled"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {"checksum", "builder", "versions", "options", "arrays", "description"}
    assert manifest["versions"]["numpy"] == np.__version__
    built, loaded = controlled.build(**SMALL), datasets.load("controlled", SMALL)
    for split in SPLITS:
        for modality, values in loaded.splits[split].inputs.items():
            assert np.array_equal(values.numpy(), built[split][modality])
            assert np.array_equal(np.load(folder / f"{split}__{modality}.npy"), values.numpy())


def test_options_decide_the_folder_and_equal_numbers_share_it(cache):
    plain = datasets.prepare("controlled", SMALL)
    assert plain == datasets.prepare("controlled", {**SMALL, "classes": 6, "synergy": 0.3, "train": 60.0})
    assert plain != datasets.prepare("controlled", {**SMALL, "synergy": 0})
    assert datasets.prepare("controlled", {**SMALL, "synergy": 0}) == datasets.prepare(
        "controlled", {**SMALL, "synergy": 0.0}
    )


def test_a_prepared_dataset_is_not_built_again(cache, monkeypatch):
    datasets.prepare("controlled", SMALL)

    def fail(**options):
        raise AssertionError("built again")

    fail.__signature__ = __import__("inspect").signature(controlled.build)
    monkeypatch.setattr(controlled, "build", fail)
    datasets.load("controlled", SMALL)
    with pytest.raises(AssertionError, match="built again"):
        datasets.prepare("controlled", SMALL, force=True)


def read_only(folder):
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    return folder


def test_the_folder_is_the_cache_else_the_data_folder_else_the_home(cache, tmp_path, monkeypatch):
    home = tmp_path / "home" / ".cache" / "msam"
    assert prepared_folders() == (cache,)
    read_only(cache)
    assert prepared_folders() == (home, cache)
    monkeypatch.setenv("MSAM_DATA", str(cache / "below" / "it"))
    assert prepared_folders() == (home, cache / "below" / "it")
    monkeypatch.delenv("MSAM_DATA")
    assert prepared_folders() == (home,)
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "elsewhere"))
    assert prepared_folders() == (tmp_path / "elsewhere",)


def test_a_read_only_data_folder_is_read_and_never_written(cache, tmp_path):
    there = datasets.prepare("controlled", SMALL)
    for lock in cache.glob("*.lock"):
        lock.unlink()
    read_only(cache)
    assert datasets.prepare("controlled", SMALL) == there
    datasets.load("controlled", SMALL)
    other = datasets.prepare("controlled", {**SMALL, "seed": 1})
    anew = datasets.prepare("controlled", SMALL, force=True)
    assert other.parent == anew.parent == tmp_path / "home" / ".cache" / "msam"
    assert datasets.prepare("controlled", SMALL) == anew
    assert list(cache.iterdir()) == [there]


def test_unwritable_folder_names_the_variable(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DatasetError, match=r"cannot write to the folder .*file/below .*set MSAM_CACHE to a"):
        datasets.load("controlled", SMALL)


# Checksums and memory maps


def whole(arrays):
    """The checksum as it was first defined, with no blocks."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def some_arrays():
    return {
        "train/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "test/b": np.array(["x", "yz"]),
        "c": np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2],
    }


def test_the_checksum_is_the_one_it_always_was(monkeypatch):
    assert checksum(some_arrays()) == "c013e02b708a3484ebd748f49a4d2f2df71ddbafaea7a2b6fff69b255a7df21c"
    built = {f"{s}/{n}": v for s, parts in controlled.build(**SMALL).items() for n, v in parts.items()}
    odd = {"x": np.zeros((0, 3)), "y": np.zeros((3, 0)), "z": np.float32(2), "t": built["train/m1"].T}
    for block in (1, 100, 10**9):
        monkeypatch.setattr(_arrays, "BLOCK", block)
        for arrays in (some_arrays(), built, odd):
            assert checksum(arrays) == whole(arrays)


def test_checksum_sees_a_value_a_shape_a_type_and_a_name():
    base = {"train/a": np.arange(6, dtype=np.float32)}
    changed = [
        {"train/a": np.array([0, 1, 2, 3, 4, 6], np.float32)},
        {"train/a": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"train/a": np.arange(6, dtype=np.float32).view(np.int32)},
        {"train/b": np.arange(6, dtype=np.float32)},
    ]
    assert len({checksum(case) for case in [base, *changed]}) == 5


@pytest.mark.parametrize("block", [1, 7, 10**9])
def test_arrays_are_read_as_they_were_written(tmp_path, monkeypatch, block):
    monkeypatch.setattr(_arrays, "BLOCK", block)
    table = _arrays.write(tmp_path, some_arrays())
    for mapped in (False, True):
        for name, value in _arrays.read(tmp_path, table, mapped).items():
            assert value.dtype == some_arrays()[name].dtype
            assert np.array_equal(value, some_arrays()[name])


@pytest.mark.filterwarnings("error")
def test_a_large_dataset_is_mapped_and_its_files_never_change(cache, monkeypatch):
    folder = datasets.prepare("controlled", SMALL)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    small = datasets.load("controlled", SMALL)
    monkeypatch.setattr(_cache, "SMALL", 1)
    monkeypatch.setattr(_cache, "checksum", None)  # it takes none
    monkeypatch.setattr(np, "fromfile", None)  # it reads none
    large = datasets.load("controlled", SMALL)
    assert large.checksum == small.checksum
    for split in SPLITS:
        for name, values in large.splits[split].inputs.items():
            assert values.equal(small.splits[split].inputs[name])
            values += 1
        assert large.splits[split].labels.equal(small.splits[split].labels)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.parametrize("limit", [1, 10**9])
@pytest.mark.parametrize(
    "damage", ["truncate", "garbage", "empty", "longer", "missing", "type", "shape", "flip"]
)
def test_damaged_data_is_named_and_mended_by_force(cache, monkeypatch, damage, limit):
    folder = datasets.prepare("controlled", {"train": 60})
    before = datasets.load("controlled", {"train": 60}).checksum
    path = folder / "test__m1.npy"
    content, values = path.read_bytes(), np.load(path)
    path.unlink()
    match damage:
        case "truncate":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"x" * len(content))
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(content + b"x")
        case "type":
            np.save(path, values.view(np.int32))
        case "shape":
            np.save(path, values.reshape(-1, 8))
        case "flip":
            np.save(path, values + np.float32(1))
    monkeypatch.setattr(_cache, "SMALL", limit)
    if damage == "flip" and limit == 1:  # only preparing sees the values of a large dataset
        return
    with pytest.raises(DatasetError) as error:
        datasets.load("controlled", {"train": 60})
    message = str(error.value)
    assert str(folder) in message
    assert ("checksum" if damage == "flip" else "test__m1.npy") in message
    assert "delete it or run `msam data prepare controlled --options '{\"train\": 60}' --force`" in message
    assert "\n" not in message
    datasets.prepare("controlled", {"train": 60}, force=True)
    assert datasets.load("controlled", {"train": 60}).checksum == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checksum": "1"}'])
def test_damaged_manifest_is_named(cache, text):
    (datasets.prepare("controlled", SMALL) / "manifest.json").write_text(text)
    for read in (datasets.load, datasets.describe):
        with pytest.raises(DatasetError, match=r"is damaged \(manifest.json is not its manifest\).*--force"):
            read("controlled", SMALL)


# Kills, full disks, two at once


def test_a_folder_without_manifest_is_not_there_yet(cache):
    folder = datasets.prepare("controlled", SMALL)
    (folder / "manifest.json").unlink()
    (folder / "old.npy").write_text("")
    assert len(datasets.load("controlled", SMALL).splits["train"]) == 60
    assert (folder / "manifest.json").exists()
    assert not (folder / "old.npy").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["array", "manifest", "build"])
def test_a_full_disk_is_one_line_and_leaves_nothing(cache, monkeypatch, capsys, where, code):
    def full(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if where == "array":
            real = _arrays.blocks
            patch.setattr(_arrays, "blocks", lambda value: full() if value.ndim > 1 else real(value))
        elif where == "manifest":
            patch.setattr(_cache, "swap", full)
        else:
            full.__signature__ = __import__("inspect").signature(controlled.build)
            patch.setattr(controlled, "build", full)
            patch.setattr(_cache, "collect", None)
        assert cli.main(["data", "prepare", "controlled", "--options", json.dumps(SMALL)]) == 1
    assert capsys.readouterr().err == (
        f"msam: cannot write to the folder {cache} ({os.strerror(code)});"
        " set MSAM_CACHE to a folder with more space\n"
    )
    assert entries(cache) == [".lock"]
    datasets.load("controlled", SMALL)


def test_a_file_that_cannot_be_read_is_no_full_disk(outside):
    with pytest.raises(FileNotFoundError):
        datasets.load(outside, {"breakage": "open('/no/such/file')"})


def test_a_finished_cache_is_read_without_writing(cache):
    datasets.prepare("controlled", SMALL)
    for lock in cache.glob("*.lock"):
        lock.unlink()
    datasets.load("controlled", SMALL)
    assert not list(cache.glob("*.lock"))


OUTSIDE = """
import os, time
import numpy as np

from msam.datasets._raw import hash_options, work_folder

TITLE = ORIGIN = LICENSE = "t"
STANDS_FOR = None
CLASSES = ("no", "yes")
KINDS = {"a": "vector"}


def build(n: int = 8, breakage: str = ""):
    with open(os.environ["BUILDS"], "a") as log:
        log.write("built\\n")
    time.sleep(float(os.environ.get("BUILD_SECONDS", "0")))
    made = {
        split: {"a": np.ones((n, 2)), "label": np.arange(n) % 2, "group_row": np.arange(n) + 100 * i}
        for i, split in enumerate(("train", "validation", "test"))
    }
    if breakage:
        exec(breakage)
    return made
"""


def forget():
    """Forget the code of modules, which a process takes to be the same as long as it lives."""
    for cached in (fingerprint._tree, fingerprint._code, fingerprint._imports):
        cached.cache_clear()


def edit(file, text):
    with file.open("a") as stream:
        stream.write(text)
    forget()


@pytest.fixture
def outside(cache, tmp_path, monkeypatch):
    """A dataset in a package that is not part of msam."""
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "mine.py").write_text(OUTSIDE)
    (tmp_path / "my_project" / "half.py").write_text("TITLE = 'no more'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    forget()
    yield "my_project.mine"
    forget()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_project"]:
        del sys.modules[name]


def test_a_dataset_may_live_outside_the_package(outside, tmp_path):
    dataset = datasets.load(outside, {"n": 6})
    assert dataset.classes == ("no", "yes")
    assert dataset.splits["test"].inputs["a"].shape == (6, 2)


def test_other_code_prepares_anew_and_other_words_do_not(outside, tmp_path):
    first = datasets.prepare(outside)
    edit(tmp_path / "my_project" / "mine.py", "# a comment\n")
    assert datasets.prepare(outside) == first
    edit(tmp_path / "my_project" / "mine.py", "x = 1\n")
    assert datasets.prepare(outside) != first


def child_environment(folder):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
    }


def test_two_processes_build_once(outside, tmp_path):
    code = f"from msam import datasets; print(datasets.describe({outside!r})['checksum'])"
    environment = {**child_environment(tmp_path), "BUILD_SECONDS": "0.5"}
    command = [sys.executable, "-c", code]
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    found = [worker.communicate(timeout=30)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(set(found)) == 1
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize("stage", ["build", "write"])
def test_a_killed_prepare_leaves_nothing_that_looks_finished(outside, cache, tmp_path, stage):
    sleep = "_cache.swap = lambda *_: time.sleep(60)" if stage == "write" else "pass"
    code = f"import time; from msam.datasets import _cache; {sleep}; _cache.prepare({outside!r})"
    environment = {**child_environment(tmp_path), "BUILD_SECONDS": "60" if stage == "build" else "0"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        begun = tmp_path / "builds" if stage == "build" else cache
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if begun.exists() and (stage == "build" or list(cache.glob("*.tmp/manifest.json"))):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    left = entries(cache)
    assert left == ([".lock", ".work"] if stage == "build" else [".lock", ".tmp", ".work"])
    folder = datasets.prepare(outside)
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", folder.suffix]
    assert (folder / "manifest.json").is_file()
    assert (tmp_path / "builds").read_text() == "built\nbuilt\n"


KEEP = """
import pathlib
kept = work_folder("my_project.mine", hash_options({"n": n, "breakage": breakage})) / "kept"
with open(os.environ["BUILDS"], "a") as log:
    log.write(f"{kept.exists()}\\n")
kept.write_text("half")
if os.environ.get("STOP"):
    raise KeyboardInterrupt
"""


def test_half_done_work_is_found_again_until_it_is_done(outside, cache, tmp_path, monkeypatch):
    def attempts():
        return (tmp_path / "builds").read_text().replace("built\n", "").split()

    options = {"breakage": KEEP}
    monkeypatch.setenv("STOP", "1")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare(outside, options)
    assert attempts() == ["False", "True"]
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare(outside, options, force=True)
    edit(tmp_path / "my_project" / "mine.py", "x = 2\n")
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare(outside, options)
    assert attempts() == ["False", "True", "False", "False"]
    assert list(cache.glob("*.work/kept"))
    monkeypatch.delenv("STOP")
    datasets.prepare(outside, options)
    assert attempts()[-1] == "True"
    assert not list(cache.glob("*.work"))


def test_work_is_kept_for_the_same_options_only(cache):
    assert hash_options({"a": 1, "b": (2, 3)}) == hash_options({"b": [2, 3], "a": 1})
    assert hash_options({"a": 1}) != hash_options({"a": 2})
    assert work_folder("x", "y").parent == cache


# Types, level, report


@pytest.fixture
def variant(outside, tmp_path, monkeypatch):
    """Change the dataset outside the package, and give its name."""

    def write(text):
        edit(tmp_path / "my_project" / "mine.py", text)
        sys.modules.pop(outside, None)
        return outside

    return write


def test_a_modality_keeps_its_stored_type(variant, cache):
    import torch

    name = variant("""
STORED = {"a": "uint8"}
""")
    whole = (
        "for s in made: made[s]['a'] = np.memmap(os.environ['BUILDS'] + s, np.uint8, 'w+', shape=(n, 2)); "
    )
    options = {"breakage": whole + "made[s]['a'][:] = 200"}
    values = datasets.load(name, options).splits["train"].inputs["a"]
    assert values.dtype == torch.uint8
    assert values.unique().tolist() == [200]
    with pytest.raises(DatasetError, match=r"train: a is float64; it is to be stored as uint8"):
        datasets.load(name)


def test_a_half_precision_modality_is_checked_and_kept(variant):
    import torch

    name = variant("def STORED(n, **_):\n    return {'a': 'float16'}\n")
    half = "for s in made: made[s]['a'] = made[s]['a'].astype(np.float16)\n"
    assert datasets.load(name, {"breakage": half}).splits["test"].inputs["a"].dtype == torch.float16
    with pytest.raises(DatasetError, match="test: a has values that are not finite"):
        datasets.load(name, {"breakage": half + "made['test']['a'][-1, -1] = np.inf"})


def test_the_last_block_is_checked_too(outside, monkeypatch):
    monkeypatch.setattr(_arrays, "BLOCK", 16)
    with pytest.raises(DatasetError, match="test: a has values that are not finite"):
        datasets.load(outside, {"breakage": "made['test']['a'][-1, -1] = np.nan"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "STORED = {'b': 'uint8'}",
            "STORED has 'b': 'uint8'; choose a modality of a and a type of float32, ",
        ),
        ("STORED = {'a': 'int8'}", "STORED has 'a': 'int8'; choose a modality of a and a type of float32, "),
        ("LEVEL = 'best'", "LEVEL is 'best'; choose from embedded, compact, paper"),
    ],
)
def test_a_wrong_constant_is_named(variant, text, message):
    name = variant(text + "\n")
    with pytest.raises(DatasetError) as error:
        datasets.load(name)
    assert message in str(error.value)


def test_the_level_is_the_one_of_the_module(variant):
    assert datasets.describe(variant("LEVEL = 'paper'\n"))["level"] == "paper"


def test_the_report_is_kept_and_printed(outside, capsys):
    options = {"breakage": "made['report'] = {'corrupt': ['clip 7'], 'counts': {'missing': 0}}"}
    report = {"corrupt": ["clip 7"], "counts": {"missing": 0}}
    assert datasets.describe(outside, options)["report"] == report
    printed = "report:\n  corrupt:\n  - clip 7\n  counts:\n    missing: 0\n"
    for command in ("prepare", "describe"):
        assert cli.main(["data", command, outside, "--options", json.dumps(options)]) == 0
        assert capsys.readouterr().out.endswith(printed)
    assert "report" not in datasets.describe(outside)
    with pytest.raises(DatasetError, match="its report is no plain JSON: "):
        datasets.describe(outside, {"breakage": "made['report'] = {'n': np.int64(3)}"})


def test_long_samples_are_thinned_in_the_description(outside):
    wide = "for s in made: made[s]['a'] = np.arange(n * 300.0).reshape(n, 300)"
    sample = datasets.describe(outside, {"breakage": wide})["samples"][0]
    assert sample["inputs"]["a"] == list(range(0, 300, 3))


def test_missing_raw_files_are_named_with_the_command(cache):
    with pytest.raises(
        DatasetError, match=rf"'x' needs a/b in {cache}; run `msam data get x`, or set MSAM_DATA"
    ):
        locate("x", ["a/b"])
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "b").write_text("")
    assert locate("x", ["a/b"]) == {"a/b": cache / "a" / "b"}


# What is refused


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("made.pop('test')", "splits are train, validation; need train, validation, test"),
        ("made['test'].pop('a')", "test: no array 'a'"),
        ("made['test']['b'] = made['test']['a']", "test: array 'b' is no modality, label or group_<name>"),
        ("made['train']['label'] = made['train']['label'] + 1", "train: labels 1..2 outside 0..1"),
        ("made['train']['label'] = made['train']['label'] - 1", "train: labels -1..0 outside 0..1"),
        ("made['train']['label'] = made['train']['label'] * 1.0", "train: labels must be integers"),
        (
            "made['test']['label'] = made['test']['label'][:, None]",
            "test: labels must be integers in 1 dimension(s), not int64 (8, 1)",
        ),
        ("made['validation']['label'] *= 0", "validation: every example has class 0"),
        ("made['test'] = {k: v[:0] for k, v in made['test'].items()}", "test: no examples"),
        ("made['test']['a'] = made['test']['a'][1:]", "test: 7 rows of a for 8 labels"),
        ("made['test']['group_row'] = np.int64(3)", "test: 1 rows of group_row for 8 labels"),
        ("made['test']['a'][3, 1] = np.nan", "test: a has values that are not finite"),
        ("made['test']['a'][3, 1] = 1e300", "test: a has values that are not finite"),
        ("made['test']['a'] = made['test']['a'][:, :1]", "a has another shape in another split"),
        (
            "made['test']['group_row'] = made['train']['group_row'][::-1]",
            "8 values of group 'row' are in two",
        ),
        ("made['test'].pop('group_row')", "only some splits have group_row"),
        ("made['test']['group_row'] = np.array([None] * 8)", "test: array 'group_row' holds Python objects"),
        ("raise ValueError('bad luck')", 'cannot be built with {"n": 8, "breakage": '),
        ("import no_such_package_anywhere", "needs the package no_such_package_anywhere"),
    ],
)
def test_a_bad_dataset_is_refused_in_one_line(outside, cache, breakage, message):
    with pytest.raises(DatasetError) as error:
        datasets.load(outside, {"breakage": breakage})
    assert message in str(error.value)
    assert outside in str(error.value)
    assert "\n" not in str(error.value)
    assert entries(cache) in ([], [".lock"])


@pytest.mark.parametrize("label", [[0, 1, 1, 0], [[0, 1]] * 4])
def test_check_split_accepts_a_good_split(label):
    label = np.array(label)
    check_split("here", {"a": np.zeros((4, 2)), "label": label}, {"a": "float32"}, 2, label.ndim)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", None, f"unknown dataset 'nothing'; choose from {', '.join(datasets.names())}, or"),
        ("_cache", None, "unknown dataset '_cache'; choose from"),
        ("../etc", None, "unknown dataset '../etc'; choose from"),
        ("no.such", None, "unknown dataset 'no.such'; no module of that name"),
        ("my_project.nothing", None, "unknown dataset 'my_project.nothing'; no module of that name"),
        ("my_project.half", None, "lacks ORIGIN, LICENSE, STANDS_FOR, CLASSES, KINDS, build"),
        ("watch", {"stride": 2}, "dataset 'watch' has no option 'stride'; known options: length, step"),
        ("watch", {"length": 5000}, "dataset 'watch': length 5000, step 50; length must be 1 to 947"),
        ("watch", {"step": "2"}, "dataset 'watch': option step must be a whole number, not '2'"),
        ("watch", {"step": 1.5}, "option step must be a whole number, not 1.5"),
        ("watch", {"step": True}, "option step must be a whole number, not True"),
        ("av_digits", {"noise": -1}, "dataset 'av_digits': noise is -1.0; must be at least 0"),
        ("av_digits", {"noise": float("nan")}, "option noise must be a finite number, not nan"),
        ("av_digits", {"components": 0}, "dataset 'av_digits': components is 0; must be 1 to 784"),
        ("controlled", {"modalities": 9}, "dataset 'controlled': modalities is 9; must be 2 to 8"),
        ("controlled", {"classes": 1}, "dataset 'controlled': classes is 1; must be at least 2"),
        ("controlled", {"dimension": 11}, "dimension is 11; must be at least twice the 6 classes"),
        ("controlled", {"snr": [1, 2]}, "dataset 'controlled': snr has 2 values for 3 modalities"),
        ("controlled", {"snr": "x"}, "dataset 'controlled' cannot be built with"),
        ("controlled", {"snr": object}, "option snr must be plain JSON"),
        ("controlled", {"redundancy": 1.1}, "dataset 'controlled': redundancy is 1.1; must be 0 to 1"),
        ("controlled", {"synergy": -0.1}, "dataset 'controlled': synergy is -0.1; must be 0 to 1"),
        ("controlled", {"seed": -1}, "dataset 'controlled' cannot be built with"),
        ("controlled", {"train": 0}, "dataset 'controlled', train: no examples"),
    ],
)
def test_messages_name_the_thing_and_the_choices(outside, name, options, message):
    with pytest.raises(DatasetError) as error:
        datasets.load(name, options)
    assert message in str(error.value).replace(": no module", "; no module")
    assert "\n" not in str(error.value)
