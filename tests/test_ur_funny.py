"""UR-Funny on small files of MultiBench's layout: cleaning, hostile and damaged pickles, and a training."""

import collections
import os
import pickle

import numpy as np
import pytest
import torch
from test_training import CONFIG as TRAINING

from msam import datasets
from msam.datasets import DatasetError, _expected, ur_funny
from msam.datasets._pickle import load_arrays
from msam.training import train_seed

CONFIG = TRAINING | {"epochs": 2, "batch_size": 8}
WIDTHS = {"vision": 7, "audio": 5, "text": 3}
STEPS = 9


def split(count, seed, steps=STEPS):
    """Examples padded with zeros on the left; labels -1 and 1, as the classes of the pack."""
    random = np.random.default_rng(seed)
    length = random.integers(1, steps - 1, count)
    length[0] = steps - 2
    parts = {}
    for key, width in WIDTHS.items():
        values = random.standard_normal((count, steps, width))
        values[np.arange(steps) < (steps - length)[:, None]] = 0
        parts[key] = values
    labels = np.where(np.arange(count) % 2, 1.0, -1.0)[:, None]
    return parts | {"labels": labels, "id": np.array([f"{seed}-{k}" for k in range(count)])}


@pytest.fixture
def content():
    return {"train": split(24, 0), "valid": split(10, 1), "test": split(12, 2)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write bytes or an object as the file of the dataset, in an empty data folder."""
    monkeypatch.setenv("MSAM_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / ur_funny.PICKLE
    path.parent.mkdir(parents=True)

    def write(thing, protocol=4):
        path.write_bytes(thing if isinstance(thing, bytes) else pickle.dumps(thing, protocol))
        return path

    return write


def test_from_the_pickle_to_a_trained_model(write, content):
    write(content)
    dataset = datasets.load("ur_funny")
    assert dataset.kinds == {"audio": "sequence", "visual": "sequence", "text": "sequence"}
    assert {s: len(part) for s, part in dataset.splits.items()} == {"train": 24, "validation": 10, "test": 12}
    assert dataset.splits["train"].inputs["visual"].shape == (24, STEPS - 2, 7)
    assert dataset.splits["train"].labels.tolist() == [0, 1] * 12
    said = _expected.EXPECTED["ur_funny"](length=STEPS - 2).shapes  # of the real file's widths
    assert {m: shape[0] for m, shape in said.items()} == dict.fromkeys(dataset.modalities, STEPS - 2)
    for fusion in ("late", "early"):
        result = train_seed(CONFIG | {"fusion": fusion}, dataset, 0)
        assert result["state"] == "done"
        assert np.isfinite(result["final"]["last"]["test"]["loss"])


def test_cleaning_one_example_by_hand(write, content):
    train = content["train"]
    for key in WIDTHS:
        train[key][3] = 0
        train[key][3, 2:] = np.arange(1, STEPS - 1)[:, None]
    train["text"][3, 2:4] = 0  # starts two steps after the others
    train["audio"][3, 5, 1] = -np.inf
    train["text"][5] = 0  # nothing was said
    train["labels"][:4, 0] = (0.9, 1.0, 3.0, 0.0)
    write(content)
    part = datasets.load("ur_funny").splits["train"]
    assert len(part) == 23
    assert part.labels[:4].tolist() == [0, 1, 1, 0]
    moved = torch.tensor([3.0, 4, 5, 6, 7, 0, 0])
    assert part.inputs["visual"][3, :, 0].tolist() == moved.tolist()
    assert part.inputs["text"][3, :, 0].tolist() == moved.tolist()
    assert part.inputs["audio"][3, :, 0].tolist() == moved.tolist()
    assert part.inputs["audio"][3, :, 1].tolist() == [3, 0, 5, 6, 7, 0, 0]
    torch.testing.assert_close(part.inputs["audio"][5], clean(train, 6, "audio"))
    found = datasets.describe("ur_funny")["report"]
    assert found["dropped_without_text"] == {"train": 1, "validation": 0, "test": 0}
    assert found["minus_infinity_in_audio"] == {"train": 1, "validation": 0, "test": 0}
    assert found["clips"] == {"train": 24, "validation": 10, "test": 12}


def clean(parts, row, key):
    """One example cleaned step by step, as MultiBench's loader does, then padded on the right."""
    start = torch.tensor(parts["text"][row]).nonzero()[0][0]
    rows = torch.tensor(parts[key][row])[start:].float()
    rows[rows == -torch.inf] = 0
    return torch.cat([rows, torch.zeros(STEPS, rows.shape[1])])[: STEPS - 2]


def test_every_example_is_what_multibenchs_loader_makes_of_it(write, content):
    write(content)
    for name, key in (("train", "train"), ("validation", "valid"), ("test", "test")):
        inputs = datasets.load("ur_funny").splits[name].inputs
        for modality, original in ur_funny.KEYS.items():
            expected = [clean(content[key], row, original) for row in range(len(content[key]["id"]))]
            torch.testing.assert_close(inputs[modality], torch.stack(expected))


@pytest.mark.parametrize(("length", "cut"), [(4, True), (20, False)])
def test_the_length_is_an_option(write, content, length, cut):
    write(content)
    full = datasets.load("ur_funny").splits["test"].inputs["text"]
    other = datasets.load("ur_funny", {"length": length}).splits["test"].inputs["text"]
    assert other.shape[1] == length
    common = min(length, full.shape[1])
    assert torch.equal(other[:, :common], full[:, :common])
    assert not other[:, common:].any()
    assert (datasets.describe("ur_funny", {"length": length})["report"]["cut_at_the_end"]["test"] > 0) == cut


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_versions_are_known_by_their_counts(write, content, version, monkeypatch):
    write(content)
    assert datasets.describe("ur_funny")["report"]["version"] == "unknown"
    raw = {
        s: {"label": np.zeros(n)} for s, n in zip(ur_funny.SPLITS, ur_funny.VERSIONS[version], strict=True)
    }
    for parts in raw.values():
        parts |= {"id": np.arange(3), **dict.fromkeys(ur_funny.KEYS, np.zeros((0, 1, 2)))}
    cleaned = {s: ({"label": parts["label"]}, np.zeros(0)) for s, parts in raw.items()}
    found = ur_funny._report(raw, cleaned, 0)
    assert found["version"] == version
    assert found["ids_in_two_splits"] == 9


# Pickles


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(write, content, protocol):
    content["train"]["vision"] = np.asfortranarray(content["train"]["vision"])
    content["test"]["labels"] = content["test"]["labels"].astype(object)
    content["number"] = np.float64(3.5)
    found = load_arrays(write(content, protocol))
    np.testing.assert_array_equal(found["train"]["vision"], content["train"]["vision"])
    np.testing.assert_array_equal(found["test"]["id"], content["test"]["id"])
    assert found["test"]["labels"].tolist() == content["test"]["labels"].tolist()
    assert found["number"] == 3.5


def test_a_file_of_numpy_1_is_read(write, content):
    old = pickle.dumps(content, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in old
    np.testing.assert_array_equal(load_arrays(write(old))["train"]["text"], content["train"]["text"])


class Payload:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(target):
    """Hostile objects, each of which would create the file `target` when a plain pickle is loaded."""
    code = f"open({str(target)!r}, 'w')"
    shell = Payload(os.system, f"touch '{target}'")
    hidden = np.empty(1, object)
    hidden[0] = shell
    return {
        "shell": shell,
        "eval": Payload(eval, code),
        "inside an array": {"train": {"vision": hidden}},
        "after good arrays": [np.zeros(3), Payload(exec, code)],
        "numpy's own writer": Payload(np.save, str(target), np.zeros(1)),
    }


NAMES = list(payloads(""))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_runs_nothing(write, tmp_path, name, protocol):
    target = tmp_path / "owned"
    data = pickle.dumps(payloads(target)[name], protocol)
    pickle.loads(data)  # the payload is real
    created = target if target.exists() else target.with_suffix(".npy")
    created.unlink()
    write(data)
    with pytest.raises(DatasetError, match=r"humor.pkl is refused: it asks for .*only NumPy arrays"):
        datasets.load("ur_funny")
    assert not target.exists()
    assert not target.with_suffix(".npy").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\ntesting.measure\n(S'1/0'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'1/0'\n}tR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cos.system.foo\x93.",
        b"cbuiltins\ngetattr\n.",
        b"c_codecs\nencode\n(S'eJwDAAAAAAE='\nS'rot13'\ntR.",
        b"\x82\x01.",  # an extension code
        b"Pname\n.",  # a persistent name
    ],
)
def test_other_ways_out_are_closed(write, code):
    with pytest.raises(DatasetError, match=r"humor\.pkl"):
        load_arrays(write(code))


