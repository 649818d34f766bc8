"""A multimodal classifier: one encoder a modality, then a fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from msam.models.encoders import ENCODERS
from msam.models.fusion import FUSIONS, EarlyFusion, LateFusion


class MultimodalClassifier(nn.Module):
    """`forward = fuse . encode`.

    Args:
        encoders: modality -> module that maps B x ... to B x D_m.
        fusion: module that maps the dict of features to logits, B x C.
    """

    fusion: LateFusion | EarlyFusion

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: LateFusion | EarlyFusion) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of the encoders."""
        return list(self.encoders)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> raw input, B x ..., to modality -> features, B x D_m. Other inputs are not read."""
        return {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Modality -> features, B x D_m, to logits, B x C."""
        return self.fusion(features)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality -> raw input, B x ..., to logits, B x C."""
        return self.fuse(self.encode(inputs))

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters by owner: one group an encoder, with its `modality`, and one for the fusion (None)."""
        owners = [*self.encoders.items(), (None, self.fusion)]
        return [{"params": list(module.parameters()), "modality": m} for m, module in owners]


def build_classifier(
    kinds: Mapping[str, str], shapes: Mapping[str, Sequence[int]], classes: int, fusion: str, width: int
) -> MultimodalClassifier:
    """Small classifier for a data set.

    Args:
        kinds: modality -> kind of signal, a key of `ENCODERS`.
        shapes: modality -> shape of one input, without the batch.
        classes: number of classes C.
        fusion: "late" or "early".
        width: length of every feature vector.

    Raises:
        ValueError: unknown fusion or kind.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"unknown fusion {fusion!r}; choose from {', '.join(FUSIONS)}")
    unknown = sorted(set(kinds.values()) - set(ENCODERS))
    if unknown:
        raise ValueError(f"unknown kind of modality {unknown[0]!r}; choose from {', '.join(ENCODERS)}")
    encoders = {m: ENCODERS[kind](shapes[m], width) for m, kind in kinds.items()}
    return MultimodalClassifier(encoders, FUSIONS[fusion](dict.fromkeys(kinds, width), classes))
