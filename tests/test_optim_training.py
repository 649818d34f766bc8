"""SAM and M-SAM in the training loops people have: mixed precision, accumulation, clipping, bad batches."""

import copy
import pickle
import weakref
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

from msam import SAM, ModalityAwareSAM
from msam.optim import _update

BOTH = pytest.mark.parametrize("cls", [SAM, ModalityAwareSAM])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def data(count=8, seed=1):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=source), torch.randint(3, (count,), generator=source)


def wrap(cls, model, base=torch.optim.SGD, **settings):
    return cls(model.parameters(), base, **{"rho": 0.2, "lr": 0.1, **settings})


def closure_of(model, optimizer, x, y, scale=lambda loss: loss):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scale(loss).backward()
        return loss

    return closure


def step(optimizer, closure, **settings):
    return optimizer.step(
        closure, **({"share": 0.6} if type(optimizer) is ModalityAwareSAM else {}) | settings
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def spoiled(closure, in_pass, loss=float("nan"), gradient=None, of=None):
    """The closure, but in one pass the loss, or the gradient of parameter `of`, is not finite."""
    calls = []

    def bad():
        calls.append(1)
        value = closure()
        if len(calls) != in_pass:
            return value
        if gradient is None:
            return value * loss
        of.grad[0] = gradient
        return value

    return bad


# Steps that are not finite


@BOTH
@pytest.mark.parametrize("in_pass", [1, 2])
@pytest.mark.parametrize(
    "bad", [{"loss": float("nan")}, {"gradient": float("nan")}, {"gradient": float("inf")}], ids=str
)
def test_a_step_that_is_not_finite_is_skipped_and_counted_and_training_goes_on(net, cls, in_pass, bad):
    twin = copy.deepcopy(net)
    optimizer, other = (wrap(cls, m, torch.optim.Adam, lr=0.01) for m in (net, twin))
    good, good_twin = closure_of(net, optimizer, *data()), closure_of(twin, other, *data())
    step(optimizer, good)
    step(other, good_twin)
    before = copy.deepcopy(optimizer.state_dict())
    step(optimizer, spoiled(good, in_pass, of=net[0].bias, **bad))
    assert optimizer.skipped == 1
    assert type(optimizer.skipped) is int
    assert torch.equal(weights(net), weights(twin))
    for index, state in before["state"].items():
        for name, value in state.items():
            assert torch.equal(value, optimizer.state_dict()["state"][index][name])
    step(optimizer, good)
    step(other, good_twin)
    assert optimizer.skipped == 1
    assert torch.equal(weights(net), weights(twin))


def test_a_first_pass_that_is_not_finite_is_noticed_where_the_second_does_not_show_it():
    used, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = SAM([used, late], torch.optim.SGD, rho=0.1, lr=0.1)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = used.square().sum() if len(calls) == 2 else late.sum()
        loss.backward()
        if len(calls) == 1:
            late.grad[0] = float("inf")
        return loss

    optimizer.step(closure)
    assert optimizer.skipped == 1
    assert torch.equal(used, torch.ones(2))
    assert torch.equal(late, torch.ones(2))


@BOTH
def test_the_check_of_steps_can_be_left_out(net, cls):
    optimizer = wrap(cls, net, skip_nonfinite=False)
    step(optimizer, spoiled(closure_of(net, optimizer, *data()), 2, gradient=float("nan"), of=net[0].bias))
    assert optimizer.skipped == 0
    assert weights(net).isnan().any()


def test_a_share_that_is_no_number_because_the_loss_is_none_skips_the_step(net):
    optimizer = wrap(ModalityAwareSAM, net)
    before = weights(net)
    step(optimizer, spoiled(closure_of(net, optimizer, *data()), 1), share=lambda: torch.tensor(float("nan")))
    assert optimizer.skipped == 1
    assert torch.equal(weights(net), before)


@BOTH
@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_bit_for_bit(net, cls, again):
    optimizer = wrap(cls, net, torch.optim.Adam, lr=0.01, adaptive=True, skip_nonfinite=True)
    step(optimizer, closure_of(net, optimizer, *data()))
    step(optimizer, spoiled(closure_of(net, optimizer, *data()), 1))
    twin, other = again((net, optimizer))
    assert other.skipped == 1
    assert other.base.param_groups is other.param_groups
    assert other.base.state is other.state
    for seed in range(3):
        step(optimizer, closure_of(net, optimizer, *data(seed=seed)))
        step(other, closure_of(twin, other, *data(seed=seed)))
    assert torch.equal(weights(net), weights(twin))


COPIES = {"itself": lambda o: o, "copy": copy.deepcopy, "pickle": lambda o: pickle.loads(pickle.dumps(o))}


@BOTH
@pytest.mark.parametrize("again", COPIES)
def test_a_base_that_loads_a_checkpoint_stays_linked(net, cls, again):
    net, optimizer = COPIES[again]((net, wrap(cls, net, momentum=0.9)))
    step(optimizer, closure_of(net, optimizer, *data()))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.base.load_state_dict(copy.deepcopy(optimizer.base.state_dict()))
    assert optimizer.base.param_groups is optimizer.param_groups
    assert optimizer.base.state is optimizer.state
    step(optimizer, closure_of(net, optimizer, *data()))
    schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05


def test_a_base_outlives_its_wrapper(net):
    optimizer = wrap(SAM, net)
    base, gone = optimizer.base, weakref.ref(optimizer)
    del optimizer
    assert gone() is None  # without the garbage collector: there is no cycle
    base.load_state_dict(base.state_dict())


@pytest.mark.parametrize("through", [lambda o: o, lambda o: o.base], ids=["wrapper", "base"])
def test_groups_keep_what_the_checkpoint_of_a_plain_optimizer_lacks(net, through):
    groups = [
        {"params": net[0].parameters(), "rho": 0.5, "modality": "audio"},
        {"params": net[2].parameters()},
    ]
    plain = torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[2].parameters()}], lr=0.3)
    saved = plain.state_dict()
    expected = copy.deepcopy(saved)
    optimizer = ModalityAwareSAM(groups, torch.optim.SGD, rho=0.2, lr=0.1)
    through(optimizer).load_state_dict(saved)
    found = [(g["lr"], g["rho"], g.get("modality")) for g in optimizer.base.param_groups]
    assert found == [(0.3, 0.5, "audio"), (0.3, 0.2, None)]
    assert saved == expected
    optimizer.step(closure_of(net, optimizer, *data()), share=0.6, dominant="audio")


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint_takes_the_base(net):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    optimizer = wrap(SAM, net, torch.optim.AdamW, lr=0.01)
    optimizer.step(closure_of(net, optimizer, *data()))
    twin = copy.deepcopy(net)
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer.base))
    other = wrap(SAM, twin, torch.optim.AdamW, lr=0.5, rho=0.9)
    with pytest.raises(TypeError, match=r"can have `optimizer\.base`, which is not SAM"):
        set_optimizer_state_dict(twin, other, copy.deepcopy(saved))
    twin.zero_grad()
    set_optimizer_state_dict(twin, other.base, saved)
    assert other.base.param_groups is other.param_groups
    for seed in range(3):
        optimizer.step(closure_of(net, optimizer, *data(seed=seed)))
        other.step(closure_of(twin, other, *data(seed=seed)))
    assert torch.equal(weights(net), weights(twin))


