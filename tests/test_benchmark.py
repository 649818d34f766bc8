"""The benchmark runs, counts what the methods do, and its naive twin computes the same shares."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from msam import methods, studies
from msam.coalitions import batch_shares, coalition_logits
from msam.models import build_classifier

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_path():
    """A benchmark imports its neighbour, as it does when it is run as a program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


@pytest.fixture(scope="module")
def step_cost(on_path):
    return importlib.import_module("step_cost")


@pytest.fixture(scope="module")
def modalities(on_path):
    return importlib.import_module("modalities")


@pytest.fixture(scope="module")
def peers(on_path):
    return importlib.import_module("peers")


@pytest.fixture
def small_only(step_cost, monkeypatch):
    """The networks of the paper take a minute to copy and to step; here it is the rows that count."""
    monkeypatch.setattr(step_cost, "BATCH", 4)
    monkeypatch.setattr(step_cost, "build_classifier", lambda *arguments: build_classifier(*arguments[:5]))


@pytest.fixture
def one_thread():
    """`main` sets the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small_only", "one_thread")
def test_it_writes_a_row_for_every_method_and_network(step_cost, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(step_cost, "MODALITIES", (2, 3))
    output = tmp_path / "benchmarks" / "step_cost.json"
    assert step_cost.main(["--repeats", "1", "--output", str(output)]) == 0
    record = json.loads(output.read_text())
    about = record["environment"]
    assert {"device", "python", "torch", "clock", "date", "commit"} <= set(about)
    assert (about["threads"], about["repeats"]) == (1, 1)

    rows = {(r["net"], r["fusion"], r["modalities"], r["method"]): r for r in record["rows"]}
    fusions = ("late", "early")
    small = {("small", f, m, name) for f in fusions for m in (2, 3) for name in step_cost.METHODS}
    assert set(rows) == small | {("paper", f, 2, name) for f in fusions for name in step_cost.OPTIMIZERS}
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2
    for (*_, name), row in rows.items():
        low, high = row["ratio_to_sam_iqr"]
        assert 0 < low <= row["ratio_to_sam"] <= high
        assert row["ratio_to_joint"] > 0
        assert row["median_ms"] > 0
        assert row["wall_ms"] > 0
        if name in ("joint", "sam"):
            assert row["ratio_to_joint" if name == "joint" else "ratio_to_sam"] == 1


def test_a_gpu_that_is_not_here_is_refused(step_cost, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        step_cost.parse(["--device", "cuda"], "", 1, Path("out/step_cost.json"))
    assert "there is no CUDA device here; choose cpu or auto" in capsys.readouterr().err


def test_a_gpu_has_records_of_its_own(step_cost, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def output(*arguments):
        return step_cost.parse([*arguments], "", 1, Path("out/step_cost.json")).output

    assert output() == output("--device", "cpu") == Path("out/step_cost.json")
    assert output("--device", "cuda:1") == Path("out/cuda/step_cost.json")
    assert output("--device", "cuda", "--output", "mine.json") == Path("mine.json")


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_passes_are_those_of_the_algorithms(step_cost, fusion, count):
    batch = step_cost.batch_of({f"m{i}": step_cost.SHAPE for i in range(count)})
    made = step_cost.trainers(fusion, batch)
    seen = {name: step_cost.count_passes(method, batch) for name, method in made.items()}
    muted, coalitions = 1 / len(batch.labels), 2**count - 1
    for name in ("joint", "mses", "mslr", "reconboost", "uniform", "pmr"):
        assert seen[name] == {"forward": 1, "fuse": 1, "backward": 1}
    for name, fuse in (("mmpareto", 1), ("asam", 2), ("mixture", 2)):
        assert seen[name] == {"forward": fuse, "fuse": fuse, "backward": 2}
    assert seen["masam"] == {"forward": 2, "fuse": 2, "backward": 3}
    assert seen["agm"]["fuse"] == coalitions
    assert seen["agm"]["backward"] == pytest.approx(1 + muted, abs=1e-3)
    assert seen["sam"] == {"forward": 2, "fuse": 2, "backward": 2}
    for name in ("msam", "msam+encoder"):
        assert seen[name] == {
            "forward": pytest.approx(2 + muted, abs=1e-3),
            "fuse": 2 + coalitions - 1,
            "backward": 2,
        }
    assert seen["msam (naive)"] == {"forward": 2 + coalitions, "fuse": 2 + coalitions, "backward": 2}
    assert seen["msam+response"]["forward"] == pytest.approx(2 + 2 * muted, abs=1e-3)
    assert seen["msam+response"]["backward"] == pytest.approx(3 + 3 * muted, abs=1e-3)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_the_naive_twin_computes_the_shares_of_the_library(step_cost, fusion):
    batch = step_cost.batch_of(dict.fromkeys("abc", step_cost.SHAPE))
    naive = step_cost.trainers(fusion, batch)["msam (naive)"]
    for _ in range(20):  # so that the shares differ
        naive.step(batch)
    model = naive.model.eval()
    with torch.no_grad():
        logits = coalition_logits(model, batch.inputs, model.encode(batch.inputs))
    expected = batch_shares(logits, batch.labels, model.modalities)
    assert len(expected.unique()) > 1
    torch.testing.assert_close(naive.shares(batch), expected)


def test_lazy_steps_are_counted_over_whole_periods(step_cost, modalities):
    """Gradients by the closed form (k + 1) / k, coalitions by M-SAM's own at every k-th step."""
    batch = step_cost.batch_of(dict.fromkeys("abc", step_cost.SHAPE))
    made = step_cost.trainers("late", batch, cases=modalities.CASES)
    seen = {name: step_cost.count_passes(made[name], batch, modalities.STEPS) for name in made}
    assert (seen["joint"]["backward"], seen["sam"]["backward"]) == (1, 2)
    extra = seen["msam"]["fuse"] - 2
    assert extra == 2**3 - 2
    for k in (2, 5, 10, 20):
        assert modalities.STEPS % k == 0
        assert seen[f"lazy_msam+every_{k}"]["backward"] == pytest.approx((k + 1) / k)
        assert seen[f"lazy_msam+every_{k}"]["fuse"] == pytest.approx((k + 1 + extra) / k)
    for k in (5, 10, 20):
        assert seen[f"msam+dominance_every_{k}"]["backward"] == 2
        assert seen[f"msam+dominance_every_{k}"]["fuse"] == pytest.approx(2 + extra / k)
    assert seen["msam+dominance_ema"] == seen["msam"]
    assert seen["msam+permutations_1"]["fuse"] == 2 + 2  # M - 1 proper subsets of one order
    assert 2 + 2 < seen["msam+permutations_4"]["fuse"] <= 2 + extra


