"""What the page of a dataset says, for every dataset, against its module, its description and its records."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
from test_analysis_records import cell_record, write

from msam import cli, datasets, studies
from msam.analysis import dataset as page
from msam.analysis import docstrings, figures, recipes, sounds
from msam.analysis.profiles import NOT_IN_THIS_RUN, NOT_RUN
from msam.datasets import _check, _samples
from msam.datasets._expected import EXPECTED
from msam.datasets._samples import Sound
from msam.datasets._source import find

RESULTS = Path(__file__).parents[1] / "results"
NAMES = datasets.names()
MADE = [name for name in NAMES if list(RESULTS.glob(f"*/data/{name}.json"))]
SOUNDS = {"av_digits": (), "av_mnist": ("Free Spoken Digit Dataset", "CC BY-SA 4.0", "ESC-10", "CC BY 3.0")}
"""Dataset with sounds -> what its page must say of them."""
TABLES = [
    *(page.facts_table, page.modalities_table, page.splits_table, page.classes_table),
    *(page.options_table, page.files_table),
]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A folder of results in which nothing was run."""
    return tmp_path_factory.mktemp("empty") / "results"


def rows(table):
    return table.blocks[0].rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("run", [True, False])
def test_every_part_of_every_page_is_there(name, run, without):
    entry = page.read(RESULTS if run else without, name)
    module = entry.source.module
    for make in TABLES:
        html = make(entry).to_html()
        assert html.count("<table") == html.count("</table>") == 1
        assert str(RESULTS.parent) not in html
    facts = dict(rows(page.facts_table(entry)).to_numpy().tolist())
    assert (facts["origin"], facts["licence"], facts["title"]) == (
        module.ORIGIN,
        module.LICENSE,
        module.TITLE,
    )
    assert page.recipe(entry).count("\n") > 3
    assert docstrings.summary(module.__doc__) in page.lead(entry)
    options = rows(page.options_table(entry)).set_index("option")
    assert list(options.index) == list(entry.source.options)
    assert (options["meaning"].str.len() > 3).all()
    files = rows(page.files_table(entry))
    assert len(files) == len(entry.source.constant("FILES"))
    assert ("msam data get" in page.commands(entry)) == (len(files) > 0)
    assert ("--accept-licence" in page.commands(entry)) == bool(entry.source.constant("CONSENT"))
    here = entry.description or entry.source.level == "embedded"
    for text in (page.lead(entry), page.answer(entry)):
        assert (NOT_RUN in text.lower()) == (not here)
        assert text.endswith(".")


@pytest.mark.parametrize("name", EXPECTED)
def test_without_a_description_the_study_file_and_the_public_files_say_what_to_expect(name, without):
    entry = page.read(without, name)
    expected = EXPECTED[name](**entry.source.options)
    assert rows(page.splits_table(entry))["expected examples"].tolist() == list(expected.sizes)
    shapes = rows(page.modalities_table(entry)).set_index("modality")["shape"].to_dict()
    assert shapes == {m: " x ".join(map(str, shape)) for m, shape in expected.shapes.items()}
    level = entry.source.level
    given = studies.load(level)["studies"]["main"]["datasets"][name].get("options", {})
    assert given.items() <= entry.source.options.items()
    assert f"make reproduce PROFILE={level}" in page.commands(entry)


@pytest.mark.parametrize("name", MADE)
def test_a_described_dataset_shows_its_numbers(name):
    entry = page.read(RESULTS, name)
    splits = rows(page.splits_table(entry)).set_index("split")["examples"]
    classes = rows(page.classes_table(entry)).set_index("class")
    assert (
        classes.sum().to_dict()
        == splits.to_dict()
        == {s: d["size"] for s, d in entry.description["splits"].items()}
    )
    assert list(classes.index) == list(entry.source.classes)
    shapes = rows(page.modalities_table(entry)).set_index("modality")["shape"]
    assert shapes.to_dict() == {
        m: " x ".join(map(str, told["shape"])) for m, told in entry.description["modalities"].items()
    }
    assert f"Made from results/{entry.source.level}/data/{name}.json" in page.footer(entry)
    assert len(json.dumps(entry.description)) < 150_000


@pytest.mark.parametrize("name", MADE)
def test_the_sounds_of_a_description_can_be_heard(name):
    description = page.read(RESULTS, name).description
    heard = [sound for sample in description["samples"] for sound in sample.get("sounds", ())]
    assert bool(heard) == (name in SOUNDS)
    html = sounds.players(description).text if heard else ""
    assert html.count("<audio") == len(heard)
    assert all(text in html for text in SOUNDS.get(name, ()))
    for sound in heard:
        assert sound["wav"] in html
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["wav"])))
        assert (rate, samples.ndim) == (8000, 1)
        assert 800 < len(samples) <= 8000
        assert abs(samples).max() == pytest.approx(0.5, abs=1e-3)


