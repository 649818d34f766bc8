"""What only a GPU can show: the steps of the CPU, no waiting, fp16, captured graphs, memory, NCCL."""

import copy
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_stacked import close, configs_of, toy
from test_training import CONFIG, without_timings
from torch import nn

from msam import SAM, CoalitionEvaluator, ModalityAwareSAM, cells
from msam.datasets import Split
from msam.stacked import train_seeds
from msam.training import batches, start, train_seed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = torch.device("cuda", 0)


class Net(nn.Module):
    """Two encoders, one of them convolutional, and a head."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)
        )
        self.sound = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(4 * 16 + 6, 3)

    def forward(self, image, sound):
        return self.head(torch.cat([self.image(image), self.sound(sound)], 1))

    def groups(self):
        parts = {"image": self.image, "sound": self.sound, None: self.head}
        return [{"params": list(part.parameters()), "modality": m} for m, part in parts.items()]


def net(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return Net(**settings).to(dtype)


def batch(seed=1, device="cpu", dtype=torch.float64):
    source = torch.Generator().manual_seed(seed)
    image, sound = torch.randn(8, 1, 6, 6, generator=source), torch.randn(8, 5, generator=source)
    labels = torch.randint(3, (8,), generator=source)
    return image.to(device, dtype), sound.to(device, dtype), labels.to(device)


def closure_of(model, optimizer, image, sound, labels, scale=lambda loss: loss):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image, sound), labels)
        scale(loss).backward()
        return loss

    return closure


BOTH = pytest.mark.parametrize("cls", [SAM, ModalityAwareSAM])
STEPS = {
    "sam": (SAM, {}, {}),
    "asam": (SAM, {"adaptive": True}, {}),
    "a number": (ModalityAwareSAM, {}, {"share": 0.6}),
    "a tensor": (ModalityAwareSAM, {}, {"share": partial(torch.tensor, 0.6)}),
    "not checked": (ModalityAwareSAM, {"skip_nonfinite": False}, {"share": partial(torch.tensor, 0.6)}),
    "an encoder": (ModalityAwareSAM, {}, {"share": 0.6, "dominant": "sound"}),
}
"""Case -> class, its settings, those of its step; what is callable is called with the device."""


@pytest.mark.parametrize("case", STEPS)
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_the_steps_are_those_of_the_cpu(case, base):
    cls, settings, how = STEPS[case]
    states = []
    for device in ("cpu", GPU):
        model = net().to(device)
        optimizer = cls(model.groups(), base, rho=0.3, lr=0.05, **settings)
        own = {name: v(device=device) if callable(v) else v for name, v in how.items()}
        for seed in range(5):
            optimizer.step(closure_of(model, optimizer, *batch(seed, device)), **own)
        states.append({name: x.cpu() for name, x in model.state_dict().items()})
    torch.testing.assert_close(states[1], states[0], rtol=1e-9, atol=1e-10)


@BOTH
def test_both_passes_draw_the_same_random_numbers_and_the_next_step_others(cls):
    weight = nn.Parameter(torch.ones(64, device=GPU))
    optimizer = cls([weight], torch.optim.SGD, rho=0.3, lr=0.1)
    drawn = []

    def closure():
        optimizer.zero_grad()
        drawn.append(F.dropout(torch.ones_like(weight)))
        loss = (drawn[-1] * weight).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


@BOTH
def test_float16_with_a_scaler_trains_as_float32(cls):
    losses = []
    for half in (True, False):
        model = net(torch.float32).to(GPU)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=half)
        optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1, scaler=scaler)
        found = []
        for seed in [1, 2] * 10:
            with torch.autocast("cuda", torch.float16, enabled=half):
                data = batch(seed, GPU, torch.float32)
                found.append(optimizer.step(closure_of(model, optimizer, *data, scaler.scale)).item())
            scaler.update()
        assert optimizer.skipped == 0
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.01)
    assert losses[0][-1] < losses[0][0] / 2


@BOTH
@pytest.mark.parametrize("fused", [False, True])
def test_a_scale_that_is_too_large_for_float16_is_lowered_until_steps_are_taken(cls, fused):
    model = net(torch.float32).to(GPU)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1, scaler=scaler, fused=fused)
    before = model.head.weight.clone()
    with torch.autocast("cuda", torch.float16):
        optimizer.step(closure_of(model, optimizer, *batch(1, GPU, torch.float32), scaler.scale))
        scaler.update()
        assert (scaler.get_scale(), optimizer.skipped) == (2.0**23, 1)
        assert torch.equal(model.head.weight, before)
        for _ in range(20):
            optimizer.step(closure_of(model, optimizer, *batch(1, GPU, torch.float32), scaler.scale))
            scaler.update()
    assert optimizer.skipped < 20
    assert not torch.equal(model.head.weight, before)


@BOTH
def test_a_captured_graph_of_the_model_sees_the_weights_after_a_step(cls):
    model, (image, sound, labels) = net().to(GPU).eval(), batch(device=GPU)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        model(image, sound)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        logits = model(image, sound)
    optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.5)
    graph.replay()
    first = logits.clone()
    optimizer.step(closure_of(model, optimizer, image, sound, labels))
    graph.replay()
    assert not torch.allclose(logits, first)
    torch.testing.assert_close(logits, model(image, sound).detach())


def test_a_share_outside_its_range_stops_the_program():
    code = """if True:
        import torch, msam
        w = torch.nn.Parameter(torch.ones(2, device="cuda"))
        optimizer = msam.ModalityAwareSAM([w], torch.optim.SGD, rho=0.1, lr=0.1)
        def closure():
            optimizer.zero_grad()
            loss = w.square().sum()
            loss.backward()
            return loss
        optimizer.step(closure, share=torch.tensor({share}, device="cuda"))
        torch.cuda.synchronize()
    """
    for share, fails in ((1.0, False), (1.5, True)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(share=share)], capture_output=True, text=True, check=False
        )
        assert bool(done.returncode) == fails, done.stderr


def test_m_sam_holds_at_most_one_copy_of_the_gradients_more_than_sam():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048)).to(GPU)
    x, labels = torch.randn(4, 2048, device=GPU), torch.zeros(4, dtype=torch.long, device=GPU)
    size = sum(p.nbytes for p in model.parameters())
    peaks = []
    for cls, settings in ((SAM, {}), (ModalityAwareSAM, {"share": torch.tensor(0.6, device=GPU)})):
        optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.1)

        def closure(optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            return loss

        optimizer.step(closure, **settings)
        optimizer.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        optimizer.step(closure, **settings)
        peaks.append(torch.cuda.max_memory_allocated() - held)
        optimizer.zero_grad()
    assert peaks[1] <= peaks[0] + 1.02 * size


@pytest.fixture
def workers():
    """One worker of NCCL, alone."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("kind", ["ddp", "local", "views", "shards"])