def test_other_classes_are_refused_by_name(write):
    write(collections.OrderedDict(train=1))
    with pytest.raises(DatasetError, match=r"it asks for collections\.OrderedDict"):
        datasets.load("ur_funny")


@pytest.mark.parametrize("damage", [b"", b"no pickle", lambda data: data[: len(data) // 2]])
def test_a_damaged_pickle_is_reported(write, content, damage):
    write(damage(pickle.dumps(content)) if callable(damage) else damage)
    with pytest.raises(DatasetError, match=r"humor.pkl (is no pickle of arrays|is refused)"):
        datasets.load("ur_funny")


def spoil(content, key, value):
    content["valid"][key] = value(content["valid"]) if callable(value) else value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vision", lambda v: v["vision"][:, 0], r"valid: visual is float64 \(10, 7\) beside 10 ids"),
        ("text", lambda v: v["text"].astype(str), "valid: text is <U"),
        ("audio", lambda v: v["audio"][:9], r"valid: audio is float64 \(9, 9, 5\) beside 10 ids"),
        ("labels", lambda v: np.zeros((10, 2)), r"valid: label is float64 \(10, 2\) beside 10 ids"),
        ("labels", lambda v: v["labels"] * np.nan, "valid: labels are not finite"),
        ("audio", lambda v: v["audio"][:, 1:], "different numbers of time steps"),
        ("audio", lambda v: v["audio"] * np.nan, "audio has values that are not finite"),
        ("text", lambda v: v["text"] * 0, "validation: no examples"),
        ("vision", lambda v: v["vision"][:, :, 1:], "visual has another shape in another split"),
    ],
)
def test_another_layout_is_refused(write, content, key, value, message):
    spoil(content, key, value)
    write(content)
    with pytest.raises(DatasetError, match=message):
        datasets.load("ur_funny")


def test_missing_parts_are_named(write, content, tmp_path):
    write([1, 2])
    with pytest.raises(DatasetError, match="not a dictionary with the keys train, valid, test"):
        datasets.load("ur_funny")
    del content["test"]["id"], content["test"]["audio"]
    path = write(content)
    with pytest.raises(DatasetError, match="test: no audio, id; need audio, vision, text, labels, id"):
        datasets.load("ur_funny")
    path.unlink()
    with pytest.raises(DatasetError, match=r"needs ur_funny/humor.pkl in .*; run `msam data get ur_funny`"):
        datasets.load("ur_funny")
    with pytest.raises(DatasetError, match="length is -1"):
        datasets.load("ur_funny", {"length": -1})
