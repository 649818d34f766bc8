"""CREMA-D on small clips of the official layout: recipe, protocols, damage, and a training."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from conftest import same_shapes
from test_training import CONFIG as TRAINING

from msam import datasets
from msam.datasets import DatasetError, _audio, _clips, _video, crema_d
from msam.training import train_seed

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")

CONFIG = TRAINING | {"epochs": 2, "batch_size": 8}
SMALL = {"side": 16, "validation": 0.25}
LEVELS = (30, 60, 90, 120, 150, 180, 210)
"""Gray of the seven frames of every video: which frame is it?"""


def write_video(path, levels=LEVELS, size=(48, 32), codec="flv", rate=30, sound=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        track = container.add_stream("aac", rate=16_000, layout="mono") if sound is not None else None
        for level in levels:
            image = np.full((size[1], size[0], 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        if track:
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(track.encode(frame))
            container.mux(track.encode(None))


def write_sound(path, pitch, rate=16_000, seconds=1.6, channels=1):
    wave = 0.4 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([wave] * channels, 1), rate, subtype="PCM_16")


def clip_names():
    """Six emotions of five actors: 30 names."""
    return [f"{1001 + actor}_IEO_{code}_XX" for actor in range(5) for code in crema_d.CODES]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data folder in the official layout: 30 clips, lists of 20 and 10."""
    folder = tmp_path_factory.mktemp("crema")
    for place in (crema_d.AUDIO, crema_d.VIDEO):
        (folder / place).mkdir(parents=True)
    names = clip_names()
    for number, name in enumerate(names):
        write_sound(folder / crema_d.AUDIO / f"{name}.wav", 400 + 300 * (number % 6))
        write_video(folder / crema_d.VIDEO / f"{name}.flv")
    lines = [f"{name},{name[9:12]}\n" for name in np.random.default_rng(0).permutation(names)]
    (folder / crema_d.LISTS["train"]).write_text("".join(lines[:20]), encoding="utf-8-sig")
    (folder / crema_d.LISTS["test"]).write_text("".join(lines[20:]))
    return folder


@pytest.fixture
def data(original, tmp_path, monkeypatch):
    """A copy whose files are links, so that a test may change it; the cache is new."""
    folder = tmp_path / "data"
    for path in original.rglob("*.*"):
        place = folder / path.relative_to(original)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    monkeypatch.setenv("MSAM_DATA", str(folder))
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    return folder


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def report(options):
    return datasets.describe("crema_d", options)["report"]


def test_from_raw_clips_to_a_trained_model(data):
    dataset = datasets.load("crema_d", SMALL)
    sizes = {split: len(part) for split, part in dataset.splits.items()}
    assert sizes == {"train": 15, "validation": 5, "test": 10}
    train = dataset.splits["train"]
    assert train.inputs["audio"].shape == (15, 1, 257, 299)
    assert train.inputs["visual"].shape == (15, 3, 16, 16)
    assert train.inputs["visual"].dtype == torch.uint8
    assert same_shapes("crema_d", SMALL, dataset)
    assert dataset.classes[train.labels[0]] in ("neutral", "happy", "sad", "fear", "disgust", "anger")
    for fusion in ("late", "early"):
        result = train_seed(CONFIG | {"fusion": fusion}, dataset, 0)
        assert result["state"] == "done"
        assert np.isfinite(result["final"]["last"]["test"]["loss"])
    found = report(SMALL)
    assert found["clips"] == sizes
    assert found["left_out"] == {}
    assert found["resampled"] == 0
    assert datasets.describe("crema_d", SMALL)["level"] == "paper"
    assert not list(data.parent.glob("cache/*.work"))


def test_labels_are_those_of_the_lists_and_of_the_sounds(data):
    """The pitch tells the class: the loudest frequency of a clip must be the one of its label."""
    train = datasets.load("crema_d", SMALL).splits["train"]
    loudest = train.inputs["audio"][:, 0].mean(2).argmax(1)
    expected = torch.tensor([round((400 + 300 * k) * 512 / 16_000) for k in range(6)])
    assert (loudest - expected[train.labels]).abs().max() <= 1


@pytest.mark.parametrize(("frames", "expected"), [(1, [120]), (3, [60, 120, 180])])
def test_frames_are_the_middles_of_equal_parts(original, frames, expected):
    name = clip_names()[0]
    images, changed = _video.middle_frames(original / crema_d.VIDEO / f"{name}.flv", frames, 24)
    assert images.shape == (frames, 3, 24, 24)
    assert images.dtype == np.uint8
    np.testing.assert_allclose(images.mean((1, 2, 3)), expected, atol=6)
    assert changed == []


