"""Datasets that packages ship: recipes against independent computations, and the same arrays every time."""

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
from msam.datasets._check import checksum
from msam.datasets._source import find

SPLITS = ("train", "validation", "test")
EMBEDDED = ("av_digits", "controlled", "watch")


@pytest.fixture(scope="module")
def fresh_checksums(tmp_path_factory):
    """Checksums of all datasets built by another process, which works while the other tests run."""
    code = f"""
import json
from msam.datasets import describe
print(json.dumps({{name: describe(name)["checksum"] for name in {EMBEDDED}}}))
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


def arrays(name, options=None):
    files = datasets.prepare(name, options).glob("*.npy")
    return {path.stem.replace("__", "/"): np.load(path) for path in files}


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


@pytest.mark.parametrize("name", EMBEDDED)
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


@pytest.mark.parametrize("name", EMBEDDED)
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


@pytest.mark.parametrize("name", EMBEDDED)
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
    ours = {name: datasets.describe(name)["checksum"] for name in EMBEDDED}
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
    spectrograms, voice, sounds = av_digits._pair(clips, np.arange(5, 15), labels, 0.1, random)
    loudest = spectrograms.mean(axis=2).argmax(axis=1)
    pitch = np.array([loudest[labels == digit][0] for digit in range(10)])
    assert (np.diff(pitch) > 0).all()
    assert np.array_equal(loudest, pitch[labels])
    assert set(voice) <= set(range(5, 15))
    assert [labels[row] for row in sounds] == [0, 1, 2, 3]
    for row, (alone, noisy) in sounds.items():
        spoken = _spectrogram.log_mel(alone.samples, alone.rate, **av_digits.SPECTROGRAM)
        assert spoken.mean(axis=1).argmax() == pitch[labels[row]]
        heard = _spectrogram.log_mel(noisy.samples, noisy.rate, **av_digits.SPECTROGRAM)
        np.testing.assert_array_equal(heard, spectrograms[row])


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


def test_controlled_takes_two_to_eight_modalities(shared):
    for modalities in (2, 8):
        dataset = datasets.load("controlled", {"modalities": modalities, "train": 60})
        assert dataset.modalities == tuple(f"m{m + 1}" for m in range(modalities))


# Names


def test_names_are_the_modules_of_the_package():
    assert set(EMBEDDED) <= set(datasets.names())
    assert datasets.names() == sorted(datasets.names())


@pytest.mark.parametrize("name", datasets.names())
def test_every_module_has_the_whole_contract(name):
    source = find(name)
    assert source.kinds
    assert source.classes
    assert set(source.stored) == set(source.kinds)
    assert source.level == ("embedded" if name in EMBEDDED else source.module.LEVEL)
    for part in ("TITLE", "ORIGIN", "LICENSE"):
        assert source.constant(part)
    assert (source.constant("FILES") == ()) is (name in EMBEDDED)
