"""Sharpness-aware minimization (Foret et al., ICLR 2021).

    g    = grad L(w)
    eps  = rho * g / ||g||_2
    w   <- base optimizer's step with grad L(w + eps)

The norm is over all parameters together.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from msam.optim import _passes, _update, _workers

Closure = Callable[[], Tensor]

HOOKS = [
    f"_optimizer_{what}_{when}_hooks"
    for what in ("state_dict", "load_state_dict")
    for when in ("pre", "post")
]
"""Where torch keeps the hooks of checkpoints."""


class SAM(torch.optim.Optimizer):
    """SAM (Foret et al., ICLR 2021, Eq. 2) around a `torch.optim` optimizer.

    All are possible but LBFGS, Adadelta and SparseAdam.

    `step` evaluates the closure twice, the second time at the perturbed weights. BatchNorm running
    statistics move in the first pass only, both passes draw the same random numbers of torch (dropout),
    and outside `step` the weights are never the perturbed ones, whatever the closure raises.

    A step whose losses or gradients are not finite, in either pass, moves neither weights nor state and is
    counted in `skipped`. Gradients are accumulated by a closure that loops over micro-batches and returns the
    sum of their losses. What should happen to the final gradient alone, clipping for example, is a hook that
    `optimizer.base.register_step_pre_hook` takes; copies of the optimizer need it again.

    Args:
        params: parameters or param groups. A group may carry its own `rho`. None if `base` is an instance.
        base: optimizer class, or an instance that already holds the parameters and that no other SAM wraps.
            Its `maximize` is known: the perturbation then goes down.
        rho: radius of the perturbation in weight space, >= 0.
        adaptive: scale the perturbation by the weights (ASAM, Kwon et al., ICML 2021):
            `eps = rho * w^2 * g / || |w| * g ||_2`. Its radii are about ten times as large.
        scaler: scales the loss that the closure runs `backward` on. Call its `update` after `step`; its
            `unscale_` and `step` are called here.
        ddp: the model, if it is trained by several workers. `SAM` needs it only for a local perturbation,
            `ModalityAwareSAM` always. Models of `fully_shard` are not passed.
        sync_perturbation: perturb along the gradient of all workers; else every worker along its own
            (m-sharpness), without communication in the first pass.
        skip_nonfinite: skip and count steps that are not finite. It costs one host synchronization a step on
            a GPU; without it there is none, and only a scaler looks at the gradients.
        **base_kwargs: passed to the class `base`, for example `lr` and `momentum`.

    Attributes:
        base: the base optimizer; groups, state and defaults are shared with it.
        skipped: number of skipped steps.

    Raises:
        ValueError: rho is negative or not finite, a parameter is complex, some are sharded and others not,
            arguments contradict each other, or no SAM can be around the base: LBFGS calls closures itself,
            Adadelta has another `rho`, SparseAdam wants sparse gradients.
        TypeError: base is no optimizer.

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

    _cleared: bool | None = None
    """What `zero_grad` did since the last step: removed the gradients, filled them with zeros, or nothing."""

    def __init__(
        self,
        params: Iterable[Any] | None,
        base: type[torch.optim.Optimizer] | torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        scaler: torch.amp.GradScaler | None = None,
        ddp: DistributedDataParallel | None = None,
        sync_perturbation: bool = True,
        skip_nonfinite: bool = True,
        **base_kwargs: Any,
    ) -> None:
        if ddp is None and not sync_perturbation:
            raise ValueError("sync_perturbation=False needs the DistributedDataParallel model as ddp")
        if ddp is not None and ddp.static_graph and not sync_perturbation:
            raise ValueError("sync_perturbation=False needs a DistributedDataParallel without static_graph")
        base = _as_instance(params, base, base_kwargs)
        _check_base(base)
        for group in ({"rho": rho}, *base.param_groups):
            _check_radius(group.get("rho", rho))
        if len({hasattr(p, "full_tensor") for group in base.param_groups for p in group["params"]}) > 1:
            raise ValueError(
                "some parameters are sharded and others not: call fully_shard on the whole model too"
            )
        super().__init__(base.param_groups, {**base.defaults, "rho": rho})
        self.base, self.adaptive, self.scaler, self.ddp = base, adaptive, scaler, ddp
        self.sync_perturbation, self.skip_nonfinite, self.skipped = sync_perturbation, skip_nonfinite, 0
        self.base.defaults = self.defaults
        self._link()
        self._follow()

    def _link(self) -> None:
        """Let groups and state be those of the base optimizer, so that schedulers and checkpoints see one."""
        for group, own in zip(self.base.param_groups, self.param_groups, strict=True):
            for name in {"rho", "modality"} & own.keys():
                group.setdefault(name, own[name])
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def _follow(self) -> None:
        """Link again whenever the base loads a checkpoint; a copy of the base has no hooks."""
        owner = weakref.ref(self)  # no cycle, which would keep the state in memory

        def link(_: torch.optim.Optimizer) -> None:
            if (optimizer := owner()) is not None:
                optimizer._link()

        self.base.register_load_state_dict_post_hook(link)
        for name in HOOKS:  # so that hooks registered here run too
            setattr(self, name, getattr(self.base, name))

    def __getstate__(self) -> dict[str, Any]:
        own = ("base", "adaptive", "scaler", "ddp", "sync_perturbation", "skip_nonfinite", "skipped")
        return super().__getstate__() | {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._follow()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group.

        Args:
            param_group: `params` and settings, among them its own `rho`, and `modality` for M-SAM.

        Raises:
            ValueError: rho is negative or not finite, or a parameter is complex.
        """
        _check_radius(param_group.get("rho", self.defaults["rho"]))
        if "base" in self.__dict__:
            self.base.add_param_group(param_group)
        else:
            super().add_param_group(param_group)
        if any(p.is_complex() for p in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise ValueError("SAM is not defined for complex parameters: use torch.view_as_real")

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimizer; `rho` is in the groups. A step leaves nothing else behind."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state_dict: what `state_dict` of this or of a plain optimizer returned; groups without `rho` or
                `modality` keep theirs.
        """
        self.base.load_state_dict(state_dict)
        self._link()  # once more for optimizers that call no hooks

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients.

        Args:
            set_to_none: remove them; else fill them with zeros.
        """
        super().zero_grad(set_to_none)
        self._cleared = set_to_none

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: clears the gradients, computes the loss, calls `backward`, returns the loss.

        Returns:
            The loss of the first pass, at the unperturbed weights.

        Raises:
            RuntimeError: the closure adds to gradients that others left since `zero_grad`.
            TypeError: there is no closure, or it returns no tensor.
            ValueError: a gradient is sparse.
        """
        closure = _checked_closure(closure)
        first = self._first_pass(closure)
        loss, norm = self.second_pass(closure, first, self.param_groups, keep=False)
        self._update_weights([first.loss, loss], norm)
        return first.loss

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _gradients(self) -> list[Tensor | None]:
        gradients = [p.grad for p in self._parameters]
        if any(g is not None and g.layout is not torch.strided for g in gradients):
            raise ValueError("SAM is not defined for sparse gradients: use dense ones, as with sparse=False")
        return gradients

    def _first_pass(self, closure: Closure) -> FirstPass:
        before = _passes.random_state(self._parameters)
        alone = nullcontext() if self.ddp is None or self.sync_perturbation else self.ddp.no_sync()
        left = self._gradients() if self._cleared else []
        self._cleared = None
        with alone, torch.enable_grad():
            loss = _evaluated(closure).clone()  # a closure may write its next loss into the same tensor
        if left and self._cleared is None and self._hold(left):
            raise RuntimeError(
                "the closure must clear the gradients by optimizer.zero_grad():"
                " the second pass has none from before it"
            )
        return FirstPass(loss, self._gradients(), before)

    def _hold(self, gradients: list[Tensor | None]) -> bool:
        pairs = zip(self._parameters, gradients, strict=True)
        return any(g is not None and g is p.grad for p, g in pairs)

    def second_pass(
        self, closure: Closure, first: FirstPass, groups: list[dict[str, Any]], *, keep: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Leave the gradients at w + eps in `grad`, with eps along the gradients of `first` in the groups.

        The weights are w again afterwards, BatchNorm statistics stay, random numbers are those of the
        first pass.

        Args:
            closure: as `step` takes it.
            first: of the same batch, from `_first_pass`.
            groups: of `param_groups`, those to be perturbed.
            keep: leave the gradients of `first` to the caller; else their memory is free in the pass.

        Returns:
            The loss at w + eps and the norm of the gradients of `first` in the groups, both 0-dim.
        """
        again = _passes.repeated(self._parameters, first.random_state)
        with self._perturbed(first, groups, keep) as norm, again, torch.enable_grad():
            self._detach_gradients()
            loss = _evaluated(closure)
        return loss, norm

    def _update_weights(self, losses: list[Tensor], norm: Tensor) -> None:
        """Step of the base optimizer, unless a loss, the norm of pass 1 or a gradient is not finite."""
        gradients = [g for g in self._gradients() if g is not None]
        if self.scaler is not None and gradients:
            (norm,) = _workers.average([norm], self._workers())
            with torch.no_grad():
                gradients[0].add_(norm - norm)  # 0, or NaN, by which every scaler notices the first pass
            self.scaler.unscale_(self.base)
        if self.skip_nonfinite and not self._finite(losses, norm, gradients):
            self.skipped += 1
        elif self.scaler is not None and gradients:
            self.scaler.step(self.base)
        else:
            self.base.step()
        self._cleared = None

    @torch.no_grad()
    def _finite(self, losses: list[Tensor], norm: Tensor, gradients: list[Tensor]) -> bool:
        """The same on all workers: they have the same gradients, and average their losses if they can."""
        workers = self._workers()
        known = [norm, *losses] if workers or not _workers.several() else [norm]
        return math.isfinite(_workers.average([_update.fused_check(gradients + known)], workers)[0])

    def _workers(self) -> list[Any]:
        return _workers.groups_of(self.ddp, self._parameters)

    def _detach_gradients(self) -> list[Tensor | None]:
        """Take the gradients away, so that the next backward pass writes into new tensors."""
        gradients = self._gradients()
        for p in self._parameters:
            p.grad = None
        return gradients

    @contextmanager
    def _perturbed(self, first: FirstPass, groups: list[dict[str, Any]], keep: bool) -> Iterator[Tensor]:
        rho = {id(p): _signed(group) for group in groups for p in group["params"]}
        pairs = zip(self._parameters, first.gradients, strict=True)
        moved = [(p, g) for p, g in pairs if id(p) in rho and g is not None]
        if not moved:
            yield first.loss.new_zeros(())
            return
        weights, gradients = map(list, zip(*moved, strict=True))
        del moved
        with torch.no_grad():
            kept = [w.clone() for w in weights]
        try:
            with torch.no_grad():
                radii = [rho[id(w)] for w in weights]
                norm = _update.ascend(weights, gradients, radii, self.adaptive, consume=not keep)
            if not keep:
                first.gradients.clear()
            del gradients
            torch.clear_autocast_cache()  # of casts of w, where autocast is on around the step
            yield norm
        finally:
            with torch.no_grad():
                torch._foreach_copy_(_workers.local(weights), _workers.local(kept))
            torch.clear_autocast_cache()


@dataclass(frozen=True)
class FirstPass:
    """Loss and gradients (in the order of the parameters) at w, and the random state before them."""

    loss: Tensor
    gradients: list[Tensor | None]
    random_state: _passes.RandomState


def _checked_closure(closure: Closure | None) -> Closure:
    if not callable(closure):
        raise TypeError(
            "step needs a closure that clears the gradients, computes the loss, calls backward and returns"
            " the loss; code that steps without one can have `optimizer.base`, which is not SAM"
        )
    return closure


def _evaluated(closure: Closure) -> Tensor:
    loss = closure()
    if not isinstance(loss, Tensor):
        raise TypeError(f"the closure must return the loss, a tensor, not {type(loss).__name__}")
    return loss.detach()


def _check_radius(rho: Any) -> None:
    try:
        valid = math.isfinite(rho) and rho >= 0
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"rho must be finite and >= 0, not {rho!r}")


def _check_base(base: torch.optim.Optimizer) -> None:
    name = type(base).__name__
    if isinstance(base, torch.optim.LBFGS):
        raise ValueError(f"{name} calls closures itself, so SAM cannot be around it: use another base")
    if isinstance(base, torch.optim.SparseAdam):
        raise ValueError(f"{name} wants sparse gradients, for which SAM is not defined: use another base")
    if "rho" in base.defaults:
        raise ValueError(f"{name} has a rho already, its own or of another SAM around it: use another base")


def _signed(group: dict[str, Any]) -> float:
    """The radius, negative where the base maximizes: -L is minimized then."""
    return -group["rho"] if group.get("maximize") else group["rho"]


def _as_instance(
    params: Iterable[Any] | None,
    base: type[torch.optim.Optimizer] | torch.optim.Optimizer,
    base_kwargs: dict[str, Any],
) -> torch.optim.Optimizer:
    if isinstance(base, torch.optim.Optimizer):
        if params is not None or base_kwargs:
            raise ValueError("an optimizer instance brings its own parameters and settings: pass params=None")
        return base
    if not callable(base):
        raise TypeError(f"base must be an optimizer's class or an instance of one, not {base!r}")
    if params is None:
        raise ValueError("params=None needs an optimizer instance as base")
    return base(params, **base_kwargs)
