"""Every method on every fusion, and each rule against the formula it claims to be."""

import copy

import pytest
import torch
import torch.nn.functional as F

from msam import methods
from msam.coalitions import VALUES, batch_shares, coalition_logits
from msam.datasets import Split
from msam.methods._dominance import Dominance
from msam.models import build_classifier
from msam.optim import reference
from msam.shapley import coalitions, shapley_values
from msam.training import evaluate

CASES = {
    "joint": ("joint", {}),
    "unimodal": ("unimodal", {"modality": "m2"}),
    "sam": ("sam", {}),
    "mixture": ("mixture", {"share": 0.6}),
    "msam": ("msam", {}),
    "msam+response": ("msam", {"reading": "response"}),
    "msam+encoder": ("msam", {"reading": "encoder"}),
    "msam+fixed": ("msam", {"dominance": "fixed:m2"}),
    "msam+random": ("msam", {"dominance": "random"}),
    "msam+epoch": ("msam", {"dominance": "epoch"}),
    "msam+ema": ("msam", {"dominance": "ema", "value": "probability"}),
    "msam+every": ("msam", {"dominance": "every:3", "value": "logit", "normalization": "softmax"}),
    "msam+gradient": ("msam", {"value": "gradient"}),
    "msam+permutations": ("msam", {"permutations": 2}),
    "lazy_msam": ("lazy_msam", {"every": 3}),
    "uniform": ("uniform", {}),
    "mses": ("mses", {"patience": 0.5}),
    "mslr": ("mslr", {"initial": {"m1": 1.3}}),
    "ogm": ("ogm", {}),
    "ogm_ge": ("ogm_ge", {}),
    "agm": ("agm", {}),
    "mmpareto": ("mmpareto", {}),
    "cggm": ("cggm", {}),
    "reconboost": ("reconboost", {}),
    "pmr": ("pmr", {}),
    "asam": ("asam", {}),
    "masam": ("masam", {}),
}
RHO = 0.1


def make(count, fusion="late", seed=0):
    torch.manual_seed(seed)
    names = [f"m{i + 1}" for i in range(count)]
    model = build_classifier(
        dict.fromkeys(names, "vector"), dict.fromkeys(names, (6,)), 3, fusion, 8
    ).double()
    labels = torch.randint(3, (32,))
    inputs = {
        m: F.one_hot(labels, 6).double() + torch.randn(32, 6).double() / (1 + i) for i, m in enumerate(names)
    }
    return model, Split(inputs, labels)


def set_up(case, model, lr=0.1):
    name, options = CASES[case]
    method = methods.build(name, options)
    method.setup(model, torch.optim.SGD(model.param_groups(), lr=lr), {"rho": RHO, "epochs": 8})
    return method


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_every_method_learns_on_every_fusion(case, count, fusion):
    model, batch = make(count, fusion)
    if case == "unimodal":
        torch.manual_seed(0)
        model = build_classifier({"m2": "vector"}, {"m2": (6,)}, 3, fusion, 8).double()
    methods.build(*CASES[case]).check(fusion, list(batch.inputs))
    method = set_up(case, model, lr=0.3)
    reached = []
    for step in range(80):
        report = method.step(batch)
        assert report.loss.shape == ()
        if report.shares is not None:
            assert report.shares.shape == (count,)
            assert float(report.shares.sum()) == pytest.approx(1.0)
        if step % 10 == 9:
            evaluation = evaluate(model, batch)
            method.end_epoch(evaluation)
            reached.append(max(evaluation["accuracy"].values()))
    assert max(reached) > 0.6  # the best, as `response` swings with early fusion


def trained(count, steps):
    """After some steps of joint training the modalities of a batch have shares of their own."""
    model, batch = make(count)
    joint = set_up("joint", model, lr=0.3)
    for _ in range(steps):
        joint.step(batch)
    model.zero_grad()
    shares = shares_of(copy.deepcopy(model), batch)
    assert len({round(share, 3) for share in shares}) == count
    return model, batch, shares


def shares_of(model, batch):
    features = model.encode(batch.inputs)
    logits = coalition_logits(model, batch.inputs, features, model.fuse(features))
    return batch_shares(logits, batch.labels, model.modalities).tolist()


