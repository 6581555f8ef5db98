"""The head of a request of HTTP/2, checked: a malformed one costs its stream, not its connection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from kflow.web.heads import Refused

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_UNFIT = re.compile(rb"[\0\r\n]")
_PATH = re.compile(rb"/[\x21-\xff]*|\*")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_OF_CONNECTIONS = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""Headers that say something about a connection of HTTP/1.1. documented: RFC 9113 8.2.2."""


def read_fields(fields: Iterable[tuple[bytes, bytes]], header_count: int) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers of a request; `:authority` becomes `host`.

    Raises:
        Refused: it is malformed (documented: RFC 9113 8.1.1), or has too many headers.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: dict[str, str] = {}
    count = 0
    for name, value in fields:
        if _UNFIT.search(value) is not None:
            raise Refused(400, "a header holds a line break or a zero byte")
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or headers:
                raise Refused(400, f"pseudo-header {name[:40]!r} is unknown, given twice, or behind a header")
            pseudo[name] = value
            continue
        count += 1
        if count > header_count:
            raise Refused(431, f"more than {header_count} headers")
        key = _lower_case(bytes(name))
        text = value.strip(b" \t").decode("latin-1")
        if key not in headers:
            headers[key] = text
        elif key == "cookie":
            headers[key] += "; " + text
        elif key == "host":
            raise Refused(400, "more than one Host header")
        else:
            headers[key] += ", " + text
    return _method(pseudo), _target(pseudo, headers), headers


def _method(pseudo: dict[bytes, bytes]) -> str:
    method = pseudo.get(b":method", b"")
    if _METHOD.fullmatch(method) is None or method == b"CONNECT":
        raise Refused(400, f"no request can be made with the method {method[:40]!r}")
    return method.decode("ascii")


def _target(pseudo: dict[bytes, bytes], headers: dict[str, str]) -> str:
    if headers.get("te", "trailers") != "trailers":
        raise Refused(400, "TE may only be trailers")
    path = pseudo.get(b":path", b"")
    if _PATH.fullmatch(path) is None or not pseudo.get(b":scheme"):
        raise Refused(400, "a request needs :scheme, and a :path that begins with /")
    authority = pseudo.get(b":authority")
    if authority is not None:
        host = authority.decode("latin-1")
        if headers.setdefault("host", host) != host:
            raise Refused(400, ":authority and Host differ")
    return path.decode("latin-1")


@lru_cache(maxsize=1024)
def _lower_case(name: bytes) -> str:
    if _TOKEN.fullmatch(name) is None:
        raise Refused(400, f"header names are tokens in lower case, unlike {name[:40]!r}")
    key = name.decode("ascii")
    if key in _OF_CONNECTIONS:
        raise Refused(400, f"HTTP/2 has no header {key}")
    return key
