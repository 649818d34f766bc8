"""The probes of sharpness and of the dominant modality: against the other ways to the same numbers."""

import json

import pytest
import torch
import torch.nn.functional as F
from test_probes import VECTORS, dataset, network

from msam.coalitions import VALUES, batch_shares, coalition_logits
from msam.methods._modality import squared_gradients
from msam.probes import flatness, identification, sharpness
from msam.shapley import normalized, shapley_weights

THREE = dataset({"a": "vector", "b": "vector", "c": "vector"}, size=150)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_sharpness_is_that_part_of_flatness(fusion):
    model = network(VECTORS, fusion)
    found, whole = sharpness.measure(model, VECTORS, 3), flatness.measure(model, VECTORS, 3)["whole"]
    assert found["sharpness"] == whole["sharpness"]
    assert found["adaptive_sharpness"] == whole["adaptive_sharpness"]
    assert found["hessian_top"] == pytest.approx(whole["hessian_top"], rel=1e-2)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_the_whole_split_is_one_batch_of_the_shares_that_steer_training(fusion):
    model = network(THREE, fusion).eval()
    found = identification.measure(model, THREE, 0)
    test = THREE.splits["test"]
    with torch.no_grad():
        logits = coalition_logits(model, test.inputs, model.encode(test.inputs))
    for value in VALUES:
        dominant = batch_shares(logits, test.labels, model.modalities, value).argmax()
        assert found["whole"][value] == model.modalities[dominant]
    F.cross_entropy(model(test.inputs), test.labels).backward()
    shares = normalized(squared_gradients(model))
    assert found["whole"]["gradient"] == model.modalities[shares.argmax()]


def test_fractions_agreement_and_samples_are_what_their_names_say():
    found = identification.measure(network(THREE, "late"), THREE, 0)
    assert json.loads(json.dumps(found)) == found
    assert list(found["dominant"]["loss"]) == ["8", "16", "32", "64", "128"]
    for sizes in found["dominant"].values():
        for fractions in sizes.values():
            assert sum(fractions.values()) == pytest.approx(1)
    for a, others in found["agreement"].items():
        assert others[a] == 1
        assert found["distance"][a][a] == 0
        for b, same in others.items():
            assert same == found["agreement"][b][a]
            assert 0 <= found["distance"][a][b] == pytest.approx(found["distance"][b][a])
    assert all(0 <= part <= 1 for part in found["sampled"].values())


def test_with_all_orders_the_sampled_values_are_the_exact_ones(monkeypatch):
    monkeypatch.setattr(identification, "sampled_weights", lambda names, _: shapley_weights(names))
    found = identification.measure(network(THREE, "early"), THREE, 0)
    assert set(found["sampled"].values()) == {1.0}
