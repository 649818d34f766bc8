"""Fingerprints of code: what is followed and what is not looked at, on small packages written here."""

import ast
import textwrap

import pytest

from msam import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules and take the fingerprint of `toy.start`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write_and_hash(start="toy.start", /, **modules):
        for name, text in modules.items():
            parts = ["__init__" if part == "INIT" else part for part in name.split("__")]
            path = tmp_path.joinpath(*parts).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "toy").mkdir(exist_ok=True)
            for folder in path.relative_to(tmp_path).parents:
                init = tmp_path / folder / "__init__.py"
                if folder.parts and not init.exists():
                    init.write_text("")
            path.write_text(textwrap.dedent(text))
        for cached in (fingerprint._tree, fingerprint._code, fingerprint._imports):
            cached.cache_clear()
        return fingerprint.code_fingerprint([start])

    return write_and_hash


CODE = """
    class A:
        x = 1

        def f(self):
            return 2
"""


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (CODE, True),
        ("# comment\n" + textwrap.dedent(CODE), True),
        ('"""Docstring."""\n' + textwrap.dedent(CODE), True),
        (CODE.replace("class A:", 'class A:\n        """Docstring."""'), True),
        (CODE.replace("def f(self):", 'def f(self):\n            """Docstring."""'), True),
        (CODE.replace("x = 1", 'x = 1\n        """Words about x."""'), True),
        (CODE.replace("x = 1", "x  =  1"), True),
        (CODE.replace("return 2", "return 3"), False),
        (CODE.replace("x = 1", "x = 1.0"), False),
        (CODE.replace("x = 1", "x = '1'"), False),
        (CODE.replace("def f", "def g"), False),
    ],
)
def test_words_do_not_count_and_code_does(package, text, same):
    before = package(toy__start=CODE)
    assert (package(toy__start=text) == before) is same


def test_the_text_of_code_is_the_same_in_every_version_of_python():
    """As Python 3.11 has it: later ones give a function type parameters, and write f-strings differently."""
    tree = ast.parse("def f(x=None): return f'{x!r:>{4}} it\\'s'")
    argument = "arguments(args=[arg(arg='x')],defaults=[Constant()])"
    width = "JoinedStr(values=[Constant(value='>'),FormattedValue(value=Constant(value=4),conversion=-1)])"
    value = f"FormattedValue(value=Name(id='x',ctx=Load()),conversion=114,format_spec={width})"
    string = f"""JoinedStr(values=[{value},Constant(value=" it's")])"""
    function = f"FunctionDef(name='f',args={argument},body=[Return(value={string})])"
    assert fingerprint._text(tree) == f"Module(body=[{function}])"


@pytest.mark.parametrize(
    "line",
    [
        "from . import part",
        "from .part import f",
        "from toy.part import f",
        "from toy import part",
        "import toy.part",
        "import toy.part as p",
        "def g():\n    from toy import part",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .part import f",
    ],
)
def test_every_way_to_import_is_followed(package, line):
    before = package(toy__start=line, toy__part="f = 1")
    assert package(toy__part="f = 2") != before
    assert package(toy__part="f = 1") == before


def test_relative_imports_from_below(package):
    before = package("toy.deep.start", toy__deep__start="from ..part import f", toy__part="f = 1")
    assert package("toy.deep.start", toy__part="f = 2") != before


def test_a_package_is_its_init_and_what_that_imports_relatively(package):
    modules = {"toy__start": "from toy import deep", "toy__deep__INIT": "from .part import f"}
    before = package(**modules, toy__deep__part="f = 1")
    assert package(toy__deep__part="f = 2") != before
    assert package(**modules, toy__deep__part="f = 1") == before
    assert package(toy__deep__INIT="from .part import f\ng = 1") != before


def test_imports_are_followed_to_their_end_and_round_in_circles(package):
    modules = {"toy__start": "from . import a", "toy__a": "from . import b", "toy__b": "from . import start"}
    before = package(**modules)
    assert package(toy__b="from . import start\nx = 1") != before


def test_unrelated_modules_do_not_count(package):
    before = package(toy__start="import json\nimport numpy as np\nfrom stranger import f", toy__part="f = 1")
    assert package(toy__part="f = 2", stranger__x="f = 1") == before


def test_names_and_their_order(package):
    package(toy__start="x = 1", toy__other="x = 1")
    one, two = (fingerprint.code_fingerprint([f"toy.{n}"]) for n in ("start", "other"))
    assert one != two
    both = [["toy.start", "toy.other"], ["toy.other", "toy.start", "toy.start"]]
    assert len({fingerprint.code_fingerprint(names) for names in both}) == 1


def test_modules_of_this_package_and_no_import_of_them():
    """msam.training imports msam.shapley through msam.coalitions; taking the fingerprint runs none of it."""
    import sys

    loaded = set(sys.modules)
    assert len(fingerprint.code_fingerprint(["msam.training"])) == 16
    assert set(sys.modules) == loaded
    assert "msam.shapley" in fingerprint._imports("msam.coalitions")


@pytest.mark.parametrize("name", ["msam.nope", "toy_nowhere.method", "json.nope"])
def test_an_absent_module_is_named(name):
    with pytest.raises(ValueError, match=f"there is no module '{name}'"):
        fingerprint.code_fingerprint([name])
