"""CREMA-D: six emotions, spoken and shown by 91 actors.

Recipe: the sound of a clip, repeated to 3 s, as a spectrogram; beside it the frame in the middle of each of
`frames` equal parts of the video, squashed to `side` x `side` pixels and kept as bytes.

* spectrogram "paper": 257 x 299, which is 3 s at 16 kHz with the paper's window of 512 and overlap of 353;
  the rate, the logarithm and the standardization of each clip are ours, after PMR's code for AVE.
* spectrogram "agm": 257 x 188, 22.05 kHz, hop 353, as in the code of AGM and OGM (with SciPy's resampling
  in place of librosa's).

* protocol "lists": the public lists, 6,698 clips for training and 744 for testing; a tenth of the training
  list, drawn at random, is for validation. All actors are in all splits.
* protocol "agm": AGM's. The first 90 % of the training list (6,028) train, the first 90 % of the test list
  (669) test; the rest of both is for validation. AGM itself selects the epoch on those 669.
* protocol "actor": no actor in two splits; a tenth of the actors each for validation and test.

Deviations from the public code: the middle frame instead of a fixed random choice of 1 to 3 frames; clips
that cannot be read are counted and named in the report, where that code passes over them silently.
"""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._clips import Clip, gather, refuse_if_many, split_rows
from ._raw import RawFile, hash_options, locate, work_folder
from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

TITLE = "CREMA-D: emotions in voice and face"
ORIGIN = "github.com/CheyneyComputerScience/CREMA-D (Cao et al., 2014); lists of OGM-GE and PMR"
LICENSE = "Open Database License 1.0 (CREMA-D)"
STANDS_FOR = "CREMA-D"
LEVEL = "paper"
CLASSES = ("neutral", "happy", "sad", "fear", "disgust", "anger")
KINDS = {"audio": "spectrogram", "visual": "image"}
STORED = {"visual": "uint8"}

