"""What differs between evidence levels, said apart: counts of blocks (dataset x fusion), numbers of seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from msam.analysis.sources import Study

T = TypeVar("T")


def grouped(study: Study, datasets: Iterable[str], values: Iterable[T]) -> dict[str, list[T]]:
    """Level -> the values of its datasets, in the order of the pages; levels without values are left out."""
    levels = study.levels
    found: dict[str, list[T]] = {level: [] for level in levels.values()}
    for dataset, value in zip(datasets, values, strict=True):
        found[levels[dataset]].append(value)
    return {level: mine for level, mine in found.items() if mine}


def share(study: Study, datasets: Iterable[str], hits: Iterable[bool], noun: str = "blocks") -> str:
    """How many are hits: "1 of 10 blocks (embedded 1 of 6, compact 0 of 4)", without levels if one."""
    found = grouped(study, datasets, map(bool, hits))
    parts = [f"{level} {sum(mine)} of {len(mine)}" for level, mine in found.items()]
    every = [hit for mine in found.values() for hit in mine]
    return f"{sum(every)} of {len(every)} {noun}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")


def count(study: Study, datasets: Iterable[str], hits: Iterable[bool]) -> str:
    """As `share`, where the number of all blocks has been said: "3 (embedded 3, compact 0)"."""
    found = grouped(study, datasets, map(bool, hits))
    parts = [f"{level} {sum(mine)}" for level, mine in found.items()]
    total = sum(sum(mine) for mine in found.values())
    return f"{total}" + (f" ({', '.join(parts)})" if total and len(parts) > 1 else "")


def seeds(study: Study, datasets: Iterable[str], counts: Iterable[int]) -> str:
    """Numbers of seeds: "5", "3 to 5", or "5 (embedded) and 3 (compact)" where levels differ; "no"."""
    found = {level: span(mine) for level, mine in grouped(study, datasets, counts).items()}
    if len(set(found.values())) > 1:
        return " and ".join(f"{text} ({level})" for level, text in found.items())
    return next(iter(found.values()), "no")


def span(counts: Iterable[int]) -> str:
    """The smallest and the largest number: "5" or "3 to 5"."""
    return " to ".join(map(str, sorted({min(every := list(counts)), max(every)})))
