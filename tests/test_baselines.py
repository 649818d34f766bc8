"""The rule of every baseline against closed forms, hand calculations, brute force and independent code."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_optimizer import SAM
from test_methods import make

from msam import methods
from msam.coalitions import coalition_logits, responses
from msam.datasets import Split
from msam.methods import agm, cggm, masam, mmpareto, ogm, pmr
from msam.shapley import coalitions

LR = 0.1


def set_up(name, model, epochs=8, **options):
    method = methods.build(name, options)
    base = torch.optim.SGD(model.param_groups(), lr=LR, momentum=0.9, weight_decay=1e-2)
    method.setup(model, base, {"rho": 0.1, "epochs": epochs})
    return method


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def joint_gradients(model, batch):
    """Of the cross-entropy of the fused logits, on a copy."""
    model = copy.deepcopy(model)
    F.cross_entropy(model(batch.inputs), batch.labels).backward()
    return gradients(model)


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], msg=lambda m, n=name: f"{n}: {m}")


def state_of(*modules):
    return [x.clone() for module in modules for x in module.state_dict().values()]


def unmoved(before, *modules):
    return all(torch.equal(a, b) for a, b in zip(before, state_of(*modules), strict=True))


def evaluation(losses=None, accuracy=None):
    return {"modality_loss": losses or {}, "head_accuracy": accuracy or {}, "accuracy": accuracy or {}}


def by_coalition(model, batch):
    """Coalition, written "12", -> logits, B x C."""
    logits = coalition_logits(model, batch.inputs, model.encode(batch.inputs))
    names = ["".join(sorted(m[1] for m in s)) for s in coalitions(tuple(model.modalities))]
    return dict(zip(names, logits, strict=True))


# --- AGM


def modulated_output(f, k):
    """The output whose gradient along dL/dT is AGM's: written out for two and three modalities."""
    if len(k) == 2:
        return (k[0] + k[1]) / 2 * f["12"] + (k[0] - k[1]) / 2 * (f["1"] - f["2"])
    out = sum(k) / 3 * f["123"]
    for pair, third in (("12", 2), ("13", 1), ("23", 0)):
        out = out + ((sum(k) - k[third]) / 6 - k[third] / 3) * f[pair]
    for single in range(3):
        out = out + (k[single] / 3 - (sum(k) - k[single]) / 6) * f[str(single + 1)]
    return out


def modulated_gradients(model, batch, f, k):
    full = f["".join(str(i + 1) for i in range(len(k)))]
    slope = (full.softmax(1) - F.one_hot(batch.labels, 3)).detach() / len(batch)
    (slope * modulated_output(f, k)).sum().backward()
    return gradients(model)


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("kappa", [(1.7, 0.4), (1.7, 0.4, 0.9)])
def test_agm_has_the_gradient_of_the_closed_form(kappa, fusion, monkeypatch):
    model, batch = make(len(kappa), fusion)
    model.eval()
    twin = copy.deepcopy(model)
    method = set_up("agm", model)
    monkeypatch.setattr(method, "kappa", lambda answers, labels: torch.tensor(kappa).double())
    monkeypatch.setattr(method, "_clip", lambda: None)
    method.step(batch)
    same(gradients(model), modulated_gradients(twin, batch, by_coalition(twin, batch), kappa))


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_agm_takes_its_coefficients_from_the_responses_in_the_order_of_the_modalities(fusion, monkeypatch):
    model, batch = make(2, fusion)
    model.eval()
    twin = copy.deepcopy(model)
    method = set_up("agm", model, alpha=1.5)
    monkeypatch.setattr(method, "_clip", lambda: None)
    method.step(batch)
    f = by_coalition(twin, batch)
    answers = [(f["12"] + f["1"] - f["2"]) / 2, (f["12"] + f["2"] - f["1"]) / 2]
    scores = torch.stack([F.cross_entropy(z, batch.labels) for z in answers]).detach()
    kappa = torch.exp(1.5 * (1 - agm.discrepancy(scores)))
    assert abs(kappa[0] - kappa[1]) > 1e-3
    same(gradients(model), modulated_gradients(twin, batch, f, kappa))


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("count", [2, 3])
def test_agm_of_no_strength_is_joint_training(count, fusion):
    model, batch = make(count, fusion)
    torch.manual_seed(1)
    expected = joint_gradients(model, batch)
    torch.manual_seed(1)
    set_up("agm", model, alpha=0.0).step(batch)
    same(gradients(model), expected)


