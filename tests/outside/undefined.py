"""A method that is not defined for early fusion."""

from collections.abc import Sequence

from msam.methods import UnsupportedCell
from msam.methods.joint import Joint


class Undefined(Joint):
    """Joint training, late fusion only."""

    def check(self, fusion: str, modalities: Sequence[str]) -> None:
        """Refuse early fusion."""
        if fusion == "early":
            raise UnsupportedCell("it needs one head a modality")
