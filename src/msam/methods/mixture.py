"""A constant mixture of the SAM gradient and the plain one: the control for what M-SAM's shares add.

    w <- base step with share * grad L(w + eps) + (1 - share) * grad L(w)

M-SAM's reading `loss` is this with a share that changes from batch to batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.models import MultimodalClassifier
from msam.optim import ModalityAwareSAM


class Mixture(Method):
    """SAM/SGD mixture.

    Args:
        share: weight of the SAM gradient in [0, 1]. In a study also the name of a method: the mean dominant
            share of its run with the same dataset, fusion and seed, which `msam.cells` puts in.
    """

    def __init__(self, share: float = 0.5) -> None:
        if isinstance(share, str) or not 0 <= share <= 1:
            raise ValueError(f"share must be a number in [0, 1], not {share!r}")
        self.share = share

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        self.sam = ModalityAwareSAM(None, optimizer, rho=config["rho"], skip_nonfinite=False)
        super().setup(model, self.sam, config)

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients."""
        return StepReport(self.sam.step(self.closure(batch), share=self.share), 2)
