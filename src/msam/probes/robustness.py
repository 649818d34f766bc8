"""Robustness: test accuracy with noise in one modality, and without it.

Noise of a level is Gaussian, with `level` times the standard deviation of all entries of that input in the
train split; it is added to what the encoder reads, for images the standardized ones. A missing modality is a
zero input, as in `msam.coalitions`. The levels share one draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msam.coalitions import evaluation_mode
from msam.datasets import Dataset
from msam.models import MultimodalClassifier
from msam.probes._network import accuracy_on, as_numbers

LEVELS = (0.5, 1.0, 2.0)


def measure(
    model: MultimodalClassifier, dataset: Dataset, seed: int, levels: tuple[float, ...] = LEVELS
) -> dict[str, Any]:
    """Test accuracy of a trained network with clean, noisy and missing inputs.

    Args:
        model: the trained classifier.
        dataset: the data.
        seed: of the noise.
        levels: of the noise, in standard deviations of the train split.

    Returns:
        `clean`; `noise`: modality -> `levels` and their `accuracy`; `missing`: modality -> accuracy.
    """
    train, test = dataset.splits["train"], dataset.splits["test"]
    inputs = {m: as_numbers(test.inputs[m]) for m in model.modalities}
    source = torch.Generator().manual_seed(seed)

    def accuracy(**changed: Tensor) -> float:
        return accuracy_on(model, inputs | changed, test.labels, {})

    noise, missing = {}, {}
    with evaluation_mode(model):
        for m, x in inputs.items():
            deviation = float(as_numbers(train.inputs[m]).std())
            draw = deviation * torch.randn(x.shape, generator=source).to(x)
            found = [accuracy(**{m: x + level * draw}) for level in levels]
            noise[m] = {"levels": list(levels), "accuracy": found}
            missing[m] = accuracy(**{m: torch.zeros_like(x)})
        return {"clean": accuracy(), "noise": noise, "missing": missing}
