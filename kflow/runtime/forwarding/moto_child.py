"""The process that is a server of moto: `python -m kflow.runtime.forwarding.moto_child PARENT`.

Standard input is a socket whose other end only the runtime holds; the first line of standard output is the port.
Source: documented: moto's "Server Mode", `ThreadedMotoServer`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from kflow.runtime.lifeline import die_with_parent


def main(parent: int) -> None:
    """Serve until the runtime ends."""
    lifeline = socket.socket(fileno=os.dup(0))
    die_with_parent(parent, lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the runtime, which ends this one
    import moto.server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request otherwise
    server = moto.server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201  # the runtime reads it
    lifeline.recv(1)  # says nothing, ever: this is the end of the runtime
    server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
