"""What happens to an image before its encoder: bytes to numbers, random crops in training, several frames.

Images kept as bytes (uint8) are scaled to 0..1, standardized by ImageNet's channel statistics and, in
training mode, cropped, resized and flipped at random, all on the device. Float images pass unchanged, so a
muted modality given as float zeros is zero behind this transform, too (as in AGM).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue; other numbers of channels get their averages."""


def as_input(images: Tensor, crop: bool) -> Tensor:
    """Bytes, B x C x H x W, to a standardized float image, cropped at random if asked; floats unchanged."""
    if images.dtype != torch.uint8:
        return images
    scaled = images.to(torch.get_default_dtype()) / 255
    mean, deviation = (scaled.new_tensor(values) for values in (MEAN, DEVIATION))
    if images.shape[-3] != 3:
        mean, deviation = mean.mean(0, keepdim=True), deviation.mean(0, keepdim=True)
    standardized = (scaled - mean[:, None, None]) / deviation[:, None, None]
    return random_resized_crop(standardized) if crop else standardized


def random_resized_crop(
    images: Tensor, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """A crop of every image, of random area, shape and place, at the size of the image; half are mirrored.

    The distributions are those of torchvision's RandomResizedCrop and RandomHorizontalFlip, except that a
    crop that sticks out is clamped instead of drawn again.

    Args:
        images: B x C x H x W.
        scale: range of the crop's area over the image's.
        ratio: range of the crop's width over its height, log-uniform.
    """
    draw = torch.rand(5, len(images), device=images.device, dtype=images.dtype)
    area = scale[0] + draw[0] * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + draw[1] * (high - low)) * images.shape[-2] / images.shape[-1]
    width, height = (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = torch.where(draw[4] < 0.5, width, -width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * draw[2] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[3] - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def over_frames(encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Encode B x C x H x W; or B x T x C x H x W frame by frame, and average the features over T."""
    if x.dim() < 5:
        return encode(x)
    return encode(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
