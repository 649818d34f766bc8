"""Shares of the modalities for any model, by muting its inputs (Appendix B of the paper).

A coalition is evaluated in evaluation mode with the inputs of the other modalities set to zero (AGM, ICCV
2023). `CoalitionEvaluator` is a thin class around `muted_logits`, or `coalition_logits` where features can
be shared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from msam.coalitions import NORMALIZATIONS, VALUES, _weight_matrix, coalition_logits, evaluation_mode
from msam.models import MultimodalClassifier
from msam.shapley import Coalition, coalitions

Inputs = Mapping[str, Any]
OFFER = ("encode", "fuse")
"""Methods of one argument that a model has whose features can be shared by the coalitions."""


class CoalitionEvaluator:
    """What a model answers when only some modalities are present, and the shares that follow.

    `logits`, `shares` and `dominant_share` are called exactly as the model is: with one dict, with keywords,
    or with positional tensors, whose names are then those of the parameters of `forward`. An absent modality
    is `zeros_like` its input. The model runs in evaluation mode, without gradients, under the caller's
    autocast, 2^M - 1 times for M modalities; its parameters, gradients, buffers, training flags and torch's
    random numbers stay as they are.

    A model that offers `modalities`, `encode(inputs)` and `fuse(features)`, as
    `msam.models.MultimodalClassifier` does, is encoded once, unless `output` is given. Its output must be
    `fuse(encode(inputs))`, and its `encode` must treat every modality and every sample by itself. Where an
    input or a feature is no tensor, or the model is sharded, it is called as any other.

    The wrappers of data parallelism and of `torch.compile` are looked through. Each of several workers gets
    the shares of its own batch. What `forward` itself writes into inputs or buffers stays written. Muted
    integers are 0 too, which should be the padding of tokens. Where a modality is missing from a whole batch,
    leave its input out and name the others as `modalities` of a second evaluator.

    Args:
        model: any `nn.Module` that returns logits, B x C.
        modalities: names of the inputs that are modalities, M of them; the other inputs, a mask for example,
            are passed on as they are. None: the model's own `modalities` if it offers the three names above,
            else every input.
        value: scalar value of a coalition. "accuracy": fraction that is right, in [0, 1], the paper's words;
            "probability": mean probability of the true class, in [0, 1]; "logit": mean logit of the true
            class above the mean logit; "loss": cross-entropy saved against the uniform prediction, in nats.
            They compare two classes or more. Or a function of logits, ... x B x C, and labels that returns
            values of shape (...): for one logit, several labels or soft ones, or a regression. The empty
            coalition has the value 0, so 0 must mean what no input at all would get: return the loss of a
            constant prediction minus the loss, not minus the loss alone, which leaves no share above 0.
        normalization: "linear": Eq. 20 with negative contributions clipped to 0; "softmax": exponentials of
            the contributions divided by their sum.
        output: takes the logits out of what the model returns, for example `lambda out: out.logits`.

    Raises:
        ValueError: value or normalization is unknown, or modalities is empty or names one twice.

    Example:
        >>> class Sum(torch.nn.Module):
        ...     def forward(self, image, audio):
        ...         return image + audio
        >>> evaluator = CoalitionEvaluator(Sum())
        >>> image, audio, labels = torch.eye(2), torch.zeros(2, 2), torch.tensor([0, 1])
        >>> {m: float(share) for m, share in evaluator.shares(labels, image, audio).items()}
        {'image': 0.75, 'audio': 0.25}
    """

    def __init__(
        self,
        model: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        value: str | Callable[[Tensor, Tensor], Tensor] = "accuracy",
        normalization: str = "linear",
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        for what, choice, choices in (
            ("value", value, VALUES),
            ("normalization", normalization, NORMALIZATIONS),
        ):
            if isinstance(choice, str) and choice not in choices:
                raise ValueError(f"unknown {what} {choice!r}; choose from {', '.join(choices)}")
        if isinstance(modalities, str) or (
            modalities is not None and not 0 < len(modalities) == len(set(modalities))
        ):
            raise ValueError(f"modalities must be one name or more, each once, not {modalities!r}")
        self.model, self.modalities, self.output = _unwrapped(model), modalities, output
        self._named = value if isinstance(value, str) else None
        self.value = VALUES[value] if isinstance(value, str) else value
        self.normalize = NORMALIZATIONS[normalization]

    def logits(self, /, *inputs: Any, **named: Any) -> dict[Coalition, Tensor]:
        """Logits of every non-empty coalition of modalities.

        Args:
            *inputs: what the model is called with.
            **named: what the model is called with.

        Returns:
            Coalition -> logits, B x C; smallest first, all modalities last.

        Raises:
            TypeError: a modality's input is no tensor.
            ValueError: there is no modality, or no input of its name; a positional input has no name, or two
                inputs have the same; the output is not B x C.

        Example:
            >>> evaluator = CoalitionEvaluator(torch.nn.Bilinear(2, 3, 4))
            >>> found = evaluator.logits(torch.ones(5, 2), torch.ones(5, 3))
            >>> [(sorted(coalition), tuple(logits.shape)) for coalition, logits in found.items()]
            [(['input1'], (5, 4)), (['input2'], (5, 4)), (['input1', 'input2'], (5, 4))]
        """
        names, logits = self._evaluate(inputs, named)
        return dict(zip(coalitions(names), logits.unbind(), strict=True))

    def shares(self, labels: Tensor, /, *inputs: Any, **named: Any) -> dict[str, Tensor]:
        r"""Share of every modality in the batch, :math:`v_m = \Phi_m / \sum_j \Phi_j` (Eq. 18 and 20).

        Args:
            labels: class numbers below C, shape (B,); for a function `value` anything that begins with B.
            *inputs: what the model is called with.
            **named: what the model is called with.

        Returns:
            Modality -> share, 0-dim tensors on the device of the logits; they are >= 0 and sum to 1, or are
            NaN where a value is.

        Raises:
            TypeError: see `logits`.
            ValueError: see `logits`; or the labels are an input, though `modalities` names none, there are
                not as many labels as rows of logits, a `value` with a name
                gets one column of logits or labels that are no class numbers, or a function `value` does not
                return one value a coalition.

        Example:
            >>> evaluator = CoalitionEvaluator(torch.nn.Bilinear(2, 3, 4), value="loss")
            >>> shares = evaluator.shares(torch.zeros(5).long(), torch.ones(5, 2), torch.ones(5, 3))
            >>> list(shares), round(float(sum(shares.values())), 4)
            (['input1', 'input2'], 1.0)
        """
        names, shares = self._shares(labels, inputs, named)
        return dict(zip(names, shares.unbind(), strict=True))

    def dominant_share(self, labels: Tensor, /, *inputs: Any, **named: Any) -> Tensor:
        """The largest of `shares`, v_d; unlike `max` it does not make a GPU wait.

        Args:
            labels: class numbers, shape (B,); for a function `value` anything that begins with B.
            *inputs: what the model is called with.
            **named: what the model is called with.

        Returns:
            Share, a 0-dim tensor in [1/M, 1], on the device of the logits.

        Raises:
            TypeError: see `logits`.
            ValueError: see `shares`.

        Example:
            >>> from msam import ModalityAwareSAM
            >>> model = torch.nn.Bilinear(2, 3, 4)
            >>> optimizer = ModalityAwareSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
            >>> evaluator = CoalitionEvaluator(model)
            >>> image, audio, labels = torch.ones(5, 2), torch.ones(5, 3), torch.zeros(5).long()
            >>> def closure():
            ...     optimizer.zero_grad()
            ...     loss = torch.nn.functional.cross_entropy(model(image, audio), labels)
            ...     loss.backward()
            ...     return loss
            >>> loss = optimizer.step(closure, share=lambda: evaluator.dominant_share(labels, image, audio))
        """
        return self._shares(labels, inputs, named)[1].max()

    def _shares(
        self, labels: Tensor, inputs: tuple[Any, ...], named: Inputs
    ) -> tuple[tuple[str, ...], Tensor]:
        names, logits = self._evaluate(inputs, named, labels)
        _check_labels(labels, logits, self._named)
        logits = logits if logits.dtype.itemsize > 2 else logits.float()
        values = self.value(logits, labels)
        if values.shape != logits.shape[:1]:
            shape, found = list(logits.shape), list(values.shape)
            raise ValueError(f"value must turn logits of shape {shape} into shape {shape[:1]}, not {found}")
        values = values if values.is_floating_point() else values.float()
        if self._named == "accuracy":  # which takes a NaN for the largest logit
            values = torch.where(logits.isnan().flatten(1).any(1), torch.nan, values)
        weights = _weight_matrix(names, values.dtype, values.device)
        return names, self.normalize((weights * values).sum(-1))  # a product of matrices would be autocast

    @torch.no_grad()
    def _evaluate(
        self, args: tuple[Any, ...], kwargs: Inputs, labels: Tensor | None = None
    ) -> tuple[tuple[str, ...], Tensor]:
        """Names of the modalities and logits of their coalitions, (2^M - 1) x B x C."""
        model = cast(Any, self.model)
        inputs, call = _by_name(model, args, kwargs)
        if self.modalities is None and labels is not None:
            _check_apart(labels, inputs)
        offered = tuple(model.modalities) if _offers(model) else ()
        names = tuple(self.modalities or offered or inputs)
        _check(names, inputs)
        shared = inputs.keys() == set(offered) and self.output is None and _sharable(model, inputs)
        with evaluation_mode(model), _random_numbers_kept(model):
            features = model.encode(inputs) if shared else {}
            if shared and all(isinstance(h, Tensor) for h in features.values()):
                return names, _shared_logits(model, inputs, features, names)
            output = self.output or (lambda out: out)
            return names, muted_logits(lambda inputs: _checked(output(call(inputs))), inputs, names)


def muted_logits(model: Callable[[Inputs], Tensor], inputs: Inputs, modalities: tuple[str, ...]) -> Tensor:
    """Logits of every coalition, (2^M - 1) x B x C, one call of the model each.

    Args:
        model: from inputs by name to logits, B x C.
        inputs: name -> input.
        modalities: names of the inputs that are muted; their inputs are tensors.

    Returns:
        Logits, in the order of `msam.shapley.coalitions(modalities)`.
    """
    zeros = {m: torch.zeros_like(inputs[m]) for m in modalities}
    sets = coalitions(modalities)
    return torch.stack([model({**inputs, **{m: zeros[m] for m in modalities if m not in s}}) for s in sets])


def _offers(model: nn.Module) -> bool:
    """Whether a model has `modalities` and the methods of `OFFER`, and not others of these names."""
    methods = [getattr(type(model), name, None) for name in OFFER]
    return hasattr(model, "modalities") and all(map(_takes_one, methods))


@cache
def _takes_one(method: Callable[..., Any] | None) -> bool:
    if not inspect.isfunction(method):
        return False
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return sum(p.default is p.empty for p in parameters) == 1


def _sharable(model: nn.Module, inputs: Inputs) -> bool:
    """Whether `encode` can be called past `forward`, which would gather the shards (DTensor)."""
    several = dist.is_available() and dist.is_initialized()  # first: to go through a model takes long
    if several and any(hasattr(p, "full_tensor") for p in model.parameters()):
        return False
    return all(isinstance(x, Tensor) and x.is_floating_point() for x in inputs.values())


def _shared_logits(
    model: MultimodalClassifier, inputs: Inputs, features: Mapping[str, Tensor], modalities: tuple[str, ...]
) -> Tensor:
    """`muted_logits` of a model that encodes and fuses."""
    full = _checked(model.fuse(features))
    always = frozenset(model.modalities) - frozenset(modalities)
    sets = [s | always for s in coalitions(modalities)]
    return coalition_logits(model, inputs, features, full, sets)


def _by_name(
    model: nn.Module, args: tuple[Any, ...], kwargs: Inputs
) -> tuple[dict[str, Any], Callable[[Inputs], Any]]:
    """The inputs by name, and the model as a function of them."""
    mapping = len(args) == 1 and isinstance(args[0], Mapping)
    first = dict(args[0]) if mapping else dict(zip(_places(model, len(args)), args, strict=True))
    if twice := first.keys() & kwargs.keys():
        raise ValueError(f"two inputs have the name {min(twice)!r}")

    def call(inputs: Inputs) -> Any:
        ours = {name: inputs[name] for name in first}
        keywords = {name: inputs[name] for name in kwargs}
        return model(_like(args[0], ours), **keywords) if mapping else model(*ours.values(), **keywords)

    return {**first, **kwargs}, call


def _like(batch: Inputs, inputs: dict[str, Any]) -> Inputs:
    """A mapping of the batch's own kind, which a model may read by attributes, with these inputs."""
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return inputs
    made = copy(batch)
    made.update(inputs)
    return made


