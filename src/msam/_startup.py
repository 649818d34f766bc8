"""What saves seconds in each of the many short processes of a study.

PyTorch's optimizers import `torch._dynamo`, its compiler, when the first one is made or steps, only to hide
themselves from it. That takes as long as `import torch` again, and only `fast: [compile]` needs the compiler.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import SGD, Optimizer


def plain_sgd() -> type[SGD]:
    """`torch.optim.SGD` whose methods do not import the compiler; the same arithmetic."""
    for method in vars(Optimizer).values():  # their wrappers look this attribute up before they import it
        hidden = getattr(method, "__wrapped__", None)
        if hidden is not None and not hasattr(hidden, "__dynamo_disable"):
            setattr(hidden, "__dynamo_disable", hidden)
    return PlainSGD


class PlainSGD(SGD):
    """See `plain_sgd`."""

    step = torch.no_grad()(inspect.unwrap(SGD.step))