@pytest.mark.parametrize("reading", ["loss", "encoder"])
def test_msam_is_algorithm_one_with_shares_of_the_batch(reading):
    model, batch, shares = trained(3, steps=20)
    twin = copy.deepcopy(model)
    dominant = max(range(3), key=shares.__getitem__)
    case = "msam" if reading == "loss" else "msam+encoder"
    report = set_up(case, model).step(batch)
    only = None
    if reading == "encoder":
        only = [n for n, _ in twin.named_parameters() if n.startswith(f"encoders.m{dominant + 1}.")]

    def loss(m):
        return F.cross_entropy(m(batch.inputs), batch.labels)

    reference.modality_aware_step(
        twin,
        lambda m: shares[dominant] * loss(m),
        lambda m: sum(v for i, v in enumerate(shares) if i != dominant) * loss(m),
        torch.optim.SGD(twin.parameters(), lr=0.1),
        RHO,
        only,
    )
    assert report.shares.tolist() == pytest.approx(shares)
    assert int(report.dominant) == dominant
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_response_reading_uses_a_loss_of_each_shapley_response():
    model, batch, shares = trained(3, steps=20)
    twin = copy.deepcopy(model)
    dominant = max(range(3), key=shares.__getitem__)
    set_up("msam+response", model).step(batch)

    def weighted(m, index):
        logits = coalition_logits(m, batch.inputs, m.encode(batch.inputs))
        answers = shapley_values(dict(zip(coalitions(tuple(m.modalities)), logits, strict=True)))
        return shares[index] * F.cross_entropy(answers[m.modalities[index]], batch.labels)

    reference.modality_aware_step(
        twin,
        lambda m: weighted(m, dominant),
        lambda m: sum(weighted(m, i) for i in range(3) if i != dominant),
        torch.optim.SGD(twin.parameters(), lr=0.1),
        RHO,
    )
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def mixture_step(model, batch, share):
    mixture = methods.build("mixture", {"share": share})
    mixture.setup(model, torch.optim.SGD(model.param_groups(), lr=0.1), {"rho": RHO})
    mixture.step(batch)


def test_a_mixture_at_the_dominant_share_is_msam_whatever_modality_dominates():
    """The collapse: the literal reading depends on the shares through one number."""
    model, batch, shares = trained(2, steps=40)
    assert max(shares) > 0.55, "at one half a mixture and its mirror image are the same"
    twin = copy.deepcopy(model)
    set_up("msam", model).step(batch)
    mixture_step(twin, batch, max(shares))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_msam_of_a_fixed_modality_is_a_mixture_at_its_share():
    model, batch = make(2, seed=1)
    twin = copy.deepcopy(model)
    share = shares_of(copy.deepcopy(model), batch)[1]
    assert 0.3 < share < 0.4
    set_up("msam+fixed", model).step(batch)
    mixture_step(twin, batch, share)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_msam_by_the_epoch_steers_with_the_shares_of_the_validation_split():
    model, batch = make(2)
    method = set_up("msam+epoch", model)
    method.end_epoch({"shares": {"m2": 0.8, "m1": 0.2}})
    report = method.step(batch)
    assert report.shares.tolist() == pytest.approx([0.2, 0.8])
    assert int(report.dominant) == 1


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"unimodal"}))
def test_reports_are_of_what_autograd_ran_and_of_the_unperturbed_network(case):
    model, batch = make(2)
    loss = F.cross_entropy(model(batch.inputs), batch.labels)
    backwards = []

    def count(module, of_inputs, of_outputs):
        backwards.append(len(of_outputs[0]) > 1)  # the muted batch of one does not count

    model.encoders["m1"][2].register_full_backward_hook(count)
    report = set_up(case, model).step(batch)
    assert sum(backwards) == report.gradient_evaluations
    if case != "reconboost":
        assert report.loss.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("share", [0, 1])
def test_a_mixture_may_be_of_one_gradient_alone(share):
    model, batch = make(2)
    twin = copy.deepcopy(model)
    mixture_step(model, batch, share)
    set_up(("joint", "sam")[share], twin).step(batch)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_dominance_rules():
    shares = torch.tensor([0.2, 0.5, 0.3])
    names = ["a", "b", "c"]
    assert Dominance("shapley", names).choose(lambda: shares)[1] == 1
    steered, dominant = Dominance("fixed:c", names).choose(lambda: shares)
    assert torch.equal(steered, shares)
    assert dominant == 2

    torch.manual_seed(0)
    rule = Dominance("random", names)
    drawn = torch.stack([rule.choose(lambda: shares)[1] for _ in range(300)]).bincount(minlength=3)
    assert (drawn > 60).all()
    assert torch.equal(rule.choose(lambda: shares)[0], shares)

    rule = Dominance("epoch", names)
    assert rule.choose(pytest.fail)[0].tolist() == pytest.approx([1 / 3] * 3)
    rule.end_epoch({"a": 0.1, "b": 0.2, "c": 0.7})
    assert rule.choose(pytest.fail)[1] == 2

    rule = Dominance("ema", names)
    rule.choose(lambda: shares)
    steered, dominant = rule.choose(lambda: torch.tensor([1.0, 0.0, 0.0]))
    assert steered.tolist() == pytest.approx([0.388, 0.315, 0.297])
    assert dominant == 0

    rule, reads = Dominance("every:3", names), []
    for step in range(7):
        steered, _ = rule.choose(lambda step=step: reads.append(step) or torch.tensor([1.0, step, 0.0]))
        assert steered[1] == step - step % 3
    assert reads == [0, 3, 6]


