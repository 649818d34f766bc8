"""What an epoch of several seeds costs, stacked and one after the other: `python benchmarks/stacked.py`.

The networks are those of the profile `embedded` with late fusion (early fusion has dropout, which is not
stacked): `controlled`, three vectors, where a step is the start of small operations, and `av_digits`, two
small convolutional encoders. A repeat trains all seeds for one epoch, construction of the networks and
evaluation included, once stacked and once seed by seed, in shuffled order and one process. The clock is
that of step_cost.py.

Columns of the table and of the rows of the JSON file:

    speedup           median over the repeats of time seed by seed / time stacked
    speedup_iqr       its lower and upper quartile
    stacked_ms        median time of an epoch of all seeds by the clock above
    alone_ms          the same, seed by seed
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import step_cost
import torch

from msam import studies
from msam.cells import override, placed
from msam.datasets import Dataset, load
from msam.records import write
from msam.stacked import train_seeds
from msam.training import train_seed

DATASETS = ("controlled", "av_digits")
METHODS = ("joint", "sam", "msam")
SEEDS = (1, 3, 5, 10)
OUTPUT = Path("results/local/benchmarks/stacked.json")


def stacked(config: dict[str, Any], data: Dataset, seeds: int) -> None:
    train_seeds(dict.fromkeys(range(seeds), config), data)


def alone(config: dict[str, Any], data: Dataset, seeds: int) -> None:
    for seed in range(seeds):
        train_seed(config, data, seed)


def now(device: torch.device) -> float:
    """Seconds by the clock that counts."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(dataset: str, method: str, seeds: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """One row: a cell of the study with this number of seeds."""
    (cell,) = studies.cells(studies.load("embedded"), "main", dataset, "late", method)
    config = override(cell, epochs=1).config
    data = placed(load(config["dataset"], config["dataset_options"]), device)
    ways = {"stacked": stacked, "alone": alone}
    found: dict[str, list[float]] = {name: [] for name in ways}
    shuffle = random.Random(0).sample
    for repeat in range(repeats + 1):
        for name in shuffle(list(ways), len(ways)):
            started = now(device)
            ways[name](config, data, seeds)
            if repeat:  # the first one warms up
                found[name].append(now(device) - started)
    ratios = [a / s for a, s in zip(found["alone"], found["stacked"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
    return {
        "dataset": dataset,
        "method": method,
        "seeds": seeds,
        "speedup": round(statistics.median(ratios), 3),
        "speedup_iqr": [round(quartiles[0], 3), round(quartiles[2], 3)],
        **{f"{name}_ms": round(1e3 * statistics.median(found[name]), 1) for name in ways},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [
        f"{'dataset':12}{'method':8}{'S':>3}{'speedup':>9}{'quartiles':>15}{'stacked ms':>12}{'alone ms':>10}"
    ]
    for r in rows:
        low, high = r["speedup_iqr"]
        lines.append(
            f"{r['dataset']:12}{r['method']:8}{r['seeds']:>3}{r['speedup']:>9.3f}"
            f"{f'{low:.3f}-{high:.3f}':>15}{r['stacked_ms']:>12.1f}{r['alone_ms']:>10.1f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = step_cost.parse(arguments, "Cost of an epoch of several seeds, stacked and alone.", 5, OUTPUT)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    rows = [
        measure(dataset, method, seeds, options.repeats, device)
        for dataset in DATASETS
        for method in METHODS
        for seeds in SEEDS
    ]
    about = step_cost.environment(device, options.repeats)
    write(options.output, {"environment": about, "rows": rows})
    print(table(rows))
    print(f"{about['clock']}, {about['device']}, median of {options.repeats}: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
