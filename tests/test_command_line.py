"""The command line: every mistake is one line and exit code 1, and leaves nothing behind."""

import argparse
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from msam import cells, cli, datasets, pipeline, studies


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments):
    """(exit code, lines on standard output, lines on the error stream)."""
    code = cli.main(arguments)
    output = capsys.readouterr()
    return code, output.out.splitlines(), output.err.splitlines()


PROFILES = f"choose from {', '.join(studies.names())}"
CELLS = "unknown cell {!r}; `msam plan` lists them"
NOTEBOOKS = ", ".join(sorted(path.stem for path in (pipeline.ROOT / "notebooks").glob("*.ipynb")))


MISTAKES = [
    *(
        (f"{command} --profile huge", f"unknown profile 'huge'; {PROFILES}")
        for command in ("plan", "reproduce", "search", "publish", "cell a/b/c")
    ),
    *(
        (f"{command} --study x", "unknown study 'x'; choose from main")
        for command in ("plan", "reproduce", "cell a/b/c", "search")
    ),
    ("search --profile smoke", "profile 'smoke' has no search"),
    ("search --profile lost.yaml", "profile lost.yaml, search lacks the field 'rho'"),
    ("search --profile word.yaml", "results/word/search.json is damaged; delete it to search anew"),
    (
        "plan --profile no/such.yaml",
        "there is no study file {here}/no/such.yaml; the path of one ends in .yaml",
    ),
    ("reproduce --results a{{x}}", "a{{x}} cannot hold records: its path has a brace in it"),
    (
        "cell watch/late/sam --of-run --results a{{x}}",
        "a{{x}} cannot hold records: its path has a brace in it",
    ),
    ("plan --profile broken.yaml", "profile broken.yaml is no YAML: "),
    ("plan --profile empty.yaml", "profile empty.yaml must be a mapping, not None"),
    ("plan --profile list.yaml", "profile list.yaml must be a mapping, not ['seeds', 'studies']"),
    ("plan --profile binary.yaml", "profile binary.yaml is no text"),
    ("plan --profile odd.yaml", "profile odd.yaml: studies must be a mapping of mappings, not ['main']"),
    ("plan --profile many.yaml", "profile many.yaml: seeds must be a whole number, at least 1, not 'many'"),
    ("plan --profile searched.yaml", "{here}/searched.chosen.json is damaged; `msam search` makes it"),
    (
        "plan --profile tuned.yaml",
        "{here}/tuned.chosen.json, av_digits/late/sam: lr must be a number above 0, not -1",
    ),
    ("reproduce --executor cloud", "unknown executor 'cloud'; choose from local, slurm"),
    ("cell nope", CELLS.format("nope")),
    ("cell watch/late/nope", CELLS.format("watch/late/nope")),
    ("notebook nope", f"unknown notebook 'nope'; choose from {NOTEBOOKS}"),
    ("notebook nope.ipynb", "unknown notebook 'nope'; choose from broken, other"),
    ("notebook none/nope.ipynb", "unknown notebook 'nope'; choose from none"),
    ("notebook train -p nope 1", "notebook 'train' has no parameter 'nope'; known: profile, study, "),
    ("notebook train -p seeds [", "seeds is no YAML: '['"),
    (
        "data describe nope",
        f"unknown dataset 'nope'; choose from {', '.join(datasets.names())}, or a dotted",
    ),
    ("data prepare nope", "unknown dataset 'nope'; choose from "),
    ("data describe no.such", "unknown dataset 'no.such': no module of that name on the Python path"),
    ("data describe controlled --options 5", "--options must be a mapping like '{{seed: 1}}', not '5'"),
    ("data describe controlled --options {{", "--options is no YAML: '{{'"),
    (
        "data describe controlled --options '{{x: 1}}'",
        "dataset 'controlled' has no option 'x'; known options: ",
    ),
    ("publish --results none", "there is nothing to publish in none/embedded"),
    ("publish --results file", "there is nothing to publish in file/embedded"),
    (
        "publish --profile word.yaml --results results",
        "results/word/search.json is corrupt; delete it and make it again",
    ),
    ("claims --results none", "there are no records of a study main at none; train first: make reproduce"),
    ("claims --results file", "there are no records of a study main at file; train first: make reproduce"),
    *(
        (f"claims --results {kind}", f"{{here}}/{kind}/smoke/main/watch/late/sam.json: {message}")
        for kind, message in (
            ("cut", "not a readable record (Expecting "),
            ("binary", "not a readable record ('utf-8' codec can't decode byte 0xff "),
            ("lacking", "record.schema is missing or of a wrong type; delete the record"),
        )
    ),
    ("book --results file", "there are no records at {here}/file; train first: make reproduce"),
    ("rate --output file/rate.json", "file: File exists"),
    ("cell watch/late/sam --profile smoke --results file", "unknown cell 'watch/late/sam'; `msam plan`"),
    (
        "cell av_digits/late/msam --profile smoke --results file",
        "file/smoke/main/av_digits/late: Not a directory",
    ),
    ("notebook broken.ipynb", "notebook 'broken' is no notebook: Notebook does not appear to be JSON"),
    ("notebook other.ipynb", "notebook 'other' is no notebook: Notebook could not be converted"),
    ("notebook words.yaml", "unknown notebook 'words.yaml'; choose from "),
    ("data describe json.tool", "dataset 'json.tool': "),
    (
        "data describe controlled --options '{{modalities: two}}'",
        "dataset 'controlled': option modalities must be a whole number, not 'two'",
    ),
    ("data describe controlled --options [1]", "--options must be a mapping like '{{seed: 1}}', not '[1]'"),
    ("data describe mosi", "dataset 'mosi'"),
    ("data prepare av_mnist", "dataset 'av_mnist'"),
    ("data get nope", "unknown dataset 'nope'; choose from "),
    ("data verify nope", "unknown dataset 'nope'; choose from "),
    ("data get crema_d --options '{{nope: 1}}'", "dataset 'crema_d' has no option 'nope'; known options: "),
    ("data verify ave --options '{{nope: 1}}'", "dataset 'ave' has no option 'nope'; known options: "),
    ("book --results none", "there are no records at {here}/none; train first: make reproduce"),
    ("reproduce --results file/results", "cannot write to file/results: Not a directory"),
]