# Closures


@BOTH
@pytest.mark.parametrize(("value", "name"), [(None, "NoneType"), (0.5, "float")])
def test_a_closure_that_returns_no_tensor_is_refused_and_nothing_moves(net, cls, value, name):
    before, optimizer = weights(net), wrap(cls, net)
    closure = closure_of(net, optimizer, *data())
    with pytest.raises(TypeError, match=f"the closure must return the loss, a tensor, not {name}"):
        step(optimizer, lambda: closure() and value)
    assert torch.equal(weights(net), before)


@BOTH
def test_a_step_needs_a_closure(net, cls):
    with pytest.raises(TypeError, match="step needs a closure"):
        wrap(cls, net).step(None)


@BOTH
@pytest.mark.parametrize("adds_up_in_step", [0, 1])
def test_a_closure_that_adds_to_gradients_from_before_is_refused(net, cls, adds_up_in_step):
    """As that of Lightning is with `accumulate_grad_batches`."""
    optimizer = wrap(cls, net)
    x, y = data()
    for _ in range(adds_up_in_step):
        step(optimizer, closure_of(net, optimizer, x, y))
    before = weights(net)

    def closure():
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    optimizer.zero_grad()
    closure()
    with pytest.raises(RuntimeError, match="the closure must clear the gradients"):
        step(optimizer, closure)
    assert torch.equal(weights(net), before)
    step(optimizer, closure_of(net, optimizer, x, y))


