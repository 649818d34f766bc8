"""The search: what is drawn, that the test split is not there, what wins, and how it goes on."""

import json
import math
from concurrent.futures import Future
from pathlib import Path

import pytest
from conftest import without_costs

from msam import search, studies

SPACE = {"trials": 5, "seed": 7, "lr": [0.01, 0.3], "rho": [0.001, 10.0]}


OWN = {"alpha": [0.1, 2.0]}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["lr", "rho", "alpha"])
def test_every_stratum_of_the_logarithm_holds_one_draw(seed, name):
    low, high = (math.log(bound) for bound in (SPACE | OWN)[name])
    drawn = sorted(draw[name] for draw in search.draws(SPACE | {"seed": seed}, OWN))
    places = [(math.log(x) - low) / (high - low) * 5 for x in drawn]
    assert all(k - 0.01 <= place <= k + 1.01 for k, place in enumerate(places))  # rounded to 3 digits


def test_draws_repeat_and_are_paired_at_random():
    assert search.draws(SPACE) == search.draws(SPACE)
    assert search.draws(SPACE) != search.draws(SPACE | {"seed": 8})
    orders = set()
    for seed in range(20):
        pairs = sorted(search.draws(SPACE | {"seed": seed}), key=lambda draw: draw["lr"])
        orders.add(tuple(sorted(range(5), key=lambda i: pairs[i]["rho"])))
    assert len(orders) > 10  # of 120 ways to pair


def test_all_methods_try_the_same_rates_and_radii():
    common = search.draws(SPACE)
    with_option = search.draws(SPACE, OWN)
    assert [{k: d[k] for k in ("lr", "rho")} for d in with_option] == common
    wider = search.draws(SPACE, {"rho": [0.01, 100.0]})
    assert [d["lr"] for d in wider] == [d["lr"] for d in common]
    assert [d["rho"] for d in wider] == pytest.approx([10 * d["rho"] for d in common], rel=1e-2)


def trial(name="sam", lr=0.1, accuracy=0.5, loss=1.0, state="done", fusion="late"):
    result = {"dataset": "d", "fusion": fusion, "name": name, "lr": lr, "rho": 0.2, "state": state}
    return (
        result
        | {"options": {}}
        | {"validation_accuracy": accuracy, "validation_loss": loss, "key": "k", "trial": 0}
    )


def test_winners():
    trials = [
        trial("best", 0.1, accuracy=0.6),
        trial("best", 0.2, accuracy=0.7, loss=9.0),
        trial("best", 0.3, accuracy=0.65),
        trial("tie", 0.1, loss=1.0),
        trial("tie", 0.2, loss=0.9),
        trial("tie", 0.3, loss=1.1),
        trial("same", 0.1),
        trial("same", 0.2),
        trial("unstable", 0.1, accuracy=None, loss=None, state="diverged"),
        trial("unstable", 0.2, accuracy=0.1, loss=5.0),
        trial("hopeless", 0.1, accuracy=None, loss=None, state="diverged"),
        trial("undefined", 0.1, accuracy=None, loss=None, state="undefined"),
        trial("best", 0.4, accuracy=0.4, fusion="early"),
    ]
    found = {(row["fusion"], row["name"]): row["lr"] for row in search.winners(trials)}
    assert found == {
        ("late", "best"): 0.2,
        ("late", "tie"): 0.2,
        ("late", "same"): 0.1,
        ("late", "unstable"): 0.2,
        ("early", "best"): 0.4,
    }
    assert all(
        set(row) == {"dataset", "fusion", "name", "lr", "rho", "options"} for row in search.winners(trials)
    )