@BOTH
def test_the_steps_of_one_worker_of_nccl_are_those_without(cls, kind):
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    found = []
    for parallel in (False, True):
        model, settings = net().to(GPU), {}
        if parallel and kind == "shards":
            fully_shard(model.sound)
            fully_shard(model)
        elif parallel:
            model = DistributedDataParallel(model, gradient_as_bucket_view=kind == "views")
            settings = {"ddp": model, "sync_perturbation": kind != "local"}
        optimizer = cls(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.05, momentum=0.9, **settings)
        share = {"share": torch.tensor(0.6, device=GPU)} if cls is ModalityAwareSAM else {}
        for seed in range(4):
            optimizer.step(closure_of(model, optimizer, *batch(seed, GPU)), **share)
        found.append([p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_the_shares_of_any_model_are_those_on_the_cpu():
    model, (image, sound, labels) = net(), batch()
    expected = CoalitionEvaluator(model).shares(labels, image, sound)
    found = CoalitionEvaluator(model.to(GPU)).shares(labels.to(GPU), image.to(GPU), sound.to(GPU))
    assert {m: float(v) for m, v in found.items()} == pytest.approx(
        {m: float(v) for m, v in expected.items()}
    )


# The study


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("joint", {}),
        ("sam", {}),
        ("msam", {}),
        ("msam", {"reading": "response"}),
        ("msam", {"dominance": "fixed:a"}),
        ("msam", {"dominance": "random"}),
        ("mixture", {"share": 0.6}),
    ],
    ids=str,
)
def test_a_step_of_the_study_does_not_wait_for_the_gpu(method, options, fusion):
    config = CONFIG | {"method": method, "options": options, "fusion": fusion}
    data = toy(2).to(GPU)
    run = start(config, data, 0)
    run.model.train()
    drawn = batches(data.splits["train"], 16, run.order)
    run.method.step(next(drawn))
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps = [run.method.step(part) for part in drawn]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 3


@pytest.mark.usefixtures("no_tf32")
@pytest.mark.parametrize("method", ["joint", "sam", "msam", "mixture"])
def test_stacked_seeds_are_equal_to_each_alone(method):
    data, configs = toy(3).to(GPU), configs_of(method)
    found = train_seeds(configs, data)
    expected = [train_seed(config, data, seed) for seed, config in configs.items()]
    close([*map(without_timings, found)], [*map(without_timings, expected)], 1e-3)


def test_data_that_do_not_fit_stay_with_the_host_and_give_the_same_run(monkeypatch):
    data = toy(2)
    there = cells.placed(data, GPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 100))
    here = cells.placed(data, GPU)
    parts = [d.splits["train"] for d in (there, here)]
    assert [p.inputs["a"].is_cuda for p in parts] == [True, False]
    assert all(p.labels.is_cuda for p in parts)
    runs = [without_timings(train_seed(CONFIG | {"fusion": "late"}, d, 0)) for d in (there, here)]
    close(runs[1], runs[0], 1e-4)


def test_half_precision_inputs_and_fast_encoders_train():
    data = toy(2)
    half = {n: Split(s.inputs | {"a": s.inputs["a"].half()}, s.labels) for n, s in data.splits.items()}
    config = CONFIG | {"fusion": "late", "fast": ["bf16", "channels_last"]}
    plain, fast = (
        train_seed(c, replace(data, splits=half).to(GPU), 0) for c in (CONFIG | {"fusion": "late"}, config)
    )
    assert fast["state"] == "done"
    first, second = (run["epochs"][0]["step_loss"] for run in (plain, fast))
    assert second == pytest.approx(first, rel=0.05)


def test_a_copy_goes_on_bit_for_bit():
    model = net(dropout=0.5).to(GPU)
    optimizer = ModalityAwareSAM(model.parameters(), torch.optim.Adam, rho=0.3, lr=0.01)
    optimizer.step(closure_of(model, optimizer, *batch(0, GPU)), share=0.6)
    twin = copy.deepcopy(model)
    other = ModalityAwareSAM(twin.parameters(), torch.optim.Adam, rho=0.3, lr=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    state = torch.cuda.get_rng_state()
    for own, wrapped in ((model, optimizer), (twin, other)):
        torch.cuda.set_rng_state(state)
        for seed in range(3):
            wrapped.step(closure_of(own, wrapped, *batch(seed, GPU)), share=0.6)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
