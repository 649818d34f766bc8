"""How the study was run: settings and the hyper-parameter search."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from msam.analysis import levels, profiles
from msam.analysis.names import in_order, joined, label
from msam.analysis.provenance import footer, listed, remake
from msam.analysis.sources import Study, evidence, record_json, sorted_cells
from msam.analysis.table import DASH, Block, Table

METHODS = "methods"  # of the search space: the ranges of single methods
EVERY = "every method"


def settings_table(study: Study) -> Table:
    """What the records were trained with: one row for each dataset, fusion and method."""
    rows = []
    for cell in _trained(study).itertuples():
        rows.append(
            {
                "dataset": cell.dataset,
                "evidence": evidence(study, cell.dataset),
                "fusion": cell.fusion,
                "method": label(cell.name),
                "learning rate": _number(cell.lr),
                "rho": _number(cell.rho),
                "epochs": _number(cell.epochs),
                "seeds": cell.n_seeds,
            }
        )
    note = "Rho is the radius of the perturbation; a dash: the method has none."
    return _table("Settings of every cell", rows, note, footer(study), "settings")


def common_settings(study: Study) -> Table:
    """The settings that all cells of a dataset and fusion share: optimizer, schedule, batch, width."""
    rows = []
    for (dataset, fusion), cells in _trained(study).groupby(["dataset", "fusion"], sort=False):
        config = record_json(study, cells.iloc[0]["path"]).get("config", {})
        optimizer = config.get("optimizer", {})
        rows.append(
            {
                "dataset": dataset,
                "evidence": evidence(study, dataset),
                "fusion": fusion,
                "batch": config.get("batch_size", DASH),
                "epochs": config.get("epochs", DASH),
                "momentum": _number(optimizer.get("momentum")),
                "weight decay": _number(optimizer.get("weight_decay")),
                "schedule": _schedule(optimizer),
                "encoders": config.get("size", "small"),
                "width of features": config.get("width", DASH),
                "threads": config.get("threads", DASH),
            }
        )
    note = "Optimizer: SGD. The schedule multiplies the learning rate at a fraction of all epochs."
    return _table("Settings shared by all methods", rows, note, footer(study), "common_settings")


def space_table(study: Study) -> Table:
    """From which ranges the search drew, for every method and for those with parameters of their own."""
    found: dict[tuple[str, ...], list[str]] = {}
    for profile, search in study.searches.items():
        for method, name, (low, high) in _ranges(search["space"]):
            found.setdefault((method, name, f"{low:g}", f"{high:g}"), []).append(_level(study, profile))
    order = [EVERY, *map(label, in_order(_searched(study)))]
    rows = [
        {"method": method, "evidence": ", ".join(mine), "parameter": name, "from": low, "to": high}
        for (method, name, low, high), mine in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]
    note = "A range of a method's own replaces that of every method. Rho: only methods that have a radius."
    return _table("Space of the search", rows, note, search_footer(study), "space")


def chosen_table(study: Study) -> Table:
    """The hyper-parameters the search chose."""
    chosen = [row for search in study.searches.values() for row in search["chosen"]]
    rows = [
        {
            "dataset": row["dataset"],
            "evidence": evidence(study, row["dataset"]),
            "fusion": row["fusion"],
            "method": label(row["name"]),
            "learning rate": _number(row["lr"]),
            "rho": _number(row.get("rho")),
            "own parameters": _options(row.get("options")),
        }
        for row in chosen
    ]
    return _table("Chosen hyper-parameters", rows, search_sentence(study), search_footer(study), "chosen")


def trials(study: Study) -> pd.DataFrame:
    """Every trial of the searches, in the order of the pages; empty where there was no search."""
    found = pd.DataFrame([row for search in study.searches.values() for row in search["trials"]])
    return found if found.empty else sorted_cells(found, study.homes)


def search_table(study: Study) -> Table:
    """Every trial of the search with what it reached on the validation split."""
    rows = [
        {
            "dataset": row.dataset,
            "evidence": evidence(study, row.dataset),
            "fusion": row.fusion,
            "method": label(row.name),
            "trial": row.trial,
            "learning rate": _number(row.lr),
            "rho": _number(row.rho),
            "own parameters": _options(getattr(row, "options", None)),
            "validation accuracy (%)": _number(_percent(row.validation_accuracy), 1),
            "validation loss": _number(row.validation_loss, 3),
            "state": row.state,
        }
        for row in trials(study).itertuples()
    ]
    note = "The test split was not looked at."
    return _table("Trials of the search", rows, note, search_footer(study), "search")


def search_sentence(study: Study) -> str:
    """Budget and space of the search in a sentence, once for all profiles that have the same."""
    if not study.searches:
        return "No search is recorded beside these records."
    found: dict[str, list[str]] = {}
    for profile, search in study.searches.items():
        found.setdefault(_search_text(search), []).append(_level(study, profile))
    if len(found) == 1:
        return next(iter(found))
    return " ".join(f"{', '.join(mine)}: {text}" for text, mine in found.items())


def _level(study: Study, profile: str) -> str:
    """The evidence levels of a profile's datasets, joined."""
    return ", ".join(
        dict.fromkeys(study.levels[name] for name, home in study.homes.items() if home == profile)
    )