def test_colors_and_places_survive_the_video(tmp_path):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = (220, 30, 30)
    image[16:, 24:] = (30, 30, 220)
    with av.open(str(tmp_path / "x.flv"), "w") as container:
        stream = container.add_stream("flv", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 4_000_000
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    frame = _video.middle_frames(tmp_path / "x.flv", 1, 32)[0][0].astype(int)
    np.testing.assert_allclose(frame[:, 8, 8], (220, 30, 30), atol=25)
    np.testing.assert_allclose(frame[:, 24, 24], (30, 30, 220), atol=25)
    np.testing.assert_allclose(frame[:, 8, 24], 0, atol=25)


def test_several_frames_make_one_more_axis(data):
    dataset = datasets.load("crema_d", SMALL | {"frames": 2})
    assert dataset.splits["train"].inputs["visual"].shape == (15, 2, 3, 16, 16)
    assert same_shapes("crema_d", SMALL | {"frames": 2}, dataset)
    assert train_seed(CONFIG | {"fusion": "late", "epochs": 1}, dataset, 0)["state"] == "done"


# Sound


def test_the_papers_spectrogram_by_hand():
    """SciPy's default (Tukey window, a frame without its mean, power density); standardized logarithm."""
    random = np.random.default_rng(0)
    wave = random.standard_normal(48_000) / 4
    edge = np.arange(64)  # a quarter of the window is tapered; SciPy's is periodic: 513 points less one
    taper = 0.5 * (1 + np.cos(np.pi * (2 * edge / (0.25 * 512) - 1)))
    window = np.ones(513)
    window[:64], window[-64:] = taper, taper[::-1]
    window = window[:512]
    frames = np.stack([wave[k * 159 : k * 159 + 512] for k in range(299)])
    power = np.abs(np.fft.rfft((frames - frames.mean(1, keepdims=True)) * window)) ** 2
    power /= 16_000 * (window**2).sum()
    power[:, 1:-1] *= 2
    log = np.log(power.T + 1e-7)
    expected = (log - log.mean()) / log.std()
    np.testing.assert_allclose(_audio.spectrogram(wave, "paper"), expected, atol=2e-4)


def test_agms_spectrogram_is_the_centered_transform():
    wave = np.random.default_rng(0).standard_normal(66_150) / 4
    transform = torch.stft(
        torch.from_numpy(wave),
        512,
        353,
        window=torch.hann_window(512, dtype=torch.float64),
        pad_mode="constant",
        return_complex=True,
    )
    expected = torch.log(transform.abs() + 1e-7).numpy()
    assert expected.shape == (257, 188)
    np.testing.assert_allclose(_audio.spectrogram(wave, "agm"), expected, atol=1e-4)


def test_agms_spectrogram_as_an_option(data):
    dataset = datasets.load("crema_d", SMALL | {"spectrogram": "agm"})
    assert dataset.splits["test"].inputs["audio"].shape == (10, 1, 257, 188)
    assert same_shapes("crema_d", SMALL | {"spectrogram": "agm"}, dataset)


def test_short_sounds_are_repeated_and_long_ones_cut():
    sound = np.array([0.1, 0.2, 3.0])
    np.testing.assert_array_equal(_audio.fitted(sound, 7), [0.1, 0.2, 1, 0.1, 0.2, 1, 0.1])
    np.testing.assert_array_equal(_audio.fitted(sound, 2), [0.1, 0.2])


def test_stereo_and_other_rates_are_converted_and_counted(data):
    names = [line.split(",")[0] for line in (data / crema_d.LISTS["test"]).read_text().split()]
    stereo, fast = (data / crema_d.AUDIO / f"{name}.wav" for name in names[:2])
    for path, rate, channels in ((stereo, 16_000, 2), (fast, 44_100, 1)):
        path.unlink()
        write_sound(path, 2000, rate, channels=channels)
    found = report(SMALL)
    assert found["several_channels_mixed"] == [names[0]]
    assert found["resampled"] == 1
    audio = datasets.load("crema_d", SMALL).splits["test"].inputs["audio"][:2, 0].mean(2).argmax(1)
    assert audio.tolist() == [64, 64]  # 2000 Hz


# Damage


def damage(data):
    """Six test clips, each unusable in its own way; their names and a word of the reason."""
    names = [line.split(",")[0] for line in (data / crema_d.LISTS["test"]).read_text().split()][:6]
    wav = [data / crema_d.AUDIO / f"{name}.wav" for name in names]
    flv = [data / crema_d.VIDEO / f"{name}.flv" for name in names]
    wav[0].unlink()
    replace(wav[1], b"no sound at all")
    replace(flv[2], b"no video at all" * 50)
    replace(flv[3], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    wav[4].unlink()
    soundfile.write(wav[4], np.zeros((0, 1)), 16_000)
    flv[5].unlink()
    reasons = [
        "no 1",
        "is not readable sound",
        "is not a readable video",
        "Git LFS",
        "has no samples",
        "no 1",
    ]
    return dict(zip(names, reasons, strict=True))


def test_unusable_clips_are_named_and_left_out(data):
    reasons = damage(data)
    left_out = report(SMALL)["left_out"]
    assert list(left_out) == list(reasons)
    assert all(reasons[name] in left_out[name] for name in reasons)
    dataset = datasets.load("crema_d", SMALL)
    assert len(dataset.splits["test"]) == 4
    assert len(dataset.splits["train"]) == 15
    loudest = dataset.splits["test"].inputs["audio"][:, 0].mean(2).argmax(1)
    expected = torch.tensor([round((400 + 300 * k) * 512 / 16_000) for k in range(6)])
    assert (loudest - expected[dataset.splits["test"].labels]).abs().max() <= 1  # rows still fit


def test_too_many_unusable_clips_are_refused(data):
    name = next(iter(damage(data)))
    with pytest.raises(
        DatasetError, match=rf"6 clips cannot be used, more than .* 5 \({name}: no .*; and 1 m"
    ):
        datasets.load("crema_d", SMALL | {"tolerate": 5})


def test_a_video_that_ends_in_the_middle_still_gives_a_frame(data):
    name = (data / crema_d.LISTS["test"]).read_text().split(",")[0]
    path = data / crema_d.VIDEO / f"{name}.flv"
    replace(path, path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert report(SMALL)["left_out"] == {}


def read_or_stop(name, stop, **arguments):
    if name == stop:
        raise KeyboardInterrupt
    return crema_d.read_clip(name, **arguments)


def gather(data, folder, names, read=crema_d.read_clip):
    arguments = {"sound": data / crema_d.AUDIO, "films": data / crema_d.VIDEO}
    folder.mkdir(exist_ok=True)
    return _clips.gather(
        folder,
        "crema_d",
        names,
        partial(read, **arguments, spectrogram="paper", frames=1, side=16),
        {"audio": ((1, 257, 299), "float32"), "visual": ((3, 16, 16), "uint8")},
    )


def test_a_stopped_run_goes_on(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_clips, "EVERY", 5)
    names = clip_names()[:20]
    with pytest.raises(KeyboardInterrupt):
        gather(data, tmp_path / "work", names, partial(read_or_stop, stop=names[12]))
    assert "10 of 20 clips read, 0 unusable" in capsys.readouterr().err
    for name in names[:10]:  # which are not needed again
        (data / crema_d.AUDIO / f"{name}.wav").unlink()
    resumed = gather(data, tmp_path / "work", names)
    assert resumed.problems == {}
    sounds = np.array(resumed.arrays["audio"])
    other = gather(data, tmp_path / "work", names[::-1])  # another list: nothing is taken over
    assert list(other.problems) == names[:10][::-1]
    np.testing.assert_array_equal(sounds[10:], other.arrays["audio"][:10][::-1])


def test_several_processes_read_the_same_as_one(data, tmp_path, monkeypatch):
    alone = gather(data, tmp_path / "one", clip_names()[:12])
    monkeypatch.setattr(_clips, "FEW", 0)
    several = gather(data, tmp_path / "several", clip_names()[:12])
    for name in ("audio", "visual"):
        np.testing.assert_array_equal(alone.arrays[name], several.arrays[name])
    assert alone.arrays["audio"].any((1, 2, 3)).all()


def die(name, **_):
    os._exit(1)


def test_a_process_that_dies_is_reported(data, tmp_path, monkeypatch):
    monkeypatch.setattr(_clips, "FEW", 0)
    with pytest.raises(DatasetError, match="'crema_d': a process that reads clips died"):
        gather(data, tmp_path / "work", clip_names()[:4], die)


# Protocols and lists


def test_agms_ninety_percent_have_the_published_sizes():
    lists = {"train": [(str(k), 0) for k in range(6698)], "test": [(str(k), 1) for k in range(744)]}
    parts = crema_d._first_nine_tenths(lists)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 6028,
        "validation": 745,
        "test": 669,
    }
    assert parts["train"] == lists["train"][:6028]
    assert parts["test"] == lists["test"][:669]


def test_protocol_agm(data):
    sizes = {"train": 18, "validation": 3, "test": 9}
    assert report(SMALL | {"protocol": "agm"})["clips"] == sizes


def test_protocol_actor_needs_no_lists_and_shares_no_actor(data):
    for path in crema_d.LISTS.values():
        (data / path).unlink()
    (data / crema_d.AUDIO / f"{clip_names()[3]}.wav").unlink()
    record = datasets.describe("crema_d", SMALL | {"protocol": "actor"})
    assert record["shared_groups"] == {"actor": 0, "clip": 0}
    assert [record["splits"][s]["groups"]["actor"] for s in ("train", "validation", "test")] == [3, 1, 1]
    assert list(record["report"]["left_out"]) == [clip_names()[3]]
    assert record["report"]["actors_in_train_and_test"] == 0
    other = datasets.describe("crema_d", SMALL | {"protocol": "actor", "seed": 1})
    assert other["checksum"] != record["checksum"]


def test_the_validation_part_is_drawn_by_the_seed_and_the_test_list_stays(data):
    checksums = set()
    for seed in (0, 1):
        dataset = datasets.load("crema_d", SMALL | {"seed": seed})
        assert len(dataset.splits["validation"]) == 5
        checksums.add(int(dataset.splits["validation"].inputs["audio"].sum() * 1e3))
        assert len(dataset.splits["test"]) == 10
    assert len(checksums) == 2


def test_repeated_names_and_labels_unlike_the_name_are_reported(data):
    path = data / crema_d.LISTS["train"]
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    name, code = lines[0].split(",")
    other = "SAD" if code != "SAD" else "ANG"
    replace(path, "\r\n".join([f"{name},{other}", *lines[1:], lines[5]]).encode())
    found = report(SMALL)
    assert found["repeated_in_a_list"] == [lines[5].split(",")[0]]
    assert found["label_differs_from_name"] == [name]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b"1001_IEO_SAD_XX,SUR",
            r"train.csv, line 21: class 'SUR'; choose from NEU, HAP, SAD, FEA, DIS, ANG",
        ),
        (b"1001_IEO_SAD_XX", r"train.csv, line 21: need a clip and its class, not '1001_IEO_SAD_XX'"),
        (b"../../secret,SAD", r"line 21: need a clip and its class"),
        (b"\xff\xfe\x00", r"train.csv is not a list of clips in UTF-8"),
    ],
)
def test_faults_of_a_list(data, line, message):
    path = data / crema_d.LISTS["train"]
    replace(path, path.read_bytes() + line + b"\n")
    with pytest.raises(DatasetError, match=message):
        datasets.load("crema_d", SMALL)


