"""One HTTP request and the way to answer it: all that a handler sees of the web."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
"""Of a response; `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are the server's own. Names may be in
any case; over HTTP/2 they are sent in lower case."""

LOW_BYTES = 64 * 1024
"""A response stream that has no more than this waiting is ready for more."""

Body = bytes | list[bytes]
"""All of an answer; in pieces where it is long, so that nobody has to copy them together."""


class ResponseStream(Protocol):
    """A response whose body comes piece by piece: chunks of HTTP/1.1, DATA frames of HTTP/2. Belongs to the loop.

    Attributes:
        buffered: bytes written and not yet taken by the kernel, or by the peer's flow control window.
        on_drain: called on the loop each time `buffered` has fallen to `LOW_BYTES` or below after it was above.
        on_close: called once, on the loop, if the peer goes away before `end`.
        is_closed: whether nothing more can be written.
    """

    on_drain: Callable[[], object] | None
    on_close: Callable[[], object] | None
    is_closed: bool

    @property
    def buffered(self) -> int:
        """Bytes not taken yet."""
        ...

    def write(self, data: bytes) -> None:
        """Queue some bytes; never blocks, dropped where the peer is gone."""
        ...

    def end(self) -> None:
        """Nothing more follows. Ending twice does nothing."""
        ...

    def abort(self) -> None:
        """The rest will never come: break off, so that the peer does not take what it has for all there is."""
        ...


class Exchange(Protocol):
    """A request that has arrived as a whole. Either `respond` or `stream` is called once, now or later, on the loop.

    Attributes:
        method: as sent, for example `POST`.
        target: path and query as sent, percent-encoded.
        headers: names in lower case; a header given twice is joined by `, `.
        body: all of it, decoded from chunks.
        version: `1.0`, `1.1` or `2`.
        is_secure: whether it came over TLS.
        is_closed: whether the peer is gone; answering does nothing then.
        on_close: called once, on the loop, if the peer goes away before it is answered.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    version: str
    is_secure: bool
    is_closed: bool
    on_close: Callable[[], object] | None

    def respond(self, status: int, headers: Headers, body: Body = b"") -> None:
        """Answer as a whole."""
        ...

    def stream(self, status: int, headers: Headers, length: int | None = None) -> ResponseStream:
        """Answer with the head now, and the body piece by piece.

        Args:
            status: of the answer.
            headers: of the answer.
            length: bytes of the body, where they are known: exactly so many are written then, unless the answer is
                broken off, or is to HEAD; None: they are not.
        """
        ...


Handler = Callable[[Exchange], object]
"""Called on the loop for each request; raises nothing."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make sure that it never fires."""
        ...


class Loop(Protocol):
    """What the server needs of the loop that hosts it. `kflow.runtime.loop.Loop` is one."""

    def add(self, fd: int, callback: Callable[[int], object], *, priority: int = 1, mask: int = 1) -> None:
        """Call `callback(mask)` whenever `fd` is ready; `mask` is 1 to read, 2 to write, 3 for both."""
        ...

    def modify(self, fd: int, mask: int) -> None:
        """Change what `fd` is watched for."""
        ...

    def remove(self, fd: int) -> None:
        """Stop watching `fd`."""
        ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once, `seconds` from now."""
        ...
