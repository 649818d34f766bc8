"""Coalitions on shared features against the naive way: mute the input and run everything."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from msam import coalitions as module
from msam.coalitions import VALUES, batch_shares, coalition_logits, contributions
from msam.models import build_classifier
from msam.shapley import coalitions

SHAPES = {"image": (1, 12, 12), "sensor": (2, 20), "text": (5, 7), "meta": (6,)}
KINDS = {"image": "image", "sensor": "sensor", "text": "sequence", "meta": "vector"}


def setting(names, fusion):
    torch.manual_seed(0)
    model = build_classifier(
        {m: KINDS[m] for m in names}, {m: SHAPES[m] for m in names}, 4, fusion, 16
    ).double()
    inputs = {m: torch.randn(9, *SHAPES[m], dtype=torch.float64) for m in names}
    model(inputs)  # moves the running statistics away from their start
    return model, inputs


def test_weights_first_used_in_inference_mode_can_be_used_in_training():
    names = ("never", "used", "before")
    logits = torch.randn(7, 5, 4, requires_grad=True)
    with torch.inference_mode():
        module.responses(logits.detach(), names)
    module.responses(logits, names).sum().backward()
    assert torch.allclose(logits.grad.sum(0), torch.ones(5, 4))


def naive(model, inputs, present):
    """Present encoders as the model stands, muted ones and the fusion in evaluation mode, on full batches."""
    model = copy.deepcopy(model)
    features = {}
    for m, encoder in model.encoders.items():
        if m in present:
            features[m] = encoder(inputs[m])
        else:
            features[m] = encoder.eval()(torch.zeros_like(inputs[m]))
    return model.fusion.eval()(features)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("names", [["image", "sensor"], ["image", "sensor", "meta"], list(SHAPES)])
def test_shared_features_equal_naive_muted_forwards(names, fusion, training):
    model, inputs = setting(names, fusion)
    model.train(training)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
        elif isinstance(layer, torch.nn.MultiheadAttention):
            layer.dropout = 0.0
    before = copy.deepcopy(model.state_dict())
    fast = coalition_logits(model, inputs, copy.deepcopy(model).encode(inputs))
    for present, logits in zip(coalitions(tuple(names)), fast, strict=True):
        torch.testing.assert_close(logits, naive(model, inputs, present))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} moved"
    assert model.training == training


def test_given_full_logits_are_kept_and_gradients_flow_through_the_rest():
    model, inputs = setting(["image", "meta"], "early")
    features = model.encode(inputs)
    full = model.fuse(features)
    logits = coalition_logits(model, inputs, features, full)
    assert torch.equal(logits[-1], full)
    logits[0].sum().backward()
    assert model.encoders["meta"][0].weight.grad is not None  # through encoder(0)


def test_evaluation_mode_gives_every_submodule_its_own_flag_back():
    model, _ = setting(["image", "meta"], "early")
    model.encoders["image"].eval()
    flags = {name: m.training for name, m in model.named_modules()}
    with module.evaluation_mode(model):
        assert not any(m.training for m in model.modules())
    assert {name: m.training for name, m in model.named_modules()} == flags


@pytest.mark.parametrize("value", VALUES)
def test_values_by_hand(value):
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
    labels = torch.tensor([0, 1])
    p = [math.exp(2) / (math.exp(2) + 2), math.exp(1) / (1 + math.exp(1) + math.exp(3))]
    expected = {
        "accuracy": 0.5,
        "probability": sum(p) / 2,
        "logit": ((2 - 2 / 3) + (1 - 4 / 3)) / 2,
        "loss": math.log(3) + (math.log(p[0]) + math.log(p[1])) / 2,
    }
    assert float(VALUES[value](logits, labels)) == pytest.approx(expected[value], rel=1e-5)


@pytest.mark.parametrize("value", ["logit", "loss"])
def test_a_uniform_prediction_is_worth_nothing_as_the_empty_coalition_is(value):
    assert float(VALUES[value](torch.full((4, 3), 7.0), torch.tensor([0, 1, 2, 0]))) == pytest.approx(
        0.0, abs=1e-6
    )


def test_a_third_of_the_batch_is_one_in_double_precision():
    logits, labels = torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 0])
    assert VALUES["accuracy"](logits, labels).item() == 1 / 3
    assert VALUES["accuracy"](logits.bfloat16(), labels).item() == pytest.approx(1 / 3, rel=1e-6)


def test_shares_find_the_modality_that_knows():
    labels = torch.arange(6) % 3
    right, blind = 5.0 * F.one_hot(labels, 3).float(), torch.zeros(6, 3)
    blind[:, 0] = 1.0
    shares = batch_shares(torch.stack([right, blind, right]), labels, ["v", "a"])
    # v alone 1, a alone 1/3, both 1: Phi_a = (1 - 1 + 1/3) / 2, Phi_v = (1 - 1/3 + 1) / 2
    assert shares.tolist() == pytest.approx([5 / 6, 1 / 6])


def test_a_coalition_that_has_no_weight_counts_nothing():
    a, both = frozenset("a"), frozenset("ab")
    weights = {"a": {frozenset(): -1.0, a: 1.0}, "b": {a: -1.0, both: 1.0}}
    assert contributions(torch.tensor([2.0, 5.0]), [a, both], weights).tolist() == [2, 3]
