"""The training loop: one seed of one cell, from a configuration to numbers."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msam import methods
from msam.coalitions import accuracy, batch_shares, coalition_logits, evaluation_mode
from msam.datasets import Dataset, Split
from msam.methods import StepReport
from msam.models import LateFusion, MultimodalClassifier, build_classifier
from msam.shapley import shapley_values

EVALUATION_BATCH = 512


def batches(split: Split, size: int, order: torch.Generator) -> Iterator[Split]:
    """Shuffled batches of the split; an incomplete last batch is left out (BatchNorm needs more than one)."""
    for index in torch.randperm(len(split), generator=order).split(size):
        if len(index) == min(size, len(split)):
            index = index.to(split.labels.device)
            yield Split({m: x[index] for m, x in split.inputs.items()}, split.labels[index])


@torch.no_grad()
def evaluate(model: MultimodalClassifier, split: Split) -> dict[str, Any]:
    """Loss, accuracies and shares of a split, in evaluation mode.

    Returns:
        `loss`: mean cross-entropy of the fused logits, nats. `accuracy`: of the fused logits and, for each
        modality, of its Shapley response (definition U3, AGM's). `head_accuracy`: of each
        modality's own head, late fusion only (U2). `shares`: v_m (Eq. 20) of the split's accuracies.
    """
    collected: dict[str, list[dict[Any, Tensor]]] = {"coalitions": [], "heads": []}
    with evaluation_mode(model):
        for start in range(0, len(split), EVALUATION_BATCH):
            inputs = {m: split.inputs[m][start : start + EVALUATION_BATCH] for m in model.modalities}
            features = model.encode(inputs)
            collected["coalitions"].append(coalition_logits(model, inputs, features))
            if isinstance(model.fusion, LateFusion):
                collected["heads"].append(model.fusion.head_logits(features))
    logits, heads = (
        {k: torch.cat([p[k] for p in parts]) for k in parts[0]} if parts else {}
        for parts in collected.values()
    )
    fused = logits[frozenset(model.modalities)]
    responses = {"fused": fused, **shapley_values(logits)}
    return {
        "loss": float(F.cross_entropy(fused, split.labels)),
        "accuracy": {name: float(accuracy(z, split.labels)) for name, z in responses.items()},
        "head_accuracy": {m: float(accuracy(z, split.labels)) for m, z in heads.items()},
        "shares": dict(
            zip(model.modalities, batch_shares(logits, split.labels, model.modalities).tolist(), strict=True)
        ),
    }


def train_seed(
    config: Mapping[str, Any],
    dataset: Dataset,
    seed: int,
    progress: Callable[[int, dict[str, Any]], None] = lambda epoch, entry: None,
) -> dict[str, Any]:
    """Train one seed of a cell.

    The seed fixes initialization, order of the batches and dropout. At the same seed every method sees the
    same order of batches and, for the same model, the same initialization.

    Args:
        config: configuration of the cell, as `msam.studies` makes it.
        dataset: the data, on the device to train on.
        seed: the seed.
        progress: called after every epoch with its number and its entry of the record.

    Returns:
        An entry of a record's `seeds`; see `msam.records`.

    Raises:
        UnsupportedCell: the method is not defined for the cell.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
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
    ).to(train.labels.device)
    settings = config["optimizer"]
    base = torch.optim.SGD(
        model.param_groups(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )
    milestones = [round(fraction * config["epochs"]) for fraction in settings["milestones"]]
    schedule = torch.optim.lr_scheduler.MultiStepLR(base, milestones, settings["gamma"])
    method.setup(model, base, config)

    result: dict[str, Any] = {"seed": seed, "state": "done", "reason": ""}
    epochs: list[dict[str, Any]] = []
    steps = gradients = 0
    for epoch in range(1, config["epochs"] + 1):
        model.train()
        lr = base.param_groups[0]["lr"]
        reports = [method.step(batch) for batch in batches(train, config["batch_size"], order)]
        schedule.step()
        steps += len(reports)
        gradients += sum(r.gradient_evaluations for r in reports)
        losses = torch.stack([r.loss for r in reports])
        if not losses.isfinite().all():
            result |= {"state": "diverged", "reason": f"the training loss is not finite in epoch {epoch}"}
            break
        entry = {"epoch": epoch, "lr": lr}
        entry |= {name: evaluate(model, split) for name, split in dataset.splits.items()}
        entry |= {"step_loss": float(losses.mean()), **_dominance(reports, names)}
        method.end_epoch(entry["validation"])
        epochs.append(entry)
        progress(epoch, entry)
    done = result["state"] == "done"
    return result | {
        "seconds": round(time.perf_counter() - started, 2),
        "steps": steps,
        "gradient_evaluations": gradients,
        "peak_memory_mb": _peak_memory_mb(train.labels.device),
        "epochs": epochs,
        "final": select(epochs) if done else {},
    }


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
