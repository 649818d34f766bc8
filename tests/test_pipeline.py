"""The pipeline, through the real Snakemake: a run that is killed, and the run that goes on from there."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import gone, wait_for, without_costs
from test_analysis_records import cell_record, fabricate, write

from msam import cells, cli, forking, pipeline, records, studies
from msam.analysis import figures


def wait_until_free(results, seconds=20):
    """Until the killed processes, which hold the lock, are gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(pipeline.PipelineError), pipeline.exclusive(results):
            return
        time.sleep(0.05)


def records_of(grid, results):
    return {c.name: records.read(c.path(results)) for c in grid if c.path(results).is_file()}


def files(results):
    return {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}


@pytest.fixture(scope="module")
def story(toy, outside, tmp_path_factory):
    """`msam reproduce`, killed while a cell is in its second seed, then the same through `pipeline.train`.

    The killed run is asked for the plan and refused a second run on the same folder while it works.
    """
    folder = tmp_path_factory.mktemp("pipeline")
    results, pause = folder / "results", folder / "pause"
    grid = studies.cells(studies.load(toy))
    paths = {cell.name: cell.path(results) for cell in grid}
    told = SimpleNamespace(results=results, grid=grid, paths=paths)
    pause.write_text("")
    command = [sys.executable, "-m", "msam.cli", "reproduce", "--profile", toy, "--jobs", "3"]
    printed = folder / "printed"
    with printed.open("w") as output:
        process = subprocess.Popen(
            [*command, "--results", str(results)],
            env={**os.environ, "OUTSIDE_PAUSE": str(pause)},
            cwd=folder,
            text=True,
            stdout=output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    try:
        ready = (paths["signed"].with_suffix(".ipynb"), cells.failed(paths["failing"]))
        wait_for(
            lambda: (
                pause.read_text()
                and all(path.is_file() for path in ready)
                and all(f"rings/late/{path.name.partition('.')[0]} " in printed.read_text() for path in ready)
            ),
            process,
        )
        second = subprocess.run([*command, "--results", str(results)], capture_output=True, text=True)
        told.second = second
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        told.printed = printed.read_text()
    wait_until_free(results)
    pause.unlink()
    told.partial = json.loads(paths["pausing"].with_suffix(".partial.json").read_text())
    told.left = sorted(p.name for p in paths["signed"].parent.iterdir() if p.suffix == ".json")
    told.before = files(results)

    told.jobs = pipeline.plan(grid, 2, results, folder / "published")
    with pipeline.exclusive(results) as lock:
        told.failed = pipeline.train(told.jobs, pipeline.Run(toy, "main", 2, 3, results), lock)
    told.after = files(results)
    return told


@pytest.mark.parametrize("to_all", [False, True], ids=["told to end", "interrupted from the terminal"])
def test_a_stopped_run_ends_with_all_it_has_started(toy, outside, interruptible, tmp_path, to_all):
    """One that is told to end may have been started with `&`, by a shell that lets it ignore interrupts."""
    if not to_all:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    results, pause = tmp_path / "results", tmp_path / "pause"
    pause.write_text("")
    command = [sys.executable, "-m", "msam.cli", "reproduce", "--profile", toy, "--results", str(results)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OUTSIDE_PAUSE": str(pause)},
        cwd=tmp_path,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        read = [""]
        wait_for(lambda: read.append(pause.read_text()) or read[-1], process)
        if to_all:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        _, errors = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (1, "msam: stopped; the next run goes on from here\n")
    assert gone(int(read[-1]))
    with pipeline.exclusive(results):
        assert not list(results.rglob("pausing.failed.json"))


def test_the_killed_run_left_whole_records_and_finished_seeds(story):
    assert story.left == ["failing.failed.json", "pausing.partial.json", "signed.json"]
    assert [seed["seed"] for seed in story.partial["seeds"]] == [0]
    assert "5 of 5 cells to train: no time was recorded for any of them" in story.printed


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process hears of its parent's end")
def test_snakemake_starts_no_more_when_its_parent_alone_is_killed(toy, outside, tmp_path):
    results, pause = tmp_path / "results", tmp_path / "pause"
    pause.write_text("")
    command = [sys.executable, "-m", "msam.cli", "reproduce", "--profile", toy, "--results", str(results)]
    with subprocess.Popen(
        command,
        env={**os.environ, "OUTSIDE_PAUSE": str(pause)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        wait_for(pause.read_text, process)
        process.kill()
    pause.unlink()
    wait_until_free(results)
    grid = {cell.name: cell.path(results) for cell in studies.cells(studies.load(toy))}
    assert not grid["mixture"].is_file()  # which waited for the one that paused


def test_progress_is_printed_cell_by_cell(story):
    lines = [line for line in story.printed.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert {tuple(line.split()[1:3]) for line in lines} == {
        ("rings/late/signed", "done"),
        ("rings/late/failing", "FAILED"),
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "FAILED"),
        ({"state": "undefined", "seeds": []}, "not defined"),
        ({"state": "done", "seeds": [{"state": "done"}] * 2}, "done"),
        ({"state": "done", "seeds": [{"state": "done"}, {"state": "diverged"}]}, "diverged in 1 of 2 seeds"),
    ],
)
def test_progress_says_how_a_cell_ended(record, said):
    assert pipeline._outcome(record) == said


def test_a_second_run_is_refused_while_the_first_works(story):
    message = rf"msam: another run is working on {story.results}; wait for it or stop it: kill \d+\n"
    assert story.second.returncode == 1
    assert re.fullmatch(message, story.second.stderr)


def test_the_plan_after_the_kill_lacks_what_is_done(story):
    assert [(job.cell.name, job.reason) for job in story.jobs] == [
        ("pausing", "not trained yet"),
        ("mixture", "not trained yet"),
        ("failing", "failed before"),
        ("mixture+orphan", "not trained yet"),
    ]


def test_the_next_run_leaves_alone_what_is_done(story):
    signed = story.paths["signed"]
    assert story.after[signed] == story.before[signed]


def test_all_other_records_appear_and_no_partial_one_is_left(story):
    assert set(records_of(story.grid, story.results)) == {"signed", "pausing", "mixture"}
    assert not list(story.results.rglob("*.partial.json"))
    assert all(path.with_suffix(".ipynb").is_file() for path in map(story.paths.get, ("signed", "mixture")))
    data = json.loads((story.results / "toy" / "data" / "rings.json").read_text())
    assert (data["name"], data["options"], data["splits"]["train"]["size"]) == (
        "outside.rings",
        {"size": 96, "noise": 0.2},
        96,
    )


def test_killed_and_resumed_equals_undisturbed(story, tmp_path):
    """The truth: the same cells in this process, without Snakemake, notebook or interruption."""
    found = records_of(story.grid, story.results)
    for cell in story.grid[:3]:
        truth = cells.run(cell, range(2), results=tmp_path, device="cpu")
        assert found[cell.name]["config"] == truth["config"]
        assert found[cell.name]["key"] == truth["key"]
        assert [without_costs(s) for s in found[cell.name]["seeds"]] == [
            without_costs(s) for s in truth["seeds"]
        ]
    assert found["pausing"]["seeds"][0] == story.partial["seeds"][0]  # not trained again, to the timing


def test_failures_are_listed_with_their_reasons(story):
    assert [cell.name for cell in story.failed] == ["failing", "mixture+orphan"]
    reasons = {
        name: json.loads(cells.failed(story.paths[name]).read_text())["reason"]
        for name in ("failing", "mixture+orphan")
    }
    assert reasons["failing"] == "RuntimeError: the wheel came off"
    assert reasons["mixture+orphan"].startswith("not run: its dataset or a record it needs failed, see ")
    assert story.paths["failing"].with_suffix(".failed.ipynb").is_file()


def test_frames_show_done_and_failed_cells(story):
    frame = records.load(story.results / "toy" / "main").cells.set_index("name")
    assert frame["state"].to_dict() == {
        "signed": "done",
        "pausing": "done",
        "mixture": "done",
        "failing": "failed",
        "mixture+orphan": "failed",
    }


def test_reproduce_reports_failures_and_still_builds_the_book(story, toy, monkeypatch, capsys):
    """Snakemake and the book are replaced here: both have been or are tested with the real ones."""
    built = []
    monkeypatch.setattr(pipeline, "train", lambda jobs, run, lock: [job.cell for job in jobs])
    monkeypatch.setattr(cli, "_book", lambda options: built.append(options.results) or 0)
    code = cli.main(["reproduce", "--profile", toy, "--results", str(story.results)])
    errors = capsys.readouterr().err.splitlines()
    assert code == 1
    assert built == [story.results]
    assert errors[0] == "failed: rings/late/failing: RuntimeError: the wheel came off"
    assert errors[1].startswith("failed: rings/late/mixture+orphan: not run: ")
    assert len(errors) == 2


def test_nothing_to_do_is_said_and_snakemake_not_started(story, tmp_path, toy, monkeypatch, capsys):
    """A copy of the results, with the faulty methods left out of the study."""
    text = Path(toy).read_text()
    without = [line for line in text.splitlines() if "failing" not in line]
    (tmp_path / "toy.yaml").write_text("\n".join(without))
    shutil.copytree(story.results, tmp_path / "results")
    monkeypatch.setattr(pipeline, "train", None)
    monkeypatch.setattr(cli, "_book", lambda options: 0)
    arguments = ["--profile", str(tmp_path / "toy.yaml"), "--results", str(tmp_path / "results")]
    assert cli.main(["reproduce", *arguments]) == 0
    assert capsys.readouterr().out == "0 of 3 cells to train: nothing to do\n"
    assert cli.main(["plan", *arguments]) == 0
    assert capsys.readouterr().out == "0 of 3 cells to train, 2 seeds each: nothing to do\n"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"name"')])
def test_a_lost_description_of_data_is_written_again(story, tmp_path, damage):
    results = tmp_path / "results"
    shutil.copytree(story.results, results)
    description = results / "toy" / "data" / "rings.json"
    content = description.read_text()
    damage(description)
    pipeline.restore_descriptions(story.grid, results)
    assert description.read_text() == content
    before = files(results)
    pipeline.restore_descriptions(story.grid, results)
    assert files(results) == before


def reasons(grid, results, seeds=2):
    return {job.cell.name: job.reason for job in pipeline.plan(grid, seeds, results, results / "none")}


def test_the_plan_after_damage(story, tmp_path):
    """A lost or damaged record is planned again, with what reads it, and nothing else."""
    results, grid = tmp_path / "results", story.grid[:3]
    shutil.copytree(story.results, results)
    paths = {cell.name: cell.path(results) for cell in grid}
    assert reasons(grid, results) == {}
    text = paths["signed"].read_text()
    paths["signed"].write_text(text[:500])
    assert reasons(grid, results) == {"signed": "the record is corrupt"}
    paths["signed"].write_text(text.replace('"key": "', '"key": "0'))
    assert reasons(grid, results) == {"signed": "its configuration or code has changed"}
    paths["signed"].unlink()
    assert reasons(grid, results) == {"signed": "not trained yet"}
    paths["signed"].write_text(text)
    for damage in (Path.unlink, lambda path: path.write_text("{}")):
        damage(paths["signed"].with_suffix(".ipynb"))
        assert reasons(grid, results) == {"signed": "its notebook is missing or damaged"}
    paths["signed"].unlink()
    paths["pausing"].unlink()
    assert reasons(grid, results) == {
        "signed": "not trained yet",
        "pausing": "not trained yet",
        "mixture": "it needs pausing",
    }
    shutil.copytree(story.results, results, dirs_exist_ok=True)
    assert set(reasons(grid, results, seeds=3).values()) == {"it has 2 of 3 seeds"}
    assert reasons(grid, results, seeds=1) == {}


def test_a_finished_record_that_another_needs_is_left_alone(story, toy, tmp_path):
    """Also where the killed run had no time to tell Snakemake that it was finished."""
    results = tmp_path / "results"
    shutil.copytree(story.results, results)
    paths = {name: story.grid[i].path(results) for i, name in enumerate(("signed", "pausing", "mixture"))}
    paths["mixture"].unlink()
    before = files(results)
    jobs = pipeline.plan(story.grid[:3], 2, results, tmp_path / "none")
    assert [(job.cell.name, job.reason) for job in jobs] == [("mixture", "not trained yet")]
    mark = urlsafe_b64encode(str(paths["pausing"]).encode()).decode()
    incomplete = pipeline.ROOT / ".snakemake" / "incomplete" / mark
    incomplete.parent.mkdir(parents=True, exist_ok=True)
    incomplete.write_text("")
    try:
        with pipeline.exclusive(results) as lock, forking.preloaded(lock=lock):
            assert pipeline.train(jobs, pipeline.Run(toy, "main", 2, 2, results), lock) == []
    finally:
        incomplete.unlink(missing_ok=True)
    after = files(results)
    assert paths["mixture"].is_file()
    assert [after[paths[name]] for name in ("signed", "pausing")] == [
        before[paths[name]] for name in ("signed", "pausing")
    ]


def test_what_a_killed_run_left_is_cleared_up(story, tmp_path):
    """Half-written files always; seeds and checkpoints of a cell only where its record is whole."""
    results, (signed, pausing) = tmp_path / "results", story.grid[:2]
    shutil.copytree(story.results, results)
    path, other = signed.path(results), pausing.path(results)
    wanted = files(results)
    half = [path.with_name(f".signed{end}") for end in (".json.77", ".partial.json.77", ".77.ipynb")]
    half += [results / "toy" / ".claims.json.5", other.with_name(".pausing.json.78")]
    digest = "0123456789abcdef"
    useless = [cells.failed(path), path.with_suffix(".partial.json")]
    useless += [path.with_name(f".signed.{digest}.pt{end}") for end in ("", ".unfinished")]
    useful = [other.with_suffix(".partial.json"), other.with_name(f".pausing.{digest}.pt")]
    useful += [path.with_name(f".signed.5.{digest}.pt")]
    for file in (*half, *useless, *useful):
        file.write_text("")
    pipeline.clear_up([pipeline.Job(pausing, "", None)], [signed, pausing], results)
    assert not any(file.exists() for file in (*half, *useless))
    assert all(file.exists() for file in useful)
    assert wanted.items() <= files(results).items()


def test_expected_times_are_those_of_earlier_runs(story, tmp_path):
    cell = next(c for c in story.grid if c.name == "signed")
    record = records.read(cell.path(story.results))
    for seed, seconds in zip(record["seeds"], (2.0, 4.0), strict=True):
        seed["seconds"] = seconds
    half = cell.config | {"epochs": 1}
    records.write(cell.path(tmp_path / "published"), {**record, "config": half})
    (job,) = pipeline.plan([cell], 5, tmp_path / "mine", tmp_path / "published")
    assert job.seconds == pytest.approx(pipeline.START + 5 * 3.0 * 2)  # mean of a seed, twice the epochs
    (job,) = pipeline.plan([cell], 5, tmp_path / "mine", tmp_path / "absent")
    assert job.seconds is None
    own = cell.path(tmp_path / "mine")
    for path in (own, own.with_suffix(".partial.json")):  # two seeds that are not trained again
        records.write(path, record)
        (job,) = pipeline.plan([cell], 5, tmp_path / "mine", tmp_path / "published")
        assert job.seconds == pytest.approx(pipeline.START + 3 * 3.0 * (1 if path == own else 2))
        path.unlink()


def test_what_is_left_takes_as_much_longer_than_planned_as_the_rest_did():
    jobs = [pipeline.Job(None, "", seconds) for seconds in (30.0, 20.0, 50.0, None, 50.0)]
    left = partial(pipeline.seconds_left, jobs, workers=2)
    assert left([], 99) == 0
    assert left(jobs[1:], 15) == pytest.approx(157.5 / 2)  # as planned; an unknown one takes the mean, 37.5
    slow = (4 * 137.5 + 18.75) / (137.5 + 18.75)
    assert left(jobs[4:], 275) == pytest.approx(slow * 25)  # nearly four times as slow
    many = [pipeline.Job(None, "", 1.0)] * 100
    assert pipeline.seconds_left(many, many[1:], 20, 2) < 240  # one slow start out of a hundred
    unknown = [pipeline.Job(None, "", None)] * 4
    assert pipeline.seconds_left(unknown, unknown[1:], 10, 2) == 30


def test_total_and_clock():
    jobs = [pipeline.Job(None, "", seconds) for seconds in (60.0, 120.0, None)]
    assert pipeline.total(jobs, 2) == "2:15"  # the unknown one takes the mean, 90 s
    assert pipeline.total(jobs[2:], 2) == ""
    assert pipeline.total(jobs, 8) == "2:00"  # a cell is not trained by two
    assert [pipeline.clock(s) for s in (0, 59.6, 90, 3600, 3725)] == [
        "0:00",
        "1:00",
        "1:30",
        "1:00:00",
        "1:02:05",
    ]


def test_the_lock_is_free_again(tmp_path):
    for _ in range(2):
        with (
            pipeline.exclusive(tmp_path),
            pytest.raises(pipeline.PipelineError),
            pipeline.exclusive(tmp_path),
        ):
            raise AssertionError
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(pipeline.PipelineError, match="cannot write to "),
        pipeline.exclusive(tmp_path / "file"),
    ):
        raise AssertionError


@pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")
def test_a_process_that_outlives_its_run_holds_the_lock_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "WAIT", 0.2)
    connection = tmp_path / "connection.json"
    with pipeline.exclusive(tmp_path) as lock, forking.preloaded(lock=lock):
        orphan = subprocess.Popen([*forking.command(), "kernel", str(connection)])
        wait_for(connection.is_file, orphan)
    with pytest.raises(pipeline.PipelineError, match="another run is working"), pipeline.exclusive(tmp_path):
        raise AssertionError
    monkeypatch.setattr(pipeline, "WAIT", 20)
    orphan.kill()
    with pipeline.exclusive(tmp_path):
        orphan.wait()


def test_an_unknown_executor_is_refused_before_anything_is_touched(story, toy):
    before = files(story.results)
    run = pipeline.Run(toy, "main", 2, 1, story.results, executor="cloud")
    with pytest.raises(pipeline.PipelineError, match="unknown executor 'cloud'; choose from local, slurm"):
        pipeline.train(story.jobs, run, 0)
    assert files(story.results) == before


def test_a_snakemake_that_does_not_end_is_killed():
    ignore = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"{ignore}\nprint(flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as deaf:
        deaf.stdout.readline()
        pipeline._stop(deaf, 0.5)
    assert deaf.returncode == -signal.SIGKILL


def test_snakemake_that_cannot_start_is_said(story, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pipeline, "_snakemake", lambda jobs, run: [sys.executable, "-c", "raise SystemExit(1)"]
    )
    jobs = [pipeline.Job(story.grid[0], "", None)]
    with (
        pipeline.exclusive(tmp_path) as lock,
        pytest.raises(pipeline.PipelineError, match="Snakemake trained nothing, see "),
    ):
        pipeline.train(jobs, pipeline.Run(toy, "main", 2, 1, tmp_path), lock)


@pytest.mark.parametrize("line", ["msam: no room", "snakemake: error: no such executor"])
def test_what_snakemake_failed_of_is_said(line, tmp_path):
    log = tmp_path / "log"
    log.write_text(f"Building DAG\nmsam: an earlier one\n{line}\nShutting down\n")
    assert pipeline._said(log) == f": {line.partition(': ')[2]}"


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("msam", {"reading": "foo"}, "unknown reading 'foo'; choose from loss, response, encoder"),
        ("msam", {"nope": 1}, "method 'msam' has no option 'nope'; known: reading, "),
        ("msam", {"dominance": "fixed:x"}, "x"),
        ("mixture", {"share": 1.5}, "share must be a number in [0, 1], not 1.5"),
        ("outside.sigend", {}, "outside.sigend"),
    ],
)
def test_wrong_options_of_a_method_are_refused_before_training(tmp_path, toy, name, entry, message):
    content = yaml.safe_load(Path(toy).read_text())
    content["studies"]["main"]["methods"] = {"joint": {"rho": False}, name: entry}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    jobs = pipeline.plan(studies.cells(studies.load(str(path))), 1, tmp_path / "r", tmp_path / "p")
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        pipeline.check_options(jobs)
    assert str(refusal.value).startswith("profile own, study 'main', rings/late/")


