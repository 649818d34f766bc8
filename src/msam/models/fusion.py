"""Late and early fusion of feature vectors into logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

BLOCK = 16
"""Coalitions that run through an early fusion at a time: more take more memory, and no less time."""


class LateFusion(nn.Module):
    """One linear head a modality; the logits are the sum of the heads (as AGM's late-fusion baselines).

    Args:
        widths: modality -> length of its feature vector.
        classes: number of classes C.
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.widths, self.classes = dict(widths), classes
        self.heads = nn.ModuleDict({m: nn.Linear(width, classes) for m, width in widths.items()})

    @property
    def outputs(self) -> list[nn.Linear]:
        """The last linear layers, whose results add up to the logits: one a modality."""
        return cast(list[nn.Linear], list(self.heads.values()))

    def before_outputs(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """What goes into each of `outputs`, B x D."""
        return [features[m] for m in self.heads]

    def head_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> logits of its head, B x C."""
        return {m: head(features[m]) for m, head in self.heads.items()}

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Modality -> features, B x D_m, to logits, B x C."""
        return torch.stack(list(self.head_logits(features).values())).sum(0)

    def coalition_logits(
        self, features: Mapping[str, Tensor], muted: Mapping[str, Tensor], sets: Sequence[Collection[str]]
    ) -> Tensor:
        """Logits of coalitions, S x B x C: every head runs once on its features and once without them.

        Args:
            features: modality -> features where it is present, B x D_m.
            muted: modality -> features where it is absent, 1 x D_m.
            sets: the modalities that are present in each of the S coalitions.
        """
        present, absent = self.head_logits(features), self.head_logits(muted)

        def part(m: str) -> Tensor:
            choice = torch.stack([absent[m].expand_as(present[m]), present[m]])
            return choice[[int(m in s) for s in sets]]

        return reduce(Tensor.add_, map(part, self.heads))


class Maxout(nn.Module):
    """Maximum over pairs of linear units (Goodfellow et al., ICML 2013)."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * units)

    def forward(self, x: Tensor) -> Tensor:
        """B x width -> B x units."""
        return self.largest(self.linear(x))

    @staticmethod
    def largest(pairs: Tensor) -> Tensor:
        """B x 2 units -> B x units."""
        return torch.maximum(pairs[:, 0::2], pairs[:, 1::2])


class EarlyFusion(nn.Module):
    """Concatenated features -> two Maxout layers with BatchNorm and dropout -> linear head.

    "Early" is the paper's word for non-linear fusion of features, after whole encoders. The layers are AGM's,
    which has 2048 and 1024 units.

    Args:
        widths: modality -> length of its feature vector.
        classes: number of classes C.
        hidden: units of the two Maxout layers; None: 2 and 1 times the width of the widest encoder.
    """

    def __init__(
        self, widths: Mapping[str, int], classes: int, hidden: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.widths, self.classes = dict(widths), classes
        total, unit = sum(widths.values()), max(widths.values())
        first, second = hidden or (2 * unit, unit)
        self.layers = nn.Sequential(
            nn.BatchNorm1d(total, eps=1e-4),
            Maxout(total, first),
            nn.BatchNorm1d(first),
            nn.Dropout(0.3),
            Maxout(first, second),
            nn.BatchNorm1d(second),
            nn.Dropout(0.3),
            nn.Linear(second, classes),
        )

    @property
    def outputs(self) -> list[nn.Linear]:
        """The last linear layer, alone in a list."""
        return [cast(nn.Linear, self.layers[-1])]

    def before_outputs(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """What goes into the last layer, B x D, alone in a list."""
        return [self.layers[:-1](torch.cat([features[m] for m in self.widths], 1))]

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Modality -> features, B x D_m, to logits, B x C."""
        return self.layers[-1](*self.before_outputs(features))

    def coalition_logits(
        self, features: Mapping[str, Tensor], muted: Mapping[str, Tensor], sets: Sequence[Collection[str]]
    ) -> Tensor:
        """As `LateFusion.coalition_logits`, in evaluation mode.

        The first linear layer adds up over the modalities, so that each runs through its part of it once.
        """
        norm, maxout, *rest = cast(tuple[nn.BatchNorm1d, Maxout, nn.Module], tuple(self.layers))
        absent, present = (norm(torch.cat([x[m] for m in self.widths], 1)) for x in (muted, features))
        sizes = list(self.widths.values())
        weights = maxout.linear.weight.split(sizes, 1)
        parts = [x @ w.T for x, w in zip((present - absent).split(sizes, 1), weights, strict=True)]
        terms = torch.stack([maxout.linear(absent).expand_as(parts[0]), *parts])
        choice = terms.new_tensor([[1.0] + [float(m in s) for m in self.widths] for s in sets])
        logits = []
        for some in choice.split(BLOCK):
            hidden = maxout.largest((some @ terms.flatten(1)).view(-1, terms.shape[-1]))
            for layer in rest:
                hidden = layer(hidden)
            logits.append(hidden)
        return torch.cat(logits).unflatten(0, (len(sets), -1))


FUSIONS: dict[str, type[LateFusion] | type[EarlyFusion]] = {"late": LateFusion, "early": EarlyFusion}
