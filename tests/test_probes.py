"""Probes: against dense Hessians, closed forms and direct computation; and that they leave no trace."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training import CONFIG, without_timings
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from msam import probes, studies
from msam.coalitions import coalition_logits, evaluation_mode
from msam.datasets import Dataset, Split
from msam.models import MultimodalClassifier, build_classifier
from msam.models.inputs import as_input
from msam.probes import _around, _curvature, flatness, robustness
from msam.probes._network import OneEncoder
from msam.training import evaluate, train_seed

SHAPES = {
    "vector": (5,),
    "sequence": (4, 3),
    "sensor": (2, 24),
    "spectrogram": (1, 12, 12),
    "image": (3, 12, 12),
}


def dataset(kinds, size=60):
    """Random inputs whose mean depends on the label; images are bytes."""
    source = torch.Generator().manual_seed(0)

    def split():
        labels = torch.arange(size) % 3
        inputs = {}
        for m, kind in kinds.items():
            x = torch.randn(size, *SHAPES[kind], generator=source)
            x += labels.reshape(-1, *[1] * (x.dim() - 1))
            inputs[m] = (100 + 40 * x).clamp(0, 255).to(torch.uint8) if kind == "image" else x
        return Split(inputs, labels)

    splits = {name: split() for name in ("train", "validation", "test")}
    return Dataset("toy", ("x", "y", "z"), dict(kinds), splits, "0")


def network(data, fusion="early", width=4):
    torch.manual_seed(0)
    shapes = {m: x.shape[1:] for m, x in data.splits["train"].inputs.items()}
    model = build_classifier(data.kinds, shapes, 3, fusion, width)
    with torch.no_grad():
        model.train()(data.splits["train"].inputs)  # running statistics of BatchNorm
    return model


VECTORS = dataset({"a": "vector", "b": "vector"})


@pytest.fixture(params=["late", "early"])
def toy(request):
    """A model in evaluation mode and double precision, inputs and labels."""
    train = VECTORS.splits["train"]
    inputs = {m: x.double() for m, x in train.inputs.items()}
    return network(VECTORS, request.param).double().eval(), inputs, train.labels


def dense(model, named, inputs, labels):
    """Hessian of the mean cross-entropy by the named parameters: one matrix, a backward pass a row."""
    weights = list(named.values())
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), labels), weights, create_graph=True)
    entries = torch.cat([g.flatten() for g in gradients])
    rows = (torch.autograd.grad(e, weights, retain_graph=True, materialize_grads=True) for e in entries)
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def parts(model, inputs):
    """(module that the probe differentiates, its inputs, its weights, their names in the model)."""
    whole = dict(model.named_parameters())
    yield model, inputs, whole, whole
    with torch.no_grad():
        features = model.encode(inputs)
    alone = OneEncoder(model, "b")
    named = dict(model.encoders["b"].named_parameters("encoders.b"))
    yield alone, features | {"b": inputs["b"]}, dict(alone.encoder.named_parameters("encoder")), named


def test_curvature_is_that_of_the_dense_hessian_for_the_whole_and_for_a_block(toy):
    model, inputs, labels = toy
    for module, given, weights, named in parts(model, inputs):
        expected = dense(model, named, inputs, labels)
        operator = _curvature.hessian(module, list(weights.values()), given, labels)
        identity = torch.eye(len(expected), dtype=torch.float64)
        torch.testing.assert_close(operator @ identity, expected)
        source = torch.Generator().manual_seed(0)
        top = float(torch.linalg.eigvalsh(expected)[-1])
        assert _curvature.top_eigenvalue(operator, source) == pytest.approx(top, rel=2e-3)
        found, error = _curvature.trace(operator, 60, source)
        assert abs(found - float(expected.trace())) < 4 * error
        # the variance of v^T H v over random signs is twice the sum of the squares beside the diagonal
        beside = expected - expected.diag().diag()
        assert error == pytest.approx(float(2 * beside.square().sum() / 60) ** 0.5, rel=0.5)


class Quadratic:
    """w -> w^T diag(c) w / 2 as an operator with the Hessian diag(c)."""

    def __init__(self, curvatures):
        self.c = torch.tensor(curvatures, dtype=torch.float64)
        self.shape, self.device, self.dtype = (len(curvatures),) * 2, self.c.device, self.c.dtype

    def __matmul__(self, v):
        return self.c.reshape(-1, *[1] * (v.dim() - 1)) * v


def test_curvature_of_quadratics():
    source = torch.Generator().manual_seed(0)
    mixed = Quadratic([-9.0, *np.linspace(0, 3, 30)])
    assert _curvature.top_eigenvalue(mixed, source) == pytest.approx(3, rel=2e-3)
    found, error = _curvature.trace(mixed, 5, source)
    assert (found, error) == (pytest.approx(-9 + 45), pytest.approx(0, abs=1e-9))
    assert _curvature.top_eigenvalue(Quadratic([0.0] * 4), source) == 0
    assert np.isnan(_curvature.top_eigenvalue(Quadratic([1.0, float("nan")]), source))


def test_sharpness_of_a_quadratic_in_closed_form():
    c, w = torch.tensor([1.0, 4.0, 2.0]).double(), torch.tensor([3.0, -1.0, 0.5]).double()

    def value(weights):
        return (c * weights["w"] ** 2).sum() / 2

    g = c * w
    for adaptive, eps in ((False, 0.1 * g / g.norm()), (True, 0.1 * w**2 * g / (w.abs() * g).norm())):
        found = _around.sharpness(value, {"w": w.clone().requires_grad_()}, 0.1, adaptive)
        assert found == pytest.approx(float(value({"w": w + eps}) - value({"w": w})))


def test_sharpness_of_a_network_by_moving_its_weights(toy):
    model, _, labels = toy
    model.float()
    inputs = VECTORS.splits["train"].inputs
    measured = flatness.measure(model, VECTORS, 0)
    for owner, found in ((model, measured["whole"]), (model.encoders["a"], measured["blocks"]["a"])):
        for name, rho in (("sharpness", 0.05), ("adaptive_sharpness", 0.5)):
            moved = copy.deepcopy(model)
            own = list((moved.encoders["a"] if owner is not model else moved).parameters())
            before = F.cross_entropy(moved(inputs), labels)
            before.backward()
            gradients = [p.grad for p in own]
            scale = [p.detach().abs() if name != "sharpness" else torch.ones_like(p) for p in own]
            scaled = [t * g for t, g in zip(scale, gradients, strict=True)]
            norm = torch.cat([s.flatten() for s in scaled]).norm()
            with torch.no_grad():
                for p, t, s in zip(own, scale, scaled, strict=True):
                    p += rho * t * s / norm
                after = F.cross_entropy(moved(inputs), labels)
            assert found[name] == pytest.approx(float(after - before.detach()), rel=1e-3, abs=1e-6)
        assert found["parameters"] == sum(p.numel() for p in owner.parameters())


def test_directions_have_the_norms_of_the_filters_and_are_one_draw_for_all_weights():
    first, second = (dict(network(VECTORS, width=w).named_parameters()) for w in (4, 4))
    second = {name: 2 * w for name, w in second.items()}
    draw = _around.filter_direction(first, torch.Generator().manual_seed(5))
    again = _around.filter_direction(second, torch.Generator().manual_seed(5))
    assert set(draw) == {name for name, w in first.items() if w.dim() > 1}
    for name, d in draw.items():
        torch.testing.assert_close(d.norm(dim=1), first[name].norm(dim=1))
        torch.testing.assert_close(again[name], 2 * d)


def test_noise_is_as_large_as_the_filters():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]]).repeat(1, 2000)
    noise = _around.filter_noise({"w": weight, "bias": torch.ones(3)}, torch.Generator().manual_seed(0))
    assert set(noise) == {"w"}
    torch.testing.assert_close(
        noise["w"].std(1), torch.tensor([1.0, 0.0, 10.0]) * 12.5**0.5, rtol=0.05, atol=0
    )


def test_the_landscape_is_the_loss_at_moved_weights():
    model = network(VECTORS).eval()
    found = flatness.measure(model, VECTORS, 3)["landscape"]
    inputs, labels = VECTORS.splits["train"].inputs, VECTORS.splits["train"].labels
    assert found["x"] == pytest.approx(np.linspace(-1, 1, 11).tolist())
    source = torch.Generator().manual_seed(3)
    weights = dict(model.named_parameters())
    one, other = (_around.filter_direction(weights, source) for _ in range(2))
    for i, j in ((5, 5), (0, 10), (7, 2)):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                if name in one:
                    p += found["x"][i] * one[name] + found["x"][j] * other[name]
            assert found["loss"][i][j] == pytest.approx(
                float(F.cross_entropy(moved(inputs), labels)), rel=1e-4
            )


@pytest.mark.parametrize(("kind", "fusion"), [*zip(SHAPES, ["late", "early"] * 3, strict=False)])
def test_every_encoder_is_measured_and_left_as_it_was(kind, fusion):
    data = dataset({"a": kind, "b": "vector"})
    model = network(data, fusion)
    model.encoders["a"].eval()
    model.fusion.requires_grad_(False)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    learns = [p.requires_grad for p in model.parameters()]
    before, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    found = probes.measure(["flatness", "robustness"], model, data, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == learns
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert "NaN" not in json.dumps(found)
    assert probes.measure(["robustness"], model, data, 0)["robustness"] == found["robustness"]
    assert kind != "vector" or probes.measure(["flatness"], model, data, 0)["flatness"] == found["flatness"]
    flat = found["flatness"]
    for m, b in flat["blocks"].items():
        assert b["parameters"] == sum(p.numel() for p in model.encoders[m].parameters())
        assert b["hessian_top"] != 0
    assert set(flat["weight_noise"]["accuracy"]) == {"whole", "a", "b"}
    assert flat["examples"] == 60
    train = data.splits["train"]
    inputs = {m: as_input(x, crop=False).double() for m, x in train.inputs.items()}
    frozen = copy.deepcopy(model).double().eval().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):
        expected = dense(frozen, dict(frozen.encoders["a"].named_parameters()), inputs, train.labels)
    top = float(torch.linalg.eigvalsh(expected)[-1])
    assert flat["blocks"]["a"]["hessian_top"] == pytest.approx(top, rel=2e-3)
    found, error = (flat["blocks"]["a"][k] for k in ("hessian_trace", "hessian_trace_error"))
    assert abs(found - float(expected.trace())) < 5 * error


def test_noise_of_no_size_changes_nothing_and_missing_is_muted():
    data = dataset({"a": "image", "b": "vector"})
    model, test = network(data), data.splits["test"]
    found = robustness.measure(model, data, 0, levels=(0.0, 1000.0))
    plain = evaluate(model, test)
    assert found["clean"] == pytest.approx(plain["accuracy"]["fused"])
    with evaluation_mode(model), torch.no_grad():
        alone = coalition_logits(model, test.inputs, model.encode(test.inputs))  # a, b, both
    for m, other in (("a", 1), ("b", 0)):
        assert found["noise"][m]["levels"] == [0.0, 1000.0]
        zero, huge = found["noise"][m]["accuracy"]
        assert zero == found["clean"]
        assert huge != zero
        assert found["missing"][m] == pytest.approx(
            float((alone[other].argmax(1) == test.labels).float().mean())
        )


class Thresholds(nn.Module):
    """Encoder of one number; class 1 where it is positive."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), x], 1)


