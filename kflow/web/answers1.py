"""Answers of HTTP/1.1: as a whole, or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kflow.errors import InternalError
from kflow.web.exchange import Body, Headers, ResponseStream
from kflow.web.heads import BODILESS, CHUNKED, CLOSE, KEEP_ALIVE, RequestHead, response_head

if TYPE_CHECKING:
    from kflow.web.http1 import Http1

_JOINED_BYTES = 16 * 1024
"""Up to this size a body is copied behind its head, which costs less than a second buffer for the kernel."""


class Http1Exchange:
    """See `kflow.web.exchange.Exchange`."""

    __slots__ = (
        "_is_answered",
        "_is_kept",
        "_speaker",
        "body",
        "headers",
        "is_closed",
        "is_secure",
        "method",
        "on_close",
        "target",
        "version",
    )

    def __init__(self, speaker: Http1, head: RequestHead, body: bytes, is_secure: bool) -> None:
        self.method = head.method
        self.target = head.target
        self.headers: Mapping[str, str] = head.headers
        self.version = head.version
        self._is_kept = head.is_kept
        self.body = body
        self.is_secure = is_secure
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self._is_answered = False
        self._speaker = speaker

    def respond(self, status: int, headers: Headers, body: Body = b"") -> None:
        """Answer as a whole."""
        if self._is_answered:
            raise InternalError("a request was answered twice")
        self._is_answered = True
        if self.is_closed:
            return
        speaker = self._speaker
        hub = speaker.hub
        goes_on = self._is_kept and not hub.is_stopping and not speaker.is_ended
        framing = b"" if goes_on and self.version == "1.1" else self._persistence()
        if status not in BODILESS:
            length = len(body) if isinstance(body, bytes) else sum(map(len, body))
            framing = b"content-length: %d\r\n%b" % (length, framing)
            if self.method == "HEAD":
                body = b""
        else:
            body = b""
        speaker.exchange = None
        date = hub.date_line
        if isinstance(body, bytes) and len(body) <= _JOINED_BYTES:
            speaker.wire.send(response_head(status, headers, framing, date, body))
        elif isinstance(body, bytes):
            speaker.wire.send(response_head(status, headers, framing, date), body)
        else:
            speaker.wire.send(response_head(status, headers, framing, date))
            for piece in body:
                speaker.wire.send(piece)
        speaker.answered(self._is_kept)

    def stream(self, status: int, headers: Headers, length: int | None = None) -> ResponseStream:
        """Answer with the head now, and the body piece by piece."""
        self._answer()
        has_body = status not in BODILESS and self.method != "HEAD"
        is_chunked = self.version == "1.1" and status not in BODILESS and length is None
        if self.version == "1.0" and has_body and length is None:
            self._is_kept = False  # the end of the connection is the end of the body
        stream = Http1Stream(self._speaker, is_kept=self._is_kept, is_chunked=is_chunked, has_body=has_body)
        if self.is_closed:
            stream.is_closed = True
            return stream
        framing = self._persistence()
        if is_chunked:
            framing = CHUNKED + framing
        elif length is not None and status not in BODILESS:
            framing = b"content-length: %d\r\n%b" % (length, framing)
        self._speaker.stream = stream
        self._speaker.wire.send(response_head(status, headers, framing, self._speaker.hub.date_line))
        return stream

    def fail(self) -> None:
        """The handler broke."""
        if self.is_closed:
            return
        if not self._is_answered:
            self.respond(500, ())
        elif self._speaker.stream is not None:
            self._speaker.wire.abort()  # a body that just ended would look complete

    def _answer(self) -> None:
        if self._is_answered:
            raise InternalError("a request was answered twice")
        self._is_answered = True

    def _persistence(self) -> bytes:
        if self._speaker.is_last:
            self._is_kept = False
        if not self._is_kept:
            return CLOSE
        return KEEP_ALIVE if self.version == "1.0" else b""


class Http1Stream:
    """See `kflow.web.exchange.ResponseStream`."""

    __slots__ = ("_has_body", "_is_chunked", "_is_kept", "_speaker", "is_closed", "on_close", "on_drain")

    def __init__(self, speaker: Http1, *, is_kept: bool, is_chunked: bool, has_body: bool) -> None:
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None
        self.is_closed = False
        self._speaker = speaker
        self._is_kept = is_kept
        self._is_chunked = is_chunked
        self._has_body = has_body

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return 0 if self.is_closed else self._speaker.wire.buffered

    def write(self, data: bytes) -> None:
        """Queue some bytes."""
        if self.is_closed or not data or not self._has_body:
            return
        self._speaker.wire.send(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def end(self) -> None:
        """Nothing more follows."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._is_chunked and self._has_body:
            self._speaker.wire.send(b"0\r\n\r\n")
        self._speaker.answered(self._is_kept)

    def abort(self) -> None:
        """The rest will never come: without its end, the connection ends."""
        if not self.is_closed:
            self._speaker.wire.abort()
