"""Run one notebook through papermill: parameters checked, output written whole or not at all."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

STILLBORN = "Kernel died before replying"
"""What jupyter_client says when a kernel did not start: two that start at once can take the same port."""


class NotebookError(RuntimeError):
    """A cell of the notebook raised; the message is the error's first line."""


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook in its folder.

    Args:
        source: the notebook.
        target: where the executed one goes; where it fails, `<target>.failed.ipynb` holds the traceback.
        parameters: values for its parameters cell.

    Raises:
        ValueError: unknown notebook or parameter.
        NotebookError: a cell raised, or the kernel died.
    """
    import papermill
    from nbformat import ValidationError
    from papermill.exceptions import PapermillExecutionError

    if not source.is_file():
        known = ", ".join(sorted(p.stem for p in source.parent.glob("*.ipynb")))
        raise ValueError(f"unknown notebook {source.stem!r}; choose from {known or 'none'}")
    try:
        known_parameters = list(papermill.inspect_notebook(str(source)))
    except (ValueError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"notebook {source.stem!r} is no notebook: {reason}") from None
    unknown = [name for name in parameters if name not in known_parameters]
    if unknown:
        raise ValueError(
            f"notebook {source.stem!r} has no parameter {unknown[0]!r}; known: {', '.join(known_parameters)}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    run = partial(
        papermill.execute_notebook,
        str(source),
        str(temporary),
        parameters,
        resources={"metadata": {"path": str(source.parent)}},  # papermill's `cwd` moves all threads
        extra_arguments=["--log-level=ERROR"],  # a fresh kernel warns that only its user can read its traffic
        progress_bar=False,
        request_save_on_cell_execute=False,  # every figure would be written again after every cell
        autosave_cell_every=0,
        kernel_name="python3",
    )
    try:
        try:
            run()
        except RuntimeError as error:
            if STILLBORN not in str(error):
                raise
            run()
        temporary.replace(target)
        target.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    except PapermillExecutionError as error:
        temporary.replace(target.with_suffix(".failed.ipynb"))
        raise NotebookError(f"{error.ename}: {error.evalue}".splitlines()[0]) from error
    finally:
        temporary.unlink(missing_ok=True)


def without_traces(executed: Path, parameters: bool = True) -> str:
    """An executed notebook as text, without what belongs to one machine: paths and timings of papermill.

    Args:
        executed: the notebook.
        parameters: keep the cell with the injected parameters.
    """
    notebook = json.loads(executed.read_text())
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
    if not parameters:
        tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
        pairs = zip(notebook["cells"], tags, strict=True)
        notebook["cells"] = [cell for cell, tag in pairs if "injected-parameters" not in tag]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
