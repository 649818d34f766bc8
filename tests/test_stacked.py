"""Stacked seeds get the numbers that each of them gets alone."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import CONFIG, without_timings
from torch import nn

from msam import cells, stacked, studies, training
from msam.datasets import Dataset, Split
from msam.stacked import refusal, train_seeds, worthwhile
from msam.training import batches, splits_of, start, train_seed

METHODS = ("joint", "sam", "msam", "mixture")
KINDS = {"a": ("image", (1, 8, 8)), "b": ("vector", (5,)), "c": ("sensor", (2, 16))}
LATE = CONFIG | {"fusion": "late", "epochs": 2, "label_noise": 0.2, "gradient_norm": True}
LATE["optimizer"] = CONFIG["optimizer"] | {"milestones": [0.5]}

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def toy(modalities):
    """70 examples of three classes to train on, in the default type."""
    source = torch.Generator().manual_seed(0)
    kinds = dict(list(KINDS.items())[:modalities])

    def split(size):
        labels = torch.arange(size) % 3
        shown = {m: labels.view(-1, *[1] * len(shape)) for m, (_, shape) in kinds.items()}
        noise = {m: torch.randn(size, *shape, generator=source) for m, (_, shape) in kinds.items()}
        return Split({m: noise[m] + shown[m] for m in kinds}, labels)

    splits = {"train": split(70), "validation": split(30), "test": split(30)}
    return Dataset("toy", ("x", "y", "z"), {m: kind for m, (kind, _) in kinds.items()}, splits, "0")


@pytest.fixture
def no_dropout(monkeypatch):
    """Networks without dropout, so that there is an early fusion to stack."""
    build = training.build_classifier

    def without(*arguments):
        model = build(*arguments)
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        return model

    monkeypatch.setattr(training, "build_classifier", without)


@pytest.fixture
def states(monkeypatch):
    """Weights and buffers after training, in the order of the seeds as they end."""
    kept, outcome = [], training.outcome

    def keep(run, *arguments):
        kept.append(dict(run.model.state_dict()))
        return outcome(run, *arguments)

    monkeypatch.setattr(training, "outcome", keep)
    return kept


def close(found, expected, tolerance, where=""):
    """Assert that two records have the same entries in the same order, and numbers up to a tolerance.

    Which of two equal shares of three modalities is the larger is a matter of rounding, so how often each
    dominated is then compared in its sum.
    """
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        if len(expected.get("dominance", ())) > 2:
            found, expected = without_ties(found), without_ties(expected)
        for key in expected:
            close(found[key], expected[key], tolerance, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, pair in enumerate(zip(found, expected, strict=True)):
            close(*pair, tolerance, f"{where}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert found == expected, where


def without_ties(epoch):
    """An epoch's entry with the sum of its dominance and without its switches."""
    modalities = list(epoch["dominance"])
    return epoch | {"dominance": [modalities, sum(epoch["dominance"].values())], "switches": 0}


def configs_of(method, fusion="late", seeds=(3, 1)):
    """A configuration a seed, shares of the mixture of its own."""
    config = LATE | {"method": method, "fusion": fusion}
    shares = {seed: {"share": 0.3 + 0.1 * seed} if method == "mixture" else {} for seed in seeds}
    return {seed: config | {"options": shares[seed]} for seed in seeds}