MISUSES = [
    ("", "the following arguments are required: command; see msam --help"),
    ("nope", "argument command: invalid choice: 'nope' (choose from "),
    ("data", "the following arguments are required: command; see msam data --help"),
    ("data nope", "argument command: invalid choice: 'nope' (choose from "),
    ("cell", "the following arguments are required: cell; see msam cell --help"),
    ("notebook", "the following arguments are required: name; see msam notebook --help"),
    *(
        (f"data {command}", f"the following arguments are required: name; see msam data {command} --help")
        for command in ("describe", "get", "verify", "prepare")
    ),
    *(
        (
            f"{command} --{name} {value}",
            f"argument --{name}: must be a whole number, at least 1, not '{value}'; see msam {command}",
        )
        for command, name in (
            *(("plan", "seeds"), ("plan", "jobs"), ("reproduce", "seeds"), ("reproduce", "jobs")),
            *(("cell", "seeds"), ("search", "jobs")),
        )
        for value in ("two", "1.5", "0", "-2")
    ),
    *(
        (f"{command} --{option} 3", f"unrecognized arguments: --{option} 3; see msam --help")
        for command, option in (
            *(("plan", "executor"), ("search", "seeds"), ("search", "results"), ("publish", "study")),
            *(("publish", "jobs"), ("claims", "seeds"), ("rate", "seeds")),
        )
    ),
    ("plan --profile", "argument --profile: expected one argument; see msam plan --help"),
    ("plan --faster", "unrecognized arguments: --faster; see msam --help"),
    ("plan smoke", "unrecognized arguments: smoke; see msam --help"),
    ("book --profile smoke", "unrecognized arguments: --profile smoke; see msam --help"),
    ("data verify ave --force", "unrecognized arguments: --force; see msam --help"),
    ("notebook train -p seeds", "argument -p: expected 2 arguments; see msam notebook --help"),
]


