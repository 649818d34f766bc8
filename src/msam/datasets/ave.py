"""AVE: audio-visual events of 28 classes in videos of 10 s, as features or as clips.

Kinds:

* "features": the public VGGish and VGG19 features. An example is a segment of 1 s, its class one of 29 (the
  28 events and background). This is the segment task of AGM and PSP, cut into single segments, so what a
  segment's neighbours tell is not used. The 7 x 7 places of the visual feature are averaged, as in the
  authors' cross-modal matching.
* "segments": the segment task of AGM and PSP itself. An example is a video of 10 segments with its places,
  49 x 512 a segment in half precision, and a class of 29 for every segment. For the fusion "psp".
* "sequences": the same features, an example is a video of 10 segments, its class the event (28); places
  averaged.
* "clips": from the videos themselves, as PMR, OGM-GE and ReconBoost do. The sound between the event's start
  and end, repeated to 10 s, as a spectrogram of 257 x 1004 (16 kHz, window 512, overlap 353, logarithm,
  standardized by clip); the frame in the middle of each of `frames` equal parts of the event; 28 classes.

46 videos are listed twice, 18 of them in two splits. With `duplicates` "remove" a video stays in the test
split before validation, validation before train, and once within a split; with "keep" the lists stay as they
are, and the report counts what is in two splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._clips import Clip, gather, on_disk, refuse_if_many, split_rows
from ._raw import RawFile, hash_options, locate, raw_folder, work_folder
from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

TITLE = "AVE: audio-visual events"
ORIGIN = "github.com/YapengTian/AVE-ECCV18 (Tian et al., ECCV 2018)"
LICENSE = "none published; from AudioSet (CC BY 4.0), videos by their YouTube authors"
STANDS_FOR = "AVE"
PRIVATE = True  # the videos belong to whoever put them on YouTube
LEVEL = "paper"

EVENTS = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
)
"""In the order of the columns of the public label files; column 29 is background."""

INPUT_KINDS = {
    "features": ("vector", "vector"),
    "segments": ("segments", "segment_maps"),
    "sequences": ("sequence", "sequence"),
    "clips": ("spectrogram", "image"),
}
"""Kind -> kinds of input of audio and visual."""

SEGMENTS, RATE, FRAMES_OF_SOUND = 10, 16_000, 1004
SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Split -> how the authors' files name it."""

KEY = "avadataset"
AUDIO, VISUAL = "ave/audio_feature.h5", "ave/visual_feature.h5"
LABELS, ANNOTATIONS = "ave/labels.h5", "ave/Annotations.txt"
LABEL_NAMES = (LABELS, "ave/right_labels.h5", "ave/right_label.h5")
ORDERS = {split: f"ave/{name}_order.h5" for split, name in SPLITS.items()}
LISTS = {split: f"ave/{name}Set.txt" for split, name in SPLITS.items()}
VIDEOS = "ave/AVE"
README = "the README of github.com/YapengTian/AVE-ECCV18"
URL = "https://raw.githubusercontent.com/YapengTian/AVE-ECCV18"
ORDER_COMMIT = "a331390ab3e834fbc2d5477ffc57d6d75dbd463b"
ANNOTATION_COMMIT = "607f15965eb1141c2fd48bbe461f1703cc426c45"


def CLASSES(kind: str, **_: Any) -> tuple[str, ...]:  # noqa: N802
    """The 28 events and, where segments have classes, background."""
    return (*EVENTS, "background") if kind in ("features", "segments") else EVENTS


def KINDS(kind: str, **_: Any) -> dict[str, str]:  # noqa: N802
    """Modality -> kind of input."""
    return dict(zip(("audio", "visual"), INPUT_KINDS.get(kind, INPUT_KINDS["features"]), strict=True))


def STORED(kind: str, **_: Any) -> dict[str, str]:  # noqa: N802
    """Frames are kept as bytes, features with their places in half precision."""
    return {"clips": {"visual": "uint8"}, "segments": {"visual": "float16"}}.get(kind, {})


