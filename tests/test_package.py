"""The package: what importing costs, and that its documentation is there and true."""

import doctest
import importlib
import inspect
import pkgutil
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_api import torch_alone

import msam

ROOT = Path(__file__).parents[1]
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
    assert msam.shapley.coalitions(("a",)) == (frozenset("a"),)  # a module that nobody has imported by name
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
    """CONTRIBUTING.md shows the toy method, dataset and study file as they are; a quote cannot go stale."""
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    for file in ("signed.py", "rings.py"):
        assert f"```python\n{(ROOT / 'tests' / 'outside' / file).read_text()}```" in guide
    for line in (
        "outside.signed: {scale: 0.05, rho: false}",
        "outside.rings: {modalities: [near, far], options",
    ):
        assert line in guide
        assert line in (ROOT / "tests" / "conftest.py").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network from a copy: the build leaves folders, and would pack old ones."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)
    (path,) = target.iterdir()
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """Python of an environment that has the wheel, torch and what torch requires, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (folder / "torch").mkdir()
    for name in torch_alone():
        if spec := find_spec(name):
            place = Path([*(spec.submodule_search_locations or ()), spec.origin][0])
            (folder / "torch" / place.name).symlink_to(place)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "torch.pth").write_text(str(folder / "torch"))
    python = folder / "venv" / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    return python


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    run = subprocess.run([*command, *arguments, "--no-index"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def outcome(python, *arguments):
    command = [python, "-I", "-W", "ignore", *arguments]
    run = subprocess.run(command, cwd=python.parent, capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = Parser().parsestr(archive.read(f"msam-{msam.__version__}.dist-info/METADATA").decode())
    files = [p for p in (ROOT / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {str(p.relative_to(ROOT / "src")) for p in files if ".egg-info" not in str(p)}
    assert names == expected
    assert {"msam/py.typed", "msam/studies/embedded.yaml", "msam/analysis/paper.csv"} <= names
    assert metadata["Version"] == msam.__version__
    needed = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert [r.partition("<")[0].partition(">")[0] for r in needed] == ["torch"]


def test_without_the_packages_of_the_study_the_library_works(bare):
    code = """
import sys
from importlib.util import find_spec
import torch, msam
assert not any(map(find_spec, ("numpy", "yaml", "pandas", "pip"))), sys.path
model = torch.nn.Bilinear(2, 3, 4)
inputs, labels = (torch.ones(5, 2), torch.ones(5, 3)), torch.zeros(5).long()
optimizer = msam.MSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
evaluator = msam.CoalitionEvaluator(model)
def closure():
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(*inputs), labels)
    loss.backward()
    return loss
losses = [optimizer.step(closure, share=lambda: evaluator.dominant_share(labels, *inputs)) for _ in range(2)]
assert losses[1] < losses[0]
print(msam.__file__)
"""
    code, output, errors = outcome(bare, "-c", code)
    assert code == 0, errors
    assert Path(output.strip()).is_relative_to(bare.parents[1])


def test_without_the_packages_of_the_study_the_command_says_so(bare):
    code, output, errors = outcome(bare, "-m", "msam", "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("usage: msam")
    wanted = "msam: the package yaml is missing; `pip install 'msam[study]'` brings those of the study\n"
    for command in (["reproduce"], ["book"], ["data", "describe", "watch"]):
        assert outcome(bare, "-m", "msam", *command) == (1, "", wanted)


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "msam", "claims", "--help"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("usage: msam claims")
