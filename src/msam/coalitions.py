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

from msam.models import EarlyFusion, LateFusion, MultimodalClassifier
from msam.shapley import Coalition, coalitions, normalized, shapley_weights


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, then give every submodule its own flag back."""
    training = [m for m in module.modules() if m.training]
    _set_training(training, False)
    try:
        yield
    finally:
        _set_training(training, True)


def _set_training(modules: list[nn.Module], value: bool) -> None:
    for m in modules:
        if "training" in vars(m):
            vars(m)["training"] = value  # Module.__setattr__ is slow
        else:  # scripted
            m.training = value


def coalition_logits(
    model: MultimodalClassifier,
    inputs: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    full: Tensor | None = None,
    sets: Sequence[Coalition] | None = None,
) -> Tensor:
    """Logits of every non-empty coalition, or of some.

    Args:
        model: the classifier.
        inputs: modality -> raw input, B x ...; only shapes are read.
        features: modality -> `model.encode(inputs)`, B x D_m.
        full: logits of all modalities, B x C, if the caller has them already.
        sets: the coalitions to evaluate, the one of all modalities last; all of them if not given.

    Returns:
        Logits, (2^M - 1) x B x C, in the order of `sets` or `msam.shapley.coalitions(model.modalities)`.
    """
    modalities = model.modalities
    todo = (sets or coalitions(tuple(modalities)))[: None if full is None else -1]
    if not todo:
        return full[None]  # type: ignore[index]
    with evaluation_mode(model):
        zeros = {m: features[m].new_zeros(1, *inputs[m].shape[1:]) for m in modalities}
        muted = model.encode(zeros)
        fusion = getattr(model, "fusion", None)
        # from four modalities on: for fewer it is not faster, and sums would be rounded differently
        if isinstance(fusion, LateFusion | EarlyFusion) and len(todo) > 2 * len(modalities) + 1:
            logits = fusion.coalition_logits(features, muted, todo)
        else:
            stacked = {
                m: torch.cat([features[m] if m in s else muted[m].expand_as(features[m]) for s in todo])
                for m in modalities
            }
            logits = model.fuse(stacked).unflatten(0, (len(todo), -1))
    return logits if full is None else torch.cat([logits, full[None]])


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of the batch that is right: the paper's words (Appendix B)."""
    right = logits.argmax(-1) == labels
    return right.to(torch.promote_types(logits.dtype, torch.float32)).mean(-1)


def probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean probability of the true class."""
    return true_class(logits.softmax(-1), labels).mean(-1)


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean logit of the true class above the mean logit, so that 0 is the uniform prediction."""
    return (true_class(logits, labels) - logits.mean(-1)).mean(-1)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy saved against the uniform prediction, log C - CE, in nats."""
    return math.log(logits.shape[-1]) + true_class(logits.log_softmax(-1), labels).mean(-1)


def true_class(values: Tensor, labels: Tensor) -> Tensor:
    """Entry of the true class, (... x B x C, labels B) -> ... x B."""
    return values.gather(-1, labels.expand(values.shape[:-1])[..., None]).squeeze(-1)


VALUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (accuracy, probability, logit, loss)
}
"""Scalar values of coalitions: (logits ... x B x C, labels B) -> tensor of shape (...)."""


def responses(logits: Tensor, modalities: Sequence[str]) -> Tensor:
    r"""Shapley response of every modality, :math:`\Phi_m = \sum_S c_m(S)\, \Phi(S)` (Appendix B).

    Args:
        logits: of the coalitions, (2^M - 1) x B x C, as `coalition_logits` returns them.
        modalities: names, in the order of the model.

    Returns:
        Responses, M x B x C, in the order of `modalities`; they sum to the logits of all modalities (Eq. 18).
    """
    weights = _weight_matrix(tuple(modalities), logits.dtype, logits.device)
    return (weights @ logits.flatten(1)).unflatten(1, logits.shape[1:])


def softmax(contributions: Tensor) -> Tensor:
    """Exponentials of the contributions, divided by their sum, shape (..., M)."""
    return contributions.softmax(-1)


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {"linear": normalized, "softmax": softmax}
"""From contributions to shares: Eq. 20 with negative ones clipped, or a softmax of temperature 1."""


def contributions(
    values: Tensor, sets: Sequence[Coalition], weights: Mapping[str, Mapping[Coalition, float]]
) -> Tensor:
    """Contribution of every modality: the sum of weights times values over the coalitions, shape (M,).

    Args:
        values: of the coalitions, shape (len(sets),).
        sets: the coalitions.
        weights: modality -> coalition -> weight, 0 where absent (`shapley_weights`, `sampled_weights`).
    """
    matrix = [[row.get(s, 0.0) for s in sets] for row in weights.values()]
    return values.new_tensor(matrix) @ values


def batch_shares(
    logits: Tensor,
    labels: Tensor,
    modalities: Sequence[str],
    value: str = "accuracy",
    normalization: str = "linear",
) -> Tensor:
    """Shares v_m of a batch (Eq. 20) from the coalitions' logits and a scalar value of `VALUES`.

    Args:
        logits: of the coalitions, (2^M - 1) x B x C, as `coalition_logits` returns them.
        labels: class numbers, shape (B,).
        modalities: names, in the order of the model.
        value: a key of `VALUES`.
        normalization: a key of `NORMALIZATIONS`.

    Returns:
        Shares, shape (M,), in the order of `modalities`.
    """
    values = VALUES[value](logits, labels)
    return NORMALIZATIONS[normalization](
        _weight_matrix(tuple(modalities), values.dtype, values.device) @ values
    )


@cache
def _weight_matrix(modalities: tuple[str, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Shapley weights, M x coalitions."""
    weights = shapley_weights(modalities)
    rows = [[weights[m][s] for s in coalitions(modalities)] for m in modalities]
    with torch.inference_mode(False):  # it is kept, and a tensor of that mode is of no use outside
        return torch.tensor(rows, dtype=dtype, device=device)
