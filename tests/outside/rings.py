"""Points on two rings, measured twice: a dataset outside the package."""

import numpy as np

TITLE = "Two rings"
ORIGIN = "generated"
LICENSE = "MIT"
STANDS_FOR = None
CLASSES = ("inner", "outer")
KINDS = {"near": "vector", "far": "vector"}


def build(size: int = 200, noise: float = 0.2) -> dict[str, dict[str, np.ndarray]]:
    """Three splits of `size` points; the measurement `far` has three times the noise of `near`."""
    random = np.random.default_rng(0)
    splits = {}
    for split in ("train", "validation", "test"):
        label = np.arange(size) % 2
        angle = random.uniform(0, 2 * np.pi, size)
        point = (1 + label[:, None]) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        near = point + noise * random.standard_normal(point.shape)
        far = point + 3 * noise * random.standard_normal(point.shape)
        splits[split] = {"label": label, "near": near, "far": far}
    return splits
