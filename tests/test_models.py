"""Shapes, structure and names of the models."""

import pytest
import torch

from msam.models import ENCODERS, EarlyFusion, LateFusion, Maxout, build_classifier

SHAPES = {
    "image": (1, 28, 28),
    "spectrogram": (1, 28, 28),
    "sensor": (3, 100),
    "vector": (16,),
    "sequence": (9, 5),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_gives_one_feature_vector(kind):
    assert ENCODERS[kind](SHAPES[kind], 32)(torch.randn(4, *SHAPES[kind])).shape == (4, 32)


def test_the_sequence_encoder_knows_the_order():
    encoder = ENCODERS["sequence"]((9, 5), 32).eval()
    x = torch.randn(2, 9, 5)
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-4)


def test_late_fusion_is_the_sum_of_its_heads_and_early_fusion_is_not_additive():
    features = {"a": torch.randn(8, 6), "b": torch.randn(8, 6)}
    other = {"a": torch.randn(8, 6), "b": torch.randn(8, 6)}
    mixed = [{"a": features["a"], "b": other["b"]}, {"a": other["a"], "b": features["b"]}]
    for cls, additive in ((LateFusion, True), (EarlyFusion, False)):
        fusion = cls({"a": 6, "b": 6}, 3).eval()
        difference = fusion(features) + fusion(other) - fusion(mixed[0]) - fusion(mixed[1])
        assert torch.allclose(difference, torch.zeros(()), atol=1e-5) == additive
    late = LateFusion({"a": 6, "b": 6}, 3)
    torch.testing.assert_close(late(features), sum(late.head_logits(features).values()))


def test_maxout_is_the_larger_of_two_linear_units():
    layer = Maxout(4, 3)
    x = torch.randn(5, 4)
    w, b = layer.linear.weight.view(3, 2, 4), layer.linear.bias.view(3, 2)
    pieces = torch.einsum("ukd,nd->nuk", w, x) + b
    torch.testing.assert_close(layer(x), torch.maximum(pieces[..., 0], pieces[..., 1]))


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_param_groups_hold_every_parameter_once_under_its_modality(fusion):
    model = build_classifier({"a": "vector", "b": "vector"}, {"a": (4,), "b": (5,)}, 3, fusion, 8)
    groups = model.param_groups()
    assert [g["modality"] for g in groups] == ["a", "b", None]
    assert {p for g in groups for p in g["params"]} == set(model.parameters())
    assert set(groups[1]["params"]) == set(model.encoders["b"].parameters())


@pytest.mark.parametrize(
    ("fusion", "kind", "message"),
    [
        ("middle", "vector", "unknown fusion 'middle'; choose from late, early"),
        ("late", "smell", "unknown kind"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(fusion, kind, message):
    with pytest.raises(ValueError, match=message):
        build_classifier({"a": kind}, {"a": (4,)}, 3, fusion, 8)


@pytest.mark.parametrize("name", ["clear", "items", "training", "left.right"])
def test_names_that_pytorch_needs_are_refused(name):
    with pytest.raises(ValueError, match=f"a modality cannot be called '{name}'"):
        build_classifier({name: "vector", "b": "vector"}, {name: (4,), "b": (4,)}, 3, "late", 8)
