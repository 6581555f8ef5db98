"""A server of the web without sockets: its loop and its wires in memory, its clock turned by hand."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from kflow.web.exchange import Handler
from kflow.web.hub import Hub, Speaker
from kflow.web.options import HIGH_BYTES, WebOptions


class MemoryTimer:
    """Due at a time of its loop."""

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class MemoryLoop:
    """A loop that does nothing by itself.

    Attributes:
        now: its clock.
        watched: by descriptor, the mask and the callback.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.watched: dict[int, tuple[int, Callable[[int], object]]] = {}
        self.timers: list[MemoryTimer] = []

    def add(self, fd: int, callback: Callable[[int], object], *, priority: int = 1, mask: int = 1) -> None:
        del priority
        assert fd not in self.watched
        self.watched[fd] = (mask, callback)

    def modify(self, fd: int, mask: int) -> None:
        self.watched[fd] = (mask, self.watched[fd][1])

    def remove(self, fd: int) -> None:
        del self.watched[fd]

    def call_later(self, seconds: float, call: Callable[[], object]) -> MemoryTimer:
        timer = MemoryTimer(self.now + seconds, call)
        self.timers.append(timer)
        return timer

    def round(self) -> int:
        """Fire what is due by now, but not what that leaves behind; returns how many fired."""
        due = [timer for timer in self.timers if timer.due <= self.now]
        self.timers = [timer for timer in self.timers if timer.due > self.now]
        fired = 0
        for timer in due:
            if timer.call is not None:
                fired += 1
                timer.call()
        return fired

    def settle(self, rounds: int = 10_000) -> None:
        """Rounds until nothing is due."""
        for _ in range(rounds):
            if not self.round():
                return
        raise AssertionError("the loop does not come to rest")


class MemoryWire:
    """Keeps what is sent; `blocked` keeps it unsent, as a peer does that reads nothing."""

    def __init__(self, *, is_secure: bool = False) -> None:
        self.is_secure = is_secure
        self.speaker: Speaker | None = None
        self.sent = bytearray()
        self.unsent = bytearray()
        self.blocked = False
        self.is_paused = False
        self.is_finished = False
        self.is_aborted = False

    @property
    def buffered(self) -> int:
        return len(self.unsent)

    def send(self, data: bytes, more: bytes = b"") -> None:
        assert not self.is_finished, "nothing may be sent after the end"
        target = self.unsent if self.blocked else self.sent
        target += data
        target += more

    def unblock(self) -> None:
        """The peer reads again."""
        self.blocked = False
        self.sent += self.unsent
        self.unsent.clear()
        assert self.speaker is not None
        self.speaker.drained()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def finish(self) -> None:
        self.is_finished = True

    def abort(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            if self.speaker is not None:
                self.speaker.lost()

    def take(self) -> bytes:
        """What was sent since the last call."""
        taken = bytes(self.sent)
        self.sent.clear()
        return taken


class MemorySocket:
    """A socket whose kernel takes `room` bytes.

    Attributes:
        incoming: pieces to be received; b"" is the end, an exception is raised.
        room: how much is taken; None: everything.
        calls: names of the calls, in order.
    """

    def __init__(self) -> None:
        self.incoming: list[bytes | OSError] = []
        self.sent = bytearray()
        self.room: int | None = None
        self.broken: OSError | None = None
        self.calls: list[str] = []

    def fileno(self) -> int:
        return 77

    def recv_into(self, buffer: bytearray) -> int:
        self.calls.append("recv")
        if not self.incoming:
            raise BlockingIOError
        piece = self.incoming.pop(0)
        if isinstance(piece, OSError):
            raise piece
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self.incoming.insert(0, piece[count:])
        return count

    def send(self, data: Any) -> int:
        return self.sendmsg([data])

    def sendmsg(self, pieces: list[Any]) -> int:
        self.calls.append("send")
        if self.broken is not None:
            raise self.broken
        data = b"".join(pieces)
        assert len(data) <= HIGH_BYTES + 16 * 1024, "too much at once"
        if self.room is not None:
            if self.room == 0:
                raise BlockingIOError
            data = data[: self.room]
            self.room -= len(data)
        self.sent += data
        return len(data)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.calls.append("shutdown")

    def close(self) -> None:
        self.calls.append("close")


class Desk:
    """A hub with its loop, and a handler that keeps what it is given, or answers at once where `answer` is set."""

    def __init__(self, options: WebOptions | None = None, answer: Handler | None = None) -> None:
        self.loop = MemoryLoop()
        self.exchanges: list[Any] = []
        self.answer = answer
        self.hub = Hub(
            self.loop, self._handle, options or WebOptions(), clock=lambda: self.loop.now, wall=lambda: 1_700_000_000
        )

    def _handle(self, exchange: Any) -> None:
        self.exchanges.append(exchange)
        if self.answer is not None:
            self.answer(exchange)

    def sweep(self, speaker: Speaker, seconds: float) -> None:
        """`seconds` later, times are looked at."""
        self.loop.now += seconds
        self.hub.now = self.loop.now
        speaker.sweep(self.hub.now)


DATE = b"date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
"""What a desk's clock says."""


def echo(exchange: Any) -> None:
    """Answer with what was asked."""
    exchange.respond(200, (), f"{exchange.method} {exchange.target} ".encode() + exchange.body)


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """The responses of HTTP/1.1 in `data`, status and body each; fails if it is not made of whole ones."""
    found: list[tuple[int, bytes]] = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"an answer is cut off: {head!r}"
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert status is not None, head
        if status[1] == b"100":
            continue
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is not None:
            body, data = data[: int(length[1])], data[int(length[1]) :]
            assert len(body) == int(length[1]), "a body is cut off"
        else:
            assert b"\r\ntransfer-encoding: chunked" in head, head
            body = b""
            while True:
                size, _, data = data.partition(b"\r\n")
                chunk, data = data[: int(size, 16)], data[int(size, 16) :]
                assert data[:2] == b"\r\n"
                data = data[2:]
                if not chunk:
                    break
                body += chunk
        found.append((int(status[1]), body))
    return found