def test_agm_coefficients_by_hand():
    method = set_up("agm", make(2)[0], alpha=0.5, cap=0.4)
    labels = torch.tensor([0, 1])

    def answers(right_a, right_v):  # probabilities of the true class among two
        return torch.stack(
            [torch.tensor([[p, 1 - p], [1 - p, p]]).log() for p in (right_a, right_v)]
        ).double()

    # scores -log p: a 0.1, v 0.7, so a is ahead and r_a = exp(0.6); the reference of the first step is 1
    first = method.kappa(answers(math.exp(-0.1), math.exp(-0.7)), labels)
    gaps = [1 - math.exp(0.6), min(1 - math.exp(-0.6), 0.4)]
    assert first.tolist() == pytest.approx([math.exp(0.5 * gap) for gap in gaps])
    assert first[0] < 1 < first[1]
    # now both 0.3: r = 1, the reference is the first step's scores alone
    second = method.kappa(answers(math.exp(-0.3), math.exp(-0.3)), labels)
    gaps = [min(math.exp(0.6) - 1, 0.4), math.exp(-0.6) - 1]
    assert second.tolist() == pytest.approx([math.exp(0.5 * gap) for gap in gaps])
    # the running scores are arithmetic means: a 0.2, v 0.5
    assert method.running.tolist() == pytest.approx([0.2, 0.5])
    assert agm.discrepancy(torch.tensor([0.2, 0.5, 0.5]))[0] == pytest.approx(math.exp(1.5 * 0.2))


def test_agm_clips_where_the_output_layer_has_a_large_gradient():
    model, _ = make(2)
    method = set_up("agm", model)
    for size, clipped in ((0.9, False), (1.1, True)):
        for p in model.parameters():
            p.grad = torch.full_like(p, size)
        method._clip()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        assert (norm == pytest.approx(1.0, rel=1e-4)) == clipped


def test_a_step_of_agm_clips():
    model, batch = make(2)
    large = Split({m: 100 * x for m, x in batch.inputs.items()}, batch.labels)
    set_up("agm", model).step(large)
    assert torch.cat([g.flatten() for g in gradients(model).values()]).norm() == pytest.approx(1.0, rel=1e-4)


# --- MMPareto and uniform


@pytest.mark.parametrize("seed", range(5))
def test_pareto_weight_is_the_shortest_vector_of_the_segment(seed):
    torch.manual_seed(seed)
    g, u = torch.randn(2, 6).double()
    grid = torch.linspace(0.001, 0.999, 9981).double()
    lengths = (grid[:, None] * g + (1 - grid[:, None]) * u).norm(dim=1)
    found = mmpareto.min_norm_weight(g @ g, g @ u, u @ u)
    assert float(found) == pytest.approx(float(grid[lengths.argmin()]), abs=2e-4)


def test_pareto_weight_at_the_ends():
    short, long = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.1])
    for g, u, end in ((short, long, 0.999), (long, short, 0.001)):
        assert float(mmpareto.min_norm_weight(g @ g, g @ u, u @ u)) == pytest.approx(end)


def separate_gradients(model, heads, batch):
    """Joint gradient, and that of every modality's own loss, by parameter, each from a pass of its own."""
    found = []
    for modality in [None, *model.modalities]:
        model.zero_grad()
        heads.zero_grad()
        features = model.encode(batch.inputs)
        logits = model.fuse(features) if modality is None else heads[modality](features[modality])
        F.cross_entropy(logits, batch.labels).backward()
        found.append({p: p.grad for p in [*model.parameters(), *heads.parameters()] if p.grad is not None})
    return found[0], dict(zip(model.modalities, found[1:], strict=True))


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("count", [2, 3])
def test_mmpareto_step_by_separate_passes(count, fusion):
    model, batch = make(count, fusion)
    model.eval()
    method = set_up("mmpareto", model)
    joint, alone = separate_gradients(copy.deepcopy(model), copy.deepcopy(method.heads), batch)
    joint, alone = list(joint.values()), {m: list(g.values()) for m, g in alone.items()}
    method.step(batch)
    place = 0
    for m, encoder in model.encoders.items():
        own = list(encoder.parameters())
        g, u = joint[place : place + len(own)], alone[m][: len(own)]
        place += len(own)
        flat_g, flat_u = (torch.cat([x.flatten() for x in part]) for part in (g, u))
        if flat_g @ flat_u > 0:
            w = 0.5
        else:
            w = float(mmpareto.min_norm_weight(flat_g @ flat_g, flat_g @ flat_u, flat_u @ flat_u))
        for p, a, b in zip(own, g, u, strict=True):
            n = 2 * w * a + 2 * (1 - w) * b
            torch.testing.assert_close(p.grad, 1.5 * n * max(1.0, float((a + b).norm() / n.norm())))
        for p, b in zip(method.heads[m].parameters(), alone[m][len(own) :], strict=True):
            torch.testing.assert_close(p.grad, b)
    for p, a in zip(model.fusion.parameters(), joint[place:], strict=True):
        torch.testing.assert_close(p.grad, a)


