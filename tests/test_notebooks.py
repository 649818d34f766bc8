"""Running one notebook: a kernel that did not start is started once more, anything else is not."""

import papermill
import pytest

from msam import notebooks


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    return path


def failing(times, message):
    """A stand-in for papermill that fails so many times and then writes the output."""
    calls = []

    def execute(source, target, *_, **__):
        calls.append(target)
        if len(calls) <= times:
            raise RuntimeError(message)
        with open(target, "w") as file:
            file.write("executed")

    return execute, calls


@pytest.mark.parametrize(
    ("times", "message", "tries", "made"),
    [
        (0, "", 1, True),
        (1, "Kernel died before replying to kernel_info", 2, True),
        (2, "Kernel died before replying to kernel_info", 2, False),
        (1, "Kernel died", 1, False),
    ],
)
def test_a_kernel_that_did_not_start_gets_a_second_chance(
    source, tmp_path, monkeypatch, times, message, tries, made
):
    execute, calls = failing(times, message)
    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(papermill, "inspect_notebook", lambda _: {})
    target = tmp_path / "out.ipynb"
    if made:
        notebooks.execute(source, target, {})
    else:
        with pytest.raises(RuntimeError, match=message):
            notebooks.execute(source, target, {})
    assert len(calls) == tries
    assert target.exists() == made
    assert not list(tmp_path.glob(".*"))
