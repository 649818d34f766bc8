"""Datasets: recipes against independent computations, the cache against damage, every message."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from msam import datasets
from msam.datasets import DatasetError, _spectrogram, _speech, av_digits, controlled, watch
from msam.datasets._check import check_split, checksum

SPLITS = ("train", "validation", "test")
SMALL = {"train": 60, "validation": 30, "test": 30}


@pytest.fixture(scope="module")
def fresh_checksums(tmp_path_factory):
    """Checksums of all datasets built by another process, which works while the other tests run."""
    code = """
import json
from msam.datasets import describe, names
print(json.dumps({name: describe(name)["checksum"] for name in names()}))
"""
    environment = {
        **os.environ,
        "MSAM_DATA": str(tmp_path_factory.mktemp("fresh")),
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "7",
    }
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        yield lambda: json.loads(process.communicate()[0])


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory, fresh_checksums):
    """A cache folder in which each of the slow datasets is built once for this file."""
    return tmp_path_factory.mktemp("msam-data")


@pytest.fixture
def shared(shared_folder, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(shared_folder))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arrays(name, options=None):
    with np.load(datasets.build(name, options)) as file:
        return {key: file[key] for key in file.files}


def python(code, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


# Every dataset


@pytest.mark.parametrize("name", datasets.names())
def test_splits_share_no_group_and_no_example(shared, name):
    stored = arrays(name)
    groups = [key.split("/")[1] for key in stored if key.startswith("train/group_")]
    assert groups
    modalities = datasets.load(name).modalities
    for group in groups:
        values = [set(stored[f"{split}/{group}"].tolist()) for split in SPLITS]
        assert sum(map(len, values)) == len(set.union(*values)), group
    rows = [
        row.tobytes()
        for split in SPLITS
        for row in np.concatenate(
            [stored[f"{split}/{m}"].reshape(len(stored[f"{split}/label"]), -1) for m in modalities], axis=1
        )
    ]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("name", datasets.names())
def test_load_gives_typed_aligned_finite_tensors(shared, name):
    import torch

    dataset = datasets.load(name)
    assert dataset.name == name
    assert dataset.modalities == tuple(dataset.kinds)
    assert tuple(dataset.splits) == SPLITS
    for split in dataset.splits.values():
        assert split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(len(dataset.classes)))
        assert tuple(split.inputs) == dataset.modalities
        for values in split.inputs.values():
            assert values.dtype == torch.float32
            assert len(values) == len(split) == len(split.labels)
            assert values.isfinite().all()
    moved = dataset.to("meta")
    assert moved.splits["test"].inputs[dataset.modalities[0]].device.type == "meta"
    assert moved.splits["test"].labels.device.type == "meta"
    assert (moved.checksum, moved.classes) == (dataset.checksum, dataset.classes)


@pytest.mark.parametrize("name", datasets.names())
def test_description_agrees_with_the_tensors(shared, name):
    record, dataset = datasets.describe(name), datasets.load(name)
    assert list(record) == [
        *("name", "title", "level", "origin", "licence", "stands_for", "options", "checksum", "classes"),
        *("modalities", "splits", "shared_groups", "samples"),
    ]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["checksum"] == dataset.checksum == checksum(arrays(name))
    assert record["classes"] == list(dataset.classes)
    assert record["level"] == "embedded"
    assert set(record["shared_groups"].values()) == {0}
    for split in SPLITS:
        loaded, told = dataset.splits[split], record["splits"][split]
        assert told["size"] == len(loaded)
        assert told["class_counts"] == [(loaded.labels == c).sum() for c in range(len(dataset.classes))]
        for group, count in told["groups"].items():
            assert count == len(set(arrays(name)[f"{split}/group_{group}"].tolist()))
    for modality, told in record["modalities"].items():
        assert told["shape"] == list(dataset.splits["train"].inputs[modality].shape[1:])
        assert told["kind"] == dataset.kinds[modality]
    assert len({sample["label"] for sample in record["samples"]}) == len(record["samples"]) == 4
    for sample in record["samples"]:
        of_class = dataset.splits["train"].labels == dataset.classes.index(sample["label"])
        shown = {m: np.array(values) for m, values in sample["inputs"].items()}
        matches = [
            abs(dataset.splits["train"].inputs[m][of_class].numpy() - shown[m])
            .reshape(of_class.sum(), -1)
            .max(1)
            < 6e-4
            for m in dataset.modalities
        ]
        assert np.logical_and.reduce(matches).any()


def test_same_arrays_in_a_fresh_process(shared, fresh_checksums):
    ours = {name: datasets.describe(name)["checksum"] for name in datasets.names()}
    assert fresh_checksums() == ours


def test_speech_comes_in_the_order_of_the_request():
    together = _speech.speak(["zero", "nine"], ["en", "en-us"], ["Alex", "Andy"])
    alone = [
        _speech.speak([word], [accent], [variant])[0]
        for variant in ("Alex", "Andy")
        for accent in ("en", "en-us")
        for word in ("zero", "nine")
    ]  # eSpeak's state changes samples a little from call to call, never a length
    assert [len(clip) for clip in together] == [len(clip) for clip in alone]
    assert len({len(clip) for clip in alone}) > 4


def test_an_unknown_voice_is_named():
    with pytest.raises(DatasetError, match=r"eSpeak NG failed: .*no voice xx-nowhere"):
        _speech.speak(["one"], ["xx-nowhere"], ["Alex"])


def test_a_second_build_in_one_process_gives_the_same_speech():
    words, accents, variants = ["zero", "nine"], ["en-us"], ["Alex", "whisper", "croak"]
    first, second = (_speech.speak(words, accents, variants) for _ in range(2))
    assert len(first) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(len(clip) > 0.1 * _speech.RATE for clip in first)
    assert len({clip.tobytes() for clip in first}) == 6


def test_describe_and_the_package_do_not_import_torch(shared):
    datasets.describe("watch")
    code = "import sys; from msam import datasets; datasets.describe('watch'); print('torch' in sys.modules)"
    assert python(code) == "False"


def test_rounding_hides_last_bits_and_the_sign_of_zero():
    from msam.datasets._scale import rounded

    values = np.array([-1e-9, 1e-9, 0.1, 2 / 3])
    assert (
        rounded(values).tobytes() == rounded(values * (1 + 1e-12) + np.array([2e-9, -2e-9, 0, 0])).tobytes()
    )
    assert rounded(values).dtype == np.float32
    np.testing.assert_allclose(rounded(values), values, atol=5.1e-5)


# av_digits


def test_av_digits_is_balanced_and_pairs_a_digit_with_its_own_word(shared):
    stored = arrays("av_digits")
    for split, count in av_digits.PER_CLASS.items():
        assert np.bincount(stored[f"{split}/label"]).tolist() == [count] * 10
    pixels, digits = av_digits._images()
    for split in SPLITS:
        assert np.array_equal(digits[stored[f"{split}/group_image"]], stored[f"{split}/label"])
    images = np.concatenate([stored[f"{split}/group_image"] for split in SPLITS])
    assert sorted(images) == list(range(len(pixels)))
    voices = {split: set(stored[f"{split}/group_voice"].tolist()) for split in SPLITS}
    assert {split: len(found) for split, found in voices.items()} == av_digits.VOICES


def test_av_digits_audio_is_the_word_of_the_label(monkeypatch):
    clips = np.zeros((104, 8, 10, av_digits.SAMPLES), np.int16)
    time = np.arange(av_digits.SAMPLES) / _speech.RATE
    clips[:] = (8000 * np.sin(2 * np.pi * np.arange(300, 3300, 300)[:, None] * time)).astype(np.int16)
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(200) % 10)
    spectrograms, voice = av_digits._pair(clips, np.arange(5, 15), labels, 0.1, random)
    loudest = spectrograms.mean(axis=2).argmax(axis=1)
    pitch = np.array([loudest[labels == digit][0] for digit in range(10)])
    assert (np.diff(pitch) > 0).all()
    assert np.array_equal(loudest, pitch[labels])
    assert set(voice) <= set(range(5, 15))


def test_images_are_the_train_images_first_principal_components():
    random = np.random.default_rng(0)
    mix = random.standard_normal((784, 784)) / 28
    pixels = {
        split: random.standard_normal((n, 784)) @ mix + 3
        for split, n in zip(SPLITS, (900, 40, 30), strict=True)
    }
    kept = av_digits.project(pixels, 3)
    mean = pixels["train"].mean(axis=0)
    right = np.linalg.svd(pixels["train"] - mean, full_matrices=False)[2][:3]
    expected = {split: (x - mean) @ right.T @ right for split, x in pixels.items()}
    for split in SPLITS:
        np.testing.assert_allclose(kept[split], expected[split] / expected["train"].std(), atol=1e-4)
    np.testing.assert_allclose(kept["train"].std(), 1, atol=1e-4)
    other = av_digits.project({**pixels, "test": 5 * pixels["test"][::-1] + 1}, 3)
    assert np.array_equal(other["train"], kept["train"])
    assert not np.array_equal(other["test"], kept["test"])


def test_av_digits_train_images_have_rank_three_and_audio_is_standardized(shared):
    stored = arrays("av_digits")
    for split in SPLITS:
        singular = np.linalg.svd(stored[f"{split}/image"].reshape(-1, 784).astype(float), compute_uv=False)
        assert singular[2] > 1
        assert singular[3] < 0.02  # only rounding is left
    audio = stored["train/audio"].astype(float)
    np.testing.assert_allclose([audio.mean(), audio.std()], [0, 1], atol=1e-4)
    assert abs(stored["test/audio"].mean()) > 1e-4


# Spectrograms


def test_power_agrees_with_scipy():
    waves = np.random.default_rng(0).standard_normal((3, 5000))
    window, hop = 256, 100
    ours = _spectrogram.power(waves, window, hop)
    hann = scipy.signal.get_window("hann", window)
    theirs = scipy.signal.ShortTimeFFT(hann, hop, fs=1).spectrogram(waves, p0=0, k_offset=window // 2)
    frames = 1 + (5000 - window) // hop
    assert ours.shape == (3, window // 2 + 1, frames)
    np.testing.assert_allclose(ours, theirs[..., :frames], rtol=1e-9, atol=1e-9)


def test_mel_filters_agree_with_torchaudio():
    from torchaudio.functional import melscale_fbanks

    ours = _spectrogram.mel_filters(28, 1024, 22050, 60.0, 8000.0)
    theirs = melscale_fbanks(513, 60.0, 8000.0, 28, 22050, norm=None, mel_scale="htk").numpy().T
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert (ours.max(axis=1) > 0.3).all()


# watch


def test_watch_windows_are_cut_from_their_recordings(shared):
    from seglearn.datasets import load_watch

    data, stored = load_watch(), arrays("watch")
    both = {s: np.concatenate([stored[f"{s}/accel"], stored[f"{s}/gyro"]], axis=1) for s in SPLITS}
    mean, deviation = both["train"].mean(axis=(0, 2)), both["train"].std(axis=(0, 2))
    np.testing.assert_allclose(mean, 0, atol=1e-3)
    np.testing.assert_allclose(deviation, 1, atol=1e-3)
    raw = {}
    for split in SPLITS:
        recordings = stored[f"{split}/group_recording"]
        assert np.array_equal(data["subject"][recordings], stored[f"{split}/group_subject"])
        assert np.array_equal(data["y"][recordings], stored[f"{split}/label"])
        assert set(stored[f"{split}/group_subject"].tolist()) == set(watch.SUBJECTS[split])
        for recording in np.unique(recordings):
            whole = data["X"][recording]
            starts = range(0, len(whole) - 99, 50)
            assert (recordings == recording).sum() == len(starts)
        first = [np.flatnonzero(recordings == r)[1] for r in np.unique(recordings)]
        raw[split] = (both[split][first], np.stack([data["X"][r][50:150].T for r in np.unique(recordings)]))
    ours, theirs = (np.concatenate([raw[s][i] for s in SPLITS]) for i in range(2))
    for channel in range(6):  # one line a channel, the same in all splits
        fit = scipy.stats.linregress(theirs[:, channel].ravel(), ours[:, channel].ravel())
        assert fit.rvalue > 0.999999
        assert fit.slope > 0


def test_watch_names_its_classes_in_the_order_of_the_source():
    from seglearn.datasets import load_watch

    short = load_watch()["y_labels"]
    assert short == ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
    for name, given in zip(watch.CLASSES, short, strict=True):
        initials = "".join(word[0] for word in name.split()).upper()
        assert name.upper().startswith(given) or initials == given[:2] or name.upper().endswith(given)


# controlled


def test_controlled_class_means_are_the_prototypes_scaled_by_snr():
    built = controlled.build(train=60000, snr=[4.0, 2.0, 1.0], synergy=0.25, redundancy=0.5)["train"]
    for m, snr in enumerate((4.0, 2.0, 1.0)):
        x, y = built[f"m{m + 1}"].astype(float), built["label"]
        means = np.stack([x[y == c].mean(axis=0) for c in range(6)])
        centered = means - means.mean(axis=0)  # the codes' common mean drops out
        gram = centered @ centered.T
        expected = (0.75 * snr) ** 2 * (np.eye(6) - 1 / 6)  # orthonormal prototypes, centered
        np.testing.assert_allclose(gram, expected, atol=0.06 * snr + 0.02)
    x = np.concatenate([built[f"m{m + 1}"] - class_mean(built, m) for m in range(3)], axis=1)
    common = np.cov(x.T)[:16, 16:32]  # rotated: orthogonal up to its factor
    np.testing.assert_allclose(np.linalg.svd(common, compute_uv=False)[6:10], 0.5, atol=0.05)


def class_mean(built, m):
    x, y = built[f"m{m + 1}"], built["label"]
    return np.stack([x[y == c].mean(axis=0) for c in range(6)])[y]


def test_controlled_single_modalities_reach_their_closed_form_accuracy():
    built = controlled.build(train=30000, test=30000, synergy=0.3)
    t = np.linspace(-8, 12, 4001)
    for m in range(3):
        name, train, test = f"m{m + 1}", built["train"], built["test"]
        means = np.stack([train[name][train["label"] == c].mean(axis=0) for c in range(6)])
        scores = test[name] @ means.T - 0.5 * (means**2).sum(axis=1)
        d = 2.4 * 0.65**m * 0.7
        expected = np.trapezoid(scipy.stats.norm.pdf(t - d) * scipy.stats.norm.cdf(t) ** 5, t)
        assert (scores.argmax(axis=1) == test["label"]).mean() == pytest.approx(expected, abs=0.015)


def test_controlled_codes_tell_the_label_only_together():
    built = controlled.build(train=12000, snr=[1e6] * 3, synergy=1.0)["train"]
    codes = np.stack(
        [np.unique(np.round(built[f"m{m}"] / 1e6, 2), axis=0, return_inverse=True)[1] for m in (1, 2, 3)]
    )
    y = built["label"]
    assert codes.max() == 5
    for known in ([0], [1], [2], [0, 1], [0, 2], [1, 2]):
        joint = np.ravel_multi_index(codes[known], [codes.max() + 1] * len(known))
        table = np.array([np.bincount(y[joint == code], minlength=6) for code in np.unique(joint)])
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-4
    together = {(*key, label) for *key, label in zip(*codes, y, strict=True)}
    assert len(together) == len({key[:-1] for key in together}) == 6**3


def test_controlled_takes_two_to_eight_modalities(cache):
    for modalities in (2, 8):
        dataset = datasets.load("controlled", {"modalities": modalities, **SMALL})
        assert dataset.modalities == tuple(f"m{m + 1}" for m in range(modalities))


# The cache


def test_options_decide_the_file_and_equal_numbers_share_it(cache):
    plain = datasets.build("controlled", SMALL)
    assert plain == datasets.build("controlled", {**SMALL, "classes": 6, "synergy": 0.3, "train": 60.0})
    assert plain != datasets.build("controlled", {**SMALL, "synergy": 0})
    assert datasets.build("controlled", {**SMALL, "synergy": 0}) == datasets.build(
        "controlled", {**SMALL, "synergy": 0.0}
    )
    assert plain.name.startswith("controlled-")
    left = sorted({path.suffix for path in cache.iterdir()})
    assert left == [".json", ".lock", ".npz"]
    manifest = json.loads(plain.with_suffix(".json").read_text())
    assert set(manifest) == {"checksum", "builder", "versions", "options", "description"}
    assert manifest["versions"]["numpy"] == np.__version__


def test_a_cached_dataset_is_not_built_again(cache, monkeypatch):
    datasets.build("controlled", SMALL)

    def fail(**options):
        raise AssertionError("built again")

    fail.__signature__ = __import__("inspect").signature(controlled.build)
    monkeypatch.setattr(controlled, "build", fail)
    datasets.load("controlled", SMALL)
    with pytest.raises(AssertionError, match="built again"):
        datasets.build("controlled", SMALL, force=True)


def test_checksum_sees_a_value_a_shape_a_type_and_a_name():
    base = {"train/a": np.arange(6, dtype=np.float32)}
    changed = [
        {"train/a": np.array([0, 1, 2, 3, 4, 6], np.float32)},
        {"train/a": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"train/a": np.arange(6, dtype=np.float32).view(np.int32)},
        {"train/b": np.arange(6, dtype=np.float32)},
    ]
    assert len({checksum(case) for case in [base, *changed]}) == 5


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "flip"])
def test_damaged_data_is_named_and_mended_by_force(cache, damage):
    path = datasets.build("controlled", SMALL)
    before = datasets.load("controlled", SMALL).checksum
    content = bytearray(path.read_bytes())
    if (
        damage == "flip"
    ):  # one bit of one float, and the zip's own check sum with it: a valid file of other data
        stored = arrays("controlled", SMALL)
        stored["test/m1"][0, 0] += 1
        np.savez(path, **stored)
    else:
        path.write_bytes(
            {"truncate": content[: len(content) // 2], "garbage": b"x" * 999, "empty": b""}[damage]
        )
    with pytest.raises(DatasetError) as error:
        datasets.load("controlled", SMALL)
    message = str(error.value)
    assert str(path) in message
    assert "delete it or run `msam data build controlled --force`" in message
    assert "\n" not in message
    datasets.build("controlled", SMALL, force=True)
    assert datasets.load("controlled", SMALL).checksum == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checksum": "1"}'])
def test_damaged_manifest_is_named(cache, text):
    path = datasets.build("controlled", SMALL).with_suffix(".json")
    path.write_text(text)
    for read in (datasets.load, datasets.describe):
        with pytest.raises(DatasetError, match=r"json is damaged .*--force"):
            read("controlled", SMALL)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_build_that_stopped_half_way_is_taken_up_again(cache, suffix):
    path = datasets.build("controlled", SMALL).with_suffix(suffix)
    path.unlink()
    assert len(datasets.load("controlled", SMALL).splits["train"]) == 60
    assert path.exists()


def test_unwritable_folder_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "file" / "below"))
    with pytest.raises(DatasetError, match=r"cannot write to the data folder .*file/below .*set MSAM_DATA"):
        datasets.load("controlled", SMALL)


def test_a_failed_write_leaves_nothing_behind(cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DatasetError, match=r"No space left on device.*MSAM_DATA"):
        datasets.build("controlled", SMALL)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_finished_cache_is_read_without_writing(cache, monkeypatch):
    datasets.build("controlled", SMALL)
    for lock in cache.glob("*.lock"):
        lock.unlink()
    datasets.load("controlled", SMALL)
    assert not list(cache.glob("*.lock"))


OUTSIDE = """
import os, time
import numpy as np

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


