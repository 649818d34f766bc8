"""AVE on small files of the official layout: features, sequences, clips, duplicates, damage, trainings."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import same_shapes
from test_crema_d import CONFIG, write_video

from msam import cells, datasets, records, studies
from msam.datasets import DatasetError, _video, ave
from msam.training import train_seed

av = pytest.importorskip("av")
h5py = pytest.importorskip("h5py")
pytest.importorskip("soundfile")

SIZES = {"train": 20, "validation": 8, "test": 8}
COUNT = sum(SIZES.values())
CLIPS = {"kind": "clips", "side": 16, "frames": 2}
SEGMENTS, KINDS = {"kind": "segments"}, ("audio", "visual")


def write_h5(path, key, value):
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = value


def lines():
    """Annotations of 36 videos of 4 classes; row 30 is the video of row 1, row 9 that of row 8."""
    rows = []
    for k in range(COUNT):
        video = {30: "video01", 9: "video08"}.get(k, f"video{k:02d}")
        start, end = (0, 10) if k % 3 else (2, 7)
        rows.append(f"{ave.EVENTS[k % 4]}&{video}&good&{start}&{end}")
    return rows


def truth(rows):
    """One-hot labels of the segments, (N, 10, 29)."""
    labels = np.zeros((len(rows), 10, 29))
    for k, row in enumerate(rows):
        name, _, _, start, end = row.split("&")
        inside = (np.arange(10) >= int(start)) & (np.arange(10) < int(end))
        labels[k, np.arange(10), np.where(inside, ave.EVENTS.index(name), 28)] = 1
    return labels


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with the features of 36 videos; rows 0-19 train, 20-27 validation, 28-35 test."""
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "ave"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    write_h5(folder / "audio_feature.h5", "avadataset", random.standard_normal((COUNT, 10, 6)))
    write_h5(folder / "visual_feature.h5", "avadataset", random.standard_normal((COUNT, 10, 7, 7, 5)))
    write_h5(folder / "labels.h5", "avadataset", truth(lines()))
    (folder / "Annotations.txt").write_text(
        "Category&VideoID&Quality&StartTime&EndTime\n" + "\n".join(lines())
    )
    rows = np.split(np.arange(COUNT), np.cumsum(list(SIZES.values()))[:-1])
    for name, part in zip(("train", "val", "test"), rows, strict=True):
        write_h5(folder / f"{name}_order.h5", "order", part[::-1])
    return folder


def read(path):
    with h5py.File(path) as file:
        return file["avadataset"][:]


def half(array):
    return array.astype(np.float16)


def test_segments_from_features_to_a_trained_model(data):
    dataset = datasets.load("ave", {"duplicates": "keep"})
    assert len(dataset.classes) == 29
    train = dataset.splits["train"]
    assert {s: len(part) for s, part in dataset.splits.items()} == {s: 10 * n for s, n in SIZES.items()}
    audio, visual = read(data / "audio_feature.h5"), read(data / "visual_feature.h5")
    row = 13  # of train, counted from its end
    start = (19 - row) * 10
    torch.testing.assert_close(
        train.inputs["audio"][start : start + 10], torch.tensor(audio[row], dtype=torch.float32)
    )
    places = visual[row].reshape(10, 49, 5).sum(1) / 49
    torch.testing.assert_close(
        train.inputs["visual"][start : start + 10], torch.tensor(places, dtype=torch.float32)
    )
    assert train.labels[start : start + 10].tolist() == [13 % 4] * 10
    assert train.labels[10:20].tolist() == [28, 28, 2, 2, 2, 2, 2, 28, 28, 28]  # row 18, from 2 to 7 s
    result = train_seed(CONFIG | {"fusion": "early"}, dataset, 0)
    assert result["state"] == "done"
    assert np.isfinite(result["final"]["last"]["test"]["loss"])


def test_videos_with_a_class_for_every_segment_keep_their_places(data, monkeypatch):
    for large in (False, True):
        monkeypatch.setattr("msam.datasets._cache.SMALL", 1 if large else 2**30)
        dataset = datasets.load("ave", SEGMENTS | {"duplicates": "keep"})
        assert len(dataset.classes) == 29
        for split, rows in {"train": range(20), "validation": range(20, 28), "test": range(28, 36)}.items():
            part, order = dataset.splits[split], list(rows)[::-1]
            audio, visual = (read(data / f"{m}_feature.h5")[sorted(order)][::-1] for m in KINDS)
            torch.testing.assert_close(part.inputs["audio"], torch.tensor(audio.copy()).float())
            assert torch.equal(part.inputs["visual"], torch.tensor(half(visual)).flatten(2, 3))
            assert torch.equal(part.labels, torch.tensor(truth([lines()[k] for k in order])).argmax(2))


