"""Forked commands and kernels against fresh ones, their interrupts, and who dies with whom."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from conftest import gone, soon
from jupyter_client.manager import start_new_kernel

from msam import _forked, forking, notebooks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")


@pytest.fixture(scope="module", autouse=True)
def server():
    before = dict(os.environ)
    with forking.preloaded():
        yield
    assert dict(os.environ) == before


def refused(address):
    """Whether nobody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(address) != 0


def said(command, words, cwd):
    done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


FRESH = [sys.executable, "-m", "msam.cli"]
NOBODY = [sys.executable, "-IS", _forked.__file__, "/nowhere/socket"]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--profile", "smoke"],
        ["plan", "--profile", "nonsense"],
        ["data", "verify", "controlled"],
        ["plan", "--no-such-option"],
    ],
)
def test_a_forked_command_says_and_returns_what_a_fresh_one_does(words, tmp_path):
    fresh = said(FRESH, words, tmp_path)
    for command in (forking.command(), NOBODY):
        code, out, err = said(command, words, tmp_path)
        assert (code, out) == fresh[:2]
        assert err.splitlines()[-1:] == fresh[2].splitlines()[-1:]


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def printed(path):
    return [o["text"] for c in nbformat.read(path, 4).cells for o in c.get("outputs", ()) if "text" in o]


def test_a_forked_kernel_has_its_own_folder_and_all_imports_and_leaves_nothing(tmp_path):
    source = notebook(
        tmp_path / "a.ipynb",
        "import os, sys\nprint('torch' in sys.modules)\nprint(os.getcwd())\nprint(os.getpid())",
    )
    notebooks.execute(source, tmp_path / "b.ipynb", {})
    imported, folder, pid = "".join(printed(tmp_path / "b.ipynb")).split()
    assert (imported, folder) == ("True", str(tmp_path))
    assert gone(int(pid))


def test_a_notebook_moves_its_kernel_and_not_the_process_that_executes_it(tmp_path):
    """Which executes others in other threads, and reads paths relative to its own folder."""
    wait = "import time\nopen('started', 'w').close()\nwhile not os.path.exists('go'):\n    time.sleep(0.01)"
    source, here = notebook(tmp_path / "a.ipynb", f"import os, sys\n{wait}"), Path.cwd()
    thread = threading.Thread(target=notebooks.execute, args=(source, tmp_path / "b.ipynb", {}))
    thread.start()
    try:
        while thread.is_alive() and not (tmp_path / "started").exists():
            time.sleep(0.01)
        assert thread.is_alive()
        assert Path.cwd() == here
    finally:
        (tmp_path / "go").touch()
        thread.join()


def test_a_kernel_without_a_server_is_a_fresh_one(tmp_path, monkeypatch):
    forking._write_kernel(tmp_path / "kernels" / "python3")
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.write_text(spec.read_text().replace(os.environ[forking.VARIABLE], "/nowhere/socket"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    source = notebook(tmp_path / "a.ipynb", "import sys\nprint('torch' in sys.modules)")
    notebooks.execute(source, tmp_path / "b.ipynb", {})
    assert printed(tmp_path / "b.ipynb") == ["False\n"]


@pytest.fixture
def kernel():
    manager, client = start_new_kernel()
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def pid_of(client):
    reply = client.execute_interactive("import os", user_expressions={"pid": "os.getpid()"})
    return int(reply["content"]["user_expressions"]["pid"]["data"]["text/plain"])


def test_a_forked_kernel_can_be_interrupted(kernel):
    manager, client = kernel
    asked = client.execute("import time\nprint('here', flush=True)\ntime.sleep(60)")
    while client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=10))["parent_header"]["msg_id"] != asked:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"


def test_a_forked_kernel_dies_with_the_process_that_stands_for_it(kernel):
    manager, client = kernel
    pid = pid_of(client)
    assert pid != manager.provisioner.pid
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    assert gone(pid)


ASK = """
import time
from msam import forking
with forking.preloaded():
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel()
    reply = client.execute_interactive("import os", user_expressions={"p": "os.getpid(), os.getppid()"})
    numbers = reply["content"]["user_expressions"]["p"]["data"]["text/plain"]
    print("told", *numbers.strip("()").split(", "), *forking.command(), flush=True)
    time.sleep(60)
"""

STARTING = """
import subprocess
from contextlib import suppress
from msam import forking
with forking.preloaded():
    started = subprocess.Popen([*forking.command(), "plan", "--profile", "smoke"])
    print("told", flush=True)
    while started.poll() is None:
        with suppress(KeyboardInterrupt):
            started.wait()
"""


@contextmanager
def outside(script):
    """A process without this module's server, in a group of its own, and what it has told."""
    environment = {k: v for k, v in os.environ.items() if k not in (forking.VARIABLE, "JUPYTER_PATH")}
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process, next(line for line in process.stdout if line.startswith("told")).split()[1:]
        finally:
            process.kill()


def test_a_killed_parent_takes_the_server_and_its_kernels_with_it():
    with outside(ASK) as (process, (kernel, server, *_)):
        process.kill()
    assert gone(int(kernel))
    assert gone(int(server))


def test_a_fresh_python_takes_the_place_of_a_killed_server_also_while_its_forks_live(tmp_path):
    words = ["plan", "--profile", "nonsense"]
    with outside(ASK) as (_, (kernel, server, *command)):
        os.kill(int(server), signal.SIGKILL)
        assert soon(lambda: refused(command[-1]))
        done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=tmp_path, timeout=30)
        os.kill(int(kernel), 0)
    assert (done.returncode, done.stdout, done.stderr) == said(FRESH, words, tmp_path)


def test_a_fresh_python_takes_the_place_of_a_server_that_ends_before_it_forks(tmp_path):
    words = ["plan", "--profile", "nonsense"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        found = said(forking._stand_in(str(tmp_path / "socket")), words, tmp_path)
    assert found == said(FRESH, words, tmp_path)


def test_an_interrupt_while_the_server_starts_ends_all(interruptible):
    with outside(STARTING) as (process, _):
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "forking.py" not in errors
