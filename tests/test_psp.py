"""PSP, AGM's network for AVE: its size, its blocks against plain twins, coalitions, every method on it."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from test_coalitions import naive
from test_methods import CASES
from torch import nn

from msam import methods, training
from msam.coalitions import coalition_logits
from msam.datasets import Split
from msam.models import build_classifier
from msam.models.psp import BiLSTM, Propagation, prune
from msam.shapley import coalitions

KINDS = {"audio": "segments", "visual": "segment_maps"}
VIDEOS, SEGMENTS, PLACES, CLASSES = 3, 4, 6, 5
SHAPES = {"audio": (SEGMENTS, 7), "visual": (SEGMENTS, PLACES, 9)}


def make(seed=0):
    torch.manual_seed(seed)
    model = build_classifier(KINDS, SHAPES, CLASSES, "psp", 8, size="paper").double()
    inputs = {m: torch.randn(VIDEOS, *shape, dtype=torch.float64) for m, shape in SHAPES.items()}
    return model, inputs


# Size


def linear(inputs, outputs, bias=False):
    return (inputs + bias) * outputs


LSTM = 2 * 4 * (128 * (128 + 128) + 2 * 128)  # directions x gates x (input, state, two biases)
OWN = {
    "audio": linear(128, 256) + linear(256, 128) + linear(128, 512, True) + linear(512, 49) + LSTM,
    "visual": linear(512, 256) + linear(256, 128) + linear(512, 512, True) + linear(512, 49),
    None: linear(49, 1) + LSTM + 6 * linear(256, 256) + 2 * 256 + linear(256, 64) + linear(64, 29),
}
NEVER_RUN = {
    "a map of the visual features": linear(512, 128, True),
    "a head of 28 classes for each modality": 2 * (linear(256, 64) + linear(64, 28)),
    "a head of 2 classes": linear(256, 64, True) + linear(64, 2, True),
}


def test_the_published_number_of_parameters_less_those_that_never_run():
    with torch.device("meta"):
        model = build_classifier(
            KINDS, {"audio": (10, 128), "visual": (10, 49, 512)}, 29, "psp", 8, size="paper"
        )
    counts = {g["modality"]: sum(p.numel() for p in g["params"]) for g in model.param_groups()}
    assert counts == OWN
    assert sum(p.numel() for p in model.parameters()) == sum(OWN.values()) == 1_548_657
    assert sum(OWN.values()) + sum(NEVER_RUN.values()) == 1_667_251  # METHODS C2, from AGM's code
    assert sum(NEVER_RUN.values()) == 118_594


def test_every_parameter_moves_the_loss():
    model, inputs = make()
    model(inputs).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name


def test_the_initialization_is_glorots_except_for_the_two_linear_maps():
    model, _ = make()
    projections = {m for e in model.encoders.values() for m in e.project}
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            fan_out, fan_in = layer.weight.shape
            bound = math.sqrt(1 / fan_in if layer in projections else 6 / (fan_in + fan_out))
            assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.3)
            assert float(layer.weight.detach().abs().max()) <= bound


# Blocks


def lstm_twin(lstm, x):
    """x: T x 128 -> T x 256, gate by gate, forwards and backwards."""
    halves = []
    for end, order in (("", range(len(x))), ("_reverse", reversed(range(len(x))))):
        w = {
            k: getattr(lstm, f"{k}_l0{end}").detach()
            for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        h = c = torch.zeros(128, dtype=x.dtype)
        out = [None] * len(x)
        for t in order:
            gates = w["weight_ih"] @ x[t] + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
            i, f, g, o = gates.split(128)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            out[t] = h = o.sigmoid() * c.tanh()
        halves.append(torch.stack(out))
    return torch.cat(halves, 1)


def relation_twin(rows):
    """Rows of numbers >= 0: shares of the row, those up to 0.099 dropped, shares of what is left."""
    result = []
    for row in rows:
        kept = [x if x / (sum(row) + 1e-8) > 0.099 else 0.0 for x in row]
        result.append([x / sum(kept) if sum(kept) else 0.0 for x in kept])
    return torch.tensor(result, dtype=torch.float64)


def propagation_twin(block, sound, seen):
    """T x 256 each, entry by entry of the relations."""
    w = {name: layer.weight.detach() for name, layer in block.layers.items()}
    steps = range(len(sound))
    strength = [
        [
            float(F.relu(F.relu(w["relate_seen"] @ seen[i]) @ F.relu(w["relate_sound"] @ sound[j]) / 16))
            for j in steps
        ]
        for i in steps
    ]
    to_seen = relation_twin(strength)
    to_sound = relation_twin([[strength[i][j] for i in steps] for j in steps])
    fused = []
    for t in steps:
        v = seen[t] + sum(to_seen[t, j] * F.relu(w["send_sound"] @ sound[j]) for j in steps)
        a = sound[t] + sum(to_sound[t, i] * F.relu(w["send_seen"] @ seen[i]) for i in steps)
        both = []
        for x in (F.relu(w["out_seen"] @ v), F.relu(w["out_sound"] @ a)):
            x = (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()
            both.append(x * block.norm.weight.detach() + block.norm.bias.detach())
        fused.append((both[0] + both[1]) / 2)
    return torch.stack(fused)


def attention_twin(model, sound, maps):
    """What the sound (128) looks at in the maps (P x D): the mean of the maps first, then the two maps."""
    guide, keys = model.encoders["audio"].guide, model.encoders["visual"].keys
    g = guide[2].weight @ F.relu(guide[0].weight @ sound + guide[0].bias)
    scores = []
    for p in range(PLACES):
        k = keys[2].weight @ F.relu(keys[0].weight @ maps[p] + keys[0].bias)
        scores.append(sum(model.fusion.score.weight[0, u] * torch.tanh(k[u] + g[p]) for u in range(PLACES)))
    weights = torch.stack(scores).softmax(0)
    mean = sum(weights[p] * maps[p] for p in range(PLACES))
    first, second = model.encoders["visual"].project
    return second.weight @ (first.weight @ mean)


def test_the_bilstm_is_the_textbooks():
    torch.manual_seed(0)
    block, x = BiLSTM().double(), torch.randn(2, 5, 128).double()
    expected = torch.stack([lstm_twin(block.lstm, one) for one in x])
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(block.eval()(x), expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([2.0] * 10, [0.1] * 10),  # ten equal relations are kept, eleven are not
        ([2.0] * 11, [0.0] * 11),
        ([0.99, 8.0, 1.01], [0.0, 8 / 9.01, 1.01 / 9.01]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([0.0, 1e-3], [0.0, 1.0]),
    ],
)
def test_weak_relations_are_dropped(row, expected):
    rows = torch.tensor([row, row], dtype=torch.float64)
    torch.testing.assert_close(prune(rows), torch.tensor([expected] * 2).double(), rtol=0, atol=2e-5)
    torch.testing.assert_close(relation_twin([row])[0], torch.tensor(expected).double())


def test_propagation_is_the_papers():
    torch.manual_seed(0)
    block = Propagation().double().eval()
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    sound, seen = torch.randn(2, 2, 12, 256).double()
    expected = torch.stack([propagation_twin(block, a, v) for a, v in zip(sound, seen, strict=True)])
    torch.testing.assert_close(block(sound, seen), expected, rtol=1e-5, atol=1e-6)
    queries = F.relu(block.layers["relate_seen"](seen)) @ F.relu(block.layers["relate_sound"](sound)).mT
    shares = queries / queries.sum(-1, keepdim=True)
    assert 0.1 < (shares <= 0.099).double().mean() < 0.9, "the threshold must matter in this test"


@torch.no_grad()
def test_the_network_is_the_blocks_in_the_papers_order():
    model, inputs = make()
    model.eval()
    logits = model(inputs)
    assert logits.shape == (VIDEOS * SEGMENTS, CLASSES)
    first, second = model.encoders["audio"].project
    for video in range(VIDEOS):
        sound = torch.stack([second.weight @ (first.weight @ x) for x in inputs["audio"][video]])
        looked = zip(sound, inputs["visual"][video], strict=True)
        seen = torch.stack([attention_twin(model, a, m) for a, m in looked])
        heard = lstm_twin(model.encoders["audio"].lstm.lstm, sound)
        watched = lstm_twin(model.fusion.lstm.lstm, seen)
        fused = propagation_twin(model.fusion.propagation, heard, watched)
        expected = F.relu(fused @ model.fusion.head[0].weight.T) @ model.fusion.head[2].weight.T
        rows = slice(video * SEGMENTS, (video + 1) * SEGMENTS)
        torch.testing.assert_close(logits[rows], expected, rtol=1e-5, atol=1e-6)


def test_dropout_works_in_training_only_and_off_it_is_the_same_network():
    model, inputs = make()
    assert not torch.equal(model(inputs), model(inputs))
    expected = model.eval()(inputs)
    assert torch.equal(model(inputs), expected)
    model.train()
    model.fusion.propagation.dropout.p = 0.0
    torch.testing.assert_close(model(inputs), expected)
    block = Propagation().train()
    hit = []
    block.dropout.register_forward_hook(lambda *_: hit.append(1))
    block(*torch.randn(2, 1, 3, 256))
    assert (len(hit), block.dropout.p) == (6, 0.1)


def test_the_order_of_the_modalities_does_not_matter():
    shapes = {"v": SHAPES["visual"], "a": SHAPES["audio"]}
    model = build_classifier(
        {"v": "segment_maps", "a": "segments"}, shapes, CLASSES, "psp", 8, size="paper", fast=("bf16",)
    )
    assert model.modalities == ["v", "a"]
    inputs = {m: torch.randn(2, *shape) for m, shape in shapes.items()}
    exact = copy.deepcopy(model)
    for encoder in exact.encoders.values():
        encoder.fast = ()
    torch.testing.assert_close(model.eval()(inputs), exact.eval()(inputs), rtol=0.1, atol=0.1)


# In the framework


@pytest.mark.parametrize("train", [True, False])
def test_coalitions_equal_naive_muted_forwards(train):
    model, inputs = make()
    model.train(train)
    found = coalition_logits(model, inputs, model.encode(inputs))
    sets = coalitions(("audio", "visual"))
    assert found.shape == (len(sets), VIDEOS * SEGMENTS, CLASSES)
    for present, logits in zip(sets, found, strict=True):
        torch.testing.assert_close(logits, naive(model, inputs, present))
    full = model.fuse(model.encode(inputs))
    assert torch.equal(coalition_logits(model, inputs, model.encode(inputs), full)[-1], full)


def data(videos=24):
    """Videos of an event or background, whose sound and one place of the pictures show the class."""
    torch.manual_seed(1)
    labels = torch.randint(CLASSES, (videos, SEGMENTS))
    inputs = {m: 0.5 * torch.randn(videos, *shape) for m, shape in SHAPES.items()}
    shown = F.one_hot(labels, CLASSES)
    inputs["audio"][..., :CLASSES] += 2 * shown
    inputs["visual"][:, :, 2, :CLASSES] += 2 * shown
    return Split({"audio": inputs["audio"], "visual": inputs["visual"].half()}, labels)


def test_batches_keep_segments_and_labels_together():
    split = data()
    split.inputs["audio"][:, :, 0] = split.labels
    for batch in training.batches(split, 5, torch.Generator().manual_seed(0)):
        assert batch.inputs["audio"].shape == (5, *SHAPES["audio"])
        assert torch.equal(batch.inputs["audio"][:, :, 0].flatten().long(), batch.labels)


def test_evaluation_counts_segments(monkeypatch):
    monkeypatch.setattr(training, "EVALUATION_BATCH", 7)
    torch.manual_seed(0)
    model, split = build_classifier(KINDS, SHAPES, CLASSES, "psp", 8, size="paper"), data()
    found = training.evaluate(model, split)
    logits = copy.deepcopy(model).eval()(split.inputs).detach().unflatten(0, (24, SEGMENTS))
    right = sum(
        int(logits[i, t].argmax()) == int(split.labels[i, t]) for i in range(24) for t in range(SEGMENTS)
    )
    assert found["accuracy"]["fused"] == pytest.approx(right / (24 * SEGMENTS))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits.permute(0, 2, 1), split.labels)))
    assert found["head_accuracy"] == {}


FEATURES = ("uniform", "mmpareto", "masam", "cggm", "pmr")


@pytest.mark.parametrize("case", CASES)
def test_every_method_learns_or_says_why_not(case):
    name, options = CASES[case]
    options = {k: v.replace("m2", "visual") if isinstance(v, str) else v for k, v in options.items()}
    method = methods.build(name, options)
    if name in (*FEATURES, "unimodal"):
        reason = (
            "guides the attention over the" if name == "unimodal" else "it reads a feature vector of each"
        )
        with pytest.raises(methods.UnsupportedCell, match=reason):
            method.check("psp", list(KINDS))
        return
    method.check("psp", list(KINDS))
    torch.manual_seed(0)
    model, split = build_classifier(KINDS, SHAPES, CLASSES, "psp", 8, size="paper"), data()
    base = torch.optim.SGD(model.param_groups(), lr=0.1, momentum=0.9)
    method.setup(model, base, {"rho": 0.05, "epochs": 12})
    order = torch.Generator().manual_seed(0)
    reached = []
    for _ in range(12):
        model.train()
        for batch in training.batches(split, 8, order):
            assert method.step(batch).loss.isfinite()
        evaluation = training.evaluate(model, split)
        method.end_epoch(evaluation)
        reached.append(max(evaluation["accuracy"].values()))
    assert max(reached) > 0.6, reached


@pytest.mark.parametrize(
    ("kinds", "fusion", "size", "message"),
    [
        (KINDS, "late", "paper", "inputs of kind 'segments' need the fusion 'psp', not 'late'"),
        (KINDS, "early", "small", "inputs of kind 'segments' need the fusion 'psp', not 'early'"),
        (KINDS, "psp", "small", "fusion 'psp' has the size 'paper' only, not 'small'"),
        (
            {"audio": "sequence", "visual": "segment_maps"},
            "psp",
            "paper",
            "needs one modality of each kind of segments, segment_maps, not sequence, segment_maps",
        ),
        ({"audio": "segments"}, "psp", "paper", "needs one modality of each kind of .*, not segments$"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(kinds, fusion, size, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(kinds, SHAPES, CLASSES, fusion, 8, size=size)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_flow_through_muted_forwards_on_a_gpu():
    """In which the network is in evaluation mode, where cuDNN's LSTM refuses to go back."""
    model, inputs = make()
    model, inputs = model.cuda(), {m: x.cuda() for m, x in inputs.items()}
    coalition_logits(model, inputs, model.encode(inputs)).sum().backward()
