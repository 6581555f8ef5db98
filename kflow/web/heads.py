"""Heads of HTTP/1.1: a request's is parsed, a response's is built.

A head is handed to `httptools` (llhttp in its strict mode) as a whole and nothing else is, so the parser is thrown away
with it: an idle connection keeps none, and a body never meets it.

Heads that leave nothing to decide, as SDKs send them, are read without it: clients say nearly the same each time, so
their lines are remembered ("http-put" of `tests/bench`: 6 us a request). Both ways give the same where both give one.
"""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools

from kflow.errors import KflowError
from kflow.web.exchange import Headers

log = logging.getLogger(__name__)

_NAMES_KEPT = 1024
"""Header names are lowered once each, so many at most: a peer that invents names pays for them alone."""

_LINES_KEPT: Final = 512
_LINE_BYTES: Final = 512
"""So many lines are remembered, none longer: half a MiB, if each is new."""
_PLAIN_REQUEST: Final = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (/[A-Za-z0-9/._~%?&=+:,;@$!*()-]*) HTTP/1\.1")
_PLAIN_FIELD: Final = re.compile(rb"([A-Za-z0-9-]+): ?([!-~](?:[ -~]*[!-~])?)")
"""Far less than what HTTP allows: no fold, no blanks to strip, nothing outside of ASCII."""
_PLAIN_VALUES: Final = {
    "connection": re.compile(r"(?i:keep-alive)"),
    "content-length": re.compile(r"[0-9]{1,15}"),
    "expect": None,
    "proxy-connection": None,
    "transfer-encoding": None,
    "upgrade": None,
}
"""What says how a request goes on: with such a value nothing needs deciding; None: it always does."""

_OWN_PHRASES: Final = {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}
"""As AWS has them; from Python 3.13 on `HTTPStatus` has those of RFC 9110."""
_STATUS_LINES: dict[int, bytes] = {
    status: f"HTTP/1.1 {status} {phrase}\r\n".encode()
    for status, phrase in ({int(status): status.phrase for status in HTTPStatus} | _OWN_PHRASES).items()
}
BODILESS = frozenset({204, 304})
"""Answers that have no body, and no length either."""


class Refused(KflowError):
    """A request that breaks HTTP, or a limit; answered with `status`, and the connection is closed.

    Attributes:
        status: of the answer.
        headers: of the answer, beside those of every answer.
        body: of the answer; of a 413 none where none is given. Source: documented.
    """

    def __init__(self, status: int, message: str, headers: Headers = (), body: bytes | None = None) -> None:
        super().__init__(message)
        self.status = status
        if body is None and status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            headers, body = ((b"content-type", b"text/plain; charset=utf-8"),), f"{message}\n".encode()
        self.headers = headers
        self.body = body or b""


class RequestHead(NamedTuple):
    """What stands before a body.

    Attributes:
        method: as sent.
        target: path and query as sent, without the scheme and the authority that a proxy's client would send.
        headers: names in lower case; values of a repeated name are joined by `, `.
        version: `1.0` or `1.1`.
        is_kept: whether the peer wants the connection to stay open.
        length: of the body; None where it comes in chunks.
        is_expecting: whether the peer waits for `100 Continue` before it sends the body.
    """

    method: str
    target: str
    headers: dict[str, str]
    version: str
    is_kept: bool
    length: int | None
    is_expecting: bool


class _NotPlain(Exception):  # no error: the parser is asked
    """A line that the parser has to look at."""


class _Requests(dict[bytes, tuple[str, str]]):
    """Method and target by request line."""

    def __missing__(self, line: bytes) -> tuple[str, str]:
        match = _PLAIN_REQUEST.fullmatch(line)
        if match is None:
            raise _NotPlain
        found = match[1].decode(), match[2].decode()
        if len(line) <= _LINE_BYTES:
            if len(self) >= _LINES_KEPT:
                self.clear()
            self[line] = found
        return found


class _Fields(dict[bytes, tuple[str, str]]):
    """Name in lower case, and value, by header line."""

    def __missing__(self, line: bytes) -> tuple[str, str]:
        match = _PLAIN_FIELD.fullmatch(line)
        if match is None:
            raise _NotPlain
        name, value = found = match[1].decode().lower(), match[2].decode()
        if name in _PLAIN_VALUES:
            plain = _PLAIN_VALUES[name]
            if plain is None or plain.fullmatch(value) is None:
                raise _NotPlain
        if len(line) <= _LINE_BYTES:
            if len(self) >= _LINES_KEPT:
                self.clear()
            self[line] = found
        return found


