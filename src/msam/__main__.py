"""`python -m msam`: the command `msam`, or one line that says which package it needs.

The library needs torch alone; the study needs the packages of `msam[study]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """usage: msam [-h] command ...

The commands run the study and need its packages: pip install 'msam[study]'
The optimizers need torch alone: from msam import SAM, ModalityAwareSAM, CoalitionEvaluator"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `msam.cli`; without the packages of the study, print help or what to install."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        from msam import cli

        return cli.main(given)
    except ModuleNotFoundError as error:
        if (error.name or "msam").partition(".")[0] == "msam":
            raise
        if {"-h", "--help"} & set(given):
            print(USAGE)
            return 0
        study = "`pip install 'msam[study]'` brings those of the study"
        print(f"msam: the package {error.name} is missing; {study}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
