"""A network as a function of its weights and its inputs, for measurements that leave the network alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from msam.coalitions import accuracy
from msam.models import MultimodalClassifier
from msam.models.inputs import as_input

BATCH = 512
Weights = Mapping[str, Tensor]
"""Name of a parameter -> its value; parameters that are not named keep their own."""


def as_numbers(x: Tensor) -> Tensor:
    """The input in floating point, as the encoders make it of bytes and of half precision, without crops."""
    x = as_input(x, crop=False)
    return x.float() if x.dtype == torch.float16 else x


class OneEncoder(nn.Module):
    """A classifier as a function of one encoder.

    Args:
        model: the classifier, whose encoder and fusion are shared.
        modality: the encoder's.
    """

    def __init__(self, model: MultimodalClassifier, modality: str) -> None:
        super().__init__()
        self.modality, self.encoder, self.fusion = modality, model.encoders[modality], model.fusion

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Raw input of the encoder, B x ..., and features of the others, B x D_m, to logits, B x C."""
        return self.fusion({**inputs, self.modality: self.encoder(inputs[self.modality])})


@torch.no_grad()
def accuracy_on(
    model: MultimodalClassifier, inputs: Mapping[str, Tensor], labels: Tensor, weights: Weights
) -> float:
    """Accuracy of the fused logits, in [0, 1].

    Args:
        model: the classifier, in evaluation mode.
        inputs: modality -> all inputs of the split, N x ..., on any device.
        labels: class numbers, (N,) or (N, T), on the device of the model.
        weights: values in place of those of the model.
    """
    parts = []
    for start in range(0, len(labels), BATCH):
        batch = {m: inputs[m][start : start + BATCH].to(labels.device) for m in model.modalities}
        parts.append(functional_call(model, dict(weights), (batch,)))
    return float(accuracy(torch.cat(parts), labels.flatten()))
