"""A dataset and a method of your own: train the cells and compare them."""

import sys
from pathlib import Path
from statistics import mean

from msam import cells, studies

HERE = Path(__file__).resolve().parent
sys.path.insert(
    0, str(HERE.parent)
)  # the folder that holds the package `own_study`

profile = studies.load(str(HERE / "study.yaml"))
for cell in studies.cells(profile):
    record = cells.run(cell, range(profile["seeds"]))
    accuracies = [
        seed["final"]["last"]["test"]["accuracy"]["fused"]
        for seed in record["seeds"]
    ]
    print(
        f"{cell.name:<8} test accuracy {mean(accuracies):.3f}, seeds {accuracies}"
    )