@pytest.mark.usefixtures("no_dropout")
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("method", METHODS)
def test_stacked_seeds_are_equal_to_each_alone(method, fusion, modalities, dtype, states):
    data, configs = toy(modalities), configs_of(method, fusion)
    seen = []
    found = train_seeds(configs, data, lambda seed, epoch, entry: seen.append((seed, epoch, entry)))
    expected = [train_seed(config, data, seed) for seed, config in configs.items()]
    tolerance = TOLERANCE[dtype]
    close([*map(without_timings, found)], [*map(without_timings, expected)], tolerance)
    assert [(s, e) for s, e, _ in seen] == [(3, 1), (1, 1), (3, 2), (1, 2)]
    assert [entry for s, _, entry in seen if s == 1] == found[1]["epochs"]
    assert len(states) == 4
    assert any("running_mean" in name for name in states[0])
    for one, other in zip(states[:2], states[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", [float("inf"), 1e25])
@pytest.mark.parametrize("method", METHODS)
def test_a_seed_that_diverges_leaves_the_others_alone(method, scale, monkeypatch):
    """inf: the loss of seed 1 is not finite; 1e25: the norm of its gradient is not."""

    def exploding(config, dataset, seed):
        run = start(config, dataset, seed)
        if seed == 1:
            with torch.no_grad():
                for p in run.model.fusion.parameters():
                    p.mul_(scale)
        return run

    monkeypatch.setattr(training, "start", exploding)
    data, configs = toy(2), configs_of(method, seeds=(0, 1, 2))
    found = train_seeds(configs, data)
    expected = [train_seed(config, data, seed) for seed, config in configs.items()]
    assert [r["state"] for r in found] == ["done", "diverged", "done"]
    for k in range(3):
        close(without_timings(found[k]), without_timings(expected[k]), 1e-4)


@pytest.mark.parametrize("size", [16, 100])
def test_a_seed_sees_the_batches_that_the_loop_gives_it(size):
    data, seeds = toy(2), (5, 0)
    trains = [splits_of(LATE, data, seed)["train"] for seed in seeds]
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(2):  # epochs
        states = [order.get_state() for order in orders]
        together = list(stacked._batches(trains, size, orders))
        for k, (train, state) in enumerate(zip(trains, states, strict=True)):
            alone = list(batches(train, size, torch.Generator().set_state(state)))
            assert len(alone) == len(together) == max(1, 70 // size)
            for one, other in zip(alone, together, strict=True):
                assert torch.equal(one.labels, other.labels[k])
                assert all(torch.equal(x, other.inputs[m][k]) for m, x in one.inputs.items())


REFUSED = {
    "agm": ({"method": "agm"}, "method 'agm'"),
    "asam": ({"method": "asam"}, "method 'asam'"),
    "response": ({"options": {"reading": "response"}}, "only the default options"),
    "random": ({"options": {"dominance": "random"}}, "only the default options"),
    "probability": ({"options": {"value": "probability"}}, "only the default options"),
    "softmax": ({"options": {"normalization": "softmax"}}, "only the default options"),
    "sampled": ({"options": {"permutations": 2}}, "only the default options"),
    "psp": ({"fusion": "psp"}, "fusion 'psp'"),
    "early": ({"fusion": "early"}, "dropout"),
    "paper": ({"size": "paper"}, "size 'paper'"),
    "bf16": ({"fast": ["stacked", "bf16"]}, "'bf16'"),
    "nesterov": ({"optimizer": LATE["optimizer"] | {"nesterov": True}}, "optimizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_stacked_form_is_refused(case):
    changes, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        train_seeds({0: LATE | changes}, toy(2))


def test_a_transformer_is_refused_for_its_dropout():
    data = toy(2)
    splits = {n: replace(s, inputs=s.inputs | {"b": s.inputs["a"][:, 0]}) for n, s in data.splits.items()}
    data = replace(data, kinds={"a": "image", "b": "sequence"}, splits=splits)
    assert "dropout" in refusal(LATE, data)


def test_seeds_of_different_cells_are_refused():
    with pytest.raises(ValueError, match="share only"):
        train_seeds({0: LATE, 1: LATE | {"rho": 0.1}}, toy(2))


@pytest.mark.parametrize(
    ("changes", "seeds", "expected"),
    [
        ({"fast": ["stacked"]}, 5, True),
        ({"fast": ["stacked"]}, 4, False),
        ({}, 5, False),
        ({"fast": ["stacked"], "fusion": "early"}, 5, False),
    ],
)
def test_it_is_worthwhile_where_the_study_asks_and_there_are_enough_seeds(changes, seeds, expected):
    assert worthwhile(LATE | changes, toy(2), seeds) is expected


def test_a_study_that_asks_for_it_trains_one_seed_alone_as_before():
    data = toy(2)
    found, expected = (train_seed(LATE | more, data, 0) for more in ({"fast": ["stacked"]}, {}))
    assert without_timings(found) == without_timings(expected)


def test_a_cell_whose_study_asks_for_it_has_the_record_of_one_that_does_not(
    toy, toy_data, tmp_path, monkeypatch
):
    """M-SAM's run, and the mixture that takes its share seed by seed."""
    monkeypatch.setenv("MSAM_DATA", str(toy_data))
    pair = [studies.cells(studies.load(toy), "tiny", "controlled", "late", n)[0] for n in ("msam", "mixture")]
    for cell in pair:
        expected = cells.run(cell, range(5), results=tmp_path, device="cpu")
        asked = replace(cell, config=cell.config | {"fast": ["stacked"]})
        with monkeypatch.context() as patch:
            patch.setattr(training, "train_seed", None)
            found = cells.run(asked, range(5), results=tmp_path, device="cpu")
        assert found["state"] == expected["state"] == "done"
        close([*map(without_timings, found["seeds"])], [*map(without_timings, expected["seeds"])], 1e-4)


def test_the_benchmark_writes_a_row_for_every_cell_and_number_of_seeds(
    toy_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MSAM_DATA", str(toy_data))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    benchmark = importlib.import_module("stacked")
    for name, values in (("DATASETS", ["controlled"]), ("METHODS", ["joint"]), ("SEEDS", [1, 2])):
        monkeypatch.setattr(benchmark, name, values)
    output = tmp_path / "stacked.json"
    assert benchmark.main(["--repeats", "1", "--output", str(output), "--device", "cpu"]) == 0
    record = json.loads(output.read_text())
    assert {"device", "torch", "clock", "date", "commit"} <= set(record["environment"])
    assert [row["seeds"] for row in record["rows"]] == [1, 2]
    assert all(row["speedup"] > 0 for row in record["rows"])
    assert len(capsys.readouterr().out.splitlines()) == 4
