"""Identification: which modality dominates by each value of a coalition, batch by batch.

The network is in evaluation mode and the batches are those of the test split in one fixed order. Values
are those of `msam.coalitions.VALUES` and `gradient`, the squared norm of the loss gradient in a modality's
encoder; shares are normalized linearly. At a tie the first modality counts as the dominant one, as in M-SAM.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msam.coalitions import VALUES, batch_shares, coalition_logits, contributions, evaluation_mode
from msam.datasets import Dataset, Split
from msam.methods._modality import GRADIENT, squared_gradients
from msam.models import MultimodalClassifier
from msam.shapley import coalitions, normalized, sampled_weights

SIZES = (8, 16, 32, 64, 128, 256)
COMPARED = 64
"""Batch size of the comparisons between values, that of the study."""
PERMUTATIONS = (1, 2, 4, 8)
CHUNK = 512


def measure(model: MultimodalClassifier, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Dominant modalities on the test split.

    Args:
        model: the trained classifier.
        dataset: the data.
        seed: of the permutations. The batches are the same for every seed.

    Returns:
        `dominant`: value -> batch size -> modality -> fraction of the batches that it dominates. `whole`:
        value -> the modality that dominates the split as a whole. At the batch size `compared`: `agreement`:
        value -> value -> fraction of batches with the same dominant modality; `distance`: value -> value ->
        mean total variation distance of the shares; `sampled`: number of permutations -> fraction of batches
        in which Shapley values of accuracy estimated from them have the dominant modality of the exact ones.
    """
    model, test = copy.deepcopy(model), _shuffled(dataset.splits["test"])
    names = model.modalities
    with evaluation_mode(model):
        with torch.no_grad():
            logits = torch.cat([_coalitions(model, part) for part in _batches(test, CHUNK)], 1)
        labels = test.labels.flatten()
        shares = {
            size: {value: _shares(logits, labels, names, value, size) for value in VALUES}
            | {GRADIENT: torch.stack([_gradient_shares(model, batch) for batch in _batches(test, size)])}
            for size in (*(size for size in SIZES if size <= len(labels)), len(labels))
        }
    whole = shares.pop(len(labels))
    at = shares.get(COMPARED) or whole
    exact = at["accuracy"].argmax(-1)
    return {
        "whole": {value: names[int(found.argmax())] for value, found in whole.items()},
        "dominant": {
            value: {str(size): _fractions(found[value].argmax(-1), names) for size, found in shares.items()}
            for value in whole
        },
        "compared": COMPARED,
        "agreement": {
            a: {b: float((at[a].argmax(-1) == at[b].argmax(-1)).float().mean()) for b in at} for a in at
        },
        "distance": {a: {b: float((at[a] - at[b]).abs().sum(-1).mean() / 2) for b in at} for a in at},
        "sampled": {
            str(count): float((_sampled(logits, labels, names, count, seed) == exact).float().mean())
            for count in PERMUTATIONS
        },
    }


def _shuffled(split: Split) -> Split:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    inputs = {m: x[order.to(x.device)] for m, x in split.inputs.items()}
    return Split(inputs, split.labels[order.to(split.labels.device)])


def _batches(split: Split, size: int) -> list[Split]:
    """Consecutive batches, the incomplete last one included."""
    device = split.labels.device
    return [
        Split(
            {m: x[start : start + size].to(device) for m, x in split.inputs.items()},
            split.labels[start : start + size].flatten(),
        )
        for start in range(0, len(split), size)
    ]


def _coalitions(model: MultimodalClassifier, batch: Split) -> Tensor:
    return coalition_logits(model, batch.inputs, model.encode(batch.inputs))


def _shares(logits: Tensor, labels: Tensor, names: list[str], value: str, size: int) -> Tensor:
    """Shares of every batch, (batches, M)."""
    parts = zip(logits.split(size, 1), labels.split(size), strict=True)
    return torch.stack([batch_shares(z, y, names, value) for z, y in parts])


def _gradient_shares(model: MultimodalClassifier, batch: Split) -> Tensor:
    """Shares of the squared gradient norms of the encoders, (M,)."""
    model.zero_grad()
    F.cross_entropy(model(batch.inputs), batch.labels).backward()
    return normalized(squared_gradients(model))


def _fractions(dominant: Tensor, names: list[str]) -> dict[str, float]:
    counts = dominant.bincount(minlength=len(names)).double() / len(dominant)
    return dict(zip(names, counts.tolist(), strict=True))


def _sampled(logits: Tensor, labels: Tensor, names: list[str], permutations: int, seed: int) -> Tensor:
    """Dominant modality of every batch of `COMPARED`, each by permutations of its own."""
    sets = coalitions(tuple(names))
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for z, y in zip(logits.split(COMPARED, 1), labels.split(COMPARED), strict=True):
            weights = sampled_weights(tuple(names), permutations)
            values = contributions(VALUES["accuracy"](z, y), sets, weights)
            found.append(normalized(values).argmax())
    return torch.stack(found)
