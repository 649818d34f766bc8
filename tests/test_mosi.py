"""CMU-MOSI: rows belong together, videos stay in one split, and every fault in a raw file is named."""

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from msam import datasets
from msam.datasets import DatasetError, mosi

SPLITS = ("train", "validation", "test")
MODALITIES = ("text", "audio", "video")
TRAIN_VIDEOS, TEST_VIDEOS, UTTERANCES = 7, 4, 12
REAL = Path(os.environ.get("MSAM_DATA") or Path.home() / ".cache" / "msam")
needs_real_files = pytest.mark.skipif(
    not (REAL / "mosi" / "transcripts.csv").is_file(), reason="MSAM_DATA has no mosi"
)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The nine files of a small MOSI; a train video's row has the video's number in its features."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "mosi"
    monkeypatch.setenv("MSAM_DATA", str(folder.parent))
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    transcripts = []
    for video in range(TRAIN_VIDEOS + TEST_VIDEOS):
        for number in range(1, UTTERANCES + 1):
            label = int(number % 3 > 0)
            transcripts.append((f"vi_deo-{video:02}_{number}", "I SAID, SO", str(video + 1), str(label)))
    write(folder / "transcripts.csv", transcripts)
    for part, videos in (
        ("train", range(TEST_VIDEOS, TEST_VIDEOS + TRAIN_VIDEOS)),
        ("test", range(TEST_VIDEOS)),
    ):
        of_part = [i for i in range(len(transcripts)) if i // UTTERANCES in videos]
        rows = sorted(of_part, key=lambda i: -int(transcripts[i][3]))  # positive ones first, as published
        labels = [transcripts[i][3] for i in rows]
        for modality, width in mosi.WIDTHS.items():
            values = random.standard_normal((len(rows), width)) * 3 + 7
            values[:, 1] = [i // UTTERANCES for i in rows]
            if modality == "video":
                values[:, 2] = 0.0 if part == "train" else 9.0
                values[0, 3] = 1e6
            table = [[f"{x:.17g}" for x in row] for row in values]
            write(
                folder / modality / f"{modality}_{part}0.csv",
                [[*x, y] for x, y in zip(table, labels, strict=True)],
            )
            if modality == "text":
                numbered = [[str(i), *x] for i, x in zip(rows, table, strict=True)]
                write(folder / f"text_{part}.csv", numbered)
    return folder


def test_sizes_and_the_official_test_file(raw):
    splits = mosi.build(validation=2)
    assert {split: len(splits[split]["label"]) for split in SPLITS} == {
        "train": 5 * UTTERANCES,
        "validation": 2 * UTTERANCES,
        "test": TEST_VIDEOS * UTTERANCES,
    }
    for split in SPLITS:
        for modality, width in mosi.WIDTHS.items():
            assert splits[split][modality].shape == (len(splits[split]["label"]), width)
            assert splits[split][modality].dtype == np.float32
    assert splits["test"]["label"].tolist() == [int(row[-1]) for row in read(raw / "text" / "text_test0.csv")]


@pytest.mark.parametrize("held", ["train", "test"])
def test_no_video_is_in_two_splits_and_every_utterance_in_one(raw, held):
    splits = mosi.build(held, validation=2)
    videos = {split: set(splits[split]["group_video"].tolist()) for split in SPLITS}
    assert [len(videos[split]) for split in SPLITS] == [5, 2, 4] if held == "train" else [7, 2, 2]
    assert len(set.union(*videos.values())) == TRAIN_VIDEOS + TEST_VIDEOS
    utterances = [u for split in SPLITS for u in splits[split]["group_utterance"].tolist()]
    assert sorted(utterances) == sorted(row[0] for row in read(raw / "transcripts.csv"))
    number = {f"vi_deo-{video:02}": video for video in range(TRAIN_VIDEOS + TEST_VIDEOS)}
    for modality in MODALITIES:  # the second column was the video's number: still in order after scaling
        column = np.concatenate([splits[split][modality][:, 1] for split in SPLITS])
        video = np.concatenate([[number[v] for v in splits[split]["group_video"]] for split in SPLITS])
        assert np.corrcoef(column, video)[0, 1] > 0.98


def test_labels_are_those_of_the_transcripts(raw):
    label = {row[0]: int(row[3]) for row in read(raw / "transcripts.csv")}
    for arrays in mosi.build(validation=3).values():
        assert [label[u] for u in arrays["group_utterance"].tolist()] == arrays["label"].tolist()


def test_scaled_by_the_train_split_constant_columns_zero_and_outliers_cut(raw):
    splits = mosi.build(validation=2)
    video = {split: splits[split]["video"] for split in SPLITS}
    assert not any(x[:, 2].any() for x in video.values())
    usual = np.delete(video["train"], [2, 3], axis=1)
    np.testing.assert_allclose(usual.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(usual.std(axis=0), 1, atol=1e-3)
    assert max(abs(x).max() for x in video.values()) == mosi.LIMIT
    random = np.random.default_rng(1)
    x = {split: random.standard_normal((50, 4)) * [1, 2, 3, 4] + 5 for split in SPLITS}
    right = (x["test"] - x["train"].mean(0)) / x["train"].std(0)
    np.testing.assert_allclose(mosi.scale(x)["test"], right, atol=5.1e-5)


def test_test_features_do_not_change_the_other_splits(raw):
    before = mosi.build(validation=2)
    path = raw / "audio" / "audio_test0.csv"
    write(path, [[*(str(5 * float(x)) for x in row[:-1]), row[-1]] for row in read(path)])
    after = mosi.build(validation=2)
    for split in SPLITS:
        same = [np.array_equal(before[split][m], after[split][m]) for m in MODALITIES]
        assert same == [True, split != "test", True]


def test_the_same_again_and_other_videos_for_another_seed(raw):
    first, second, other = mosi.build(validation=2), mosi.build(validation=2), mosi.build("train", 2, 5)
    for split in SPLITS:
        for name, values in first[split].items():
            assert np.array_equal(values, second[split][name])
    assert set(other["validation"]["group_video"]) != set(first["validation"]["group_video"])


def test_through_the_cache(raw):
    record = datasets.describe("mosi", {"validation": 2})
    assert record["level"] == "compact"
    assert record["stands_for"] is None
    assert record["shared_groups"] == {"utterance": 0, "video": 0}
    assert datasets.load("mosi", {"validation": 2}).splits["test"].inputs["audio"].shape == (48, 73)


def edit(path, row, column, value):
    rows = read(path)
    rows[row][column] = value
    write(path, rows)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("audio/audio_train0.csv", (4, 6, "nan"), "row 5, column 7: nan is not finite"),
        ("video/video_test0.csv", (0, 0, "-inf"), "row 1, column 1: -inf is not finite"),
        ("video/video_test0.csv", (3, 99, "?"), "row 4: could not convert string to float: .*"),
        ("audio/audio_test0.csv", (2, -1, "0"), "row 3: the label is not the text file's"),
        ("text_test.csv", (1, 0, "2"), "row 2: the label is not its transcript's"),
        ("text_test.csv", (1, 0, "500"), "row 2: the number is not a transcript's"),
        ("text_test.csv", (1, 0, "1.5"), "row 2: the number is not a transcript's"),
        ("text_train.csv", (7, 20, "0.1"), "row 8: the text is not that of mosi/text/text_train0.csv"),
        ("transcripts.csv", (2, 3, "positive"), "row 3: need utterance, text, number of the video, 0 or 1"),
    ],
)
def test_a_fault_in_a_file_is_named_in_one_line(raw, file, change, message):
    edit(raw / file, *change)
    with pytest.raises(DatasetError, match=f"{raw / file}, {message}$") as error:
        mosi.build(validation=2)
    assert "\n" not in str(error.value)


def test_shuffled_rows_are_noticed(raw):
    rows = read(raw / "text" / "text_train0.csv")
    for file, moved in (("audio/audio_train0.csv", "label"), ("text_train.csv", "text")):
        whole = read(raw / file)
        write(raw / file, whole[::-1])
        with pytest.raises(DatasetError, match=rf"{file}, row \d+: the {moved} is not"):
            mosi.build(validation=2)
        write(raw / file, whole[:-1])
        with pytest.raises(DatasetError, match=f"{file} has {len(rows) - 1} rows, the text file {len(rows)}"):
            mosi.build(validation=2)
        write(raw / file, whole)


def test_an_utterance_twice_is_refused(raw):
    numbered, text = read(raw / "text_test.csv"), read(raw / "text" / "text_test0.csv")
    numbered[1], text[1] = numbered[0], text[0]
    write(raw / "text_test.csv", numbered)
    write(raw / "text" / "text_test0.csv", text)
    with pytest.raises(DatasetError, match=r"text_test\.csv has an utterance twice"):
        mosi.build(validation=2)


def test_files_of_another_form_are_refused(raw):
    path = raw / "video" / "video_train0.csv"
    content = path.read_bytes()
    for damaged, message in (
        (content[:-5000], r"row \d+: \d+ columns; need 101"),
        (b"", "has no rows"),
        (b"\xff\xfe" + content, "is no CSV file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=message) as error:
            mosi.build(validation=2)
        assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(DatasetError, match=r"needs mosi/video/video_train0\.csv in .*msam data get mosi"):
        mosi.build(validation=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held": "both"}, "held is 'both'; choose from train, test"),
        ({"validation": 0}, "validation is 0; must be 1 to 6 of the 7 train videos"),
        ({"validation": 4, "held": "test"}, "validation is 4; must be 1 to 3 of the 4 test videos"),
    ],
)
def test_options_out_of_range_are_refused(raw, options, message):
    with pytest.raises(DatasetError, match=f"dataset 'mosi': {message}"):
        mosi.build(**options)


def test_the_raw_files_are_declared_with_address_and_checksum():
    assert len({file.path for file in mosi.FILES}) == 9
    for file in mosi.FILES:
        assert file.urls[0].startswith(
            "https://raw.githubusercontent.com/declare-lab/multimodal-deep-learning/"
        )
        assert file.urls[0].endswith("/data/" + file.path.removeprefix("mosi/"))
    assert json.dumps(mosi.CONSENT)


# The real files


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(REAL))
    return REAL


@needs_real_files
def test_real_sizes_labels_and_checksums(real):
    for file in mosi.FILES:
        assert file.checksum == "sha256:" + hashlib.sha256((real / file.path).read_bytes()).hexdigest()
    splits = mosi.build()
    assert np.bincount(splits["test"]["label"]).tolist() == [285, 467]
    counts = sum(np.bincount(splits[split]["label"]) for split in ("train", "validation"))
    assert counts.tolist() == [738, 709]
    assert [len(set(splits[split]["group_video"])) for split in SPLITS] == [50, 12, 31]


@needs_real_files
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_real_rows_of_all_modalities_belong_to_the_same_utterances(real, modality, part):
    """Within a video some column goes with the number of words; with its rows shuffled none does."""
    random = np.random.default_rng(0)
    transcripts = read(real / "mosi" / "transcripts.csv")
    rows = [int(row[0]) for row in read(real / "mosi" / f"text_{part}.csv")]
    words = np.log([len(transcripts[i][1].split()) for i in rows])
    names = [transcripts[i][0].rpartition("_")[0] + transcripts[i][3] for i in rows]
    cell = np.unique(names, return_inverse=True)[1]
    table = np.array(read(real / "mosi" / modality / f"{modality}_{part}0.csv"), dtype=float)[:, :-1]
    table = table[:, table.std(axis=0) > 0]

    def centered(values):
        mean = [np.bincount(cell, column) / np.bincount(cell) for column in values.T]
        return values - np.stack(mean, axis=1)[cell]

    def strongest(words):
        x, y = centered(table), centered(words[:, None])[:, 0]
        return (abs(x.T @ y) / np.linalg.norm(x, axis=0) / np.linalg.norm(y)).max()

    def shuffled():
        order = np.lexsort((random.random(len(cell)), cell))
        mixed = np.empty_like(words)
        mixed[np.argsort(cell, kind="stable")] = words[order]
        return mixed

    assert strongest(words) > 1.5 * max(strongest(shuffled()) for _ in range(20))