def test_the_places_are_read_in_blocks_in_any_order_of_the_rows(data, monkeypatch):
    rows = np.random.default_rng(1).permutation(COUNT)
    for name, part in zip(("train", "val", "test"), np.split(rows, [20, 28]), strict=True):
        write_h5(data / f"{name}_order.h5", "order", part)
    real = ave._blocks

    def few(*arguments):
        for block in real(*arguments):
            yield from np.split(block, range(7, len(block), 7))

    monkeypatch.setattr(ave, "_blocks", few)
    train = datasets.load("ave", SEGMENTS | {"duplicates": "keep"}).splits["train"]
    visual = read(data / "visual_feature.h5").reshape(COUNT, 10, 49, 5)[rows[:20]]
    assert torch.equal(train.inputs["visual"], torch.tensor(half(visual)))


def test_the_description_counts_segments(data):
    found = datasets.describe("ave", SEGMENTS)
    assert found["modalities"]["visual"] == {"kind": "segment_maps", "shape": [10, 49, 5]}
    test = found["splits"]["test"]
    assert (test["size"], sum(test["class_counts"])) == (8, 80)
    assert test["class_counts"][28] == 10  # rows 30 and 33 have an event of 5 s
    assert [sample["label"].partition(", b")[0] for sample in found["samples"]] == list(ave.EVENTS[:4])
    assert found["samples"][2]["label"] in ("Bark", "Bark, background")
    features = datasets.describe("ave")
    for split, part in found["splits"].items():
        assert part["class_counts"] == features["splits"][split]["class_counts"]


def test_a_value_too_large_for_half_precision_is_refused(data):
    visual = read(data / "visual_feature.h5")
    visual[3, 2, 1, 1, 0] = 1e5
    write_h5(data / "visual_feature.h5", "avadataset", visual)
    with pytest.raises(DatasetError, match="visual has values that are not finite"):
        datasets.load("ave", SEGMENTS)


STUDY = """
seeds: 1
defaults:
  {epochs: 2, batch_size: 8, width: 8, size: paper, rho: 0.05, threads: 1, optimizer:
    {lr: 0.01, momentum: 0.9, weight_decay: 1.0e-4, milestones: [0.7], gamma: 0.1}}
studies:
  main:
    datasets: {ave: {modalities: [audio, visual], options: {kind: segments}}}
    fusions: [psp]
    methods:
      unimodal: {each: modality, modality: "{modality}", rho: false}
      joint: {rho: false}
      sam: {}
      msam: {}
      msam+response: {reading: response}
      msam+encoder: {reading: encoder}
      mixture: {share: msam}
      uniform: {rho: false}
"""


def test_from_the_feature_files_to_records_of_psp(data, tmp_path):
    (tmp_path / "segments.yaml").write_text(STUDY)
    datasets.prepare("ave", SEGMENTS)
    found = {}
    for cell in studies.cells(studies.load(str(tmp_path / "segments.yaml"))):
        cells.run(cell, [0], results=tmp_path, device="cpu")
        record = found[cell.name] = records.read(cell.path(tmp_path))
        if record["state"] == "done":
            (seed,) = record["seeds"]
            assert (seed["state"], len(seed["epochs"]), seed["steps"]) == ("done", 2, 4)
            for accuracy in seed["final"]["last"]["test"]["accuracy"].values():
                assert round(80 * accuracy, 4) % 1 == 0, "8 videos of 10 segments"
    undefined = {name: record["reason"] for name, record in found.items() if record["state"] == "undefined"}
    assert set(undefined) == {"unimodal+audio", "unimodal+visual", "uniform"}
    assert all("guides" in reason for reason in undefined.values())
    assert not list(tmp_path.rglob("*.failed.json"))


def test_sequences_are_videos_with_28_classes(data):
    dataset = datasets.load("ave", {"kind": "sequences", "duplicates": "keep"})
    assert dataset.classes == ave.EVENTS
    train = dataset.splits["train"]
    assert train.inputs["audio"].shape == (20, 10, 6)
    assert train.inputs["visual"].shape == (20, 10, 5)
    assert train.labels.tolist() == [row % 4 for row in range(20)][::-1]
    assert train_seed(CONFIG | {"fusion": "late"}, dataset, 0)["state"] == "done"


