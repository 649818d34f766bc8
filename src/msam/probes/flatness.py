"""Flatness: curvature and rise of the loss around the trained weights, of the whole network and by encoder.

Everything but `weight_noise` is about L, the mean cross-entropy of the fused logits on some examples of the
train split, in evaluation mode. A block is the encoder of one modality; all else is held fixed then. Encoders
that run in bfloat16 (`fast: [bf16]`) are too coarse for second derivatives.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from msam.datasets import Dataset, Split
from msam.models import MultimodalClassifier
from msam.probes import _around, _curvature
from msam.probes._network import OneEncoder, Weights, accuracy_on, as_numbers

EXAMPLES, TRACE_SAMPLES = 512, 10
RHO, ADAPTIVE_RHO = 0.05, 0.5
GRID, REACH = 11, 1.0
NOISE_LEVELS, NOISE_DRAWS = (0.1, 0.2, 0.4), 5


def measure(model: MultimodalClassifier, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Flatness of a trained network.

    Args:
        model: the trained classifier.
        dataset: the data.
        seed: of the random vectors, directions and noise. The examples are the same for every seed.

    Returns:
        `examples`, `rho`, `adaptive_rho`: what L and the steps are. `whole`, and `blocks`: modality -> the
        same: `hessian_top`, `hessian_trace` with `hessian_trace_error` (standard error) and
        `hessian_trace_samples`, `sharpness`, `adaptive_sharpness` (nats) and `parameters`, a count.
        `landscape`: L (nats), `loss[i][j]` at `x[i]` of one and `x[j]` of another filter-normalized random
        direction. `weight_noise`: for every one of `levels` the test accuracy, mean of `draws`, with noise
        of that part of the weights' size in all of them ("whole") or in one encoder.
    """
    model = copy.deepcopy(model).eval().requires_grad_(True)
    inputs, labels = _examples(dataset.splits["train"], model.modalities)
    weights = dict(model.named_parameters())
    with _curvature.differentiable_twice():
        whole = _block(model, weights, inputs, labels, seed)
        blocks = {m: _encoder_block(model, m, inputs, labels, seed) for m in model.modalities}
    return {
        "examples": len(next(iter(inputs.values()))),
        "rho": RHO,
        "adaptive_rho": ADAPTIVE_RHO,
        "whole": whole,
        "blocks": blocks,
        "landscape": _landscape(_loss(model, inputs, labels), weights, seed),
        "weight_noise": _weight_noise(model, dataset.splits["test"], seed),
    }


def _examples(train: Split, modalities: Iterable[str]) -> tuple[dict[str, Tensor], Tensor]:
    """The same random examples for every run: inputs as numbers, and labels, on the labels' device."""
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:EXAMPLES]
    inputs = {m: train.inputs[m][chosen.to(train.inputs[m].device)] for m in modalities}
    device = train.labels.device
    return {m: as_numbers(x.to(device)) for m, x in inputs.items()}, train.labels[chosen.to(device)].flatten()


def _loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> _around.Loss:
    """L as a function of some weights of the model, nats."""
    return lambda weights: F.cross_entropy(functional_call(model, dict(weights), (dict(inputs),)), labels)


def _block(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    seed: int,
) -> dict[str, Any]:
    operator = _curvature.hessian(model, list(weights.values()), inputs, labels)
    source = torch.Generator().manual_seed(seed)
    trace, error = _curvature.trace(operator, TRACE_SAMPLES, source)
    loss = _loss(model, inputs, labels)
    return {
        "hessian_top": _curvature.top_eigenvalue(operator, source),
        "hessian_trace": trace,
        "hessian_trace_error": error,
        "hessian_trace_samples": TRACE_SAMPLES,
        "sharpness": _around.sharpness(loss, weights, RHO),
        "adaptive_sharpness": _around.sharpness(loss, weights, ADAPTIVE_RHO, adaptive=True),
        "parameters": sum(w.numel() for w in weights.values()),
    }


def _encoder_block(
    model: MultimodalClassifier, modality: str, inputs: Mapping[str, Tensor], labels: Tensor, seed: int
) -> dict[str, Any]:
    """The block of an encoder; the features of the others are computed once."""
    with torch.no_grad():
        given = {**model.encode(inputs), modality: inputs[modality]}
    alone = OneEncoder(model, modality)
    return _block(alone, dict(alone.encoder.named_parameters("encoder")), given, labels, seed)


@torch.no_grad()
def _landscape(loss: _around.Loss, weights: Weights, seed: int) -> dict[str, Any]:
    source = torch.Generator().manual_seed(seed)
    one, other = (_around.filter_direction(weights, source) for _ in range(2))
    x = torch.linspace(-REACH, REACH, GRID).tolist()
    grid = [[float(loss(_around.moved(weights, (a, one), (b, other)))) for b in x] for a in x]
    return {"x": x, "loss": grid}


@torch.no_grad()
def _weight_noise(model: MultimodalClassifier, test: Split, seed: int) -> dict[str, Any]:
    """Every part of the network and every level meet the same draws."""
    source = torch.Generator().manual_seed(seed)
    weights = dict(model.named_parameters())
    draws = [_around.filter_noise(weights, source) for _ in range(NOISE_DRAWS)]
    encoders = {m: dict(model.encoders[m].named_parameters(f"encoders.{m}")) for m in model.modalities}

    def mean_accuracy(part: Weights, level: float) -> float:
        noises = [{name: d for name, d in draw.items() if name in part} for draw in draws]
        noisy = [_around.moved(weights, (level, noise)) for noise in noises]
        return sum(accuracy_on(model, test.inputs, test.labels, w) for w in noisy) / len(noisy)

    parts = {"whole": weights, **encoders}
    found = {name: [mean_accuracy(part, level) for level in NOISE_LEVELS] for name, part in parts.items()}
    return {"levels": list(NOISE_LEVELS), "draws": NOISE_DRAWS, "accuracy": found}
