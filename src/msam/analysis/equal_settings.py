"""M-SAM against SAM where both have the learning rate and the radius that the search chose for M-SAM.

In the main study each method has its own, so a difference may be one of settings. The study `mixing` has SAM
at M-SAM's: there it is the constant share 1.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, compare_methods, verdict
from msam.analysis.metrics import CELL
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.ranking_table import UNCORRECTED
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import spread
from msam.analysis.table import Block, Table, grouped, number

FIRST, OTHER, SAME = "msam", "sam", "mixture+share_1.0"


def comparisons(study: Study, mixing: Study) -> pd.DataFrame:
    """M-SAM minus SAM in each block that both studies have run, by the last epoch's fused test accuracy.

    Returns:
        A row for each: dataset, fusion, own (Interval, each at its own settings, from the main study) and
        equal (Interval, both at M-SAM's, from `mixing`), fractions, paired by seed.
    """
    keys = ["dataset", "fusion"]
    own, equal = compare_methods(study, FIRST, OTHER), compare_methods(mixing, FIRST, SAME)
    both = own.merge(equal, on=keys, suffixes=("_own", "_equal"))
    both = both.rename(columns={"difference_own": "own", "difference_equal": "equal"})
    run = [own.n > 0 and equal.n > 0 for own, equal in zip(both["own"], both["equal"], strict=True)]
    return both.loc[run, [*keys, "own", "equal"]]


def settings_table(study: Study, mixing: Study) -> Table:
    """`comparisons` with the settings of both methods."""
    cells = study.frames.cells.drop_duplicates(CELL, keep="last").set_index(CELL)
    rows, data = [], []
    for row in comparisons(study, mixing).itertuples():
        where = {"dataset": row.dataset, "evidence": evidence(study, row.dataset), "fusion": row.fusion}
        text: dict[tuple[str, str], Any] = {("", key): value for key, value in where.items()}
        for heading, column in (("learning rate", "lr"), ("rho", "rho")):
            for name in (OTHER, FIRST):
                cell = cells.loc[(row.dataset, row.fusion, name)]
                text[heading, label(name)] = f"{cell[column]:g}"
        for heading, interval in (("each at its own", row.own), ("both at M-SAM's", row.equal)):
            points = interval.scaled(100)
            text[heading, "difference (points)"] = number(points, 2, signed=True)
            text[heading, "n"] = points.n
            text[heading, "reading"] = VERDICTS[verdict(points)]
            data.append(where | {"settings": heading} | spread("points", points))
        rows.append(text)
    note = (
        "M-SAM minus SAM in fused test accuracy after the last epoch, paired by seed, ± half of the 95 % "
        f"interval. Own settings: study `main`; M-SAM's: study `mixing`, where SAM is the share 1. "
        f"{UNCORRECTED}"
    )
    title = "M-SAM minus SAM at own and at equal settings"
    block = Block(grouped(rows))
    return Table(
        title, (block,), pd.DataFrame(data), note, f"{footer(study)} {footer(mixing)}", file="settings"
    )


def settings_sentence(study: Study, mixing: Study) -> str:
    """In how many blocks M-SAM is higher at own and at equal settings, and what is left of each gain."""
    found = comparisons(study, mixing)
    if found.empty:
        return "SAM has not been run at M-SAM's settings yet (study `mixing`)."
    own, equal = found["own"].map(verdict), found["equal"].map(verdict)
    datasets = found["dataset"]
    text = (
        "With SAM at the learning rate and radius of M-SAM (study mixing), M-SAM is higher than SAM in "
        f"{levels.share(study, datasets, equal == 'higher')} and lower in "
        f"{levels.count(study, datasets, equal == 'lower')}."
    )
    gains = [
        f"{row.dataset} {row.fusion} {number(row.own.scaled(100), 2, signed=True)} and "
        f"{number(row.equal.scaled(100), 2, signed=True)} points"
        for row in found[own == "higher"].itertuples()
    ]
    return text + (f" Its gains at own settings and at equal ones: {'; '.join(gains)}." if gains else "")
