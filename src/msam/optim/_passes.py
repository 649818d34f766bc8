"""What the second pass of a SAM step must not change: BatchNorm statistics and random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RandomState = dict[torch.device, Tensor]

HOOK = -1
"""Key of the hook of `frozen_batch_norm`. torch would give it a new one at every step, and code that was
compiled beside another key is compiled anew."""


@contextmanager
def frozen_batch_norm() -> Iterator[None]:
    """Keep the running statistics of every BatchNorm layer that runs inside the block.

    A layer in training mode still normalizes by the batch. The layers are found as modules run, so the
    model need not be known, and subclasses (SyncBatchNorm) are covered. A module freezes all layers below
    it, not only itself: compiled code runs no hooks of the modules inside, but it does look, at every call,
    whether their `track_running_stats` is still what it was compiled for.
    """
    frozen: list[_BatchNorm] = []
    below: set[nn.Module] = set()

    def freeze(module: nn.Module, _inputs: tuple) -> None:
        if torch.compiler.is_compiling() or module in below:  # the hook of a module outside has done it
            return
        layers = list(module.modules())
        below.update(layers)
        for layer in layers:
            if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats:
                layer.track_running_stats = False
                frozen.append(layer)

    hooks = nn.modules.module._global_forward_pre_hooks
    hooks[HOOK] = freeze
    try:
        yield
    finally:
        del hooks[HOOK]
        for layer in frozen:
            layer.track_running_stats = True


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
