"""Have a fork server run a command, and wait for it: `python -IS _forked.py SOCKET COMMAND ...`.

The command is one of `msam`, or `kernel` and a connection file. The fork answers that it starts, and with its
exit code in the end. Where none starts, a fresh Python takes this one's place. Standard library only and no
site packages, so that this starts in 20 ms.
"""

import json
import os
import signal
import socket
import sys


def main(address: str, *command: str) -> int:
    """Exit code of the command; it ends when this process does."""
    server = socket.socket(socket.AF_UNIX)
    request = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(request).encode()
    try:
        server.connect(address)
        socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(content)
    except OSError:
        _be_fresh(*command)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Jupyter says who starts a kernel: that one may be gone before this line.
    parent = int(os.environ.get("JPY_PARENT_PID", 0)) if command[0] == "kernel" else 0
    parent = parent or os.getppid()
    server.settimeout(0.05)
    started = False
    while os.getppid() == parent:
        try:
            answer = server.recv(1)
        except TimeoutError:
            continue
        except ConnectionError:
            answer = b""
        if started:
            return answer[0] if answer else 1
        if not answer:  # the server was killed before it forked
            _be_fresh(*command)
        started = True
        signal.signal(signal.SIGINT, lambda *_: server.send(b"i"))
    return 1


def _be_fresh(name: str, *rest: str) -> None:
    words = ["ipykernel_launcher", "-f", *rest] if name == "kernel" else ["msam.cli", name, *rest]
    os.execv(sys.executable, [sys.executable, "-m", *words])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
