"""The package: what importing costs, and that its documentation is there and true."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import msam

MODULES = sorted(m.name for m in pkgutil.walk_packages(msam.__path__, "msam."))
PUBLIC = ("msam", "msam.optim", "msam.methods", "msam.models", "msam.datasets")


def test_light_imports_stay_light():
    """In one fresh interpreter: each of these must load neither torch nor pandas nor a plotting library."""
    light = ("msam", "msam.records", "msam.cli", "msam.pipeline", "msam.search", "msam.book", "msam.datasets")
    light += tuple(m for m in MODULES if m.startswith("msam.analysis"))
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
    heavy = {{"torch"}} if name.startswith("msam.analysis") else {{"torch", "pandas", "numpy", "matplotlib"}}
    loaded = heavy & set(sys.modules)
    print(name, *loaded)
"""
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == list(light)


def test_names_of_the_package_come_on_first_use():
    assert {name: getattr(msam, name).__module__.partition(".")[0] for name in msam.__all__} == dict.fromkeys(
        msam.__all__, "msam"
    )
    assert msam.MSAM is msam.ModalityAwareSAM
    with pytest.raises(AttributeError, match="module 'msam' has no attribute 'nope'"):
        _ = msam.nope


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            assert inspect.getdoc(thing), f"{package}.{name} has no docstring"
            assert inspect.getdoc(thing) != inspect.getdoc(type(thing)), f"{package}.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_documented_and_their_examples_are_true(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert examples


def test_the_guide_quotes_the_files_it_is_about():
    """CONTRIBUTING.md shows the toy method, data set and study file as they are; a quote cannot go stale."""
    root = Path(__file__).parents[1]
    guide = (root / "CONTRIBUTING.md").read_text()
    for file in ("signed.py", "rings.py"):
        assert f"```python\n{(root / 'tests' / 'outside' / file).read_text()}```" in guide
    for line in (
        "outside.signed: {scale: 0.05, rho: false}",
        "outside.rings: {modalities: [near, far], options",
    ):
        assert line in guide
        assert line in (root / "tests" / "conftest.py").read_text()
