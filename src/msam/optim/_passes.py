"""What the second pass of a SAM step must not change: BatchNorm statistics and random numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

RandomState = dict[torch.device, Tensor]


_BLOCKS: set[object] = set()
"""The blocks of `frozen_batch_norm` that run now."""


@contextmanager
def frozen_batch_norm() -> Iterator[None]:
    """Keep the running statistics of every BatchNorm layer that runs inside the block.

    A layer in training mode still normalizes by the batch. The model need not be known, subclasses
    (SyncBatchNorm) are covered, and eager code is not slowed: the class hides what its layers have. Compiled
    code does not ask the class again, unless a mode is active that was not when it was compiled.
    """
    dynamo = sys.modules.get("torch._dynamo.utils")
    compiled = dynamo is not None and dynamo.counters["frames"]
    block = object()
    _BLOCKS.add(block)  # a step inside another, or two threads: the last to end gives the class back
    _BatchNorm.track_running_stats = property(lambda _: False, _set_below)  # type: ignore[assignment]
    try:
        with _Mode() if compiled else nullcontext():
            yield
    finally:
        _BLOCKS.discard(block)
        if not _BLOCKS:
            with suppress(AttributeError):
                del _BatchNorm.track_running_stats


class _Mode(TorchFunctionMode):
    """Changes nothing."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _set_below(layer: _BatchNorm, value: bool) -> None:
    vars(layer)["track_running_stats"] = value


def random_state(tensors: Iterable[Tensor]) -> RandomState:
    """State of torch's random number generators on the CPU and on the CUDA devices of the tensors."""
    devices = {t.device for t in tensors if t.is_cuda}
    state = {device: torch.cuda.get_rng_state(device) for device in devices}
    return {torch.device("cpu"): torch.get_rng_state(), **state}


def set_random_state(state: RandomState) -> None:
    """Put the generators back into a state that `random_state` returned."""
    for device, value in state.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(value, device)
        else:
            torch.set_rng_state(value)


@contextmanager
def repeated(tensors: Iterable[Tensor], state: RandomState) -> Iterator[None]:
    """Run the block with the random numbers that follow `state`; generators and statistics stay."""
    after = random_state(tensors)
    with frozen_batch_norm():
        set_random_state(state)
        try:
            yield
        finally:
            set_random_state(after)
