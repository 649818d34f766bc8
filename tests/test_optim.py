"""The optimizers against their reference twins, closed forms, and what they promise about state."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msam import MSAM, SAM, ModalityAwareSAM
from msam.optim import reference
from msam.optim._passes import frozen_batch_norm
from msam.optim.modality_aware import _checked_share, _holds


class Net(nn.Module):
    """Two named encoders with BatchNorm and dropout, and a head."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.audio = nn.Sequential(
            nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout)
        )
        self.video = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(12, 3)

    def forward(self, batch):
        return self.head(torch.cat([self.audio(batch["audio"]), self.video(batch["video"])], 1))

    def groups(self):
        modules = {"audio": self.audio, "video": self.video, None: self.head}
        return [{"params": list(module.parameters()), "modality": m} for m, module in modules.items()]


@pytest.fixture(autouse=True)
def _double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def batches(count, seed=1):
    source = torch.Generator().manual_seed(seed)
    for _ in range(count):
        inputs = {"audio": torch.randn(8, 4, generator=source), "video": torch.randn(8, 5, generator=source)}
        yield inputs, torch.randint(3, (8,), generator=source)


def closure_of(model, optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    return closure


def joint_loss(batch):
    return lambda model: F.cross_entropy(model(batch[0]), batch[1])


def assert_same_state(model, twin):
    for (name, value), expected in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


BASES = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


@pytest.mark.parametrize("base", BASES)
def test_sam_equals_its_reference_over_many_steps(net, base):
    twin = copy.deepcopy(net)
    cls, settings = BASES[base]
    optimizer = SAM(net.parameters(), cls, rho=0.1, **settings)
    twin_base = cls(twin.parameters(), **settings)
    for step, batch in enumerate(batches(12)):
        torch.manual_seed(step)
        optimizer.step(closure_of(net, optimizer, joint_loss(batch)))
        torch.manual_seed(step)
        reference.sam_step(twin, joint_loss(batch), twin_base, rho=0.1)
    assert_same_state(net, twin)


@pytest.mark.parametrize("dominant", [None, "audio", "video"])
@pytest.mark.parametrize("base", BASES)
def test_modality_aware_sam_equals_its_reference_over_many_steps(net, base, dominant):
    twin = copy.deepcopy(net)
    cls, settings = BASES[base]
    optimizer = ModalityAwareSAM(net.groups(), cls, rho=0.2, **settings)
    twin_base = cls(twin.parameters(), **settings)
    only = None if dominant is None else [n for n, _ in twin.named_parameters() if n.startswith(dominant)]
    for step, batch in enumerate(batches(12)):
        share = 0.5 + 0.04 * step
        loss = joint_loss(batch)
        torch.manual_seed(step)
        optimizer.step(closure_of(net, optimizer, loss), share=lambda v=share: v, dominant=dominant)
        torch.manual_seed(step)
        reference.modality_aware_step(
            twin,
            lambda model, v=share, loss=loss: v * loss(model),
            lambda model, v=share, loss=loss: (1 - v) * loss(model),
            twin_base,
            0.2,
            only,
        )
    assert_same_state(net, twin)


def test_a_rest_loss_of_its_own_equals_the_reference(net):
    twin = copy.deepcopy(net)
    optimizer = ModalityAwareSAM(net.parameters(), torch.optim.SGD, rho=0.2, lr=0.1)
    twin_base = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step, (inputs, labels) in enumerate(batches(6)):

        def dominant(model, inputs=inputs, labels=labels):
            return 0.7 * F.cross_entropy(model(inputs), labels)

        def rest(model, inputs=inputs):
            return 0.3 * model(inputs).square().mean()

        torch.manual_seed(step)
        optimizer.step(closure_of(net, optimizer, dominant), rest=lambda rest=rest: rest(net).backward())
        after = torch.get_rng_state()
        torch.manual_seed(step)
        reference.modality_aware_step(twin, dominant, rest, twin_base, 0.2)
        assert torch.equal(torch.get_rng_state(), after)
    assert_same_state(net, twin)


def test_sam_on_a_quadratic_is_the_closed_form():
    a = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
    w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = SAM([w], torch.optim.SGD, rho=0.3, lr=0.05)
    g = a @ w.detach()
    expected = w.detach() - 0.05 * a @ (w.detach() + 0.3 * g / g.norm())
    optimizer.step(closure_of(w, optimizer, lambda w: 0.5 * w @ a @ w))
    torch.testing.assert_close(w.detach(), expected)


def test_the_literal_reading_is_a_mixture_of_the_sam_and_the_plain_gradient(net):
    """v L(w + eps) and (1 - v) L(w) have one common direction eps, whatever v: PAPER, Algorithm 1."""
    (batch,) = batches(1)
    net.eval()
    loss = joint_loss(batch)
    clean = reference.gradients_of(net, loss)
    perturbed = reference.gradients_at_perturbed(net, loss, clean, 0.3)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer = ModalityAwareSAM(net.parameters(), torch.optim.SGD, rho=0.3, lr=1.0)
    optimizer.step(closure_of(net, optimizer, loss), share=torch.tensor(0.7))
    for name, p in net.named_parameters():
        expected = before[name] - 0.7 * perturbed[name] - 0.3 * clean[name]
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("share", "twin_class"), [(1.0, SAM), (0.0, None)])
def test_share_one_is_sam_and_share_zero_the_base_optimizer_bit_for_bit(net, share, twin_class):
    twin = copy.deepcopy(net)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer = ModalityAwareSAM(net.parameters(), torch.optim.SGD, rho=0.1, **settings)
    twin_base = torch.optim.SGD(twin.parameters(), **settings)
    other = SAM(None, twin_base, rho=0.1) if twin_class else twin_base
    for step, batch in enumerate(batches(8)):
        torch.manual_seed(step)
        optimizer.step(closure_of(net, optimizer, joint_loss(batch)), share=share)
        torch.manual_seed(step)
        other.step(closure_of(twin, other, joint_loss(batch)))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("cls", [SAM, ModalityAwareSAM])
