"""What a plan says before anything runs: counts against arithmetic by hand and against real tensors."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msam import cells, cli, counting, estimate, methods, pipeline, studies
from msam.counting import Counts, Meter, count
from msam.datasets import _expected, av_mnist, ave, crema_d, ur_funny
from msam.datasets._source import find
from msam.models import PSP_KINDS, build_classifier

PUBLISHED = pipeline.ROOT / "results" / "embedded" / "main"


class Alone(nn.Module):
    """One layer on the modality "a", averaged over all axes behind the second."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return (
            self.layer(inputs["a"]).flatten(2).mean(2) if inputs["a"].dim() > 2 else self.layer(inputs["a"])
        )


LAYERS = {  # layer, shape of an example, multiplications of an example
    "linear": (lambda: nn.Linear(3, 5, bias=False), (3,), 3 * 5),
    "convolution": (lambda: nn.Conv2d(2, 4, 3, padding=1, bias=False), (2, 6, 8), 2 * 4 * 9 * 48),
    "strided": (lambda: nn.Conv1d(2, 4, 5, stride=2, padding=2), (2, 10), 2 * 4 * 5 * 5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_flops_of_a_layer_by_hand(name):
    """A multiplication and an addition each; the backward pass has no gradient of the input to find."""
    layer, shape, products = LAYERS[name]
    counts = count(Alone(layer()), {"a": (shape, "float32")}, 7)
    assert counts.forward[0] == 2 * 7 * products
    assert counts.both[0] == 2 * counts.forward[0]


def test_memory_of_a_layer_by_hand():
    """The evaluation batch is the largest here: its input and its output."""
    counts = count(Alone(nn.Linear(3, 5)), {"a": ((3,), "float32")}, 4)
    assert counts.alive == counting.EVALUATION_BATCH * (3 + 5) * 4


def test_views_start_no_kernel_and_bytes_go_when_tensors_do():
    with Meter() as meter:
        x = torch.zeros(10)
        y = x.view(2, 5)[1] + 1
        assert (meter.kernels, meter.live) == (2, 40 + 20)
        x.add_(1)
        assert (meter.kernels, meter.live) == (3, 40 + 20)
        del x
        assert meter.live == 20
        del y
    assert (meter.live, meter.peak) == (0, 60)


NETS = {
    "late": ("late", {"a": "image", "b": "spectrogram"}, {"a": (3, 33, 33), "b": (1, 40, 24)}, ["bf16"]),
    "early": ("early", {"a": "image"}, {"a": (1, 32, 32)}, []),
    "vectors": ("early", {"a": "vector", "b": "vector"}, {"a": (4,), "b": (9,)}, []),
    "segments": ("psp", {"a": "segments", "b": "segment_maps"}, {"a": (3, 8), "b": (3, 4, 6)}, []),
}


def small(name):
    fusion, kinds, shapes, fast = NETS[name]
    torch.manual_seed(0)
    return build_classifier(kinds, shapes, 3, fusion, 8, "paper", fast), shapes


@pytest.mark.parametrize("name", NETS)
def test_what_lives_after_a_forward_pass_is_what_torch_saves(name):
    """Real tensors; torch tells what it saves for the backward pass."""
    model, shapes = small(name)
    known = [*model.parameters(), *model.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in known}
    held = {}

    def hold(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with Meter(known) as meter, torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        inputs = {m: torch.randn(4, *shape) for m, shape in shapes.items()}
        logits = model(inputs)
        labels = torch.arange(len(logits)) % 3
        loss = F.cross_entropy(logits, labels)
        del logits
    for tensor in (*inputs.values(), labels, loss):
        hold(tensor)
    assert meter.live == pytest.approx(sum(held.values()), abs=64)  # scalars that the loss saves elsewhere
    assert meter.live > 500


@pytest.mark.parametrize("name", NETS)
def test_counts_without_content_are_those_of_real_tensors(name, monkeypatch):
    monkeypatch.setattr(counting, "EVALUATION_BATCH", 2)
    model, shapes = small(name)
    with Meter([*model.parameters(), *model.buffers()]) as meter:
        logits = model({m: torch.zeros(4, *shape) for m, shape in shapes.items()})
        F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()
    counts = count(model, {m: (shape, "float32") for m, shape in shapes.items()}, 4)
    assert counts.alive == pytest.approx(meter.peak, rel=0.02)
    assert counts.both[1] == pytest.approx(meter.kernels, rel=0.02)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_passes_are_those_that_records_have(fusion):
    """Of every method of the published run with three modalities; MSES stops early there."""
    found = {}
    for path in sorted((PUBLISHED / "controlled" / fusion).glob("*.json")):
        record = json.loads(path.read_text())
        config, seed = record["config"], record["seeds"][0]
        options = config["options"] | ({"share": 0.5} if config["method"] == "mixture" else {})
        done = estimate.passes(config["method"], json.dumps(options), fusion, ("m1", "m2", "m3"))
        found[path.stem] = (done, seed["gradient_evaluations"] / seed["steps"])
    found.pop("mses")
    assert len(found) > 15
    assert {name: told for name, (told, _) in found.items()} == {n: real for n, (_, real) in found.items()}


def test_an_undefined_cell_costs_nothing(outside):
    assert estimate.passes("outside.undefined", "{}", "early", ("a", "b")) == 0
    assert estimate.passes("outside.undefined", "{}", "late", ("a", "b")) == 1


def test_a_method_that_fails_on_the_toy_does_not_end_the_plan(outside):
    assert estimate.passes("outside.failing", "{}", "late", ("a", "b")) == 1


def paper_cell(dataset, fusion, name):
    (cell,) = studies.cells(studies.load("paper"), "main", dataset, fusion, name)
    return cell


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MSAM_CACHE", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(("flops", "kernels"), [((1e12, 3e12), (1, 1)), ((1, 3), (1000, 4000))])
def test_time_and_memory_of_a_cell_by_hand(nothing_here, monkeypatch, flops, kernels):
    """Bound by arithmetic, then by the start of kernels."""
    counts = Counts((flops[0], kernels[0]), (flops[1], kernels[1]), 7)
    monkeypatch.setattr(estimate, "network", lambda description: (1000, counts))
    found = estimate.cost(paper_cell("crema_d", "late", "msam+response").config, 5)
    pass_, forward = max(flops[1] / 30e12, kernels[1] * 1e-5), max(8 * flops[0] / 30e12, kernels[0] * 1e-5)
    epoch = 3 * (6_028 // 64) * pass_ + 7_442 / 512 * forward
    assert found.seconds == pytest.approx(5 * 100 * epoch)
    assert found.memory == 4 * 1000 + 7
    assert estimate.cost(paper_cell("crema_d", "late", "joint").config, 5).memory == 2 * 1000 + 7


# Sizes


def declared(name, **options):
    return _expected.expected(find(name, options))


def test_sizes_are_those_of_the_public_lists(nothing_here):
    assert declared("av_mnist").sizes == tuple(
        len(rows) for rows in av_mnist.split_rows(60_000, 10_000, None, None).values()
    )
    lists = {"train": [("", 0)] * 6_698, "test": [("", 0)] * 744}
    agm = tuple(map(len, crema_d._first_nine_tenths(lists).values()))
    assert declared("crema_d", protocol="agm").sizes == agm == (6_028, 745, 669)
    assert {sum(declared("crema_d", protocol=p).sizes) for p in crema_d.PROTOCOLS} == {7_442}
    assert declared("crema_d").sizes == (6_028, 670, 744)
    assert declared("ur_funny").sizes == ur_funny.VERSIONS["V2"]
    assert declared("ave", kind="clips", duplicates="keep").sizes == (3_339, 402, 402)
    videos = find("ave", {"kind": "clips"}).constant("FILES")[0].members[0][1]
    assert sum(declared("ave", kind="clips").sizes) == videos == 4_143 - 46
    assert sum(declared("ave").sizes) == 10 * videos
    assert declared("ave", kind="segments").sizes == declared("ave", kind="clips").sizes


@pytest.mark.parametrize("kind", ave.INPUT_KINDS)
def test_every_kind_of_ave_has_a_size(nothing_here, kind):
    """A segment map has places, 7 x 7 of them, and a vector one axis."""
    found, source = declared("ave", kind=kind), find("ave", {"kind": kind})
    axes = {"vector": 1, "sequence": 2, "segments": 2, "segment_maps": 3, "spectrogram": 3, "image": 4}
    assert {m: len(shape) for m, shape in found.shapes.items()} == {
        m: axes[input_kind] for m, input_kind in source.kinds.items()
    }
    if kind == "segments":
        places = 10 * 49 * 512 * 2 + 10 * 128 * 4 + 8
        assert found.nbytes(source.stored) == sum(found.sizes) * places


def test_bytes_by_hand(nothing_here):
    assert declared("av_mnist", size=112).nbytes({"image": "float32", "audio": "float16"}) == 70_000 * (
        28 * 28 * 4 + 112 * 112 * 2 + 8
    )


def test_an_option_out_of_range_is_left_to_the_data_set(nothing_here):
    assert declared("crema_d", protocol="mine") is None


def test_a_data_set_outside_may_say_it_and_a_prepared_one_is_asked(outside, nothing_here, monkeypatch):
    source = find("outside.rings", {"size": 20})
    assert _expected.expected(source) is None
    said = _expected.Expected((1, 2, 3), {"near": (5,), "far": (6,)})
    monkeypatch.setattr(source.module, "EXPECTED", lambda size, noise: said, raising=False)
    assert _expected.expected(source) == said
    from msam import datasets

    datasets.prepare("outside.rings", {"size": 20})
    assert _expected.expected(source) == _expected.Expected((20, 20, 20), {"near": (2,), "far": (2,)})


# The plan


def test_the_plan_of_the_paper_without_its_data(nothing_here, tmp_path, monkeypatch, capsys):
    """Every cell has a cost; a network is counted once, however many methods and seeds train it."""
    counted = []

    def counts(model, inputs, size):
        counted.append((type(model.fusion).__name__, json.dumps(inputs), size))
        return Counts((1e12, 100), (3e12, 300), 10**9)

    monkeypatch.chdir(tmp_path)
    estimate.network.cache_clear()
    monkeypatch.setattr(estimate, "count", counts)
    try:
        assert cli.main(["plan", "--profile", "paper"]) == 0
    finally:
        estimate.network.cache_clear()
    *cells, av, crema, funny, ave, total, note = capsys.readouterr().out.splitlines()
    grid = studies.cells(studies.load("paper"))
    assert [line.split()[0] for line in cells] == [cell.title for cell in grid]
    assert all(" GPU h " in line and line.endswith("GB  not trained yet") for line in cells)
    assert len(counted) == len(set(counted)) == 2 * (3 + 3 + 4 + 3)
    assert av.startswith("av_mnist: 70,000 examples, 1.98 GB once prepared, not here: ")
    assert av.endswith("""msam data get av_mnist --options '{"size": 112}'""")
    assert crema == "crema_d: 7,442 examples, 3.41 GB once prepared, not here: msam data get crema_d"
    assert funny.startswith("ur_funny: 9,588 examples, 1.44 GB once prepared, not here: ")
    assert ave.startswith("ave: 4,097 examples, 6.08 GB once prepared, not here: ")
    hours = sum(float(line.split()[2]) for line in cells)
    assert total.startswith(f"{len(grid)} of {len(grid)} cells to train, 3 seeds each: about ")
    assert float(total.split("about ")[1].split()[0].replace(",", "")) == pytest.approx(hours, abs=1)
    assert note == estimate.NOTE
    assert not list(nothing_here.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_plan_of_the_segments(nothing_here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "network", lambda _: (8, Counts((1e12, 100), (3e12, 300), 10**9)))
    assert cli.main(["plan", "--profile", "paper", "--study", "segments"]) == 0
    hours = {line.split()[0]: float(line.split()[2]) for line in capsys.readouterr().out.splitlines()[:13]}
    assert 1.5 < hours["ave/psp/sam"] / hours["ave/psp/joint"] < 2  # as many gradients, and an evaluation


def test_small_networks_get_no_estimate(nothing_here):
    (cell,) = studies.cells(studies.load("compact"), "main", "av_mnist", "late", "sam")
    assert pipeline._estimate(cell, 3) is None


def test_the_paper_as_it_states_its_schedule():
    for cell in studies.cells(studies.load("paper")):
        config = cell.config
        assert config["optimizer"] == {
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "milestones": [0.7],
            "gamma": 0.1,
        }
        assert (config["epochs"], config["batch_size"], config["size"]) == (100, 64, "paper")
        assert (config["fast"], math.isclose(config["epochs"] * 0.7, 70)) == (["bf16", "channels_last"], True)
    assert paper_cell("ur_funny", "late", "agm").config["options"] == {"alpha": 4.0, "cap": 7.0}
    assert paper_cell("crema_d", "early", "mslr").config["options"]["initial"] == {
        "audio": 0.9,
        "visual": 1.1,
    }
    assert paper_cell("av_mnist", "early", "agm").config["options"] == {"alpha": 2.5}
    assert paper_cell("ave", "early", "agm").config["options"] == {}


def test_the_segment_study_lists_methods_that_are_defined_there():
    grid = studies.cells(studies.load("paper"), "segments")
    assert len({cell.path(Path()) for cell in grid}) == len(grid) > 10
    for cell in grid:
        source = find(cell.config["dataset"], cell.config["dataset_options"])
        assert set(source.kinds.values()) == set(PSP_KINDS)
        share = {"share": 0.5} if cell.needs else {}
        methods.build(cell.config["method"], cell.config["options"] | share).check("psp", list(source.kinds))


# Data that are not here

MIXED = """
seeds: 1
defaults: {epochs: 1, batch_size: 32, width: 8, rho: 0.05, threads: 1,
  optimizer: {lr: 0.1, momentum: 0.9, weight_decay: 0.0, milestones: [0.7], gamma: 0.1}}
studies:
  main:
    datasets: {outside.rings: {options: {size: 24}}, crema_d: {}}
    fusions: [late]
    methods: {joint: {rho: false}, sam: {}}
"""


@pytest.fixture
def trained(outside, nothing_here, tmp_path, monkeypatch):
    """Titles of what `msam reproduce` would train, with Snakemake and the book replaced."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        pipeline, "train", lambda jobs, run, lock: seen.extend(j.cell.title for j in jobs) or []
    )
    monkeypatch.setattr(cli, "_book", lambda options: seen.append("book") or 0)
    return seen


def test_cells_without_data_are_not_run_and_the_others_are(trained, capsys):
    from msam.analysis import sources

    Path("mixed.yaml").write_text(MIXED)
    assert cli.main(["reproduce", "--profile", "mixed.yaml", "--results", "out"]) == 1
    assert trained == ["rings/late/joint", "rings/late/sam", "book"]
    said = capsys.readouterr()
    line = "not run: crema_d, 2 cells: data not available here: msam data get crema_d"
    assert line in said.out.splitlines()
    assert said.err.splitlines() == [line]
    study = sources.read("out")
    told = study.cells.set_index(["dataset", "name"])["text"].to_dict()
    assert told["crema_d", "sam"] == "not run: data not available here: msam data get crema_d"


def test_no_data_at_all_is_one_line_before_anything_runs(trained, nothing_here, capsys):
    Path("none.yaml").write_text(MIXED.replace("outside.rings: {options: {size: 24}}, ", ""))
    assert cli.main(["reproduce", "--profile", "none.yaml", "--results", "out"]) == 1
    said = capsys.readouterr()
    assert (trained, said.out) == ([], "")
    assert said.err == "msam: data not available here: msam data get crema_d\n"
    assert not list(Path("out").rglob("*.json"))


def test_a_dataset_with_two_sets_of_options_is_told_twice(nothing_here, tmp_path):
    other = """
  other:
    datasets: {crema_d: {options: {protocol: agm}}}
    fusions: [late]
    methods: {joint: {rho: false}}
"""
    study = tmp_path / "mixed.yaml"
    study.write_text(MIXED.replace("outside.rings: {options: {size: 24}}, ", "controlled: {}, ") + other)
    grid = studies.cells(studies.load(str(study)))
    grid += studies.cells(studies.load(str(study)), "other")
    jobs = [pipeline.Job(cell, "", None) for cell in grid]
    commands = ["msam data get crema_d", """msam data get crema_d --options '{"protocol": "agm"}'"""]
    assert [line.partition("not here: ")[2] for line in pipeline.data_outlook(jobs)] == commands
    left, lines = pipeline.with_data(jobs, grid, tmp_path)
    assert {job.cell.config["dataset"] for job in left} == {"controlled"}
    assert lines == [
        f"not run: crema_d, {count} cells: data not available here: {command}"
        for count, command in zip((2, 1), commands, strict=True)
    ]
    assert cells.why(grid[-1], tmp_path) == f"not run: data not available here: {commands[1]}"
    with pytest.raises(pipeline.PipelineError, match=f"{commands[0]}, msam data get crema_d --options"):
        pipeline.with_data([job for job in jobs if job not in left], grid[2:], tmp_path)


def test_a_record_stands_where_its_data_are_gone(nothing_here, tmp_path, monkeypatch):
    cell = paper_cell("crema_d", "late", "joint")
    record = {"key": cell.key, "state": "done", "seeds": [{"seed": 0}], "provenance": {"data_checksum": "x"}}
    monkeypatch.setattr(cells.records, "read", lambda path: record)
    cell.path(tmp_path).parent.mkdir(parents=True)
    cell.path(tmp_path).write_text("")
    assert cells.stale(cell, 1, tmp_path) == ""
    assert cells.stale(cell, 2, tmp_path) == "it has 1 of 2 seeds"
