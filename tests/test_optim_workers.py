"""SAM and M-SAM on two processes: DistributedDataParallel and `fully_shard` against one process by hand.

Both processes run all cases once and leave what came out in a file; the tests read it.
"""

import types
from contextlib import nullcontext
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from msam import SAM, CoalitionEvaluator, ModalityAwareSAM
from msam.models import build_classifier
from msam.optim import _workers, reference

STEPS = 3
SHARES = (0.3, 0.9)
RHO, LR = 0.5, 0.1


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(step, rank=None):
    source = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=source, dtype=torch.float64)
    y = torch.randint(3, (8,), generator=source)
    part = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    return x[part], y[part]


def closure_of(model, optimizer, x, y, factor=1.0):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss * factor

    return closure


def weights(model):
    full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return torch.cat([p.detach().flatten() for p in full])


def train(cls, model, optimizer, rank, share=None, steps=STEPS):
    share = SHARES[rank] if share is None else share
    for step in range(steps):
        closure = closure_of(model, optimizer, *batch(step, rank))
        optimizer.step(closure, **({"share": share} if cls is ModalityAwareSAM else {}))
    return weights(model)


def optimizer_of(cls, model, **settings):
    return cls(model.parameters(), torch.optim.SGD, rho=RHO, lr=LR, momentum=0.9, **settings)


def parallel(rank, cls, known=True, view=False, **settings):
    ddp = DistributedDataParallel(make_net(), gradient_as_bucket_view=view)
    return ddp, optimizer_of(cls, ddp, ddp=ddp if known else None, **settings)


def trained(rank, cls, **settings):
    ddp, optimizer = parallel(rank, cls, **settings)
    return train(cls, ddp, optimizer, rank)


TRAINED = {
    "synchronized_sam": partial(trained, cls=SAM),
    "sam_that_does_not_know_of_ddp": partial(trained, cls=SAM, known=False),
    "synchronized_msam": partial(trained, cls=ModalityAwareSAM),
    "synchronized_msam_in_views": partial(trained, cls=ModalityAwareSAM, view=True),
    "local_sam": partial(trained, cls=SAM, sync_perturbation=False),
    "local_msam": partial(trained, cls=ModalityAwareSAM, sync_perturbation=False),
    "local_msam_in_views": partial(trained, cls=ModalityAwareSAM, view=True, sync_perturbation=False),
}


def case_micro_batches(rank):
    ddp, optimizer = parallel(rank, ModalityAwareSAM)
    for step in range(STEPS):
        x, y = batch(step, rank)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            total = 0.0
            for i in (0, 2):
                with ddp.no_sync() if i == 0 else nullcontext():
                    loss = F.cross_entropy(ddp(x[i : i + 2]), y[i : i + 2]) / 2
                    loss.backward()
                total = total + loss.detach()
            return total

        optimizer.step(closure, share=SHARES[rank])
    return weights(ddp)


def rest_of(model, x, kept):
    def rest():
        logits = kept[0] if kept else model(x)
        (0.3 * logits.square().mean()).backward()

    return rest


def case_rest_losses(rank):
    """Weights by whether `rest` reads the graph of the first pass, and by the kind of gradients."""
    results = {}
    for retained, view in ((True, False), (False, False), (False, True)):
        ddp, optimizer = parallel(rank, ModalityAwareSAM, view=view)
        for step in range(STEPS):
            x, y = batch(step, rank)
            kept = []

            def closure(x=x, y=y, ddp=ddp, optimizer=optimizer, kept=kept, retained=retained):
                optimizer.zero_grad()
                logits = ddp(x)
                if retained:
                    kept.append(logits)
                loss = 0.7 * F.cross_entropy(logits, y)
                loss.backward(retain_graph=retained)
                return loss

            optimizer.step(closure, rest=rest_of(ddp, x, kept))
        results[retained, view] = weights(ddp)
    return results


def case_scaled_loss(rank):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ddp, optimizer = parallel(rank, SAM, scaler=scaler)
    for step in range(STEPS):
        x, y = batch(step, rank)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(ddp(x), y)
            scaler.scale(loss).backward()
            return loss

        optimizer.step(closure)
        scaler.update()
    return weights(ddp)


