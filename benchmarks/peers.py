"""Our optimizers beside other SAMs: `python benchmarks/peers.py`.

One process, one network and batch, as in `step_cost.py`, whose columns these are, and one more:

    memory            most memory that a step holds at a time beyond what lay there before it, in sizes of the
                      network's parameters, from PyTorch's profiler; on the CPU

The peers are `pytorch_optimizer.SAM`, and "sam (two calls)", the form that most repositories copy: a first
and a second call around a second pass, with a loop over the parameters in each. Neither keeps BatchNorm
statistics or random numbers, nor looks for steps that are not finite; "sam" and "msam" are used as their
defaults are, with all of that. Shares come from the exact coalitions on shared features. Networks: `small`
with two and six modalities, and `paper`, ResNet18 for each, with two on the inputs of AV-MNIST, on the CPU a
fortieth of the repeats.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_optimizer
import torch
from step_cost import AV_MNIST, SHAPE, Cases, batch_of, build, fewer, measure, parse, report, trainers
from torch.profiler import ProfilerActivity, profile

from msam.datasets import Split
from msam.methods import Method, StepReport
from msam.methods.msam import MSAM
from msam.methods.sam import Sam
from msam.models import FUSIONS, MultimodalClassifier

OUTPUT = Path("results/local/benchmarks/peers.json")
SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4}


class Checked(Method):
    """The study's method with the check of every step that the library's users have."""

    def setup(
        self, model: MultimodalClassifier, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]
    ) -> None:
        """Switch the check on."""
        super().setup(model, optimizer, config)
        self.sam.skip_nonfinite = True


class Ours(Checked, Sam):
    """`msam.SAM` as a user has it."""


class OursWithShares(Checked, MSAM):
    """`msam.ModalityAwareSAM` as a user has it."""


class Library(Method):
    """`pytorch_optimizer.SAM`, which wants the first pass before its step."""

    def setup(
        self, model: MultimodalClassifier, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]
    ) -> None:
        """Around a base optimizer of its own."""
        self.sam = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=config["rho"], **SGD)
        super().setup(model, self.sam, config)

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients."""
        closure = self.closure(batch)
        loss = closure()
        self.sam.step(closure)
        return StepReport(loss.detach(), 2)


class TwoCalls(Method):
    """SAM by two calls, parameter by parameter."""

    def setup(
        self, model: MultimodalClassifier, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]
    ) -> None:
        """Keep the radius."""
        super().setup(model, optimizer, config)
        self.rho = config["rho"]

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients."""
        closure = self.closure(batch)
        loss = closure()
        kept = self._climb()
        closure()
        with torch.no_grad():
            for p, w in kept.items():
                p.data = w
        self.optimizer.step()
        return StepReport(loss.detach(), 2)

    @torch.no_grad()
    def _climb(self) -> dict[torch.Tensor, torch.Tensor]:
        moved = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in moved]).norm()
        kept = {}
        for p in moved:
            kept[p] = p.data.clone()
            p.add_(p.grad * (self.rho / (norm + 1e-12)))
        return kept


CASES: Cases = {
    "joint": build("joint"),
    "sam": Ours,
    "sam (pytorch-optimizer)": Library,
    "sam (two calls)": TwoCalls,
    "msam": OursWithShares,
}


def memory(method: Method, batch: Split) -> float:
    """The column `memory` of one method."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        method.step(batch)
    held = most = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return round(most / sum(p.nbytes for p in method.model.parameters()), 3)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Our optimizers beside other SAMs.", 100, OUTPUT)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    nets = [("small", {f"m{i + 1}": SHAPE for i in range(m)}, options.repeats) for m in (2, 6)]
    nets.append(("paper", AV_MNIST, fewer(options.repeats, device)))
    rows = []
    for net, shapes, repeats in nets:
        for fusion in FUSIONS:
            found = measure(net, fusion, shapes, repeats, device, CASES)
            batch = batch_of(shapes).to(device)
            made = trainers(fusion, batch, net, CASES) if device.type == "cpu" else {}
            rows += [row | ({"memory": memory(made[row["method"]], batch)} if made else {}) for row in found]
    report(rows, device, options.repeats, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
