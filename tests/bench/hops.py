"""What no producer can beat: a round trip to another process over a socket pair, and a hop of bytes that end in a file.

Both fork their other end, so they are made before the process has threads.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.figures import cpu_ns, own_cpu_ns

_SEND_BUFFER = 1 << 20


class _Peer:
    """A forked process at the other end of a socket pair."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._ours.close()
                serve(theirs)
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        os.waitpid(self.pid, 0)


class RoundTrip(_Peer):
    """Some bytes there, some bytes back.

    Args:
        request_bytes: size of what is sent.
        answer_bytes: size of what comes back.
    """

    def __init__(self, request_bytes: int, answer_bytes: int) -> None:
        self._request = bytes(request_bytes)
        answer = bytes(answer_bytes)

        def serve(sock: socket.socket) -> None:
            while sock.recv(4096):
                sock.send(answer)

        super().__init__(serve)

    def times(self, count: int, pause_s: float = 0) -> list[int]:
        """How long each of `count` round trips took, nanoseconds; `pause_s` apart."""
        request, send, receive, clock = self._request, self._ours.send, self._ours.recv, time.monotonic_ns
        found = []
        for _ in range(count):
            if pause_s:
                time.sleep(pause_s)
            begin = clock()
            send(request)
            receive(4096)
            found.append(clock() - begin)
        return found


class Hop(_Peer):
    """Bytes to a process that waits by epoll, writes them with as many `pwritev` as there are blocks, and answers.

    Args:
        path: file to write to.
        frame_bytes: size of what is sent.
        answer_bytes: size of the answer.
        writes: number of `pwritev`, each a 64-byte header and its share of the bytes.
    """

    def __init__(self, path: Path, frame_bytes: int, answer_bytes: int, writes: int) -> None:
        self._frame = bytes(frame_bytes)
        answer, header, share = bytes(answer_bytes), bytes(64), frame_bytes // writes

        def serve(sock: socket.socket) -> None:
            buffer = memoryview(bytearray(max(frame_bytes, 1 << 18)))
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
            ready = select.epoll()
            ready.register(sock.fileno(), select.EPOLLIN)
            offset = 0
            while True:
                have = 0
                while have < frame_bytes:
                    ready.poll()
                    more = sock.recv_into(buffer[have:])
                    if not more:
                        return
                    have += more
                for number in range(writes):
                    offset += os.pwritev(file, (header, buffer[number * share : (number + 1) * share]), offset)
                sock.send(answer)

        super().__init__(serve)

    def cpu_ns(self, count: int) -> int:
        """CPU of both processes for `count` hops."""
        frame, send, receive = self._frame, self._ours.sendall, self._ours.recv
        before = own_cpu_ns() + cpu_ns(self.pid)
        for _ in range(count):
            send(frame)
            receive(4096)
        return own_cpu_ns() + cpu_ns(self.pid) - before
