"""Requests of a runtime, out of bytes: HTTP/1.1 as clients of the Runtime API speak it. No sockets here.

Written for few and large requests of a peer on this machine that may still be wrong: heads of up to a MiB and more
(a failure's X-Ray cause is in one), bodies with a length or in chunks, and what is over the limit read and thrown away,
so that its sender gets an answer instead of a broken connection.

Source: documented: Lambda Developer Guide, runtimes-api; recorded: what awslambdaric 4.2 and curl send.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kflow.lambda_.payloads import RESPONSE_BYTES

HEAD_BYTES: Final = (1 << 20) + (256 << 10)
"""The longest head that is read: a cause of up to a MiB, and the rest."""
_HEADERS: Final = 256
_LINE_BYTES: Final = 16 << 10
_KNOWN: Final = 8
_KNOWN_LINE_BYTES: Final = 512


class Malformed(Exception):
    """What cannot be read as a request; the connection is of no use after it."""


class Request(NamedTuple):
    """One request.

    Attributes:
        method: as it was sent.
        path: without a query.
        headers: names in small letters; of several of one name the last.
        body: as it was sent, out of its chunks; empty where it is over the limit.
        size: its length in bytes, also where it is over the limit.
        trailers: what came after a body in chunks; names in small letters.
        keep: whether the connection may be used again.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    size: int
    trailers: dict[str, str]
    keep: bool

    @property
    def too_large(self) -> bool:
        """Whether its body is over the limit."""
        return self.size > RESPONSE_BYTES


class Parser:
    """Reads the requests of one connection. Feed it; ask for the next request until there is none."""

    __slots__ = ("_body", "_buffer", "_chunked", "_head", "_in_trailers", "_left", "_scanned", "_size", "expects")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._head: tuple[str, str, dict[str, str], bool] | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._left = 0
        self._chunked = False
        self._in_trailers = False
        self.expects = False
        """The peer waits for a `100 Continue` before it sends the body; whoever sends one sets it back."""

    @property
    def is_between(self) -> bool:
        """Whether nothing of a request has been read that is not complete."""
        return self._head is None and not self._buffer

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next(self) -> Request | None:
        """The next complete request; None until more arrives.

        Raises:
            Malformed: what has arrived is none.
        """
        if self._head is None:
            self._head = self._read_head()
            if self._head is None:
                return None
        trailers = self._read_chunks() if self._chunked else self._read_length()
        if trailers is None:
            return None
        method, path, headers, keep = self._head
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._size > RESPONSE_BYTES:
            body = b""
        request = Request(method, path, headers, body, self._size, trailers, keep)
        self._head, self._body, self._size, self.expects = None, [], 0, False
        return request

    # ------------------------------------------------------------------ head

    def _read_head(self) -> tuple[str, str, dict[str, str], bool] | None:
        buffer = self._buffer
        while buffer[:2] == b"\r\n":  # between two requests some clients send one more line end
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._scanned = len(buffer)
            if len(buffer) > HEAD_BYTES:
                raise Malformed("the head is too long")
            return None
        if end > HEAD_BYTES:
            raise Malformed("the head is too long")
        # Values may hold UTF-8 as it is: a failure's cause does.
        first, *lines = buffer[:end].decode("utf-8", "replace").split("\r\n")
        del buffer[: end + 4]
        self._scanned = 0
        words = first.split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not words[0].isalpha():
            raise Malformed("no request line")
        headers = _headers(lines)
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if "transfer-encoding" in headers and (not self._chunked or "content-length" in headers):
            raise Malformed("a body of which the length is not clear")
        self._left = -1 if self._chunked else _length(headers.get("content-length", "0"))
        self.expects = headers.get("expect", "").lower() == "100-continue"
        said = headers.get("connection", "").lower()
        keep = said != "close" if words[2] == "HTTP/1.1" else said == "keep-alive"
        return words[0], words[1].partition("?")[0], headers, keep

    # ------------------------------------------------------------------ body

    def _take(self, count: int) -> int:
        """Move up to `count` bytes into the body, or nowhere where it is over the limit. Returns how many."""
        buffer = self._buffer
        taken = min(count, len(buffer))
        if not taken:
            return 0
        self._size += taken
        if self._size <= RESPONSE_BYTES:
            self._body.append(bytes(buffer) if taken == len(buffer) else bytes(buffer[:taken]))
        else:
            self._body.clear()
        del buffer[:taken]
        return taken

    def _read_length(self) -> dict[str, str] | None:
        self._left -= self._take(self._left)
        return None if self._left else {}

    def _read_chunks(self) -> dict[str, str] | None:
        while True:
            if self._in_trailers:
                return self._read_trailers()
            if self._left < 0:
                line = self._line()
                if line is None:
                    return None
                if not line and self._left == -2:  # the line end behind a chunk
                    self._left = -1
                    continue
                if self._left == -2:
                    raise Malformed("a chunk is longer than it says")
                self._left = _chunk(line)
                if not self._left:
                    self._in_trailers = True
                    continue
            self._left -= self._take(self._left)
            if self._left:
                return None
            self._left = -2

    def _read_trailers(self) -> dict[str, str] | None:
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            self._in_trailers = False
            return {}
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > HEAD_BYTES:
                raise Malformed("the trailers are too long")
            return None
        lines = buffer[:end].decode("utf-8", "replace").split("\r\n")
        del buffer[: end + 4]
        self._in_trailers = False
        return _headers(lines)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, _LINE_BYTES)
        if end < 0:
            if len(self._buffer) > _LINE_BYTES:
                raise Malformed("a chunk without a length")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


