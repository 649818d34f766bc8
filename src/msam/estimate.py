"""What a cell with the paper's networks costs on a GPU, counted before anything runs.

`msam.counting` counts one batch through the network: floating point operations, kernels (operators that write
memory), and the bytes alive at once.

    time of a pass = max(FLOPs / THROUGHPUT, kernels * LAUNCH)
    time of a seed = epochs * (steps * passes * time of a pass + time of evaluating all examples)
    memory         = weights + momentum + the most that is alive in a pass or in the evaluation

`passes` are the method's gradient evaluations, as it reports them of a real step on a toy network; a method
of several also holds a copy of the weights and the first gradients, as SAM does. Left out: optimizer and
coalitions, the data and copying them where they do not fit on the GPU, preparing them, CUDA's own memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from msam import methods
from msam.counting import Counts, count
from msam.datasets import Split
from msam.datasets._expected import expected
from msam.datasets._source import find
from msam.models import build_classifier
from msam.training import EVALUATION_BATCH

THROUGHPUT, LAUNCH = 30e12, 10e-6
"""Assumed: FLOP/s sustained, a tenth of an A100's bfloat16 peak; seconds to start a kernel from Python."""

NOTE = (
    "~ is an estimate, nothing was run: FLOPs and kernels counted on shapes, at"
    f" {THROUGHPUT / 1e12:.0f} TFLOP/s or {LAUNCH * 1e6:.0f} us a kernel, whichever takes longer;"
    " memory without the data, which lie there too where they fit"
)


@dataclass(frozen=True)
class Cost:
    """Of a cell on a GPU: seconds of all its seeds, one after the other, and bytes of memory at most."""

    seconds: float
    memory: int


@cache
def network(description: str) -> tuple[int, Counts]:
    """Bytes of the weights, and `count`, from JSON: arguments of `build_classifier`, inputs, batch."""
    arguments, inputs, size = json.loads(description)
    with torch.device("meta"):
        model = build_classifier(**arguments, size="paper")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return weights, count(model, {m: (tuple(shape), kind) for m, (shape, kind) in inputs.items()}, size)


@cache
def passes(method: str, options: str, fusion: str, modalities: tuple[str, ...]) -> int:
    """Gradient evaluations of one step on a toy network; 0 where the method is not defined, 1 if it fails."""
    trained = methods.build(method, json.loads(options))
    try:
        trained.check(fusion, modalities)
    except methods.UnsupportedCell:
        return 0
    names = trained.modalities(modalities)
    toy = "late" if fusion == "psp" else fusion  # of which there is no small one
    model = build_classifier(dict.fromkeys(names, "vector"), dict.fromkeys(names, (3,)), 2, toy, 4)
    base = torch.optim.SGD(model.param_groups(), lr=1e-3, momentum=0.9)
    batch = Split({m: torch.randn(4, 3) for m in names}, torch.tensor([0, 1, 0, 1]))
    try:
        trained.setup(model, base, {"rho": 0.05, "epochs": 1})
        return trained.step(batch).gradient_evaluations
    except Exception:  # a method from elsewhere may need what the toy lacks; a plan must not end there
        return 1


def cost(config: Mapping[str, Any], seeds: int) -> Cost | None:
    """Estimate for a cell's configuration; None where its dataset does not say how much it holds."""
    source = find(config["dataset"], config["dataset_options"])
    data = expected(source)
    if data is None:
        return None
    options = config["options"] | ({"share": 0.5} if isinstance(config["options"].get("share"), str) else {})
    evaluations = passes(config["method"], json.dumps(options), config["fusion"], tuple(source.kinds))
    names = methods.build(config["method"], options).modalities(list(source.kinds))
    shapes = {m: data.shapes[m] for m in names}
    arguments = {
        "kinds": {m: source.kinds[m] for m in names},
        "shapes": shapes,
        "classes": len(source.classes),
        "fusion": config["fusion"],
        "width": config["width"],
        # the layout of memory does not change what is counted
        "fast": [word for word in config.get("fast", ()) if word == "bf16"],
    }
    batch = config["batch_size"]
    inputs = {m: (shapes[m], source.stored[m]) for m in names}
    weights, counts = network(json.dumps([arguments, inputs, batch]))
    steps = max(1, data.sizes[0] // batch)
    rounds = sum(data.sizes) / EVALUATION_BATCH
    larger = EVALUATION_BATCH / batch
    step = evaluations * seconds(*counts.both)
    evaluation = rounds * seconds(larger * counts.forward[0], counts.forward[1])
    held = weights * (4 if evaluations > 1 else 2)
    return Cost(
        bool(evaluations) * seeds * config["epochs"] * (steps * step + evaluation), held + counts.alive
    )


def seconds(flops: float, kernels: int) -> float:
    """Time of a pass."""
    return max(flops / THROUGHPUT, kernels * LAUNCH)
