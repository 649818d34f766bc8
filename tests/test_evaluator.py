"""Shares for any model: against forwards that are muted by hand, for every way to call a model."""

import copy
import re
from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msam import CoalitionEvaluator, ModalityAwareSAM
from msam.coalitions import NORMALIZATIONS, VALUES, batch_shares
from msam.models import build_classifier
from msam.shapley import coalitions

SHAPES = {"image": (1, 12, 12), "sensor": (2, 20), "text": (5, 7), "meta": (6,)}
KINDS = {"image": "image", "sensor": "sensor", "text": "sequence", "meta": "vector"}
NAMES = [["image", "sensor"], ["image", "sensor", "meta"], list(SHAPES)]
LABELS = torch.arange(9) % 4


def classifier(names, fusion="early", size=9):
    torch.manual_seed(0)
    model = build_classifier({m: KINDS[m] for m in names}, {m: SHAPES[m] for m in names}, 4, fusion, 8)
    inputs = {m: torch.randn(size, *SHAPES[m]) for m in names}
    model(inputs)  # moves the running statistics away from their start
    return model, inputs


class Net(nn.Module):
    """Two modalities and a mask, any way it is called; BatchNorm and dropout in between."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(7), nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, image, audio, mask=None):
        joined = torch.cat([image if mask is None else image * mask, audio], 1)
        return self.head(self.drop(self.norm(joined)))


class DictNet(Net):
    def forward(self, batch, mask=None):
        return super().forward(batch["image"], batch["audio"], mask)


def net(kind=Net):
    torch.manual_seed(1)
    model = kind()
    image, audio = torch.randn(9, 3) + 1, torch.randn(9, 4)
    model({"image": image, "audio": audio}) if kind is DictNet else model(image, audio)
    return model, image, audio


def by_hand(model, inputs, modalities):
    """Every coalition by a full forward of a copy of the model."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return {
            present: model({m: x if m in present else torch.zeros_like(x) for m, x in inputs.items()})
            for present in coalitions(tuple(modalities))
        }


def assert_same(found, expected, **tolerance):
    assert list(found) == list(expected)
    for coalition, logits in expected.items():
        torch.testing.assert_close(found[coalition], logits, **tolerance)


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("names", NAMES, ids=len)
def test_a_model_that_shares_features_answers_as_by_hand_and_as_one_that_does_not(names, fusion):
    model, inputs = classifier(names, fusion)
    expected = by_hand(model, inputs, names)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert_same(CoalitionEvaluator(model).logits(inputs), expected, rtol=1e-4, atol=1e-5)
    assert not calls  # `encode` and `fuse` alone
    whole = CoalitionEvaluator(model, output=lambda out: out)
    assert_same(whole.logits(inputs), expected, rtol=0, atol=0)
    assert len(calls) == 2 ** len(names) - 1


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("names", NAMES, ids=len)
def test_shares_are_those_of_the_coalitions(names, value, normalization):
    model, inputs = classifier(names)
    logits = torch.stack(list(by_hand(model, inputs, names).values()))
    expected = batch_shares(logits, LABELS, names, value, normalization)
    evaluator = CoalitionEvaluator(model, value=value, normalization=normalization)
    shares = evaluator.shares(LABELS, inputs)
    assert list(shares) == names
    torch.testing.assert_close(torch.stack(list(shares.values())), expected, rtol=1e-3, atol=1e-4)
    assert all(share.shape == () for share in shares.values())
    assert torch.equal(evaluator.dominant_share(LABELS, inputs), max(shares.values()))


def test_every_way_to_call_a_model_gives_the_same():
    model, image, audio = net()
    twin, *_ = net(DictNet)
    named = {"image": image, "audio": audio}
    expected = by_hand(twin, named, ["image", "audio"])
    exact = {"rtol": 0, "atol": 0}
    assert_same(CoalitionEvaluator(twin).logits(named), expected, **exact)
    for args, kwargs in (((), named), ((image, audio), {}), ((image,), {"audio": audio})):
        assert_same(CoalitionEvaluator(model).logits(*args, **kwargs), expected, **exact)


