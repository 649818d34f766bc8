"""AV-MNIST by recipe: what each modality alone reaches on it, beside what the paper reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from msam.analysis import paper, profiles
from msam.analysis.metrics import by_seed
from msam.analysis.provenance import listed
from msam.analysis.statistics import Interval, mean_interval
from msam.analysis.table import DASH, Block, Table, number

RECIPES, DATASET = "recipes", "av_mnist"
OUTPUTS = {"image": "video", "audio": "audio"}
"""Modality -> what the paper calls it."""

CONCERNS = {"image": ("components",), "audio": ("noise", "level", "clips")}
"""Modality -> the options that its data depend on."""

NOTE = (
    "Test accuracy in percent after the last epoch, mean ± half of the 95 % Student-t interval over n seeds; "
    "in brackets: points above the paper's. No setting was searched for: optimizer, epochs and encoders are "
    "the same for all recipes. The image depends on the components only, the audio on noise, level and clips."
)


def recipe_data(root: Path) -> pd.DataFrame:
    """One row a recipe and modality with a record: recipe, its options, output, accuracies in percent.

    Args:
        root: the results; a record is <root>/recipes/<recipe>/av_mnist/late/unimodal+<modality>.json.
    """
    from msam.records import load, read

    rows = []
    for folder in _folders(root / RECIPES):
        frames = load(folder)
        accuracies = by_seed(frames.runs)
        for cell in frames.cells[frames.cells["state"] == "done"].itertuples():
            output = cell.name.partition("+")[2]
            accuracy = mean_interval(accuracies.get((DATASET, cell.fusion, cell.name), [])).scaled(100)
            rows.append(
                {
                    "recipe": folder.name,
                    **read(folder / cell.path)["config"]["dataset_options"],
                    "output": output,
                    "accuracy": accuracy.mean,
                    "low": accuracy.low,
                    "high": accuracy.high,
                    "n": accuracy.n,
                    "above_paper": accuracy.mean - reported(output),
                    "commit": cell.commit,
                    "device": cell.device,
                }
            )
    return pd.DataFrame(rows)


def recipe_table(root: Path) -> Table:
    """Accuracy of only the image and only the audio on every recipe, the paper's below."""
    data = recipe_data(root)
    rows = [_row(recipe, mine) for recipe, mine in data.groupby("recipe", sort=False)] if len(data) else []
    if rows:
        theirs = {f"only {output}": f"{reported(output):.2f}" for output in OUTPUTS}
        rows.append(dict.fromkeys(rows[0], DASH) | {"recipe": "the paper (Table 1)"} | theirs)
    block = Block(pd.DataFrame(rows), "" if rows else "No records of the recipes.")
    return Table("AV-MNIST by recipe", (block,), data, NOTE, _footer(root, data), file="recipes")


def recipe_sentence(root: Path) -> str:
    """Which recipe comes closest to the paper, for each modality and over both."""
    data = recipe_data(root)
    if data.empty:
        return "The recipes have no records, so nothing says which comes closest to the paper."
    data["away"] = data["above_paper"].abs()
    nearest = [_nearest(data[data["output"] == output], output) for output in OUTPUTS]
    both = data.pivot(index="recipe", columns="output", values="away").dropna().mean(axis=1)
    over_both = f"over both: {both.idxmin()}, {both.min():.1f} points away on average" if len(both) else ""
    return f"Closest to the paper, {'; '.join(filter(None, [*nearest, over_both]))}."


def reported(output: str) -> float:
    """The paper's accuracy in percent of a network of one modality alone on AV-MNIST."""
    rows = paper.reported().query("dataset == 'AV-MNIST'")
    single = rows[rows["method"].str.startswith("Single-") & (rows["output"] == OUTPUTS[output])]
    return float(single["accuracy"].iloc[0])


def _folders(profile: Path) -> list[Path]:
    """Folders of the recipes that have records, in the order of the study file."""
    from msam import studies

    found = [profile / name for name in studies.load(RECIPES)["studies"]]
    return [path for path in found if (path / DATASET).is_dir()]


def _row(recipe: str, data: pd.DataFrame) -> dict[str, Any]:
    row = {"recipe": recipe} | {
        option: _option(data.iloc[0], option) for options in CONCERNS.values() for option in options
    }
    for output in OUTPUTS:
        mine = data[data["output"] == output]
        row[f"only {output}"] = _accuracy(mine.iloc[0]) if len(mine) else DASH
    return row | {"n": int(data["n"].min())}


def _option(row: pd.Series, option: str) -> str:
    """An option as text; without noise there is no level."""
    silent = option == "level" and row["noise"] == "none"
    return DASH if silent else f"{row[option]:g}" if isinstance(row[option], float) else str(row[option])


def _accuracy(row: pd.Series) -> str:
    value = number(Interval(row["accuracy"], row["low"], row["high"], row["n"]), 1)
    return f"{value} ({row['above_paper']:+.1f})" if row["n"] else value


def _nearest(data: pd.DataFrame, output: str) -> str:
    """The recipe of one modality that comes closest, by its options."""
    if data["away"].notna().sum() == 0:
        return ""
    row = data.loc[data["away"].idxmin()]
    texts = [(option, _option(row, option)) for option in CONCERNS[output]]
    recipe = ", ".join(f"{option} {text}" for option, text in texts if text != DASH)
    return f"only {output}: {recipe} ({row['accuracy']:.1f} against {reported(output):.2f})"


def _footer(root: Path, data: pd.DataFrame) -> str:
    made = f"Made from {len(data)} records under {profiles.label(root / RECIPES)}"
    if len(data):
        made += f", commit {listed([commit[:7] for commit in data['commit']])}; {listed(data['device'])}"
    remake = f"make reproduce PROFILE={RECIPES} STUDY=<recipe>"
    return f"{made}; reported numbers from the paper's Table 1; remake: `{remake}`."