@pytest.mark.parametrize("adaptive", [False, True])
def test_to_maximize_is_to_minimize_the_negative_bit_for_bit(net, cls, adaptive):
    twin = copy.deepcopy(net)
    settings = {"rho": 0.5, "lr": 0.1, "momentum": 0.9, "adaptive": adaptive}
    optimizer = cls(net.parameters(), torch.optim.SGD, **settings)
    other = cls(twin.parameters(), torch.optim.SGD, maximize=True, **settings)
    share = {} if cls is SAM else {"share": 0.6}
    for step, batch in enumerate(batches(4)):
        torch.manual_seed(step)
        optimizer.step(closure_of(net, optimizer, joint_loss(batch)), **share)
        torch.manual_seed(step)
        other.step(closure_of(twin, other, lambda m, batch=batch: -joint_loss(batch)(m)), **share)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_step_returns_the_loss_of_the_clean_pass(net):
    (batch,) = batches(1)
    expected = joint_loss(batch)(copy.deepcopy(net).eval())
    net.eval()
    for cls in (SAM, ModalityAwareSAM):
        optimizer = cls(net.parameters(), torch.optim.SGD, rho=0.5, lr=0.0)
        torch.testing.assert_close(optimizer.step(closure_of(net, optimizer, joint_loss(batch))), expected)


def test_both_passes_draw_the_same_dropout_and_the_next_draw_is_a_new_one():
    net = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5))
    masks = []
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.0, lr=0.0)

    def closure():
        optimizer.zero_grad()
        output = net(torch.ones(2, 4))
        masks.append(output == 0)
        loss = output.sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, type("Subclass", (nn.BatchNorm1d,), {})])
