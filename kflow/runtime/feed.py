"""What happened, told to people and plugins from a thread of its own: a slow terminal never slows the node.

The queue is bounded. What does not fit is dropped and counted; `kflow status --json` and the summary tell the count.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from kflow.interfaces import BatchOutcome

log = logging.getLogger(__name__)

QUEUE_LENGTH = 10_000


_LIVE_BYTES = 1 << 20


class HandlerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One handler and its stream or (`source`) queue, as shown at start."""

    name: str
    place: str
    stream: str
    shards: int
    created: bool
    options: str
    source: str = "stream"


class ReadyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime is ready: seconds it took, where its data is, what it runs, and the URL of its endpoint."""

    seconds: float
    data_dir: str
    handlers: tuple[HandlerInfo, ...]
    endpoint: str = ""


class HandlerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one handler over all its streams, since its slots were made.

    Attributes:
        processed: distinct records settled by success.
        redelivered: records handed to the handler beyond the first time each.
        parked: records parked.
        lost: records that retention or damage took before they were read.
        dropped: records given up and kept nowhere.
    """

    name: str
    processed: int
    redelivered: int
    parked: int
    lost: int = 0
    dropped: int = 0


class Totals(msgspec.Struct):
    """Messages of a function since the runtime started: those that are done, and those that came again."""

    processed: int = 0
    redelivered: int = 0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seconds: float
    handlers: tuple[HandlerSummary, ...]
    dropped_lines: int = 0


class Listener(Protocol):
    """Who is told. Called from one thread, in order; may block; must not raise."""

    def ready(self, info: ReadyInfo) -> None:
        """The runtime is ready."""
        ...

    def outcome(self, outcome: BatchOutcome) -> None:
        """An attempt's outcome is durable."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Something to know: `info`, `warning` or `error`."""
        ...

    def stopped(self, summary: Summary) -> None:
        """The runtime has stopped."""
        ...


def live_pair() -> tuple[socket.socket, socket.socket]:
    """The channel by which all workers tell of outcomes: lossy, message boundaries are kept, a full one refuses.

    Returns:
        Where to read, and what workers write to.
    """
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LIVE_BYTES)
    return ours, theirs


class Feed:
    """A bounded queue and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], object]] = deque()
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kflow-feed", daemon=True)
        self._closing = False
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def publish(self, call: Callable[[], object]) -> None:
        """Queue a call; never waits."""
        with self._ready:
            if len(self._queue) >= QUEUE_LENGTH:
                self.dropped += 1
                return
            self._queue.append(call)
            self._ready.notify()

    def lost(self, count: int) -> None:
        """Count lines that were lost before they came here."""
        with self._ready:
            self.dropped += count

    def close(self) -> None:
        """Make the calls that are queued, then end the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._closing:
                    self._ready.wait()
                if not self._queue:
                    return
                call = self._queue.popleft()
            try:
                call()
            except Exception:
                log.exception("a listener raised; it is told of the next event all the same")