def test_every_sound_says_whose_it_is():
    wav = _samples.wav(Sound("", "", 8000, np.ones(900)))
    credit = [
        {"title": "alone", "credit": "A <a>", "wav": wav},
        {"title": "mixed", "credit": "A <a>; B", "wav": wav},
    ]
    html = sounds.players({"samples": [{"label": "one", "sounds": credit}, {"label": "two"}]}).text
    assert "A &lt;a&gt;; B." in html
    assert re.findall(r"<label>(.*?)<audio", html) == ["one, alone", "one, mixed"]
    assert sounds.players({"samples": [{"label": "two"}]}) is None
    assert sounds.players(None) is None


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.3), (22050, 0.5), (44100, 3.0)])
def test_a_wav_decodes_to_what_was_built(rate, seconds):
    wave = 40 * np.random.default_rng(0).standard_normal(int(rate * seconds))
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(_samples.wav(Sound("", "", rate, wave)))))
    expected = scipy.signal.resample_poly(wave, 8000, rate)[:8000] if rate != 8000 else wave
    np.testing.assert_allclose(samples, 0.5 * expected / abs(expected).max(), atol=1e-4)


def test_sounds_are_in_the_samples_and_change_no_checksum():
    source = find("controlled", {"train": 60, "validation": 30, "test": 30})
    arrays = _check.collect(source, source.module.build(**source.options))
    plain = _check.description(source, arrays)
    shown = _samples.shown(arrays["train/label"])
    assert [source.classes[arrays["train/label"][row]] for row in shown] == [
        s["label"] for s in plain["samples"]
    ]
    heard = {row: [Sound(f"number {row}", "", 8000, np.ones(900))] for row in shown[1:]}
    record = _check.description(source, arrays, heard=heard)
    assert record["checksum"] == plain["checksum"]
    titles = [[sound["title"] for sound in sample.get("sounds", ())] for sample in record["samples"]]
    assert titles == [[], *([f"number {row}"] for row in shown[1:])]
    for sample in record["samples"]:
        sample.pop("sounds", None)
    assert record == plain


def test_shown_is_the_first_example_of_each_of_four_classes():
    assert _samples.shown(np.array([5, 0, 0, 2, 9, 2, 7, 5])) == [1, 3, 0, 6]
    assert _samples.shown(np.array([1, 0, 1])) == [1, 0]
    assert _samples.shown(np.array([[3, 3], [0, 3], [1, 1]])) == [1, 2, 0]


@pytest.mark.parametrize(("name", "there"), [("ave", False), ("crema_d", True), ("av_digits", True)])
def test_examples_are_written_only_where_the_licence_allows_it(name, there, tmp_path, monkeypatch):
    """AVE's videos are their authors' on YouTube; CREMA-D has an open licence that asks for its name."""
    sample = {"label": "one", "inputs": {"m": [1.0]}, "sounds": [{"title": "", "credit": "", "wav": "UklG"}]}
    said = {"name": name, "samples": [sample], "modalities": {"m": {"kind": "vector"}}}
    monkeypatch.setattr(datasets, "describe", lambda *_: said)
    path = tmp_path / f"{name}.json"
    assert cli.main(["data", "describe", name, "--output", str(path)]) == 0
    written = json.loads(path.read_text())
    assert written["samples"] == ([sample] if there else [])
    assert ("UklG" in path.read_text()) == there
    told = [text.get_text() for text in figures.samples(written).figure.texts]
    assert any("the licence does not allow" in text for text in told) == (not there)
    assert bool(sounds.players(written)) == there


def test_the_list_has_every_dataset_with_its_records(tmp_path):
    root = tmp_path / "results"
    for profile, study, name in (
        ("embedded", "main", "watch"),
        ("compact", "main", "mosi"),
        ("smoke", "main", "watch"),
    ):
        for file in ("joint.json", "msam.json", "sam.failed.json", "agm.partial.json", "joint.ipynb"):
            write(root / profile / study / name / "late" / file, {})
    entries = page.read_all(root)
    assert [entry.source.name for entry in entries[:3]] == ["av_digits", "controlled", "watch"]
    table = page.summary_table(entries, "data/")
    data = table.data.set_index("dataset")
    assert sorted(data.index) == NAMES
    assert data.loc["watch", "records"] == "embedded: 2 records, smoke: 2 records"
    assert data.loc["mosi", "records"] == "compact: 2 records"
    assert data.loc["av_digits", "records"] == "no records yet"
    assert data.loc["crema_d", "records"] == NOT_RUN
    assert '<a href="data/crema_d.html">crema_d</a>' in table.to_html()
    assert page.count_sentence(entries) == "2 of 8 datasets have records here: watch, mosi."


def test_the_description_is_that_of_the_level_and_never_that_of_a_recipe(tmp_path):
    root = tmp_path / "results"

    def put(profile, options):
        write(root / profile / "data" / "av_mnist.json", {"options": options, "modalities": {}})

    put("recipes", {"level": 1.0})
    assert page.read(root, "av_mnist").description is None
    assert page.read(root, "av_mnist").state == NOT_RUN
    put("own", {"level": 2.0})
    assert page.read(root, "av_mnist").source.options["level"] == 2
    assert page.read(root, "av_mnist").state == "no records yet"
    put("compact", {"level": 3.0})
    assert page.read(root, "av_mnist").source.options["level"] == 3


