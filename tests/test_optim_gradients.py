"""Steps whose closures leave unusual gradients or losses, or take steps of their own."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msam import SAM, ModalityAwareSAM
from msam.optim import reference

BOTH = pytest.mark.parametrize("cls", [SAM, ModalityAwareSAM])


class Three(nn.Module):
    """Parameters of 6, 6 and 8 numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(2, 3)) for _ in range(2))
        self.c = nn.Parameter(torch.randn(8))


def alike(m):
    """The gradients of a and b are one tensor."""
    return (m.a.reshape(6) + m.b.reshape(6)).pow(2).sum() + m.c.pow(4).sum()


def within(m):
    """That of a lies inside that of c."""
    return (torch.cat([m.b[0, :2], m.a.flatten()]) + m.c).pow(3).sum()


def spread(m):
    """That of a is one number."""
    return m.a.sum() + m.b.pow(2).sum() * m.c.pow(2).sum()


def backward(model, value):
    value.backward()


def by_hand(model, value):
    parameters = list(model.parameters())
    for p, g in zip(parameters, torch.autograd.grad(value, parameters, allow_unused=True), strict=True):
        p.grad = g


def closure_of(model, optimizer, loss, differentiate):
    def closure():
        optimizer.zero_grad()
        value = loss(model)
        differentiate(model, value)
        return value

    return closure


@pytest.mark.parametrize("share", [None, 0.3, torch.tensor(0.3)])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("differentiate", [backward, by_hand])
@pytest.mark.parametrize("loss", [alike, within, spread])
def test_gradients_may_lie_in_one_another(loss, differentiate, adaptive, share, monkeypatch):
    torch.manual_seed(0)
    model = Three().double()
    twin = copy.deepcopy(model)
    cls, more = (SAM, {}) if share is None else (ModalityAwareSAM, {"share": share})
    if isinstance(share, torch.Tensor):  # as on a GPU, where the host does not read it
        monkeypatch.setattr("msam.optim.modality_aware._checked_share", lambda share, _: share)
    optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.2, lr=0.01, adaptive=adaptive)
    base = torch.optim.SGD(twin.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.step(closure_of(model, optimizer, loss, differentiate), **more)
        clean = reference.gradients_of(twin, loss)
        moved = reference.gradients_at_perturbed(twin, loss, clean, 0.2, adaptive=adaptive)
        v = 1.0 if share is None else float(share)
        reference._step(twin, base, {n: v * moved[n] + (1 - v) * clean[n] for n in clean})
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_m_sam_refuses_gradients_of_both_passes_in_one_place():
    model = Three()
    kept = [torch.zeros_like(p) for p in model.parameters()]
    optimizer = ModalityAwareSAM(model.parameters(), torch.optim.SGD, rho=0.2, lr=0.01)

    def closure():
        value = alike(model)
        for p, g, new in zip(
            model.parameters(), kept, torch.autograd.grad(value, list(model.parameters())), strict=True
        ):
            p.grad = g.copy_(new)
        return value

    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="the second pass wrote its gradients over those of the first"):
        optimizer.step(closure, 0.3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@BOTH
def test_a_loss_that_every_pass_writes_into_one_tensor_is_that_of_the_first(cls):
    torch.manual_seed(0)
    model = Three()
    optimizer = cls(model.parameters(), torch.optim.SGD, rho=2.0, lr=0.01)
    total, clean = torch.zeros(()), alike(model).item()

    def closure():
        optimizer.zero_grad()
        value = alike(model)
        value.backward()
        return total.copy_(value.detach())

    assert float(optimizer.step(closure)) == clean


def test_a_step_inside_a_step_leaves_batch_norm_as_it_is_in_the_second_pass():
    torch.manual_seed(0)
    outer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    inner = copy.deepcopy(outer)
    x, labels = torch.randn(8, 3), torch.randint(2, (8,))
    optimizers = {m: SAM(m.parameters(), torch.optim.SGD, rho=0.1, lr=0.1) for m in (outer, inner)}

    def closure(model, first=lambda: None):
        first()
        optimizers[model].zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        return loss

    step_inside = partial(optimizers[inner].step, partial(closure, inner))
    optimizers[outer].step(partial(closure, outer, step_inside))
    assert (int(outer[1].num_batches_tracked), int(inner[1].num_batches_tracked)) == (1, 1)
    inner(x)
    assert int(inner[1].num_batches_tracked) == 2


@BOTH
@pytest.mark.parametrize("again", [lambda o: o, copy.deepcopy])
def test_hooks_of_checkpoints_run_wherever_they_were_registered(cls, again):
    optimizer = again(cls(nn.Linear(2, 1).parameters(), torch.optim.SGD, rho=0.1, lr=0.1))
    said = []
    for holder in (optimizer, optimizer.base):
        holder.register_state_dict_pre_hook(lambda *_: said.append("save"))
        holder.register_state_dict_post_hook(lambda *_: said.append("saved"))
        holder.register_load_state_dict_pre_hook(lambda *_: said.append("load"))
        holder.register_load_state_dict_post_hook(lambda *_: said.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert said == ["save"] * 2 + ["saved"] * 2 + ["load"] * 2 + ["loaded"] * 2


@BOTH
def test_a_group_without_parameters_takes_a_step(cls):
    optimizer = cls([{"params": []}], torch.optim.SGD, rho=0.1, lr=0.1)
    assert float(optimizer.step(lambda: torch.tensor(2.0))) == 2.0


@BOTH
def test_the_radius_does_not_ask_for_the_default_device(cls):
    model = Three()
    optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.2, lr=0.0)
    norms = []
    start = [p.detach().clone() for p in model.parameters()]

    def closure():
        optimizer.zero_grad()
        moved = [(p - q).flatten() for p, q in zip(model.parameters(), start, strict=True)]
        norms.append(float(torch.cat(moved).norm()))
        value = alike(model)
        value.backward()
        return value

    with torch.device("meta"):
        optimizer.step(closure)
    assert norms == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize("share", [None, "half", {"audio": 1.0}, lambda: None])
def test_a_share_that_is_no_number_is_refused(share):
    model = Three()
    optimizer = ModalityAwareSAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)
    with pytest.raises(TypeError, match="share must be a number or a 0-dim tensor, or return one, not"):
        optimizer.step(closure_of(model, optimizer, alike, backward), share)


@BOTH
def test_a_compiled_step_is_the_step(cls):
    torch.manual_seed(0)
    model = Three()
    twin = copy.deepcopy(model)
    for m, wrap in ((model, lambda f: f), (twin, partial(torch.compile, backend="eager"))):
        optimizer = cls(m.parameters(), torch.optim.SGD, rho=0.1, lr=0.01)
        step = wrap(optimizer.step)
        for _ in range(3):
            step(closure_of(m, optimizer, alike, backward))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)
