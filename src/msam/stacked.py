"""Many seeds at once: the networks of all seeds of a cell in one pass, where they are too small for a GPU.

Parameters, buffers, batches and gradients get the seeds as their leading dimension S, and `torch.func.vmap`
takes the functions of one network over it. A seed has its own initialization, label noise, order of the
batches, shares and norm in SAM's perturbation; its numbers are those that `msam.training.train_seed` gives
it alone, up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.dropout import _DropoutNd

from msam import methods, training
from msam.coalitions import batch_shares, coalition_logits
from msam.datasets import Dataset, Split
from msam.methods import StepReport
from msam.models import FUSIONS, MultimodalClassifier
from msam.optim import _update
from msam.optim._passes import frozen_batch_norm
from msam.training import STACKED

METHODS = ("joint", "sam", "msam", "mixture")
OPTIMIZER = {"lr", "momentum", "weight_decay", "milestones", "gamma"}

LEAST = 5
"""Seeds from which on stacking saves time, on the CPU and on a GPU, by `benchmarks/stacked.py`."""


def worthwhile(config: Mapping[str, Any], dataset: Dataset, seeds: int) -> bool:
    """Whether to train that many seeds together: the study asks for it, it saves time, and it can be done."""
    return STACKED in config.get("fast", ()) and seeds >= LEAST and not refusal(config, dataset)


def refusal(config: Mapping[str, Any], dataset: Dataset) -> str:
    """Why the seeds of a cell cannot be trained together, "" if they can; builds the network to see."""
    name, ways = config["method"], [word for word in config.get("fast", ()) if word != STACKED]
    if name not in METHODS:
        return f"method {name!r} has no stacked form; those that have are {', '.join(METHODS)}"
    if name == "msam" and vars(methods.build(name, config["options"])) != vars(methods.build(name, {})):
        return f"of M-SAM only the default options have a stacked form, not {config['options']}"
    if config["fusion"] not in FUSIONS:
        return f"fusion {config['fusion']!r} has no stacked form; those that have are {', '.join(FUSIONS)}"
    if config.get("size", "small") != "small":
        return f"networks of size {config['size']!r} fill the device alone and draw random crops"
    if ways:
        return f"stacked seeds cannot be combined with {ways[0]!r}"
    if set(config["optimizer"]) != OPTIMIZER:
        return f"the optimizer must be SGD with {', '.join(sorted(OPTIMIZER))}"
    layers = training.start(config, dataset, 0).model.modules()
    if any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in layers):
        return "the network has dropout, whose random numbers would be others than those of each seed alone"
    return ""


def train_seeds(
    configs: Mapping[int, Mapping[str, Any]],
    dataset: Dataset,
    progress: Callable[[int, int, dict[str, Any]], None] = lambda seed, epoch, entry: None,
) -> list[dict[str, Any]]:
    """Train seeds of a cell together.

    Args:
        configs: seed -> configuration of the cell, which may differ in the option `share` only.
        dataset: as `train_seed` takes it.
        progress: called after every epoch with the seed, the epoch's number and its entry of the record.

    Returns:
        What `train_seed` returns for each of the seeds; `seconds` is an equal part of the time of all.

    Raises:
        UnsupportedCell: the method is not defined for the cell.
        ValueError: the cell has no stacked form, see `refusal`, or the configurations differ.
    """
    started = time.perf_counter()
    config = next(iter(configs.values()))
    if any(_without_share(other) != _without_share(config) for other in configs.values()):
        raise ValueError("configurations of stacked seeds may differ in their share only")
    if refused := refusal(config, dataset):
        raise ValueError(refused)
    runs = {seed: training.start(own, dataset, seed) for seed, own in configs.items()}
    splits = {seed: training.splits_of(config, dataset, seed) for seed in runs}
    trains, orders = [own["train"] for own in splits.values()], [run.order for run in runs.values()]
    reasons = dict.fromkeys(runs, "")
    stack = _Stack(config, list(runs.values()))
    while not all(reasons.values()) and max(len(run.epochs) for run in runs.values()) < config["epochs"]:
        lr = stack.base.param_groups[0]["lr"]
        reports = [stack.step(batch) for batch in _batches(trains, config["batch_size"], orders)]
        stack.schedule.step()
        for k, (seed, run) in enumerate(runs.items()):
            if reasons[seed]:
                continue
            stack.unstack(k)
            own = [_of(k, report) for report in reports]
            reasons[seed] = training.end_epoch(run, config, splits[seed], lr, own)
            if not reasons[seed]:
                progress(seed, len(run.epochs), run.epochs[-1])
    for run in runs.values():
        run.seconds = (time.perf_counter() - started) / len(runs)
    return [training.outcome(run, config, dataset, seed, reasons[seed]) for seed, run in runs.items()]


def _without_share(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "options": {k: v for k, v in config["options"].items() if k != "share"}}


def _of(k: int, report: StepReport) -> StepReport:
    """The k-th seed's part of a report of all."""
    own: dict[str, Any] = {name: x[k] for name, x in vars(report).items() if isinstance(x, Tensor)}
    return replace(report, **own)