CLEARED = {  # before the step, in the closure
    "to zeros": (lambda o, m: None, lambda o, m: o.zero_grad(set_to_none=False)),
    "by the model": (lambda o, m: None, lambda o, m: m.zero_grad()),
    "to zeros by the model": (lambda o, m: None, lambda o, m: m.zero_grad(set_to_none=False)),
    "before the step": (lambda o, m: o.zero_grad(), lambda o, m: None),
    "to zeros before the step": (lambda o, m: o.zero_grad(set_to_none=False), lambda o, m: None),
    "after another backward pass": (
        lambda o, m: (o.zero_grad(), m(data()[0]).sum().backward()),
        lambda o, m: o.zero_grad(set_to_none=False),
    ),
}


@BOTH
@pytest.mark.parametrize("way", CLEARED)
def test_gradients_may_be_cleared_in_many_ways(net, cls, way):
    twin = copy.deepcopy(net)
    optimizer, other = wrap(cls, net, momentum=0.9), wrap(cls, twin, momentum=0.9)
    before, inside = CLEARED[way]
    for seed in range(3):
        x, y = data(seed=seed)

        def closure(x=x, y=y):
            inside(optimizer, net)
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        before(optimizer, net)
        step(optimizer, closure)
        step(other, closure_of(twin, other, x, y))
    assert torch.equal(weights(net), weights(twin))


@pytest.mark.filterwarnings("ignore")
def test_batches_that_lightning_accumulates_are_refused(net):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return wrap(SAM, self)

    quiet = dict.fromkeys(
        ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
    )
    batches = torch.utils.data.DataLoader([data(seed=seed) for seed in range(4)], batch_size=None)
    for accumulated, allowed in ((1, True), (2, False)):
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulated, **quiet
        )
        with nullcontext() if allowed else pytest.raises(RuntimeError, match="must clear the gradients"):
            trainer.fit(Module(), batches)


# Gradients that are missing, or that no perturbation is defined for


@pytest.mark.parametrize("missing_in", [1, 2])
@pytest.mark.parametrize("share", [0.25, torch.tensor(0.25)])
def test_a_gradient_that_is_missing_in_one_pass_counts_as_zero_in_the_mix(missing_in, share):
    always, once = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))
    optimizer = ModalityAwareSAM([always, once], torch.optim.SGD, rho=0.5, lr=1.0)
    calls = []

    def closure():
        calls.append((always.item(), once.item()))
        optimizer.zero_grad()
        loss = always.square().sum() + (once.square().sum() if len(calls) != missing_in else 0)
        loss.backward()
        return loss

    optimizer.step(closure, share=share)
    if missing_in == 1:
        assert calls[1] == pytest.approx((3.5, 4.0))
        assert once.item() == pytest.approx(4 - 0.25 * 8)
    else:
        assert calls[1] == pytest.approx((3.3, 4.4))
        assert once.item() == pytest.approx(4 - 0.75 * 8)


@pytest.mark.parametrize("missing_in", [1, 2])
def test_sam_restores_a_parameter_whose_gradient_is_missing_in_one_pass(missing_in):
    always, once = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))
    optimizer = SAM([always, once], torch.optim.SGD, rho=0.5, lr=1.0)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = always.square().sum() + (once.square().sum() if len(calls) != missing_in else 0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert once.item() == (4.0 if missing_in == 2 else 4 - 8.0)


@BOTH
def test_complex_parameters_are_refused_and_no_group_is_added(net, cls):
    odd = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="complex parameters"):
        cls([odd], torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="complex parameters"):
        cls([{"params": [("odd", odd)]}], torch.optim.SGD, lr=0.1)
    optimizer = wrap(cls, net)
    with pytest.raises(ValueError, match="complex parameters"):
        optimizer.add_param_group({"params": odd})
    assert len(optimizer.param_groups) == 1