def test_a_description_that_is_none_is_made_again(tmp_path, toy, outside):
    (cell, *_) = studies.cells(studies.load(toy))
    cells.run(cell, [0], results=tmp_path, device="cpu")
    path = tmp_path / "toy" / "data" / "rings.json"
    for text in ("", "[1]", "{}"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pipeline.restore_descriptions([cell], tmp_path)
        assert json.loads(path.read_text())["splits"]["train"]["size"] == 96


def test_a_cell_is_not_trained_by_hand_inside_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "WAIT", 0.0)
    with pipeline.exclusive(tmp_path / "results" / "local"):
        assert cli.main(["cell", "av_digits/late/joint", "--profile", "smoke"]) == 1
    assert "another run is working on results/local" in capsys.readouterr().err


def test_an_executor_without_its_plugin_is_refused(monkeypatch):
    monkeypatch.setattr(pipeline, "find_spec", lambda name: None)
    with pytest.raises(pipeline.PipelineError, match="pip install snakemake-executor-plugin-slurm"):
        pipeline.check_executor("slurm")


def test_a_record_is_not_published_over_one_of_more_seeds(tmp_path):
    for folder, seeds in (("local", 2), ("results", 3)):
        write(
            tmp_path / folder / "toy/main/d/late/sam.json",
            cell_record("controlled", "late", "sam", seeds=seeds),
        )
    with pytest.raises(
        pipeline.PipelineError, match="has fewer seeds than the published record: train SEEDS=3"
    ):
        pipeline.publish(tmp_path / "local", tmp_path / "results", "toy")
    assert len(json.loads((tmp_path / "results/toy/main/d/late/sam.json").read_text())["seeds"]) == 3


