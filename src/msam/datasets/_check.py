"""What every dataset must satisfy, and the record that describes one.

Plain NumPy; the arrays of a dataset are named "split/part", as "train/label".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ._arrays import Arrays, blocks
from ._samples import Sound, preview, shown, sounds
from ._types import SPLITS, DatasetError

if TYPE_CHECKING:
    import numpy as np

    from ._source import Source


def collect(source: Source, built: dict[str, dict[str, np.ndarray]]) -> Arrays:
    """Flatten what `build` returned into "split/part" -> array, typed and checked.

    Arrays of the right type are not copied, so they may be memory maps.

    Raises:
        DatasetError: see `check_split`; or a split or group of another name, or a group found in two splits.
    """
    import numpy as np

    if set(built) != set(SPLITS):
        raise DatasetError(
            f"dataset '{source.name}': splits are {', '.join(built)}; need {', '.join(SPLITS)}"
        )
    arrays: Arrays = {}
    stored = source.stored
    dimensions = 2 if set(source.kinds.values()) & {"segments", "segment_maps"} else 1
    for split in SPLITS:
        parts = {name: np.asarray(value) for name, value in built[split].items()}
        check_split(f"dataset '{source.name}', {split}", parts, stored, len(source.classes), dimensions)
        for name, value in parts.items():
            dtype = stored.get(name, np.int64 if name == "label" else value.dtype)
            arrays[f"{split}/{name}"] = np.ascontiguousarray(value, dtype=dtype)
    for modality in source.kinds:
        shapes = {arrays[f"{split}/{modality}"].shape[1:] for split in SPLITS}
        if len(shapes) > 1:
            raise DatasetError(
                f"dataset '{source.name}': {modality} has another shape in another split: {shapes}"
            )
    everywhere = {part for split in SPLITS for part in built[split]}
    lacking = sorted(part for part in everywhere if not all(part in built[split] for split in SPLITS))
    if lacking:
        raise DatasetError(f"dataset '{source.name}': only some splits have {', '.join(lacking)}")
    for group, count in shared_groups(arrays).items():
        if count:
            raise DatasetError(
                f"dataset '{source.name}': {count} values of group '{group}' are in two splits"
            )
    return arrays


def check_split(where: str, parts: Arrays, stored: dict[str, str], classes: int, dimensions: int) -> None:
    """Check one split.

    Args:
        where: start of every message.
        parts: array of each modality and group, and "label".
        stored: modality -> type it is stored in. Only float32 is converted to; an array of another stored
            type must have it.
        classes: number of classes.
        dimensions: of the labels: 1, or 2 where every segment of an example has one.

    Raises:
        DatasetError: a missing, unknown or misaligned array, one of another type, an empty split, a single
            class, a label outside 0..classes-1, or a value that is not finite.
    """
    import numpy as np

    for name in (*stored, "label"):
        if name not in parts:
            raise DatasetError(f"{where}: no array '{name}'")
    for name, value in parts.items():
        if name not in (*stored, "label") and not name.startswith("group_"):
            raise DatasetError(f"{where}: array '{name}' is no modality, label or group_<name>")
        if value.dtype.hasobject:
            raise DatasetError(f"{where}: array '{name}' holds Python objects")
    labels = parts["label"]
    if labels.size == 0:
        raise DatasetError(f"{where}: no examples")
    if labels.ndim != dimensions or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"{where}: labels must be integers in {dimensions} dimension(s), not {labels.dtype}"
            f" {labels.shape}"
        )
    for name, value in parts.items():
        if len(np.atleast_1d(value)) != len(labels):
            raise DatasetError(
                f"{where}: {len(np.atleast_1d(value))} rows of {name} for {len(labels)} labels"
            )
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(f"{where}: labels {labels.min()}..{labels.max()} outside 0..{classes - 1}")
    if len(np.unique(labels)) == 1:
        raise DatasetError(f"{where}: every example has class {labels.flat[0]}")
    for name, dtype in stored.items():
        if dtype not in ("float32", parts[name].dtype.name):
            raise DatasetError(f"{where}: {name} is {parts[name].dtype}; it is to be stored as {dtype}")
        if not _finite(parts[name], dtype):
            raise DatasetError(f"{where}: {name} has values that are not finite")


def _finite(values: np.ndarray, dtype: str) -> bool:
    import numpy as np

    with np.errstate(over="ignore"):
        return all(np.isfinite(block.astype(dtype, copy=False)).all() for block in blocks(values))


def checksum(arrays: Arrays) -> str:
    """SHA-256 of all arrays: name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        for block in blocks(value):
            digest.update(block.tobytes())
    return digest.hexdigest()


def _groups(arrays: Arrays) -> list[str]:
    prefix = "train/group_"
    return sorted(name.removeprefix(prefix) for name in arrays if name.startswith(prefix))


def shared_groups(arrays: Arrays) -> dict[str, int]:
    """Group -> number of its values found in more than one split (0 = no leak)."""
    shared = {}
    for group in _groups(arrays):
        values = {split: set(arrays[f"{split}/group_{group}"].tolist()) for split in SPLITS}
        shared[group] = len(set().union(*(values[a] & values[b] for a, b in combinations(SPLITS, 2))))
    return shared


def description(
    source: Source, arrays: Arrays, report: Any = None, heard: Mapping[int, Sequence[Sound]] | None = None
) -> dict[str, Any]:
    """The data description record: sizes, class counts, groups, and four examples of different classes.

    Args:
        source: the dataset.
        arrays: what `collect` returned.
        report: what else `build` has to say, plain JSON: counts, names of clips that are corrupt, ...
        heard: train example -> its sounds, of the examples that `shown` names.

    Raises:
        DatasetError: the report is no plain JSON.
    """
    import numpy as np

    classes, kinds = source.classes, source.kinds
    labels = {split: arrays[f"{split}/label"] for split in SPLITS}
    record = {
        "name": source.name,
        "title": source.constant("TITLE"),
        "level": source.level,
        "origin": source.constant("ORIGIN"),
        "licence": source.constant("LICENSE"),
        "stands_for": source.constant("STANDS_FOR"),
        "options": source.options,
        "checksum": checksum(arrays),
        "classes": list(classes),
        "modalities": {
            name: {"kind": kind, "shape": list(arrays[f"train/{name}"].shape[1:])}
            for name, kind in kinds.items()
        },
        "splits": {
            split: {
                "size": len(labels[split]),
                "class_counts": np.bincount(labels[split].ravel(), minlength=len(classes)).tolist(),
                "groups": {
                    group: len(np.unique(arrays[f"{split}/group_{group}"])) for group in _groups(arrays)
                },
            }
            for split in SPLITS
        },
        "shared_groups": shared_groups(arrays),
        "samples": [
            {
                "label": ", ".join(classes[k] for k in np.unique(labels["train"][row])),
                "inputs": {name: preview(arrays[f"train/{name}"][row]) for name in kinds},
                **sounds(heard or {}, row),
            }
            for row in shown(labels["train"])
        ],
    }
    return record if report is None else {**record, "report": _plain(source, report)}


def _plain(source: Source, report: Any) -> Any:
    try:
        return json.loads(json.dumps(report, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"dataset '{source.name}': its report is no plain JSON: {error}") from error
