"""Jupyter Book as `msam.book` runs it, which Jupyter Book has no options for.

`python -m msam._typeset build SOURCE ...` imports what it will need and waits for a line. Then it sets the
book in two processes, and without the collector, which would take an eighth of the time to save a fifth of
the memory.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx

IMPORTS = ("myst_nb", "sphinx.builders.html", "sphinx_book_theme", "sphinxcontrib.bibtex")
DOCUMENTED = ("msam.evaluator", "msam.optim")


class TwoProcesses(Sphinx):
    """Sphinx that reads and writes pages in two processes; on Linux, see `msam.forking`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"parallel": 2 if sys.platform == "linux" else 1})

    def is_parallel_allowed(self, _typ: str) -> bool:
        """Yes: the three extensions that do not say so have no part in reading, and it would be a warning."""
        return True


def main() -> None:
    """See the text of the module; the process ends at once, as to clear up its memory takes a second."""
    gc.disable()
    jupyter_book = import_module("jupyter_book.sphinx")
    jupyter_book.Sphinx = TwoProcesses  # type: ignore[attr-defined]
    run = import_module("jupyter_book.cli.main").main
    for name in (*IMPORTS, *DOCUMENTED):
        import_module(name)
    if not sys.stdin.readline():
        return
    try:
        run()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else bool(end.code))


if __name__ == "__main__":
    main()
