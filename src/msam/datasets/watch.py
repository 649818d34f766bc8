"""Smartwatch exercises: accelerometer and gyroscope, truly simultaneous, from ten people.

Recipe: the 140 recordings of `seglearn.datasets.load_watch` (7 shoulder exercises x 10 subjects x 2 arms,
50 Hz) in windows of 2 s (100 samples) that start every 1 s; each channel standardized by the train split's
mean and standard deviation. Every split has its own subjects. The recordings' lengths suggest that people
exercised in pairs (1+2, 3+4, 5+6, 7+10, 8+9), so a pair stays in one split. Every subject did every exercise,
so every class is in every split.

It stands in for none of the paper's datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TITLE = "Smartwatch exercises: accelerometer and gyroscope"
ORIGIN = "seglearn.datasets.load_watch (Burns et al., arXiv 1802.01489)"
LICENSE = "BSD-3-Clause (seglearn)"
STANDS_FOR = None
CLASSES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
KINDS = {"accel": "sensor", "gyro": "sensor"}

SUBJECTS = {"train": (1, 2, 3, 4, 5, 6), "validation": (7, 10), "test": (8, 9)}


def build(length: int = 100, step: int = 50) -> dict[str, dict[str, np.ndarray]]:
    """Build the three splits.

    Args:
        length: samples a window.
        step: samples from one window's start to the next one's.
    """
    import numpy as np
    from seglearn.datasets import load_watch

    from ._scale import standardize
    from ._types import DatasetError

    data = load_watch()
    shortest = min(len(recording) for recording in data["X"])
    if not (1 <= length <= shortest and step >= 1):
        raise DatasetError(
            f"dataset 'watch': length {length}, step {step}; length must be 1 to {shortest}, step at least 1"
        )
    windows = [
        np.lib.stride_tricks.sliding_window_view(recording, length, axis=0)[::step] for recording in data["X"]
    ]
    recording = np.repeat(np.arange(len(windows)), [len(window) for window in windows])
    values, subject = np.concatenate(windows), data["subject"].astype(np.int64)[recording]
    rows = {split: np.flatnonzero(np.isin(subject, members)) for split, members in SUBJECTS.items()}
    scaled = standardize({split: values[rows[split]] for split in rows}, axes=(0, 2))
    return {
        split: {
            "accel": scaled[split][:, :3],
            "gyro": scaled[split][:, 3:],
            "label": data["y"].astype(np.int64)[recording[rows[split]]],
            "group_subject": subject[rows[split]],
            "group_recording": recording[rows[split]],
        }
        for split in rows
    }
