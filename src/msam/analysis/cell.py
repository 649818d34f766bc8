"""Table and curves of one record, for the notebook that trains a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure


def table(record: dict[str, Any]) -> HTML:
    """Test accuracy after the last epoch: one row a seed, one column an output; diverged seeds are empty."""
    from IPython.display import HTML

    found = {
        seed["seed"]: seed["final"]["last"]["test"]["accuracy"] if seed["final"] else {}
        for seed in record["seeds"]
    }
    outputs = list(dict.fromkeys(output for row in found.values() for output in row))
    head = "".join(f"<th>{text}</th>" for text in ["seed", *outputs])
    rows = [
        f"<tr><td>{seed}</td>"
        + "".join(f"<td>{row[output]:.4f}</td>" if output in row else "<td></td>" for output in outputs)
        for seed, row in found.items()
    ]
    return HTML(f"<table><tr>{head}</tr>{'</tr>'.join(rows)}</tr></table>")


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
