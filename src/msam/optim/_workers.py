"""What several workers that train one model have to agree on: torch.distributed in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def groups_of(ddp: DistributedDataParallel | None, parameters: list[Tensor]) -> list[Any]:
    """Process groups over which the model is trained: of DDP, or of each dimension of a mesh of shards."""
    if ddp is not None:
        return [ddp.process_group]
    mesh = getattr(next(iter(parameters), None), "device_mesh", None)
    return [] if mesh is None else mesh.get_all_groups()


def average(tensors: Sequence[Tensor], groups: list[Any]) -> list[Tensor]:
    """Mean of each tensor over the workers of the groups, by one all-reduce a group."""
    if not groups or not tensors:
        return list(tensors)
    flat = torch.cat([t.reshape(-1) for t in tensors])
    for group in groups:
        dist.all_reduce(flat, group=group)
        flat /= dist.get_world_size(group)
    parts = flat.split([t.numel() for t in tensors])
    return [part.view_as(t).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]


def local(tensors: list[Tensor]) -> list[Tensor]:
    """The part of sharded tensors (DTensor) that this worker holds, a view; others as they are."""
    return [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