def test_batch_norm_statistics_move_in_the_first_pass_only(norm):
    net = nn.Sequential(nn.Linear(3, 3), norm(3))
    twin = copy.deepcopy(net)
    x = torch.randn(16, 3)
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=5.0, lr=0.0)
    optimizer.step(closure_of(net, optimizer, lambda m: m(x).square().mean() + m[0].weight.sum()))
    twin(x)
    for name, buffer in net[1].named_buffers():
        assert torch.equal(buffer, twin[1].get_buffer(name)), name
    assert net[1].track_running_stats
    net(x)
    assert net[1].num_batches_tracked == 2


def test_frozen_batch_norm_changes_what_training_layers_keep_and_nothing_else():
    x = torch.randn(16, 3)
    layers = {
        "training": nn.BatchNorm1d(3),
        "evaluating": nn.BatchNorm1d(3).eval(),
        "without statistics": nn.BatchNorm1d(3, track_running_stats=False),
    }
    outputs = {name: copy.deepcopy(layer)(x) for name, layer in layers.items()}
    with frozen_batch_norm():
        for name, layer in layers.items():
            assert torch.equal(layer(x), outputs[name]), name
            layer.track_running_stats = name != "evaluating"
    assert [layer.track_running_stats for layer in layers.values()] == [True, False, True]
    assert layers["training"].num_batches_tracked == 0


def test_blocks_of_two_threads_may_overlap():
    first, second = frozen_batch_norm(), frozen_batch_norm()
    for block in (first, second):
        block.__enter__()
    for block in (first, second):
        block.__exit__(None, None, None)
    layer = nn.BatchNorm1d(3)
    layer(torch.randn(4, 3))
    assert layer.num_batches_tracked == 1


def in_place(net, **options):
    net.compile(**options)
    return net


COMPILED = {
    "model": torch.compile,
    "model in place": in_place,
    "part in place": lambda net, **options: nn.Sequential(in_place(net, **options)),
    "function": lambda net, **options: torch.compile(lambda x: net(x), **options),
    "forward": lambda net, **options: torch.compile(net.forward, **options),
}


class Normalized(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), norm(3)

    def forward(self, x):
        return self.norm(self.linear(x))


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, type("Subclass", (nn.BatchNorm1d,), {})])
def test_batch_norm_statistics_of_compiled_code_move_in_the_first_pass_only(norm, compiled):
    """Whatever its owner compiles, and when; no step may compile anew."""
    torch._dynamo.reset()
    graphs = []
    plain = Normalized(norm)
    net = copy.deepcopy(plain)
    called = COMPILED[compiled](net, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    x = torch.randn(16, 3)
    for model, function in ((plain, plain), (net, called)):
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=5.0, lr=0.1)
        function(x)
        for _ in range(3):
            optimizer.step(closure_of(model, optimizer, lambda _m, f=function: f(x).pow(3).mean()))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    assert net.norm.num_batches_tracked == 4
    assert len(graphs) == 2


@pytest.mark.parametrize("fails_in_pass", [1, 2])
def test_an_exception_in_the_closure_leaves_the_weights_and_batch_norm_as_they_were(net, fails_in_pass):
    before = copy.deepcopy(list(net.parameters()))
    (batch,) = batches(1)
    optimizer = ModalityAwareSAM(net.parameters(), torch.optim.SGD, rho=1.0, lr=1.0)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = joint_loss(batch)(net)
        loss.backward()
        if len(calls) == fails_in_pass:
            raise RuntimeError("out of memory")
        return loss

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure, share=0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm1d))