def test_input_noise_is_measured_in_deviations_of_the_train_split():
    """All inputs are 3 and the train split's deviation is 2: noise flips the part Phi(-3 / (2 level))."""
    few = torch.tensor([[1.0], [5.0]]).repeat(2000, 1)
    train = Split({"a": few}, torch.ones(4000, dtype=torch.int64))
    test = Split({"a": torch.full((4000, 1), 3.0)}, torch.ones(4000, dtype=torch.int64))
    data = Dataset("t", ("n", "p"), {"a": "vector"}, {"train": train, "test": test}, "")

    class Sum(nn.Module):
        def forward(self, features):
            return features["a"]

    model = MultimodalClassifier({"a": Thresholds()}, Sum())
    found = robustness.measure(model, data, 1)["noise"]["a"]
    normal = torch.distributions.Normal(0.0, 1.0)
    for level, accuracy in zip(found["levels"], found["accuracy"], strict=True):
        assert accuracy == pytest.approx(float(normal.cdf(torch.tensor(3 / (2 * level)))), abs=0.02)


def test_weight_noise_of_a_part_leaves_the_others(monkeypatch):
    model = network(VECTORS).eval()
    monkeypatch.setattr(flatness, "NOISE_LEVELS", (0.0, 50.0))
    found = flatness._weight_noise(model, VECTORS.splits["test"], 0)
    clean = evaluate(model, VECTORS.splits["test"])["accuracy"]["fused"]
    assert all(values[0] == pytest.approx(clean) for values in found["accuracy"].values())
    assert len({values[1] for values in found["accuracy"].values()}) > 1


