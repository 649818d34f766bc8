"""Uniform: the sum of the joint loss and of a loss of each modality alone.

    L = CE(fused logits, y) + sum_m CE(a_m(h_m), y)

with a linear auxiliary head a_m on the features h_m of modality m. The strong and simple baseline that
MMPareto's code calls uniform (ICML 2024). One forward and one backward pass; no hyper-parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import auxiliary_heads
from msam.models import MultimodalClassifier


class Uniform(Method):
    """Joint training with auxiliary single-modality losses of weight one."""

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Add the auxiliary heads to the optimizer."""
        super().setup(model, optimizer, config)
        self.heads = auxiliary_heads(model)
        optimizer.add_param_group({"params": list(self.heads.parameters()), "modality": None})

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient; the report holds the joint loss alone."""
        self.optimizer.zero_grad()
        features = self.model.encode(batch.inputs)
        joint = F.cross_entropy(self.model.fuse(features), batch.labels)
        alone = [F.cross_entropy(head(features[m]), batch.labels) for m, head in self.heads.items()]
        (joint + sum(alone)).backward()
        self.optimizer.step()
        return StepReport(joint.detach(), 1)