def test_a_group_has_its_own_radius():
    a, b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))
    groups = [{"params": [a], "rho": 0.5}, {"params": [b]}]
    optimizer = SAM(groups, torch.optim.SGD, rho=1.0, lr=1.0)
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append((a.item(), b.item()))
        loss = 0.5 * (a**2 + b**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen[1] == pytest.approx((3 + 0.5 * 3 / 5, 4 + 1.0 * 4 / 5))


def test_resuming_from_a_checkpoint_is_exact(net):
    data = list(batches(6))
    optimizer = ModalityAwareSAM(net.parameters(), torch.optim.SGD, rho=0.1, lr=0.1, momentum=0.9)

    def run(model, optimizer, part):
        for step, batch in enumerate(part):
            torch.manual_seed(step)
            optimizer.step(closure_of(model, optimizer, joint_loss(batch)), share=0.6)

    run(net, optimizer, data[:3])
    twin = copy.deepcopy(net)
    resumed = ModalityAwareSAM(twin.parameters(), torch.optim.SGD, rho=0.9, lr=0.9, momentum=0.9)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(net, optimizer, data[3:])
    run(twin, resumed, data[3:])
    assert resumed.param_groups[0]["rho"] == 0.1
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_scheduler_on_the_wrapper_moves_the_base_learning_rate(net):
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.1, lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    (batch,) = batches(1)
    optimizer.step(closure_of(net, optimizer, joint_loss(batch)))
    schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=8),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.1, 1.0, step_size_up=3),
    ],
    ids=["one cycle", "cyclic"],
)
def test_a_scheduler_that_reads_the_defaults_takes_the_wrapper_for_the_base(net, base, schedule):
    (batch,) = batches(1)
    settings = {"lr": 0.1, "momentum": 0.9} if base is torch.optim.SGD else {"lr": 0.1}
    found = []
    for optimizer in (SAM(net.parameters(), base, **settings), base(net.parameters(), **settings)):
        scheduler = schedule(optimizer)
        (group,) = getattr(optimizer, "base", optimizer).param_groups
        found.append([])
        for _ in range(7):
            found[-1].append((group["lr"], group.get("momentum"), group.get("betas")))
            optimizer.step(closure_of(net, optimizer, joint_loss(batch)))
            scheduler.step()
    assert found[0] == found[1]
    assert len(set(found[0])) > 3


def test_a_deep_copy_is_independent_and_complete(net):
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.1, lr=1.0, momentum=0.9)
    twin = copy.deepcopy(optimizer)
    assert twin.base.param_groups is twin.param_groups
    assert twin.param_groups[0]["params"][0] is not optimizer.param_groups[0]["params"][0]


def test_a_parameter_without_gradient_stays_where_it_is():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = ModalityAwareSAM([used, unused], torch.optim.SGD, rho=0.1, lr=0.1, weight_decay=1.0)
    optimizer.step(closure_of(used, optimizer, lambda w: w.sum()), share=0.5)
    assert unused.grad is None
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_a_group_can_be_added_later(net):
    optimizer = SAM(net.audio.parameters(), torch.optim.SGD, rho=0.1, lr=1.0)
    optimizer.add_param_group({"params": list(net.video.parameters())})
    assert len(optimizer.base.param_groups) == 2
    assert optimizer.param_groups[1]["rho"] == 0.1
    optimizer.base.add_param_group({"params": list(net.head.parameters())})
    assert optimizer.param_groups[2]["rho"] == 0.1


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_a_wrong_radius_is_refused(net, rho):
    with pytest.raises(ValueError, match="rho must be finite and >= 0"):
        SAM(net.parameters(), torch.optim.SGD, rho=rho, lr=0.1)


def test_parameters_that_are_sharded_in_part_are_refused(net):
    next(net.parameters()).full_tensor = None  # by this a DTensor is told from others
    with pytest.raises(ValueError, match="some parameters are sharded and others not: call fully_shard"):
        SAM(net.parameters(), torch.optim.SGD, lr=0.1)


def test_a_base_that_is_no_optimizer_is_refused(net):
    with pytest.raises(TypeError, match="base must be an optimizer's class or an instance of one, not 'sgd'"):
        SAM(net.parameters(), "sgd", lr=0.1)


