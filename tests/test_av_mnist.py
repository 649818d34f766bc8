"""AV-MNIST from raw files: the pairing, what is fitted on train only, and every fault in a raw file."""

import gzip
import hashlib
import os
import shutil
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from msam import datasets
from msam.datasets import DatasetError, _avmnist, _expected, _recordings, av_mnist
from msam.datasets._idx import read_idx

SPLITS = ("train", "validation", "test")
TRAIN, TEST = 240, 80
SIZES = {"train": 220, "validation": 20, "test": 80}
REAL = Path(os.environ.get("MSAM_DATA") or Path.home() / ".cache" / "msam")
needs_real_files = pytest.mark.skipif(
    not all((REAL / part).exists() for part in ("mnist", "fsdd/recordings", "esc10")),
    reason="MSAM_DATA has no mnist, fsdd and esc10",
)


def write_idx(path, array):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def write_wav(path, samples, rate=8000, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes((samples * 2**14).astype(f"<i{width}").tobytes())


def write_ogg(path, samples, rate=44100):
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A data folder in the official layouts: 320 images, one speaker, ten noises."""
    folder = tmp_path_factory.mktemp("raw")
    random = np.random.default_rng(0)
    for part in ("mnist", "fsdd/recordings"):
        (folder / part).mkdir(parents=True)
    mix = random.standard_normal((784, 784)) / 28
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        images = (random.standard_normal((count, 784)) @ mix * 40 + 128).clip(0, 255).astype(np.uint8)
        write_idx(folder / "mnist" / f"{part}-images-idx3-ubyte.gz", images.reshape(-1, 28, 28))
        labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / "mnist" / f"{part}-labels-idx1-ubyte.gz", labels)
    for digit in range(10):
        for number in range(50):  # every recording has its own length, and a pitch of its digit
            time = np.arange(900 + 17 * number + digit) / 8000
            samples = np.sin(2 * np.pi * (300 + 350 * digit) * time) + 0.1 * random.standard_normal(len(time))
            write_wav(folder / "fsdd" / "recordings" / f"{digit}_anna_{number}.wav", samples / 2)
    for fold in range(1, 6):
        for kind in ("001 - Dog bark", "002 - Rain"):
            name = f"{fold}-{fold}000{kind[2]}-A.ogg"
            write_ogg(folder / "esc10" / kind / name, random.standard_normal(40000) / 4)
    return folder


@pytest.fixture
def raw(tiny, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(tiny))
    return tiny


@pytest.fixture(scope="module")
def noisy(tiny):
    """What `build` makes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSAM_DATA", str(tiny))
        return av_mnist.build()


@pytest.fixture(scope="module")
def clean(tiny):
    """The same without noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSAM_DATA", str(tiny))
        return av_mnist.build(noise="none")


@pytest.fixture
def copy(tiny, tmp_path, monkeypatch):
    """A copy of the raw files that a test may damage."""
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    monkeypatch.setenv("MSAM_DATA", str(folder))
    return folder


def labels_of(folder, part):
    return read_idx(folder / "mnist" / f"{part}-labels-idx1-ubyte.gz", 1).tolist()


def samples_of(folder, name):
    with wave.open(str(folder / "fsdd" / "recordings" / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def twin_spectrogram(samples, size):
    """A slow spectrogram: frame by frame, frequency by frequency."""
    loud = samples / np.sqrt((samples**2).mean())
    n = np.arange(222)
    window = np.sin(np.pi * n / 222) ** 2
    transform = np.exp(-2j * np.pi * np.outer(np.arange(112), n) / 222)
    power = np.zeros((112, 112))
    for frame in range(112):
        start = round(frame * (len(samples) - 222) / 111)
        power[:, frame] = abs(transform @ (window * loud[start : start + 222])) ** 2
    step = 112 // size
    blocks = [
        [power[r : r + step, c : c + step].mean() for c in range(0, 112, step)] for r in range(0, 112, step)
    ]
    return np.log(np.array(blocks) + 1e-2)


# Splits and pairs


def test_sizes_types_and_labels(raw, noisy):
    splits = noisy
    for split, count in SIZES.items():
        arrays = splits[split]
        assert arrays["image"].shape == arrays["audio"].shape == (count, 1, 28, 28)
        assert {arrays[name].dtype.name for name in ("image", "audio")} == {"float32"}
    together = [splits[split]["label"].tolist() for split in SPLITS]
    assert together[0] + together[1] == labels_of(raw, "train")
    assert together[2] == labels_of(raw, "t10k")


@pytest.mark.parametrize("clips", ["official", "script"])
def test_no_recording_noise_or_image_is_in_two_splits(raw, noisy, clips):
    splits = noisy if clips == "official" else av_mnist.build(clips=clips)
    for group in ("group_image", "group_clip", "group_noise"):
        values = [set(splits[split][group].tolist()) for split in SPLITS]
        assert sum(map(len, values)) == len(set.union(*values)), group
    test = {int(name.split("_")[2]) for name in splits["test"]["group_clip"]}
    assert test == set(range(5) if clips == "official" else range(40, 50))
    folds = {split: {name[0] for name in splits[split]["group_noise"].tolist()} for split in SPLITS}
    assert folds == {"train": {"1", "2", "3"}, "validation": {"4"}, "test": {"5"}}


def test_the_recording_says_the_label(noisy, clean):
    for arrays in [built[split] for built in (noisy, clean) for split in SPLITS]:
        spoken = [int(name[0]) for name in arrays["group_clip"].tolist()]
        assert spoken == arrays["label"].tolist()


def test_the_audio_is_the_spectrogram_of_the_named_recording(raw, clean):
    for split in SPLITS:
        names, audio = clean[split]["group_clip"].tolist(), clean[split]["audio"][:, 0]
        for row in range(0, len(names), 9):
            twin = twin_spectrogram(samples_of(raw, names[row]), 28)
            assert np.corrcoef(twin.ravel(), audio[row].ravel())[0, 1] > 0.99999
        first = [names.index(name) for name in names]
        assert np.array_equal(audio, audio[first])  # a clean recording always looks the same


def test_the_sounds_are_those_of_the_shown_examples(raw, clean, noisy):
    for built in (clean, noisy):
        train, sounds = built["train"], built["sounds"]
        assert [train["label"][row] for row in sounds] == [0, 1, 2, 3]
        for row, heard in sounds.items():
            name = train["group_clip"][row]
            assert np.array_equal(heard[0].samples, samples_of(raw, name))
            assert f"{name}.wav of the Free Spoken Digit Dataset" in heard[0].credit
            twin = twin_spectrogram(heard[-1].samples, 28)
            assert np.corrcoef(twin.ravel(), train["audio"][row, 0].ravel())[0, 1] > 0.99999
            assert len(heard) == 1 + (built is noisy)
    assert all(noisy["train"]["group_noise"][row] in s[1].credit for row, s in noisy["sounds"].items())


def test_clean_spectrograms_are_standardized_by_the_train_recordings(clean):
    train = clean["train"]
    used = np.unique(train["group_clip"], return_index=True)[1]
    assert train["audio"][used].mean() == pytest.approx(0, abs=1e-3)
    assert train["audio"][used].std() == pytest.approx(1, abs=1e-3)


def test_recordings_and_noises_are_used_in_turn(raw):
    labels = np.repeat(np.arange(10), 37)
    clips = [f"{digit}_anna_{number}" for digit in range(10) for number in range(4)]
    chosen = av_mnist._choose(labels, clips, 8, np.random.default_rng(0))
    assert [clips[number // 8][0] for number in chosen] == [str(label) for label in labels]
    assert np.bincount(chosen).max() == 2
    assert (np.bincount(chosen, minlength=320) > 0).all()
    noises = {"a": np.zeros(7), "b": np.zeros(5)}
    drawn = av_mnist._draw_noise(100, noises, np.random.default_rng(0))
    assert [name for name, _ in drawn].count("a") == 50
    assert {start for name, start in drawn if name == "b"} == set(range(5))


def test_noise_has_its_level_and_goes_on_from_the_start():
    random = np.random.default_rng(0)
    clip, noise = random.standard_normal(500), 9 * random.standard_normal(300)
    (mixed,) = av_mnist._mixed([clip], [("rain", 250)], {"rain": noise}, 2.5)
    piece = np.concatenate([noise[250:], noise, noise])[:500]
    added = mixed - clip
    assert np.sqrt((added**2).mean() / (clip**2).mean()) == pytest.approx(2.5)
    assert np.corrcoef(added, piece)[0, 1] == pytest.approx(1)


def test_more_noise_hides_the_recording(raw, clean, noisy):
    little = av_mnist.build(level=0.1)
    similar = []
    for made in (little, noisy):
        rows = [
            clean["test"]["group_clip"].tolist().index(n)
            for n in made["test"]["group_clip"]
            if n in clean["test"]["group_clip"]
        ]
        kept = [n in clean["test"]["group_clip"] for n in made["test"]["group_clip"]]
        pairs = clean["test"]["audio"][rows], made["test"]["audio"][kept]
        similar.append(np.corrcoef(*(x.ravel() for x in pairs))[0, 1])
    assert similar[0] > 0.8 > 0.5 > similar[1]


def test_a_block_of_the_large_spectrogram_is_a_point_of_the_small_one(raw):
    samples = samples_of(raw, "3_anna_7")
    large, small = (np.exp(_recordings.spectrogram(samples, size)) - 1e-2 for size in (112, 28))
    np.testing.assert_allclose(large.reshape(28, 4, 28, 4).mean(axis=(1, 3)), small, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        _recordings.spectrogram(samples, 112), twin_spectrogram(samples, 112), atol=1e-8
    )
    assert (large.mean(axis=1).argmax() * 8000 / 222) == pytest.approx(300 + 350 * 3, abs=20)


def test_large_spectrograms_are_kept_in_half_precision(raw):
    audio = av_mnist.build(size=112)["train"]["audio"]
    assert (audio.shape, audio.dtype.name) == ((220, 1, 112, 112), "float16")
    assert av_mnist.STORED(size=112) == {"audio": "float16"}
    assert _expected.EXPECTED["av_mnist"](train=None, size=112).shapes["audio"] == audio.shape[1:]
    assert av_mnist.STORED(size=28) == {}


# Images


def test_images_are_the_train_images_first_principal_components(raw, clean):
    raw_pixels = read_idx(raw / "mnist" / "train-images-idx3-ubyte.gz", 3).reshape(-1, 784).astype(float)
    train = raw_pixels[:220]
    right = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:4]
    kept = (raw_pixels - train.mean(0)) @ right.T @ right
    kept /= kept[:220].std()
    images = np.concatenate([clean[split]["image"] for split in ("train", "validation")])
    np.testing.assert_allclose(images.reshape(-1, 784), kept, atol=1e-4)


def test_other_test_images_change_the_test_split_only(copy, noisy):
    before = noisy
    path = copy / "mnist" / "t10k-images-idx3-ubyte.gz"
    write_idx(path, 255 - read_idx(path, 3) // 2)
    after = av_mnist.build()
    for split in SPLITS:
        assert np.array_equal(before[split]["image"], after[split]["image"]) == (split != "test")
        assert np.array_equal(before[split]["audio"], after[split]["audio"])


def test_some_train_images_at_random(raw, noisy):
    some, every = av_mnist.build(train=60), noisy
    assert len(some["train"]["label"]) == 60
    rows = some["train"]["group_image"]
    assert (np.diff(rows) > 0).all()
    assert rows.max() < 220
    assert np.array_equal(some["train"]["label"], every["train"]["label"][rows])
    assert np.array_equal(some["test"]["label"], every["test"]["label"])


def test_the_same_again_and_other_pairs_for_another_seed(raw, noisy):
    first, second, other = noisy, av_mnist.build(), av_mnist.build(seed=1)
    for split in SPLITS:
        for name, values in first[split].items():
            assert np.array_equal(values, second[split][name])
    assert not np.array_equal(first["train"]["group_clip"], other["train"]["group_clip"])
    assert np.array_equal(first["train"]["image"], other["train"]["image"])


def test_through_the_cache(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path))
    record = datasets.describe("av_mnist")
    assert (record["level"], record["stands_for"]) == ("compact", "AV-MNIST")
    assert record["shared_groups"] == {"clip": 0, "image": 0, "noise": 0}
    assert record["modalities"]["audio"] == {"kind": "spectrogram", "shape": [1, 28, 28]}
    assert len(datasets.load("av_mnist").splits["validation"]) == 20


# Faults


def fails(folder, path, message, **options):
    with pytest.raises(DatasetError, match=message) as error:
        av_mnist.build(**options)
    assert "\n" not in str(error.value)
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-40], "is damaged or no gzip file"),
        (lambda content: content[:9], "is damaged or no gzip file"),
        (lambda content: b"no gzip", "is damaged or no gzip file"),
        (lambda content: content[:60] + b"????" + content[64:], "is damaged or no gzip file"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "holds 188159 bytes for 240x28x28"),
        (lambda content: gzip.compress(b"\0\0\r\3" + gzip.decompress(content)[4:]), "is no idx file"),
        (lambda content: gzip.compress(b"\0\0\x08"), "is no idx file"),
    ],
)
def test_a_damaged_image_file_is_named(copy, damage, message):
    path = copy / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    fails(copy, str(path), message)


def test_images_and_labels_that_do_not_fit_are_refused(copy):
    path = copy / "mnist" / "train-labels-idx1-ubyte.gz"
    images = "train-images-idx3-ubyte.gz: 240x28x28 pixels do not fit"
    write_idx(path, np.zeros(230, np.uint8))
    fails(copy, "mnist", f"{images} 230 labels of 0 to 9")
    write_idx(path, np.full(240, 10, np.uint8))
    fails(copy, "mnist", f"{images} 240 labels of 0 to 9")
    path.unlink()
    fails(copy, "mnist/train-labels-idx1-ubyte.gz", "dataset 'av_mnist' needs .*msam data get av_mnist")


def test_a_recording_that_cannot_be_used_is_named(copy):
    path = copy / "fsdd" / "recordings" / "4_anna_20.wav"
    whole, tone = path.read_bytes(), np.sin(np.arange(2000))
    write_wav(path, np.stack([tone, tone], axis=1), channels=2)
    fails(copy, str(path), r"has 8000 Hz, 2 channel\(s\), 16 bit; need 8000 Hz, 1 channel\(s\), 16 bit")
    write_wav(path, tone, rate=16000)
    fails(copy, str(path), r"has 16000 Hz, 1 channel\(s\)")
    write_wav(path, tone, width=4)
    fails(copy, str(path), "32 bit")
    write_wav(path, tone[:221])
    fails(copy, str(path), "has 221 samples; need at least 222")
    write_wav(path, 0 * tone)
    fails(copy, str(path), "is silent")
    for count, message in ((len(whole) - 100, "is cut off: "), (30, "cannot be read"), (0, "cannot be read")):
        path.write_bytes(whole[:count])
        fails(copy, str(path), message)
    path.write_bytes(b"RIFX" + whole[4:])
    fails(copy, str(path), "cannot be read")


def test_missing_recordings_are_listed(copy):
    folder = copy / "fsdd" / "recordings"
    for number in range(7):
        (folder / f"9_anna_{number}.wav").unlink()
    fails(copy, str(folder), r"lacks 9_anna_0\.wav, .*9_anna_4\.wav and 2 more$")
    shutil.rmtree(folder)
    fails(copy, "fsdd/recordings", "needs fsdd/recordings in")
    folder.mkdir()
    fails(copy, str(folder), r"has no recordings named digit_speaker_number\.wav")


def test_a_noise_that_cannot_be_used_is_named(copy):
    path = copy / "esc10" / "002 - Rain" / "4-40002-A.ogg"
    whole, hiss = path.read_bytes(), np.random.default_rng(0).standard_normal((40000, 2)) / 4
    write_ogg(path, hiss)
    fails(copy, str(path), r"has 44100 Hz, 2 channel\(s\); need 44100 Hz, 1 channel\(s\)")
    write_ogg(path, hiss[:, 0], rate=22050)
    fails(copy, str(path), "has 22050 Hz")
    write_ogg(path, 0 * hiss[:, 0])
    fails(copy, str(path), "is silent")
    for content, message in ((whole[:-500], "is cut off"), (whole[:20], "cannot be read|is cut off")):
        path.write_bytes(content)
        fails(copy, str(path), message)
    path.write_bytes(b"no ogg")
    fails(copy, str(path), "cannot be read")
    path.unlink()
    (copy / "esc10" / "001 - Dog bark" / "4-40001-A.ogg").unlink()
    fails(copy, str(copy / "esc10"), r"has no recordings \*/fold-source-take\.ogg of fold \(4,\)")
    shutil.rmtree(copy / "esc10")
    fails(copy, "esc10", "needs esc10 in")
    assert len(av_mnist.build(noise="none")["train"]["label"]) == 220


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "web"}, "source is 'web'; choose from files, avmnist"),
        ({"noise": "white"}, "noise is 'white'; choose from none, esc10"),
        ({"size": 64}, "size is 64; choose from 28, 56, 112"),
        ({"clips": "mine"}, "clips is 'mine'; choose from official, script"),
        ({"components": 0}, "components is 0; must be 1 to 784"),
        ({"level": -1.0}, r"level is -1\.0; must be at least 0"),
        ({"train": 9}, "train is 9; must be null or a whole number from 10"),
        ({"train": 20.0}, r"train is 20\.0; must be null or a whole number"),
        ({"train": 221}, "train is 221; there are 220 train images"),
    ],
)
def test_options_out_of_range_are_refused(raw, options, message):
    with pytest.raises(DatasetError, match=f"dataset 'av_mnist': {message}"):
        av_mnist.build(**options)


# The published folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    folder = tmp_path / "avmnist"
    monkeypatch.setenv("MSAM_DATA", str(tmp_path))
    for part in ("image", "audio"):
        (folder / part).mkdir(parents=True)
    for part, count in (("train", 120), ("test", 30)):
        labels = np.arange(count) % 10
        np.save(folder / "image" / f"{part}_data.npy", labels[:, None] + random.standard_normal((count, 784)))
        audio = random.integers(0, 256, (count, 112, 112)).astype(np.uint8)
        audio[:, :4, :4] = 20 * labels[:, None, None]
        np.save(folder / "audio" / f"{part}_data.npy", audio)
        np.save(folder / f"{part}_labels.npy", labels.astype(np.uint8))
    return folder


def test_the_published_folder_is_read_as_it_is(published):
    splits = av_mnist.build(source="avmnist")
    assert [len(splits[split]["label"]) for split in SPLITS] == [110, 10, 30]
    pixels = np.load(published / "image" / "train_data.npy")
    sounds = np.load(published / "audio" / "train_data.npy").astype(float)
    small = sounds.reshape(120, 28, 4, 28, 4).mean(axis=(2, 4))
    audio = (small - small[:110].mean()) / small[:110].std()
    for split, rows in (("train", slice(110)), ("validation", slice(110, 120))):
        image = pixels[rows].reshape(-1, 1, 28, 28) / pixels[:110].std()
        np.testing.assert_allclose(splits[split]["image"], image, atol=1e-4)
        np.testing.assert_allclose(splits[split]["audio"][:, 0], audio[rows], atol=1e-4)
        assert splits[split]["label"].tolist() == [i % 10 for i in range(120)][rows]
    corner = splits["test"]["audio"][:, 0, 0, 0]
    assert np.corrcoef(corner, splits["test"]["label"])[0, 1] == pytest.approx(1)
    assert [splits[split]["group_image"][0] for split in SPLITS] == [0, 110, 120]


def test_the_published_folder_in_full_size(published):
    train = av_mnist.build(source="avmnist", size=112, train=50)["train"]
    assert (train["audio"].shape, train["audio"].dtype.name) == ((50, 1, 112, 112), "float16")
    kept = np.load(published / "audio" / "train_data.npy")[train["group_image"]].astype(float)
    np.testing.assert_allclose(train["audio"][:, 0], (kept - kept.mean()) / kept.std(), atol=2e-3)


def test_faults_of_the_published_folder_are_named(published):
    path = published / "audio" / "test_data.npy"
    np.save(path, np.zeros((29, 112, 112)))
    fails(published, str(path), "has 29 rows for 30 labels", source="avmnist")
    np.save(path, np.zeros((30, 100, 112)))
    fails(published, str(path), r"has rows of shape \(100, 112\); need \(112, 112\)", source="avmnist")
    np.save(path, np.array([{}] * 30))
    fails(published, str(path), "cannot be read", source="avmnist")
    path.write_bytes(b"")
    fails(published, str(path), "cannot be read", source="avmnist")
    path.unlink()
    fails(published, str(path), r"source avmnist needs .*avmnist\.tar\.gz", source="avmnist")


def test_a_recipe_asks_for_the_files_that_it_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(tmp_path))
    asked = {file.path for file in av_mnist.FILES("avmnist", "esc10")}
    read = set()
    monkeypatch.setattr(_avmnist, "_array", lambda path, _: read.add(str(path.relative_to(tmp_path))) or [])
    for part in ("train", "test"):
        _avmnist._read(part)
    assert asked == read
    with_noise, without = (av_mnist.FILES("files", noise) for noise in ("esc10", "none"))
    assert [file.path for file in with_noise if file not in without] == ["esc10"]


# The real files


def test_the_raw_files_are_declared_with_addresses():
    files = av_mnist.FILES("files", "esc10")
    assert [file.path for file in files[4:]] == ["fsdd", "esc10"]
    for file in files:
        assert all(url.startswith("https://") for url in file.urls)
        assert len(file.urls) == 2 or file.archive == "zip"


@needs_real_files
def test_real_files_have_their_sizes_checksums_and_label_counts(monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(REAL))
    files = av_mnist.FILES("files", "esc10")
    for file in files[:4]:
        content = gzip.decompress((REAL / file.path).read_bytes())
        assert file.checksum == "md5:" + hashlib.md5(content).hexdigest()
    for file in files[4:]:
        ((pattern, count),) = file.members
        assert len(list((REAL / file.path).glob(pattern))) == count
    splits = av_mnist.build(train=2000)
    assert [len(splits[split]["label"]) for split in SPLITS] == [2000, 5000, 10000]
    counts = np.bincount(labels_of(REAL, "train")).tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(splits["test"]["label"]).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert [len(set(splits[split]["group_clip"])) for split in SPLITS[1:]] == [300, 300]
    assert [len(set(splits[split]["group_noise"])) for split in SPLITS] == [240, 80, 80]
    for arrays in (splits[split] for split in SPLITS):
        assert [int(name[0]) for name in arrays["group_clip"].tolist()] == arrays["label"].tolist()
