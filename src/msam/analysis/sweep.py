"""Cells that differ in one number, the last part of their names: "mixture+share_0.25", "sam+rho_0.05"."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from msam.analysis.statistics import Interval, mean_interval

Cells = Mapping[tuple[str, str, str], pd.Series]
"""(dataset, fusion, name) -> numbers indexed by seed."""


def place_in(name: str, option: str) -> tuple[str, float] | None:
    """Method and number of a cell whose name ends with the option and a number, None of others."""
    method, _, x = name.partition(f"+{option}_")
    return (method, float(x)) if x else None


def swept(values: Cells, option: str) -> pd.DataFrame:
    """The cells whose names end with the option and a number.

    Args:
        values: numbers of each cell.
        option: for instance "share" or "rho".

    Returns:
        A row a seed: dataset, fusion, method, x (the number in the name), seed, value.
    """
    rows = []
    for (dataset, fusion, name), series in values.items():
        if place := place_in(name, option):
            where = {"dataset": dataset, "fusion": fusion, "method": place[0], "x": place[1]}
            rows += [where | {"seed": seed, "value": value} for seed, value in series.items()]
    return pd.DataFrame(rows, columns=["dataset", "fusion", "method", "x", "seed", "value"])


def best(rows: pd.DataFrame) -> dict[tuple[str, str, str], tuple[float, Interval]]:
    """(dataset, fusion, method) -> the x with the highest mean, and that mean with its interval."""
    found = {}
    for key, part in rows.groupby(["dataset", "fusion", "method"], sort=False):
        means = part.groupby("x")["value"].mean()
        x = float(means.idxmax())
        found[key] = (x, mean_interval(part.loc[part["x"] == x, "value"]))
    return found
