"""CMU-MOSI: is an utterance of a film review positive, from what is said, how it sounds and how it looks.

Features of one vector an utterance, as published with bc-LSTM (Poria et al., ACL 2017): text 100 numbers of a
convolutional network, audio 73 of openSMILE, video 100 of a 3D convolutional network. Label 1 is positive.

Recipe:

* rows: the official train and test files (62 and 31 videos). `validation` videos of the file `held`, drawn
  with `seed`, are the validation split, so no video is in two splits: train videos by default, which leaves
  the official test file whole. The 93 videos are by 89 people, whose names are not published: a person may be
  in two splits.
* which utterance a row is: `text_<split>.csv` repeats the text features with the utterance's row of
  `transcripts.csv` in front. That features and labels agree is checked, for every row. Audio and video files
  have labels only, all positive rows before all negative ones, so that equal labels (checked too) say little;
  but within a video some of their columns correlate with the utterance's number of words, as far as the text
  features do, and not when the rows of a video are shuffled. A test shows it.
* every column is standardized by the train split's mean and standard deviation and cut at five deviations
  (some audio and video columns have values tens of deviations away). Columns that are constant in the train
  split, a third of the video's, are 0.

Beware: the networks behind the text and the video features look trained on the labels of the train file. A
linear classifier finds nearly all labels of held-out train videos from either, and of test videos fewer from
the text and hardly any from the video; the audio features show no such gap. So these modalities look stronger
in training than they are, and accuracy on train videos held out for validation says little. With `held`
"test" the validation videos are test videos, which the networks have not seen, and the other test videos are
the test split. The test file also has a larger share of positive utterances than the train file.

It stands in for none of the paper's datasets.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._raw import RawFile, locate
from ._types import SPLITS, DatasetError

if TYPE_CHECKING:
    import numpy as np

TITLE = "CMU-MOSI: sentiment of film reviews, features of utterances"
ORIGIN = "github.com/declare-lab/multimodal-deep-learning; CMU-MOSI (Zadeh et al., arXiv 1606.06259)"
LICENSE = "repository: MIT; CMU-MOSI: for research use"
LEVEL = "compact"
CONSENT = (
    "These features come from CMU-MOSI, videos of people who review films on YouTube. The repository they are"
    " published in has an MIT license; the CMU-MOSI data are for research use only."
)
STANDS_FOR = None
CLASSES = ("negative", "positive")
KINDS = {"text": "vector", "audio": "vector", "video": "vector"}

WIDTHS = {"text": 100, "audio": 73, "video": 100}
LIMIT = 5.0
TRANSCRIPTS = "mosi/transcripts.csv"


def _features(modality: str, part: str) -> str:
    return f"mosi/{modality}/{modality}_{part}0.csv"


def _numbered(part: str) -> str:
    return f"mosi/text_{part}.csv"


_CHECKSUMS = {
    _features("audio", "test"): "ddd17eeefd3d951d51d4e2ef8a0d132652d8161e1886f71eb7262b7a14bffff6",
    _features("audio", "train"): "5435398a54664e7b00304587dc59ae84a438852be033c2a2fba779588624a2a1",
    _features("text", "test"): "a343e22272919d1384c2075dbcdd5fef5aa9f9366b0552a83f7c3147b64b047a",
    _features("text", "train"): "cc327045db6cc361a08b4037b97bb24de4ddb5efb381468c4835cc4a60674668",
    _features("video", "test"): "cab836253d81100f59d533fa2ff65cd53c486be3ec9fd82203c5e25a7a77265f",
    _features("video", "train"): "b6efc0413132d627efd06f67f1706830e775e90af9a75696f535c48dbc73f12f",
    _numbered("test"): "f3b735070bf07ceff7a6ef6c8f4c32757e988de484e35bd6d38b2aecef851a59",
    _numbered("train"): "73770b6302ad0f7a51f4eddcae6788efde4d0b6802e09f78249d5b538d1c1d67",
    TRANSCRIPTS: "e7689e6d70720addd2a6b316419d245a68839c32b014ff426c406063ee777466",
}
_REPOSITORY = "https://raw.githubusercontent.com/declare-lab/multimodal-deep-learning"
_FOLDER = "contextual-utterance-level-multimodal-sentiment-analysis/data"
_COMMITS = ("a0ef3191913327131ba9f004918a7ef310212570", "main", "master")
FILES = tuple(
    RawFile(
        path,
        tuple(f"{_REPOSITORY}/{commit}/{_FOLDER}/{path.removeprefix('mosi/')}" for commit in _COMMITS),
        f"sha256:{checksum}",
    )
    for path, checksum in _CHECKSUMS.items()
)


def build(held: str = "train", validation: int = 12, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Build the three splits.

    Args:
        held: the file whose videos are held out for validation, "train" or "test".
        validation: number of these videos.
        seed: of their choice.

    Raises:
        DatasetError: an option out of range; a raw file is missing, damaged or does not fit the others.
    """
    import numpy as np

    if held not in ("train", "test"):
        raise DatasetError(f"dataset 'mosi': held is {held!r}; choose from train, test")
    place = locate("mosi", _CHECKSUMS)
    utterances = _utterances(place[TRANSCRIPTS])
    splits = {part: _part(place, part, utterances) for part in ("train", "test")}
    videos = np.unique(splits[held]["group_video"])
    if not 1 <= validation < len(videos):
        raise DatasetError(
            f"dataset 'mosi': validation is {validation}; must be 1 to {len(videos) - 1} of the"
            f" {len(videos)} {held} videos"
        )
    chosen = np.random.default_rng(seed).permutation(videos)[:validation]
    is_chosen = np.isin(splits[held]["group_video"], chosen)
    splits["validation"] = {name: x[is_chosen] for name, x in splits[held].items()}
    splits[held] = {name: x[~is_chosen] for name, x in splits[held].items()}
    for modality in KINDS:
        scaled = scale({split: arrays[modality] for split, arrays in splits.items()})
        for split in SPLITS:
            splits[split][modality] = scaled[split]
    return splits


