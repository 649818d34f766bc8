"""Points on two spirals, seen from two sides: a dataset of your own."""

import numpy as np

TITLE = "Two spirals"
ORIGIN = "generated"
LICENSE = "MIT"
STANDS_FOR = None
CLASSES = ("left", "right")
KINDS = {"sharp": "vector", "blurred": "vector"}


def build(size: int = 600, noise: float = 0.1) -> dict[str, dict[str, np.ndarray]]:
    """Three splits of `size` points; `blurred` has four times the noise."""
    random = np.random.default_rng(0)
    splits = {}
    for split in ("train", "validation", "test"):
        label = np.arange(size) % 2
        turn = random.uniform(0.5, 2, size)
        angle = 2 * np.pi * turn + np.pi * label
        point = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        sharp, blurred = (
            point + scale * noise * random.standard_normal(point.shape)
            for scale in (1, 4)
        )
        splits[split] = {"label": label, "sharp": sharp, "blurred": blurred}
    return splits