def test_mmpareto_in_conflict_does_not_hurt_either_loss():
    """In conflict the shortest vector of the segment descends both losses; their sum need not."""
    torch.manual_seed(0)
    for _ in range(20):
        g, u = torch.randn(2, 5).double()
        u = u - 3 * (u @ g) / (g @ g) * g if u @ g > 0 else u
        (n,) = mmpareto.combine([g], [u], 1.0)
        assert n @ g >= -1e-2 * n.norm() * g.norm()
        assert n @ u >= -1e-2 * n.norm() * u.norm()


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_uniform_has_the_gradient_of_the_sum(fusion):
    model, batch = make(3, fusion)
    model.eval()
    method = set_up("uniform", model)
    joint, alone = separate_gradients(copy.deepcopy(model), copy.deepcopy(method.heads), batch)
    method.step(batch)
    encoders = [p.grad for p in model.encoders.parameters()]
    expected = list(joint.values())[: len(encoders)]
    own = [list(g.values()) for g in alone.values()]
    own = [
        x
        for part, e in zip(own, model.encoders.values(), strict=True)
        for x in part[: len(list(e.parameters()))]
    ]
    for found, a, b in zip(encoders, expected, own, strict=True):
        torch.testing.assert_close(found, a + b)


# --- OGM and OGM-GE


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([2.4, 1.2], [1 - math.tanh(0.5 * 2), 1.0]),
        ([1.2, 2.4], [1.0, 1 - math.tanh(0.5 * 2)]),
        ([1.5, 1.5], [1.0, 1.0]),
        ([2.4, 1.5, 0.6], [1 - math.tanh(0.5 * 2.4 / 1.05), 1.0, 1.0]),
        ([2.4, 2.4, 0.6], [1 - math.tanh(0.5 * 1.6), 1 - math.tanh(0.5 * 1.6), 1.0]),
    ],
)
def test_ogm_coefficients_by_hand(scores, expected):
    assert ogm.coefficients(torch.tensor(scores), 0.5).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("count", [2, 3])
def test_ogm_on_three_samples_by_hand(count, fusion):
    """The scores are sums of the true class's probability, by a head (late) or a Shapley response (early)."""
    model, batch = make(count, fusion)
    model.eval()
    batch = type(batch)({m: x[:3] for m, x in batch.inputs.items()}, batch.labels[:3])
    expected = joint_gradients(model, batch)
    features = model.encode(batch.inputs)
    if fusion == "late":
        alone = model.fusion.head_logits(features).values()
    else:
        alone = responses(coalition_logits(model, batch.inputs, features), model.modalities)
    scores = [z.detach().softmax(1)[range(3), batch.labels].sum().item() for z in alone]
    set_up("ogm", model, alpha=0.7).step(batch)
    slowed = 0
    for i, m in enumerate(model.modalities):
        ratio = scores[i] / (sum(scores[:i] + scores[i + 1 :]) / (count - 1))
        k = 1 - math.tanh(0.7 * ratio) if ratio > 1 else 1.0
        slowed += k < 1
        for name in [n for n in expected if n.startswith(f"encoders.{m}.")]:
            expected[name] *= k if expected[name].ndim > 1 else 1
    assert 0 < slowed < count
    same(gradients(model), expected)


@pytest.mark.parametrize("name", ["ogm", "ogm_ge"])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_ogm_is_joint_training_outside_its_window(name, fusion):
    model, batch = make(2, fusion)
    method = set_up(name, model, epochs=4, end=0.5)
    for _ in range(2):
        torch.manual_seed(1)
        expected = joint_gradients(model, batch)
        torch.manual_seed(1)
        method.step(batch)
        found = gradients(model)
        assert any(not torch.allclose(found[n], expected[n]) for n in expected)
        method.end_epoch({})
    torch.manual_seed(1)
    expected = joint_gradients(model, batch)
    torch.manual_seed(1)
    method.step(batch)
    same(gradients(model), expected)


def test_noise_of_ogm_ge_has_the_deviation_of_each_gradient_and_reaches_every_encoder():
    model, _ = make(2)
    method = set_up("ogm_ge", model)
    p, q = model.encoders["m1"][0].weight, model.encoders["m2"][0].weight
    bias = model.encoders["m1"][0].bias
    for x in model.parameters():
        x.grad = torch.zeros_like(x)
    spread = 3.0 * torch.randn_like(p)
    sums = torch.zeros_like(p)
    squares, other = [], []
    for _ in range(400):
        p.grad.copy_(spread)
        q.grad.fill_(1.0)
        method.modulate(torch.tensor([0.25, 1.0]).double())
        sums += p.grad
        squares.append((p.grad - 0.25 * spread).square().mean())
        other.append((q.grad - 1.0).abs().max())
    assert torch.stack(squares).mean().sqrt() == pytest.approx(float(spread.std(correction=0)), rel=0.02)
    torch.testing.assert_close(sums / 400, 0.25 * spread, atol=1.0, rtol=0)
    assert 0 < max(other) < 1e-6  # a constant gradient has no deviation but the floor
    assert not bias.grad.any()