def test_publish_copies_records_and_notebooks_only(tmp_path):
    mine, published = tmp_path / "local", tmp_path / "results"
    cell = {"cell_type": "markdown", "metadata": {"papermill": {"duration": 1}}, "source": "text"}
    notebook = json.dumps({"cells": [cell], "metadata": {"papermill": {"output_path": "/home/me"}}})
    record = json.dumps(cell_record("controlled", "late", "sam"))
    keep = ["main/d/late/sam.json", "main/d/late/sam.ipynb", "main/d/late/msam+encoder.json", "data/d.json"]
    drop = ["main/d/late/sam.partial.json", "main/d/late/joint.failed.json", "main/d/late/joint.failed.ipynb"]
    drop += ["main/d/late/.sam.json.77", "main/d/late/.sam.77.ipynb", "main/d/late/log.txt"]
    for name in keep + drop:
        path = mine / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook if path.suffix == ".ipynb" else record)
    late = published / "toy" / "main" / "d" / "late"
    late.mkdir(parents=True)
    (late / "sam.json").write_text("old")
    (late / "other.json").write_text("stays")
    assert pipeline.publish(mine, published, "toy") == len(keep)
    found = {
        str(p.relative_to(published / "toy")): p.read_text() for p in published.rglob("*") if p.is_file()
    }
    published_notebook = json.loads(found.pop("main/d/late/sam.ipynb"))
    assert published_notebook == {"cells": [{**cell, "metadata": {}}], "metadata": {}}
    texts = {name: record for name in keep if not name.endswith(".ipynb")}
    assert found == texts | {"main/d/late/other.json": "stays"}
    with pytest.raises(pipeline.PipelineError, match="there is nothing to publish in "):
        pipeline.publish(mine, published, "other")


