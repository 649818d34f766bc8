"""UR-Funny: is a punchline of a TED talk funny? Audio, face and words, as MultiBench's file has them.

Recipe: `humor.pkl`, read by an unpickler that admits arrays only; an example whose text is all zero is
dropped; minus infinity in the audio becomes 0; every modality starts at the first text row that is not
zero, as the file is padded on the left; zeros follow to the common length; a label below 1 is 0.

Deviation from AGM's loader: sequences are padded to the longest of the file instead of the longest of the
batch. Its Transformer does not mask the padding, so its outputs depend on that length.

The paper writes 16,514 clips, which is the first version of UR-Funny; the report says which one the file is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._raw import RawFile, locate
from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

TITLE = "UR-Funny: humour in TED talks (audio, face, words)"
ORIGIN = "humor.pkl of MultiBench (Liang et al., 2021), from UR-FUNNY (Hasan et al., EMNLP 2019)"
LICENSE = "UR-FUNNY: for research, see the authors' repository ROC-HCI/UR-FUNNY; MultiBench's code: MIT"
STANDS_FOR = "UR-Funny"
LEVEL = "paper"
CLASSES = ("not funny", "funny")
KINDS = {"audio": "sequence", "visual": "sequence", "text": "sequence"}

PICKLE = "ur_funny/humor.pkl"
FILES = (
    RawFile(
        PICKLE,
        note="download humor.pkl from the Google Drive folder that the README of"
        " github.com/pliang279/MultiBench links for UR-FUNNY (1Agzm157lciMONHOHemHRSySmjn1ahHX1)",
    ),
)

KEYS = {"audio": "audio", "visual": "vision", "text": "text"}
"""Modality -> its key in the file."""

SPLITS = {"train": "train", "validation": "valid", "test": "test"}
VERSIONS = {"V1": (10_598, 2_626, 3_290), "V2": (7_614, 980, 994)}
"""Version -> clips in train, valid and test."""

PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))


def build(length: int = 0) -> dict[str, Any]:
    """Build the three splits and the report.

    Args:
        length: time steps of every example, longer ones are cut at the end; 0: of the longest.

    Raises:
        DatasetError: a missing or hostile file, or one of another layout.
    """
    from ._pickle import load_arrays

    if length < 0:
        raise DatasetError(f"dataset 'ur_funny': length is {length}; must be at least 0")
    path = locate("ur_funny", [PICKLE])[PICKLE]
    content = load_arrays(path)
    if not isinstance(content, dict) or not set(SPLITS.values()) <= set(content):
        raise DatasetError(f"{path}: not a dictionary with the keys {', '.join(SPLITS.values())}")
    raw = {split: _parts(f"{path}, {key}", content[key]) for split, key in SPLITS.items()}
    cleaned = {split: _clean(parts) for split, parts in raw.items()}
    longest = max(int(lengths.max(initial=0)) for _, lengths in cleaned.values())
    return {
        **{split: _cut(parts, length or longest) for split, (parts, _) in cleaned.items()},
        "report": _report(raw, cleaned, length),
    }


def _parts(where: str, content: Any) -> dict[str, np.ndarray]:
    """The arrays of one split, checked: (N, T, D) for every modality, `label` (N,) and `id` (N,)."""
    import numpy as np

    needed = (*KEYS.values(), "labels", "id")
    missing = [key for key in needed if not isinstance(content, Mapping) or key not in content]
    if missing:
        raise DatasetError(f"{where}: no {', '.join(missing)}; need {', '.join(needed)}")
    parts = {modality: np.asarray(content[key]) for modality, key in KEYS.items()}
    parts |= {"label": np.asarray(content["labels"]), "id": np.asarray(content["id"])}
    rows = len(np.atleast_1d(parts["id"]))
    for name, value in parts.items():
        numeric = name == "id" or np.issubdtype(value.dtype, np.number)
        size, kind = (rows, 3) if name in KEYS else (rows, value.ndim)
        flat = name in KEYS or value.size == rows
        if not numeric or value.ndim != kind or value.ndim == 0 or len(value) != size or not flat:
            raise DatasetError(f"{where}: {name} is {value.dtype} {value.shape} beside {rows} ids")
    steps = {name: parts[name].shape[1] for name in KEYS}
    if len(set(steps.values())) > 1:
        raise DatasetError(f"{where}: modalities have different numbers of time steps: {steps}")
    if not np.isfinite(parts["label"].astype(float)).all():
        raise DatasetError(f"{where}: labels are not finite")
    return {**parts, "label": parts["label"].reshape(rows), "id": parts["id"].reshape(rows)}


def _clean(parts: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Drop what has no text, move every example to the left; return the arrays and the examples' lengths."""
    import numpy as np

    spoken = (parts["text"] != 0).any(axis=2)
    kept = spoken.any(axis=1)
    start, steps = spoken[kept].argmax(axis=1), spoken.shape[1]
    source = start[:, None] + np.arange(steps)
    inside = (source < steps)[:, :, None]
    moved = {}
    for name in KEYS:
        values = parts[name][kept].astype(np.float32)
        if name == "audio":
            values[np.isneginf(values)] = 0
        rows = np.take_along_axis(values, np.minimum(source, steps - 1)[:, :, None], axis=1)
        moved[name] = np.where(inside, rows, np.float32(0))
    label = (parts["label"][kept] >= 1).astype(np.int64)
    return {**moved, "label": label, "id": parts["id"][kept]}, steps - start


def _cut(parts: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """The arrays of a split at `length` time steps."""
    import numpy as np

    cut = {}
    for name in KEYS:
        values = parts[name][:, :length]
        cut[name] = np.pad(values, ((0, 0), (0, length - values.shape[1]), (0, 0)))
    return {**cut, "label": parts["label"]}


def _report(
    raw: dict[str, dict[str, np.ndarray]],
    cleaned: dict[str, tuple[dict[str, np.ndarray], np.ndarray]],
    length: int,
) -> dict[str, Any]:
    import numpy as np

    counts = tuple(len(raw[split]["label"]) for split in SPLITS)
    versions = [version for version, sizes in VERSIONS.items() if sizes == counts]
    ids = {split: set(map(str, raw[split]["id"].tolist())) for split in SPLITS}
    return {
        "version": versions[0] if versions else "unknown",
        "known_versions": {
            version: dict(zip(SPLITS, sizes, strict=True)) for version, sizes in VERSIONS.items()
        },
        "clips": dict(zip(SPLITS, counts, strict=True)),
        "dropped_without_text": {s: len(raw[s]["label"]) - len(cleaned[s][0]["label"]) for s in SPLITS},
        "minus_infinity_in_audio": {s: int(np.isneginf(raw[s]["audio"]).sum()) for s in SPLITS},
        "cut_at_the_end": {s: int((cleaned[s][1] > length).sum()) if length else 0 for s in SPLITS},
        "widths": {name: raw["train"][name].shape[2] for name in KEYS},
        "ids_in_two_splits": sum(len(ids[a] & ids[b]) for a, b in PAIRS),
    }