def test_ogm_refuses_an_encoder_it_would_not_touch():
    model, _ = make(2)
    model.encoders["m1"] = torch.nn.BatchNorm1d(6)
    with pytest.raises(ValueError, match="without weight matrices"):
        set_up("ogm", model)


# --- MSLR


@pytest.mark.parametrize("heads", [True, False])
def test_mslr_ratios_by_hand(heads):
    method = set_up("mslr", make(2)[0], window=2)
    told = []
    for a in (0.2, 0.4, 0.6, 0.3):
        read, other = {"m1": a, "m2": 0.5}, {"m1": 0.7, "m2": a}
        method.end_epoch(
            {"head_accuracy": read, "accuracy": other} if heads else {"head_accuracy": {}, "accuracy": read}
        )
        told.append(dict(method.ratio))
    assert [r["m1"] for r in told] == pytest.approx([1, 1, 0.6 / 0.3, 0.3 / 0.5])
    assert [r["m2"] for r in told] == pytest.approx([1] * 4)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_mslr_scales_the_gradients_of_encoder_and_head(fusion):
    model, batch = make(2, fusion)
    method = set_up("mslr", model, initial={"m1": 1.3}, window=1)
    for a in (0.2, 0.5):
        method.end_epoch(evaluation(accuracy={"m1": a, "m2": 0.5}))
    torch.manual_seed(1)
    expected = joint_gradients(model, batch)
    torch.manual_seed(1)
    method.step(batch)
    for name in expected:
        if name.startswith(("encoders.m1.", "fusion.heads.m1.")):
            expected[name] *= 1.3 * 2.5
    same(gradients(model), expected)


# --- MSES


