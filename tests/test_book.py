"""A miniature book: what the pages load, what a failing notebook says, and when nothing is to be done."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from conftest import gone, wait_for

from msam import book, datasets, records

ROOT = Path(__file__).parents[1]
CONTENTS = """\
format: jb-book
root: overview
chapters:
  - file: text
  - file: comparison
"""
TEXT = r"""# Text

```{math}
:label: eq-one
v_m = \frac{1}{M}
```

By {eq}`eq-one` and {cite:p}`msam`.

```{bibliography}
```
"""


def write_notebook(path, code):
    cells = [
        nbformat.v4.new_markdown_cell(f"# {path.stem}"),
        nbformat.v4.new_code_cell("results = ''\nlocal = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The book's real settings around two notebooks and a text; the working folder is the project."""
    for folder in ("book", "notebooks", "examples"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("_config.yml", "references.bib"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    (tmp_path / "book/_toc.yml").write_text(CONTENTS)
    (tmp_path / "book/text.md").write_text(TEXT)
    for place in ("embedded", "compact", "local/embedded"):
        record = tmp_path / f"results/{place}/main/watch/late/joint.json"
        record.parent.mkdir(parents=True)
        record.write_text('{"schema": 1}')
    write_notebook(tmp_path / "notebooks/overview.ipynb", "import os; print('shown', os.path.isdir(results))")
    write_notebook(
        tmp_path / "notebooks/comparison.ipynb",
        "print(*('local' if 'local' in r else 'published' for r in (results, local)))",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Loads(HTMLParser):
    """Addresses that a browser fetches by itself."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(attributes.get("src"))
        if tag == "link" and attributes.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.addresses.append(attributes["href"])


def loads(page):
    parser = Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    return [address for address in parser.addresses if address]


def files(contents):
    return re.findall(r"'file': '(\w+)'", repr(contents))


def test_book_is_built_offline_once(project, capsys):
    results, out = Path("results"), Path("build/html")
    index = book.build(results, out)
    assert index == project / "build/html/index.html"
    pages = [p for p in index.parent.glob("*.html") if p.name != "index.html"]
    assert {"overview.html", "text.html"} <= {p.name for p in pages}
    for page in pages:
        addresses = loads(page)
        assert any("mathjax" in a for a in addresses) or page.name != "text.html"
        for address in addresses:
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            assert (index.parent / address.split("?")[0]).is_file(), f"{page.name} lacks {address}"
    for style in index.parent.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style

    overview = (index.parent / "overview.html").read_text()
    assert "shown True" in overview
    assert f"Book of commit {records.commit_name(*records.code_state(*book.MADE_OF))}" in overview
    assert "Your own run" not in overview
    assert str(project) not in overview
    assert "repository" not in re.sub(r"<script.*?</script>", "", overview, flags=re.DOTALL)
    notebook = json.loads((index.parent / "_sources/overview.ipynb").read_text())
    assert str(project) not in json.dumps(notebook)
    copied = {str(path.relative_to(index.parent)) for path in index.parent.glob("records/**/*.json")}
    assert copied == {f"records/{place}/main/watch/late/joint.json" for place in ("embedded", "compact")}

    capsys.readouterr()
    assert book.build(results, out) == index
    assert capsys.readouterr().out == "book is up to date\n"


def test_everything_the_book_is_made_from_makes_it_stale(project):
    (project / "results/benchmarks").mkdir()
    (project / "results/benchmarks/step_cost.json").write_text("{}")

    def now():
        return book.inputs_hash(project, (project / "results").resolve(), None)

    def touched(path):
        before = now()
        assert now() == before
        file = project / path
        file.write_text(file.read_text() + " ")
        return now() != before

    records = [f"results/{profile}/main/watch/late/joint.json" for profile in ("embedded", "compact")]
    for path in (*records, "results/benchmarks/step_cost.json", "notebooks/overview.ipynb", "book/text.md"):
        assert touched(path), path
    assert not touched("results/local/embedded/main/watch/late/joint.json")


def test_comparison_reads_both_runs(project):
    own, published = Path("results/local"), Path("results")
    html = book.build(own, Path("build/html"), published).parent
    assert "published local" in (html / "comparison.html").read_text()
    assert "comparison.html" in (html / "overview.html").read_text()
    copied = {str(path.relative_to(html)) for path in html.glob("records/**/*.json")}
    assert copied == {
        f"records/{place}/main/watch/late/joint.json" for place in ("embedded", "compact", "local/embedded")
    }


@pytest.mark.parametrize("own", ["results", "results/other"])
def test_no_comparison_with_itself_or_without_a_common_profile(project, own, monkeypatch):
    (project / "results/other/mine/main/d/late").mkdir(parents=True)
    (project / "results/other/mine/main/d/late/sam.json").write_text("{}")
    given = {}

    def execute(notebooks, into, results, published):
        given.update(pages=list(notebooks), published=published)
        raise book.BookError("far enough")

    monkeypatch.setattr(book, "execute", execute)
    with pytest.raises(book.BookError, match="far enough"):
        book.build(Path(own), Path("build/html"), Path("results"))
    assert given == {"pages": ["overview"], "published": None}


def test_contents_have_the_comparison_only_with_two_runs():
    real = ROOT / "book"
    both = files(book.table_of_contents(real, with_comparison=True))
    one = files(book.table_of_contents(real, with_comparison=False))
    assert set(both) - set(one) == {"comparison"}


def test_real_contents_have_all_their_pages():
    contents = book.table_of_contents(ROOT / "book", with_comparison=True)
    notebooks = book.notebook_pages(ROOT, contents)
    assert notebooks["overview"].name == "overview.ipynb"
    assert {page for page, path in notebooks.items() if path.name == "dataset.ipynb"} == {
        f"data/{name}" for name in datasets.names()
    }


def test_the_notebook_of_one_dataset_is_made_for_each(tmp_path):
    source = ROOT / "notebooks" / "dataset.ipynb"
    plain, made = (nbformat.read(p, 4) for p in (source, book.one_dataset(source, "watch", tmp_path)))
    assert made.cells[0].source.startswith("# watch\n")
    assert 'dataset = "watch"' in made.cells[1].source
    differing = [new.source for old, new in zip(plain.cells, made.cells, strict=True) if old != new]
    assert len(differing) == 3  # the title, the parameter, the figure's label


def test_failing_notebook_is_named_and_the_old_book_stays(project):
    old = project / "build/html/index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    old.with_name(book.STAMP).write_text("of other inputs")
    write_notebook(project / "notebooks/overview.ipynb", "raise ValueError('first line\\nno records')")
    with pytest.raises(book.BookError, match=r"^no page overview: ValueError: first line$"):
        book.build(Path("results"), Path("build/html"))
    assert old.read_text() == "old"


def test_a_reason_that_pages_share_is_said_once(project):
    for name in ("overview", "comparison"):
        write_notebook(project / f"notebooks/{name}.ipynb", "raise ValueError('x.json is damaged')")
    with pytest.raises(
        book.BookError, match=r"^no page comparison, overview: ValueError: x.json is damaged$"
    ):
        book.build(Path("results/local"), Path("build/html"), Path("results"))


@pytest.mark.parametrize("there", ["mine", "mine/thesis.txt"])
def test_what_is_no_book_is_not_replaced(project, there):
    mine = project / there
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    with pytest.raises(
        book.BookError, match=f"^{project}/mine is there and holds no book; name a new folder$"
    ):
        book.build(Path("results"), Path("mine"))
    assert mine.read_text() == "years of work"


def test_an_interrupted_build_does_not_wait_for_its_notebooks(project, interruptible):
    """Which are in kernels of their own sessions, where no interrupt of the terminal arrives."""
    endless = "import os, time\nwith open('pid', 'w') as file: file.write(str(os.getpid()))\ntime.sleep(600)"
    write_notebook(project / "notebooks/overview.ipynb", endless)
    command = [sys.executable, "-m", "msam.cli", "book", "--results", "results"]
    pid = project / "notebooks/pid"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            wait_for(lambda: pid.is_file() and pid.read_text(), process)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=90)
        finally:
            process.kill()
    last = errors.splitlines()[-1]
    assert (process.returncode, last) == (1, "msam: stopped; the next run goes on from here")
    assert gone(int(pid.read_text()))
    assert not (project / "build/book/html").exists()


def test_warning_is_an_error(project):
    (project / "book/_toc.yml").write_text("format: jb-book\nroot: text\n")
    (project / "book/text.md").write_text("# Text\n\n{cite:p}`nobody`\n")
    with pytest.raises(book.BookError, match=r"text\.md.*nobody"):
        book.build(Path("results"), Path("build/html"))
    assert not Path("build/html").exists()


def test_missing_page_and_missing_records_are_named(project):
    with pytest.raises(book.BookError, match=r"there are no records at .*nothing"):
        book.build(Path("results/nothing"), Path("build/html"))
    (project / "notebooks/overview.ipynb").unlink()
    with pytest.raises(book.BookError, match="page 'overview' has neither"):
        book.build(Path("results"), Path("build/html"))


def test_two_builds_at_once_are_refused(project):
    work = project / "work"
    with book._alone(work), pytest.raises(book.BookError, match="another build"), book._alone(work):
        pass


def test_code_of_the_method_page_runs():
    torch = pytest.importorskip("torch")
    from msam.models import build_classifier

    text = (ROOT / "book/method.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    torch.manual_seed(0)
    model = build_classifier({"a": "vector", "b": "vector"}, {"a": (3,), "b": (4,)}, 2, "early", 8)
    before = [p.clone() for p in model.parameters()]
    batch = ({"a": torch.randn(16, 3), "b": torch.randn(16, 4)}, torch.randint(2, (16,)))
    scope = {"model": model, "rho": 0.05, "lr": 0.1, "batches": [batch]}
    exec(code, scope)
    assert scope["loss"].isfinite()
    assert all(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
