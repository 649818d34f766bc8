"""Standardizing by train statistics, and rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DECIMALS = 4


def rounded(values: np.ndarray) -> np.ndarray:
    """Round to four decimals, without negative zeros, as float32.

    Linear algebra libraries, and one library on more or fewer threads, differ in the last bits; a checksum
    should not.
    """
    return (values.round(DECIMALS) + 0.0).astype("float32")


def standardize(splits: dict[str, np.ndarray], axes: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """Subtract the train split's mean, divide by its standard deviation, and round.

    Args:
        splits: split -> float64 array; "train" is among them.
        axes: axes over which the two statistics are taken; None: all, one number each.

    Returns:
        split -> float32 array of the same shape.
    """
    mean = splits["train"].mean(axis=axes, keepdims=True)
    deviation = splits["train"].std(axis=axes, keepdims=True)
    return {split: rounded((x - mean) / deviation) for split, x in splits.items()}
