"""Probes: measurements of a trained network at the end of a seed, kept in its record.

A probe is one module with a function `measure(model, dataset, seed)`. It changes nothing: weights, buffers
and mode of the model and torch's global random state are afterwards what they were. Modules that start with
an underscore are helpers. To add a probe, add a module and list it under `probes` in a study file.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from msam.datasets import Dataset
from msam.models import MultimodalClassifier

__all__ = ["known", "measure"]


def known() -> list[str]:
    """Names of the probes."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def measure(
    names: Sequence[str], model: MultimodalClassifier, dataset: Dataset, seed: int
) -> dict[str, dict[str, Any]]:
    """Run probes on a trained network.

    Args:
        names: the probes to run.
        model: the trained classifier, of some or all modalities of the data.
        dataset: the data, as for `msam.training.train_seed`.
        seed: fixes the random numbers of the probes, the same for every method.

    Returns:
        Probe -> its numbers, as JSON can hold them.

    Raises:
        ValueError: unknown probe.
    """
    for name in names:
        if name not in known():
            raise ValueError(f"unknown probe {name!r}; choose from {', '.join(known())}")
    return {name: import_module(f"msam.probes.{name}").measure(model, dataset, seed) for name in names}
