"""What is asked of an upstream, and what can come of it: light, for the loop knows these too.

All that can go wrong is one of `Failed`, with what the caller is to be told; `Ticket` lets another thread end it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

PIECE_BYTES: Final = 64 * 1024
"""An answer goes on in pieces of at most this much."""


class Failed(Exception):  # it becomes an answer
    """The upstream gives no answer, or no whole one.

    Attributes:
        status: for the caller.
        code: for the caller.
    """

    def __init__(self, status: Literal[403, 501, 502, 503, 504, 508], code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def unreachable(url: str, error: object) -> Failed:
    """It cannot be reached, or speaks no HTTP."""
    return Failed(502, "UpstreamUnreachable", f"{url} cannot be reached, or breaks off: {error}")


def too_late(url: str, seconds: float) -> Failed:
    """It says nothing."""
    return Failed(504, "UpstreamTimeout", f"{url} said nothing for {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upstream is waited for, seconds.

    Attributes:
        connect_s: for a connection, TLS and all. chosen.
        silence_s: for the next bytes, of the answer or of its beginning; and for a caller to take what it is sent.
            chosen: longer than any long poll of AWS's (20 s of SQS, 60 s of Step Functions), as SDKs wait for 60.
    """

    connect_s: float = 5.0
    silence_s: float = 120.0


class Request(NamedTuple):
    """What goes to the upstream.

    Attributes:
        url: of the upstream: scheme, host, port and perhaps a path, without a slash at its end.
        method: as sent.
        target: path and query.
        headers: all but `Host` and `Content-Length`.
        body: all of it.
    """

    url: str
    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class Answer(NamedTuple):
    """The beginning of the upstream's answer; `pieces` are the rest, and raise `Failed` where it breaks off."""

    status: int
    headers: list[tuple[str, str]]
    pieces: Iterator[bytes]


class Ticket:
    """Ends an exchange that a thread waits in. `cancel` may be called from any thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """Nobody wants the answer any more: whoever waits for it is woken."""
        with self._lock:
            self.is_cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is gone already
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of a TLS socket, what is below

    def hold(self, connection: socket.socket | None) -> None:
        """Its socket, while there is one that belongs to this exchange alone."""
        with self._lock:
            self._socket = connection
            if self.is_cancelled and connection is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