@pytest.mark.parametrize(("folder", "told"), [("results", NOT_RUN), ("results/local", NOT_IN_THIS_RUN)])
def test_a_readers_own_run_does_not_say_that_data_are_not_available(tmp_path, folder, told):
    write(tmp_path / folder / "compact/main/mosi/late/joint.json", cell_record("mosi", "late", "joint"))
    other, own = page.read(tmp_path / folder, "crema_d"), page.read(tmp_path / folder, "mosi")
    assert (other.state, own.state) == (told, "compact: 1 records")
    for text in (page.lead(other), page.answer(other)):
        assert [words for words in (NOT_RUN, NOT_IN_THIS_RUN) if words in text.lower()] == [told]
    assert page.read(tmp_path / folder, "watch").state == "no records yet"


def test_arguments_of_a_docstring():
    doc = """Make it.

    Args:
        size: how many,
            in all.
        seed: of the draw: any.

    Raises:
        ValueError: never.
    """
    assert docstrings.arguments(doc) == {"size": "how many, in all.", "seed": "of the draw: any."}
    assert docstrings.arguments("No section.") == docstrings.arguments(None) == {}


# Recipes of AV-MNIST


def recipe(root, study, options, accuracies):
    """Records of one recipe: modality -> accuracy of each of three seeds."""
    for modality, values in accuracies.items():
        record = cell_record("av_digits", "late", f"unimodal+{modality}")
        record["config"] |= {"dataset": "av_mnist", "dataset_options": options, "study": study}
        for seed, value in zip(record["seeds"], values, strict=True):
            seed["final"]["last"]["test"]["accuracy"]["fused"] = value
        write(root / "recipes" / study / "av_mnist" / "late" / f"unimodal+{modality}.json", record)


@pytest.fixture
def made(tmp_path):
    root = tmp_path / "results"
    base = {"components": 4, "noise": "esc10", "level": 5.0, "clips": "official"}
    recipe(
        root,
        "clean_audio",
        base | {"noise": "none"},
        {"audio": [0.9, 0.92, 0.94], "image": [0.65, 0.66, 0.67]},
    )
    recipe(root, "components_4", base, {"audio": [0.41, 0.43, 0.42], "image": [0.65, 0.66, 0.67]})
    recipe(root, "components_3", base | {"components": 3}, {"image": [0.53, 0.55, 0.54]})
    return root


def test_the_recipes_stand_beside_the_paper(made):
    table = recipes.recipe_table(made)
    shown = rows(table).set_index("recipe")
    assert list(shown.index) == ["components_4", "components_3", "clean_audio", "the paper (Table 1)"]
    half = 4.302652729911275 * 1 / np.sqrt(3)
    assert shown.loc["components_4", "only audio"] == f"42.0 ± {half:.1f} (+2.4)"
    assert shown.loc["components_3", "only image"] == f"54.0 ± {half:.1f} (-11.1)"
    assert shown.loc["components_3", "only audio"] == "\N{EN DASH}"
    assert shown.loc["the paper (Table 1)", ["only image", "only audio"]].tolist() == ["65.14", "39.61"]
    assert shown.loc["clean_audio", ["components", "noise", "level"]].tolist() == ["4", "none", "\N{EN DASH}"]
    assert "Made from 5 records under results/recipes, commit abc1234; cpu: test" in table.to_html()
    assert recipes.recipe_sentence(made) == (
        "Closest to the paper, only image: components 4 (66.0 against 65.14); only audio: noise esc10, level"
        " 5, clips official (42.0 against 39.61); over both: components_4, 1.6 points away on average."
    )


def test_without_records_the_recipes_say_so(tmp_path):
    assert "No records of the recipes." in recipes.recipe_table(tmp_path).to_html()
    assert "no records" in recipes.recipe_sentence(tmp_path)


def test_the_recipes_differ_in_the_data_only():
    profile, compact = studies.load("recipes"), studies.load("compact")
    shared = {key: value for key, value in compact["defaults"].items() if key != "rho"}
    assert profile["defaults"] == shared
    options = {}
    for study in profile["studies"]:
        cells = studies.cells(profile, study)
        assert [cell.title for cell in cells] == [f"av_mnist/late/unimodal+{m}" for m in ("image", "audio")]
        (options[study],) = {json.dumps(find("av_mnist", c.config["dataset_options"]).options) for c in cells}
        assert {*cells[0].config["dataset_options"]} >= {
            *recipes.CONCERNS["image"],
            *recipes.CONCERNS["audio"],
        }
    assert len(set(options.values())) == len(options)
    theirs = compact["studies"]["main"]["datasets"]["av_mnist"]["options"]
    assert options["components_4"] == json.dumps(find("av_mnist", theirs).options)