def _batches(trains: Sequence[Split], size: int, orders: Sequence[torch.Generator]) -> Iterator[Split]:
    """What `msam.training.batches` gives every seed: inputs S x B x ..., labels S x B."""
    labels = torch.stack([train.labels for train in trains])
    examples = labels.shape[1]
    drawn = torch.stack([torch.randperm(examples, generator=order) for order in orders])
    for index, own in zip(drawn.split(size, 1), drawn.to(labels.device).split(size, 1), strict=True):
        if index.shape[1] == min(size, examples):
            yield Split(training.rows_of(trains[0].inputs, index, own), labels.gather(1, own))


class _Network(nn.Module):
    """A classifier whose call is any function of it: `functional_call` reaches `encode` and `fuse`."""

    def __init__(self, model: MultimodalClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.model, *arguments)


class _Stack:
    """The networks of all seeds and one optimizer for them, which works entry by entry.

    Args:
        config: configuration of the cell.
        runs: one a seed; their models hold the weights after `unstack` only, their optimizers rest.
    """

    def __init__(self, config: Mapping[str, Any], runs: Sequence[training.Run]) -> None:
        self.networks = [_Network(run.model) for run in runs]
        self.parameters, self.buffers = stack_module_state(self.networks)  # type: ignore[arg-type]
        self.weights = list(self.parameters.values())
        self.base = training.base_optimizer(self.weights, config)
        self.schedule = training.base_schedule(self.base, config)
        self.method, self.rho = config["method"], config["rho"]
        self.share = self.weights[0].new_tensor([getattr(run.method, "share", 1.0) for run in runs])

    def unstack(self, k: int) -> None:
        """Copy weights and buffers of the k-th seed into its run's model."""
        state = self.parameters | self.buffers
        self.networks[k].load_state_dict({name: tensor[k] for name, tensor in state.items()})

    @torch.no_grad()
    def step(self, batch: Split) -> StepReport:
        """One step of every seed; the tensors of batch and report have the seeds as leading dimension."""
        loss, clean, *outputs = self._pass(batch, self.parameters)
        if self.method == "joint":
            self._update(clean)
            return StepReport(loss, 1)
        report, share = StepReport(loss, 2), self.share
        if self.method == "msam":
            shares = self._call(_shares, self.parameters, batch, *outputs)
            report, share = StepReport(loss, 2, shares, shares.argmax(1)), shares.amax(1)
        weights = vmap(partial(_ascended, self.rho))(self.weights, clean)
        moved = {name: w.requires_grad_() for name, w in zip(self.parameters, weights, strict=True)}
        with frozen_batch_norm():
            _, perturbed, *_ = self._pass(batch, moved)
        self._update(
            [vmap(torch.lerp)(g, h, share.to(g.dtype)) for g, h in zip(clean, perturbed, strict=True)]
        )
        return report

    def _update(self, gradients: list[Tensor]) -> None:
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.base.step()

    @torch.enable_grad()
    def _pass(self, batch: Split, parameters: Mapping[str, Tensor]) -> tuple[Any, ...]:
        """Losses, shape (S,), their gradients in the order of the parameters, features and logits."""
        losses, *outputs = self._call(_loss, parameters, batch)
        gradients = torch.autograd.grad(losses.sum(), list(parameters.values()))
        return losses.detach(), list(gradients), *outputs

    def _call(self, function: Any, parameters: Mapping[str, Tensor], batch: Split, *more: Any) -> Any:
        """function(model, inputs, labels, ...) of every seed."""

        def one(parameters: Any, buffers: Any, *arguments: Any) -> Any:
            return functional_call(self.networks[0], (parameters, buffers), (function, *arguments))

        return vmap(one)(parameters, self.buffers, batch.inputs, batch.labels, *more)


def _loss(model: MultimodalClassifier, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Any, ...]:
    """Loss of a batch, features and logits of one seed."""
    features = model.encode(inputs)
    logits = model.fuse(features)
    return F.cross_entropy(logits, labels), features, logits


def _shares(model: MultimodalClassifier, inputs: Any, labels: Tensor, features: Any, fused: Tensor) -> Tensor:
    """Shares of a batch of one seed, shape (M,)."""
    return batch_shares(coalition_logits(model, inputs, features, fused), labels, model.modalities)


def _ascended(rho: float, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """`msam.optim._update.ascend` of one seed, out of place: vmap has no rule for its _foreach_norm."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    scale = norm + _update.EPSILON
    return [w + g / scale * rho for w, g in zip(weights, gradients, strict=True)]
