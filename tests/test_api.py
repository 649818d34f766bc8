"""The public face of the library: these names, with torch alone, documented, and shown in the book."""

import inspect
import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions, requires
from pathlib import Path

import pytest

import msam

PAGE = (Path(__file__).parents[1] / "book" / "api.md").read_text()
CLASSES = [name for name in msam.__all__ if inspect.isclass(getattr(msam, name))]


def own_methods(kind):
    """Public methods and properties that a class does not inherit."""
    return [name for name, thing in vars(kind).items() if name[0] != "_" and _documentable(thing)]


def _documentable(thing):
    return inspect.isfunction(thing) or isinstance(thing, property | classmethod | staticmethod)


METHODS = [f"{c}.{m}" for c in CLASSES if c != "MSAM" for m in own_methods(getattr(msam, c))]


def find(name):
    head, _, tail = name.partition(".")
    return getattr(getattr(msam, head), tail) if tail else getattr(msam, head)


def parameters(thing):
    """Names of the parameters that the docstring of a class, function or method has to explain."""
    if isinstance(thing, property) or (inspect.isclass(thing) and "__init__" not in vars(thing)):
        return []
    names = inspect.signature(thing).parameters
    return [name for name in names if name != "self"]


def explained(docstring):
    """Names in the section `Args:`."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    return re.findall(r"^ {4}\**(\w+): \S", section[1], re.MULTILINE) if section else []


def torch_alone():
    """Packages that come with torch: what it requires, and what that requires, as they are imported."""
    todo, seen = ["torch"], set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            needs = [r for r in requires(name) or () if "extra ==" not in r]
            todo += [
                n for r in needs if _installed(n := re.match(r"[\w.-]+", r)[0].lower().replace("_", "-"))
            ]
    modules = packages_distributions()
    return {m for m, owners in modules.items() if {o.lower().replace("_", "-") for o in owners} & seen}


def _installed(name):
    try:
        return distribution(name)
    except ModuleNotFoundError:
        return None


def test_the_public_face():
    functions = ["modality_shares", "shapley_values"]
    assert sorted(msam.__all__) == sorted(
        ["CoalitionEvaluator", "MSAM", "ModalityAwareSAM", "SAM", *functions]
    )
    assert set(msam.__all__) < set(dir(msam))


def test_every_name_needs_torch_alone():
    code = f"""
import sys
allowed = {torch_alone() | {"msam"}!r} | sys.stdlib_module_names
class Refuse:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"refused: {{name}}", name=name)
sys.meta_path.insert(0, Refuse)
import msam
for name in msam.__all__:
    getattr(msam, name)
    print(name, *({{"numpy", "yaml", "pandas", "scipy"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == msam.__all__


@pytest.mark.parametrize("name", [*msam.__all__, *METHODS])
def test_every_parameter_is_explained(name):
    thing = find(name)
    docstring = inspect.getdoc(thing)
    assert docstring
    assert docstring != inspect.getdoc(object)
    assert set(parameters(thing)) <= set(explained(docstring))


@pytest.mark.parametrize("name", [*msam.__all__, *(m for m in METHODS if m.startswith("CoalitionEvaluator"))])
def test_there_is_an_example(name):
    """That it is true is for test_package.py to say, of all modules."""
    assert ">>> " in inspect.getdoc(find(name))


@pytest.mark.parametrize("name", msam.__all__)
def test_the_book_shows_it(name):
    """A class with all members that have a docstring, which are all, by the test above."""
    if name == "MSAM":
        assert "`msam.MSAM` is another name of `msam.ModalityAwareSAM`" in PAGE
    elif name in CLASSES:
        assert f".. autoclass:: msam.{name}\n   :members:\n" in PAGE
    else:
        assert f".. autofunction:: msam.{name}\n" in PAGE


def test_the_book_shows_no_name_that_is_gone():
    shown = re.findall(r"^\.\. auto\w+:: (\S+)$", PAGE, re.MULTILINE)
    assert shown
    for path in shown:
        module, _, name = path.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name), path


def test_the_training_in_the_book_runs():
    import torch
    import torch.nn.functional as F

    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "loader" in block)
    model = torch.nn.Bilinear(2, 3, 4)
    before = model.weight.detach().clone()
    loader = [(torch.randn(5, 2), torch.randn(5, 3), torch.arange(5) % 4)] * 2
    names = {name: getattr(msam, name) for name in msam.__all__}
    exec(code, {"model": model, "loader": loader, "torch": torch, "F": F, **names})
    assert not torch.equal(model.weight, before)