class Here:
    """An executor that works in this process, at once."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def shutdown(self, **options):
        Here.stopped_with = options

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def seen(monkeypatch):
    """(method, fusion, lr, rho, seed, splits) of every trial that is run, in this process."""
    from msam import training

    calls = []
    train_seed = training.train_seed

    def spy(config, data, seed, *more):
        method = "+".join(filter(None, (config["method"], config["variant"])))
        where = (method, config["fusion"], config["optimizer"]["lr"], config["rho"])
        calls.append((*where, seed, tuple(data.splits)))
        return train_seed(config, data, seed, *more)

    monkeypatch.setattr(training, "train_seed", spy)
    monkeypatch.setattr(search, "ProcessPoolExecutor", Here)
    return calls


@pytest.fixture
def profile(toy, outside, tmp_path):
    """The toy profile in a folder of its own, where the winners go."""
    (tmp_path / "toy.yaml").write_text(Path(toy).read_text())
    return studies.load(str(tmp_path / "toy.yaml"))


def results(content):
    return [without_costs(row) for row in content["trials"]]


def test_a_search(profile, tmp_path, seen, capsys):
    """All of it once: draws, splits, winners; then again with nothing to do, and with two trials lost."""
    output = tmp_path / "search.json"
    search.run(profile, "tiny", 1, output)
    content = json.loads(output.read_text())
    draws = search.draws(profile["search"])

    names = ["unimodal+m1", "unimodal+m2", "joint", "agm", "msam", "outside.undefined"]
    assert {call[:2] for call in seen} == {(n, f) for n in names for f in ("late", "early")}
    for name in names:
        for fusion in ("late", "early"):
            tried = [(lr, rho) for n, f, lr, rho, *_ in seen if (n, f) == (name, fusion)]
            assert tried == [(d["lr"], d["rho"] if name == "msam" else None) for d in draws]
    assert {call[4:] for call in seen} == {(1000, ("train", "validation"))}

    assert content["budget"] == 4
    assert content["seed"] == 1000
    assert content["space"] == {
        "lr": [0.01, 0.3],
        "rho": [0.01, 0.5],
        "methods": {"agm": {"alpha": [0.5, 2.0]}},
    }
    strengths = {t["options"]["alpha"] for t in content["trials"] if t["name"] == "agm"}
    assert len(strengths) == 4
    assert all(0.5 <= alpha <= 2.0 for alpha in strengths)
    assert not any(t["options"] for t in content["trials"] if t["name"] != "agm")
    assert len(content["trials"]) == len(seen) == 12 * 4
    states = {(t["name"], t["fusion"]): t["state"] for t in content["trials"]}
    assert {where for where, state in states.items() if state != "done"} == {("undefined", "early")}

    chosen = studies.chosen(profile)
    assert len(chosen) == 11  # of twelve cells one is undefined
    for (dataset, fusion, name), values in chosen.items():
        rows = [t for t in content["trials"] if (t["fusion"], t["name"]) == (fusion, name)]
        best = max(rows, key=lambda t: (t["validation_accuracy"], -t["validation_loss"]))
        assert dataset == "controlled"
        assert values == {k: best[k] for k in ("lr", "rho", "options")}
    (strong,) = studies.cells(profile, "tiny", "controlled", "late", "agm")
    assert strong.config["options"] == chosen["controlled", "late", "agm"]["options"]
    (mixture,) = studies.cells(profile, "tiny", "controlled", "late", "mixture")
    assert mixture.config["rho"] == chosen["controlled", "late", "msam"]["rho"]

    first = output.read_text()
    seen.clear()
    search.run(profile, "tiny", 1, output)  # what was chosen does not change what is searched
    assert seen == []
    assert output.read_text() == first

    lost = [t for t in content["trials"] if t["name"] == "joint"][1:3]
    kept = [t for t in content["trials"] if t not in lost]
    output.write_text(json.dumps({**content, "trials": kept}))
    search.run(profile, "tiny", 1, output)
    assert [(call[0], call[2]) for call in seen] == [("joint", t["lr"]) for t in lost]
    assert results(json.loads(output.read_text())) == results(content)
    assert capsys.readouterr().out.count("controlled/late/joint lr") == 4 + 2


def test_trials_in_processes_of_their_own_are_the_same(profile, tmp_path, seen, monkeypatch):
    """One cell, once through a spawned process and once here."""
    small = profile["studies"]["tiny"] | {"methods": {"msam": {}}, "fusions": ["late"]}
    profile["studies"] = {"tiny": small}
    profile["search"] = profile["search"] | {"trials": 1}
    search.run(profile, "tiny", 1, tmp_path / "here.json")
    monkeypatch.undo()
    search.run(profile, "tiny", 1, tmp_path / "there.json")
    here, there = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "there"))
    assert results(here) == results(there)
    assert len(results(there)) == 1


def test_at_a_fixed_learning_rate_a_method_without_options_is_tried_once(profile, tmp_path, seen):
    methods = {"joint": {"rho": False}, "msam": {}}
    profile["studies"] = {"tiny": profile["studies"]["tiny"] | {"methods": methods, "fusions": ["late"]}}
    profile["search"] = profile["search"] | {"lr": [0.1, 0.1]}
    search.run(profile, "tiny", 1, tmp_path / "search.json")
    assert {call[2] for call in seen} == {0.1}
    assert [call[0] for call in seen] == ["joint"] + 4 * ["msam"]
    assert len({call[3] for call in seen if call[0] == "msam"}) == 4


def test_an_interrupted_search_keeps_its_trials(profile, tmp_path, seen, monkeypatch):
    methods = {"joint": {"rho": False}}
    profile["studies"] = {"tiny": profile["studies"]["tiny"] | {"methods": methods, "fusions": ["late"]}}

    def two_then_interrupt(futures):
        yield from futures[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "as_completed", two_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            search.run(profile, "tiny", 1, tmp_path / "search.json")
    kept = json.loads((tmp_path / "search.json").read_text())["trials"]
    assert len(kept) == 2
    assert not studies.chosen(profile)
    seen.clear()
    search.run(profile, "tiny", 1, tmp_path / "search.json")
    assert [call[2] for call in seen] == [draw["lr"] for draw in search.draws(profile["search"])[2:]]


def test_a_fault_in_a_trial_is_not_hidden(profile, tmp_path, seen):
    profile["studies"] = {"tiny": profile["studies"]["tiny"] | {"methods": {"outside.failing": {}}}}
    with pytest.raises(RuntimeError, match="the wheel came off"):
        search.run(profile, "tiny", 1, tmp_path / "search.json")
    assert Here.stopped_with == {"cancel_futures": True}
    assert not list(tmp_path.glob("*.json"))


def test_a_profile_without_a_search_is_refused(tmp_path):
    with pytest.raises(ValueError, match="profile 'smoke' has no search"):
        search.run(studies.load("smoke"), "main", 1, tmp_path / "search.json")
