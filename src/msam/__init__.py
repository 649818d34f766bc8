"""M-SAM: an optimizer library, and the study that tests the paper's claims with it.

The names below need torch alone; the packages of `msam[study]` are for the study. Names and modules are
loaded on first use, so that `import msam.records` does not pay for `import torch`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msam.evaluator import CoalitionEvaluator
    from msam.optim import MSAM, SAM, ModalityAwareSAM
    from msam.shapley import modality_shares, shapley_values

__version__ = "0.1.0"
__all__ = ["MSAM", "SAM", "CoalitionEvaluator", "ModalityAwareSAM", "modality_shares", "shapley_values"]

_PLACES = {
    "CoalitionEvaluator": "msam.evaluator",
    "modality_shares": "msam.shapley",
    "shapley_values": "msam.shapley",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_PLACES.get(name, "msam.optim")), name)
    try:
        if not name.startswith("_"):
            return import_module(f"msam.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"msam.{name}":
            raise
    raise AttributeError(f"module 'msam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
