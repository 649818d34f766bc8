"""One modality alone, through the same encoder and fusion: the paper's Single-audio, Single-video, ..."""

from __future__ import annotations

from collections.abc import Sequence

from msam.methods._base import UnsupportedCell
from msam.methods.joint import Joint


class Unimodal(Joint):
    """Joint training of a model that has one modality only.

    Args:
        modality: its name.
    """

    def __init__(self, modality: str = "") -> None:
        self.modality = modality

    def modalities(self, names: Sequence[str]) -> list[str]:
        """The one modality."""
        return [self.modality]

    def check(self, fusion: str, modalities: Sequence[str]) -> None:
        """Refuse PSP's network, which needs both modalities, and a modality that the dataset lacks."""
        if fusion == "psp":
            raise UnsupportedCell("in PSP's network one modality guides the attention over the other")
        if self.modality not in modalities:
            raise ValueError(f"unknown modality {self.modality!r}; choose from {', '.join(modalities)}")
