"""Faster encoders, which compute the same up to rounding: bfloat16, channels last, compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch._functorch.config as functorch_config
from torch import Tensor, nn

FAST = ("bf16", "channels_last", "compile")
BACKEND = "inductor"


class FastEncoder(nn.Module):
    """An encoder that runs faster; its features come out in the type of its parameters.

    Fusion, loss, Shapley values and optimizer stay as they are. Autocast ends with the encoder's pass, so
    the casts of weights that it keeps are never used after a perturbation has moved the weights.

    Args:
        encoder: any encoder.
        fast: which of `FAST`. "bf16": matrix products and convolutions in bfloat16 (autocast).
            "channels_last": memory format of convolutions. "compile": `torch.compile` in training mode;
            evaluation and the probes, which need second derivatives, run the encoder as it is.

    Raises:
        ValueError: unknown word in `fast`.
    """

    _code: Callable[[Tensor], Tensor] | None = None

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
        compiled = "compile" in self.fast and self.training
        with torch.autocast(x.device.type, torch.bfloat16, enabled="bf16" in self.fast):
            features = self._compiled(x) if compiled else self.encoder(x)
        return features.to(next(self.parameters()).dtype)

    def _compiled(self, x: Tensor) -> Tensor:
        """Random numbers as without compilation; the buffers of a pass are kept for a second backward."""
        if self._code is None:
            options: Any = {"fallback_random": True} if BACKEND == "inductor" else None
            self._code = torch.compile(self.encoder.forward, backend=BACKEND, options=options)
        with functorch_config.patch(donated_buffer=False):
            return self._code(x)

    def __getstate__(self) -> dict:
        """A copy, or a run that is saved and loaded, compiles anew."""
        return self.__dict__ | {"_code": None}
