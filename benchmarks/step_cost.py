"""What one training step of every method costs, relative to SAM: `python benchmarks/step_cost.py`.

All methods train one network on one batch of 64 examples of 10 classes, in one process and one thread. A
repeat is one step of every method, in shuffled order, so that a slow moment of the machine hits all alike. On
the CPU the clock is the process's CPU time: with one thread it is the step's work, and other programs on the
machine do not count. On a GPU it is wall time, synchronized.

There are two networks: `small`, the study's encoders of width 32 on images of 1 x 28 x 28, where much of a
step is the start of small operations; and `paper`, the paper's pair of ResNet18 on the inputs of AV-MNIST, an
image of 1 x 28 x 28 and a spectrogram of 1 x 112 x 112, where it is arithmetic; the latter for the optimizers
only, on the CPU a fortieth of the repeats. Every method is timed in its second epoch, so prototypes exist and
no window has ended. A step of ReconBoost is one of rectification; boosting costs less.

Columns of the table and of the rows of the JSON file:

    ratio_to_sam      median over the repeats of time / time of SAM in the same repeat
    ratio_to_sam_iqr  its lower and upper quartile
    ratio_to_joint    as ratio_to_sam, relative to joint training
    median_ms         median time of a step by the clock above
    wall_ms           median wall time of a step
    forward           forward passes over the batch: samples that went into the encoders, divided by the
                      batch size and the number of encoders; counted by hooks, as the next two
    fuse              samples that went into the last layer (of the first modality, with late fusion), divided
                      by the batch size
    backward          samples whose gradient came back to the encoders, divided as `forward`

"msam (naive)" is the reading `loss` written without the library's coalitions: every coalition is one more
forward pass of the whole model, on inputs with the absent modalities zeroed.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msam import methods
from msam.cells import describe_device, device_name
from msam.coalitions import batch_shares
from msam.datasets import Split
from msam.methods import Method, StepReport
from msam.models import FUSIONS, MultimodalClassifier, build_classifier
from msam.optim import ModalityAwareSAM
from msam.records import provenance, write
from msam.shapley import coalitions
from msam.training import evaluate

MODALITIES = (2, 3, 6)
BATCH, CLASSES, WIDTH, SHAPE = 64, 10, 32, (1, 28, 28)
AV_MNIST = {"image": (1, 28, 28), "audio": (1, 112, 112)}
WARM_UP = 5
OUTPUT = Path("results/local/benchmarks/step_cost.json")


class NaiveMSAM(Method):
    """Reading `loss` by whole forward passes, the way Algorithm 1 reads."""

    def setup(
        self, model: MultimodalClassifier, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]
    ) -> None:
        """Wrap the base optimizer; `config["rho"]` is the radius."""
        self.sam = ModalityAwareSAM(None, optimizer, rho=config["rho"])
        super().setup(model, self.sam, config)

    @torch.no_grad()
    def shares(self, batch: Split) -> Tensor:
        """Share of every modality in the batch, shape (M,)."""
        self.model.eval()
        logits = [
            self.model({m: x if m in present else torch.zeros_like(x) for m, x in batch.inputs.items()})
            for present in coalitions(tuple(batch.inputs))
        ]
        self.model.train()
        return batch_shares(torch.stack(logits), batch.labels, self.model.modalities)

    def step(self, batch: Split) -> StepReport:
        """One step, two gradients."""
        loss = self.sam.step(self.closure(batch), lambda: self.shares(batch).max())
        return StepReport(loss, 2)


Cases = Mapping[str, Callable[[], Method]]
"""Name of a row -> what makes its method."""


def build(name: str, **options: Any) -> Callable[[], Method]:
    """A case of a method with these options."""
    return lambda: methods.build(name, options)


OPTIMIZERS: Cases = {
    "joint": build("joint"),
    "sam": build("sam"),
    "msam": build("msam"),
    "msam+response": build("msam", reading="response"),
    "msam+encoder": build("msam", reading="encoder"),
    "msam (naive)": NaiveMSAM,
}
APART = ("unimodal", "msam", "lazy_msam")  # another network; among the optimizers; see modalities.py
METHODS: Cases = OPTIMIZERS | {name: build(name) for name in methods.names() if name not in APART}


def batch_of(shapes: Mapping[str, tuple[int, ...]]) -> Split:
    """Random inputs of these shapes and random labels."""
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(BATCH, *shape, generator=generator) for m, shape in shapes.items()}
    return Split(inputs, torch.randint(CLASSES, (BATCH,), generator=generator))


def trainers(fusion: str, batch: Split, net: str = "small", cases: Cases = METHODS) -> dict[str, Method]:
    """Every case in its second epoch on its own copy of one network; the small rate keeps them alike."""
    torch.manual_seed(0)
    shapes = {m: x.shape[1:] for m, x in batch.inputs.items()}
    kinds = dict.fromkeys(shapes, "image")
    first = build_classifier(kinds, shapes, CLASSES, fusion, WIDTH, net).to(batch.labels.device)
    made = {}
    for name, make in cases.items():
        model = copy.deepcopy(first).train()
        base = torch.optim.SGD(model.param_groups(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        made[name] = make()
        made[name].setup(model, base, {"rho": 0.05, "epochs": 100})
        made[name].step(batch)
        made[name].end_epoch(evaluate(model, batch))
    return made


def count_passes(method: Method, batch: Split, steps: int = 1) -> dict[str, float]:
    """Passes over the batch in one step, mean over `steps`, by hooks; see the module's text."""
    seen: Counter[str] = Counter()

    def encoded(_module: torch.nn.Module, _inputs: tuple, output: Tensor) -> None:
        seen["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.update(backward=len(gradient)))

    def fused(_module: torch.nn.Module, _inputs: tuple, output: Tensor) -> None:
        seen["fuse"] += len(output)

    encoders = method.model.encoders.values()
    hooks = [encoder.register_forward_hook(encoded) for encoder in encoders]
    hooks.append(method.model.fusion.outputs[0].register_forward_hook(fused))
    for _ in range(steps):
        method.step(batch)
    for hook in hooks:
        hook.remove()
    parts = {"forward": len(encoders), "fuse": 1, "backward": len(encoders)}
    return {name: round(seen[name] / len(batch) / n / steps, 3) for name, n in parts.items()}


def timed(method: Method, batch: Split, steps: int = 1) -> tuple[float, float]:
    """Seconds of one step, mean over `steps`: by the clock that counts, and wall time."""
    cuda = batch.labels.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        method.step(batch)
    if cuda:
        torch.cuda.synchronize()
    cpu, wall = (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps
    return (wall if cuda else cpu), wall


def measure(
    net: str,
    fusion: str,
    shapes: Mapping[str, tuple[int, ...]],
    repeats: int,
    device: torch.device,
    cases: Cases = METHODS,
    steps: int = 1,
) -> list[dict[str, Any]]:
    """Rows of one network, a case each.

    Args:
        net: of the network.
        fusion: of the network.
        shapes: of the modalities' inputs.
        repeats: times that every case is measured.
        device: where the steps are taken.
        cases: what to measure; joint and sam are among them.
        steps: of a repeat, for cases whose steps differ.
    """
    batch = batch_of(shapes).to(device)
    made = trainers(fusion, batch, net, cases)
    passes = {name: count_passes(method, batch, steps) for name, method in made.items()}
    for _ in range(min(WARM_UP, repeats - 1)):
        for method in made.values():
            method.step(batch)
    order, shuffle = list(made), random.Random(0).shuffle
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            seconds[name].append(timed(made[name], batch, steps))
    return [
        {"net": net, "fusion": fusion, "modalities": len(shapes), "method": name}
        | summary(seconds, name)
        | passes[name]
        for name in made
    ]


def summary(seconds: Mapping[str, list[tuple[float, float]]], name: str) -> dict[str, Any]:
    """Medians of one method; `seconds` holds (clock, wall) of every method and repeat."""

    def ratios(to: str) -> list[float]:
        return [own[0] / other[0] for own, other in zip(seconds[name], seconds[to], strict=True)]

    to_sam = ratios("sam")
    low, _, high = statistics.quantiles(to_sam, method="inclusive") if len(to_sam) > 1 else to_sam * 3
    return {
        "ratio_to_sam": round(statistics.median(to_sam), 3),
        "ratio_to_sam_iqr": [round(low, 3), round(high, 3)],
        "ratio_to_joint": round(statistics.median(ratios("joint")), 3),
        "median_ms": round(1e3 * statistics.median(s for s, _ in seconds[name]), 3),
        "wall_ms": round(1e3 * statistics.median(s for _, s in seconds[name]), 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [
        f"{'net':9}{'fusion':7}{'M':>2}  {'method':22}{'/ SAM':>7}{'quartiles':>15}{'/ joint':>9}"
        f"{'ms':>10}{'wall ms':>10}{'forward':>9}{'fuse':>8}{'backward':>10}"
    ]
    for r in rows:
        low, high = r["ratio_to_sam_iqr"]
        lines.append(
            f"{r['net']:9}{r['fusion']:7}{r['modalities']:>2}  {r['method']:22}{r['ratio_to_sam']:>7.3f}"
            f"{f'{low:.3f}-{high:.3f}':>15}{r['ratio_to_joint']:>9.2f}{r['median_ms']:>10.2f}{r['wall_ms']:>10.2f}"
            f"{r['forward']:>9.2f}{r['fuse']:>8.2f}{r['backward']:>10.2f}"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None, text: str, repeats: int, output: Path) -> argparse.Namespace:
    """The options that every benchmark of steps has, with these defaults."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"of every method (default: {repeats})")
    gpu = output.parent / "cuda" / output.name
    parser.add_argument("--output", type=Path, help=f"JSON file (default: {output}; of a GPU {gpu})")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1, ... (default: cpu)")
    options = parser.parse_args(arguments)
    try:
        options.device = device_name(options.device, torch.cuda.is_available())
    except ValueError as error:
        parser.error(str(error))
    options.output = options.output or (gpu if options.device.startswith("cuda") else output)
    if options.repeats < 1:
        parser.error(f"repeats must be at least 1, not {options.repeats}")
    return options


def fewer(repeats: int, device: torch.device) -> int:
    """Repeats of the network `paper`, whose steps take a second on the CPU."""
    return repeats if device.type == "cuda" else -(-repeats // 40)


def environment(device: torch.device, repeats: int) -> dict[str, Any]:
    """Where and how the rows were measured, for their file."""
    about = provenance(describe_device(device), "")
    return {
        "device": about["device"],
        "threads": 1,
        "repeats": repeats,
        "clock": "wall time" if device.type == "cuda" else "CPU time",
        **about["versions"],
        "date": about["finished"],
        "commit": about["commit"],
        "dirty": about["dirty"],
    }


def report(rows: list[dict[str, Any]], device: torch.device, repeats: int, output: Path) -> None:
    """Write the rows with their environment, and print them."""
    about = environment(device, repeats)
    write(output, {"environment": about, "rows": rows})
    print(table(rows))
    print(f"{about['clock']}, {about['device']}, median of {repeats}: {output}")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Cost of one training step, method by method.", 100, OUTPUT)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    repeats = options.repeats
    nets = [("small", {f"m{i + 1}": SHAPE for i in range(m)}, repeats, METHODS) for m in MODALITIES]
    nets.append(("paper", AV_MNIST, fewer(repeats, device), OPTIMIZERS))
    rows = [
        row
        for net, shapes, n, cases in nets
        for fusion in FUSIONS
        for row in measure(net, fusion, shapes, n, device, cases)
    ]
    report(rows, device, repeats, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
