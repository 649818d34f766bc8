"""Small encoders: one modality in, one feature vector out (B x width)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from msam.models.inputs import as_input, over_frames


class ConvEncoder(nn.Module):
    """Two strided convolutions with BatchNorm and a global average, for signals and images.

    The first one reads patches (stride 4). Layers of few channels at full resolution would take most of
    the time on a CPU and see no more of the input.

    Args:
        shape: input shape without the batch, channels first: (C, T), (C, H, W), or (F, C, H, W) for F
            frames whose features are averaged.
        width: length of the feature vector; the first convolution has width/2 channels.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        image = len(shape) > 2
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if image else (nn.Conv1d, nn.BatchNorm1d)
        kernel = 3 if image else 5
        self.layers = nn.Sequential(
            conv(
                shape[-3] if image else shape[0],
                width // 2,
                2 * kernel,
                stride=4,
                padding=kernel - 1,
                bias=False,
            ),
            norm(width // 2),
            nn.ReLU(inplace=True),
            conv(width // 2, width, kernel, stride=2, padding=kernel // 2, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x C x T, B x C x H x W or B x F x C x H x W -> B x width; images may be uint8."""
        return over_frames(lambda part: self.layers(as_input(part, crop=False)).flatten(2).mean(2), x)


class VectorEncoder(nn.Sequential):
    """Two-layer perceptron for a vector of `shape[0]` numbers."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__(nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


class SequenceEncoder(nn.Module):
    """Two Transformer layers over a sequence of `shape = (T, D)`: learned positions, mean over time."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        length, dimension = shape
        self.project = nn.Linear(dimension, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """B x T x D -> B x width."""
        return self.layers(self.project(x) + self.position).mean(1)


ENCODERS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "image": ConvEncoder,
    "spectrogram": ConvEncoder,
    "sensor": ConvEncoder,
    "vector": VectorEncoder,
    "sequence": SequenceEncoder,
}
"""Kind of a modality -> encoder, built from (shape without the batch, width)."""
