"""What a training step costs, from the benchmark's record."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msam.analysis.names import in_order, label
from msam.analysis.sources import Study, benchmark
from msam.analysis.table import DASH, Block, Table, grouped
from msam.records import commit_name

COLUMNS = {
    "net": "network",
    "fusion": "fusion",
    "method": "method",
    "modalities": "modalities",
    "ratio_to_sam": "to SAM",
    "ratio_to_sam_iqr": "quartiles",
    "ratio_to_joint": "to joint",
    "median_ms": "median (ms)",
    "forward": "encoder passes",
    "fuse": "fusion passes",
    "backward": "backward passes",
}


STEPS, PEERS, STACKED = "step_cost", "peers", "stacked"
CPU, GPU = "", "cuda/"
"""Folder of a benchmark's record, in `benchmarks`."""

STACKED_COLUMNS = {
    "dataset": "dataset",
    "method": "method",
    "seeds": "seeds",
    "speedup": "times as fast",
    "speedup_iqr": "quartiles",
    "stacked_ms": "stacked (ms)",
    "alone_ms": "one by one (ms)",
}
TIMED = "ratios are medians over repeats of the two side by side. Evidence level: own timing."

SELDOM = {"paper": ", timed a fortieth as often,"}
"""How often a network was timed, where it was not as often as the others; see `benchmarks/step_cost.py`."""


def cost_table(study: Study) -> Table:
    """Time of a step relative to SAM's and to joint training's, its milliseconds, and its passes."""
    note = (
        f"Same network and batch in one process; {TIMED} The network paper has a fortieth of the repeats, "
        "rounded up."
    )
    return _table(study, STEPS, "Cost of one step", COLUMNS, note)


def gpu_table(study: Study) -> Table:
    """Time of a step relative to SAM's on a GPU: methods down, networks across."""
    data = cost_rows(study, GPU + STEPS)
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for (net, fusion), part in data.groupby(["net", "fusion"], sort=False) if len(data) else ():
        for row in part.itertuples():
            line = rows.setdefault(row.method, {("", "method"): label(row.method)})
            line[f"{net}, {fusion} fusion", f"M = {row.modalities}"] = f"{row.ratio_to_sam:.2f}"
    block = Block(grouped([rows[name] for name in in_order(rows)]).fillna(DASH))
    note = (
        f"Time of a step relative to SAM's, with M modalities. Same network and batch in one process; {TIMED}"
    )
    footer = cost_footer(study, GPU + STEPS)
    return Table("Cost of one step on a GPU", (block,), data, note, footer, file="cuda_step_cost")


def peers_table(study: Study, where: str = CPU) -> Table:
    """The library's optimizers beside other SAMs: as `cost_table`, and on the CPU the memory of a step."""
    note = f"SAM and M-SAM as their defaults are, with the check of every step; {TIMED}"
    columns = dict(COLUMNS)
    if where == CPU:
        note += " Memory: most that a step holds at a time, in sizes of the network's parameters."
        columns["memory"] = "memory"
    return _table(study, where + PEERS, "Beside other SAMs", columns, note)


def stacked_table(study: Study, where: str = CPU) -> Table:
    """Seconds of an epoch of several seeds, trained together and one after the other."""
    note = f"One epoch of all seeds with late fusion, its evaluation included; {TIMED}"
    return _table(study, where + STACKED, "Seeds trained together", STACKED_COLUMNS, note)


def peers_sentence(study: Study, where: str = CPU) -> str:
    """What other SAMs cost relative to the library's, and its M-SAM, smallest and largest ratio of all."""
    rows = cost_rows(study, where + PEERS)
    if rows.empty:
        return "The library has not been timed beside other SAMs."
    ratios = rows.groupby("method")["ratio_to_sam"].agg(["min", "max"])
    parts = [
        f"{label(name)} {ratios.at[name, 'min']:.2f} to {ratios.at[name, 'max']:.2f}"
        for name in in_order(rows["method"])
        if name not in ("joint", "sam")
    ]
    return f"Relative to a step of this library's SAM, by network: {', '.join(parts)}."


def gpu_sentence(study: Study) -> str:
    """As `peers_sentence` for a GPU, with its name; nothing where none was measured."""
    record = benchmark(study.root, GPU + PEERS)
    if not record:
        return ""
    device = record["environment"]["device"].removeprefix("cuda: ")
    return f"On a GPU ({device}): {peers_sentence(study, GPU)}"


def _table(study: Study, name: str, title: str, columns: dict[str, str], note: str) -> Table:
    data = cost_rows(study, name)
    rows = [
        {head: _text(key, row.get(key)) for key, head in columns.items()} for row in data.to_dict("records")
    ]
    footer = cost_footer(study, name)
    return Table(title, (Block(pd.DataFrame(rows)),), data, note, footer, file=name.replace("/", "_"))


def cost_sentence(study: Study) -> str:
    """What M-SAM and its naive form cost relative to SAM with the fewest modalities, on every network."""
    rows = cost_rows(study)
    if rows.empty:
        return "No benchmark is recorded; `make benchmark` measures and writes one."
    fewest = rows["modalities"].min()
    parts = [
        f"on the network {net}{SELDOM.get(net, '')} a step of {label(method)} costs "
        f"{_both(part, method, fewest)}"
        for net, part in rows.groupby("net", sort=False)
        for method in ("msam", "msam (naive)")
        if method in set(part["method"])
    ]
    return f"With {fewest} modalities {'; '.join(parts) or 'no M-SAM step was timed'}."


def cost_rows(study: Study, name: str = STEPS) -> pd.DataFrame:
    """The rows of a benchmark by network, fusion and number of modalities as recorded, methods in order."""
    record = benchmark(study.root, name)
    rows = pd.DataFrame(record["rows"] if record else [])
    if rows.empty or "net" not in rows:
        return rows
    names = in_order(rows["method"])
    blocks = rows.groupby(["net", "fusion", "modalities"], sort=False)
    return pd.concat([block.sort_values("method", key=lambda m: m.map(names.index)) for _, block in blocks])


def cost_footer(study: Study, name: str = STEPS) -> str:
    """Where the numbers of a benchmark come from."""
    return benchmark_footer(benchmark(study.root, name), name)


def benchmark_footer(record: dict[str, Any] | None, name: str) -> str:
    """Where the numbers of benchmarks/<name>.json come from."""
    if not record:
        return "Remake: `make benchmark`."
    about = record["environment"]
    commit = about.get("commit") and f"commit {commit_name(about['commit'], about.get('dirty', False))}"
    device = about.get("device") and f"{about['device']}, {about.get('clock', 'time')}"
    repeats = about.get("repeats") and f"{about['repeats']} repeats"
    known = "; ".join(text for text in (commit, device, repeats) if text)
    remake = f"make benchmark{' DEVICE=cuda' if name.startswith(GPU) else ''}"
    return f"Made from results/benchmarks/{name}.json; {known}; remake: `{remake}`."


def _both(rows: pd.DataFrame, method: str, count: int) -> str:
    mine = rows[(rows["method"] == method) & (rows["modalities"] == count)]
    return " and ".join(
        f"{row.ratio_to_sam:.2f} times SAM's ({row.fusion} fusion; quartiles "
        f"{_text('quartiles', row.ratio_to_sam_iqr)})"
        for row in mine.itertuples()
    )


def _text(key: str, value: Any) -> str:
    if key == "method":
        return label(value)
    if value is None or value != value:
        return DASH
    if isinstance(value, list):
        return " to ".join(f"{end:.2f}" for end in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