def test_publish_takes_what_was_measured_beside_the_profile(tmp_path):
    mine, published = tmp_path / "local", tmp_path / "results"
    write(mine / "toy/main/d/late/sam.json", cell_record("controlled", "late", "sam"))
    measured = ("rate/rate.json", "benchmarks/step_cost.json", "benchmarks/cuda/step_cost.json")
    for name in (*measured, "other/main/d/late/sam.json"):
        records.write(mine / name, {"rows": [name]})
    assert pipeline.publish(mine, published, "toy") == 4
    for name in measured:
        assert json.loads((published / name).read_text()) == {"rows": [name]}
    assert not (published / "other").exists()
    (mine / "rate/rate.json").write_text("{")
    with pytest.raises(pipeline.PipelineError, match=r"rate/rate\.json is corrupt; delete it"):
        pipeline.publish(mine, published, "toy")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("main/d/late/sam.json", '{"schema": ', r"sam\.json is corrupt; delete it and make it again"),
        ("main/d/late/sam.json", "[1]", r"sam\.json is corrupt; delete it and make it again"),
        ("main/d/late/sam.json", '{"schema": 1}', r"sam\.json: record\.state is missing or of a wrong type"),
        ("main/d/late/sam.ipynb", "{}", r"sam\.ipynb is corrupt; delete it and make it again"),
    ],
)
def test_nothing_is_published_beside_what_is_damaged(tmp_path, name, text, message):
    mine, published = tmp_path / "local", tmp_path / "results"
    write(mine / "toy" / "main/d/early/joint.json", cell_record("controlled", "early", "joint"))
    (mine / "toy" / name).parent.mkdir(parents=True)
    (mine / "toy" / name).write_text(text)
    with pytest.raises((pipeline.PipelineError, records.RecordError), match=message):
        pipeline.publish(mine, published, "toy")
    assert not published.exists()


def test_publishing_draws_one_picture_of_all_published_profiles(tmp_path, monkeypatch, capsys):
    fabricate(tmp_path / "results" / "compact", datasets=("av_mnist",))
    fabricate(tmp_path / "results" / "local" / "embedded", datasets=("controlled",))
    drawn = []
    monkeypatch.setattr(
        figures, "rank_points", lambda study: drawn.append(study) or SimpleNamespace(svg="<svg>")
    )
    monkeypatch.chdir(tmp_path)
    assert cli.main(["publish"]) == 0
    assert drawn[0].profiles == ["embedded", "compact"]
    assert (tmp_path / "results" / "overview.svg").read_text() == "<svg>"