class Known:
    """Requests like those that a runtime has sent before, at a glance: its heads differ in the id and the length alone.

    Only what came whole in one piece is looked at, and only where its head is, but for those two, one that `Parser` has
    read already. Reading each anew would take a tenth of what an invocation costs here.
    """

    __slots__ = ("_heads", "_wholes")

    def __init__(self) -> None:
        self._wholes: dict[bytes, Request] = {}
        self._heads: dict[bytes, dict[str, str]] = {}

    def request(self, data: bytes) -> Request | None:
        """The request that this is, all of it; None: `Parser` must read it."""
        known = self._wholes.get(data)
        if known is not None:
            return known
        head = _plain_post(data)
        if head is None:
            return None
        end_of_line, digits, end = head
        headers = self._heads.get(data[end_of_line:digits])
        size = len(data) - end - 4
        if headers is None or size > RESPONSE_BYTES or data[digits:end] != b"%d" % size:
            return None
        return Request(
            "POST", data[5 : end_of_line - 9].decode("latin-1"), headers, data[end + 4 :], size, {}, keep=True
        )

    def learn(self, data: bytes, request: Request) -> None:
        """These bytes, and no others, were this request."""
        if not request.keep or len(self._wholes) + len(self._heads) >= _KNOWN:
            return
        if request.method == "GET" and not request.size:
            self._wholes[data] = request
        elif request.headers.get("content-length") == str(request.size) and "expect" not in request.headers:
            head = _plain_post(data)
            if head is not None and data[head[1] : head[2]] == str(request.size).encode() and "?" not in request.path:
                self._heads[data[head[0] : head[1]]] = request.headers


def _plain_post(data: bytes) -> tuple[int, int, int] | None:
    """Of a POST whose last header is its length: where its first line, the length's name and its head end."""
    end = data.find(b"\r\n\r\n")
    line = data.find(b" HTTP/1.1\r\n", 0, _KNOWN_LINE_BYTES)
    if line < 0 or end < line or data[:5] != b"POST ":
        return None
    digits = data.rfind(b": ", line, end) + 2
    return (line + 9, digits, end) if data[digits - 16 : digits].lower() == b"content-length: " else None


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > _HEADERS:
        raise Malformed("too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[-1] in " \t" or name[0] in " \t":
            raise Malformed("a header without a name")
        headers[name.lower()] = value.strip(" \t")
    return headers


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Malformed("a length that is no number")
    return int(text)


def _chunk(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) < 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise Malformed("a chunk without a length")
    return int(digits, 16)
