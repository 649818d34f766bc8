"""Sharpness: the cheap part of `flatness`, of the whole network alone, for studies of many cells."""

from __future__ import annotations

import copy
from typing import Any

import torch

from msam.datasets import Dataset
from msam.models import MultimodalClassifier
from msam.probes import _around, _curvature, flatness


def measure(model: MultimodalClassifier, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Top Hessian eigenvalue and sharpness of a trained network.

    Args:
        model: the trained classifier.
        dataset: the data.
        seed: of the vector that the eigenvalue starts from.

    Returns:
        `hessian_top`, `sharpness` and `adaptive_sharpness` (nats), as in `msam.probes.flatness`.
    """
    model = copy.deepcopy(model).eval().requires_grad_(True)
    inputs, labels = flatness._examples(dataset.splits["train"], model.modalities)
    weights = dict(model.named_parameters())
    loss = flatness._loss(model, inputs, labels)
    with _curvature.differentiable_twice():
        operator = _curvature.hessian(model, list(weights.values()), inputs, labels)
        return {
            "hessian_top": _curvature.top_eigenvalue(operator, torch.Generator().manual_seed(seed)),
            "sharpness": _around.sharpness(loss, weights, flatness.RHO),
            "adaptive_sharpness": _around.sharpness(loss, weights, flatness.ADAPTIVE_RHO, adaptive=True),
        }
