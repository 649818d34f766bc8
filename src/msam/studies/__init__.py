"""Study files: the only place where the grid of cells is written.

A profile is a YAML file of this folder (or any path) with defaults and one or more studies; a study lists
datasets, fusions and methods, and may have a number of seeds of its own; `from` names a profile whose study
of the same name gives what it does not say itself. `cells` expands it. A dataset may list `methods` with
options that replace those of the study for it alone. Hyper-parameters that the search has chosen lie beside
the profile, in `<profile>.chosen.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from msam import _yaml
from msam.fingerprint import built_in, code_fingerprint
from msam.studies import schema

FOLDER = Path(__file__).parent

FUSIONS = ("late", "early", "psp")
"""Those of `msam.models`, which is not imported to expand a study because it imports PyTorch."""

SETTINGS = ("rho", "label_noise", "probes")
"""Settings that the entry of a method may replace; what else it holds are options of the method."""


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: dataset x fusion x method (+ variant).

    Attributes:
        config: everything that determines the numbers, as it stands in the record.
        needs: the cell whose record this one reads (`mixture` reads its M-SAM run), or None.
        space: name -> [low, high] of what the search draws for this method besides the common learning rate
            and radius: options of the method, or `rho` where its radius has a scale of its own.
    """

    config: dict[str, Any]
    needs: Cell | None = None
    space: dict[str, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Method and variant, as in the record's file name: "msam+encoder"."""
        return "+".join(
            part for part in (self.config["method"].rpartition(".")[2], self.config["variant"]) if part
        )

    @property
    def title(self) -> str:
        """For people: "av_digits/late/msam"."""
        return f"{self.config['dataset'].rpartition('.')[2]}/{self.config['fusion']}/{self.name}"

    def path(self, results: Path) -> Path:
        """Where the record lies under a results folder."""
        return results / self.config["profile"] / self.config["study"] / f"{self.title}.json"

    @cached_property
    def key(self) -> str:
        """Hash of the configuration, of the code the numbers depend on, and of the needed cell's key."""
        modules = ["msam.training"]
        modules += [built_in(kind, self.config[kind]) for kind in ("dataset", "method")]
        modules += [built_in("probe", name) for name in self.config.get("probes", ())]
        modules += ["msam.stacked"] * ("stacked" in self.config.get("fast", ()))
        parts = [self.config, code_fingerprint(modules), self.needs.key if self.needs else ""]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load(profile: str) -> dict[str, Any]:
    """Read a profile.

    Args:
        profile: its name, or the path of a YAML file.

    Raises:
        ValueError: unknown profile, not YAML, or a field is missing, unknown or wrong.
    """
    return _load(profile, ())


def _load(profile: str, readers: tuple[Path, ...]) -> dict[str, Any]:
    """A profile; `readers` are those with a study `from` it, directly or not."""
    path = _path(profile)
    try:
        content = _yaml.load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"profile {path.name} is no YAML: {' '.join(str(error).split())}") from None
    where = f"profile {path.name}"
    schema.check(content, schema.PROFILE, where)
    if "search" in content:
        schema.check(content["search"], schema.SEARCH, f"{where}, search")
    schema.check_names(content["studies"], f"{where}, studies", reserved=("all", "data"))
    for name, study in content["studies"].items():
        here = f"{where}, study {name!r}"
        if isinstance(study, dict) and "from" in study:
            if path in readers:
                raise ValueError(f"{here} is taken from itself")
            source = str(study["from"])
            source = str(path.parent / source) if source.endswith(".yaml") else source
            theirs = _pick(_load(source, (*readers, path))["studies"], name, "study")
            study = content["studies"][name] = {**theirs, **study}
        schema.check(study, schema.STUDY, here)
        schema.check_names([*study["datasets"], *study["methods"]], here)
        for dataset, data in study["datasets"].items():
            schema.check(data or {}, schema.DATASET, f"{here}, dataset {dataset!r}")
    return {**content, "profile": path.stem, "path": str(path)}


