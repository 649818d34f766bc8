"""A multimodal classifier: one encoder a modality, then a fusion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam.models.encoders import ENCODERS
from msam.models.fast import FastEncoder
from msam.models.fusion import FUSIONS, EarlyFusion, LateFusion
from msam.models.paper import PAPER_ENCODERS, PAPER_HIDDEN
from msam.models.psp import PSP_KINDS, PSPFusion, psp

SIZES = ("small", "paper")


class MultimodalClassifier(nn.Module):
    """`forward = fuse . encode`.

    Args:
        encoders: modality -> module that maps B x ... to B x D_m.
        fusion: module that maps the dict of features to logits, B x C. `PSPFusion` has features of more
            dimensions and a row of logits for every segment: (B T) x C.
    """

    fusion: LateFusion | EarlyFusion | PSPFusion

    def __init__(
        self, encoders: Mapping[str, nn.Module], fusion: LateFusion | EarlyFusion | PSPFusion
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of the encoders."""
        return list(self.encoders)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> raw input, B x ..., to modality -> features, B x D_m. Other inputs are not read."""
        return {m: encoder(_widened(inputs[m])) for m, encoder in self.encoders.items()}

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


def _widened(x: Tensor) -> Tensor:
    """Half precision is for storage only."""
    return x.float() if x.dtype == torch.float16 else x


def build_classifier(
    kinds: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    classes: int,
    fusion: str,
    width: int,
    size: str = "small",
    fast: Collection[str] = (),
) -> MultimodalClassifier:
    """Classifier for a dataset.

    Args:
        kinds: modality -> kind of signal, a key of `ENCODERS` or one of `PSP_KINDS`.
        shapes: modality -> shape of one input, without the batch.
        classes: number of classes C.
        fusion: "late" or "early"; "psp" for inputs of `PSP_KINDS`, in size "paper" only.
        width: length of every feature vector; with size "paper", of those of vectors only.
        size: "small", or "paper": the encoders of `PAPER_ENCODERS` and AGM's sizes in the early fusion.
            For vectors, where the paper names no encoder, the small one at the given width.
        fast: ways to run the encoders faster, words of `FAST`.

    Raises:
        ValueError: unknown fusion, size, kind, or way to be fast, a fusion that does not fit the others, or a
            modality whose name `nn.ModuleDict` cannot hold.
    """
    for m in kinds:
        if "." in m or hasattr(nn.ModuleDict(), m):
            raise ValueError(f"a modality cannot be called {m!r}: PyTorch needs that name for itself")
    if fusion not in (*FUSIONS, "psp"):
        raise ValueError(f"unknown fusion {fusion!r}; choose from {', '.join(FUSIONS)}, psp")
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose from {', '.join(SIZES)}")
    if fusion == "psp":
        if size != "paper":
            raise ValueError(f"fusion 'psp' has the size 'paper' only, not {size!r}")
        encoders, joined = psp(kinds, shapes, classes)
        return MultimodalClassifier(_fast(encoders, fast), joined)
    segmented = [kind for kind in kinds.values() if kind in PSP_KINDS]
    if segmented:
        raise ValueError(f"inputs of kind {segmented[0]!r} need the fusion 'psp', not {fusion!r}")
    known = ENCODERS if size == "small" else {**PAPER_ENCODERS, "vector": ENCODERS["vector"]}
    unknown = sorted(set(kinds.values()) - set(known))
    if unknown:
        raise ValueError(f"unknown kind of modality {unknown[0]!r}; choose from {', '.join(known)}")
    encoders = {}
    widths: dict[str, int] = {}
    for m, kind in kinds.items():
        if size == "paper" and kind in PAPER_ENCODERS:
            paper = PAPER_ENCODERS[kind](shapes[m])
            encoders[m], widths[m] = paper, paper.width
        else:
            encoders[m], widths[m] = ENCODERS[kind](shapes[m], width), width
    encoders = _fast(encoders, fast)
    if size == "paper" and fusion == "early":
        return MultimodalClassifier(encoders, EarlyFusion(widths, classes, PAPER_HIDDEN))
    return MultimodalClassifier(encoders, FUSIONS[fusion](widths, classes))


def _fast(encoders: dict[str, nn.Module], fast: Collection[str]) -> dict[str, nn.Module]:
    return {m: FastEncoder(encoder, fast) for m, encoder in encoders.items()} if fast else encoders
