"""Rules that choose the dominant modality of a step from the shares of its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

RULES = ("shapley", "fixed:<modality>", "random", "epoch", "ema", "every:<steps>")


def at(values: Tensor, index: Tensor) -> Tensor:
    """The entry of a vector at a 0-dim index, which the host does not read from a GPU."""
    return values.take(index) if index.is_cuda else values[index]


class Dominance:
    """One of `RULES`.

    shapley: the largest share of the batch (the paper).
    fixed:<modality>: always that modality, with its share of the batch.
    random: a modality drawn uniformly, with its share of the batch.
    epoch: the shares of the validation split after the last epoch; equal shares before the first.
    ema: an exponential moving average of the batch shares, from equal shares on.
    every:<steps>: the largest share of the batch, read at every so many steps and kept in between.

    Args:
        rule: the rule's name.
        modalities: names, in the order of the share tensors.
        decay: weight of the past in `ema`.

    Raises:
        ValueError: unknown rule or modality.
    """

    def __init__(self, rule: str, modalities: Sequence[str], decay: float = 0.9) -> None:
        name, _, self.argument = rule.partition(":")
        known = {r.partition(":")[0] for r in RULES}
        if name not in known or (name in ("fixed", "every")) != bool(self.argument):
            raise ValueError(f"unknown dominance rule {rule!r}; choose from {', '.join(RULES)}")
        if name == "fixed" and self.argument not in modalities:
            raise ValueError(f"unknown modality {self.argument!r}; choose from {', '.join(modalities)}")
        if name == "every" and not (self.argument.isdecimal() and int(self.argument)):
            raise ValueError(f"dominance rule {rule!r}: the number of steps must be at least 1")
        self.name, self.modalities, self.decay = name, list(modalities), decay
        self.steps = 0
        self.memory = torch.full((len(self.modalities),), 1 / len(self.modalities))

    def choose(self, read_shares: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Shares that steer the step, shape (M,), and the index of the dominant modality, 0-dim.

        Args:
            read_shares: gives the shares of the batch, shape (M,); not called where the rule needs none.
        """
        kept = self.name == "epoch" or (self.name == "every" and self.steps % int(self.argument) > 0)
        shares = self.memory if kept else read_shares()
        self.steps += 1
        if self.name == "fixed":
            return shares, torch.tensor(self.modalities.index(self.argument))
        if self.name == "random":
            return shares, torch.randint(len(self.modalities), ())
        if self.name == "every":
            self.memory = shares
        if self.name == "ema":
            shares = self.memory = self.decay * self.memory.to(shares) + (1 - self.decay) * shares
        return shares, shares.argmax()

    def end_epoch(self, shares: Mapping[str, float]) -> None:
        """Take the shares of the validation split."""
        if self.name == "epoch":
            self.memory = torch.tensor([shares[m] for m in self.modalities])