def _path(profile: str) -> Path:
    """The file of a profile."""
    path = Path(profile) if profile.endswith(".yaml") else FOLDER / f"{profile}.yaml"
    if not path.is_file():
        if path.name != profile and "/" in profile:
            raise ValueError(f"there is no study file {profile}; the path of one ends in .yaml")
        raise ValueError(f"unknown profile {profile!r}; choose from {', '.join(names())}")
    if path.stem in names() and path.resolve().parent != FOLDER.resolve():
        raise ValueError(f"{path} has the name of a profile of the package, whose records it would replace")
    return path


def chosen_path(profile: dict[str, Any]) -> Path:
    """Where the search writes the hyper-parameters it has chosen."""
    return Path(profile["path"]).with_suffix(".chosen.json")


def chosen(profile: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(dataset, fusion, cell name) -> arguments of `with_hyperparameters`; {} before a search.

    Raises:
        ValueError: the file is damaged.
    """
    path = chosen_path(profile)
    try:
        rows = json.loads(path.read_text()) if path.is_file() else []
        settings = [{k: r[k] for k in schema.CHOSEN} for r in rows]
        places = [(r["dataset"], r["fusion"], r["name"]) for r in rows]
        found = dict(zip(places, settings, strict=True))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; `msam search` makes it") from None
    for place, values in found.items():
        schema.check(values, schema.CHOSEN, f"{path}, {'/'.join(place)}")
    return found


def cells(
    profile: dict[str, Any],
    study: str = "main",
    dataset: str | None = None,
    fusion: str | None = None,
    name: str | None = None,
) -> list[Cell]:
    """Expand a study, in its order; the last three arguments select.

    Raises:
        ValueError: unknown study, dataset, fusion or method, two methods of the same name, or a setting
            that is missing, unknown or wrong.
    """
    content = _pick(profile["studies"], study, "study")
    datasets = (
        content["datasets"] if dataset is None else {dataset: _pick(content["datasets"], dataset, "dataset")}
    )
    fusions = content["fusions"] if fusion is None else [_known(content["fusions"], fusion, "unknown fusion")]
    where = f"profile {profile['profile']}, study {study!r}"
    for d, data in datasets.items():
        _check_dataset(d, data or {}, where)
    for f in fusions:
        _known(FUSIONS, f, f"{where}: unknown fusion")
    tuned = chosen(profile)
    found = [cell for d in datasets for f in fusions for cell in _column(profile, study, d, f, tuned)]
    schema.check_names([cell.name for cell in found], where)
    twice = [title for title, count in Counter(cell.title for cell in found).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: two cells are called {twice[0]}, and would share a record")
    if name is not None:
        _known(list(dict.fromkeys(cell.name for cell in found)), name, "unknown method")
        found = [cell for cell in found if cell.name == name]
    return found


def seeds(profile: dict[str, Any], study: str) -> int:
    """Number of seeds of a study: its own or the profile's."""
    return _pick(profile["studies"], study, "study").get("seeds", profile["seeds"])


def with_hyperparameters(
    cell: Cell, lr: float, rho: float | None, options: Mapping[str, float] | None = None
) -> Cell:
    """The same cell with another learning rate and radius, and with options of its method replaced."""
    config = cell.config | {"optimizer": cell.config["optimizer"] | {"lr": lr}, "rho": rho}
    return replace(cell, config=config | {"options": config["options"] | dict(options or {})})


def _column(
    profile: dict[str, Any], study: str, dataset: str, fusion: str, found: Mapping[Any, dict[str, Any]]
) -> Iterator[Cell]:
    """The cells of one dataset and fusion; `found` is what `chosen` gives."""
    content = profile["studies"][study]
    settings = {**profile["defaults"], **(content.get("defaults") or {})}
    data = content["datasets"][dataset] or {}
    own = data.get("methods") or {}
    for entry in own:
        _known(list(content["methods"]), entry, "unknown method")
    done: dict[str, Cell] = {}
    for entry, options in content["methods"].items():
        where = f"profile {profile['profile']}, study {study!r}, {dataset}/{fusion}/{entry}"
        options = {**(options or {}), **(own.get(entry) or {})}
        _check_entry(profile, entry, options, where)
        for variant, more in _variants(entry, options, data):
            like, space = more.pop("like", None), more.pop("search", {})
            fixed = {key: more.pop(key) for key in SETTINGS if key in more}
            config = {
                "profile": profile["profile"],
                "study": study,
                "dataset": dataset,
                "dataset_options": data.get("options") or {},
                "fusion": fusion,
                "method": entry.partition("+")[0],
                "variant": variant,
                "options": more,
                **settings,
                **fixed,
            }
            if fixed.get("rho") is False:
                config["rho"] = None
            given = {key: config[key] for key in (*settings, *fixed, "rho") if key in config}
            schema.check(given, schema.SETTINGS, where)
            schema.check(given["optimizer"], schema.OPTIMIZER, f"{where}, optimizer")
            needed = more.get("share")
            cell = Cell(config, _pick(done, needed, "method") if isinstance(needed, str) else None, space)
            tuned = found.get((dataset, fusion, like or (cell.needs or cell).name))
            if tuned and (like or cell.needs):
                tuned = {**tuned, "options": {}}
            if tuned and "rho" in fixed:
                tuned = {**tuned, "rho": config["rho"]}
            if cell.name in done:
                raise ValueError(f"study {study!r} has two methods {cell.name!r}, which would share a record")
            done[cell.name] = cell if tuned is None else with_hyperparameters(cell, **tuned)
            yield done[cell.name]


def _check_dataset(name: str, data: dict[str, Any], where: str) -> None:
    """Refuse a dataset, options or modalities that the package does not have."""
    from msam.datasets._source import find

    if "." in name:  # somebody else's, which may be slow to import
        return
    try:
        kinds = list(find(name, data.get("options")).kinds)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for modality in data.get("modalities", ()):
        _known(kinds, modality, f"{where}, dataset {name!r}: unknown modality")


def _check_entry(profile: dict[str, Any], entry: str, options: dict[str, Any], where: str) -> None:
    built_in("method", entry.partition("+")[0])
    fields = {name: options[name] for name in schema.METHOD if name in options}
    schema.check(fields, schema.METHOD, where)
    if "like" in options:
        entries = [name for study in profile["studies"].values() for name in study["methods"]]
        _known(list(dict.fromkeys(entries)), options["like"], f"{where}: unknown method")


def _variants(
    entry: str, options: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(variant, options) of a method's entry.

    `each: modality` makes one a modality, whose name takes the place of "{modality}" in the options;
    `each: {rho: [0.1, 0.2]}` makes one a value.
    """
    options = dict(options)
    variant = entry.partition("+")[2]
    each = options.pop("each", None)
    if each is None:
        yield variant, options
    elif each == "modality":
        if "modalities" not in data:
            raise ValueError(f"{entry} runs for each modality, but the dataset lists no 'modalities'")
        for modality in data["modalities"]:
            filled = {k: v.format(modality=modality) if isinstance(v, str) else v for k, v in options.items()}
            yield "_".join(filter(None, (variant, modality))), filled
    else:
        ((name, values),) = each.items()
        for value in values:
            yield f"{variant or name}_{value}".replace(":", "_"), {**options, name: value}


def _pick(mapping: dict[str, Any], name: str, what: str) -> Any:
    return mapping[_known(list(mapping), name, f"unknown {what}")]


def _known(choices: Sequence[str], name: str, lead: str) -> str:
    if name not in choices:
        raise ValueError(f"{lead} {name!r}; choose from {', '.join(choices)}")
    return name
