"""What a loaded dataset is: three splits of tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SPLITS = ("train", "validation", "test")
INPUT_KINDS = ("image", "spectrogram", "sensor", "vector", "sequence", "segments", "segment_maps")
STORED_TYPES = ("float32", "float16", "uint8")
LEVELS = ("embedded", "compact", "paper")


class DatasetError(ValueError):
    """A dataset cannot be named, built, cached or read; the message is one line and says what to do."""


@dataclass(frozen=True)
class Split:
    """Examples of one split, aligned over the modalities.

    Attributes:
        inputs: modality -> tensor, N first; float32 unless the dataset stores the modality in a smaller type.
        labels: int64 tensor of class numbers, shape (N,), or (N, T) for one a segment.
    """

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """Return the same split with its tensors on `device`."""
        return Split({name: x.to(device) for name, x in self.inputs.items()}, self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A dataset ready for training.

    Attributes:
        name: the name it was loaded by.
        classes: class names; a label is an index into them.
        kinds: modality -> one of `INPUT_KINDS`.
        splits: "train", "validation" and "test".
        checksum: SHA-256 of all arrays, the groups included.
    """

    name: str
    classes: tuple[str, ...]
    kinds: dict[str, str]
    splits: dict[str, Split]
    checksum: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order the dataset declares them."""
        return tuple(self.kinds)

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same dataset with every split on `device`."""
        return replace(self, splits={name: split.to(device) for name, split in self.splits.items()})