def test_duplicates_are_removed_where_they_harm_and_counted(data):
    found = datasets.describe("ave")
    assert found["shared_groups"] == {"video": 0}
    report = found["report"]
    assert report["listed"] == SIZES
    assert report["kept"] == {"train": 18, "validation": 8, "test": 8}
    assert report["repeated_in_a_split"] == {"train": 1, "validation": 0, "test": 0}
    assert report["in_two_splits"] == {
        "train and validation": [],
        "train and test": ["video01"],
        "validation and test": [],
    }
    assert report["duplicates"] == "removed"
    kept = datasets.describe("ave", {"duplicates": "keep"})
    assert kept["report"]["kept"] == SIZES
    assert kept["report"]["in_two_splits"] == report["in_two_splits"]
    assert found["splits"]["train"]["size"] == 180


def test_the_annotations_are_checked_against_the_labels(data):
    labels = truth(lines())
    labels[5, :, :] = np.eye(29)[27]
    write_h5(data / "labels.h5", "avadataset", labels)
    assert datasets.describe("ave")["report"]["labels_unlike_annotations"] == 1
    write_h5(data / "labels.h5", "avadataset", truth(lines())[::-1])
    with pytest.raises(DatasetError, match=r"labels.h5 and .*Annotations.txt do not fit: \d+ of 36 videos"):
        datasets.load("ave", {"duplicates": "keep"})


def test_agms_name_of_the_label_file_is_known(data):
    (data / "labels.h5").rename(data / "right_labels.h5")
    assert datasets.describe("ave")["splits"]["test"]["size"] == 80


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("audio_feature.h5", "other", np.zeros(3), "no array of numbers under the key 'avadataset'"),
        (
            "audio_feature.h5",
            "avadataset",
            np.zeros((35, 10, 6)),
            r"is \(35, 10, 6\); must be \(36, 10, any\)",
        ),
        ("visual_feature.h5", "avadataset", np.zeros((36, 10, 5)), r"must be \(36, 10, any, any, any\)"),
        ("labels.h5", "avadataset", np.zeros((36, 10, 28)), r"must be \(36, 10, 29\)"),
        ("labels.h5", "avadataset", np.ones((36, 10, 29)), "not one event or background for every segment"),
        ("val_order.h5", "order", np.array([3, 36]), "val_order.h5: rows must be 0 to 35"),
        ("val_order.h5", "order", np.array(["a"], dtype="S1"), "no array of numbers under the key 'order'"),
    ],
)
def test_faults_of_a_feature_file(data, name, key, value, message):
    write_h5(data / name, key, value)
    with pytest.raises(DatasetError, match=message):
        datasets.load("ave")


def test_missing_and_damaged_files(data):
    path = data / "visual_feature.h5"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"visual_feature.h5 is not a readable HDF5 file"):
        datasets.load("ave")
    path.unlink()
    with pytest.raises(DatasetError, match=r"needs ave/visual_feature.h5 in .*; run `msam data get ave`"):
        datasets.load("ave")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Meow&x&good&0&10", "line 38: .*'Meow' is no class of AVE"),
        ("Cat&x&good&0", "line 38: need class&video&quality&start&end, not 'Cat&x&good&0'"),
        ("Cat&x&good&zero&10", "line 38: need"),
    ],
)
def test_faults_of_a_list(data, line, message):
    path = data / "Annotations.txt"
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(DatasetError, match=message):
        datasets.load("ave")


