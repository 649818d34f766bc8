"""Faster encoders, which compute the same up to rounding: bfloat16 and channels last."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

FAST = ("bf16", "channels_last")


class FastEncoder(nn.Module):
    """An encoder that runs faster; its features come out in the type of its parameters.

    Fusion, loss, Shapley values and optimizer stay as they are. Autocast ends with the encoder's pass, so
    the casts of weights that it keeps are never used after a perturbation has moved the weights.

    Args:
        encoder: any encoder.
        fast: which of `FAST`. "bf16": matrix products and convolutions in bfloat16 (autocast).
            "channels_last": memory format of convolutions. `torch.compile` is not among them: its code moves
            BatchNorm's running statistics in SAM's second pass, too.

    Raises:
        ValueError: unknown word in `fast`.
    """

    def __init__(self, encoder: nn.Module, fast: Collection[str]) -> None:
        super().__init__()
        unknown = [word for word in fast if word not in FAST]
        if unknown:
            raise ValueError(f"unknown way to be fast {unknown[0]!r}; choose from {', '.join(FAST)}")
        self.encoder, self.fast = encoder, tuple(fast)
        if "channels_last" in fast:
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """B x ... -> B x width."""
        if "channels_last" in self.fast and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled="bf16" in self.fast):
            features = self.encoder(x)
        return features.to(next(self.parameters()).dtype)
