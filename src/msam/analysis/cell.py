"""Table and curves of one record, for the notebook that trains a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def table(record: dict[str, Any]) -> pd.DataFrame:
    """Test accuracy after the last epoch: one row a seed, one column an output; diverged seeds are empty."""
    import pandas as pd

    rows = {
        seed["seed"]: seed["final"]["last"]["test"]["accuracy"] if seed["final"] else {}
        for seed in record["seeds"]
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed").round(4)


def curves(record: dict[str, Any]) -> Figure:
    """Validation accuracy against epochs: one line a seed, one panel an output."""
    import matplotlib.pyplot as plt

    entries = [seed["epochs"] for seed in record["seeds"] if seed["epochs"]]
    outputs = list(entries[0][0]["validation"]["accuracy"]) if entries else ["fused"]
    figure, _ = plt.subplots(
        1, len(outputs), figsize=(2.6 * len(outputs), 2.4), sharey=True, layout="constrained"
    )
    for output, panel in zip(outputs, figure.axes, strict=True):
        for epochs in entries:
            panel.plot([e["epoch"] for e in epochs], [e["validation"]["accuracy"][output] for e in epochs])
        panel.set(title=output, xlabel="epoch", ylim=(0, 1))
    figure.axes[0].set_ylabel("validation accuracy")
    plt.close(figure)
    return figure
