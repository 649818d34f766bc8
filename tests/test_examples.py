"""Every script of `examples/` runs, learns, and stands in the book's guides."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ALONE = ("accumulation", "amp", "plain", "three_modalities", "with_accelerate", "with_lightning")
CHANCE = 0.25


@pytest.fixture(autouse=True)
def _modules_of_the_examples():
    """Are forgotten: other tests have a module `toy` of their own."""
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in ("toy", "own_study")]:
        del sys.modules[name]


def accuracies(printed: str) -> list[float]:
    return [float(found) for found in re.findall(r"test accuracy ([\d.]+)", printed)]


@pytest.mark.parametrize("name", ALONE)
def test_a_script_learns(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    found = accuracies(capsys.readouterr().out)
    assert found
    assert min(found) > 3 * CHANCE


def test_two_processes_learn_together(monkeypatch):
    if torch.cuda.device_count() < 2:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(EXAMPLES / "ddp.py")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (found,) = accuracies(done.stdout)
    assert found > 3 * CHANCE


ON_TWO_DEVICES = """
import functools, runpy, sys
import lightning, torch

class Report(lightning.Callback):
    def on_train_end(self, trainer, module):
        weights = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
        first, second = module.all_gather(weights)
        if trainer.is_global_zero:
            print("same weights:", torch.equal(first, second), flush=True)

lightning.Trainer = functools.partial(
    lightning.Trainer, devices=2, strategy="ddp_fork", callbacks=[Report()]
)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_two_devices_of_lightning_keep_the_same_weights():
    script = EXAMPLES / "with_lightning.py"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(EXAMPLES)}
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "same weights: True" in done.stdout
    (found,) = accuracies(done.stdout)
    assert found > 3 * CHANCE


def test_the_study_of_ones_own_trains_all_its_cells(toy_data, monkeypatch, capsys):
    monkeypatch.setenv("MSAM_CACHE", str(toy_data))
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(EXAMPLES / "own_study" / "run.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == ["joint", "jitter", "sam", "msam", "mixture"]
    assert min(accuracies(printed)) > 0.55


def test_every_script_is_tested_and_stands_in_the_guides():
    scripts = {p.relative_to(EXAMPLES) for p in EXAMPLES.rglob("*.*") if p.suffix in (".py", ".yaml")}
    scripts = {str(path) for path in scripts if path.name != "__init__.py"}
    assert {f"{name}.py" for name in (*ALONE, "ddp", "toy")} == {s for s in scripts if "/" not in s}
    guides = (ROOT / "book" / "guides.md").read_text()
    assert set(re.findall(r"{literalinclude} ../examples/(\S+)", guides)) == scripts