def test_a_clip_in_both_lists_is_refused(data):
    path = data / crema_d.LISTS["test"]
    first = (data / crema_d.LISTS["train"]).read_text(encoding="utf-8-sig").splitlines()[0]
    replace(path, path.read_bytes() + first.encode())
    with pytest.raises(DatasetError, match="1 clips are in both lists, as 10"):
        datasets.load("crema_d", SMALL)


def test_missing_files_and_names_of_no_clip(data):
    (data / crema_d.LISTS["test"]).unlink()
    with pytest.raises(DatasetError, match=r"needs crema_d/test.csv in .* run `msam data get crema_d`"):
        datasets.load("crema_d", SMALL)
    (data / crema_d.AUDIO / "notes.wav").write_bytes(b"")
    with pytest.raises(DatasetError, match="notes is no clip of an actor and one of NEU, HAP"):
        datasets.load("crema_d", SMALL | {"protocol": "actor"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "mine"}, "protocol is 'mine'; choose from lists, agm, actor"),
        ({"spectrogram": "mel"}, "spectrogram is 'mel'; choose from paper, agm"),
        ({"frames": 0}, "frames is 0; must be 1 to 16"),
        ({"side": 4}, "side is 4"),
        ({"validation": 1.0}, r"validation is 1\.0"),
        ({"tolerate": -1}, "tolerate is -1"),
    ],
)
def test_options_out_of_range(data, options, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load("crema_d", options)
