"""What a batch takes in a network, counted on tensors that have shapes and no content."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from msam.training import EVALUATION_BATCH


@dataclass(frozen=True)
class Counts:
    """FLOPs and kernels of a forward pass, and of it with the backward pass; bytes beside the weights."""

    forward: tuple[int, int]
    both: tuple[int, int]
    alive: int


class Meter(TorchDispatchMode):
    """Counts kernels, and the bytes that are alive of the tensors made inside; `known` were there before."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.kernels = self.live = self.peak = 0
        self.seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, then look at what it returns."""
        out = func(*args, **(kwargs or {}))
        storages = [x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor)]
        new = [storage for storage in storages if storage not in self.seen]
        self.kernels += bool(new) or func._schema.is_mutable
        for storage in new:
            self.seen.add(storage)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _free(self, size: int) -> None:
        self.live -= size


def count(model: nn.Module, inputs: Mapping[str, tuple[tuple[int, ...], str]], size: int) -> Counts:
    """Count a batch of `size` examples; `inputs` is modality -> shape of an example and type.

    The parameters may lie on the device "meta". Nothing is computed.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        known = [*model.parameters(), *model.buffers()]

        def output(examples: int) -> Tensor:
            return model(
                {
                    m: torch.empty(examples, *shape, dtype=getattr(torch, kind))
                    for m, (shape, kind) in inputs.items()
                }
            )

        with FlopCounterMode(display=False) as flops, Meter(known) as meter:
            loss = _loss(output(size))
            forward = flops.get_total_flops(), meter.kernels
            torch.autograd.grad(
                loss, [*model.parameters()]
            )  # `backward` would clone gradients without content
        with torch.no_grad(), Meter(known) as evaluation:
            output(EVALUATION_BATCH)
        return Counts(forward, (flops.get_total_flops(), meter.kernels), max(meter.peak, evaluation.peak))


def _loss(logits: Tensor) -> Tensor:
    """A prediction may be one of an example or one of each of its segments."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))