@pytest.mark.parametrize(("share", "exact"), [(1 + 1e-7, 1.0), (-1e-7, 0.0)])
def test_a_share_beside_an_end_by_rounding_is_the_end(share, exact):
    loss = torch.tensor(1.0)
    assert _checked_share(torch.tensor(share, dtype=torch.float64), loss) == exact
    assert _holds(torch.tensor(share, dtype=torch.float64), loss)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), torch.tensor(float("nan"))])
def test_a_wrong_share_is_refused_and_nothing_moves(net, share):
    before = copy.deepcopy(list(net.parameters()))
    (batch,) = batches(1)
    optimizer = MSAM(net.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        optimizer.step(closure_of(net, optimizer, joint_loss(batch)), share=share)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("share", [-INF, -0.1, 0.0, 0.3, 1.0, 1.1, INF, NAN])
@pytest.mark.parametrize("loss", [-2.0, 0.0, 3e38, INF, -INF, NAN])
def test_a_share_on_a_gpu_is_held_to_the_rule_of_the_cpu(share, loss):
    allowed = 0 <= share <= 1 or (math.isnan(share) and not math.isfinite(loss))
    share, loss = torch.tensor(share), torch.tensor(loss)
    assert bool(_holds(share, loss)) == allowed
    with nullcontext() if allowed else pytest.raises(ValueError, match="share must lie in"):
        _checked_share(share, loss)


def test_an_unknown_modality_is_refused_with_the_known_ones(net):
    (batch,) = batches(1)
    optimizer = MSAM(net.groups(), torch.optim.SGD, rho=0.1, lr=0.1)
    with pytest.raises(ValueError, match="modality 'text'; known: audio, video"):
        optimizer.step(closure_of(net, optimizer, joint_loss(batch)), share=0.5, dominant="text")


def test_contradicting_arguments_are_refused(net):
    base = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="pass params=None"):
        SAM(net.parameters(), base)
    with pytest.raises(ValueError, match="needs an optimizer instance"):
        SAM(None, torch.optim.SGD, lr=0.1)


def test_a_refused_radius_leaves_the_optimizer_as_it_was(net):
    base = torch.optim.SGD(net.parameters(), lr=0.1)
    odd = torch.optim.SGD([{"params": [p]} for p in net.parameters()], lr=0.1)
    odd.param_groups[-1]["rho"] = -1.0
    for optimizer, rho in ((base, -1.0), (odd, 0.2)):
        with pytest.raises(ValueError, match=r"rho must be finite and >= 0, not -1\.0"):
            SAM(None, optimizer, rho=rho)
    assert "rho" not in base.defaults.keys() | base.param_groups[0].keys()
    assert "rho" not in odd.param_groups[0]
    assert SAM(None, base, rho=0.1).param_groups[0]["rho"] == 0.1


def test_an_optimizer_is_wrapped_once_and_its_groups_keep_their_own_radii(net):
    base = torch.optim.SGD([{"params": net.audio.parameters(), "rho": 0.5}], lr=0.1)
    optimizer = SAM(None, base, rho=0.1)
    assert base.param_groups[0]["rho"] == 0.5
    for wrapped in (base, optimizer, copy.deepcopy(base)):
        with pytest.raises(ValueError, match="has a rho already, its own or of another SAM around it"):
            ModalityAwareSAM(None, wrapped, rho=0.2)
    assert base.param_groups[0]["rho"] == 0.5


def test_a_base_that_sam_cannot_be_around_is_refused(net):
    with pytest.raises(ValueError, match="Adadelta has a rho already"):
        SAM(net.parameters(), torch.optim.Adadelta, rho=0.1)
    with pytest.raises(ValueError, match="Adadelta has a rho already"):
        SAM(None, torch.optim.Adadelta(net.parameters()), rho=0.1)
    with pytest.raises(ValueError, match="LBFGS calls closures itself"):
        SAM(net.parameters(), torch.optim.LBFGS, rho=0.1)
