"""What a training step costs, from the benchmark's record."""

from __future__ import annotations

import pandas as pd

from msam.analysis.provenance import listed
from msam.analysis.sources import Study
from msam.analysis.table import DASH, Block, Table

COLUMNS = {
    "fusion": "fusion",
    "M": "modalities",
    "method": "method",
    "median_ms": "median (ms)",
    "ratio_to_sam": "to SAM",
    "ratio_to_joint": "to joint",
    "forward": "forward passes",
    "backward": "backward passes",
}


def cost_table(study: Study) -> Table:
    """Median milliseconds of a step and its ratio to SAM's and joint training's."""
    data = pd.DataFrame(study.costs["rows"] if study.costs else [])
    rows = pd.DataFrame(
        [{COLUMNS[key]: _text(row.get(key)) for key in COLUMNS} for row in data.to_dict("records")]
    )
    note = (
        "Same network and batch in one process, median over interleaved repeats. Evidence level: own timing."
    )
    return Table("Cost of one step", (Block(rows),), data, note, cost_footer(study), file="step_cost")


def cost_sentence(study: Study) -> str:
    """What M-SAM (loss) costs relative to SAM with two modalities, from the benchmark."""
    if not study.costs or not study.costs["rows"]:
        return "No benchmark is recorded; `make benchmark` measures and writes one."
    rows = pd.DataFrame(study.costs["rows"])
    mine = rows[rows["method"].isin(["msam", "msam+loss", "M-SAM (loss)"]) & (rows["M"] == rows["M"].min())]
    if mine.empty:
        return "The recorded benchmark has no M-SAM step."
    parts = [f"{row.ratio_to_sam:.2f} times SAM's with {row.fusion} fusion" for row in mine.itertuples()]
    return f"With {rows['M'].min()} modalities a step of M-SAM costs {' and '.join(parts)}."


def cost_footer(study: Study) -> str:
    """Where the costs come from."""
    if not study.costs:
        return "Remake: `make benchmark`."
    environment = study.costs["environment"]
    about = listed([f"{key} {value}" for key, value in environment.items()], most=6) if environment else ""
    return f"Made from benchmarks/step_cost.json{'; ' + about if about else ''}; remake: `make benchmark`."


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return DASH
    return f"{value:.2f}" if isinstance(value, float) else str(value)