def momenta_of(method):
    return [x["momentum_buffer"].clone() for x in method.optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_mses_freezes_a_modality_at_its_best_state_to_the_bit(fusion):
    model, batch = make(3, fusion)
    model.encoders["m1"].append(torch.nn.BatchNorm1d(8).double())
    method = set_up("mses", model, epochs=8, patience=0.25)  # two epochs
    # smoothed: m1 1, .52, .36, .6: best after the third epoch; m2 gets better until the end
    story = [
        (1.0, 1.0, 5.0),
        (0.2, 0.9, 4.0),
        (0.6, 0.8, 3.0),
        (0.6, 0.7, 6.0),
        (0.7, 0.6, 2.0),
        (0.9, 0.5, 1.0),
    ]
    best, moved, momenta = None, None, None
    for epoch, losses in enumerate(story, 1):
        model.train()
        for _ in range(3):
            assert method.step(batch).gradient_evaluations == 1
        if epoch == 3:
            best, momenta = state_of(model), momenta_of(method)
        if epoch == 6:
            moved = state_of(model)
            method.optimizer.param_groups[0]["lr"] = 0.01
        method.end_epoch(evaluation(dict(zip(model.modalities, losses, strict=True))))
        assert method.frozen == ([] if epoch < 6 else ["m1"]), epoch
    assert method.best["m1"] == (pytest.approx(0.6 * 0.2 + 0.4 * 0.6), 3)
    assert not all(torch.equal(a, b) for a, b in zip(best, moved, strict=True))
    assert unmoved(best, model)
    assert all(torch.equal(a, b) for a, b in zip(momenta, momenta_of(method), strict=True))
    assert [group["lr"] for group in method.optimizer.param_groups] == [0.01, *[LR] * 3]

    own = [model.encoders["m1"]] + ([model.fusion.heads["m1"]] if fusion == "late" else [])
    before, rest = state_of(*own), state_of(model.encoders["m2"])
    for _ in range(3):
        model.train()
        method.step(batch)
    assert unmoved(before, *own)
    assert not unmoved(rest, model.encoders["m2"])


def test_mses_brings_the_model_back_but_not_what_is_frozen_and_ends_with_everything():
    model, batch = make(2)
    method = set_up("mses", model, epochs=10, patience=0.1)
    # m1 is best after the second epoch and frozen after the fourth, m2 after the third and the fifth
    for losses in [(1.0, 1.0), (0.2, 0.9), (3.0, 0.8), (3.0, 2.0)]:
        model.train()
        method.step(batch)
        method.end_epoch(evaluation(dict(zip(["m1", "m2"], losses, strict=True))))
    assert method.frozen == ["m1"]
    first = state_of(model.encoders["m1"], model.fusion.heads["m1"])
    model.train()
    method.step(batch)
    method.end_epoch(evaluation({"m1": 1.0, "m2": 5.0}))
    assert method.frozen == ["m1", "m2"]
    assert unmoved(first, model.encoders["m1"], model.fusion.heads["m1"])
    end = state_of(model)
    model.train()
    assert method.step(batch).gradient_evaluations == 0
    assert unmoved(end, model)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_mses_without_a_finite_loss_goes_back_to_the_first_epoch(loss):
    model, batch = make(2)
    method = set_up("mses", model, epochs=10, patience=0.1)
    states = []
    for falling in (1.0, 0.9, 0.8):
        method.step(batch)
        states.append(state_of(model))
        method.end_epoch(evaluation({"m1": loss, "m2": falling}))
    assert method.frozen == ["m1"]
    assert unmoved(states[0], model)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_mses_takes_any_finite_loss_for_better_than_one_that_is_not(loss):
    method = set_up("mses", make(2)[0], epochs=8, patience=0.5)
    for found in (loss, 1.0, 1.0):
        method.end_epoch(evaluation({"m1": found, "m2": 1.0}))
    assert method.best == {"m1": (1.0, 3), "m2": (1.0, 1)}


# --- CGGM


def test_cggm_balance_by_hand():
    assert cggm.balance(torch.tensor([0.3, 0.1])).tolist() == pytest.approx([0.25, 0.75])
    assert cggm.balance(torch.tensor([0.3, 0.1, 0.2])).tolist() == pytest.approx([0.5, 5 / 6, 2 / 3])
    assert cggm.balance(torch.tensor([0.3, -0.1])).tolist() == pytest.approx([0.0, 1.0])
    assert cggm.balance(torch.tensor([-0.3, -0.1])).tolist() == pytest.approx([0.5, 0.5])


def test_cggm_head_gradient_is_autograds_and_has_a_gradient_of_its_own():
    torch.manual_seed(0)
    layer, labels = torch.nn.Linear(4, 3).double(), torch.tensor([0, 2, 1, 1, 0])
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(layer(x), labels).backward()
    torch.testing.assert_close(cggm.head_gradient(layer(x), x, labels), layer.weight.grad)
    guide = torch.randn(12).double()

    def cosine(x, weight):
        ours = cggm.head_gradient(x @ weight.T, x, labels)
        return F.cosine_similarity(ours.flatten(), guide, 0)

    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(cosine, (x, weight))
    for slope in torch.autograd.grad(cosine(x, weight), (x, weight)):
        assert slope.abs().max() > 1e-3


def test_the_classifiers_of_cggm_learn_and_compare_their_rises_by_hand():
    model, batch = make(2, seed=1)
    method = set_up("cggm", model)
    features = {m: h.detach() for m, h in model.encode(batch.inputs).items()}
    twins = copy.deepcopy(method.heads)
    sgd = torch.optim.SGD(twins.parameters(), lr=LR, momentum=0.9, weight_decay=1e-2)
    average = [0.0, 0.0]
    for _ in range(3):
        logits = [head(features[m]) for m, head in twins.items()]
        sgd.zero_grad()
        sum(F.cross_entropy(z, batch.labels) for z in logits).backward()
        sgd.step()
        right = [(z.argmax(1) == batch.labels).double().mean().item() for z in logits]
        rises = [max(0.1 * (r - a), 0) for r, a in zip(right, average, strict=True)]
        average = [0.9 * a + 0.1 * r for r, a in zip(right, average, strict=True)]
        b, directions = method._guide(features, batch.labels)
        assert b.tolist() == pytest.approx([rises[1] / sum(rises), rises[0] / sum(rises)])
        assert method.accuracy.tolist() == pytest.approx(average)
        for found, head in zip(directions, twins.values(), strict=True):
            torch.testing.assert_close(found, head.weight.grad)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_cggm_pulls_the_fusion_towards_the_classifiers(fusion, monkeypatch):
    """The direction term moves the output layers, and a step along it raises the cosines."""
    model, batch = make(2, fusion)
    model.eval()
    plain, guided = copy.deepcopy(model), copy.deepcopy(model)
    for net, weight in ((plain, 0.0), (guided, 1e-3)):
        torch.manual_seed(3)
        method = set_up("cggm", net, weight=weight)
        monkeypatch.setattr(cggm.torch.nn.utils, "clip_grad_norm_", lambda *_: None)
        net.eval()
        method.step(batch)
    torch.manual_seed(3)
    method = set_up("cggm", copy.deepcopy(model))
    with torch.no_grad():
        features = model.encode(batch.inputs)
    _, directions = method._guide(features, batch.labels)

    def cosines(net):
        features = net.encode(batch.inputs)
        inputs, fused = net.fusion.before_outputs(features), net.fuse(features)
        ours = [cggm.head_gradient(fused, x, batch.labels) for x in inputs] * (2 // len(inputs))
        pairs = zip(ours, directions, strict=True)
        return torch.stack([F.cosine_similarity(a.flatten(), d.flatten(), 0) for a, d in pairs])

    b = cggm.balance(method.accuracy)
    term = (b.abs() - b * cosines(model)).mean()
    slopes = torch.autograd.grad(term, list(model.fusion.parameters()))
    for p, q, slope in zip(plain.fusion.parameters(), guided.fusion.parameters(), slopes, strict=True):
        torch.testing.assert_close((q.grad - p.grad) / 1e-3, slope, rtol=1e-5, atol=1e-8)
    assert max(float(s.abs().max()) for s in slopes) > 1e-4


def test_cggm_scales_encoders_clips_and_does_not_train_them_by_its_classifiers(monkeypatch):
    model, batch = make(2)
    expected = joint_gradients(model, batch)
    method = set_up("cggm", model, weight=0.0, scale=1.3)
    before = state_of(method.heads)
    monkeypatch.setattr(cggm, "balance", lambda rises: torch.tensor([0.2, 0.8]).double())
    method.step(batch)
    for name in expected:
        for m, b in (("m1", 0.2), ("m2", 0.8)):
            expected[name] *= 1.3 * b if name.startswith(f"encoders.{m}.") else 1
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    factor = min(1.0, cggm.CLIP / norm)
    same(gradients(model), {n: g * factor for n, g in expected.items()})
    assert not unmoved(before, method.heads)


# --- ReconBoost


def test_reconboost_loss_by_hand_and_only_the_boosted_part_has_a_gradient():
    torch.manual_seed(0)
    method = set_up("reconboost", make(3)[0])
    parts = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1])
    for epoch, k in ((0, 0), (2, 1)):
        method.epoch = epoch
        loss = method.boosting_loss(parts, labels, k)
        expected = 0.0
        for i in range(4):
            others = sum(parts[j, i] for j in range(3) if j != k)
            q = others.softmax(0)[labels[i]]
            expected -= (5 - q) / 3 * parts[k, i].log_softmax(0)[labels[i]] / 4
        if epoch:
            expected += 0.5 * (parts[k].softmax(1) - parts[k - 1].softmax(1)).square().mean()
        assert loss.item() == pytest.approx(expected.item())
        (slope,) = torch.autograd.grad(loss, parts)
        assert slope[k].abs().min() > 0
        assert not slope[[j for j in range(3) if j != k]].any()