def test_the_cases_are_named_as_the_cells_of_their_studies(modalities):
    cells = studies.cells(studies.load("embedded"), "lazy") + studies.cells(
        studies.load("scaling"), "modalities_2"
    )
    assert {cell.name for cell in cells} == set(modalities.CASES)
    for cell in cells:
        made = vars(modalities.CASES[cell.name]())
        twin = vars(methods.build(cell.config["method"], cell.config["options"]))
        assert made == twin


def test_it_writes_a_row_for_every_case_and_number_of_modalities(
    step_cost, modalities, one_thread, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(modalities, "MODALITIES", (2, 3))
    monkeypatch.setattr(modalities, "STEPS", 1)
    monkeypatch.setattr(step_cost, "BATCH", 4)
    output = tmp_path / "modalities.json"
    assert modalities.main(["--repeats", "1", "--output", str(output)]) == 0
    record = json.loads(output.read_text())
    assert {"device", "clock", "commit"} <= set(record["environment"])
    rows = {(r["net"], r["fusion"], r["modalities"], r["method"]) for r in record["rows"]}
    assert rows == {("small", "late", m, name) for m in (2, 3) for name in modalities.CASES}
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2


def test_no_repeat_is_refused(step_cost, capsys):
    with pytest.raises(SystemExit):
        step_cost.main(["--repeats", "0"])
    assert "repeats must be at least 1, not 0" in capsys.readouterr().err


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_the_peers_take_the_step_of_the_library(step_cost, peers, fusion, monkeypatch):
    """Without dropout, whose masks the peers draw anew; BatchNorm statistics do not enter a training step."""
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    batch = step_cost.batch_of(dict.fromkeys("ab", step_cost.SHAPE))
    made = step_cost.trainers(fusion, batch, cases=peers.CASES)
    for method in made.values():
        for _ in range(3):
            method.step(batch)
    weights = {name: list(method.model.parameters()) for name, method in made.items()}
    for name in ("sam (pytorch-optimizer)", "sam (two calls)"):
        torch.testing.assert_close(weights[name], weights["sam"], rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(weights["joint"], weights["sam"], rtol=1e-4, atol=1e-6)


def test_m_sam_holds_at_most_one_copy_of_the_gradients_more_than_sam(step_cost, peers, monkeypatch):
    monkeypatch.setattr(step_cost, "BATCH", 2)  # so that parameters weigh more than activations
    batch = step_cost.batch_of(dict.fromkeys("ab", step_cost.SHAPE))
    made = step_cost.trainers("late", batch, "paper", peers.CASES)
    held = {name: peers.memory(method, batch) for name, method in made.items()}
    assert held["joint"] + 0.89 < held["sam"] < held["sam (two calls)"] + 0.1
    assert held["sam"] < held["msam"] < held["sam"] + 1.1


@pytest.mark.usefixtures("small_only", "one_thread")
def test_the_peers_are_measured_on_each_network(peers, tmp_path):
    output = tmp_path / "peers.json"
    assert peers.main(["--repeats", "1", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    networks = {("small", 2), ("small", 6), ("paper", 2)}
    assert {(r["net"], r["modalities"], r["fusion"], r["method"]) for r in rows} == {
        (net, m, fusion, name) for net, m in networks for fusion in ("late", "early") for name in peers.CASES
    }
    assert all(r["memory"] > 0 for r in rows)
