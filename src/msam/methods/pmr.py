"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023).

    c_m^k   = mean of the features h_m of class k                 prototypes, constants
    p_m     = softmax over k of -||h_m - c_m^k||_2
    P_m     = sum over the batch of p_m[y]
    slow_m  = clip(max_k P_k / P_m - 1, 0, 1)
    fast_m  = clip(P_m / (mean of P_k over the others) - 1, 0, 1)
    L = CE(fused logits, y) + alpha * sum_m slow_m * mean of -log p_m[y]
                            - entropy * sum_m fast_m * mean of H(p_m)        (the second in early epochs)

Acts on the encoders through the loss, so it is the same for both fusions. The paper has two modalities, for
which slow_m and fast_m are its weights. Its regularization by entropy is missing in the authors' code,
which also replaces the weights by a gate of 0 or alpha.

From the authors' code: the prototypes are renewed after every epoch, in evaluation mode, from the first
batches of the shuffled training split. Ours: `batches` of them (the code: 10 % of the epoch), without a
moving average (the code's scripts switch theirs off); a class without an example there keeps its prototype;
no prototypes, so no term, in the first epoch; the entropy term lasts for the first `early` of the epochs,
and its weight is ours, as the paper's is not known to us.
Cost: one forward and one backward pass, and a few forward passes an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from msam.coalitions import evaluation_mode, true_class
from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import mean_of_others
from msam.models import MultimodalClassifier


def class_means(features: Tensor, labels: Tensor, before: Tensor) -> Tensor:
    """Mean of the features of each class, C x D; the row of `before` where a class has none."""
    member = F.one_hot(labels, len(before)).to(features.dtype)
    count = member.sum(0)[:, None]
    return torch.where(count > 0, member.mT @ features / count.clamp(min=1), before)


def weights(scores: Tensor) -> tuple[Tensor, Tensor]:
    """slow_m and fast_m from the scores P_m, shapes (M,)."""
    slow, fast = scores.max() / scores - 1, scores / mean_of_others(scores) - 1
    return slow.clamp(0, 1), fast.clamp(0, 1)


class PMR(Method):
    """Prototypical modal rebalance.

    Args:
        alpha: weight of the prototype loss (the authors: 1 to 3).
        entropy: weight of the entropy term.
        early: fraction of the epochs with the entropy term.
        batches: batches of an epoch that the prototypes are made from.
    """

    compares = reads_features = True

    def __init__(
        self, alpha: float = 1.0, entropy: float = 0.1, early: float = 0.25, batches: int = 4
    ) -> None:
        self.alpha, self.entropy, self.early, self.batches = alpha, entropy, early, batches

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Start without prototypes."""
        super().setup(model, optimizer, config)
        self.epoch, self.last_early = 0, round(self.early * config["epochs"])
        self.seen: list[Split] = []
        self.prototypes: dict[str, Tensor] = {}

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient; the report holds the task's loss alone."""
        if len(self.seen) < self.batches:
            self.seen.append(batch)
        self.optimizer.zero_grad()
        features = self.model.encode(batch.inputs)
        task = F.cross_entropy(self.model.fuse(features), batch.labels)
        (task + self._terms(features, batch.labels) if self.prototypes else task).backward()
        self.optimizer.step()
        return StepReport(task.detach(), 1)

    def _terms(self, features: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"
        distances = [torch.cdist(features[m], c, compute_mode=exact) for m, c in self.prototypes.items()]
        logs = (-torch.stack(distances)).log_softmax(-1)
        truth = true_class(logs, labels)
        slow, fast = weights(truth.detach().exp().sum(1))
        terms = -self.alpha * (slow * truth.mean(1)).sum()
        if self.epoch < self.last_early:
            terms = terms + self.entropy * (fast * (logs.exp() * logs).sum(-1).mean(1)).sum()
        return terms

    @torch.no_grad()
    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Renew the prototypes."""
        labels = torch.cat([batch.labels for batch in self.seen])
        with evaluation_mode(self.model):
            encoded = [self.model.encode(batch.inputs) for batch in self.seen]
            for m in self.model.modalities:
                features = torch.cat([batch[m] for batch in encoded])
                before = self.prototypes.get(m)
                if before is None:
                    before = features.mean(0).expand(self.model.fusion.classes, -1)
                self.prototypes[m] = class_means(features, labels, before)
        self.seen = []
        self.epoch += 1