def case_bad_batches_of_one_worker(rank):
    """(skipped steps, weights) after a step where worker 1 alone has a bad batch, for each way to train."""
    results = {}
    nan = float("nan")
    for cls in (SAM, ModalityAwareSAM):
        for name, settings in {
            "known": {},
            "local": {"sync_perturbation": False},
            "unknown": {"known": False},
        }.items():
            for bad in ("loss", "input"):
                ddp, optimizer = parallel(rank, cls, **settings)
                x, y = batch(0, rank)
                ill = rank == 1
                x = x * nan if ill and bad == "input" else x
                closure = closure_of(ddp, optimizer, x, y, nan if ill and bad == "loss" else 1.0)
                # a share of a bad batch is no number, which only workers that know of each other can share
                share = nan if ill and name != "unknown" else 0.5
                optimizer.step(closure, **({"share": share} if cls is ModalityAwareSAM else {}))
                results[cls.__name__, name, bad] = optimizer.skipped, weights(ddp)
    return results


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
        self.never = nn.Linear(4, 3).double()

    def forward(self, x, both):
        return self.always(x) + self.sometimes(x) if both else self.always(x)


def case_a_branch_that_one_worker_uses(rank):
    ddp = DistributedDataParallel(Branches(), find_unused_parameters=True)
    optimizer = optimizer_of(ModalityAwareSAM, ddp, ddp=ddp, sync_perturbation=False, weight_decay=0.1)
    x, y = batch(0, rank)
    optimizer.step(closure_of(lambda x: ddp(x, rank == 1), optimizer, x, y), share=SHARES[rank])
    return weights(ddp)


def case_overflow_in_the_first_pass_of_one_worker(rank):
    """(skipped, scale, weights) after an overflow that the second pass does not show."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ddp = DistributedDataParallel(Branches(), find_unused_parameters=True)
    optimizer = optimizer_of(SAM, ddp, ddp=ddp, sync_perturbation=False, scaler=scaler)
    x, y = batch(0, rank)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = F.cross_entropy(ddp(x, True).nan_to_num(), y)
        scaler.scale(loss).backward()
        if rank == 1 and len(calls) == 1:
            ddp.module.sometimes.bias.grad[0] = float("inf")
        return loss

    optimizer.step(closure)
    scaler.update()
    return optimizer.skipped, scaler.get_scale(), weights(ddp)


def sharded():
    from torch.distributed.fsdp import fully_shard

    net = make_net()
    fully_shard(net[0])
    fully_shard(net)
    return net


def case_sharded_sam(rank):
    net = sharded()
    return train(SAM, net, optimizer_of(SAM, net), rank)


def case_sharded_adaptive_sam(rank):
    net = sharded()
    return train(SAM, net, optimizer_of(SAM, net, adaptive=True), rank)


def case_sharded_msam(rank):
    net = sharded()
    return train(ModalityAwareSAM, net, optimizer_of(ModalityAwareSAM, net), rank)


def named(net, model, names, rank, **settings):
    """Trained with a dominant modality for each worker."""
    groups = [{"params": list(net[i].parameters()), "modality": m} for i, m in ((0, "audio"), (2, "video"))]
    optimizer = ModalityAwareSAM(groups, torch.optim.SGD, rho=RHO, lr=LR, **settings)
    for step in range(STEPS):
        closure = closure_of(model, optimizer, *batch(step, rank))
        optimizer.step(closure, 0.6, dominant=names[rank or 0])
    return weights(net)


def case_different_names(rank):
    ddp = DistributedDataParallel(make_net())
    return named(ddp.module, ddp, ("video", "audio"), rank, ddp=ddp)


def case_sharded_different_names(rank):
    net = sharded()
    return named(net, net, ("video", "audio"), rank)


def classifier():
    torch.manual_seed(0)
    return build_classifier(
        {"image": "vector", "audio": "vector"}, {"image": (3,), "audio": (4,)}, 3, "early", 8
    )


def answers(model, inputs):
    return torch.stack(list(CoalitionEvaluator(model).logits(inputs).values()))


def case_coalitions_of_shards(rank):
    """Logits of a sharded model, whose `encode` gathers nothing, and of a plain one."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(rank)
    inputs = {"image": torch.randn(5, 3), "audio": torch.randn(5, 4)}
    net = classifier()
    fully_shard(net)
    return answers(net, inputs), answers(classifier(), inputs)