@BOTH
@pytest.mark.parametrize("sparse_in", [1, 2])
def test_sparse_gradients_are_refused_and_nothing_moves(cls, sparse_in):
    table = nn.Embedding(5, 2, sparse=True)
    before = weights(table)
    optimizer = wrap(cls, table)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        table.sparse = len(calls) == sparse_in
        loss = table(torch.tensor([1, 3])).square().sum()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="sparse gradients"):
        step(optimizer, closure)
    assert torch.equal(weights(table), before)


# What others do around a step


def test_sam_equals_that_of_pytorch_optimizer(net):
    oracle = pytest.importorskip("pytorch_optimizer")
    for adaptive in (False, True):
        twin = copy.deepcopy(net)
        optimizer = wrap(SAM, net, adaptive=adaptive, rho=0.5, momentum=0.9)
        other = oracle.SAM(
            twin.parameters(), torch.optim.SGD, rho=0.5, adaptive=adaptive, lr=0.1, momentum=0.9
        )
        for seed in range(5):
            optimizer.step(closure_of(net, optimizer, *data(seed=seed)))
            closure = closure_of(twin, other, *data(seed=seed))
            closure()
            other.step(closure)
        torch.testing.assert_close(weights(net), weights(twin))


@BOTH
def test_a_hook_of_the_base_clips_the_final_gradient_only(net, cls):
    twin, before, seen = copy.deepcopy(net), weights(net), []
    optimizer, unclipped = wrap(cls, net, lr=1.0), wrap(cls, twin, lr=1.0)
    optimizer.base.register_step_pre_hook(
        lambda *_: seen.append(float(clip_grad_norm_(net.parameters(), 0.01)))
    )
    step(optimizer, closure_of(net, optimizer, *data()))
    step(unclipped, closure_of(twin, unclipped, *data()))
    whole, moved = weights(twin) - before, weights(net) - before
    assert seen == pytest.approx([float(whole.norm())], rel=1e-4)
    torch.testing.assert_close(moved, whole * 0.01 / whole.norm(), rtol=1e-3, atol=1e-6)


@BOTH
def test_micro_batches_in_the_closure_equal_the_whole_batch(net, cls):
    twin = copy.deepcopy(net)
    optimizer, other = wrap(cls, net, momentum=0.9), wrap(cls, twin, momentum=0.9)
    for seed in range(3):
        x, y = data(12, seed)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            total = torch.zeros(())
            for part, labels in zip(x.split(4), y.split(4), strict=True):
                loss = F.cross_entropy(net(part), labels) / 3
                loss.backward()
                total += loss.detach()
            return total

        mean = step(optimizer, closure)
        torch.testing.assert_close(mean, step(other, closure_of(twin, other, x, y)))
    torch.testing.assert_close(weights(net), weights(twin))


@BOTH
def test_a_scheduler_changes_the_next_step(net, cls):
    optimizer = wrap(cls, net, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch == 0))
    before = weights(net)
    step(optimizer, closure_of(net, optimizer, *data()))
    moved = weights(net)
    assert not torch.equal(moved, before)
    schedule.step()
    step(optimizer, closure_of(net, optimizer, *data()))
    assert torch.equal(weights(net), moved)


def test_the_state_of_a_plain_optimizer_can_be_taken_over(net):
    base = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    closure_of(net, base, *data())()
    base.step()
    optimizer = wrap(SAM, net, momentum=0.9, rho=0.4)
    optimizer.load_state_dict(base.state_dict())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.3, 0.4)
    optimizer.step(closure_of(net, optimizer, *data()))


@BOTH
def test_parameters_stay_where_they_are_in_memory_also_as_views_of_one_buffer(net, cls):
    twin = copy.deepcopy(net)
    flat = weights(net)
    for p, part in zip(net.parameters(), flat.split([p.numel() for p in net.parameters()]), strict=True):
        p.data = part.view_as(p)
    places = [p.data_ptr() for p in net.parameters()]
    optimizer, other = wrap(cls, net), wrap(cls, twin)
    inside = []
    for seed in range(2):
        closure = closure_of(net, optimizer, *data(seed=seed))
        step(
            optimizer,
            lambda closure=closure: inside.append([p.data_ptr() for p in net.parameters()]) or closure(),
        )
        step(other, closure_of(twin, other, *data(seed=seed)))
    assert [*inside, [p.data_ptr() for p in net.parameters()]] == [places] * 5
    assert torch.equal(flat, weights(twin))