@pytest.mark.parametrize("way", ["positional", "keyword", "dict"])
def test_inputs_that_are_no_modality_are_passed_as_they_are(way):
    model, image, audio = net(DictNet if way == "dict" else Net)
    mask = (torch.arange(9) % 2).float()[:, None]
    evaluator = CoalitionEvaluator(model, modalities=("image", "audio"))
    if way == "positional":
        found = evaluator.logits(image, audio, mask)
    elif way == "keyword":
        found = evaluator.logits(image, audio, mask=mask)
    else:
        found = evaluator.logits({"image": image, "audio": audio}, mask=mask)
    twin, *_ = net(DictNet)
    assert_same(found, by_hand(twin, {"image": image * mask, "audio": audio}, ["image", "audio"]))


@pytest.mark.parametrize("named", [("meta", "image"), ("meta",)])
@pytest.mark.parametrize("output", [None, lambda out: out])
def test_a_modality_that_is_not_named_is_always_there(output, named):
    names = ["image", "sensor", "meta"]
    model, inputs = classifier(names)
    found = CoalitionEvaluator(model, modalities=named, output=output).logits(inputs)
    truth = by_hand(model, inputs, names)
    expected = {s: truth[s | (set(names) - set(named))] for s in coalitions(named)}
    assert_same(found, expected, rtol=1e-4, atol=1e-5)


def test_inputs_that_a_sharing_model_does_not_know_are_not_lost():
    model, inputs = classifier(["image", "sensor"])
    found = CoalitionEvaluator(model).logits({**inputs, "length": 3})
    assert_same(found, by_hand(model, inputs, ["image", "sensor"]), rtol=1e-4, atol=1e-5)


def test_token_numbers_are_muted_as_numbers():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.linear = nn.Embedding(10, 4), nn.Linear(3, 4)

        modalities = ("tokens", "meta")

        def encode(self, inputs):
            return {"tokens": self.words(inputs["tokens"]).mean(1), "meta": self.linear(inputs["meta"])}

        def fuse(self, features):
            return sum(features.values())

        def forward(self, inputs):
            return self.fuse(self.encode(inputs))

    model, inputs = Tokens(), {"tokens": torch.randint(1, 10, (9, 5)), "meta": torch.randn(9, 3)}
    assert_same(CoalitionEvaluator(model).logits(inputs), by_hand(model, inputs, model.modalities))


def test_a_function_as_value_and_what_is_not_a_tensor_as_output():
    class Output(Net):
        def forward(self, image, audio):
            return SimpleNamespace(logits=super().forward(image, audio))

    model, image, audio = net(Output)
    plain, *_ = net()
    expected = CoalitionEvaluator(plain, value="loss").shares(LABELS, image, audio)
    evaluator = CoalitionEvaluator(model, value=VALUES["loss"], output=lambda out: out.logits)
    assert evaluator.shares(LABELS, image, audio) == expected

    def right(logits, labels):
        return (logits.argmax(-1) == labels).sum(-1)  # whole numbers

    image = image * torch.tensor([9.0, 1.0, 1.0])
    counted = CoalitionEvaluator(plain, value=right).shares(LABELS, image, audio)
    accuracy = CoalitionEvaluator(plain).shares(LABELS, image, audio)
    assert accuracy["image"] != 0.5
    for m, share in counted.items():
        torch.testing.assert_close(share, accuracy[m])


@pytest.mark.parametrize("kind", ["shared", "whole", "noisy"])
def test_nothing_of_the_model_or_of_the_random_numbers_changes(kind):
    class Noisy(Net):
        def forward(self, image, audio):
            return super().forward(image + torch.randn_like(image), F.dropout(audio, training=True))

    if kind == "shared":
        model, inputs = classifier(["image", "sensor"])
        args = (inputs,)
        model.encoders["image"].eval()
    else:
        model, *args = net(Noisy if kind == "noisy" else Net)
        model.norm.eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    state, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    evaluator = CoalitionEvaluator(model)
    logits, share = evaluator.logits(*args), evaluator.dominant_share(LABELS, *args)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == flags
    assert any(flags)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert not any(z.requires_grad for z in (*logits.values(), share))


def test_training_flags_come_back_after_an_error():
    model, image, audio = net()
    with pytest.raises(RuntimeError):
        CoalitionEvaluator(model).logits(image, audio[:3])
    assert all(m.training for m in model.modules())


