"""Uniform: the sum of the joint loss and of a loss of each modality alone.

    L = CE(fused logits, y) + sum_m CE(a_m(h_m), y)

with a linear auxiliary head a_m on the features h_m of modality m. The strong and simple baseline that
MMPareto's code calls uniform (ICML 2024). One forward and one backward pass; no hyper-parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import auxiliary_heads
from msam.models import MultimodalClassifier

Gradients = dict[Tensor, Tensor]


class Uniform(Method):
    """Joint training with auxiliary single-modality losses of weight one."""

    reads_features = True

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Add the auxiliary heads to the optimizer."""
        super().setup(model, optimizer, config)
        self.heads = auxiliary_heads(model)
        optimizer.add_param_group({"params": list(self.heads.parameters()), "modality": None})

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient; the report holds the joint loss alone."""
        self.optimizer.zero_grad()
        joint, alone = self.losses(batch)
        (joint + alone.sum()).backward()
        self.optimizer.step()
        return StepReport(joint.detach(), 1)

    def losses(self, batch: Split) -> tuple[Tensor, Tensor]:
        """Joint loss, 0-dim, and the loss of every modality alone, shape (M,)."""
        features = self.model.encode(batch.inputs)
        joint = F.cross_entropy(self.model.fuse(features), batch.labels)
        alone = [F.cross_entropy(head(features[m]), batch.labels) for m, head in self.heads.items()]
        return joint, torch.stack(alone)

    def gradients(self, batch: Split) -> tuple[Tensor, Tensor, Gradients, Gradients]:
        """`losses`, detached, and the gradients of both by parameter, of the model's and the heads' alike."""
        parameters: list[Tensor] = [*self.model.parameters(), *self.heads.parameters()]
        joint, alone = self.losses(batch)
        g = torch.autograd.grad(joint, parameters, retain_graph=True, materialize_grads=True)
        u = torch.autograd.grad(alone.sum(), parameters, materialize_grads=True)
        own, other = (dict(zip(parameters, found, strict=True)) for found in (g, u))
        return joint.detach(), alone.detach(), own, other