CODES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
NAME = re.compile(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_[A-Z]{1,2}")
PROTOCOLS = ("lists", "agm", "actor")
SECONDS = 3
FRAMES_OF_SOUND = {"paper": 299, "agm": 188}
AUDIO, VIDEO = "crema_d/AudioWAV", "crema_d/VideoFlash"
LISTS = {"train": "crema_d/train.csv", "test": "crema_d/test.csv"}
CLONE = "clone https://github.com/CheyneyComputerScience/CREMA-D with Git LFS, take its folder"
LIST_URL = (
    "https://raw.githubusercontent.com/fanyunfeng-bit/Modal-Imbalance-PMR/"
    "1e5c79b645ad0980c145f016e52a31b935d0d7fc/data/CREMAD/"
)


def FILES(protocol: str, **_: Any) -> tuple[RawFile, ...]:  # noqa: N802
    """The clips, and the lists where the protocol needs them."""
    lists = tuple(RawFile(path, (f"{LIST_URL}{split}.csv",)) for split, path in LISTS.items())
    return (
        RawFile(AUDIO, members=(("*.wav", 7442),), note=f"{CLONE} AudioWAV"),
        RawFile(VIDEO, members=(("*.flv", 7442),), note=f"{CLONE} VideoFlash"),
        *(() if protocol == "actor" else lists),
    )


def build(
    protocol: str = "lists",
    spectrogram: str = "paper",
    frames: int = 1,
    side: int = 224,
    validation: float = 0.1,
    tolerate: int = 20,
    seed: int = 0,
) -> dict[str, Any]:
    """Build the three splits and the report.

    Args:
        protocol: "lists", "agm" or "actor".
        spectrogram: "paper" or "agm".
        frames: frames of a clip; more than one give the image one more axis, in front.
        side: rows and columns of a frame.
        validation: part of the training list that is for validation; protocol "lists" only.
        tolerate: how many clips may be missing or unreadable.
        seed: of the drawing of clips or actors.

    Raises:
        DatasetError: an option out of range, a missing file, a list with a fault, or too many unusable clips.
    """
    import numpy as np

    _check(protocol, spectrogram, frames, side, validation, tolerate)
    places = locate("crema_d", [AUDIO, VIDEO, *(() if protocol == "actor" else LISTS.values())])
    random, sound, films = np.random.default_rng(seed), places[AUDIO], places[VIDEO]
    repeated: list[str] = []
    if protocol == "actor":
        splits = _by_actor(sound, films, random)
    else:
        lists, repeated = _lists({split: places[path] for split, path in LISTS.items()})
        splits = _first_nine_tenths(lists) if protocol == "agm" else _part(lists, validation, random)
    labels = {name: label for clips in splits.values() for name, label in clips}
    names = [name for clips in splits.values() for name, _ in clips]
    options = {
        "protocol": protocol,
        "spectrogram": spectrogram,
        "frames": frames,
        "side": side,
        "validation": validation,
        "tolerate": tolerate,
        "seed": seed,
    }
    image = (3, side, side) if frames == 1 else (frames, 3, side, side)
    shelf = gather(
        work_folder("crema_d", hash_options(options)),
        "crema_d",
        names,
        partial(read_clip, sound=sound, films=films, spectrogram=spectrogram, frames=frames, side=side),
        {"audio": ((1, 257, FRAMES_OF_SOUND[spectrogram]), "float32"), "visual": (image, "uint8")},
    )
    refuse_if_many("crema_d", shelf.problems, tolerate)
    sizes = {split: len(clips) for split, clips in splits.items()}
    built: dict[str, Any] = {}
    for split, (arrays, rows) in split_rows(shelf.arrays, names, sizes, shelf.problems).items():
        kept = [names[row] for row in rows]
        actors = {"group_actor": np.array([name[:4] for name in kept])} if protocol == "actor" else {}
        label = np.array([labels[name] for name in kept], dtype=np.int64)
        built[split] = {**arrays, "label": label, "group_clip": np.array(kept), **actors}
    return {
        **built,
        "report": {
            "clips": sizes,
            "left_out": shelf.problems,
            "repeated_in_a_list": repeated,
            "label_differs_from_name": [n for n, k in labels.items() if CODES[k] != n.split("_")[2]],
            "several_channels_mixed": shelf.noted("mixed"),
            "resampled": len(shelf.noted("resampled")),
            "video_partly_damaged": shelf.noted("damaged"),
            "actors_in_train_and_test": len(
                {n[:4] for n, _ in splits["train"]} & {n[:4] for n, _ in splits["test"]}
            ),
        },
    }


def read_clip(name: str, sound: Path, films: Path, spectrogram: str, frames: int, side: int) -> Clip:
    """One clip: its spectrogram, (1, 257, T), and its frames, ([F,] 3, side, side); or what is wrong."""
    from . import _audio, _video

    wav, flv = sound / f"{name}.wav", films / f"{name}.flv"
    missing = [path.name for path in (wav, flv) if not path.is_file()]
    if missing:
        return Clip(problem=f"no {' and no '.join(missing)}")
    pointers = [path.name for path in (wav, flv) if _is_pointer(path)]
    if pointers:
        return Clip(problem=f"{pointers[0]} is a Git LFS pointer: run `git lfs pull`")
    rate = _audio.SPECTROGRAMS[spectrogram]["rate"]
    try:
        samples, changed = _audio.read_sound(wav, rate)
        images, damaged = _video.middle_frames(flv, frames, side)
    except ValueError as error:
        return Clip(problem=str(error))
    audio = _audio.spectrogram(_audio.fitted(samples, SECONDS * rate), spectrogram)[None]
    return Clip({"audio": audio, "visual": images[0] if frames == 1 else images}, (*changed, *damaged))


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(40).startswith(b"version https://git-lfs")


Clips = list[tuple[str, int]]
"""Names and class numbers."""


def _lists(paths: dict[str, Path]) -> tuple[dict[str, Clips], list[str]]:
    """Clips of the training and the test list, and the names that a list repeats."""
    lists, repeated = {}, []
    for split, path in paths.items():
        clips: dict[str, int] = {}
        for number, row in enumerate(_rows(path), 1):
            if len(row) != 2 or not NAME.fullmatch(row[0]):
                raise DatasetError(
                    f"{path}, line {number}: need a clip and its class, not '{','.join(row)[:60]}'"
                )
            name, code = row
            if code not in CODES:
                raise DatasetError(f"{path}, line {number}: class '{code}'; choose from {', '.join(CODES)}")
            if name in clips:
                repeated.append(name)
            clips.setdefault(name, CODES.index(code))
        lists[split] = list(clips.items())
    both = {name for name, _ in lists["train"]} & {name for name, _ in lists["test"]}
    if both:
        raise DatasetError(f"dataset 'crema_d': {len(both)} clips are in both lists, as {min(both)}")
    return lists, repeated


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a list of clips in UTF-8 ({error})") from error


def _first_nine_tenths(lists: dict[str, Clips]) -> dict[str, Clips]:
    train, test = lists["train"], lists["test"]
    first, second = int(0.9 * len(train)), int(0.9 * len(test))
    return {"train": train[:first], "validation": train[first:] + test[second:], "test": test[:second]}


def _part(lists: dict[str, Clips], part: float, random: np.random.Generator) -> dict[str, Clips]:
    train = lists["train"]
    order = random.permutation(len(train))
    chosen = set(order[: round(part * len(train))].tolist())
    return {
        "train": [clip for row, clip in enumerate(train) if row not in chosen],
        "validation": [clip for row, clip in enumerate(train) if row in chosen],
        "test": lists["test"],
    }


def _by_actor(sound: Path, films: Path, random: np.random.Generator) -> dict[str, Clips]:
    """All clips that have a sound or a video, by actor."""
    names = sorted({path.stem for path in [*sound.glob("*.wav"), *films.glob("*.flv")]})
    clips: Clips = []
    for name in names:
        match = NAME.fullmatch(name)
        if not match or match[2] not in CODES:
            raise DatasetError(
                f"dataset 'crema_d': {name} is no clip of an actor and one of {', '.join(CODES)};"
                " remove the file"
            )
        clips.append((name, CODES.index(match[2])))
    actors = sorted({name[:4] for name, _ in clips})
    if len(actors) < 3:
        raise DatasetError(f"dataset 'crema_d': {len(actors)} actors; need at least 3 for three splits")
    order = [actors[number] for number in random.permutation(len(actors))]
    tenth = max(1, round(0.1 * len(actors)))
    members = {"train": order[2 * tenth :], "validation": order[:tenth], "test": order[tenth : 2 * tenth]}
    return {split: [clip for clip in clips if clip[0][:4] in chosen] for split, chosen in members.items()}


def _check(protocol: str, spectrogram: str, frames: int, side: int, validation: float, tolerate: int) -> None:
    problems = {
        f"protocol is {protocol!r}; choose from {', '.join(PROTOCOLS)}": protocol not in PROTOCOLS,
        f"spectrogram is {spectrogram!r}; choose from {', '.join(FRAMES_OF_SOUND)}": spectrogram
        not in FRAMES_OF_SOUND,
        f"frames is {frames}; must be 1 to 16": not 1 <= frames <= 16,
        f"side is {side}; must be 8 to 1024": not 8 <= side <= 1024,
        f"validation is {validation}; must be above 0 and below 1": not 0 < validation < 1,
        f"tolerate is {tolerate}; must be at least 0": tolerate < 0,
    }
    for problem, found in problems.items():
        if found:
            raise DatasetError(f"dataset 'crema_d': {problem}")
