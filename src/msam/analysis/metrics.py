"""The paper's two derived numbers: overfitting gap tau (Eq. 1) and relative gain D_rel (Eq. 21)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

CELL = ["dataset", "fusion", "name"]


def overfitting_gap(train: pd.Series, test: pd.Series) -> pd.Series:
    """Tau = |train - test| / test (paper, Eq. 1), NaN where the test accuracy is 0.

    The paper states 0 <= tau <= 1, but only the lower bound holds: train 1.0 and test 0.4 give 1.5.
    """
    return (train - test).abs() / test.where(test > 0, np.nan)


def relative_gain(accuracy: pd.Series, joint: pd.Series) -> pd.Series:
    """D_rel = 100 (accuracy - joint) / joint in percent (paper, Eq. 21), NaN where joint is 0."""
    return 100 * (accuracy - joint) / joint.where(joint > 0, np.nan)


def final_gaps(runs: pd.DataFrame, rule: str = "last") -> pd.DataFrame:
    """Tau of every run and output at the epoch chosen by `rule`: dataset, fusion, name, seed, output, tau."""
    return _gaps(runs[runs["rule"] == rule], [*CELL, "seed", "output"])


def epoch_gaps(epochs: pd.DataFrame) -> pd.DataFrame:
    """Tau of every run and output after each epoch: dataset, fusion, name, seed, epoch, output, tau."""
    return _gaps(epochs, [*CELL, "seed", "epoch", "output"])


def gains_over_joint(runs: pd.DataFrame, rule: str = "last", split: str = "test") -> pd.DataFrame:
    """D_rel of every multimodal run over the joint run of the same seed: dataset, fusion, name, seed, gain.

    Runs whose seed has no joint run are left out; so is joint itself.
    """
    fused = runs[(runs["rule"] == rule) & (runs["split"] == split) & (runs["output"] == "fused")]
    fused = fused[~is_unimodal(fused["name"])]
    joint = fused.loc[fused["name"] == "joint", ["dataset", "fusion", "seed", "accuracy"]]
    others = fused[fused["name"] != "joint"]
    both = others.merge(joint, on=["dataset", "fusion", "seed"], suffixes=("", "_joint"))
    both["gain"] = relative_gain(both["accuracy"], both["accuracy_joint"])
    return both[[*CELL, "seed", "gain"]]


def by_seed(
    runs: pd.DataFrame,
    output: str = "fused",
    rule: str = "last",
    split: str = "test",
    value: str = "accuracy",
) -> dict[tuple[str, str, str], pd.Series]:
    """One number a seed for each cell: (dataset, fusion, name) -> `value` indexed by seed."""
    kept = runs[(runs["rule"] == rule) & (runs["split"] == split) & (runs["output"] == output)]
    return per_seed(kept, value)


def gaps_by_seed(runs: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    """Tau of the fused output after the last epoch: (dataset, fusion, name) -> tau indexed by seed."""
    gaps = final_gaps(runs)
    return per_seed(gaps[gaps["output"] == "fused"], "tau")


def per_seed(rows: pd.DataFrame, value: str = "value", by: str | list[str] = CELL) -> dict[Any, pd.Series]:
    """Key, the columns `by` or the one column, -> `value` indexed by seed."""
    return dict(iter(rows.set_index("seed").groupby(by)[value]))


def is_unimodal(name: pd.Series) -> pd.Series:
    """Which method names are single-modality networks."""
    return name.isin([one for one in name.unique() if str(one).startswith("unimodal")])


def _gaps(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    columns = [*keys, "accuracy"]
    train = frame.loc[frame["split"] == "train", columns]
    test = frame.loc[frame["split"] == "test", columns]
    both = train.merge(test, on=keys, suffixes=("_train", "_test"))
    both["tau"] = overfitting_gap(both["accuracy_train"], both["accuracy_test"])
    return both[[*keys, "tau"]]
