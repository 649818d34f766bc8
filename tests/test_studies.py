"""Study files: what they expand to, what they refuse, and when a cell's key changes."""

import json
import re
import shutil
from pathlib import Path

import pytest

from msam import fingerprint, studies
from msam.models import FUSIONS

GRID = """
seeds: 2
defaults:
  epochs: 4
  batch_size: 64
  width: 32
  optimizer: {lr: 0.1, momentum: 0.9, weight_decay: 1.0e-4, milestones: [0.7], gamma: 0.1}
  rho: 0.05
  threads: 1
studies:
  main:
    defaults: {epochs: 3}
    datasets:
      watch: {modalities: [accel, gyro]}
      controlled: {modalities: [m1], options: {seed: 3}}
    fusions: [late, early]
    methods:
      unimodal: {each: modality, modality: "{modality}", rho: false}
      msam: {}
      msam+encoder: {reading: encoder}
      mixture: {share: msam}
"""


OPTIMIZER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "milestones": [0.7], "gamma": 0.1}


@pytest.fixture
def grid(tmp_path):
    return write(tmp_path, GRID)


def write(folder, text):
    path = folder / "grid.yaml"
    path.write_text(text)
    return studies.load(str(path))


def one(profile, *where):
    (cell,) = studies.cells(profile, "main", *where)
    return cell


def test_a_study_expands_in_its_order(grid):
    late = ["msam", "msam+encoder", "mixture"]
    watch, controlled = (["unimodal+accel", "unimodal+gyro", *late], ["unimodal+m1", *late])
    assert [cell.title for cell in studies.cells(grid)] == [
        f"{dataset}/{fusion}/{name}"
        for dataset, names in (("watch", watch), ("controlled", controlled))
        for fusion in ("late", "early")
        for name in names
    ]


def test_a_config_says_everything(grid):
    assert one(grid, "controlled", "early", "msam+encoder").config == {
        "profile": "grid",
        "study": "main",
        "dataset": "controlled",
        "dataset_options": {"seed": 3},
        "fusion": "early",
        "method": "msam",
        "variant": "encoder",
        "options": {"reading": "encoder"},
        "epochs": 3,  # of the study, not of the profile
        "batch_size": 64,
        "width": 32,
        "optimizer": OPTIMIZER,
        "rho": 0.05,
        "threads": 1,
    }


def test_each_modality_is_a_variant_without_radius(grid):
    config = one(grid, "watch", "late", "unimodal+gyro").config
    assert (config["method"], config["variant"]) == ("unimodal", "gyro")
    assert config["options"] == {"modality": "gyro"}
    assert config["rho"] is None


def test_a_mixture_needs_the_msam_run_of_its_data_and_fusion(grid):
    cells = studies.cells(grid)
    needed = {cell.title: cell.needs.title for cell in cells if cell.needs}
    assert needed == {
        f"{d}/{f}/mixture": f"{d}/{f}/msam" for d in ("watch", "controlled") for f in ("late", "early")
    }
    assert all(cell.needs in cells for cell in cells if cell.needs)


def test_the_path_of_a_record(grid):
    path = one(grid, "watch", "late", "unimodal+gyro").path(Path("results/local"))
    assert path == Path("results/local/grid/main/watch/late/unimodal+gyro.json")


def test_chosen_hyperparameters_reach_their_cell_only(grid):
    rows = [
        {
            "dataset": "watch",
            "fusion": "late",
            "name": "msam",
            "lr": 0.2,
            "rho": 0.3,
            "options": {"reading": "encoder"},
        },
        {
            "dataset": "watch",
            "fusion": "late",
            "name": "unimodal+gyro",
            "lr": 0.4,
            "rho": None,
            "options": {},
        },
        {
            "dataset": "watch",
            "fusion": "late",
            "name": "mixture",
            "lr": 9.0,
            "rho": 9.0,
            "options": {"share": 0.1},
        },
    ]
    studies.chosen_path(grid).write_text(json.dumps(rows))
    assert studies.chosen_path(grid).name == "grid.chosen.json"
    found = {c.title: (c.config["optimizer"]["lr"], c.config["rho"]) for c in studies.cells(grid)}
    assert found["watch/late/msam"] == (0.2, 0.3)
    assert found["watch/late/mixture"] == (0.2, 0.3)  # its M-SAM run's, not its own
    assert found["watch/late/unimodal+gyro"] == (0.4, None)
    assert found["watch/late/msam+encoder"] == (0.1, 0.05)
    assert found["watch/early/msam"] == (0.1, 0.05)
    assert one(grid, "watch", "late", "msam").config["options"] == {"reading": "encoder"}
    mixture = one(grid, "watch", "late", "mixture")
    assert mixture.config["options"] == {"share": "msam"}
    assert mixture.config["optimizer"] == OPTIMIZER | {"lr": 0.2}
    assert mixture.needs.config["optimizer"]["lr"] == 0.2


