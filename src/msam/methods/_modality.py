"""What belongs to one modality: its parameters, its logits, an auxiliary head of its own.

Everything is found through the modules of the model, never through the names of parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from msam.coalitions import coalition_logits, responses
from msam.models import LateFusion, MultimodalClassifier


def own_modules(model: MultimodalClassifier, modality: str) -> list[nn.Module]:
    """The modules of one modality alone: its encoder and, with late fusion, its head."""
    heads = [model.fusion.heads[modality]] if isinstance(model.fusion, LateFusion) else []
    return [model.encoders[modality], *heads]


def own_logits(
    model: MultimodalClassifier,
    inputs: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    fused: Tensor | None = None,
) -> Tensor:
    """Logits of every modality alone, M x B x C: of its head (late fusion), its Shapley response (early).

    They sum to the fused logits; `fused` are these, if the caller has them already.
    """
    if isinstance(model.fusion, LateFusion):
        return torch.stack(list(model.fusion.head_logits(features).values()))
    return responses(coalition_logits(model, inputs, features, fused), model.modalities)


def auxiliary_heads(model: MultimodalClassifier) -> nn.ModuleDict:
    """Modality -> a new linear classifier of its features, on the model's device."""
    like = next(model.parameters())
    widths, classes = model.fusion.widths, model.fusion.classes
    return nn.ModuleDict({m: nn.Linear(width, classes) for m, width in widths.items()}).to(like)


GRADIENT = "gradient"
"""A value of modalities that is no coalition's: `squared_gradients`."""


def squared_gradients(model: MultimodalClassifier) -> Tensor:
    """Squared norm of the gradients in each modality's encoder, shape (M,)."""
    norms = [
        torch.stack([p.grad.square().sum() for p in encoder.parameters() if p.grad is not None]).sum()
        for encoder in model.encoders.values()
    ]
    return torch.stack(norms)


def mean_of_others(scores: Tensor) -> Tensor:
    """For every modality the mean of the others' scores, shapes (M,)."""
    return (scores.sum() - scores) / (len(scores) - 1)


def parameters_of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters of the modules, in their order."""
    return [p for module in modules for p in module.parameters()]


@torch.no_grad()
def scale_gradients(parameters: Iterable[Tensor], factor: Tensor | float) -> None:
    """Multiply the gradients in place; parameters without one are passed over."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)
