"""What the second pass of a SAM step must not change: BatchNorm statistics and random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RandomState = dict[torch.device, Tensor]


@contextmanager
def frozen_batch_norm() -> Iterator[None]:
    """Keep the running statistics of every BatchNorm layer that runs inside the block.

    A layer in training mode still normalizes by the batch. The layers are found as they run, so the
    model need not be known, and subclasses (SyncBatchNorm) are covered.
    """
    frozen: list[_BatchNorm] = []

    def freeze(module: nn.Module, _inputs: tuple) -> None:
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
            module.track_running_stats = False
            frozen.append(module)

    handle = nn.modules.module.register_module_forward_pre_hook(freeze)
    try:
        yield
    finally:
        handle.remove()
        for module in frozen:
            module.track_running_stats = True


def random_state(tensors: Iterable[Tensor]) -> RandomState:
    """State of torch's random number generators on the CPU and on the CUDA devices of the tensors."""
    devices = {t.device for t in tensors if t.device.type == "cuda"}
    state = {device: torch.cuda.get_rng_state(device) for device in devices}
    return {torch.device("cpu"): torch.get_rng_state(), **state}


def set_random_state(state: RandomState) -> None:
    """Put the generators back into a state that `random_state` returned."""
    for device, value in state.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(value, device)
        else:
            torch.set_rng_state(value)