def refused(function, *arguments):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        function(*arguments)
    return str(error.value)


def test_a_data_set_may_have_other_options_of_a_method(tmp_path):
    own = "watch: {modalities: [accel, gyro], methods: {msam+encoder: {value: loss, reading: response}}}"
    grid = write(tmp_path, GRID.replace("watch: {modalities: [accel, gyro]}", own))
    found = {c.title: c.config["options"] for c in studies.cells(grid) if c.name == "msam+encoder"}
    assert found["watch/late/msam+encoder"] == {"reading": "response", "value": "loss"}
    assert found["controlled/late/msam+encoder"] == {"reading": "encoder"}
    unknown = write(tmp_path, GRID.replace("{modalities: [m1]", "{methods: {sam: {}}, modalities: [m1]"))
    assert refused(studies.cells, unknown).startswith("unknown method 'sam'; choose from unimodal, msam, ")


def test_unknown_names_list_the_choices(grid, tmp_path):
    assert (
        refused(studies.load, "huge") == f"unknown profile 'huge'; choose from {', '.join(studies.names())}"
    )
    assert {"compact", "embedded", "paper", "smoke"} <= set(studies.names())
    assert refused(studies.load, str(tmp_path / "no.yaml")).startswith("there is no study file ")
    assert refused(studies.load, str(tmp_path / "none")).endswith("; the path of one ends in .yaml")
    assert refused(studies.cells, grid, "x") == "unknown study 'x'; choose from main"
    for where, message in (
        (("x",), "unknown dataset 'x'; choose from watch, controlled"),
        (("watch", "x"), "unknown fusion 'x'; choose from late, early"),
        (
            ("controlled", "late", "x"),
            "unknown method 'x'; choose from unimodal+m1, msam, msam+encoder, mixture",
        ),
    ):
        assert refused(studies.cells, grid, "main", *where) == message