@pytest.fixture
def faulty(here, monkeypatch):
    """A folder of files that are not what they are taken for."""
    monkeypatch.setenv("MSAM_DATA", str(here / "data"))
    smoke = (studies.FOLDER / "smoke.yaml").read_text()
    contents = {
        "file": "",
        "broken.yaml": "a: [",
        "empty.yaml": "",
        "list.yaml": "- seeds\n- studies\n",
        "odd.yaml": "seeds: 2\ndefaults: {}\nstudies: [main]\n",
        "many.yaml": smoke.replace("seeds: 2", "seeds: many"),
        "word.yaml": smoke + "search: {trials: 1, seed: 1, lr: [0.1, 1], rho: [0.1, 1]}\n",
        "searched.yaml": smoke,
        "lost.yaml": smoke + "search: {trials: 1, seed: 1, lr: [0.1, 1]}\n",
        "searched.chosen.json": "[{",
        "tuned.yaml": smoke,
        "tuned.chosen.json": json.dumps(
            [{"dataset": "av_digits", "fusion": "late", "name": "sam", "lr": -1, "rho": 0.1, "options": {}}]
        ),
        "results/word/search.json": "{",
        "broken.ipynb": "{",
        "other.ipynb": '{"a": 1}',
        "cut/smoke/main/watch/late/sam.json": '{"schema": 1',
        "lacking/smoke/main/watch/late/sam.json": "[1]",
    }
    for name, content in contents.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)
    (here / "data").mkdir()
    for name in ("binary.yaml", "binary/smoke/main/watch/late/sam.json"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(b"\xff\xfe\x00")
    return here


def files(folder):
    """All that is there, but the locks of datasets: they stay, lest two processes lock two files."""
    return sorted(path for path in folder.rglob("*") if path.suffix != ".lock")


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(faulty, capsys, command, message):
    before = files(faulty)
    code, out, errors = said(capsys, *shlex.split(command.format(here=faulty)))
    assert (code, out, len(errors)) == (1, [], 1)
    assert errors[0].startswith("msam: " + message.format(here=faulty))
    assert files(faulty) == before


@pytest.mark.parametrize(("command", "message"), MISUSES)
def test_an_unknown_word_is_one_line(here, capsys, command, message):
    with pytest.raises(SystemExit) as end:
        cli.main(command.split())
    output = capsys.readouterr()
    assert (end.value.code, output.out, output.err.count("\n")) == (2, "", 1)
    assert output.err.startswith(f"msam: {message}")
    assert not list(here.iterdir())


def leaves(parser, words=()):
    """Every command of the parser, with its words and options."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for name, child in (item for group in groups for item in group.choices.items()):
        yield from leaves(child, (*words, name))
    if not groups:
        yield " ".join(words), {o for a in parser._actions for o in a.option_strings if o.startswith("--")}


def test_every_command_and_option_has_a_mistake():
    said = [command for command, _ in (*MISTAKES, *MISUSES)]
    options = set()
    for command, known in leaves(cli._parser()):
        assert any(text.startswith(command) for text in said), command
        options |= known
    harmless = {"--help", "--book", "--force", "--accept-licence"}
    assert options - harmless == {o for o in options if any(f" {o}" in text for text in said)} - harmless


def test_a_second_run_is_refused(here, capsys):
    with pipeline.exclusive(here):
        code, _, errors = said(capsys, "reproduce", "--results", str(here))
    assert (code, errors) == (
        1,
        [f"msam: another run is working on {here}; wait for it or stop it: kill {os.getpid()}"],
    )


def test_interruption_is_said(here, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "plan", interrupt)
    assert said(capsys, "plan") == (1, [], ["msam: stopped; the next run goes on from here"])


@pytest.mark.parametrize("arguments", [["--help"], ["reproduce", "--help"], ["data", "describe", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: msam")
    if arguments == ["--help"]:
        for command in ("plan", "reproduce", "cell", "search", "book", "publish", "notebook", "data"):
            assert re.search(rf"^ +{command}\s+\w+", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["plan", "reproduce", "cell", "search"])
def test_help_offers_all_studies_where_a_command_takes_them(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    offered = "a study of the profile, or all" in " ".join(capsys.readouterr().out.split())
    assert offered == (command in ("plan", "reproduce"))


def test_data_describe(outside, capsys, tmp_path):
    options = ["--options", "{train: 30, validation: 12, test: 18}"]
    code, out, errors = said(capsys, "data", "describe", "controlled", *options)
    content = yaml.safe_load("\n".join(out))
    assert (code, errors) == (0, [])
    assert {name: split["size"] for name, split in content["splits"].items()} == {
        "train": 30,
        "validation": 12,
        "test": 18,
    }
    assert content["splits"]["train"]["class_counts"] == [5] * 6
    assert content["modalities"]["m1"] == {"kind": "vector", "shape": [16]}
    assert "samples" not in content
    target = tmp_path / "new" / "controlled.json"
    assert said(capsys, "data", "describe", "controlled", *options, "--output", str(target)) == (0, [], [])
    record = json.loads(target.read_text())
    assert len(record.pop("samples")) == 4
    assert record == content


def test_data_describe_of_a_data_set_outside_the_package(outside, capsys):
    _, out, _ = said(capsys, "data", "describe", "outside.rings", "--options", "{size: 20}")
    assert yaml.safe_load("\n".join(out))["splits"]["test"]["class_counts"] == [10, 10]


def test_data_prepare_prints_the_folder(outside, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MSAM_DATA", str(tmp_path))
    arguments = ("data", "prepare", "outside.rings", "--options", "{size: 20}")
    _, (path,), _ = said(capsys, *arguments)
    (found,) = tmp_path.glob("*/manifest.json")
    assert path == str(found.parent)
    first = found.stat().st_mtime_ns
    said(capsys, *arguments)
    assert found.stat().st_mtime_ns == first
    said(capsys, *arguments, "--force")
    assert found.stat().st_mtime_ns > first


def test_plan_lists_every_cell_and_trains_nothing(here, toy, outside, capsys):
    code, out, _ = said(capsys, "plan", "--profile", toy, "--seeds", "3")
    grid = studies.cells(studies.load(toy))
    assert code == 0
    assert [line.split() for line in out[:-1]] == [[c.title, "?", "not", "trained", "yet"] for c in grid]
    assert out[-1] == "5 of 5 cells to train, 3 seeds each: no time was recorded for any of them"
    assert not list(here.iterdir())


@pytest.fixture
def notebook(here):
    """A notebook with two parameters, and the function that runs it."""
    import nbformat

    parameters = nbformat.v4.new_code_cell("number = 1\nkind = 'plain'", metadata={"tags": ["parameters"]})
    body = "assert number < 3, f'{number} is\\ntoo large'\nopen(f'{kind}.txt', 'w').write(str(2 * number))"
    content = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(body)])
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, here / "double.ipynb")
    return "notebook", "double.ipynb"


def test_a_notebook_runs_with_its_parameters_or_fails_in_one_line(notebook, here, capsys):
    """One test, because every run starts a kernel."""
    target = here / "results" / "local" / "notebooks"
    code, _, errors = said(capsys, *notebook, "-p", "number", "7")
    assert (code, errors) == (1, ["msam: AssertionError: 7 is"])
    assert [path.name for path in target.iterdir()] == ["double.failed.ipynb"]
    code, out, errors = said(capsys, *notebook, "-p", "number", "2", "-p", "kind", "fancy")
    assert (code, errors) == (0, [])
    assert out == ["the executed notebook is at results/local/notebooks/double.ipynb"]
    assert (here / "fancy.txt").read_text() == "4"
    assert [path.name for path in target.iterdir()] == ["double.ipynb"]


def test_a_cell_that_cannot_run_leaves_its_reason(here, toy, outside, capsys, monkeypatch):
    from msam import notebooks

    source, given = pipeline.ROOT / "notebooks" / "train.ipynb", {}

    def execute(source, target, parameters):
        given.update(parameters, source=source, target=target)
        raise notebooks.NotebookError("MemoryError: 3 GB\nmore words")

    monkeypatch.setattr(notebooks, "execute", execute)
    title = "rings/late/mixture+orphan"
    code, _, errors = said(capsys, "cell", title, "--profile", toy, "--results", "out", "--seeds", "4")
    assert (code, errors[0]) == (1, "msam: MemoryError: 3 GB")
    (cell,) = studies.cells(studies.load(toy), "main", "outside.rings", "late", "mixture+orphan")
    note = json.loads(cells.failed(cell.path(here / "out")).read_text())
    assert note["config"] == cell.config
    assert note["reason"] == "MemoryError: 3 GB\nmore words"
    assert "Traceback" in note["traceback"]
    folder = cell.path(here / "out").parent
    assert given.pop("target").absolute() == folder / "mixture+orphan.ipynb"
    assert given.pop("source") == source
    assert (source.parent / given.pop("results")).resolve() == here / "out"  # the kernel starts beside it
    assert given == {
        "profile": toy,
        "study": "main",
        "dataset": "outside.rings",
        "fusion": "late",
        "method": "mixture+orphan",
        "seeds": 4,
    }


def test_a_run_of_another_study_than_main_makes_no_book_and_says_so(here, outside, capsys, monkeypatch, toy):
    (here / "mine.yaml").write_text(Path(toy).read_text().replace("main:", "other:"))
    monkeypatch.setattr(pipeline, "train", lambda jobs, run, lock: [])
    arguments = ("--profile", "mine.yaml", "--study", "other", "--results", "out")
    code, output, errors = said(capsys, "reproduce", *arguments)
    assert (code, errors) == (0, [])
    assert (
        output[-1]
        == "there is no book yet: it needs the study main of a profile like embedded, as from make reproduce"
    )


def test_the_profile_may_be_a_relative_path(here, outside, capsys, monkeypatch, toy):
    """Snakemake and the notebooks start elsewhere, so they get an absolute one."""
    (here / "mine.yaml").write_text(Path(toy).read_text())
    runs = []
    monkeypatch.setattr(pipeline, "train", lambda jobs, run, lock: runs.append(run) or [])
    assert said(capsys, "reproduce", "--profile", "mine.yaml", "--results", "out")[0] == 0
    assert runs[0].profile == str(here / "mine.yaml")
    command = pipeline._snakemake([], runs[0])
    assert f"profile={here / 'mine.yaml'}" in command
    assert f"results={here / 'out'}" in command


def test_too_little_memory_is_said_in_a_line(here, capsys, monkeypatch):
    def fail(options):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(cli, "_plan", fail)
    assert said(capsys, "plan") == (1, [], ["msam: not enough memory: Unable to allocate 7 TiB"])