class HeadReader:
    """Parses heads, one after the other, for all connections of a server.

    Args:
        header_count: a head with more headers is refused with 431.
    """

    __slots__ = ("_field", "_headers", "_limit", "_names", "_repeated", "_requests", "_target")

    def __init__(self, header_count: int) -> None:
        self._limit = header_count
        self._requests = _Requests()
        self._field = _Fields().__getitem__
        self._names: dict[bytes, str] = {}
        self._headers: dict[str, str] = {}
        self._target = b""
        self._repeated = 0

    def read(self, head: bytes) -> RequestHead:
        """Parse a head, from its first byte to the empty line that ends it.

        Raises:
            Refused: it is no request that this server can serve.
        """
        return self.plain(head) or self.exact(head)

    def plain(self, head: bytes) -> RequestHead | None:
        """The same where every line of it leaves nothing to decide; None: it takes `exact` to say what it is."""
        lines = head.split(b"\r\n")
        count = len(lines) - 3
        if not 0 <= count <= self._limit or lines[-1] or lines[-2]:
            return None
        try:
            method, target = self._requests[lines[0]]
            headers = dict(map(self._field, lines[1:-2]))
        except _NotPlain:
            return None
        if len(headers) != count or "host" not in headers:  # a name is there twice
            return None
        return RequestHead(method, target, headers, "1.1", True, int(headers.get("content-length", 0)), False)

    def exact(self, head: bytes) -> RequestHead:
        """As `read`, by the parser."""
        headers = self._headers = {}
        self._target = b""
        self._repeated = 0
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # another protocol is offered, not demanded: it is not taken up
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise Refused(400, f"this is no HTTP/1.1 request: {error}") from None
        if not self._target:
            raise Refused(400, "this is no HTTP/1.1 request: its head is not complete")
        if len(headers) + self._repeated > self._limit:
            raise Refused(431, f"more than {self._limit} headers")
        method = parser.get_method().decode("ascii")
        target = self._target.decode("latin-1")
        line_end = head.find(b"\r\n", 8)
        version = "1.1" if head[line_end - 9 : line_end] == b" HTTP/1.1" else _version(parser)
        length = _framing(headers, version)
        if version == "1.1" and "host" not in headers:
            raise Refused(400, "a request of HTTP/1.1 needs a Host header")
        if target[0] != "/":
            target = _origin_form(method, target, headers)
        expect = headers.get("expect")
        if expect is not None and expect.lower() != "100-continue":
            raise Refused(417, f"unknown expectation {expect!r}: only 100-continue is known")
        return RequestHead(
            method,
            target,
            headers,
            version,
            _is_kept(headers.get("connection"), version),
            length,
            expect is not None and version == "1.1" and length != 0,
        )

    # called by the parser

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        try:
            key = self._names[name]
        except KeyError:
            key = self._lower(name)
        headers = self._headers
        if key not in headers:
            headers[key] = value.decode("latin-1")
            return
        self._repeated += 1
        if key == "host":
            raise Refused(400, "more than one Host header")
        if self._repeated <= self._limit:
            headers[key] += ", " + value.decode("latin-1")

    def _lower(self, name: bytes) -> str:
        key = name.decode("latin-1").lower()
        if len(self._names) >= _NAMES_KEPT:
            self._names.clear()
        self._names[name] = key
        return key


def _version(parser: httptools.HttpRequestParser) -> str:
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise Refused(505, f"HTTP/{version} is not spoken here: use HTTP/1.1, or HTTP/2 with prior knowledge")
    return version


def _is_kept(connection: str | None, version: str) -> bool:
    """Not asked of the parser, which has forgotten it by the end of a request without a body."""
    if connection is None:
        return version == "1.1"
    options = [option.strip() for option in connection.lower().split(",")]
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def _framing(headers: dict[str, str], version: str) -> int | None:
    """How long the body is; None where it comes in chunks."""
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise Refused(400, f"Content-Length is no number of bytes: {length[:40]!r}")
        return int(length)
    if length is not None:
        raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
    if version == "1.0":
        raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != "chunked":
        raise Refused(501, f"Transfer-Encoding {coding[:40]!r} is not known here: only chunked is")
    return None


def _origin_form(method: str, target: str, headers: dict[str, str]) -> str:
    """The target as a server that is no proxy is asked for it: `http://host/path` names a host, and `/path` on it."""
    if target == "*" and method == "OPTIONS":
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or method == "CONNECT" or scheme.lower() not in ("http", "https"):
        raise Refused(400, "the request's target must be a path")
    cut = next((index for index, letter in enumerate(rest) if letter in "/?"), len(rest))
    headers["host"] = rest[:cut]
    path = rest[cut:]
    return path if path.startswith("/") else "/" + path


CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"
"""For a peer of HTTP/1.0 that asked for it."""
CHUNKED = b"transfer-encoding: chunked\r\n"


def response_head(status: int, headers: Headers, framing: bytes, date: bytes, body: bytes = b"") -> bytes:
    """A response's head, from the status line to the empty line.

    Args:
        status: of the response.
        headers: the handler's.
        framing: whole lines that say where the body and the connection end.
        date: a whole line.
        body: what follows at once, where that is short.
    """
    try:
        line = _STATUS_LINES[status]
    except KeyError:
        line = b"HTTP/1.1 %d Unknown\r\n" % status
    lines = b"\r\n".join([*map(b": ".join, headers), b""])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        # a value that echoes what the peer sent must not be able to write headers of its own
        log.warning("line breaks in the headers of an answer are blanks now headers=%r", headers)
        lines = b"".join([b"%b: %b\r\n" % (_one_line(name), _one_line(value)) for name, value in headers])
    return b"".join((line, lines, framing, date, b"\r\n", body))


def _one_line(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").replace(b"\n", b" ")