def test_autocast_is_the_callers():
    model, image, audio = net()
    evaluator = CoalitionEvaluator(model, value="probability")
    with torch.autocast("cpu", torch.bfloat16):
        assert {z.dtype for z in evaluator.logits(image, audio).values()} == {torch.bfloat16}
        share = evaluator.dominant_share(LABELS, image, audio)
        F.cross_entropy(model(image, audio), LABELS).backward()
    assert share.dtype == torch.float32
    torch.testing.assert_close(share, evaluator.dominant_share(LABELS, image, audio), rtol=0.02, atol=0.02)
    assert all(p.grad is not None for p in model.parameters())  # no weight was cached without its gradient


def test_wrappers_are_looked_through():
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where DataParallel moves its inputs
    model, image, audio = (part.to(device) for part in net())
    expected = CoalitionEvaluator(model).logits(image, audio)
    parallel = nn.DataParallel(model)
    compiled = torch.compile(model)
    for wrapped in (parallel, compiled, torch.compile(parallel), nn.DataParallel(compiled)):
        evaluator = CoalitionEvaluator(wrapped)
        assert evaluator.model is model
        slack = {"rtol": 0, "atol": 0} if device == "cpu" else {}  # compiled for a GPU, sums are rounded anew
        assert_same(evaluator.logits(image, audio), expected, **slack)


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_model_trains_on_after_an_evaluation(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rank", rank=0, world_size=1)
    try:
        model, image, audio = net()
        parallel = nn.parallel.DistributedDataParallel(model)
        evaluator = CoalitionEvaluator(parallel)
        optimizer = ModalityAwareSAM(parallel.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(parallel(image, audio), LABELS)
            loss.backward()
            return loss

        losses = [
            float(optimizer.step(closure, share=lambda: evaluator.dominant_share(LABELS, image, audio)))
            for _ in range(20)
        ]
        assert min(losses[-5:]) < losses[0]
    finally:
        torch.distributed.destroy_process_group()


def test_the_share_steers_a_step_as_the_same_number_does():
    trained = []
    for read in (True, False):
        model, image, audio = net()
        optimizer = ModalityAwareSAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
        evaluator = CoalitionEvaluator(model, value="loss", normalization="softmax")

        def closure(model=model, image=image, audio=audio, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image, audio), LABELS)
            loss.backward()
            return loss

        seen = []

        def share(evaluator=evaluator, image=image, audio=audio, seen=seen):
            seen.append(evaluator.dominant_share(LABELS, image, audio))
            return seen[0]

        torch.manual_seed(5)
        optimizer.step(closure, share=share if read else trained[0][1])
        trained.append((model.state_dict(), seen[0] if read else None, torch.get_rng_state()))
    (first, number, random), (second, _, other) = trained
    assert 0.5 < number < 1
    assert torch.equal(random, other)
    assert all(torch.equal(first[name], second[name]) for name in first)


IMAGE, AUDIO = torch.ones(9, 3), torch.ones(9, 4)


class Loose(Net):
    def forward(self, *inputs, **named):
        return super().forward(*inputs, **named)


class Flat(Net):
    def forward(self, image, audio):
        return super().forward(image, audio).argmax(1)


class Pair(Net):
    def forward(self, image, audio):
        return super().forward(image, audio), image


@pytest.mark.parametrize(
    ("kind", "settings", "args", "kwargs", "error", "message"),
    [
        (Net, {"value": "acc"}, (), {}, ValueError, "unknown value 'acc'; choose from accuracy, prob"),
        (Net, {"normalization": "l2"}, (), {}, ValueError, "unknown normalization 'l2'; choose from linear"),
        (Net, {"modalities": ()}, (), {}, ValueError, "one name or more, each once, not ()"),
        (Net, {"modalities": "image"}, (), {}, ValueError, "one name or more, each once, not 'image'"),
        (Net, {"modalities": ("image", "image")}, (), {}, ValueError, "each once, not ('image', 'image')"),
        (
            Net,
            {"modalities": ("video",)},
            (IMAGE, AUDIO),
            {},
            ValueError,
            "'video'; the inputs are image, audio",
        ),
        (Net, {}, (), {}, ValueError, "there is no modality"),
        (Net, {}, ({},), {}, ValueError, "there is no modality"),
        (
            Net,
            {},
            (IMAGE, [1.0]),
            {},
            TypeError,
            "input 'audio' is no tensor but list, so it cannot be muted",
        ),
        (
            Net,
            {},
            (IMAGE, AUDIO, None),
            {},
            TypeError,
            "input 'mask' is no tensor but NoneType, so it cannot be",
        ),
        (Net, {}, (IMAGE, AUDIO), {"image": IMAGE}, ValueError, "two inputs have the name 'image'"),
        (Loose, {}, (IMAGE, AUDIO), {}, ValueError, "forward has names for 0 of the 2 positional inputs"),
        (Flat, {}, (IMAGE, AUDIO), {}, ValueError, "must be logits, B x C, not [9]; `output` can take"),
        (Pair, {}, (IMAGE, AUDIO), {}, ValueError, "must be logits, B x C, not tuple; `output` can take"),
    ],
)
def test_mistakes_are_named(kind, settings, args, kwargs, error, message):
    with pytest.raises(error, match=re.escape(message)):
        CoalitionEvaluator(kind(), **settings).logits(*args, **kwargs)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (LABELS[:4], {}, "the logits have 9 rows, so labels must have as many, not shape [4]"),
        (LABELS[:4], {"value": lambda z, y: z.mean((1, 2))}, "so labels must have as many, not shape [4]"),
        (LABELS[0], {}, "must have as many, not shape []"),
        (F.one_hot(LABELS), {}, "needs class numbers, shape [9], not torch.int64 of shape [9, 4]: pass"),
        (
            LABELS.float(),
            {"value": "loss"},
            "value='loss' needs class numbers, shape [9], not torch.float32 of shape [9]: pass a function",
        ),
        (
            LABELS,
            {"output": lambda out: out[:, :1]},
            "value='accuracy' compares classes, not 1 logit: pass a",
        ),
        (
            LABELS,
            {"value": lambda logits, labels: logits.mean(-1)},
            "shape [3, 9, 4] into shape [3], not [3, 9]",
        ),
        (LABELS, {"value": lambda logits, labels: logits.mean()}, "into shape [3], not []"),
        (LABELS, {"value": lambda logits, labels: logits.mean((0, 2))}, "into shape [3], not [9]"),
        (LABELS, {"value": lambda logits, labels: logits.mean().view(1)}, "into shape [3], not [1]"),
    ],
)
def test_mistakes_in_labels_and_values_are_named(labels, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CoalitionEvaluator(Net(), **settings).shares(labels, IMAGE, AUDIO)


def test_labels_that_are_an_input_are_no_modality():
    model, image, audio = net(DictNet)
    batch = {"image": image, "audio": audio, "labels": LABELS}
    with pytest.raises(ValueError, match="input 'labels' is the labels: say which inputs are muted"):
        CoalitionEvaluator(model).shares(LABELS, batch)
    shares = CoalitionEvaluator(model, ["image", "audio"]).shares(LABELS, batch)
    assert shares == CoalitionEvaluator(model).shares(LABELS, {"image": image, "audio": audio})


class Batch(UserDict):
    """As tokenizers return them: read by key or by attribute."""

    def __getattr__(self, name):
        return self.data[name]


class AttributeNet(Net):
    def forward(self, batch):
        return super().forward(batch.image, batch.audio)


class TwoInputs(Net):
    modalities = ("image", "audio")

    def encode(self, image, audio):
        raise NotImplementedError

    def fuse(self, features):
        raise NotImplementedError


class Submodules(Net):
    modalities = ("image", "audio")

    def __init__(self):
        super().__init__()
        self.encode = self.fuse = nn.Identity()


class Unnamed(Net):
    def encode(self, features):
        raise NotImplementedError

    def fuse(self, features):
        raise NotImplementedError


@pytest.mark.parametrize("kind", [TwoInputs, Submodules, Unnamed])
def test_methods_that_only_have_the_names_are_not_called(kind):
    model, image, audio = net()
    other = kind()
    other.load_state_dict(model.state_dict())
    expected = CoalitionEvaluator(model).shares(LABELS, image, audio)
    assert CoalitionEvaluator(other).shares(LABELS, image, audio) == expected


def test_a_model_gets_a_batch_of_the_kind_it_was_called_with():
    model, image, audio = net()
    other = AttributeNet()
    other.load_state_dict(model.state_dict())
    shares = CoalitionEvaluator(other).shares(LABELS, Batch(image=image, audio=audio))
    assert shares == CoalitionEvaluator(model).shares(LABELS, image, audio)


@pytest.mark.parametrize("value", VALUES)
def test_logits_that_are_no_number_give_shares_that_are_none(value):
    class Masked(Net):
        def forward(self, image, audio):
            return super().forward(image, audio) + (audio / audio).mean()  # 0 / 0 where it is muted

    shares = CoalitionEvaluator(Masked(), value=value).shares(LABELS, IMAGE, AUDIO + 9)
    assert all(share.isnan() for share in shares.values())


@pytest.mark.parametrize("value", VALUES)
def test_one_sample_without_numbers_is_enough(value):
    class Masked(Net):
        def forward(self, image, audio):
            first = torch.tensor([torch.nan] + 8 * [0.0])
            return super().forward(image, audio) + first[:, None]

    shares = CoalitionEvaluator(Masked(), value=value).shares(LABELS, IMAGE, AUDIO)
    assert all(share.isnan() for share in shares.values())


def test_a_scripted_model_is_evaluated_in_evaluation_mode():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(7), nn.Linear(7, 4)

        def forward(self, image, audio):
            return self.head(self.norm(torch.cat([image, audio], 1)))

    model = Plain()
    scripted = torch.jit.script(copy.deepcopy(model))
    assert CoalitionEvaluator(scripted, value="loss").shares(LABELS, IMAGE, AUDIO) == CoalitionEvaluator(
        model, value="loss"
    ).shares(LABELS, IMAGE, AUDIO)
    assert (int(scripted.norm.num_batches_tracked), scripted.training, scripted.norm.training) == (
        0,
        True,
        True,
    )


def test_a_function_as_value_may_take_one_logit_and_soft_labels():
    model, image, audio = net()
    answers = CoalitionEvaluator(model).logits(image, audio)

    def error(logits, targets):
        return -(logits - targets).square().mean((-2, -1))

    targets = torch.randn(9, 1)
    evaluator = CoalitionEvaluator(model, value=error, normalization="softmax", output=lambda out: out[:, :1])
    values = [-(z[:, :1] - targets).square().mean() for z in answers.values()]  # image, audio, both
    gains = torch.stack([values[0] + values[2] - values[1], values[1] + values[2] - values[0]]) / 2
    shares = evaluator.shares(targets, image, audio)
    torch.testing.assert_close(torch.stack(list(shares.values())), gains.softmax(0))

    def soft(logits, labels):
        return (logits.log_softmax(-1) * labels).sum(-1).mean(-1)

    hard = CoalitionEvaluator(model, value="loss", normalization="softmax").shares(LABELS, image, audio)
    evaluator = CoalitionEvaluator(model, value=soft, normalization="softmax")  # blind to a constant
    for m, share in evaluator.shares(F.one_hot(LABELS), image, audio).items():
        torch.testing.assert_close(share, hard[m])


class Recurrent(nn.Module):
    """Features that are no tensors: what an LSTM returns."""

    modalities = ("text", "image")

    def __init__(self):
        super().__init__()
        self.text, self.image = nn.LSTM(4, 5, batch_first=True), nn.Linear(3, 5)
        self.head = nn.Linear(10, 4)

    def encode(self, inputs):
        return {"text": self.text(inputs["text"]), "image": self.image(inputs["image"])}

    def fuse(self, features):
        return self.head(torch.cat([features["text"][1][0][-1], features["image"]], -1))

    def forward(self, inputs):
        return self.fuse(self.encode(inputs))


def test_a_model_whose_features_or_inputs_are_no_tensors_is_called_as_any_other():
    model, image = Recurrent(), torch.randn(9, 3)
    inputs = {"text": torch.randn(9, 6, 4), "image": image}
    assert_same(CoalitionEvaluator(model).logits(inputs), by_hand(model, inputs, model.modalities))
    packed = {"text": nn.utils.rnn.pack_sequence([*inputs["text"]]), "image": image}
    found = CoalitionEvaluator(model, ["image"]).logits(packed)
    assert_same(found, {frozenset(["image"]): model(inputs).detach()})


def test_a_sharing_model_without_one_of_its_modalities():
    model, inputs = classifier(["image", "sensor"])
    del inputs["sensor"]
    with pytest.raises(ValueError, match="no input has the name of modality 'sensor'; the inputs are image"):
        CoalitionEvaluator(model).logits(inputs)
