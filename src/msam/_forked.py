"""Have a fork server run a command, and wait for it: `python -IS _forked.py SOCKET COMMAND ...`.

The command is one of `msam`, or `kernel` and a connection file. Where no server answers, a fresh Python takes
this one's place. Standard library only and no site packages, so that this starts in 20 ms.
"""

import json
import os
import signal
import socket
import sys


def main(address: str, *command: str) -> int:
    """Exit code of the command; it ends when this process does."""
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(address)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", *_fresh(*command)])
    request = {"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    signal.signal(signal.SIGINT, lambda *_: server.send(b"i"))
    # Jupyter says who starts a kernel: that one may be gone before this line.
    parent = int(os.environ.get("JPY_PARENT_PID", 0)) if command[0] == "kernel" else 0
    parent = parent or os.getppid()
    server.settimeout(0.05)
    while os.getppid() == parent:
        try:
            code = server.recv(1)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        return code[0] if code else 1
    return 1


def _fresh(name: str, *rest: str) -> list[str]:
    return ["ipykernel_launcher", "-f", *rest] if name == "kernel" else ["msam.cli", name, *rest]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
