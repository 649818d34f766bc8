"""Start many short processes fast: fork each from one that has imported everything.

A cell's notebook needs two processes, papermill and the kernel, and importing PyTorch, matplotlib and the
rest takes them longer than training a small network. Inside `preloaded` a server has done that once. Whoever
starts a Jupyter kernel there gets a fork of it, as a kernel specification found first says so, and `command`
names the program that gets a fork to run `msam`. Both go through `_forked.py`, a small process that stands
for the fork: it has the fork's exit code, passes interrupts on, and takes the fork with it when it is killed.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from msam import _forked

VARIABLE = "MSAM_FORKS"
"""Address of the server, in the environment of what runs inside `preloaded`."""

KERNEL = (
    *("IPython.core.pylabtools", "ipykernel.debugger", "ipykernel.kernelapp"),
    *("matplotlib_inline.backend_inline", "seaborn", "msam.analysis.cell"),
)
"""What a kernel and most notebooks import; nothing here or below may start a thread or touch a GPU."""

TRAINING = ("nbclient", "papermill", "msam.cells", "msam.cli", "msam.notebooks", "msam.training")
"""What a cell of a study imports besides."""

READ_OFTEN = ("main", "mixing", "probes")
"""The studies that three pages or more are made from."""

ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OPENBLAS_NUM_THREADS": "1",  # a fork has none of its parent's threads
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or the debugger, which nobody uses, prints a warning
}


@contextmanager
def preloaded(records: Path | None = None, lock: int | None = None) -> Iterator[None]:
    """Let kernels and `command` of this process and those it starts be forks.

    Args:
        records: a folder of profiles, of which the server reads `READ_OFTEN` beforehand.
        lock: descriptor of a locked file; every fork holds the lock until it ends.

    Does nothing inside another `preloaded`, and on other systems than Linux: forking is not safe with the
    frameworks of macOS, and there is none on Windows.
    """
    if sys.platform != "linux" or VARIABLE in os.environ:
        yield
        return
    before = dict(os.environ)
    with TemporaryDirectory(prefix="msam-") as folder, socket.socket(socket.AF_UNIX) as listener:
        os.environ[VARIABLE] = f"{folder}/socket"
        _write_kernel(Path(folder, "kernels", "python3"))
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *filter(None, [before.get("JUPYTER_PATH")])])
        listener.bind(os.environ[VARIABLE])
        listener.listen(64)
        listener.set_inheritable(True)
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno()), *([str(records)] if records else [])],
            pass_fds=[listener.fileno(), *([] if lock is None else [lock])],
            stdin=subprocess.PIPE,
            env=before | ENVIRONMENT,
            process_group=0,  # an interrupt from the terminal is for those that asked, who pass it on
        )
        listener.close()  # or who connects after the server was killed would wait for ever
        try:
            yield
        finally:
            server.kill()
            server.communicate()
            os.environ.clear()
            os.environ.update(before)


def stop_below(pid: int, number: signal.Signals, ended: Callable[[], bool]) -> None:
    """Send a signal to every process below `pid`, those that come meanwhile too, until `ended` says so."""
    told: set[psutil.Process] = set()
    while not ended():
        with suppress(psutil.NoSuchProcess):
            for process in set(psutil.Process(pid).children(recursive=True)) - told:
                told.add(process)
                process.send_signal(number)
        time.sleep(0.05)


def command() -> list[str]:
    """What to start instead of `msam`: a fork inside `preloaded`, else a fresh Python."""
    address = os.environ.get(VARIABLE)
    return _stand_in(address) if address else [sys.executable, "-m", "msam.cli"]


def _stand_in(address: str) -> list[str]:
    return [sys.executable, "-IS", _forked.__file__, address]


def _write_kernel(folder: Path) -> None:
    folder.mkdir(parents=True)
    argv = [*_stand_in(os.environ[VARIABLE]), "kernel", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3 (forked)", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))


def serve(listener: socket.socket, records: str | None = None) -> None:
    """Fork for every connection until the standard input ends, which it does with the process behind it."""
    gc.disable()
    for name in KERNEL if records else (*KERNEL, *TRAINING):
        import_module(name)
    if records:
        from msam.analysis import sources

        with suppress(Exception):  # the page that needs them says what is wrong with them
            for study in READ_OFTEN:
                _ = sources.read(records, study).cells  # which it keeps
    gc.freeze()  # no fork's collector walks through, and so copies, what is here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        for source in (listener, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in selector.select()):
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                if not records:  # to make a page it costs time and saves little memory
                    gc.enable()
                _be_the_fork(connection)
            connection.close()


def _be_the_fork(connection: socket.socket) -> None:
    """Take on the environment of the process that asks, do what it asks for, and end."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        size, streams, *_ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as file:
            request = json.loads(file.read(int.from_bytes(size, "big")))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        threading.Thread(target=_follow, args=[connection], daemon=True).start()
        connection.send(b"s")
        code = _run(request["command"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code]))
        os._exit(code)


def _follow(connection: socket.socket) -> None:
    """Be interrupted with the process that asked, and die with it."""
    while connection.recv(1):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(words: list[str]) -> int:
    if words[0] == "kernel":
        from ipykernel.kernelapp import IPKernelApp

        os.environ.pop("JPY_PARENT_PID", None)  # not the fork's parent; `_follow` sees to its end
        app = IPKernelApp.instance()
        vars(app)["log_connection_info"] = lambda: None  # printed for who wants to connect another client
        app.initialize(["-f", words[1], "--log-level=CRITICAL", "--HistoryManager.enabled=False"])
        app.start()
        return 0
    from msam import cli

    return cli.main(words)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
