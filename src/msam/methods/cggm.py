"""CGGM: classifier-guided gradient modulation (Guo et al., NeurIPS 2024).

A classifier c_m of each modality learns from the features of its encoder, which it does not train.

    d_m  = how much the accuracy of c_m has risen since the last step
    b_m  = (sum_k d_k - d_m) / sum_k d_k                   large where the others are the ones that learn
    L    = CE(fused logits, y) + weight * L_gm
    L_gm = 1/M * sum_m (|b_m| - b_m * cos(G_m, G))         direction
    gradient of encoder m  <-  scale * b_m * gradient      magnitude
    then the global norm is clipped to 0.8

G_m is the gradient of c_m's loss for its last layer, a constant, G that of the task's loss for the fusion's
last layer (of m's head, with late fusion). G = (softmax(z) - onehot(y))' x / B for logits z and inputs x,
written out, so that its own gradient is an ordinary backward pass.

This is the paper's rule. The authors' code takes the cosine between the *weights* of the last layers and
adds it one step late: no gradient is aligned there. Ours, because accuracies of single batches jump up and
down and b_m with them: d_m is the rise of an exponential moving average (decay 0.9) and a fall counts as 0;
where nothing has risen, b_m is (M - 1) / M for all. The classifiers have the optimizer's settings, without
its schedule. c_m is one linear layer with late fusion and has a hidden layer as wide as the fusion's last
with early fusion, so that G_m and G have the same shape.
Acts on the encoders, any number of modalities. Cost: one forward and one backward pass, and those of the
c_m.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import scale_gradients
from msam.models import MultimodalClassifier

DECAY, CLIP = 0.9, 0.8


def balance(rises: Tensor) -> Tensor:
    """b_m from the rises of the accuracies, shapes (M,)."""
    rises = rises.clamp(min=0)
    total, m = rises.sum(), len(rises)
    return torch.where(total > 0, (total - rises) / total, (m - 1) / m)


def head_gradient(logits: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy for the weight of a last layer, C x D, differentiable."""
    residual = logits.softmax(-1) - F.one_hot(labels, logits.shape[-1])
    return residual.mT @ inputs / len(labels)


class CGGM(Method):
    """Classifier-guided gradient modulation.

    Args:
        weight: of L_gm (the authors: 0.2 on MOSI and IEMOCAP, 0.05 on Food-101).
        scale: factor on the encoders' gradients (the authors: 1.3).
    """

    compares = reads_features = True

    def __init__(self, weight: float = 0.2, scale: float = 1.3) -> None:
        self.weight, self.scale = weight, scale

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Make the classifiers and their optimizer."""
        super().setup(model, optimizer, config)
        like = next(model.parameters())
        late = len(model.fusion.outputs) > 1
        hidden, classes = model.fusion.outputs[0].in_features, model.fusion.classes
        self.bodies = nn.ModuleDict(
            {
                m: nn.Identity() if late else nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
                for m, width in model.fusion.widths.items()
            }
        ).to(like)
        widths = {m: width if late else hidden for m, width in model.fusion.widths.items()}
        self.heads = nn.ModuleDict({m: nn.Linear(width, classes) for m, width in widths.items()}).to(like)
        own = [*self.bodies.parameters(), *self.heads.parameters()]
        self.guide = type(optimizer)(own, **optimizer.defaults)
        self.accuracy = torch.zeros(len(widths)).to(like)

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient; the report holds the task's loss alone."""
        self.optimizer.zero_grad()
        features = self.model.encode(batch.inputs)
        fusion, labels = self.model.fusion, batch.labels
        inputs = fusion.before_outputs(features)
        fused = torch.stack([layer(x) for layer, x in zip(fusion.outputs, inputs, strict=True)]).sum(0)
        b, directions = self._guide(features, labels)
        ours = [head_gradient(fused, x, labels) for x in inputs]
        ours = ours if len(ours) > 1 else ours * len(directions)
        cosines = torch.stack(
            [F.cosine_similarity(g.flatten(), d.flatten(), 0) for g, d in zip(ours, directions, strict=True)]
        )
        task = F.cross_entropy(fused, labels)
        (task + self.weight * (b.abs() - b * cosines).mean()).backward()
        for encoder, factor in zip(self.model.encoders.values(), self.scale * b, strict=True):
            scale_gradients(encoder.parameters(), factor)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return StepReport(task.detach(), 1)

    def _guide(self, features: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """b_m and the gradients G_m of the classifiers' last layers; trains the classifiers."""
        self.guide.zero_grad()
        logits = {m: head(self.bodies[m](features[m].detach())) for m, head in self.heads.items()}
        torch.stack([F.cross_entropy(z, labels) for z in logits.values()]).sum().backward()
        directions = [cast(Tensor, head.weight.grad) for head in self.heads.values()]
        right = torch.stack([(z.argmax(-1) == labels).to(z.dtype).mean() for z in logits.values()])
        accuracy = DECAY * self.accuracy + (1 - DECAY) * right
        b, self.accuracy = balance(accuracy - self.accuracy), accuracy
        self.guide.step()
        return b, directions