@pytest.fixture
def outside(cache, tmp_path, monkeypatch):
    """A dataset in a package that is not part of msam."""
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "mine.py").write_text(OUTSIDE)
    (tmp_path / "my_project" / "half.py").write_text("TITLE = 'no more'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    yield "my_project.mine"
    for name in [name for name in sys.modules if name.split(".")[0] == "my_project"]:
        del sys.modules[name]


def test_a_dataset_may_live_outside_the_package(outside, tmp_path):
    dataset = datasets.load(outside, {"n": 6})
    assert dataset.classes == ("no", "yes")
    assert dataset.splits["test"].inputs["a"].shape == (6, 2)
    first = datasets.build(outside)
    with (tmp_path / "my_project" / "mine.py").open("a") as file:
        file.write("# other code, other file\n")
    assert datasets.build(outside) != first


def test_two_processes_build_once(outside, tmp_path):
    code = f"from msam import datasets; print(datasets.describe({outside!r})['checksum'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "BUILD_SECONDS": "0.5"}
    command = [sys.executable, "-c", code]
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    found = [worker.communicate(timeout=30)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(set(found)) == 1
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("made.pop('test')", "splits are train, validation; need train, validation, test"),
        ("made['test'].pop('a')", "test: no array 'a'"),
        ("made['test']['b'] = made['test']['a']", "test: array 'b' is no modality, label or group_<name>"),
        ("made['train']['label'] = made['train']['label'] + 1", "train: labels 1..2 outside 0..1"),
        ("made['train']['label'] = made['train']['label'] - 1", "train: labels -1..0 outside 0..1"),
        ("made['train']['label'] = made['train']['label'] * 1.0", "train: labels must be integers"),
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
    assert not list(cache.glob("*.npz"))


def test_check_split_accepts_a_good_split():
    check_split("here", {"a": np.zeros((4, 2)), "label": np.array([0, 1, 1, 0])}, ("a",), 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", None, "unknown dataset 'nothing'; choose from av_digits, controlled, watch"),
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


def test_names_are_the_modules_of_the_package():
    assert datasets.names() == ["av_digits", "controlled", "watch"]