# Mixed precision


@BOTH
def test_bf16_autocast_sees_the_perturbed_weights_also_if_entered_around_the_loop(net, cls):
    twin, (x, y) = copy.deepcopy(net), data()
    optimizer, other = wrap(cls, net, rho=1.0), wrap(cls, twin, rho=1.0)

    def losses_of(model, to):
        losses = []

        def closure():
            to.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), y)
            loss.backward()
            losses.append(loss.item())
            return loss

        for _ in range(3):
            step(to, closure)
        return losses

    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(net, optimizer)
    assert losses[0] < losses[1]
    assert losses == losses_of(twin, other)
    assert torch.equal(weights(net), weights(twin))


@BOTH
def test_parameters_of_two_precisions_have_one_norm(cls):
    a, b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = cls([a, b], torch.optim.SGD, rho=1.0, lr=1.0)
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append(a.item())
        loss = 0.5 * (a.square().sum() + b.float().square().sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen[1] == pytest.approx(3 + 3 / 12**0.5, rel=1e-6)


@BOTH
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_loss_gives_the_same_steps(net, cls, base, fused):
    twin = copy.deepcopy(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = wrap(cls, net, base, lr=0.01, scaler=scaler, fused=fused)
    other = wrap(cls, twin, base, lr=0.01, fused=fused)
    seen = []
    optimizer.base.register_step_pre_hook(lambda *_: seen.append(float(net[0].weight.grad.norm())))
    other.base.register_step_pre_hook(lambda *_: seen.append(float(twin[0].weight.grad.norm())))
    for seed in range(4):
        loss = step(optimizer, closure_of(net, optimizer, *data(seed=seed), scaler.scale))
        scaler.update()
        torch.testing.assert_close(loss, step(other, closure_of(twin, other, *data(seed=seed))))
    torch.testing.assert_close(weights(net), weights(twin), rtol=1e-5, atol=1e-6)
    assert seen[::2] == pytest.approx(seen[1::2], rel=1e-4)
    assert optimizer.skipped == 0


@BOTH
@pytest.mark.parametrize("in_pass", [1, 2])
@pytest.mark.parametrize("skip", [True, False])
def test_an_overflow_lowers_the_scale_and_skips_the_step(net, cls, in_pass, skip):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = wrap(cls, net, momentum=0.9, scaler=scaler, skip_nonfinite=skip)
    before = weights(net)
    good = closure_of(net, optimizer, *data(), scaler.scale)
    step(optimizer, spoiled(good, in_pass, gradient=float("inf"), of=net[0].bias))
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert torch.equal(weights(net), before)
    assert not optimizer.state
    assert optimizer.skipped == int(skip)
    step(optimizer, good)
    scaler.update()
    assert not torch.equal(weights(net), before)


def test_an_overflow_that_only_the_first_pass_shows_lowers_the_scale():
    used, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = SAM([used, late], torch.optim.SGD, rho=0.1, lr=0.1, scaler=scaler)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = used.square().sum() if len(calls) == 2 else late.sum()
        scaler.scale(loss).backward()
        if len(calls) == 1:
            late.grad[0] = float("inf")
        return loss

    optimizer.step(closure)
    scaler.update()
    assert (scaler.get_scale(), optimizer.skipped) == (512.0, 1)
    assert torch.equal(used, torch.ones(2))


@BOTH
def test_a_scaler_that_is_switched_off_changes_nothing(net, cls):
    twin = copy.deepcopy(net)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer, other = wrap(cls, net, scaler=scaler), wrap(cls, twin)
    step(optimizer, closure_of(net, optimizer, *data(), scaler.scale))
    scaler.update()
    step(other, closure_of(twin, other, *data()))
    assert torch.equal(weights(net), weights(twin))


# BatchNorm that several GPUs share


def test_statistics_of_synchronized_batch_norm_move_in_the_first_pass_only():
    net = nn.Sequential(nn.Linear(4, 3), nn.SyncBatchNorm(3))
    twin, (x, y) = copy.deepcopy(net), data()
    optimizer = wrap(SAM, net, rho=5.0, lr=0.0)
    optimizer.step(closure_of(net, optimizer, x, y))
    twin(x)
    for name, buffer in net[1].named_buffers():
        assert torch.equal(buffer, twin[1].get_buffer(name)), name


# The arithmetic


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_fused_update_equals_a_loop(adaptive):
    torch.manual_seed(0)
    shapes = [(3, 2), (4,), (), (2, 1, 2)]
    w, g = ([torch.randn(s) for s in shapes] for _ in range(2))
    radii = [0.1, 0.2, 0.3, 0.4]
    scale = [t.abs() if adaptive else torch.ones_like(t) for t in w]
    norm = torch.cat([(s * t).flatten() for s, t in zip(scale, g, strict=True)]).norm()
    expected = [t + r * s * s * d / norm for t, r, s, d in zip(w, radii, scale, g, strict=True)]
    kept = [t.clone() for t in g]
    returned = _update.ascend(w, g, radii, adaptive)
    torch.testing.assert_close(returned, norm)
    torch.testing.assert_close(w, expected)
    assert all(torch.equal(a, b) for a, b in zip(g, kept, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, torch.tensor(0.3)])
def test_the_fused_mix_equals_a_loop(share):
    torch.manual_seed(0)
    clean, perturbed = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
    expected = [(1 - share) * g + share * h for g, h in zip(clean, perturbed, strict=True)]
    torch.testing.assert_close(_update.interpolate(clean, perturbed, share), expected)
    loop = _update.interpolate([*clean, None], [*perturbed, None], share)
    assert loop.pop() is None
    for consume in (False, True):
        fused = _update.interpolate(clean, perturbed, share, consume)
        assert all(torch.equal(a, b) for a, b in zip(loop, fused, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_radius_that_all_parameters_share_acts_as_one_of_several(dtype):
    torch.manual_seed(0)
    w, g = ([torch.randn(9).to(dtype), torch.randn(4, 3).to(dtype)] for _ in range(2))
    twin = [t.clone() for t in w]
    _update.ascend(w, g, [0.3, 0.3])
    _update.ascend(twin, g, [0.3, 0.7])
    assert torch.equal(w[0], twin[0])
    assert not torch.equal(w[1], twin[1])


@pytest.mark.parametrize("radii", [[0.1, 0.2], [0.1, 0.1]])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_perturbation_compiles_to_one_graph(adaptive, radii):
    torch._dynamo.reset()
    torch.manual_seed(0)
    w, g = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
    twin = [t.clone() for t in w]
    compiled = torch.compile(_update.ascend, backend="aot_eager", fullgraph=True)
    norm = compiled(w, g, radii, adaptive)
    torch.testing.assert_close(norm, _update.ascend(twin, g, radii, adaptive))
    torch.testing.assert_close(w, twin)


@pytest.mark.parametrize("share", [0.3, torch.tensor(0.3)])
def test_the_mix_compiles_to_one_graph(share):
    torch._dynamo.reset()
    torch.manual_seed(0)
    g, h = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
    compiled = torch.compile(_update.interpolate, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(g, h, share), _update.interpolate(g, h, share))


@BOTH
def test_a_compiled_model_takes_the_steps_of_the_plain_one(net, cls):
    torch._dynamo.reset()
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend="aot_eager")
    optimizer, other = wrap(cls, net), wrap(cls, twin)
    for seed in range(2):
        step(optimizer, closure_of(compiled, optimizer, *data(seed=seed)))
        step(other, closure_of(twin, other, *data(seed=seed)))
    torch.testing.assert_close(weights(net), weights(twin))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_on_a_gpu_does_not_wait_for_it_but_for_the_check(net, cls, adaptive):
    net = nn.Sequential(net, nn.BatchNorm1d(3), nn.Dropout(0.1)).cuda()
    x, y = (t.cuda() for t in data())
    optimizer = wrap(cls, net, adaptive=adaptive, skip_nonfinite=False)
    settings = {"share": torch.tensor(0.6, device="cuda")} if cls is ModalityAwareSAM else {}
    closure = closure_of(net, optimizer, x, y)
    optimizer.step(closure, **settings)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step(closure, **settings)
        optimizer.skip_nonfinite = True
        with pytest.raises(RuntimeError, match="synchronizing"):
            optimizer.step(closure, **settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
