"""One request on its way through: an exchange of the endpoint here, a thread that talks to the upstream there.

waiting ---> asked ---> the answer is short: told as a whole
                |------> else: head told ---> pieces, as fast as the caller takes them ---> end, or broken off
                '------> no answer: the caller is told in its protocol
the caller goes away: the upstream's connection is closed, wherever this stands
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kflow.aws.strangers import refusal
from kflow.runtime.forwarding.asking import PIECE_BYTES, Answer, Failed, Ticket
from kflow.runtime.forwarding.headers import back
from kflow.web.exchange import LOW_BYTES, Exchange, Headers, ResponseStream

CREDIT: Final = 4
"""Pieces on their way to a caller that has not taken them: 256 KiB, then the upstream waits."""

Post = Callable[[Callable[[], object]], object]
"""From any thread: call on the loop, in the next round; not at all once it ends."""


class Passage:
    """Made on the loop; `tell` and `fail` are called by one thread.

    Args:
        exchange: the request.
        service: the name it is signed for.
        request_id: of this request.
        extra: headers that the answer has besides the upstream's.
        post: reaches the loop.
        silence_s: how long a caller may take nothing.

    Attributes:
        ticket: ends what the thread waits for.
        on_end: called on the loop when there is nothing more to do.
    """

    def __init__(
        self, exchange: Exchange, service: str, request_id: str, extra: Headers, post: Post, silence_s: float
    ) -> None:
        self.ticket = Ticket()
        self.on_end: Callable[[], object] | None = None
        self._exchange = exchange
        self._service = service
        self._request_id = request_id
        self._extra = extra
        self._post = post
        self._silence_s = silence_s
        self._credit = threading.Semaphore(CREDIT)
        self._owed = 0
        self._stream: ResponseStream | None = None
        exchange.on_close = self.cancel

    # on the loop

    def cancel(self) -> None:
        """The caller is gone, or the runtime ends."""
        self.ticket.cancel()
        self._credit.release(CREDIT)
        self._end()

    def _end(self) -> None:
        call, self.on_end = self.on_end, None
        if call is not None:
            call()

    def _refuse(self, error: Failed) -> None:
        if not self._exchange.is_closed:
            head = [(b"x-amzn-RequestId", self._request_id.encode()), *self._extra]
            headers, body = refusal(self._exchange, self._service, str(error), self._request_id, error.code)
            self._exchange.respond(error.status, [*head, *headers], body)
        self._end()

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._exchange.is_closed:
            self._exchange.respond(status, headers, body)
        self._end()

    def _begin(self, status: int, headers: Headers, length: int | None) -> None:
        if self._exchange.is_closed:
            return
        stream = self._stream = self._exchange.stream(status, headers, length)
        stream.on_close = self.cancel
        stream.on_drain = self._drained

    def _write(self, piece: bytes) -> None:
        stream = self._stream
        if stream is None or stream.is_closed:
            self.cancel()
            return
        stream.write(piece)
        if stream.buffered > LOW_BYTES:
            self._owed += 1
        else:
            self._credit.release()

    def _drained(self) -> None:
        if self._owed:
            self._credit.release(self._owed)
            self._owed = 0

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.end()
        self._end()

    def _break(self) -> None:
        if self._stream is not None:
            self._stream.abort()
        self._end()

    # in the thread

    def tell(self, answer: Answer) -> None:
        """Bring the upstream's answer to the caller.

        Raises:
            Failed: it breaks off before anything of it was told.
        """
        headers, length = back(answer.headers)
        given = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in self._extra if name.lower() not in given]
        pieces = answer.pieces
        is_bodiless = self._exchange.method == "HEAD" or answer.status in {204, 304}
        if not is_bodiless and length is not None and length <= PIECE_BYTES:
            body = b"".join(pieces)
            self._post(lambda: self._respond(answer.status, headers, body))
            return
        self._post(lambda: self._begin(answer.status, headers, length))
        try:
            for piece in pieces:
                if not self._credit.acquire(timeout=self._silence_s):
                    raise Failed(504, "UpstreamTimeout", "the caller takes nothing")
                if self.ticket.is_cancelled:
                    return
                self._post(lambda piece=piece: self._write(piece))  # type: ignore[misc] # bound now, not when it is called
        except Failed:
            self._post(self._break)  # its head says 200: only a broken connection tells that this is not all
        else:
            self._post(self._finish)

    def fail(self, error: Failed) -> None:
        """There is no answer to bring."""
        self._post(lambda: self._refuse(error))