def case_sharded_scaled_loss(rank):
    """(skipped, scale, weights); worker 1 has an overflow in a step more than the others."""
    net = sharded()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = optimizer_of(SAM, net, scaler=scaler)
    for step in range(STEPS + 1):
        x, y = batch(step, rank)
        last = step == STEPS

        def closure(x=x, y=y, last=last):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            if last and rank == 1:
                net[0].bias.grad.to_local()[0] = float("inf")
            return loss

        optimizer.step(closure)
        scaler.update()
    return optimizer.skipped, scaler.get_scale(), weights(net)


def case_sharded_bad_batch(rank):
    net = sharded()
    optimizer = optimizer_of(ModalityAwareSAM, net)
    places = [p.to_local().data_ptr() for p in net.parameters()]
    closure = closure_of(net, optimizer, *batch(0, rank), float("nan") if rank == 1 else 1.0)
    optimizer.step(closure, share=0.5)
    return optimizer.skipped, weights(net), places == [p.to_local().data_ptr() for p in net.parameters()]


OWN = {name[5:]: case for name, case in globals().items() if name.startswith("case_")}
CASES = dict(sorted({**TRAINED, **OWN}.items()))


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(seconds=30), rank=rank, world_size=2)
    torch.save({name: case(rank) for name, case in CASES.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory, no_gpu):  # where `fully_shard` would put the shards
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def alone(cls, **settings):
    """One process with the whole batch and the mean share."""
    net = make_net()
    return train(cls, net, optimizer_of(cls, net, **settings), None, share=sum(SHARES) / 2)


def local_by_hand(share):
    """Every worker perturbs along its own gradient; share 1 is SAM."""
    net = make_net()
    base = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
    for step in range(STEPS):
        mixes = []
        for rank in range(2):
            x, y = batch(step, rank)

            def loss(model, x=x, y=y):
                return F.cross_entropy(model(x), y)

            clean = reference.gradients_of(net, loss)
            perturbed = reference.gradients_at_perturbed(net, loss, clean, RHO)
            mixes.append({n: share * perturbed[n] + (1 - share) * clean[n] for n in clean})
        for name, p in net.named_parameters():
            p.grad = (mixes[0][name] + mixes[1][name]) / 2
        base.step()
    return weights(net)


EXPECTED = {
    "synchronized_sam": lambda: alone(SAM),
    "sam_that_does_not_know_of_ddp": lambda: alone(SAM),
    "scaled_loss": lambda: alone(SAM),
    "synchronized_msam": lambda: alone(ModalityAwareSAM),
    "synchronized_msam_in_views": lambda: alone(ModalityAwareSAM),
    "micro_batches": lambda: alone(ModalityAwareSAM),
    "local_sam": lambda: local_by_hand(1.0),
    "local_msam": lambda: local_by_hand(0.6),
    "local_msam_in_views": lambda: local_by_hand(0.6),
    "sharded_sam": lambda: alone(SAM),
    "sharded_adaptive_sam": lambda: alone(SAM, adaptive=True),
    "sharded_msam": lambda: alone(ModalityAwareSAM),
    "different_names": lambda: named(net := make_net(), net, ("audio",), None),
    "sharded_different_names": lambda: named(net := make_net(), net, ("audio",), None),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_two_workers_take_the_same_step_which_is_that_of_one(results, case):
    first, second = (result[case] for result in results)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, EXPECTED[case](), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("retained", "view"), [(True, False), (False, False), (False, True)])
def test_a_rest_loss_on_two_workers_is_averaged(results, retained, view):
    first, second = (result["rest_losses"][retained, view] for result in results)
    assert torch.equal(first, second)
    net = make_net()
    optimizer = optimizer_of(ModalityAwareSAM, net)
    for step in range(STEPS):
        x, y = batch(step)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = 0.7 * F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        optimizer.step(closure, rest=rest_of(net, x, []))
    torch.testing.assert_close(first, weights(net), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bad", ["loss", "input"])
@pytest.mark.parametrize("way", ["known", "local", "unknown"])
@pytest.mark.parametrize("cls", ["SAM", "ModalityAwareSAM"])
def test_a_bad_batch_of_one_worker_is_skipped_by_both_or_by_none(results, cls, way, bad):
    (skipped, first), (also, second) = (r["bad_batches_of_one_worker"][cls, way, bad] for r in results)
    # a loss alone is not told to workers that do not know of each other
    assert (skipped, also) == ((0, 0) if (way, bad) == ("unknown", "loss") else (1, 1))
    assert torch.equal(first, second)
    assert torch.equal(first, weights(make_net())) == bool(skipped)


def test_a_bad_batch_of_one_worker_is_skipped_by_both_with_shards_which_stay_in_place(results):
    for result in results:
        skipped, after, in_place = result["sharded_bad_batch"]
        assert (skipped, in_place) == (1, True)
        assert torch.equal(after, weights(make_net()))


def test_an_overflow_of_one_worker_lowers_the_scale_of_both(results):
    for result in results:
        skipped, scale, after = result["overflow_in_the_first_pass_of_one_worker"]
        assert (skipped, scale) == (1, 512.0)
        assert torch.equal(after, weights(Branches()))


def test_a_scaled_loss_with_shards(results):
    for result in results:
        skipped, scale, after = result["sharded_scaled_loss"]
        assert (skipped, scale) == (1, 512.0)
        torch.testing.assert_close(after, alone(SAM), rtol=1e-9, atol=1e-10)


def test_a_branch_that_one_worker_uses_is_averaged_and_one_that_none_uses_stays(results):
    first, second = (result["a_branch_that_one_worker_uses"] for result in results)
    assert torch.equal(first, second)
    net = Branches()
    mixes = []
    for rank in range(2):
        x, y = batch(0, rank)

        def loss(model, x=x, y=y, rank=rank):
            return F.cross_entropy(model(x, rank == 1), y)

        clean = reference.gradients_of(net, loss)
        perturbed = reference.gradients_at_perturbed(net, loss, clean, RHO)
        mixes.append({n: 0.6 * perturbed[n] + 0.4 * clean[n] for n in clean})
    base = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=0.1)
    for name, p in net.named_parameters():
        p.grad = None if name.startswith("never") else (mixes[0][name] + mixes[1][name]) / 2
    base.step()
    torch.testing.assert_close(first, weights(net), rtol=1e-9, atol=1e-10)


def test_coalitions_of_shards_are_those_of_the_whole_model(results):
    for result in results:
        torch.testing.assert_close(*result["coalitions_of_shards"])


def test_a_local_perturbation_needs_the_model():
    with pytest.raises(ValueError, match="sync_perturbation=False needs the DistributedDataParallel model"):
        SAM(make_net().parameters(), torch.optim.SGD, lr=0.1, sync_perturbation=False)


def test_a_local_perturbation_is_refused_for_a_static_graph():
    ddp = types.SimpleNamespace(static_graph=True)
    with pytest.raises(ValueError, match="needs a DistributedDataParallel without static_graph"):
        SAM(make_net().parameters(), torch.optim.SGD, lr=0.1, ddp=ddp, sync_perturbation=False)


def test_the_modality_that_most_workers_name_is_the_dominant_one(monkeypatch):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "modality": m} for m in ("video", "audio", "text")]
    optimizer = ModalityAwareSAM(groups, torch.optim.SGD, lr=0.1)
    monkeypatch.setattr(optimizer, "_workers", lambda: ["all"])
    others = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0]])  # audio, text, video
    monkeypatch.setattr(_workers, "average", lambda votes, _: [torch.stack([*votes, *others]).mean(0)])
    assert [group["modality"] for group in optimizer._groups_of("text")] == ["video"]
    assert [group["modality"] for group in optimizer._groups_of("audio")] == ["audio"]  # a tie
