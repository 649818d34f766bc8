"""What the shares cost as the modalities grow: `python benchmarks/modalities.py`.

SAM, M-SAM with exact shares, and M-SAM with cheaper ones, for two to eight modalities: shares sampled from
orders of the modalities, or kept over k steps, or smoothed; and lazy M-SAM, which keeps the perturbed pass
too. Network (the small one, late fusion), batch, clock and columns are those of `step_cost.py`. Steps of one
method differ here, so a repeat is twenty steps of every method in a row: whole periods of every k.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from step_cost import SHAPE, Cases, build, measure, parse, report

MODALITIES = (2, 3, 4, 5, 6, 7, 8)
FUSION = "late"
STEPS = 20
OUTPUT = Path("results/local/benchmarks/modalities.json")

CASES: Cases = {
    "joint": build("joint"),
    "sam": build("sam"),
    "msam": build("msam"),
    **{f"msam+permutations_{n}": build("msam", permutations=n) for n in (1, 4)},
    **{f"msam+dominance_every_{k}": build("msam", dominance=f"every:{k}") for k in (5, 10, 20)},
    "msam+dominance_ema": build("msam", dominance="ema"),
    **{f"lazy_msam+every_{k}": build("lazy_msam", every=k) for k in (2, 5, 10, 20)},
}
"""Named as the cells of the studies `lazy` and `scaling`."""


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Cost of one training step against the number of modalities.", 5, OUTPUT)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    rows = []
    for count in MODALITIES:
        shapes = {f"m{i + 1}": SHAPE for i in range(count)}
        rows += measure("small", FUSION, shapes, options.repeats, device, CASES, STEPS)
    report(rows, device, options.repeats, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
