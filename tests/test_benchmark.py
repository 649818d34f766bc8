"""The benchmark runs, counts what the methods do, and its naive twin computes the same shares."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from msam.coalitions import batch_shares, coalition_logits

FILE = Path(__file__).parents[1] / "benchmarks" / "step_cost.py"


@pytest.fixture(scope="module")
def step_cost():
    spec = importlib.util.spec_from_file_location("step_cost", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    """`main` sets the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_writes_a_row_for_every_method_and_network(step_cost, one_thread, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(step_cost, "MODALITIES", (2, 3))
    monkeypatch.setattr(step_cost, "BATCH", 4)
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


def test_no_repeat_is_refused(step_cost, capsys):
    with pytest.raises(SystemExit):
        step_cost.main(["--repeats", "0"])
    assert "repeats must be at least 1, not 0" in capsys.readouterr().err
