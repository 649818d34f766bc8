"""What a multimodal classifier answers when only some modalities are present.

An absent modality is a zero raw input (AGM, ICCV 2023). `encoder(0)` is the same for the whole batch, so
it is computed once, on a batch of one, and all coalitions share one pass of `fuse`. As in AGM the muted
side and the fusion run in evaluation mode; present modalities keep the features they are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from msam.models import MultimodalClassifier
from msam.shapley import Coalition, coalitions, normalized, shapley_weights


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, then give every submodule its own flag back."""
    training = [m for m in module.modules() if m.training]
    for m in training:
        vars(m)["training"] = False  # Module.__setattr__ is slow
    try:
        yield
    finally:
        for m in training:
            vars(m)["training"] = True


def coalition_logits(
    model: MultimodalClassifier,
    inputs: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    full: Tensor | None = None,
) -> dict[Coalition, Tensor]:
    """Logits of every non-empty coalition.

    Args:
        model: the classifier.
        inputs: modality -> raw input, B x ...; only shapes and types are read.
        features: modality -> `model.encode(inputs)`, B x D_m.
        full: logits of all modalities, B x C, if the caller has them already.

    Returns:
        Coalition -> logits, B x C.
    """
    modalities = model.modalities
    batch = len(features[modalities[0]])
    sets = coalitions(tuple(modalities))
    todo = sets if full is None else sets[:-1]
    logits = {} if full is None else {sets[-1]: full}
    if todo:
        with evaluation_mode(model):
            muted = model.encode({m: inputs[m].new_zeros(1, *inputs[m].shape[1:]) for m in modalities})
            stacked = {
                m: torch.cat([features[m] if m in s else muted[m].expand(batch, -1) for s in todo])
                for m in modalities
            }
            logits.update(zip(todo, model.fuse(stacked).split(batch), strict=True))
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of the batch that is right: the paper's words (Appendix B)."""
    return (logits.argmax(-1) == labels).float().mean(-1)


def probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean probability of the true class."""
    return _true_class(logits.softmax(-1), labels).mean(-1)


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean logit of the true class above the mean logit, so that 0 is the uniform prediction."""
    return (_true_class(logits, labels) - logits.mean(-1)).mean(-1)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy saved against the uniform prediction, log C - CE, in nats."""
    return math.log(logits.shape[-1]) + _true_class(logits.log_softmax(-1), labels).mean(-1)


def _true_class(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels.expand(values.shape[:-1])[..., None]).squeeze(-1)


VALUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (accuracy, probability, logit, loss)
}
"""Scalar values of coalitions: (logits ... x B x C, labels B) -> tensor of shape (...)."""


def batch_shares(
    logits: Mapping[Coalition, Tensor], labels: Tensor, modalities: Sequence[str], value: str = "accuracy"
) -> Tensor:
    """Shares v_m of a batch (Eq. 20) from the coalitions' logits and a scalar value of `VALUES`.

    Returns:
        Shares, shape (M,), in the order of `modalities`.
    """
    values = VALUES[value](torch.stack(list(logits.values())), labels)
    return normalized(_weight_matrix(tuple(modalities), tuple(logits), values.dtype, values.device) @ values)


@cache
def _weight_matrix(
    modalities: tuple[str, ...], sets: tuple[Coalition, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Shapley weights, M x coalitions."""
    weights = shapley_weights(modalities)
    return torch.tensor([[weights[m][s] for s in sets] for m in modalities], dtype=dtype, device=device)
