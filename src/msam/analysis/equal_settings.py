"""M-SAM against SAM where both have the learning rate and the radius that the search chose for M-SAM.

In the main study each method has its own, so a difference may be one of settings. The study `mixing` has SAM
at M-SAM's: there it is the constant share 1.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis import levels
from msam.analysis.findings import VERDICTS, verdict
from msam.analysis.metrics import CELL, by_seed
from msam.analysis.names import label
from msam.analysis.provenance import footer
from msam.analysis.ranking_table import UNCORRECTED
from msam.analysis.sources import Study, evidence
from msam.analysis.statistics import Interval, mean_interval, spread
from msam.analysis.table import Block, Table, grouped, number

FIRST, OTHER, SAME = "msam", "sam", "mixture+share_1.0"


def comparisons(study: Study, mixing: Study) -> pd.DataFrame:
    """M-SAM minus SAM in each block that both studies have run, by the last epoch's fused test accuracy.

    Returns:
        A row for each: dataset, fusion, Intervals of fractions paired by seed: own (each at its own settings,
        from the main study), same (both at M-SAM's, from `mixing`, the seeds of `own`), equal (as same, all
        its seeds), settings (own minus same); and alike (whether the search chose the same for both).
    """
    main, held = by_seed(study.frames.runs), by_seed(mixing.frames.runs)
    chosen = _settings(study)
    rows = []
    for dataset, fusion in study.cells[["dataset", "fusion"]].drop_duplicates().itertuples(index=False):
        block = (dataset, fusion)
        mine = (*block, FIRST)
        if not ({mine, (*block, OTHER)} <= main.keys() and {mine, (*block, SAME)} <= held.keys()):
            continue
        own = (main[mine] - main[*block, OTHER]).dropna()
        equal = (held[mine] - held[*block, SAME]).dropna()
        same = equal[equal.index.isin(own.index)]
        alike = len({tuple(chosen.loc[(*block, name)]) for name in (FIRST, OTHER)}) == 1
        parts = map(mean_interval, (own, same, equal, (own - same).dropna()))
        rows.append((*block, *parts, alike))
    return pd.DataFrame(rows, columns=["dataset", "fusion", "own", "same", "equal", "settings", "alike"])


def _settings(study: Study) -> pd.DataFrame:
    """Learning rate and radius of every cell."""
    return study.frames.cells.drop_duplicates(CELL, keep="last").set_index(CELL)[["lr", "rho"]]


def settings_table(study: Study, mixing: Study) -> Table:
    """`comparisons` with the settings of both methods."""
    chosen = _settings(study)
    rows, data = [], []
    for row in comparisons(study, mixing).itertuples():
        where = {"dataset": row.dataset, "evidence": evidence(study, row.dataset), "fusion": row.fusion}
        text: dict[tuple[str, str], Any] = {("", key): value for key, value in where.items()}
        for heading, column in (("learning rate", "lr"), ("rho", "rho")):
            for name in (OTHER, FIRST):
                text[heading, label(name)] = f"{chosen.loc[(row.dataset, row.fusion, name), column]:g}"
        for heading, interval in (
            ("each at its own", row.own),
            ("both at M-SAM's", row.same),
            ("both at M-SAM's, all seeds", row.equal),
        ):
            points = interval.scaled(100)
            text[heading, "difference (points)"] = number(points, 2, signed=True)
            text[heading, "n"] = points.n
            text[heading, "reading"] = VERDICTS[verdict(points)]
            data.append(where | {"settings": heading} | spread("points", points))
        rows.append(text)
    note = (
        "M-SAM minus SAM in fused test accuracy after the last epoch, paired by seed, ± half of the 95 % "
        "interval. Own settings: study `main`; M-SAM's: study `mixing`, where SAM is the share 1, on the "
        "seeds of `main` and on all that it has. Where the settings are the same, the first two are one "
        f"experiment. {UNCORRECTED}"
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
    own, same, equal = (found[column].map(verdict) for column in ("own", "same", "equal"))
    datasets = found["dataset"]
    text = (
        "With SAM at the learning rate and radius of M-SAM (study mixing), on the same seeds, M-SAM is "
        f"higher than SAM in {levels.share(study, datasets, same == 'higher')} and lower in "
        f"{levels.count(study, datasets, same == 'lower')}; on all seeds of that study ("
        f"{levels.seeds(study, datasets, [interval.n for interval in found['equal']])}) higher in "
        f"{levels.count(study, datasets, equal == 'higher')} and lower in "
        f"{levels.count(study, datasets, equal == 'lower')}. In {int(found['alike'].sum())} of the blocks "
        "the search chose the same settings for both."
    )
    gains = [
        f"{row.dataset} {row.fusion} {_points(row.own)} and {_points(row.same)} points, so the settings make "
        f"{_points(row.settings)}"
        for row in found[own == "higher"].itertuples()
    ]
    return text + (f" Its gains at own settings and at equal ones: {'; '.join(gains)}." if gains else "")


def _points(interval: Interval) -> str:
    return number(interval.scaled(100), 2, signed=True)