def scale(splits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Standardize each column by the train split, cut it at `LIMIT`; a constant one becomes 0.

    Args:
        splits: split -> (N, columns); "train" is among them.
    """
    import numpy as np

    from ._scale import rounded

    mean, deviation = splits["train"].mean(axis=0), splits["train"].std(axis=0)
    constant = np.ptp(splits["train"], axis=0) == 0
    weight = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    return {split: rounded(((x - mean) * weight).clip(-LIMIT, LIMIT)) for split, x in splits.items()}


def _part(place: dict[str, Path], part: str, utterances: list[tuple[str, str, int]]) -> dict[str, np.ndarray]:
    """Features, labels and groups of the train or test files, row by row.

    Raises:
        DatasetError: the files do not belong to the same utterances.
    """
    import numpy as np

    tables = {m: _table(place[_features(m, part)], width + 1) for m, width in WIDTHS.items()}
    label = tables["text"][:, -1]
    for modality, table in tables.items():
        path = place[_features(modality, part)]
        if len(table) != len(label):
            raise DatasetError(f"{path} has {len(table)} rows, the text file {len(label)}")
        _agree(path, table[:, -1] == label, "label", "the text file's")
    path = place[_numbered(part)]
    numbered = _table(path, 1 + WIDTHS["text"])
    if len(numbered) != len(label):
        raise DatasetError(f"{path} has {len(numbered)} rows, the text file {len(label)}")
    rows = numbered[:, 0].astype(int)
    _agree(
        path, (rows == numbered[:, 0]) & (rows >= 0) & (rows < len(utterances)), "number", "a transcript's"
    )
    close = np.isclose(numbered[:, 1:], tables["text"][:, :-1], rtol=0, atol=1e-9).all(axis=1)
    _agree(path, close, "text", f"that of {_features('text', part)}")
    names, videos, labels = (np.array(column)[rows] for column in zip(*utterances, strict=True))
    _agree(path, labels == label, "label", "its transcript's")
    if len(set(rows.tolist())) < len(rows):
        raise DatasetError(f"{path} has an utterance twice")
    features = {modality: table[:, :-1] for modality, table in tables.items()}
    return features | {"label": labels, "group_video": videos, "group_utterance": names}


def _agree(path: Path, same: np.ndarray, what: str, whose: str) -> None:
    if not same.all():
        raise DatasetError(f"{path}, row {int(same.argmin()) + 1}: the {what} is not {whose}")


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.reader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is no CSV file ({error})") from error


def _table(path: Path, columns: int) -> np.ndarray:
    """Numbers of a CSV file, (rows, columns).

    Raises:
        DatasetError: another number of columns, no row, a text that is no number, or a number that is not
            finite.
    """
    import numpy as np

    rows = []
    for number, row in enumerate(_rows(path), 1):
        if len(row) != columns:
            raise DatasetError(f"{path}, row {number}: {len(row)} columns; need {columns}")
        try:
            values = np.array(row, dtype=float)
        except ValueError as error:
            raise DatasetError(f"{path}, row {number}: {error}") from None
        if not np.isfinite(values).all():
            column = int(np.isfinite(values).argmin()) + 1
            raise DatasetError(f"{path}, row {number}, column {column}: {row[column - 1]} is not finite")
        rows.append(values)
    if not rows:
        raise DatasetError(f"{path} has no rows")
    return np.stack(rows)


def _utterances(path: Path) -> list[tuple[str, str, int]]:
    """Utterance, video and label of every row of the transcripts.

    Raises:
        DatasetError: a row is not "video_number", text, number of the video, 0 or 1.
    """
    found = []
    for number, row in enumerate(_rows(path), 1):
        if len(row) != 4 or "_" not in row[0] or row[3] not in ("0", "1"):
            raise DatasetError(f"{path}, row {number}: need utterance, text, number of the video, 0 or 1")
        found.append((row[0], row[0].rpartition("_")[0], int(row[3])))
    if not found:
        raise DatasetError(f"{path} has no rows")
    return found