def test_options_out_of_range_and_an_empty_list(data):
    for options, message in (
        ({"kind": "frames"}, "kind is 'frames'; choose from features, segments, sequences, clips"),
        ({"duplicates": "maybe"}, "duplicates is 'maybe'; choose from remove, keep"),
        ({"frames": 0}, "frames is 0"),
        ({"side": 0}, "side is 0"),
        ({"tolerate": -1}, "tolerate is -1"),
    ):
        with pytest.raises(DatasetError, match=message):
            datasets.load("ave", options)
    (data / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n")
    with pytest.raises(DatasetError, match="lists no video"):
        datasets.load("ave")


# Clips

RATE = 16_000


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two films of 10 s, 2 frames a second: gray and pitch rise in steps of 1 s; one has no sound."""
    folder = tmp_path_factory.mktemp("films")
    second = np.arange(10 * RATE) // RATE
    sound = 0.4 * np.sin(2 * np.pi * np.cumsum(1000 + 500 * second) / RATE)
    levels = [20 + 22 * (k // 2) for k in range(20)]
    write_video(folder / "loud.mp4", levels, (32, 32), "mpeg4", 2, sound)
    write_video(folder / "mute.mp4", levels, (32, 32), "mpeg4", 2)
    return folder


@pytest.fixture
def clips(data, videos):
    """The data folder with lists and links to the films."""
    (data / "AVE").mkdir()
    rows = lines()
    for row in rows:
        place = data / "AVE" / f"{row.split('&')[1]}.mp4"
        if not place.exists():
            os.link(videos / "loud.mp4", place)
    first, second = SIZES["train"], SIZES["train"] + SIZES["validation"]
    for name, part in (("train", rows[:first]), ("val", rows[first:second]), ("test", rows[second:])):
        (data / f"{name}Set.txt").write_text("\n".join(part))
    return data


def loudest(audio):
    """The loudest frequency in Hz of every frame of spectrograms, (..., 257, T)."""
    return audio.argmax(-2) * RATE / 512


def test_clips_from_videos_to_a_trained_model(clips, monkeypatch):
    monkeypatch.setattr("msam.datasets._clips.FEW", 100)
    dataset = datasets.load("ave", CLIPS)
    assert {s: len(part) for s, part in dataset.splits.items()} == SIZES | {"train": 18}
    test = dataset.splits["test"]
    assert test.inputs["audio"].shape == (8, 1, 257, 1004)
    assert test.inputs["visual"].shape == (8, 2, 3, 16, 16)
    assert test.inputs["visual"].dtype == torch.uint8
    assert same_shapes("ave", CLIPS, dataset)
    assert test.labels.tolist() == [k % 4 for k in range(28, 36)]
    gray = test.inputs["visual"].float().mean((2, 3, 4))
    # whole films: the frames at 2.5 and 7.5 s; rows 30 and 33, from 2 to 7 s: the next after 3.25 and 5.75 s
    for row, (early, late) in {0: (2, 7), 1: (2, 7), 2: (3, 6), 5: (3, 6)}.items():
        np.testing.assert_allclose(gray[row], [20 + 22 * early, 20 + 22 * late], atol=8)
    pitch = loudest(test.inputs["audio"][:, 0]).numpy()
    seconds = (np.arange(1004) * 159 + 256) / RATE
    inside = (seconds % 1 > 0.2) & (seconds % 1 < 0.8)
    whole, cut = 1000 + 500 * np.floor(seconds), 1000 + 500 * (2 + np.floor(seconds) % 5)
    assert (abs(pitch[0] - whole) < 80)[inside].mean() > 0.95
    assert (abs(pitch[2] - cut) < 80)[inside].mean() > 0.95
    result = train_seed(CONFIG | {"fusion": "late", "epochs": 1}, dataset, 0)
    assert result["state"] == "done"


def test_unusable_clips_are_named(clips, videos, monkeypatch):
    monkeypatch.setattr("msam.datasets._clips.FEW", 100)
    for video in ("video29", "video31", "video32"):
        (clips / "AVE" / f"{video}.mp4").unlink()
    os.link(videos / "mute.mp4", clips / "AVE" / "video31.mp4")
    (clips / "AVE" / "video32.mp4").write_bytes(b"no film")
    left_out = datasets.describe("ave", CLIPS)["report"]["left_out"]
    assert left_out == {
        "test 1 video29": "no video29.mp4",
        "test 3 video31": "video31.mp4 has no sound",
        "test 4 video32": "video32.mp4 is not a readable video (Invalid data found when processing input)",
    }
    with pytest.raises(DatasetError, match="3 clips cannot be used, more than the option tolerate = 2"):
        datasets.load("ave", CLIPS | {"tolerate": 2})


def test_frames_behind_the_end_are_the_last_one(videos):
    images, _ = _video.frames_at(videos / "loud.mp4", [9.5, 11.0, 12.0], 8)
    np.testing.assert_allclose(images.mean((1, 2, 3)), [20 + 22 * 9] * 3, atol=8)


def test_an_event_of_no_length_is_the_whole_video(videos):
    events = {"x": ave.Event(3, "loud", 0, 0)}
    clip = ave.read_clip("x", events, Path(videos), 1, 8)
    np.testing.assert_allclose(clip.arrays["visual"].mean(), 20 + 22 * 5, atol=8)
    assert not clip.problem
    late = ave.read_clip("x", {"x": ave.Event(3, "loud", 20, 30)}, Path(videos), 1, 8)
    assert late.problem == "loud.mp4 has no sound from 20 s on"
