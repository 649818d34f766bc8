"""MSLR: modality-specific learning rates (Yao and Mihalcea, Findings of ACL 2022), adaptive, as AGM runs it.

    gradient of modality m  <-  k_m * r_m(t) * gradient
    r_m(t) = A_m(t) / mean of A_m(t-1), ..., A_m(t-w)        after epoch t > w; 1 before

A_m(t) is the validation accuracy of modality m alone after epoch t. Acts on the encoder and, with late
fusion, on the head of each modality: for SGD a factor on the gradient is a factor on the learning rate (the
decay of weights keeps the common rate).

Ours: accuracy on the validation split, where AGM's code reads the test split. With early fusion, for which
AGM's code changes nothing, A_m is the accuracy of the Shapley response and the encoder alone is scaled.
Cost: one forward and one backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from torch.optim import Optimizer

from msam.datasets import Split
from msam.methods._base import Method, StepReport
from msam.methods._modality import own_modules, parameters_of, scale_gradients
from msam.models import MultimodalClassifier


class MSLR(Method):
    """Modality-specific learning rates.

    Args:
        initial: modality -> constant factor k_m, 1 where it is not named (AGM: audio 1.3 and image 0.7 on
            AV-MNIST).
        window: number w of epochs that the accuracy is compared with (AGM: 5).
    """

    def __init__(self, initial: Mapping[str, float] | None = None, window: int = 5) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.initial, self.window = dict(initial or {}), window

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Start with the constant factors."""
        super().setup(model, optimizer, config)
        self.past: dict[str, list[float]] = {m: [] for m in model.modalities}
        self.ratio = dict.fromkeys(model.modalities, 1.0)

    def end_epoch(self, validation: Mapping[str, Any]) -> None:
        """Compare the accuracies with those of the epochs before."""
        accuracies = validation["head_accuracy"] or validation["accuracy"]
        for m, past in self.past.items():
            before = fmean(past[-self.window :]) if len(past) >= self.window else 0.0
            self.ratio[m] = accuracies[m] / before if before > 0 else 1.0
            past.append(accuracies[m])

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        loss = self.closure(batch)()
        for m, ratio in self.ratio.items():
            scale_gradients(parameters_of(own_modules(self.model, m)), self.initial.get(m, 1.0) * ratio)
        self.optimizer.step()
        return StepReport(loss.detach(), 1)
