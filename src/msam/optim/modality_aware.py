"""Modality-aware SAM (M-SAM, arXiv 2510.24919, Algorithm 1).

    L    = L_d + L_s                           # loss of the dominant modality and the rest
    eps  = rho * grad L_d(w) / ||grad L_d(w)||_2
    w   <- base optimizer's step with grad L_d(w + eps) + grad L_s(w)

With L_d = v_d L and L_s = (1 - v_d) L, v_d the share of the dominant modality, held constant, this is

    eps  = rho * grad L(w) / ||grad L(w)||_2
    w   <- base optimizer's step with v_d grad L(w + eps) + (1 - v_d) grad L(w)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msam.optim import _passes, _update, _workers
from msam.optim.sam import SAM, Closure, FirstPass, _checked_closure

ROUNDING = 1e-5
"""By how much a share may lie outside [0, 1], as a mean of shares can in single precision."""


class ModalityAwareSAM(SAM):
    """M-SAM (arXiv 2510.24919, Algorithm 1, lines 5 and 6) around the bases of `SAM`, with its constructor.

    Param groups may carry `modality`, the name of the modality whose encoder they are; needed only
    for `step(..., dominant=name)`. Several workers average their shares and vote on the dominant modality,
    so that they take the same step; with DistributedDataParallel this needs `ddp`. Not to be confused with
    Momentum-SAM, which also goes by MSAM.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = ModalityAwareSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(1, 3)).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = optimizer.step(closure, share=0.7)
    """

    def step(  # type: ignore[override]
        self,
        closure: Closure | None = None,
        share: float | Tensor | Callable[[], float | Tensor] = 1.0,
        *,
        dominant: str | Callable[[], str] | None = None,
        rest: Callable[[], Any] | None = None,
    ) -> Tensor:
        """Take one step with the gradient share * g(w + eps) + (1 - share) * g(w), plus that of `rest`.

        Args:
            closure: clears the gradients, computes the loss, calls `backward`, returns the loss.
            share: v_d in [0, 1], a number, a 0-dim tensor, or a callable that is read after the first
                pass. 1, which it is where nothing is given, is SAM, 0 the base optimizer.
            dominant: modality whose param groups alone are perturbed (reading `encoder`), a name or a
                callable that is read after the first pass. None perturbs every group. Several workers take
                the name that most of them have, in a tie the first in the alphabet.
            rest: called once, after the first pass and at the unperturbed weights; the gradients that its
                `backward` leaves are added as they are. It is L_s where L_s is a loss of its own
                (reading `response`); the first pass must then retain its graph or `rest` build a new one,
                with the random numbers of the first pass and BatchNorm statistics that stay.
                With `ddp` its gradients are averaged over the workers, missing ones as zero.

        Returns:
            The loss of the first pass, at the unperturbed weights.

        Raises:
            RuntimeError: see `SAM.step`; or the second pass writes its gradients over those of the first.
            TypeError: see `SAM.step`; or share is no number.
            ValueError: share is outside [0, 1] or, though the loss is finite, not a number; no group has the
                modality `dominant`; or a gradient is sparse.
        """
        closure = _checked_closure(closure)
        first = self._first_pass(closure)
        share = self._agreed(_checked_share(share() if callable(share) else share, first.loss))
        groups = self._groups_of(dominant() if callable(dominant) else dominant)
        added = [] if rest is None else self._gradients_of(rest, first)
        loss, norm = self.second_pass(closure, first, groups)
        with torch.no_grad():
            perturbed = self._gradients()
            if _overwritten(first.gradients, perturbed):
                raise RuntimeError(
                    "the second pass wrote its gradients over those of the first: let it make new ones,"
                    " and pass a model of DistributedDataParallel(gradient_as_bucket_view=True) as ddp"
                )
            clean = self._clean(first.gradients, perturbed)
            mixed = _update.interpolate(clean, perturbed, share, consume=True)
            for p, gradient in zip(self._parameters, mixed, strict=True):
                p.grad = gradient
            for p, gradient in zip(self._parameters, added, strict=bool(added)):
                if gradient is not None:
                    p.grad = gradient if p.grad is None else p.grad.add_(gradient)
        first.gradients.clear()
        del clean, perturbed, mixed, added
        self._update_weights([first.loss, loss], norm)
        return first.loss

    def _first_pass(self, closure: Closure) -> FirstPass:
        first = super()._first_pass(closure)
        if self.ddp is None or not self.ddp.gradient_as_bucket_view:
            return first
        return replace(first, gradients=[g if g is None else g.clone() for g in first.gradients])

    def _gradients_of(self, rest: Callable[[], Any], first: FirstPass) -> list[Tensor | None]:
        self._detach_gradients()
        with _passes.repeated(self._parameters, first.random_state), torch.enable_grad():
            rest()
        gradients = self._detach_gradients()
        if self.ddp is None:
            return gradients
        pairs = zip(self._parameters, gradients, strict=True)
        known = [torch.zeros_like(p) if g is None else g for p, g in pairs if p.requires_grad]
        averages = iter(_workers.average(known, self._workers()))  # DDP does so for a new graph only
        return [next(averages) if p.requires_grad else None for p in self._parameters]

    def _clean(self, clean: list[Tensor | None], perturbed: list[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the first pass, averaged over the workers if these have not done so.

        Then those alone count that have a partner in the second pass, which are the same on all workers.
        """
        if self.sync_perturbation:
            return clean
        pairs = list(zip(clean, perturbed, strict=True))
        known = [torch.zeros_like(h) if g is None else g for g, h in pairs if h is not None]
        averages = iter(_workers.average(known, self._workers()))
        return [None if h is None else next(averages) for h in perturbed]

    def _agreed(self, share: float | Tensor) -> float | Tensor:
        """The mean share of the workers."""
        workers = self._workers()
        if not workers:
            return share
        value = torch.as_tensor(share, dtype=torch.float64, device=self._parameters[0].device)
        (mean,) = _workers.average([value], workers)
        return mean if mean.device.type == "cuda" else float(mean)

    def _groups_of(self, modality: str | None) -> list[dict[str, Any]]:
        if modality is None:
            return self.param_groups
        known = sorted({group["modality"] for group in self.param_groups if group.get("modality")})
        if modality not in known:
            raise ValueError(f"no param group has modality {modality!r}; known: {', '.join(known) or 'none'}")
        elected = self._elected(modality, known)
        return [group for group in self.param_groups if group.get("modality") == elected]

    def _elected(self, modality: str, known: list[str]) -> str:
        """The modality that most workers name."""
        workers = self._workers()
        if not workers:
            return modality
        vote = torch.tensor([float(name == modality) for name in known], device=self._parameters[0].device)
        (votes,) = _workers.average([vote], workers)
        return known[int(votes.argmax())]