def _places(model: nn.Module, count: int) -> list[str]:
    """Names of the first positional parameters of `forward`."""
    parameters = inspect.signature(model.forward).parameters.values()
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < count:
        names = f"forward has names for {len(places)} of the {count} positional inputs"
        raise ValueError(f"{names}: give the inputs by keyword or as one dict, as the model takes them")
    return places[:count]


def _check(modalities: tuple[str, ...], inputs: Inputs) -> None:
    if not modalities:
        raise ValueError("there is no modality: the model is called with no input")
    for m in modalities:
        if m not in inputs:
            raise ValueError(f"no input has the name of modality {m!r}; the inputs are {', '.join(inputs)}")
        if not isinstance(inputs[m], Tensor):
            kind = type(inputs[m]).__name__
            raise TypeError(
                f"input {m!r} is no tensor but {kind}, so it cannot be muted; `modalities` names what is"
            )


def _check_apart(labels: Tensor, inputs: Inputs) -> None:
    """Refuse labels that are an input too, and so would be a modality."""
    for name, x in inputs.items():
        if x is labels:
            raise ValueError(f"input {name!r} is the labels: say which inputs are muted with `modalities`")


def _check_labels(labels: Tensor, logits: Tensor, value: str | None) -> None:
    rows, columns = logits.shape[1:]
    found = list(labels.shape)
    if found[:1] != [rows]:
        raise ValueError(f"the logits have {rows} rows, so labels must have as many, not shape {found}")
    if value is None:
        return
    if columns < 2:
        raise ValueError(f"value={value!r} compares classes, not {columns} logit: pass a function as value=")
    if found != [rows] or labels.is_floating_point():
        kind = f"{labels.dtype} of shape {found}"
        raise ValueError(
            f"value={value!r} needs class numbers, shape [{rows}], not {kind}: pass a function as value="
        )


def _checked(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the output must be logits, B x C, not {found}; `output` can take them out of it")
    return logits


def _unwrapped(model: nn.Module) -> nn.Module:
    if isinstance(model, DataParallel | DistributedDataParallel):
        return _unwrapped(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return model if compiled is None else _unwrapped(compiled)


@contextmanager
def _random_numbers_kept(model: nn.Module) -> Iterator[None]:
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        yield
