"""The folders of a root of records: which profiles the pages show, and how people write where they lie."""

from __future__ import annotations

from pathlib import Path

ORDER = ("embedded", "compact", "paper")
"""Profiles in the order of their evidence; others follow by name."""

BESIDE = ("resnet", "recipes", "scaling", "benchmarks", "rate")
"""Folders of a root beside the profiles: the paper's networks, recipes of a dataset, numbers of modalities;
step costs; the rate of convergence."""

APART = ("local", *BESIDE)
"""Folders of a root that are no profile of these pages; local is a root itself, the reader's own run."""

NOT_RUN = "not run: data not available here"
NOT_IN_THIS_RUN = "no records in this run"


def not_run(root: Path) -> str:
    """What is said of files that were not run: the published run knows why, a reader's own does not."""
    return NOT_IN_THIS_RUN if root.name == "local" else NOT_RUN


def shown(root: Path) -> list[str]:
    """The profiles under a root with records in `main`, failed cells included, in the order of the pages."""
    found = [folder.name for folder in root.glob("*") if folder.name not in APART and _has_records(folder)]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def folders(root: Path) -> list[Path]:
    """The folders under a root that pages are made from."""
    return [root / name for name in (*shown(root), *BESIDE) if (root / name).is_dir()]


def shared(published: Path, local: Path) -> list[str]:
    """The profiles that both the published run and the reader's own have."""
    theirs = shown(published)
    return [profile for profile in shown(local) if profile in theirs]


def _has_records(profile: Path) -> bool:
    return any(not path.name.endswith(".partial.json") for path in profile.glob("main/*/*/*.json"))


def label(folder: Path) -> str:
    """A folder from results/ on, as people write it; never a path of one machine."""
    parts = folder.parts
    start = max((i for i, part in enumerate(parts) if part == "results"), default=len(parts) - 1)
    return "/".join(parts[start:])


def link(root: Path) -> str:
    """Where the book keeps a copy of the records under a root: records, or records/local."""
    return f"records/{label(root).removeprefix('results').strip('/')}".rstrip("/")