def test_the_consolidation_of_reconboost_is_not_detached():
    torch.manual_seed(0)
    parts = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1])
    slopes = []
    for consolidation in (0.0, 0.5):
        method = set_up("reconboost", make(2)[0], consolidation=consolidation)
        method.epoch = 2
        slopes.append(torch.autograd.grad(method.boosting_loss(parts, labels, 1), parts)[0][1])
    own = parts[1].detach().requires_grad_()
    distance = F.mse_loss(own.softmax(1), parts[0].detach().softmax(1))
    torch.testing.assert_close(slopes[1] - slopes[0], 0.5 * torch.autograd.grad(distance, own)[0])


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_the_stages_of_reconboost_touch_only_their_modality(fusion):
    model, batch = make(3, fusion)
    for encoder in model.encoders.values():
        encoder.append(torch.nn.BatchNorm1d(8).double())
    method = set_up("reconboost", model, epochs=12)
    seen = []
    for _ in range(8):
        before = {name: x.clone() for name, x in model.state_dict().items()}
        model.train()
        for _ in range(3):
            method.step(batch)
        moved = [n for n, x in model.state_dict().items() if not torch.equal(x, before[n])]
        owners = {n.split(".")[1 if n.startswith("encoders") else -2] for n in moved}
        assert any(n.endswith("running_mean") for n in moved)
        seen.append(owners if len(owners) == 1 else "all")
        if len(owners) > 1:
            assert {f"m{i}" for i in (1, 2, 3)} <= owners
            assert any(n.startswith("fusion") for n in moved)
        method.end_epoch({})
    assert seen == [{"m1"}, "all", {"m2"}, "all", {"m3"}, "all", {"m1"}, "all"]


def test_a_stage_of_reconboost_starts_without_momentum():
    model, batch = make(2)
    method = set_up("reconboost", model, stage=2)
    for epoch in range(1, 5):
        model.train()
        method.step(batch)
        method.end_epoch({})
        assert bool(method.optimizer.state) == (epoch % 2 == 1)


# --- PMR


def test_prototypes_are_class_means_and_an_absent_class_keeps_its_own():
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    before = torch.full((3, 2), 9.0)
    found = pmr.class_means(features, torch.tensor([0, 0, 2]), before)
    assert found.tolist() == [[2.0, 1.0], [9.0, 9.0], [5.0, 5.0]]


