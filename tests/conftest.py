"""What several test files share: a tiny study whose dataset and methods live outside the package."""

import os
import signal
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from msam.datasets import _expected
from msam.datasets._source import find

HERE = Path(__file__).parent

PROFILE = """
    seeds: 2
    defaults:
      epochs: 2
      batch_size: 32
      width: 8
      optimizer: {lr: 0.1, momentum: 0.9, weight_decay: 1.0e-4, milestones: [0.7], gamma: 0.1}
      rho: 0.05
      threads: 1
    studies:
      main:
        datasets:
          outside.rings: {modalities: [near, far], options: {size: 96}}
        fusions: [late]
        methods:
          outside.signed: {scale: 0.05, rho: false}
          outside.pausing: {}
          mixture: {share: pausing}
          outside.failing: {rho: false}
          mixture+orphan: {share: failing}
      tiny:
        datasets:
          controlled:
            modalities: [m1, m2]
            options: {modalities: 2, classes: 3, dimension: 6, train: 96, validation: 48, test: 48}
        fusions: [late, early]
        methods:
          unimodal: {each: modality, modality: "{modality}", rho: false}
          joint: {rho: false}
          agm: {rho: false, search: {alpha: [0.5, 2.0]}}
          msam: {}
          mixture: {share: msam}
          outside.undefined: {rho: false}
    search: {trials: 4, seed: 1000, lr: [0.01, 0.3], rho: [0.01, 0.5]}
"""


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> str:
    """Path of a profile of two studies, "main" and "tiny", seconds to train."""
    path = tmp_path_factory.mktemp("profile") / "toy.yaml"
    path.write_text(textwrap.dedent(PROFILE))
    return str(path)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory) -> Path:
    """Cache folder of the toy datasets, built once."""
    return tmp_path_factory.mktemp("toy-data")


@pytest.fixture(scope="module")
def no_gpu():
    """Let this process and its children see no GPU: numbers repeat bit for bit on the CPU alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr("torch.cuda.is_available", lambda: False)
        yield


@pytest.fixture
def interruptible():
    """Let processes start so that an interrupt ends them; those that a shell starts with `&` ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_tf32(monkeypatch):
    """Convolutions of a GPU in whole float32, forward and backward."""
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)


@pytest.fixture(scope="module")
def outside(toy_data, no_gpu):
    """Put the package `outside` on the path of this process and of its children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))))
        patch.setenv("MSAM_DATA", str(toy_data))
        patch.delenv("MSAM_CACHE", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def wait_for(condition, process, seconds=300):
    """Poll until the condition holds; fail when the process has ended or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def soon(condition):
    """Whether the condition holds within ten seconds."""
    end = time.monotonic() + 10
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return holds


def gone(pid):
    """Whether the process ends within ten seconds."""
    return soon(lambda: not psutil.pid_exists(pid))


def same_shapes(name, options, dataset):
    """Whether a loaded dataset has the shapes that were said before it was prepared."""
    source = find(name, options)
    said = _expected.EXPECTED[name](**source.options).shapes
    return said == {m: tuple(x.shape[1:]) for m, x in dataset.splits["train"].inputs.items()}


def without_costs(entry):
    """A seed's entry of a record without what differs from run to run."""
    return {k: v for k, v in entry.items() if k not in ("seconds", "peak_memory_mb")}
