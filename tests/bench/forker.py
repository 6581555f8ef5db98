"""The limit of `start`: a process that holds what the zygote holds, and forks children that do nothing.

    python -m tests.bench.forker SOCKET NAME...

Answers each byte on the socket with a byte, once a child was forked, has ended and was waited for.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Sequence

from kflow.runtime.node import zygote

HOLDS = zygote
"""What the zygote imports, by importing it."""


def main(argv: Sequence[str]) -> int:
    """Serve until the socket is closed."""
    sock = socket.socket(fileno=int(argv[0]))
    for name in argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    sock.send(b"r")
    while sock.recv(1):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        sock.send(b"d")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
