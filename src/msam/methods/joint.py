"""Joint training: cross-entropy of the fused logits and the base optimizer, nothing else."""

from __future__ import annotations

from msam.datasets import Split
from msam.methods._base import Method, StepReport


class Joint(Method):
    """L = CE(fused logits, y), the paper's Joint-Train."""

    def step(self, batch: Split) -> StepReport:
        """One step of the base optimizer."""
        loss = self.closure(batch)()
        self.optimizer.step()
        return StepReport(loss.detach(), 1)