def FILES(kind: str, **_: Any) -> tuple[RawFile, ...]:  # noqa: N802
    """The features with their labels and orders, or the videos with their lists."""
    if kind == "clips":
        note = f"unpack AVE_Dataset.zip, linked in {README}, take"
        lists = (RawFile(path, note=f"{note} {Path(path).name}") for path in LISTS.values())
        return RawFile(VIDEOS, members=(("*.mp4", 4097),), note=f"{note} the folder AVE"), *lists
    return (
        RawFile(AUDIO, note=f"download the audio feature, linked in {README}"),
        RawFile(VISUAL, note=f"download the visual feature (7.7 GB), linked in {README}"),
        RawFile(LABELS, note="take data/labels.h5 of that repository, or right_labels.h5 that PSP links"),
        RawFile(ANNOTATIONS, (f"{URL}/{ANNOTATION_COMMIT}/data/Annotations.txt",)),
        *(RawFile(path, (f"{URL}/{ORDER_COMMIT}/data/{Path(path).name}",)) for path in ORDERS.values()),
    )


class Event(NamedTuple):
    """One line of a list: the event's class number, the video, and start and end in s."""

    label: int
    video: str
    start: float
    end: float


def build(
    kind: str = "features", duplicates: str = "remove", frames: int = 3, side: int = 224, tolerate: int = 20
) -> dict[str, Any]:
    """Build the three splits and the report.

    Args:
        kind: "features", "segments", "sequences" or "clips".
        duplicates: "remove" or "keep".
        frames: frames of a clip; kind "clips" only.
        side: rows and columns of a frame; kind "clips" only.
        tolerate: how many clips may be missing or unreadable; kind "clips" only.

    Raises:
        DatasetError: an option out of range, or a file that is missing or has a fault.
    """
    problems = {
        f"kind is {kind!r}; choose from {', '.join(INPUT_KINDS)}": kind not in INPUT_KINDS,
        f"duplicates is {duplicates!r}; choose from remove, keep": duplicates not in ("remove", "keep"),
        f"frames is {frames}; must be 1 to 16": not 1 <= frames <= 16,
        f"side is {side}; must be 8 to 1024": not 8 <= side <= 1024,
        f"tolerate is {tolerate}; must be at least 0": tolerate < 0,
    }
    for problem, found in problems.items():
        if found:
            raise DatasetError(f"dataset 'ave': {problem}")
    options = {
        "kind": kind,
        "duplicates": duplicates,
        "frames": frames,
        "side": side,
        "tolerate": tolerate,
    }
    if kind == "clips":
        return _clips(duplicates == "remove", frames, side, tolerate, hash_options(options))
    return _features(kind, duplicates == "remove", hash_options(options))


def _features(kind: str, remove: bool, options_hash: str) -> dict[str, Any]:
    """Examples from the feature files: single segments, or videos."""
    import numpy as np

    labels_path = next((name for name in LABEL_NAMES if (raw_folder() / name).is_file()), LABELS)
    places = locate("ave", [AUDIO, VISUAL, labels_path, ANNOTATIONS, *ORDERS.values()])
    events = read_list(places[ANNOTATIONS])
    audio, labels = _read_features(places[AUDIO], places[labels_path], len(events))
    orders = {split: _order(places[path], len(events)) for split, path in ORDERS.items()}
    disagreeing = _disagreement(labels, events)
    if disagreeing > 0.1 * len(events):
        raise DatasetError(
            f"{places[labels_path]} and {places[ANNOTATIONS]} do not fit: {disagreeing} of {len(events)}"
            " videos have another event"
        )
    listed = {split: [events[row].video for row in rows] for split, rows in orders.items()}
    kept, report = deduplicated(listed, remove)
    rows = {split: np.array([orders[split][k] for k in kept[split]], dtype=np.int64) for split in kept}
    if kind == "segments":
        visual = _with_places(places[VISUAL], len(events), rows, work_folder("ave", options_hash))
    else:
        averaged = _averaged(places[VISUAL], len(events))
        visual = {split: averaged[part] for split, part in rows.items()}
    built: dict[str, Any] = {}
    for split, part in rows.items():
        arrays = {"audio": audio[part], "visual": visual[split]}
        videos = np.array([events[row].video for row in part])
        if kind == "sequences":
            arrays["label"] = np.array([events[row].label for row in part], dtype=np.int64)
        else:
            arrays["label"] = labels[part].argmax(axis=2).astype(np.int64)
        if kind == "features":
            arrays = {name: values.reshape(-1, *values.shape[2:]) for name, values in arrays.items()}
            videos = np.repeat(videos, SEGMENTS)
        built[split] = {**arrays, **({"group_video": videos} if remove else {})}
    return {**built, "report": {**report, "labels_unlike_annotations": disagreeing}}


