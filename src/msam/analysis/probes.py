"""Tidy frames of what the probes of trained networks measured.

Every frame has the columns dataset, fusion, name and seed. `part` is "whole" or the modality of an encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from msam.analysis.metrics import CELL, per_seed
from msam.analysis.sources import Study, modalities
from msam.analysis.statistics import Interval, paired_difference

WHOLE, MISSING = "whole", "missing"
RUN = [*CELL, "seed"]
MEASURES = {
    "hessian_top": "top eigenvalue",
    "hessian_trace": "trace",
    "sharpness": "sharpness",
    "adaptive_sharpness": "adaptive sharpness",
}
"""Field of the record -> its name for readers; larger is sharper in each."""


def flatness(study: Study) -> pd.DataFrame:
    """The measures of `MEASURES`, a row for each part: the columns of a run, part, measure, value."""
    rows = [
        run | {"part": part, "measure": measure, "value": block[measure]}
        for run, found in _found(study, "flatness")
        for part, block in {WHOLE: found["whole"], **found["blocks"]}.items()
        for measure in MEASURES
    ]
    return _frame(study, rows, ["part", "measure", "value"])


def log_flatness(study: Study) -> pd.DataFrame:
    """`flatness` with log10 of the values, NaN of those that are not positive."""
    rows = flatness(study)
    return rows.assign(value=np.log10(rows["value"].where(rows["value"] > 0)))


def weight_noise(study: Study) -> pd.DataFrame:
    """Test accuracy with noise in the weights of a part: the columns of a run, part, level, value."""
    rows = [
        run | {"part": part, "level": level, "value": accuracy}
        for run, found in _found(study, "flatness")
        for part, accuracies in found["weight_noise"]["accuracy"].items()
        for level, accuracy in zip(found["weight_noise"]["levels"], accuracies, strict=True)
    ]
    return _frame(study, rows, ["part", "level", "value"])


def robustness(study: Study) -> pd.DataFrame:
    """Test accuracy with one modality disturbed: the columns of a run, part, level, value.

    `level` is a number of standard deviations, 0 for the clean input, or "missing".
    """
    rows = [
        run | {"part": modality, "level": level, "value": accuracy}
        for run, found in _found(study, "robustness")
        for modality, noise in found["noise"].items()
        for level, accuracy in {
            0.0: found["clean"],
            **dict(zip(noise["levels"], noise["accuracy"], strict=True)),
            MISSING: found["missing"][modality],
        }.items()
    ]
    return _frame(study, rows, ["part", "level", "value"])


def landscapes(study: Study, dataset: str, seed: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    """(fusion, name) -> the places `x` and the losses `loss[i][j]`, nats, around one trained network."""
    return {
        (run["fusion"], run["name"]): found["landscape"]
        for run, found in _found(study, "flatness")
        if (run["dataset"], run["seed"]) == (dataset, seed)
    }


def differences(rows: pd.DataFrame, first: str, others: Iterable[str], by: list[str]) -> pd.DataFrame:
    """`value` of one method minus that of each other, paired by seed.

    Args:
        rows: the columns of a run, those of `by`, and value.
        first: the method.
        others: the methods it is compared with.
        by: what tells the numbers of one run apart.

    Returns:
        A row for each: dataset, fusion, the columns of `by`, other, difference (Interval).
    """
    keys = ["dataset", "fusion", *by]
    others = list(others)
    found = []
    for where, block in rows.groupby(keys, sort=False):
        values = per_seed(block, by="name")
        for other in others:
            if first in values and other in values:
                difference: Interval = paired_difference(values[first], values[other])
                found.append((*where, other, difference))
    return pd.DataFrame(found, columns=[*keys, "other", "difference"])


def _found(study: Study, probe: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The columns of a run and what the probe found, for every run that it measured."""
    for cell, seed, found in study.probed:
        if probe in found:
            yield dict(zip(RUN, (*cell, seed), strict=True)), found[probe]


def _frame(study: Study, rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Rows by dataset, late fusion first, parts in the order of the dataset."""
    frame = pd.DataFrame(rows, columns=[*RUN, *columns])
    places = {d: i for i, d in enumerate(study.homes)}
    parts = {(d, m): i for d in study.homes for i, m in enumerate([WHOLE, *modalities(study, d)])}
    order = [
        (places[row.dataset], row.fusion != "late", parts.get((row.dataset, row.part), 0))
        for row in frame.itertuples()
    ]
    return frame.iloc[sorted(range(len(frame)), key=order.__getitem__)].reset_index(drop=True)
