"""The training loop: one seed of one cell, from a configuration to numbers."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from msam import methods, probes
from msam._startup import plain_sgd
from msam.coalitions import accuracy, batch_shares, coalition_logits, evaluation_mode, responses
from msam.datasets import Dataset, Split
from msam.methods import Method, StepReport
from msam.models import LateFusion, MultimodalClassifier, build_classifier
from msam.optim._passes import RandomState, random_state, set_random_state

EVALUATION_BATCH = 512

STACKED = "stacked"
"""Word in `fast` for a cell whose seeds may be trained together (`msam.stacked`)."""


def batches(split: Split, size: int, order: torch.Generator) -> Iterator[Split]:
    """Shuffled batches of the split; an incomplete last batch is left out (BatchNorm needs more than one).

    Labels come in one dimension, those of the segments of a video one after the other, as the logits do.
    """
    drawn = torch.randperm(len(split), generator=order)
    there = drawn.to(split.labels.device)  # once: every copy from here to a GPU waits for it
    for index, own in zip(drawn.split(size), there.split(size), strict=True):
        if len(index) == min(size, len(split)):
            yield Split(rows_of(split.inputs, index, own), split.labels[own].flatten())


def rows_of(inputs: Mapping[str, Tensor], index: Tensor, own: Tensor) -> dict[str, Tensor]:
    """Rows of every input on the device to train on.

    Args:
        inputs: modality -> tensor, there or in the host's memory.
        index: numbers of the rows, in the host's memory.
        own: the same, on the device to train on.
    """
    chosen = {m: x[own if x.device == own.device else index] for m, x in inputs.items()}
    return {m: sent(x, own.device) for m, x in chosen.items()}


def with_label_noise(split: Split, fraction: float, classes: int, seed: int) -> Split:
    """The split with that fraction of its labels, drawn by the seed, moved to another class each."""
    noise = torch.Generator().manual_seed(seed)
    wrong = torch.rand(split.labels.shape, generator=noise) < fraction
    shift = torch.randint(1, classes, split.labels.shape, generator=noise) * wrong
    return replace(split, labels=(split.labels + shift.to(split.labels.device)) % classes)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; from the host's memory without waiting for the copy."""
    return x if x.device == device else x.pin_memory().to(device, non_blocking=True)


@torch.no_grad()
def evaluate(model: MultimodalClassifier, split: Split) -> dict[str, Any]:
    """Loss, accuracies and shares of a split, in evaluation mode.

    Returns:
        `loss`: mean cross-entropy of the fused logits, nats. `accuracy`: of the fused logits and, for each
        modality, of its Shapley response (definition U3, AGM's). `head_accuracy`: of each
        modality's own head, late fusion only (U2). `modality_loss`: mean cross-entropy, nats, of each
        modality's head with late fusion, of its response with early fusion. `shares`: v_m (Eq. 20) of
        the split's accuracies.
    """
    names, labels = model.modalities, split.labels.flatten()
    parts: list[Tensor] = []
    heads: list[Tensor] = []
    with evaluation_mode(model):
        for start in range(0, len(split), EVALUATION_BATCH):
            inputs = {
                m: sent(split.inputs[m][start : start + EVALUATION_BATCH], labels.device) for m in names
            }
            features = model.encode(inputs)
            parts.append(coalition_logits(model, inputs, features))
            if isinstance(model.fusion, LateFusion):
                heads.append(torch.stack(list(model.fusion.head_logits(features).values())))
    logits = torch.cat(parts, 1)
    fused, answers = logits[-1], responses(logits, names)
    own = torch.cat(heads, 1) if heads else answers

    def by_modality(values: Iterable[Tensor]) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "loss": float(F.cross_entropy(fused, labels)),
        "accuracy": {"fused": float(accuracy(fused, labels))} | by_modality(accuracy(answers, labels)),
        "head_accuracy": by_modality(accuracy(own, labels)) if heads else {},
        "modality_loss": by_modality(F.cross_entropy(z, labels) for z in own),
        "shares": by_modality(batch_shares(logits, labels, names)),
    }