@pytest.mark.parametrize(
    ("scores", "slow", "fast"),
    [
        ([3.0, 2.0], [0.0, 0.5], [0.5, 0.0]),
        ([1.0, 4.0], [1.0, 0.0], [0.0, 1.0]),
        ([2.0, 2.0], [0.0, 0.0], [0.0, 0.0]),
        ([3.0, 2.0, 1.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.0]),
    ],
)
def test_pmr_weights_by_hand(scores, slow, fast):
    found = pmr.weights(torch.tensor(scores))
    assert [x.tolist() for x in found] == [pytest.approx(slow), pytest.approx(fast)]


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_pmr_loss_sample_by_sample(fusion):
    model, batch = make(2, fusion)
    model.eval()
    method = set_up("pmr", model, epochs=4, alpha=2.0, entropy=0.3, early=0.5)
    expected = joint_gradients(model, batch)
    twin = copy.deepcopy(model)
    method.step(batch)
    same(gradients(model), expected)  # no prototypes in the first epoch
    model.load_state_dict(twin.state_dict())
    method.end_epoch({})
    centers = {
        m: torch.stack([twin.encode(batch.inputs)[m][batch.labels == k].mean(0) for k in range(3)])
        for m in ("m1", "m2")
    }
    for epoch, entropy in ((1, 0.3), (2, 0.0)):
        assert method.epoch == epoch
        twin.zero_grad()
        features = twin.encode(batch.inputs)
        logs = {
            m: torch.stack(
                [
                    torch.stack([-(h - c).norm() for c in centers[m].detach()]).log_softmax(0)
                    for h in features[m]
                ]
            )
            for m in centers
        }
        row = range(len(batch))
        score = {m: sum(z[i, batch.labels[i]].exp().item() for i in row) for m, z in logs.items()}
        loss = F.cross_entropy(twin.fuse(features), batch.labels)
        for m, other in (("m1", "m2"), ("m2", "m1")):
            slow = min(max(score[other] / score[m] - 1, 0), 1)
            fast = min(max(score[m] / score[other] - 1, 0), 1)
            for i in row:
                loss = loss - 2.0 * slow * logs[m][i, batch.labels[i]] / len(batch)
                loss = loss + entropy * fast * (logs[m][i].exp() * logs[m][i]).sum() / len(batch)
        loss.backward()
        method.step(batch)
        same(gradients(model), gradients(twin))
        model.load_state_dict(twin.state_dict())
        method.seen = [batch]
        method.end_epoch({})


def test_prototypes_are_those_of_the_first_batches_of_the_last_epoch():
    model, batch = make(2)
    method = set_up("pmr", model, batches=2)

    def part(rows):
        return Split({m: x[rows] for m, x in batch.inputs.items()}, batch.labels[rows])

    def check(rows, classes):
        seen = part(rows)
        for m, features in model.encode(seen.inputs).items():
            for k in classes:
                torch.testing.assert_close(method.prototypes[m][k], features[seen.labels == k].mean(0))

    for rows in (slice(8), slice(8, 16), slice(16, 32)):
        method.step(part(rows))
    method.end_epoch({})
    check(slice(16), range(3))
    assert method.seen == []

    before = [c[2].clone() for c in method.prototypes.values()]
    method.step(part(batch.labels < 2))
    method.end_epoch({})
    check(batch.labels < 2, range(2))
    assert all(torch.equal(c[2], old) for c, old in zip(method.prototypes.values(), before, strict=True))


def test_prototypes_are_made_in_evaluation_mode():
    model, batch = make(2)
    model.encoders["m1"].append(torch.nn.BatchNorm1d(8).double())
    method = set_up("pmr", model)
    model.train()
    method.step(batch)
    before = state_of(model)
    method.end_epoch({})
    assert unmoved(before, model)
    features = model.eval().encode(batch.inputs)["m1"].detach()
    for k in range(3):
        torch.testing.assert_close(method.prototypes["m1"][k], features[batch.labels == k].mean(0))


def test_pmr_makes_prototypes_of_inputs_in_half_precision_and_of_the_same_numbers_widened():
    model, batch = make(2)
    model = model.float()
    half = Split({m: x.half() for m, x in batch.inputs.items()}, batch.labels)
    wide = Split({m: x.float() for m, x in half.inputs.items()}, batch.labels)
    found = []
    for split in (half, wide):
        twin = copy.deepcopy(model)
        method = set_up("pmr", twin)
        method.step(split)
        method.end_epoch({})
        found.append(method.prototypes)
    assert found[0].keys() == found[1].keys() == {"m1", "m2"}
    assert all(torch.equal(found[0][m], found[1][m]) for m in found[0])