def _search_text(search: dict[str, Any]) -> str:
    shared = {name: bounds for name, bounds in search["space"].items() if name != METHODS}
    ranges = ", ".join(
        f"{name} {low:g}" if low == high else f"{name} from {low:g} to {high:g}"
        for name, (low, high) in shared.items()
    )
    own = listed([label(name) for name in in_order(search["space"].get(METHODS, {}))], most=99)
    return (
        f"Every method was given the same {search['budget']} draws, log-uniform ({ranges}"
        f"{f'; with ranges of their own: {own}' if own else ''}); {_trials_text(search)}. They were run with "
        f"seed {search['seed']} on data without the test split; the highest validation accuracy after the "
        "last epoch won."
    )


def _trials_text(search: dict[str, Any]) -> str:
    """How many trials the methods had: fewer than draws where draws were equal, or a search has stopped."""
    counts = Counter((t["dataset"], t["fusion"], t["name"]) for t in search["trials"])
    methods: dict[int, set[str]] = {}
    for (_, _, name), count in counts.items():
        methods.setdefault(count, set()).add(name)
    if len(methods) < 2:
        return f"each had {next(iter(methods), 0)} trials"
    most, *fewer = sorted(methods, reverse=True)
    less = "; ".join(
        f"{count} for {joined(label(name) for name in in_order(methods[count]))}" for count in fewer
    )
    return f"equal draws were tried once, so a dataset and fusion had {most} trials, but {less}"


def setup_sentence(study: Study) -> str:
    """What was trained on what, in a sentence."""
    trained = _trained(study)
    if trained.empty:
        return "There are no records yet, so no settings can be shown."
    return (
        f"{len(trained)} cells were trained on {trained['dataset'].nunique()} datasets (evidence: "
        f"{study.level}; seeds: {seeds(study)}), with the same splits for every method."
    )


def seeds(study: Study) -> str:
    """Numbers of seeds of the cells that were trained, by level where levels differ."""
    trained = _trained(study)
    return levels.seeds(study, trained["dataset"], trained["n_seeds"].astype(int))


def _searched(study: Study) -> set[str]:
    """The methods with ranges of their own."""
    return {name for search in study.searches.values() for name in search["space"].get(METHODS, {})}


def _ranges(space: dict[str, Any]) -> list[tuple[str, str, list[float]]]:
    """Method, parameter and range; the space has those of single methods under `METHODS`."""
    shared = [(EVERY, name, bounds) for name, bounds in space.items() if name != METHODS]
    own = space.get(METHODS, {})
    return shared + [(label(method), name, bounds) for method in own for name, bounds in own[method].items()]


def _options(options: Any) -> str:
    """Parameters of one method as "alpha 0.8", a dash where there are none."""
    if not isinstance(options, dict) or not options:
        return DASH
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in options.items()
    )


def _trained(study: Study) -> pd.DataFrame:
    cells = study.frames.cells
    return sorted_cells(cells[cells["state"] == "done"], study.homes)


def _table(title: str, rows: list[dict], note: str, source: str, file: str) -> Table:
    frame = pd.DataFrame(rows)
    return Table(title, (Block(frame),), frame, note, source, file=file)


def search_footer(study: Study) -> str:
    """Where the trials are and how to remake them, "" where there is no search."""
    if not study.searches:
        return ""
    places = [f"{profiles.label(study.root)}/{profile}/search.json" for profile in study.searches]
    return f"Made from {' and '.join(places)}; {remake('search', study.searches)}."


def _number(value: Any, digits: int | None = None) -> str:
    if value is None or pd.isna(value):
        return DASH
    return f"{value:g}" if digits is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _schedule(optimizer: dict[str, Any]) -> str:
    steps = [f"x {optimizer.get('gamma')} at {_number(place)}" for place in optimizer.get("milestones", [])]
    return ", ".join(steps) or "constant"
