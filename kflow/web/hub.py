"""What the connections of one server share: its handler, its limits, the time, the memory that requests may take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from kflow.web.backlog import Backlog
from kflow.web.exchange import Exchange, Handler, Loop
from kflow.web.heads import HeadReader
from kflow.web.options import WebOptions

log = logging.getLogger(__name__)


class Wire(Protocol):
    """Where a connection's bytes go: a socket, or TLS over one.

    Attributes:
        is_secure: whether they are encrypted.
    """

    is_secure: bool

    @property
    def buffered(self) -> int:
        """Bytes that the peer's kernel has not taken."""
        ...

    def send(self, data: bytes, more: bytes = b"") -> None:
        """Queue `data`, then `more`; sent at the end of the current callback, or at once outside of one."""
        ...

    def pause(self) -> None:
        """Read nothing for now."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    def finish(self) -> None:
        """Close once everything is sent; what still arrives is dropped."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...


class Speaker(Protocol):
    """One protocol over one wire: bytes in, exchanges out, bytes back. Owns no socket, no timer, no thread."""

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        ...

    def ended(self) -> None:
        """The peer sends nothing more; it may still read."""
        ...

    def drained(self) -> None:
        """What was buffered has fallen to `LOW_BYTES` or below."""
        ...

    def lost(self) -> None:
        """The wire is gone: nobody is to be answered any more."""
        ...

    def stop(self) -> None:
        """Answer what is under way, take nothing new, then finish."""
        ...

    def sweep(self, now: float) -> None:
        """Look for what takes too long."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        ...

    @property
    def is_open_ended(self) -> bool:
        """Whether an answer is going on whose end its handler decides: its reader may take its time."""
        ...


class Served(Exchange, Protocol):
    """An exchange as its server knows it."""

    def fail(self) -> None:
        """Its handler broke: answer 500 where nothing is answered yet, else end the answer as broken."""
        ...


class Hub:
    """Shared by a server's connections; belongs to the loop.

    Attributes:
        now: seconds, as of the last sweep: a clock that costs a request nothing.
        held: bytes of requests that have not arrived as a whole.
        backlog: bytes of answers that have not been taken.
        is_stopping: no connection is to be kept open.

    Args:
        loop: hosts everything.
        handler: called for each request.
        options: limits.
        clock: seconds that never go back.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        loop: Loop,
        handler: Handler,
        options: WebOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.loop = loop
        self.options = options
        self.clock = clock
        self.now = clock()
        self.held = 0
        self.backlog = Backlog(options.unsent_bytes, self.later)
        self.is_stopping = False
        self.heads = HeadReader(options.header_count)
        self._handler = handler
        self._wall = wall
        self._second = -1
        self._date = b""
        self._date_line = b""

    def serve(self, exchange: Served) -> None:
        """Hand a request to the handler; whatever it does, the loop and the other connections go on."""
        try:
            self._handler(exchange)
        except Exception:
            log.exception("a handler failed method=%s target=%s", exchange.method, exchange.target)
            exchange.fail()

    def call(self, callback: Callable[[], object]) -> None:
        """Call what a handler left behind."""
        try:
            callback()
        except Exception:
            log.exception("a callback of a handler failed")

    def later(self, call: Callable[[], object]) -> None:
        """Call in the next round of the loop."""
        self.loop.call_later(0.0, call)

    @property
    def date(self) -> bytes:
        """The time for people and caches, as HTTP writes it."""
        self.date_line  # noqa: B018  # brings it up to date
        return self._date

    @property
    def date_line(self) -> bytes:
        """A whole header line with the time."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._date = _http_date(second)
            self._date_line = b"date: " + self._date + b"\r\n"
        return self._date_line


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _http_date(second: int) -> bytes:
    """Not by `strftime`, which speaks the user's language, nor by `email.utils`, whose import takes 30 ms."""
    at = time.gmtime(second)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    ).encode()
