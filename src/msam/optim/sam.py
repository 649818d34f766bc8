"""Sharpness-aware minimization (Foret et al., ICLR 2021).

    g    = grad L(w)
    eps  = rho * g / ||g||_2
    w   <- base optimizer's step with grad L(w + eps)

The norm is over all parameters together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msam.optim import _passes, _update

Closure = Callable[[], Tensor]


class SAM(torch.optim.Optimizer):
    """SAM around any `torch.optim` optimizer.

    `step` evaluates the closure twice, the second time at the perturbed weights. BatchNorm running
    statistics move in the first pass only, both passes draw the same random numbers of torch (dropout),
    and outside `step` the weights are never the perturbed ones, whatever the closure raises.

    Args:
        params: parameters or param groups. A group may carry its own `rho`. None if `base` is an instance.
        base: optimizer class, or an instance that already holds the parameters.
        rho: radius of the perturbation in weight space, >= 0.
        adaptive: scale the perturbation by the weights (ASAM, Kwon et al., ICML 2021):
            `eps = rho * w^2 * g / || |w| * g ||_2`. Its radii are about ten times as large.
        **base_kwargs: passed to the class `base`, for example `lr` and `momentum`.

    Raises:
        ValueError: rho is negative or not finite, or arguments contradict each other.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
        >>> x, y = torch.randn(8, 3), torch.randint(2, (8,))
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = torch.nn.functional.cross_entropy(model(x), y)
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure)
    """

    def __init__(
        self,
        params: Iterable[Any] | None,
        base: type[torch.optim.Optimizer] | torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        **base_kwargs: Any,
    ) -> None:
        base = _as_instance(params, base, base_kwargs)
        super().__init__(base.param_groups, {"rho": rho})
        self.base, self.adaptive = base, adaptive
        self._link()

    def _link(self) -> None:
        """Let groups and state be those of the base optimizer, so that schedulers and checkpoints see one."""
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base, "adaptive": self.adaptive}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which may carry its own `rho` (and `modality`)."""
        rho = param_group.setdefault("rho", self.defaults["rho"])
        if not (math.isfinite(rho) and rho >= 0):
            raise ValueError(f"rho must be finite and >= 0, not {rho}")
        if "base" in self.__dict__:
            self.base.add_param_group(param_group)
        else:
            super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimizer; `rho` is in the groups. A step leaves nothing else behind."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.base.load_state_dict(state_dict)
        self._link()

    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: clears the gradients, computes the loss, calls `backward`, returns the loss.

        Returns:
            The loss of the first pass, at the unperturbed weights.
        """
        first = self._first_pass(closure)
        self.second_pass(closure, first, self.param_groups)
        self.base.step()
        return first.loss

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _first_pass(self, closure: Closure) -> FirstPass:
        before = _passes.random_state(self._parameters)
        with torch.enable_grad():
            loss = closure()
        return FirstPass(loss.detach(), [p.grad for p in self._parameters], before)

    def second_pass(self, closure: Closure, first: FirstPass, groups: list[dict[str, Any]]) -> None:
        """Leave the gradients at w + eps in `grad`, with eps along the gradients of `first` in the groups.

        The weights are w again afterwards, BatchNorm statistics stay, random numbers are those of the
        first pass.
        """
        after = _passes.random_state(self._parameters)
        with self._perturbed(first, groups), _passes.frozen_batch_norm(), torch.enable_grad():
            self._detach_gradients()
            _passes.set_random_state(first.random_state)
            try:
                closure()
            finally:
                _passes.set_random_state(after)

    def _detach_gradients(self) -> list[Tensor | None]:
        """Take the gradients away, so that the next backward pass writes into new tensors."""
        gradients = [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None
        return gradients

    @contextmanager
    def _perturbed(self, first: FirstPass, groups: list[dict[str, Any]]) -> Iterator[None]:
        rho = {p: group["rho"] for group in groups for p in group["params"]}
        pairs = zip(self._parameters, first.gradients, strict=True)
        moved = [(p, g) for p, g in pairs if p in rho and g is not None]
        if not moved:
            yield
            return
        weights, gradients = map(list, zip(*moved, strict=True))
        kept = [w.detach().clone() for w in weights]
        try:
            with torch.no_grad():
                _update.ascend(weights, gradients, [rho[w] for w in weights], self.adaptive)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, kept)


@dataclass(frozen=True)
class FirstPass:
    """Loss and gradients (in the order of the parameters) at w, and the random state before them."""

    loss: Tensor
    gradients: list[Tensor | None]
    random_state: _passes.RandomState


def _as_instance(
    params: Iterable[Any] | None,
    base: type[torch.optim.Optimizer] | torch.optim.Optimizer,
    base_kwargs: dict[str, Any],
) -> torch.optim.Optimizer:
    if isinstance(base, torch.optim.Optimizer):
        if params is not None or base_kwargs:
            raise ValueError("an optimizer instance brings its own parameters and settings: pass params=None")
        return base
    if params is None:
        raise ValueError("params=None needs an optimizer instance as base")
    return base(params, **base_kwargs)
