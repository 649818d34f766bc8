"""The training loop: what it measures, what it selects, and that it repeats itself."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from test_methods import CASES

from msam._startup import plain_sgd
from msam.datasets import Dataset, Split, load
from msam.models import build_classifier
from msam.training import (
    batches,
    evaluate,
    select,
    squared_gradient_norm,
    train_seed,
    with_label_noise,
)

CONFIG = {
    "method": "msam",
    "options": {},
    "fusion": "early",
    "width": 8,
    "epochs": 3,
    "batch_size": 16,
    "rho": 0.05,
    "optimizer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "milestones": [0.7], "gamma": 0.1},
}


def split(size, seed):
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    clear = 3 * F.one_hot(labels, 5).float()
    return Split({"a": clear + torch.randn(size, 5, generator=source), "b": torch.randn(size, 5)}, labels)


@pytest.fixture
def dataset():
    splits = {"train": split(70, 0), "validation": split(30, 1), "test": split(30, 2)}
    return Dataset("toy", ("x", "y", "z"), {"a": "vector", "b": "vector"}, splits, "0")


def without_timings(result):
    return {k: v for k, v in result.items() if k not in ("seconds", "peak_memory_mb")}


@pytest.mark.parametrize("method", ["joint", "sam", "msam"])
def test_a_seed_repeats_itself_bit_for_bit_and_another_seed_does_not(dataset, method):
    config = CONFIG | {"method": method}
    first = without_timings(train_seed(config, dataset, 3))
    torch.rand(7)
    assert without_timings(train_seed(config, dataset, 3)) == first
    assert without_timings(train_seed(config, dataset, 4))["epochs"] != first["epochs"]


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(dataset, case, tmp_path):
    """After every epoch, in the middle of a stage or of a warm-up of the method, too."""
    method, options = CASES[case]
    options = options | ({"modality": "b"} if method == "unimodal" else {})
    options = options | ({"stage": 2} if method == "reconboost" else {})
    options = options | (
        {"dominance": options["dominance"].replace("m2", "b")} if "dominance" in options else {}
    )
    config = CONFIG | {"method": method, "options": options, "epochs": 5}
    expected = train_seed(config, dataset, 3)
    checkpoint = tmp_path / "run.pt"

    def stop(epoch, _entry):
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train_seed(config, dataset, 3, stop, checkpoint)
        torch.rand(5)
    found = train_seed(config, dataset, 3, checkpoint=checkpoint)
    assert without_timings(found) == without_timings(expected)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1000], lambda content: b"", lambda content: b"no"]
)
def test_a_damaged_checkpoint_is_as_none(dataset, tmp_path, damage):
    checkpoint, config = tmp_path / "run.pt", CONFIG | {"method": "sam"}
    expected = train_seed(config, dataset, 3, checkpoint=checkpoint)
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert without_timings(train_seed(config, dataset, 3, checkpoint=checkpoint)) == without_timings(expected)


@pytest.fixture(scope="module", params=[2, 3, 4])
def controlled(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSAM_DATA", str(tmp_path_factory.mktemp("controlled")))
        sizes = {"train": 384, "validation": 96, "test": 300}
        return load("controlled", {"modalities": request.param, "classes": 3, "dimension": 6, **sizes})


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("case", CASES)
def test_every_method_beats_chance_on_controlled_data(controlled, case, fusion):
    method, options = CASES[case]
    config = CONFIG | {"method": method, "options": options, "fusion": fusion, "epochs": 4, "width": 16}
    result = train_seed(config, controlled, 0)
    accuracy = result["final"]["last"]["test"]["accuracy"]
    best = max(accuracy.values()) if case in ("unimodal", "msam+response") else accuracy["fused"]
    assert best > 1 / 3 + 4 * (2 / 9 / 300) ** 0.5  # four standard deviations of guessing


def test_methods_see_the_same_batches_and_the_same_start(dataset):
    """At radius 0 SAM is joint training, so equal numbers show equal data, initialization and dropout."""
    joint = train_seed(CONFIG | {"method": "joint"}, dataset, 0)
    sam = train_seed(CONFIG | {"method": "sam", "rho": 0.0}, dataset, 0)
    assert joint["epochs"] == sam["epochs"]
    assert sam["gradient_evaluations"] == 2 * joint["gradient_evaluations"] == 2 * joint["steps"]


def test_batches_cover_the_split_once_without_the_incomplete_last_one():
    data = Split({"a": torch.arange(70.0)[:, None]}, torch.arange(70))
    order = torch.Generator().manual_seed(0)
    parts = list(batches(data, 16, order))
    seen = torch.cat([p.labels for p in parts])
    assert [len(p) for p in parts] == [16] * 4
    assert len(seen.unique()) == 64
    assert all(torch.equal(p.inputs["a"][:, 0], p.labels.float()) for p in parts)
    assert [len(p) for p in batches(data, 100, order)] == [70]


def test_the_order_of_batches_depends_on_its_own_generator_only():
    data = Split({"a": torch.arange(70.0)[:, None]}, torch.arange(70))
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        orders.append(torch.cat([p.labels for p in batches(data, 16, torch.Generator().manual_seed(0))]))
    assert torch.equal(*orders)


def test_evaluation_by_hand(dataset):
    torch.manual_seed(0)
    model = build_classifier(dict(dataset.kinds), {"a": (5,), "b": (5,)}, 3, "late", 8)
    model(dataset.splits["train"].inputs)
    twin, data = copy.deepcopy(model).eval(), dataset.splits["test"]
    found = evaluate(model, data)
    full = twin(data.inputs).detach()
    alone = twin({"a": data.inputs["a"], "b": torch.zeros_like(data.inputs["b"])})
    other = twin({"a": torch.zeros_like(data.inputs["a"]), "b": data.inputs["b"]})
    response = 0.5 * (full - other + alone)
    head = twin.fusion.heads["a"](twin.encoders["a"](data.inputs["a"]))

    def right(logits):
        return float((logits.argmax(1) == data.labels).double().mean())

    assert found["loss"] == pytest.approx(float(F.cross_entropy(full, data.labels)), rel=1e-5)
    assert found["accuracy"]["fused"] == pytest.approx(right(full))
    assert found["accuracy"]["a"] == pytest.approx(right(response))
    assert found["head_accuracy"]["a"] == pytest.approx(right(head))
    value = 0.5 * (right(full) - right(other) + right(alone))
    assert found["shares"]["a"] == pytest.approx(value / right(full), rel=1e-5)
    assert model.training


@pytest.mark.parametrize("segments", [1, 3])
def test_the_gradient_norm_of_a_split_is_that_of_one_pass_over_all_of_it(dataset, monkeypatch, segments):
    """Against `backward` in one piece; with three labels an example, as the segments of a video have them."""
    monkeypatch.setattr("msam.training.EVALUATION_BATCH", 32)  # 70 examples: the last chunk is smaller
    torch.manual_seed(0)
    model = build_classifier(dict(dataset.kinds), {"a": (5,), "b": (5,)}, 3 * segments, "late", 8)
    model.fusion.register_forward_hook(lambda _module, _inputs, z: z.reshape(-1, 3))
    data = dataset.splits["train"]
    data = Split(data.inputs, data.labels.repeat_interleave(segments).reshape(len(data), -1))
    model(data.inputs)
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = squared_gradient_norm(model, data)
    assert model.training
    assert all(torch.equal(state[n], v) for n, v in model.state_dict().items())
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    twin = copy.deepcopy(model).double().eval().requires_grad_(True)
    twin.zero_grad()
    F.cross_entropy(twin({m: x.double() for m, x in data.inputs.items()}), data.labels.flatten()).backward()
    expected = sum(float((p.grad**2).sum()) for p in twin.parameters() if p.grad is not None)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["joint", "msam", "cggm"])
def test_recording_the_gradient_norm_changes_no_other_number(dataset, method):
    plain = train_seed(CONFIG | {"method": method}, dataset, 0)["epochs"]
    more = train_seed(CONFIG | {"method": method, "gradient_norm": True}, dataset, 0)["epochs"]
    assert all(entry.pop("gradient_norm") > 0 for entry in more)
    assert more == plain


def test_schedule_shares_and_dominance_are_recorded(dataset):
    result = train_seed(CONFIG, dataset, 0)
    rates = [entry["lr"] for entry in result["epochs"]]
    assert rates == pytest.approx([0.05, 0.05, 0.005])
    last = result["epochs"][-1]
    assert sum(last["dominance"].values()) == 4
    assert 0 <= last["switches"] <= 3
    assert sum(last["shares"].values()) == pytest.approx(1.0)
    assert last["shares"]["a"] > last["shares"]["b"]
    assert 0.5 <= last["dominant_share"] <= 1.0


def test_a_diverging_seed_is_stopped_and_says_so(dataset):
    config = CONFIG | {"optimizer": CONFIG["optimizer"] | {"lr": 1e30}, "method": "joint"}
    result = train_seed(config, dataset, 0)
    assert result["state"] == "diverged"
    assert "not finite in epoch" in result["reason"]
    assert result["final"] == {}


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_seed_that_blows_up_in_the_last_step_of_an_epoch_has_diverged_in_it(dataset, epochs):
    """Its only step has a finite loss; the weights after it are so large that no split has one."""
    optimizer = CONFIG["optimizer"] | {"lr": 1e30}
    config = CONFIG | {"method": "joint", "epochs": epochs, "batch_size": 70, "optimizer": optimizer}
    result = train_seed(config, dataset, 0)
    assert result["state"] == "diverged"
    assert result["reason"] == "the loss of the split train is not finite in epoch 1"
    assert (result["steps"], result["epochs"], result["final"]) == (1, [], {})


def test_selection_rules():
    def entry(epoch, validation, test):
        values = {"train": 0.0, "validation": validation, "test": test}
        return {"epoch": epoch, "lr": 0.1} | {s: {"accuracy": {"fused": a}} for s, a in values.items()}

    chosen = select([entry(1, 0.6, 0.5), entry(2, 0.7, 0.6), entry(3, 0.7, 0.9), entry(4, 0.5, 0.4)])
    assert {rule: e["epoch"] for rule, e in chosen.items()} == {
        "last": 4,
        "best_validation": 2,
        "best_test": 3,
    }


def test_training_never_touches_the_test_split(dataset):
    """Other test data must not change anything but the test numbers."""
    other = Dataset("toy", dataset.classes, dataset.kinds, dataset.splits | {"test": split(30, 9)}, "0")
    first, second = train_seed(CONFIG, dataset, 0), train_seed(CONFIG, other, 0)
    for a, b in zip(first["epochs"], second["epochs"], strict=True):
        assert a.pop("test") != b.pop("test")
        assert a == b


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dominance", ["shapley", "fixed:a", "random", "epoch", "ema"])
def test_training_on_a_gpu_comes_close_to_the_cpu(dataset, dominance):
    config = CONFIG | {"options": {"dominance": dominance}}
    gpu = train_seed(config, dataset.to(torch.device("cuda")), 0)
    assert gpu["state"] == "done"
    assert gpu["epochs"][0]["step_loss"] == pytest.approx(
        train_seed(config, dataset, 0)["epochs"][0]["step_loss"], rel=0.3
    )


def test_the_optimizer_that_starts_fast_is_sgd_and_does_not_import_the_compiler():
    code = """if True:
        import sys, torch
        from msam._startup import plain_sgd
        from msam.optim import ModalityAwareSAM
        model = torch.nn.Linear(3, 2)
        base = plain_sgd()(model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.MultiStepLR(base, [1], 0.1)
        optimizer = ModalityAwareSAM(None, base, rho=0.1)
        def closure():
            optimizer.zero_grad()
            loss = model(torch.ones(1, 3)).square().sum()
            loss.backward()
            return loss
        optimizer.step(closure, share=0.5)
        schedule.step()
        sys.exit("torch._dynamo" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    models = [torch.nn.Linear(3, 2, dtype=torch.float64) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    optimizers = [
        kind(m.parameters(), **settings)
        for kind, m in zip((torch.optim.SGD, plain_sgd()), models, strict=True)
    ]
    for _ in range(5):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.ones(1, 3, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
    assert torch.equal(models[0].weight, models[1].weight)


def test_label_noise_moves_the_stated_fraction_to_other_classes_in_training_alone(dataset):
    split = Split({"m1": torch.zeros(20_000, 1)}, torch.arange(20_000) % 5)
    noisy = with_label_noise(split, 0.3, 5, seed=1)
    wrong = noisy.labels != split.labels
    assert float(wrong.float().mean()) == pytest.approx(0.3, abs=0.01)
    moved = (noisy.labels - split.labels)[wrong] % 5
    assert (moved.bincount(minlength=5)[1:] > 1300).all()
    assert torch.equal(noisy.labels, with_label_noise(split, 0.3, 5, seed=1).labels)
    assert torch.equal(with_label_noise(split, 0.0, 5, seed=1).labels, split.labels)

    clean = train_seed(CONFIG | {"method": "joint"}, dataset, 0)
    assert (
        train_seed(CONFIG | {"method": "joint", "label_noise": 0.0}, dataset, 0)["epochs"] == clean["epochs"]
    )
    noisy_run = train_seed(CONFIG | {"method": "joint", "label_noise": 0.9}, dataset, 0)
    assert noisy_run["epochs"] != clean["epochs"]