# --- what public code gets wrong (see book/public_code.md)


def test_zero_gradients_do_not_freeze_and_missing_ones_do():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=1e-4)
    w.square().sum().backward()
    optimizer.step()
    for gradient, moves in ((torch.zeros(3), True), (None, False)):
        w.grad, before = gradient, w.detach().clone()
        optimizer.step()
        assert (not torch.equal(w, before)) == moves


def test_a_cosine_of_weights_has_no_gradient_for_the_encoders():
    model, _ = make(2, "early")
    head, guide = model.fusion.outputs[0].weight, torch.randn(3, 8).double()
    cosine = F.cosine_similarity(head.flatten(), guide.flatten(), 0)
    found = torch.autograd.grad(cosine, [head, *model.encoders.parameters()], allow_unused=True)
    assert found[0].abs().max() > 0
    assert all(g is None for g in found[1:])


# --- ASAM and MASAM


def test_asam_is_that_of_an_independent_library():
    model, batch = make(2)
    twin = copy.deepcopy(model)
    ours = set_up("asam", model)
    theirs = SAM(
        twin.parameters(),
        base_optimizer=torch.optim.SGD,
        rho=0.1,
        adaptive=True,
        lr=LR,
        momentum=0.9,
        weight_decay=1e-2,
    )
    for _ in range(5):
        ours.step(batch)

        def closure():
            loss = F.cross_entropy(twin(batch.inputs), batch.labels)
            loss.backward()
            return loss

        closure()
        theirs.step(closure)
        theirs.zero_grad()
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_masam_direction_and_agreement():
    g, u = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 4.0])
    assert masam.direction(g, u).tolist() == pytest.approx([3.0, 0.0])
    assert masam.direction(g, -u).tolist() == pytest.approx([2.0, 0.0])
    assert float(masam.agreement([g, g], [u, -g])) == pytest.approx((0.6 - 1) / 2)


def test_masam_scores_by_hand():
    model, _ = make(2)
    method = set_up("masam", model, mix=0.8, decay=0.9)
    ones = {p: torch.ones_like(p) for p in model.parameters()}
    first = method._scores(torch.tensor([1.0, 2.0]).double(), ones, ones)
    assert first.tolist() == pytest.approx([0.2, 0.2])
    # last (1, 2), average (0.9 + 0.05, 1.8 + 0.3): m1 has fallen below its average, m2 has risen
    second = method._scores(torch.tensor([0.5, 3.0]).double(), ones, ones)
    assert second.tolist() == pytest.approx([0.8 * 0.05 + 0.2, 0.2])


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_masam_moves_one_encoder_and_leaves_the_fusion_its_own_gradient(fusion):
    model, batch = make(2, fusion)
    model.eval()
    method = set_up("masam", model)
    twin, heads = copy.deepcopy(model), copy.deepcopy(method.heads)
    joint, alone = separate_gradients(twin, heads, batch)
    total = {
        p: joint.get(p, 0) + sum(g.get(p, 0) for g in alone.values()) for p in [*joint, *heads.parameters()]
    }
    scores = {}
    for m, encoder in twin.encoders.items():
        pairs = [(joint[p].flatten(), alone[m][p].flatten()) for p in encoder.parameters()]
        scores[m] = sum(float(a @ b / (a.norm() * b.norm())) for a, b in pairs) / len(pairs)
    d = max(scores, key=scores.get)
    method.step(batch)

    moves = {}
    for p in twin.encoders[d].parameters():
        g, u = joint[p], alone[d][p]
        inner = float((g * u).sum())
        moves[p] = g * inner / float((g * g).sum()) if inner > 0 else g
    norm = math.sqrt(sum(float(x.square().sum()) for x in moves.values()))
    with torch.no_grad():
        for p, x in moves.items():
            p.add_(0.1 * x / norm)
    joint, alone = separate_gradients(twin, heads, batch)
    for p, q in zip(model.encoders.parameters(), twin.encoders.parameters(), strict=True):
        torch.testing.assert_close(p.grad, joint[q] + sum(g.get(q, 0) for g in alone.values()))
    for p, q in zip(model.fusion.parameters(), twin.fusion.parameters(), strict=True):
        torch.testing.assert_close(p.grad, total[q])
    for p, q in zip(method.heads.parameters(), heads.parameters(), strict=True):
        torch.testing.assert_close(p.grad, total[q])


# --- all of them


@pytest.mark.parametrize("name", ["ogm", "ogm_ge", "agm", "cggm", "reconboost", "pmr", "masam"])
def test_what_compares_modalities_is_undefined_for_one(name):
    with pytest.raises(methods.UnsupportedCell, match="at least two"):
        methods.build(name).check("late", ["a"])
