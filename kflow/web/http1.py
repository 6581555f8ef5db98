"""HTTP/1.1 and 1.0 over one wire: requests in, one at a time, answered in their order.

resting ── head ──> reading the body ── complete ──> being answered ── answered ──> resting
   └─ refused: answer, then finish                        (what arrives meanwhile waits, and is limited)
"""

from __future__ import annotations

import re

from kflow.web.answers1 import Http1Exchange, Http1Stream
from kflow.web.body import Chunks, Pieces
from kflow.web.heads import CLOSE, Refused, RequestHead, response_head
from kflow.web.hub import Hub, Wire
from kflow.web.options import HIGH_BYTES, UNREAD_BYTES

_LOOKED_AT_BYTES = 2048
"""Of a head that is not complete, so much is looked at to tell garbage from a slow sender."""
_BEGINNING = re.compile(rb"(?:[A-Z-]{1,20}|[A-Z-]{1,20} [^\n]*)\r?\Z", re.DOTALL)
"""What a request line may look like while its end has not arrived: everything else is refused at once."""


class Http1:
    """Speaks HTTP/1.1 over `wire`. Holds no parser and no buffer while it rests.

    Attributes:
        stream: the answer that goes on, if there is one.
        is_ended: whether the peer sends nothing more.
    """

    __slots__ = (
        "_began",
        "_chunks",
        "_head",
        "_held",
        "_is_due",
        "_is_finished",
        "_is_paused",
        "_needs",
        "_pieces",
        "_rest",
        "_rested",
        "_scanned",
        "exchange",
        "hub",
        "is_ended",
        "stream",
        "wire",
    )

    def __init__(self, wire: Wire, hub: Hub) -> None:
        self.wire = wire
        self.hub = hub
        self.stream: Http1Stream | None = None
        self.is_ended = False
        self.exchange: Http1Exchange | None = None  # being answered
        self._head: RequestHead | None = None  # whose body is arriving
        self._pieces: Pieces | None = None
        self._needs = 0
        self._chunks: Chunks | None = None
        self._rest: bytearray | None = None  # arrived, and not looked at
        self._scanned = 0  # so much of it has no end of a head
        self._held = 0  # bytes of the body that is arriving
        self._is_finished = False
        self._is_due = False  # to go on
        self._is_paused = False
        self._began = hub.now
        self._rested = hub.now

    # what the wire tells

    def receive(self, data: bytes) -> None:
        """Read a request, if its last byte is there; hand it over, if none is being answered."""
        if self._is_finished:
            return
        if self._rest is None and self.exchange is None and self.wire.buffered <= HIGH_BYTES:
            if self._head is None and self._serve_plain(data):
                return
            used = self._read(data)
            if used < len(data) and not self._is_finished:
                self._rest = bytearray(memoryview(data)[used:])
                if self._chunks is not None:
                    self._go_on_later()
        else:
            if self._rest is None:
                self._rest = bytearray()
            self._rest += data
            if self.exchange is not None or self._is_due or self.wire.buffered > HIGH_BYTES:
                self._limit_rest()
                return
            self._read_rest()
        self._serve()

    def _serve_plain(self, data: bytes) -> bool:
        """The way of nearly all requests: one that is plain, and arrives alone; whole, or its head before its body."""
        hub = self.hub
        end = data.find(b"\r\n\r\n") + 4
        if not 4 <= end <= hub.options.header_bytes:
            return False
        head = hub.heads.plain(data[:end])
        if head is None or head.length is None or head.length > hub.options.body_bytes:
            return False
        if head.length == len(data) - end:
            self.exchange = exchange = Http1Exchange(self, head, data[end:], self.wire.is_secure)
            hub.serve(exchange)
            return True
        if len(data) == end:
            self._head, self._needs, self._began = head, head.length, hub.now
            return True
        return False

    def ended(self) -> None:
        """Half closed, or gone: a handler that asked to be told gives up; else the answer is still sent."""
        self.is_ended = True
        if self._is_finished:
            return
        exchange = self.exchange
        if exchange is None:
            self._go_on_later()
        elif self.stream is not None or exchange.on_close is not None:
            self.wire.abort()

    def drained(self) -> None:
        """The peer has caught up: go on with the answer, or with the next request."""
        stream = self.stream
        if stream is None:
            self._go_on()
        elif stream.on_drain is not None:
            self.hub.call(stream.on_drain)

    def lost(self) -> None:
        """Nobody is there any more."""
        self._is_finished = True
        self._release()
        self._rest = None
        exchange, self.exchange = self.exchange, None
        stream, self.stream = self.stream, None
        if exchange is None:
            return
        exchange.is_closed = True
        if stream is not None:
            stream.is_closed, was_closed = True, stream.is_closed
            if not was_closed and stream.on_close is not None:
                self.hub.call(stream.on_close)
        elif exchange.on_close is not None:
            self.hub.call(exchange.on_close)

    def stop(self) -> None:
        """Finish where nothing is under way; else the answer says that it is the last."""
        if self.exchange is None and not self._is_arriving:
            self._finish()

    def sweep(self, now: float) -> None:
        """Refuse who sends too slowly, close who has rested long enough."""
        if self._is_finished or self.exchange is not None:
            return
        if self._is_arriving:
            if now - self._began > self.hub.options.request_s:
                self._refuse(Refused(408, f"the request took more than {self.hub.options.request_s:g} s to arrive"))
        elif now - self._rested > self.hub.options.idle_s:
            self._finish()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self.exchange is None and not self._is_arriving

    @property
    def is_open_ended(self) -> bool:
        """Whether the answer's end is its handler's to decide."""
        return self.stream is not None

    # what an exchange asks and tells

    @property
    def is_last(self) -> bool:
        """Whether no request is served after this one."""
        return self.hub.is_stopping or (self.is_ended and self._rest is None)

    def answered(self, is_kept: bool) -> None:
        """The answer is complete."""
        self.exchange = None
        self.stream = None
        self._rested = self.hub.now
        if not is_kept or self.hub.is_stopping:
            self._finish()
        elif self._rest is not None or self._is_paused or self.is_ended:
            self._go_on_later()

    # reading

    @property
    def _is_arriving(self) -> bool:
        return self._head is not None or self._rest is not None

    def _go_on_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self.hub.later(self._go_on)

    def _go_on(self) -> None:
        """Take up the next of the requests that have arrived: one in a round of the loop."""
        self._is_due = False
        if self._is_finished or self.exchange is not None or self.wire.buffered > HIGH_BYTES:
            return
        self._read_rest()
        if self._is_paused and (self._rest is None or len(self._rest) <= UNREAD_BYTES):
            self._is_paused = False
            self.wire.resume()
        if not self._serve() and self.is_ended and not self._is_due:
            self._finish()

    def _serve(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            return False
        self.hub.serve(exchange)
        return True

    def _limit_rest(self) -> None:
        if not self._is_paused and self._rest is not None and len(self._rest) > UNREAD_BYTES:
            self._is_paused = True
            self.wire.pause()

    def _read_rest(self) -> None:
        rest = self._rest
        if rest is None:
            return
        used = self._read(rest)
        if used == len(rest) or self._is_finished:
            self._rest = None
            return
        del rest[:used]
        if self._chunks is not None:
            self._go_on_later()

    def _read(self, data: bytes | bytearray) -> int:
        """Take at most one request, and set `_exchange` once it is complete; returns how much was used."""
        try:
            at = 0
            if self._head is None:
                if data[0] == 13 or data[0] == 10:  # empty lines before a request: documented: RFC 9112 2.2
                    at = len(data) - len(data.lstrip(b"\r\n"))
                    if at == len(data):
                        return at
                end = data.find(b"\r\n\r\n", at + self._scanned)
                if end < 0:
                    self._look_at_beginning(data, at)
                    return at
                self._scanned = 0
                at = self._read_head(data, at, end + 4)
            return self._read_body(data, at)
        except Refused as error:
            self._refuse(error)
            return len(data)

    def _look_at_beginning(self, data: bytes | bytearray, at: int) -> None:
        """Of a head whose end has not arrived."""
        if len(data) - at > self.hub.options.header_bytes:
            raise Refused(431, f"a head has at most {self.hub.options.header_bytes} bytes")
        if self._scanned == 0:
            self._began = self.hub.now
        if self._scanned > _LOOKED_AT_BYTES:
            self._scanned = len(data) - at - 3
            return
        line_end = data.find(b"\n", at)
        if _BEGINNING.match(data, at, len(data) if line_end < 0 else line_end) is None or (
            line_end > 0 and data[line_end - 1] != 13
        ):
            raise Refused(400, "this is no HTTP/1.1 request")
        self._scanned = max(0, len(data) - at - 3)

    def _read_head(self, data: bytes | bytearray, at: int, end: int) -> int:
        if end - at > self.hub.options.header_bytes:
            raise Refused(431, f"a head has at most {self.hub.options.header_bytes} bytes")
        head = self.hub.heads.read(bytes(data[at:end]))
        most = self.hub.options.most(head.target)
        if head.length is None:
            self._chunks = Chunks(most)
        elif head.length > most:
            raise self.hub.options.refusal(head.method, head.target)
        else:
            self._needs = head.length
        self._head = head
        return end

    def _read_body(self, data: bytes | bytearray, at: int) -> int:
        head = self._head
        assert head is not None
        left = len(data) - at
        chunks = self._chunks
        if chunks is not None:
            at = chunks.take(data, at)
            self._hold(chunks.pieces.size - self._held)
            if chunks.is_done:
                body = chunks.pieces.join()
                self._release()
                self.exchange = Http1Exchange(self, head, body, self.wire.is_secure)
                return at
        elif self._pieces is None and left >= self._needs:
            self._head = None
            self.exchange = Http1Exchange(self, head, bytes(data[at : at + self._needs]), self.wire.is_secure)
            return at + self._needs
        else:
            at = self._collect(data, at, min(left, self._needs))
            if self._needs == 0:
                assert self._pieces is not None
                body = self._pieces.join()
                self._release()
                self.exchange = Http1Exchange(self, head, body, self.wire.is_secure)
                return at
        if head.is_expecting:
            self._head = head._replace(is_expecting=False)
            self._began = self.hub.now
            if self._pieces is None or self._pieces.size == 0:
                self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return at

    def _collect(self, data: bytes | bytearray, at: int, count: int) -> int:
        if self._pieces is None:
            self._pieces = Pieces()
            self._began = self.hub.now
        if count:
            self._pieces.add(bytes(data[at : at + count]))
            self._needs -= count
            self._hold(count)
        return at + count

    def _hold(self, count: int) -> None:
        self.hub.held += count
        self._held += count
        if self.hub.held > self.hub.options.held_bytes:
            raise Refused(503, "too many requests are arriving at once: try again")

    def _release(self) -> None:
        """The request being read is complete, or given up."""
        self.hub.held -= self._held
        self._held = 0
        self._head = None
        self._pieces = None
        self._chunks = None

    def _refuse(self, error: Refused) -> None:
        self._release()
        self._rest = None
        framing = b"content-length: %d\r\n%b" % (len(error.body), CLOSE)
        self.wire.send(response_head(error.status, error.headers, framing, self.hub.date_line) + error.body)
        self._finish()

    def _finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._rest = None
            self.wire.finish()