def test_the_gradient_value_is_the_squared_norm_in_each_encoder():
    model, batch = make(3)
    twin = copy.deepcopy(model)
    shares = set_up("msam+gradient", model).step(batch).shares
    loss = F.cross_entropy(twin(batch.inputs), batch.labels)
    norms = torch.stack(
        [
            sum(g.square().sum() for g in torch.autograd.grad(loss, [*e.parameters()], retain_graph=True))
            for e in twin.encoders.values()
        ]
    )
    torch.testing.assert_close(shares, norms / norms.sum())


def test_softmax_shares_are_those_of_the_shapley_values():
    model, batch = make(3)
    twin = copy.deepcopy(model)
    method = methods.build("msam", {"normalization": "softmax", "value": "logit"})
    method.setup(model, torch.optim.SGD(model.param_groups(), lr=0.1), {"rho": RHO})
    names = tuple(twin.modalities)
    logits = coalition_logits(twin, batch.inputs, twin.encode(batch.inputs))
    values = dict(zip(coalitions(names), VALUES["logit"](logits, batch.labels), strict=True))
    found = torch.stack([shapley_values(values)[m] for m in names])
    torch.testing.assert_close(method.step(batch).shares, found.softmax(0))


def test_sampled_shares_of_many_permutations_are_the_exact_ones():
    model, batch = make(4, "early")
    twin = copy.deepcopy(model)
    exact = set_up("msam", model).step(batch).shares
    method = methods.build("msam", {"permutations": 2000})
    method.setup(twin, torch.optim.SGD(twin.param_groups(), lr=0.1), {"rho": RHO})
    torch.manual_seed(0)
    torch.testing.assert_close(method.step(batch).shares, exact, atol=0.02, rtol=0)


def test_lazy_msam_looks_at_every_third_step_and_reuses_its_direction():
    model, batch = make(3)
    twin = copy.deepcopy(model)
    method = set_up("lazy_msam", model)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)

    def gradients(at):
        loss = F.cross_entropy(at(batch.inputs), batch.labels)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*at.parameters()])])

    for step in range(5):
        g = gradients(twin)
        if step % 3 == 0:
            share = max(shares_of(copy.deepcopy(twin), batch))
            moved = copy.deepcopy(twin)
            weights = torch.nn.utils.parameters_to_vector(moved.parameters()) + RHO * g / g.norm()
            torch.nn.utils.vector_to_parameters(weights, moved.parameters())
            direction = share * (gradients(moved) - g) / g.norm()
        whole = g + g.norm() * direction
        for p, part in zip(
            twin.parameters(), whole.split([p.numel() for p in twin.parameters()]), strict=True
        ):
            p.grad = part.view_as(p)
        sgd.step()
        report = method.step(batch)
        assert report.gradient_evaluations == (2 if step % 3 == 0 else 1)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p, q)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "nope",
            {},
            "unknown method 'nope'; choose from agm, asam, cggm, joint, lazy_msam, masam, mixture, mmpareto",
        ),
        ("msam", {"reading": "x"}, "unknown reading 'x'; choose from loss, response, encoder"),
        ("msam", {"value": "x"}, "unknown value 'x'; choose from accuracy"),
        ("msam", {"value": "gradient", "reading": "response"}, "unknown value 'gradient'; choose from acc"),
        ("msam", {"normalization": "x"}, "unknown normalization 'x'; choose from linear, softmax"),
        ("lazy_msam", {"every": 0}, "every must be at least 1, not 0"),
        ("mslr", {"window": 0}, "window must be at least 1, not 0"),
        ("msam", {"radius": 1}, "method 'msam' has no option 'radius'; known: reading, dominance, value"),
        ("mixture", {"share": 1.5}, "share must be a number in"),
        ("mixture", {"share": float("nan")}, "share must be a number in"),
    ],
)
def test_wrong_names_and_values_are_refused_with_the_choices(name, options, message):
    with pytest.raises(ValueError, match=message):
        methods.build(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unimodal", {"modality": "text"}, "unknown modality 'text'; choose from a, b"),
        ("msam", {"dominance": "fixed:text"}, "unknown modality 'text'; choose from a, b"),
        ("msam", {"dominance": "best"}, "unknown dominance rule 'best'; choose from shapley"),
        ("msam", {"dominance": "every:0"}, "dominance rule 'every:0': the number of steps must be at least"),
        ("msam", {"dominance": "every:"}, "unknown dominance rule 'every:'; choose from shapley"),
    ],
)
def test_wrong_modalities_and_rules_are_refused_before_training(name, options, message):
    with pytest.raises(ValueError, match=message):
        methods.build(name, options).check("late", ["a", "b"])


def test_msam_of_one_modality_is_undefined():
    with pytest.raises(methods.UnsupportedCell, match="compares modalities, so it needs at least two"):
        methods.build("msam").check("late", ["a"])