CELL = "profile grid, study 'main', watch/late/msam"
STUDY = "profile grid.yaml, study 'main'"
MISTAKES = [
    (
        "seeds: 2",
        "seeds: 2\nseeds: 3",
        "profile grid.yaml is no YAML: the key 'seeds' is there twice, the second",
    ),
    (
        "msam: {}",
        "msam: {rho: 0.1}\n      msam: {}",
        "profile grid.yaml is no YAML: the key 'msam' is there twice",
    ),
    *(
        (
            f"\n  {old}:",
            f"\n  {new}:",
            f"profile grid.yaml, studies: {said} cannot be a name here; use letters, ",
        )
        for old, new, said in (("main", '".."', "'..'"), ("main", "all", "'all'"), ("main", "data", "'data'"))
    ),
    ("\n  main:", "\n  1:", "profile grid.yaml, studies: 1 cannot be a name here"),
    ("      watch:", "      7:", f"{STUDY}: 7 cannot be a name here"),
    ("msam: {}", "msam+x.partial: {}", f"{STUDY}: 'msam+x.partial' cannot be a name here"),
    ("msam: {}", "msam+{x}: {}", f"{STUDY}: 'msam+{{x}}' cannot be a name here"),
    (
        "msam: {}",
        "msam: {}\n      agm: {each: {alpha: [a/b]}}",
        "profile grid, study 'main': 'agm+alpha_a/b' cannot be",
    ),
    (
        "[late, early]",
        "[late, late]",
        "profile grid, study 'main': two cells are called watch/late/unimodal+accel",
    ),
    (
        "watch: {modalities: [accel, gyro]}",
        "msam.datasets.controlled: {modalities: [m1], options: {seed: 4}}",
        "profile grid, study 'main': two cells are called controlled/late/unimodal+m1, and",
    ),
    ("seeds: 2", "sedes: 2", "profile grid.yaml lacks the field 'seeds'"),
    (
        "seeds: 2",
        "seeds: 2\nserach: {}",
        "profile grid.yaml has the unknown field 'serach'; choose from seeds, ",
    ),
    ("seeds: 2", "seeds: 1.5", "profile grid.yaml: seeds must be a whole number, at least 1, not 1.5"),
    ("seeds: 2", "seeds: true", "profile grid.yaml: seeds must be a whole number, at least 1, not True"),
    ("seeds: 2", "seeds: [2", "profile grid.yaml is no YAML: "),
    (GRID, "", "profile grid.yaml must be a mapping, not None"),
    (GRID, "just words", "profile grid.yaml must be a mapping, not 'just words'"),
    (
        GRID[GRID.index("  main:") :],
        "  {}",
        "profile grid.yaml: studies must be a mapping of mappings, not {}",
    ),
    ("seeds: 2", "seeds: 2\nsearch: {trials: 3}", "profile grid.yaml, search lacks the field 'seed'"),
    (
        "seeds: 2",
        "seeds: 2\nsearch: {trials: 3, seed: 1, lr: [0.1, 1], rho: [0, 1]}",
        "profile grid.yaml, search: rho must be a range [low, high] above 0, not [0, 1]",
    ),
    ("    fusions: [late, early]\n", "", f"{STUDY} lacks the field 'fusions'"),
    ("[late, early]", "late", f"{STUDY}: fusions must be a list of names, not 'late'"),
    ("    fusions", "    from: grid.yaml\n    fusions", f"{STUDY} is taken from itself"),
    ("options:", "option:", f"{STUDY}, dataset 'controlled' has the unknown field 'option'; choose from mod"),
    (
        "{modalities: [m1]",
        "{methods: {msam: 3}, modalities: [m1]",
        f"{STUDY}, dataset 'controlled': methods must be",
    ),
    ("watch:", "wach:", "profile grid, study 'main': unknown dataset 'wach'; choose from av_digits, "),
    ("{modalities: [accel, gyro]}", "[accel]", f"{STUDY}: datasets must be a mapping of mappings, not {{"),
    ("[accel, gyro]", "accel", f"{STUDY}, dataset 'watch': modalities must be a list of names, not 'accel'"),
    (
        "[late, early]",
        "[lat, early]",
        "profile grid, study 'main': unknown fusion 'lat'; choose from late, early, psp",
    ),
    (
        "[accel, gyro]",
        "[accel, gyr]",
        "profile grid, study 'main', dataset 'watch': unknown modality 'gyr'; choose from accel, gyro",
    ),
    (
        "{seed: 3}",
        "{sed: 3}",
        "profile grid, study 'main': dataset 'controlled' has no option 'sed'; known options: ",
    ),
    ("{modalities: [accel, gyro]}", "", "unimodal runs for each modality, but the dataset lists no"),
    ("msam: {}", "jont: {}", "unknown method 'jont'; choose from agm, asam, "),
    (
        "msam: {}",
        "msam: {like: nope}",
        f"{CELL}: unknown method 'nope'; choose from unimodal, msam, msam+encoder, ",
    ),
    ("share: msam", "share: sam", "unknown method 'sam'; choose from unimodal+accel, unimodal+gyro, msam"),
    ("msam+encoder: {", "other.msam: {", "study 'main' has two methods 'msam', which would"),
    *(
        ("msam: {}", f"msam: {{each: {each}}}", f"{CELL}: each must be `modality` or one option with a list ")
        for each in ("{}", "modal", "{rho: 0.1}", "{rho: []}", "{rho: [1], lr: [1]}")
    ),
    ("msam: {}", "msam: {search: {rho: 1}}", f"{CELL}: search must be a range [low, high] above 0 for each"),
    ("msam: {}", "msam: {label_noise: 2}", f"{CELL}: label_noise must be a number from 0 to 1, not 2"),
    ("msam: {}", "msam: {rho: -1}", f"{CELL}: rho must be false or a number, finite and at least 0, not -1"),
    ("msam: {}", "msam: {each: {rho: [.nan]}}", f"{CELL}: rho must be false or a number, finite and at "),
    ("  rho: 0.05\n", "", f"{CELL} lacks the field 'rho'"),
    (
        "  rho: 0.05",
        "  rho: high",
        f"{CELL}: rho must be false or a number, finite and at least 0, not 'high'",
    ),
    (
        "  rho:",
        "  label_nois: 0.1\n  rho:",
        "the unknown field 'label_nois'; choose from epochs, batch_size, ",
    ),
    ("epochs: 3", "epochs: 1.5", "epochs must be a whole number, at least 1, not 1.5"),
    ("  batch_size: 64\n", "", "lacks the field 'batch_size'"),
    ("momentum", "momentun", "optimizer lacks the field 'momentum'"),
    ("gamma", "nesterov: true, gamma", "optimizer has the unknown field 'nesterov'; choose from lr, "),
    ("[0.7]", "[70]", "optimizer: milestones must be a list of numbers from 0 to 1, not [70]"),
    (
        "lr: 0.1",
        "lr: 1e-3x",
        "optimizer: lr must be a number above 0, not '1e-3x'",
    ),  # YAML's numbers have a dot
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_wrong_study_file_is_refused_in_one_line(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    assert old in GRID
    said = refused(lambda: studies.cells(write(tmp_path, GRID.replace(old, new, 1))))
    assert message in said
    assert "\n" not in said
    assert said.startswith(message) or said.startswith("profile grid, study 'main', watch/late/unimodal")


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    profile = write(tmp_path, GRID.replace("lr: 0.1", "lr: 1e-3"))
    assert one(profile, "watch", "late", "msam").config["optimizer"]["lr"] == 0.001


def test_a_file_with_the_name_of_a_profile_of_the_package_is_refused(tmp_path):
    path = tmp_path / "embedded.yaml"
    path.write_text(GRID)
    assert refused(studies.load, str(path)) == (
        f"{path} has the name of a profile of the package, whose records it would replace"
    )
    link = tmp_path / "own.yaml"
    link.symlink_to(studies.FOLDER / "smoke.yaml")
    assert studies.load(str(link))["profile"] == "own"


def test_a_study_is_taken_from_a_file_beside(tmp_path, monkeypatch):
    write(tmp_path, GRID)
    (tmp_path / "more.yaml").write_text("seeds: 1\ndefaults: {}\nstudies: {main: {from: grid.yaml}}\n")
    monkeypatch.chdir("/")
    found = studies.load(str(tmp_path / "more.yaml"))["studies"]["main"]
    assert list(found["datasets"]) == ["watch", "controlled"]


@pytest.mark.parametrize("name", studies.names())
def test_the_profiles_of_the_package_expand_without_collisions(name):
    profile = studies.load(name)
    for study in profile["studies"]:
        cells = studies.cells(profile, study)
        titles = [cell.title for cell in cells]
        assert len(set(titles)) == len(titles) > 0
        assert len({cell.key for cell in cells}) == len(cells)


def keys(profile):
    return {cell.title.partition("/")[2]: cell.key for cell in studies.cells(profile, "main", "watch")}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_a_key_changes_with_the_configuration(grid, tmp_path):
    before = keys(grid)
    assert keys(write(tmp_path, GRID)) == before
    assert keys(write(tmp_path, "# a comment\n" + GRID)) == before
    assert changed(before, keys(write(tmp_path, GRID.replace("epochs: 3", "epochs: 5")))) == set(before)
    with_rho = changed(before, keys(write(tmp_path, GRID.replace("rho: 0.05", "rho: 0.06"))))
    assert with_rho == {name for name in before if "unimodal" not in name}
    assert not changed(before, keys(write(tmp_path, GRID.replace("seeds: 2", "seeds: 5"))))


def test_a_key_changes_with_the_needed_cells_key(grid, tmp_path):
    """Only M-SAM's learning rate and the readings' are chosen anew; the mixture's own configuration stays."""
    before = one(grid, "watch", "late", "mixture")
    text = GRID.replace("msam: {}", "msam: {value: loss}")
    after = one(write(tmp_path, text), "watch", "late", "mixture")
    assert after.config == before.config
    assert after.key != before.key


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's code that a test may edit."""
    copy = tmp_path / "msam"
    shutil.copytree(Path(fingerprint.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget():
    for cached in (fingerprint._tree, fingerprint._code, fingerprint._imports):
        cached.cache_clear()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    forget()


@pytest.mark.parametrize(
    ("file", "affected"),
    [
        ("methods/unimodal.py", {"unimodal"}),
        ("methods/joint.py", {"unimodal"}),
        ("methods/mixture.py", {"mixture"}),
        ("methods/msam.py", {"msam", "mixture"}),  # a mixture reads the record of its M-SAM run
        ("methods/_dominance.py", {"msam", "mixture"}),
        ("optim/_update.py", {"msam", "mixture"}),
        ("training.py", {"unimodal", "msam", "mixture"}),
        ("shapley.py", {"unimodal", "msam", "mixture"}),
        ("models/encoders.py", {"unimodal", "msam", "mixture"}),
        ("datasets/watch.py", {"unimodal", "msam", "mixture"}),
        ("datasets/_cache.py", {"unimodal", "msam", "mixture"}),
        ("datasets/controlled.py", set()),
        ("methods/sam.py", set()),
        ("records.py", set()),
        ("cells.py", set()),
        ("analysis/metrics.py", set()),
    ],
)
def test_a_key_changes_with_the_code_behind_the_numbers(grid, package, file, affected):
    before = keys(grid)
    edit(
        package / file, "from __future__ import annotations\n", "from __future__ import annotations\nx = 1\n"
    )
    assert {re.split("[/+]", name)[1] for name in changed(before, keys(grid))} == affected


def test_a_key_does_not_change_with_words(grid, package):
    before = keys(grid)
    method = package / "methods" / "msam.py"
    edit(method, '"""Modality-aware SAM.\n', '"""Another sentence.\n')
    edit(method, "class MSAM(Method):", "class MSAM(Method):  # a comment\n")
    edit(method, "M-SAM (Algorithm 1)", "Algorithm one")
    assert keys(grid) == before


def test_the_toy_method_and_its_helper_are_part_of_the_key(grid, tmp_path, monkeypatch):
    home = tmp_path / "elsewhere"
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "__init__.py").write_text("")
    (home / "mine" / "method.py").write_text("from mine.helper import f\nimport numpy\n")
    (home / "mine" / "helper.py").write_text("def f():\n    return 1\n")
    (home / "mine" / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(home))
    profile = write(tmp_path, GRID.replace("msam+encoder: {reading: encoder}", "mine.method: {}"))
    forget()
    before = keys(profile)
    edit(home / "mine" / "other.py", "1", "2")
    edit(home / "mine" / "helper.py", "def f():", '# words\ndef f():\n    """Words."""')
    assert keys(profile) == before
    edit(home / "mine" / "helper.py", "return 1", "return 2")
    assert changed(before, keys(profile)) == {"late/method", "early/method"}
    forget()


def test_a_module_that_is_not_there_is_named(tmp_path):
    profile = write(tmp_path, GRID.replace("msam+encoder: {reading: encoder}", "nowhere.method: {}"))
    cell = one(profile, "watch", "late", "method")
    assert re.fullmatch(r"there is no module 'nowhere\.method'", refused(lambda: cell.key))


DEFAULTS = json.dumps(
    {"epochs": 1, "batch_size": 8, "width": 4, "optimizer": OPTIMIZER | {"lr": 0.3}, "rho": 0.1, "threads": 1}
)


def test_a_study_may_take_from_another_profile_what_it_does_not_say(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"seeds: 2\ndefaults: {DEFAULTS}\n"
        "studies: {mixing: {from: embedded, datasets: {watch: {}}}}\n"
    )
    mine, theirs = studies.load(str(path)), studies.load("embedded")
    assert studies.seeds(mine, "mixing") == studies.seeds(theirs, "mixing") != 2
    assert [c.title for c in studies.cells(mine, "mixing")] == [
        c.title for c in studies.cells(theirs, "mixing", "watch")
    ]
    assert {c.config["epochs"] for c in studies.cells(mine, "mixing")} == {1}


def test_every_fusion_of_a_study_is_one_of_the_models():
    assert set(studies.FUSIONS) == {*FUSIONS, "psp"}


def test_a_line_may_stand_for_several_cells(tmp_path):
    path = tmp_path / "sweeps.yaml"
    path.write_text(
        f"seeds: 2\ndefaults: {DEFAULTS}\n"
        "studies: {main: {datasets: {watch: {modalities: [accel, gyro]}}, fusions: [late], methods: {\n"
        "  msam: {},\n"
        "  sam: {like: msam, each: {rho: [0.0, 0.2]}},\n"
        "  msam+rule: {like: msam, each: {dominance: ['every:5', random]}},\n"
        "  msam+fixed: {like: msam, each: modality, dominance: 'fixed:{modality}'},\n"
        "  joint: {rho: false, label_noise: 0.2}}}}\n"
    )
    (tmp_path / "sweeps.chosen.json").write_text(
        '[{"dataset": "watch", "fusion": "late", "name": "msam", "lr": 0.7, "rho": 0.4, "options": {}}]'
    )
    found = {c.name: c.config for c in studies.cells(studies.load(str(path)))}
    assert {name: (c["optimizer"]["lr"], c["rho"]) for name, c in found.items()} == {
        "msam": (0.7, 0.4),
        "sam+rho_0.0": (0.7, 0.0),
        "sam+rho_0.2": (0.7, 0.2),
        "msam+rule_every_5": (0.7, 0.4),
        "msam+rule_random": (0.7, 0.4),
        "msam+fixed_accel": (0.7, 0.4),
        "msam+fixed_gyro": (0.7, 0.4),
        "joint": (0.3, None),
    }
    assert found["msam+rule_every_5"]["options"] == {"dominance": "every:5"}
    assert found["msam+fixed_gyro"]["options"] == {"dominance": "fixed:gyro"}
    assert found["joint"]["label_noise"] == 0.2
    assert found["joint"]["options"] == {}
