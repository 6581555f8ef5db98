"""What of a request and of an answer goes through, and what is between two neighbours only.

Source: documented: RFC 9110 7.6.1, hop-by-hop fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

MARK: Final = "x-kflow-forwarded"
"""Says that kflow has passed a request on: one that comes back is refused, or it would go round for ever."""

_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
_OURS: Final = _HOP | {"host", "content-length", "expect"}
_THEIRS: Final = _HOP | {"content-length", "date"}
"""What the web server writes itself, and what is between the upstream and us."""
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F))
_BUCKET: Final = re.compile(
    r"(?!s3[.-])([a-z0-9][a-z0-9.-]{1,61}?[a-z0-9])\.(?:s3(?:[.-][a-z0-9-]+)?\.)?localhost(?::\d+)?"
)
_V2_QUERY: Final = re.compile(r"[?&](?:AWSAccessKeyId|Signature)=.*&(?:AWSAccessKeyId|Signature)=")


def onward(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of a request that go on to the upstream."""
    dropped = _OURS | _listed(headers.get("connection", ""))
    return [(name, value) for name, value in headers.items() if name not in dropped]


def back(headers: Iterable[tuple[str, str]]) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """The headers of an answer that go back to the caller, and the length it says it has; None: it says none."""
    given = [(name.lower(), name, value) for name, value in headers]
    dropped = set(_THEIRS)
    length = None
    for lower, _, value in given:
        if lower == "connection":
            dropped |= _listed(value)
        elif lower == "content-length" and value.isascii() and value.isdigit():
            length = int(value)
    kept = [(_bytes(name), _bytes(value)) for lower, name, value in given if lower not in dropped]
    return kept, length


def target_of(target: str, host: str, *, is_s3: bool) -> str:
    """Path and query as the upstream is asked for them: the bucket in S3's host name moves into the path.

    Args:
        target: as sent.
        host: the `Host` header.
        is_s3: whether a name before `localhost` is a bucket's.
    """
    if not target.startswith("/"):
        target = f"/{target}"
    bucket = _BUCKET.fullmatch(host) if is_s3 else None
    if bucket is not None:
        target = f"/{bucket[1]}{target}"
    return quote(target.encode("latin-1"), safe=_PLAIN)


def is_old_s3(target: str, authorization: str) -> bool:
    """Whether a request is signed as S3's were before Signature Version 4, which names no service."""
    if authorization.startswith("AWS "):
        return True
    return _V2_QUERY.search(target) is not None and "SignatureVersion=" not in target


def _listed(connection: str) -> set[str]:
    return {name.strip().lower() for name in connection.split(",")} - {""}


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")
