"""Every way to be fast against the plain path: features, coalitions, steps of SAM and M-SAM."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from msam import methods
from msam.coalitions import coalition_logits
from msam.datasets import Split
from msam.models import (
    ConvEncoder,
    EarlyFusion,
    FastEncoder,
    FunnyTransformer,
    LateFusion,
    MultimodalClassifier,
    ResNetEncoder,
    VectorEncoder,
    build_classifier,
)
from msam.models import fast as fast_module
from msam.training import batches, evaluate

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU"))]
WAYS = {("bf16",): 6e-2, ("channels_last",): 1e-4, ("bf16", "channels_last"): 6e-2}
"""Way -> tolerance, relative to the largest entry: bfloat16 has 8 bits."""

ENCODERS = {
    "image": lambda: (ConvEncoder((1, 12, 12), 8), torch.randn(6, 1, 12, 12)),
    "frames": lambda: (ConvEncoder((2, 3, 12, 12), 8), torch.randn(6, 2, 3, 12, 12)),
    "sensor": lambda: (ConvEncoder((3, 20), 8), torch.randn(6, 3, 20)),
    "vector": lambda: (VectorEncoder((5,), 8), torch.randn(6, 5)),
    "resnet": lambda: (ResNetEncoder((1, 33, 33)), torch.randn(6, 1, 33, 33)),
    "transformer": lambda: (FunnyTransformer((6, 5), 16, layers=1).eval(), torch.randn(6, 6, 5)),
}


def close(actual, expected, tolerance):
    assert actual.dtype == expected.dtype
    limit = tolerance * expected.detach().abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@pytest.mark.usefixtures("no_tf32")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ENCODERS)
def test_features_and_gradients_are_those_of_the_plain_encoder(name, way, device):
    torch.manual_seed(0)
    encoder, x = ENCODERS[name]()
    encoder, x = encoder.to(device), x.to(device)
    fast = FastEncoder(copy.deepcopy(encoder), way)
    expected, features = encoder(x), fast(x)
    close(features, expected, WAYS[way])
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (features * weights).sum().backward()
    for p, q in zip(encoder.parameters(), fast.parameters(), strict=True):
        if p.grad.abs().max() > 1e-3:  # a bias before BatchNorm has gradient 0
            assert torch.cosine_similarity(p.grad.flatten(), q.grad.flatten(), 0) > 1 - 2 * WAYS[way]


def test_bf16_is_used():
    encoder, x = ENCODERS["resnet"]()
    seen = []
    encoder.net.layer1[0].conv1.register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
    FastEncoder(encoder, ("bf16",))(x)
    assert seen == [torch.bfloat16]


def test_channels_last_is_used():
    fast = FastEncoder(ENCODERS["resnet"]()[0], ("channels_last",))
    seen = []
    fast.encoder.net.layer1[0].conv1.register_forward_hook(lambda _m, x, out: seen.extend([x[0], out]))
    fast(torch.randn(2, 1, 33, 33))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def two_images(fusion, fast=()):
    encoders = {m: ConvEncoder((1, 12, 12), 8) for m in "ab"}
    widths = dict.fromkeys("ab", 8)
    heads = LateFusion(widths, 3) if fusion == "late" else EarlyFusion(widths, 3, (12, 8))
    return MultimodalClassifier({m: FastEncoder(e, fast) if fast else e for m, e in encoders.items()}, heads)


def batch(device, generator):
    inputs = {m: torch.randn(16, 1, 12, 12, generator=generator) for m in "ab"}
    return Split(inputs, torch.randint(3, (16,), generator=generator)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("method", ["sam", "msam"])
def test_steps_are_those_of_the_plain_model(method, fusion, way, device):
    """Five steps: weights, and BatchNorm statistics, which only the first pass of a step may move."""
    five_steps_agree(method, fusion, way, device, WAYS[way])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["sam", "msam"])
def test_compiled_steps_are_those_of_the_plain_model(method, device, monkeypatch):
    """On the CPU traced as for any backend, but not turned into C++, which would take minutes.

    One graph for each pass of a SAM step: both encoders share them, and no step makes new ones.
    """
    if device == "cpu":
        monkeypatch.setattr(fast_module, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    five_steps_agree(method, "late", ("compile",), device, 1e-4)
    assert counters["stats"]["unique_graphs"] == 2


def test_a_compiled_encoder_is_copied_and_evaluated_without_its_code():
    fast = FastEncoder(ENCODERS["vector"]()[0], ("compile",))
    fast._code = "not code"  # called, it would fail
    x = torch.randn(6, 5)
    assert torch.equal(fast.eval()(x), fast.encoder(x))
    assert copy.deepcopy(fast)._code is None


def five_steps_agree(method, fusion, way, device, tolerance):
    ends = {}
    for fast in ((), way):
        torch.manual_seed(0)
        model = two_images(fusion, fast).to(device)
        model.load_state_dict(dict(zip(model.state_dict(), two_images_state(fusion), strict=True)))
        base = torch.optim.SGD(model.param_groups(), lr=0.02, momentum=0.9)
        trainer = methods.build(method, {})
        trainer.setup(model, base, {"rho": 0.05, "epochs": 1})
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(2)  # dropout
        for _ in range(5):
            model.train()
            trainer.step(batch(device, generator))
            evaluate(model, batch(device, generator))
        ends[fast] = list(model.state_dict().items())
    for (name, expected), (_, actual) in zip(ends[()], ends[way], strict=True):
        if "num_batches" in name:
            assert actual.item() == expected.item() == 5
        else:
            torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def two_images_state(fusion):
    torch.manual_seed(3)
    return two_images(fusion).state_dict().values()


@pytest.mark.parametrize("way", WAYS)
def test_coalitions_are_those_of_the_plain_model(way):
    plain = two_images("late")
    copies = copy.deepcopy(plain.eval().encoders)
    fast = MultimodalClassifier({m: FastEncoder(e, way) for m, e in copies.items()}, plain.fusion)
    inputs = batch("cpu", torch.Generator().manual_seed(0)).inputs
    expected, actual = (coalition_logits(model, inputs, model.encode(inputs)) for model in (plain, fast))
    close(actual, expected, WAYS[way])


def test_a_classifier_is_built_fast_and_unknown_ways_are_refused():
    model = build_classifier({"a": "vector"}, {"a": (4,)}, 2, "late", 8, fast=["bf16"])
    assert [e.fast for e in model.encoders.values()] == [("bf16",)]
    with pytest.raises(
        ValueError, match="unknown way to be fast 'fp8'; choose from bf16, channels_last, compile"
    ):
        build_classifier({"a": "vector"}, {"a": (4,)}, 2, "late", 8, fast=["fp8"])


def test_inputs_stored_in_half_precision_are_widened():
    model = two_images("late")
    inputs = {m: torch.randn(4, 1, 12, 12).half() for m in "ab"}
    wide = {m: x.float() for m, x in inputs.items()}
    assert torch.equal(model.eval()(inputs), model(wide))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
def test_batches_from_the_hosts_memory_are_those_of_resident_data():
    data = batch("cpu", torch.Generator().manual_seed(0))
    resident = data.to("cuda")
    hosted = Split(data.inputs, resident.labels)
    orders = (torch.Generator().manual_seed(1) for _ in range(2))
    for a, b in zip(*map(lambda s, o: batches(s, 4, o), (resident, hosted), orders), strict=True):
        for m in a.inputs:
            assert b.inputs[m].is_cuda
            assert torch.equal(a.inputs[m], b.inputs[m])
        assert torch.equal(a.labels, b.labels)
