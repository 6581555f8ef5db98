"""The zygote: a small process with one thread that has imported the libraries and forks workers on request.

18 ms from a request to a handler's first result, against about a second for a fresh interpreter. It never imports user
code: that happens in each worker, as at a cold start on Lambda. As the workers' parent it reports their wait statuses.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading

from kflow.runtime.lifeline import die_with_parent, reap
from kflow.runtime.messages import DECODERS, Born, Ended, encode
from kflow.runtime.worker import process

_MESSAGE_BYTES = 4096


def main(argv: list[str]) -> int:
    """Serve until the node closes the socket. Arguments: the socket's descriptor, the node's pid, names to import."""
    sock = socket.socket(fileno=int(argv[0]))
    die_with_parent(int(argv[1]))
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # a Ctrl-C reaches the whole group: the node decides what it means
    for name in argv[2:]:
        # What cannot be imported here fails in the worker that needs it, with the user's own lines.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        sys.stderr.write(
            f"error: preloaded modules started threads ({names}): take them out of the setting `preload`\n"
        )
        return 1
    reaped, reaper = os.pipe()
    os.set_blocking(reaped, False)
    os.set_blocking(reaper, False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    signal.set_wakeup_fd(reaper, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()
    try:
        sock.send(encode(Born(0, os.getpid())))
    except (BrokenPipeError, ConnectionResetError):  # the node was killed meanwhile
        return 0
    while True:
        ready, _, _ = select.select([sock.fileno(), reaped], [], [])
        if reaped in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(reaped, _MESSAGE_BYTES)
            _report(sock)
        if sock.fileno() in ready:
            try:
                data, fds, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, 2)
            except ConnectionResetError:  # the node was killed before it had read all that it was told
                return 0
            if not data:
                return 0
            _fork(sock, DECODERS["spawn"].decode(data).worker, fds, (reaped, reaper))


def _fork(sock: socket.socket, number: int, fds: list[int], pipes: tuple[int, int]) -> None:
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for fd in pipes:
                os.close(fd)
            sock.close()
            for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            die_with_parent(zygote)
            process.main(fds[0], fds[1])
        finally:
            os._exit(1)  # never back into the zygote's own loop, whatever went wrong before the worker's own end
    for fd in fds:
        os.close(fd)
    sock.send(encode(Born(number, pid)))


def _report(sock: socket.socket) -> None:
    while True:
        try:
            ended = reap()
        except ChildProcessError:
            return
        if ended is None:
            return
        sock.send(encode(Ended(*ended)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