def _averaged(path: Path, count: int) -> np.ndarray:
    """The visual features averaged over their places, (N, 10, 512)."""
    import numpy as np

    blocks = _blocks(path, (count, SEGMENTS, None, None, None))
    return np.concatenate([block.mean(axis=(2, 3)) for block in blocks]).astype(np.float32)


def _with_places(path: Path, count: int, rows: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Split -> the visual features of its rows, (N, 10, 49, 512) in half precision, mapped from the disk."""
    import numpy as np

    visual: dict[str, np.ndarray] = {}
    done = 0
    for block in _blocks(path, (count, SEGMENTS, None, None, None)):
        with np.errstate(over="ignore"):  # an infinity is refused later
            half = block.reshape(len(block), SEGMENTS, -1, block.shape[4]).astype(np.float16)
        for split, part in rows.items():
            if split not in visual:
                visual[split] = on_disk(folder / f"{split}.npy", (len(part), *half.shape[1:]), "float16")
            here = np.flatnonzero((part >= done) & (part < done + len(block)))
            visual[split][here] = half[part[here] - done]
        done += len(block)
    return visual


def _read_features(audio: Path, labels: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Audio (N, 10, 128) and one-hot labels (N, 10, 29)."""
    import numpy as np

    sound = np.concatenate([*_blocks(audio, (count, SEGMENTS, None))])
    truth = np.concatenate([*_blocks(labels, (count, SEGMENTS, len(EVENTS) + 1))])
    if not ((truth == 0) | (truth == 1)).all() or not (truth.sum(axis=2) == 1).all():
        raise DatasetError(f"{labels}: not one event or background for every segment")
    return sound.astype(np.float32), truth


def _blocks(path: Path, shape: tuple[int | None, ...], key: str = KEY) -> Iterator[np.ndarray]:
    """An array of an HDF5 file, 64 rows at a time, as the whole of it need not fit into memory."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get(key)
            if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiu":
                raise DatasetError(f"{path}: no array of numbers under the key '{key}'")
            free = tuple(b if a is None else a for a, b in zip(shape, data.shape, strict=False))
            if len(data.shape) != len(shape) or free != data.shape:
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                raise DatasetError(f"{path}: shape is {data.shape}; must be ({wanted})")
            for start in range(0, len(data), 64):
                yield data[start : start + 64]
    except OSError as error:
        raise DatasetError(f"{path} is not a readable HDF5 file ({' '.join(str(error).split())})") from error


def _order(path: Path, count: int) -> list[int]:
    rows = [int(row) for block in _blocks(path, (None,), "order") for row in block]
    if not rows or min(rows) < 0 or max(rows) >= count:
        raise DatasetError(f"{path}: rows must be 0 to {count - 1}")
    return rows


def _disagreement(labels: np.ndarray, events: list[Event]) -> int:
    """Videos with a segment of another event than their annotation."""
    other = 0
    for truth, event in zip(labels, events, strict=True):
        other += set(truth.argmax(axis=1).tolist()) - {len(EVENTS)} not in (set(), {event.label})
    return other


def read_list(path: Path) -> list[Event]:
    """Events of a list or of Annotations.txt: lines "class&video&quality&start&end", with or without a head.

    Raises:
        DatasetError: a line of another form, an unknown class, or an empty list.
    """
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        parts = [part.strip() for part in line.split("&")]
        if not line.strip() or parts[0] == "Category":
            continue
        try:
            name, video, _, start, end = parts
            event = Event(EVENTS.index(name), video, float(start), float(end))
        except ValueError as error:
            known = "" if len(parts) != 5 or parts[0] in EVENTS else f"; '{parts[0]}' is no class of AVE"
            raise DatasetError(
                f"{path}, line {number}: need class&video&quality&start&end, not '{line[:60]}'{known}"
            ) from error
        events.append(event)
    if not events:
        raise DatasetError(f"{path} lists no video")
    return events


def deduplicated(listed: dict[str, list[str]], remove: bool) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Positions to keep of every split's videos, and the counts for the report."""
    kept: dict[str, list[int]] = {}
    taken: set[str] = set()
    for split in ("test", "validation", "train"):
        kept[split] = []
        for position, video in enumerate(listed[split]):
            if not remove or video not in taken:
                kept[split].append(position)
            taken.add(video)
    sets = {split: set(videos) for split, videos in listed.items()}
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    report = {
        "listed": {split: len(videos) for split, videos in listed.items()},
        "kept": {split: len(kept[split]) for split in listed},
        "repeated_in_a_split": {split: len(videos) - len(sets[split]) for split, videos in listed.items()},
        "in_two_splits": {f"{a} and {b}": sorted(sets[a] & sets[b]) for a, b in pairs},
        "duplicates": "removed" if remove else "kept",
    }
    return {split: kept[split] for split in listed}, report


def _clips(remove: bool, frames: int, side: int, tolerate: int, options_hash: str) -> dict[str, Any]:
    """Examples from the videos."""
    import numpy as np

    places = locate("ave", [VIDEOS, *LISTS.values()])
    lists = {split: read_list(places[path]) for split, path in LISTS.items()}
    kept, report = deduplicated({split: [e.video for e in events] for split, events in lists.items()}, remove)
    chosen = {split: [lists[split][position] for position in positions] for split, positions in kept.items()}
    names = [f"{split} {k} {e.video}" for split, events in chosen.items() for k, e in enumerate(events)]
    everything = dict(zip(names, (e for events in chosen.values() for e in events), strict=True))
    image = (3, side, side) if frames == 1 else (frames, 3, side, side)
    shelf = gather(
        work_folder("ave", options_hash),
        "ave",
        names,
        partial(read_clip, events=everything, folder=places[VIDEOS], frames=frames, side=side),
        {"audio": ((1, 257, FRAMES_OF_SOUND), "float32"), "visual": (image, "uint8")},
    )
    refuse_if_many("ave", shelf.problems, tolerate)
    sizes = {split: len(events) for split, events in chosen.items()}
    built: dict[str, Any] = {}
    for split, (arrays, rows) in split_rows(shelf.arrays, names, sizes, shelf.problems).items():
        events = [everything[names[row]] for row in rows]
        group = {"group_video": np.array([event.video for event in events])} if remove else {}
        built[split] = {**arrays, "label": np.array([e.label for e in events], dtype=np.int64), **group}
    damaged = [everything[name].video for name in shelf.noted("damaged")]
    return {**built, "report": {**report, "left_out": shelf.problems, "video_partly_damaged": damaged}}


def read_clip(name: str, events: dict[str, Event], folder: Path, frames: int, side: int) -> Clip:
    """One event: its spectrogram, (1, 257, 1004), and its frames, ([F,] 3, side, side); or what is wrong."""
    from . import _audio, _video

    event = events[name]
    path = folder / f"{event.video}.mp4"
    if not path.is_file():
        return Clip(problem=f"no {path.name}")
    start, length = event.start, event.end - event.start
    if length <= 0:
        start, length = 0.0, float(SEGMENTS)  # one annotation of the public lists is empty: the whole video
    try:
        samples, changed = _audio_of(path, start, length)
        times = [start + (k + 0.5) / frames * length for k in range(frames)]
        images, damaged = _video.frames_at(path, times, side)
    except ValueError as error:
        return Clip(problem=str(error))
    audio = _audio.spectrogram(_audio.fitted(samples, SEGMENTS * RATE), "paper")[None]
    notes = tuple(sorted({*changed, *damaged}))
    return Clip({"audio": audio, "visual": images[0] if frames == 1 else images}, notes)


def _audio_of(path: Path, start: float, length: float) -> tuple[np.ndarray, list[str]]:
    """The sound of an event at 16 kHz."""
    from ._video import read_track

    samples, changed = read_track(path, RATE)
    cut = samples[round(start * RATE) : round((start + length) * RATE)]
    if not len(cut):
        raise ValueError(f"{path.name} has no sound from {start:g} s on")
    return cut, changed