def _overwritten(first: list[Tensor | None], second: list[Tensor | None]) -> bool:
    """Whether a gradient of the second pass lies where that of the first lay."""
    pairs = [(g, h) for g, h in zip(first, second, strict=True) if g is not None and h is not None]
    parts = (_workers.local(list(pair)) for pair in pairs)
    return any(g.numel() and g.data_ptr() == h.data_ptr() for g, h in parts)


def _checked_share(share: float | Tensor, loss: Tensor) -> float | Tensor:
    """NaN passes where it follows from the loss: the step is then skipped, with that of the other workers."""
    if isinstance(share, Tensor) and share.device.type == "cuda":
        torch._assert_async(_holds(share, loss))
        return share
    try:
        share = float(share)  # a number is the faster weight, and on the CPU reading it is free
    except (TypeError, ValueError):
        raise TypeError(f"share must be a number or a 0-dim tensor, or return one, not {share!r}") from None
    if not -ROUNDING <= share <= 1 + ROUNDING and not (math.isnan(share) and not math.isfinite(loss)):
        raise ValueError(f"share must lie in [0, 1], not {share}")
    return share if math.isnan(share) else min(max(share, 0.0), 1.0)


def _holds(share: Tensor, loss: Tensor) -> Tensor:
    """The rule of `_checked_share` on tensors, in few operators: loss - loss is NaN unless it is finite."""
    near = (share - share.clamp(0, 1)).abs() <= ROUNDING
    return near | share.isnan() & (loss - loss).isnan()
