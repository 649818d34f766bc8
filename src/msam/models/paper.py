"""The encoders of the paper's size, as in AGM's code, on which its networks seem to be built.

The paper names ResNet18 (AV-MNIST, CREMA-D) and Transformers (UR-Funny); what it leaves open is AGM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from msam.models.inputs import as_input, over_frames


class ResNetEncoder(nn.Module):
    """torchvision's ResNet18 from scratch, without its last layer, for images and spectrograms.

    Initialization as in AGM: convolutions normal (He, fan out), BatchNorm weights normal around 1 with
    standard deviation 0.02, biases 0. One input channel or any other number: only the first layer differs.

    Args:
        shape: input shape without the batch: (C, H, W), or (T, C, H, W) for T frames whose features are
            averaged.
    """

    width = 512
    """Length of the feature vector."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(weights=None)
        self.net.conv1 = nn.Conv2d(shape[-3], 64, 7, stride=2, padding=3, bias=False)
        self.net.fc = nn.Identity()
        for module in self.net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W or B x T x C x H x W, float or uint8, to B x 512."""
        return over_frames(lambda images: self.net(as_input(images, self.training)), x)


class FunnyTransformer(nn.Module):
    """AGM's encoder of a UR-Funny modality: a Transformer whose first time step is the feature vector.

    A linear map of every time step (a convolution of length 1 without bias), then layers of 4 heads with
    feed-forward width 2048 and dropout 0.1, normalization after the residual sum; no positions and no mask
    of the padding.

    Args:
        shape: input shape without the batch, (T, D).
        width: length of the feature vector.
        layers: number of layers.
    """

    def __init__(self, shape: Sequence[int], width: int = 768, layers: int = 8) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Conv1d(shape[1], width, 1, bias=False)
        layer = nn.TransformerEncoderLayer(width, 4, 2048, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """B x T x D -> B x width."""
        return self.layers(self.project(x.transpose(1, 2)).transpose(1, 2))[:, 0]


PAPER_ENCODERS: dict[str, Callable[[Sequence[int]], ResNetEncoder | FunnyTransformer]] = {
    "image": ResNetEncoder,
    "spectrogram": ResNetEncoder,
    "sequence": FunnyTransformer,
}
"""Kind of a modality -> encoder of the paper's size, built from the shape without the batch."""

PAPER_HIDDEN = (2048, 1024)
"""Maxout units of early fusion in AGM."""
