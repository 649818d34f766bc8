"""SAM on all parameters (Foret et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.models import MultimodalClassifier
from msam.optim import SAM


class Sam(Method):
    """Joint training with the gradient at w + rho * g / ||g||."""

    adaptive = False

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        self.sam = SAM(None, optimizer, rho=config["rho"], adaptive=self.adaptive, skip_nonfinite=False)
        super().setup(model, self.sam, config)

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients."""
        return StepReport(self.sam.step(self.closure(batch)), 2)
