"""Answers of HTTP/2: as a whole, or piece by piece, each held back by its stream's window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from kflow.errors import InternalError
from kflow.web.body import Pieces
from kflow.web.exchange import Body, Headers, ResponseStream
from kflow.web.heads import BODILESS, Refused

if TYPE_CHECKING:
    from kflow.web.http2 import Http2


class Http2Exchange:
    """See `kflow.web.exchange.Exchange`."""

    __slots__ = (
        "_is_answered",
        "_speaker",
        "began",
        "body",
        "dropped",
        "headers",
        "is_arriving",
        "is_closed",
        "is_refused",
        "is_secure",
        "method",
        "on_close",
        "outgoing",
        "pieces",
        "refusal",
        "stream_id",
        "target",
        "version",
    )

    def __init__(self, speaker: Http2, stream_id: int, method: str, target: str, headers: Mapping[str, str]) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = b""
        self.version = "2"
        self.is_secure = speaker.wire.is_secure
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self.stream_id = stream_id
        self.began = speaker.hub.now
        self.pieces: Pieces | None = Pieces()
        self.is_arriving = True
        self.is_refused = False
        self.refusal: Refused | None = None  # once its body has ended
        self.dropped = 0
        self.outgoing: Http2Stream | None = None
        self._is_answered = False
        self._speaker = speaker

    def respond(self, status: int, headers: Headers, body: Body = b"") -> None:
        """Answer as a whole."""
        self._answer()
        if self.is_closed:
            return
        pieces = [body] if isinstance(body, bytes) else body
        length = sum(map(len, pieces))
        if status in BODILESS:
            self._head(status, headers, None, is_whole=True)
        elif self.method == "HEAD" or not length:
            self._head(status, headers, length, is_whole=True)
        else:
            self._head(status, headers, length, is_whole=False)
            self.send_whole(pieces)
        self._speaker.push()

    def stream(self, status: int, headers: Headers, length: int | None = None) -> ResponseStream:
        """Answer with the head now, and the body piece by piece."""
        self._answer()
        stream = Http2Stream(self._speaker, self, has_body=status not in BODILESS and self.method != "HEAD")
        if self.is_closed:
            stream.is_closed = True
            return stream
        self._head(status, headers, None if status in BODILESS else length, is_whole=False)
        self.outgoing = stream
        self._speaker.push()
        return stream

    def fail(self) -> None:
        """The handler broke."""
        if self.is_closed:
            return
        if not self._is_answered:
            self.respond(500, ())
        else:
            self._speaker.reset(self, ErrorCodes.INTERNAL_ERROR)

    def _answer(self) -> None:
        if self._is_answered:
            raise InternalError("a request was answered twice")
        self._is_answered = True

    def _head(self, status: int, headers: Headers, length: int | None, *, is_whole: bool) -> None:
        block = [(b":status", b"%d" % status)]
        block += [(name.lower(), value) for name, value in headers]
        if length is not None:
            block.append((b"content-length", b"%d" % length))
        block.append((b"date", self._speaker.hub.date))
        self._speaker.send_headers(self, block, is_whole=is_whole)

    def send_whole(self, pieces: list[bytes]) -> None:
        """Send a body that is complete, as windows allow."""
        self.outgoing = stream = Http2Stream(self._speaker, self, has_body=True)
        for piece in pieces:
            stream.queue(piece)
        stream.is_ended = True
        stream.is_closed = True
        self._speaker.want(self)


class Http2Stream:
    """See `kflow.web.exchange.ResponseStream`.

    Attributes:
        pieces: queued, and not in a frame yet.
        waiting: bytes of them.
        is_ended: whether nothing follows them.
    """

    __slots__ = (
        "_exchange",
        "_has_body",
        "_speaker",
        "is_closed",
        "is_ended",
        "on_close",
        "on_drain",
        "pieces",
        "waiting",
    )

    def __init__(self, speaker: Http2, exchange: Http2Exchange, *, has_body: bool) -> None:
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None
        self.is_closed = False
        self.is_ended = False
        self.pieces: deque[memoryview] = deque()
        self.waiting = 0
        self._speaker = speaker
        self._exchange = exchange
        self._has_body = has_body

    @property
    def buffered(self) -> int:
        """Bytes that the peer's window holds back, and those of the connection that its kernel has not taken."""
        return 0 if self.is_closed else self.waiting + self._speaker.wire.buffered

    def write(self, data: bytes) -> None:
        """Queue some bytes."""
        if self.is_closed or not data or not self._has_body:
            return
        self.queue(data)
        self._speaker.want(self._exchange)
        self._speaker.push()
        self._speaker.limit(self._exchange.stream_id, self)

    def end(self) -> None:
        """Nothing more follows."""
        if self.is_closed:
            return
        self.is_closed = True
        self.is_ended = True
        self._speaker.want(self._exchange)
        self._speaker.push()

    def abort(self) -> None:
        """The rest will never come: the stream is reset."""
        if not self.is_closed:
            self._speaker.reset(self._exchange, ErrorCodes.INTERNAL_ERROR)

    def queue(self, data: bytes) -> None:
        """Take bytes to be put into frames."""
        self.pieces.append(memoryview(data))
        self.waiting += len(data)
        self._speaker.unsent += len(data)

    def take(self, count: int) -> memoryview | bytes:
        """Up to `count` bytes of what is queued, as much of them as lie together, or little ones put together."""
        first = self.pieces[0]
        if len(first) >= count or len(self.pieces) == 1:
            piece: memoryview | bytes = first[:count]
            self._drop(len(piece))
            return piece
        together: list[memoryview] = []
        left = count
        while left and self.pieces:
            part = self.pieces[0][:left]
            together.append(part)
            left -= len(part)
            self._drop(len(part))
        return b"".join(together)

    def _drop(self, count: int) -> None:
        first = self.pieces[0]
        if count == len(first):
            self.pieces.popleft()
        else:
            self.pieces[0] = first[count:]
        self.waiting -= count
        self._speaker.unsent -= count

    def drop_all(self) -> None:
        """Nobody takes it any more."""
        self.pieces.clear()
        self._speaker.unsent -= self.waiting
        self.waiting = 0
