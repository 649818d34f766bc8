"""A method with a fault."""

from msam.datasets import Split
from msam.methods import Method, StepReport


class Failing(Method):
    """Raises in its first step."""

    def step(self, batch: Split) -> StepReport:
        """Raise."""
        raise RuntimeError("the wheel came off\nand rolled away")