def squared_gradient_norm(model: MultimodalClassifier, split: Split) -> float:
    """Squared L2 norm of the gradient of a split's loss, over all parameters together, in evaluation mode.

    The loss is the mean cross-entropy of the fused logits, without weight decay. No gradient is left in the
    parameters, and those that are there stay.
    """
    labels, parameters = split.labels.flatten(), [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    per_example = len(labels) // len(split)
    with evaluation_mode(model):
        for start in range(0, len(split), EVALUATION_BATCH):
            stop = start + EVALUATION_BATCH
            inputs = {m: sent(split.inputs[m][start:stop], labels.device) for m in model.modalities}
            own = labels[start * per_example : stop * per_example]
            loss = F.cross_entropy(model(inputs), own, reduction="sum") / len(labels)
            torch._foreach_add_(total, torch.autograd.grad(loss, parameters, materialize_grads=True))
    return sum(float(g.double().square().sum()) for g in total)


@dataclass
class Run:
    """Where the training of a seed stands after an epoch; saved and loaded as one object."""

    model: MultimodalClassifier
    base: Optimizer
    method: Method
    schedule: LRScheduler
    order: torch.Generator
    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    gradients: int = 0
    seconds: float = 0.0
    random_state: RandomState = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a checkpoint so that the path holds the old one or the new one."""
        self.random_state = random_state(self.model.parameters())
        temporary = path.with_suffix(".pt.unfinished")
        torch.save(vars(self) | {"order": self.order.get_state()}, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a checkpoint of our own (a pickle: never one from elsewhere) and set torch's random state."""
        content = torch.load(path, weights_only=False)
        order = torch.Generator()
        order.set_state(content["order"])
        run = cls(**content | {"order": order})
        set_random_state(run.random_state)
        return run


def start(config: Mapping[str, Any], dataset: Dataset, seed: int) -> Run:
    """A run before its first epoch: network, optimizer and method, built after the seed is set."""
    torch.manual_seed(seed)
    method = methods.build(config["method"], config["options"])
    method.check(config["fusion"], dataset.modalities)
    names = method.modalities(dataset.modalities)
    train = dataset.splits["train"]
    model = build_classifier(
        {m: dataset.kinds[m] for m in names},
        {m: train.inputs[m].shape[1:] for m in names},
        len(dataset.classes),
        config["fusion"],
        config["width"],
        config.get("size", "small"),
        [word for word in config.get("fast", ()) if word != STACKED],
    ).to(train.labels.device)
    base = base_optimizer(model.param_groups(), config)
    method.setup(model, base, config)
    return Run(model, base, method, base_schedule(base, config), torch.Generator().manual_seed(seed))


def base_optimizer(parameters: Iterable[Any], config: Mapping[str, Any]) -> Optimizer:
    """SGD with the settings of a cell, on parameters or param groups."""
    settings = {name: config["optimizer"][name] for name in ("lr", "momentum", "weight_decay")}
    return plain_sgd()(parameters, **settings)


def base_schedule(base: Optimizer, config: Mapping[str, Any]) -> LRScheduler:
    """The learning rate, times `gamma` after each of the fractions `milestones` of the epochs."""
    settings = config["optimizer"]
    milestones = [round(fraction * config["epochs"]) for fraction in settings["milestones"]]
    return MultiStepLR(base, milestones, settings["gamma"])


def train_seed(
    config: Mapping[str, Any],
    dataset: Dataset,
    seed: int,
    progress: Callable[[int, dict[str, Any]], None] = lambda epoch, entry: None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train one seed of a cell.

    The seed fixes initialization, order of the batches and dropout. At the same seed every method sees the
    same order of batches and, for the same model, the same initialization.

    Args:
        config: configuration of the cell, as `msam.studies` makes it; `probes`, if there, names what is
            measured of the trained network, outside of its `seconds`.
        dataset: the data; the device of the labels is the one to train on, inputs may lie in the host's
            memory.
        seed: the seed.
        progress: called after every epoch with its number and its entry of the record.
        checkpoint: file that keeps the run after every epoch; if it is there, the training goes on from it
            to the same numbers, or from the start if it is damaged. The caller makes its name from everything
            that determines the run.

    Returns:
        An entry of a record's `seeds`; see `msam.records`.

    Raises:
        UnsupportedCell: the method is not defined for the cell.
    """
    started = time.perf_counter()
    run = _kept(checkpoint) or start(config, dataset, seed)
    splits, reason = splits_of(config, dataset, seed), ""
    while len(run.epochs) < config["epochs"] and not reason:
        run.model.train()
        lr = run.base.param_groups[0]["lr"]
        train = batches(splits["train"], config["batch_size"], run.order)
        reports = [run.method.step(batch) for batch in train]
        run.schedule.step()
        reason = end_epoch(run, config, splits, lr, reports)
        run.seconds, started = run.seconds + time.perf_counter() - started, time.perf_counter()
        if not reason:
            if checkpoint:
                run.save(checkpoint)
            progress(len(run.epochs), run.epochs[-1])
    run.seconds += time.perf_counter() - started
    return outcome(run, config, dataset, seed, reason)


def _kept(checkpoint: Path | None) -> Run | None:
    """The run that a checkpoint keeps; None if there is none or it is damaged, which may raise anything."""
    if checkpoint and checkpoint.is_file():
        with suppress(Exception):
            return Run.load(checkpoint)
    return None


def splits_of(config: Mapping[str, Any], dataset: Dataset, seed: int) -> dict[str, Split]:
    """The splits that a seed sees: labels of the train split with the noise of the cell."""
    noise = config.get("label_noise", 0.0)
    train = with_label_noise(dataset.splits["train"], noise, len(dataset.classes), seed)
    return {**dataset.splits, "train": train}


def end_epoch(
    run: Run, config: Mapping[str, Any], splits: Mapping[str, Split], lr: float, reports: list[StepReport]
) -> str:
    """Evaluate the network and add the epoch's entry to the run.

    Args:
        run: the run; its model has the weights after the epoch.
        config: configuration of the cell.
        splits: from `splits_of`.
        lr: the learning rate in the epoch.
        reports: of all steps of the epoch.

    Returns:
        Why the seed has diverged, then without an entry; "" if it has not.
    """
    run.steps += len(reports)
    run.gradients += sum(r.gradient_evaluations for r in reports)
    epoch, losses = len(run.epochs) + 1, torch.stack([r.loss for r in reports])
    if not losses.isfinite().all():
        return f"the training loss is not finite in epoch {epoch}"
    evaluations = {name: evaluate(run.model, split) for name, split in splits.items()}
    for name, evaluation in evaluations.items():
        if not math.isfinite(evaluation["loss"]):
            return f"the loss of the split {name} is not finite in epoch {epoch}"
    entry: dict[str, Any] = {"epoch": epoch, "lr": lr, **evaluations}
    entry |= {"step_loss": float(losses.mean()), **_dominance(reports, run.model.modalities)}
    if config.get("gradient_norm"):
        entry["gradient_norm"] = squared_gradient_norm(run.model, splits["train"])
    run.method.end_epoch(entry["validation"])
    run.epochs.append(entry)
    return ""


def outcome(
    run: Run, config: Mapping[str, Any], dataset: Dataset, seed: int, reason: str = ""
) -> dict[str, Any]:
    """The seed's entry of a record; `reason` says why it has diverged."""
    result: dict[str, Any] = {
        "seed": seed,
        "state": "diverged" if reason else "done",
        "reason": reason,
        "seconds": round(run.seconds, 2),
        "steps": run.steps,
        "gradient_evaluations": run.gradients,
        "peak_memory_mb": _peak_memory_mb(dataset.splits["train"].labels.device),
        "epochs": run.epochs,
        "final": {} if reason else select(run.epochs),
    }
    if not reason and "probes" in config:
        result["probes"] = probes.measure(config["probes"], run.model, dataset, seed)
    return result


def select(epochs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The epoch to report by three rules: last, best validation, best test accuracy (the earliest)."""
    chosen = {"last": epochs[-1]}
    splits = [name for name in ("train", "validation", "test") if name in epochs[0]]
    for split in splits[1:]:
        chosen[f"best_{split}"] = max(epochs, key=lambda entry: entry[split]["accuracy"]["fused"])
    return {rule: {k: e[k] for k in ("epoch", *splits)} for rule, e in chosen.items()}


def _dominance(reports: list[StepReport], names: list[str]) -> dict[str, Any]:
    """Mean shares, number of batches each modality dominated, and how often the dominant one switched."""
    if reports[0].shares is None:
        return {"shares": {}, "dominant_share": None, "dominance": {}, "switches": 0}
    shares = torch.stack([r.shares for r in reports if r.shares is not None])
    dominant = torch.stack([r.dominant for r in reports if r.dominant is not None])
    count = dominant.bincount(minlength=len(names)).tolist()
    steering = shares.gather(1, dominant.to(shares.device)[:, None])
    return {
        "shares": dict(zip(names, shares.mean(0).tolist(), strict=True)),
        "dominant_share": float(steering.mean()),
        "dominance": dict(zip(names, count, strict=True)),
        "switches": int((dominant.diff() != 0).sum()),
    }


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)