def test_a_seed_holds_what_its_configuration_asks_for():
    plain = train_seed(CONFIG, VECTORS, 0)
    assert "probes" not in plain
    probed = train_seed(CONFIG | {"probes": ["robustness"]}, VECTORS, 0)
    assert without_timings({k: v for k, v in probed.items() if k != "probes"}) == without_timings(plain)
    assert list(probed["probes"]) == ["robustness"]
    assert probed["probes"]["robustness"]["clean"] == pytest.approx(
        plain["final"]["last"]["test"]["accuracy"]["fused"]
    )


def test_the_time_of_probes_does_not_count(monkeypatch):
    import time

    monkeypatch.setattr(probes, "measure", lambda *_: time.sleep(1.5) or {})
    assert train_seed(CONFIG | {"probes": []}, VECTORS, 0)["seconds"] < 1.5


def test_unknown_probe():
    with pytest.raises(
        ValueError, match="unknown probe 'flat'; choose from flatness, identification, robustness"
    ):
        probes.measure(["flat"], network(VECTORS), VECTORS, 0)


def test_the_code_of_a_probe_counts_where_it_runs(toy_profile_cell, monkeypatch):
    asked = []
    monkeypatch.setattr(studies, "code_fingerprint", lambda modules: asked.append(list(modules)) or "")
    for config in ({}, {"probes": ["flatness"]}):
        _ = studies.Cell(toy_profile_cell.config | config).key
    assert ["msam.probes.flatness" in modules for modules in asked] == [False, True]


@pytest.fixture
def toy_profile_cell():
    return studies.cells(studies.load("smoke"))[0]
