"""Bodies that the client has compressed, as SDKs do from 10 KiB on where the model allows it."""

from __future__ import annotations

import zlib
from typing import Final

from kflow.aws.errors import SerializationFailed
from kflow.web.exchange import Exchange

_MOST: Final = 16 << 20
"""Bytes of a body once it is inflated (chosen; the operations that allow it take at most 1 MiB)."""
_GZIP: Final = 31


def body_of(exchange: Exchange) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        SerializationFailed: it cannot be inflated, or is too large then.
    """
    if exchange.headers.get("content-encoding") != "gzip":
        return exchange.body
    inflate = zlib.decompressobj(_GZIP)
    try:
        body = inflate.decompress(exchange.body, _MOST)
    except zlib.error as error:
        raise SerializationFailed("the body is no gzip, which its Content-Encoding says it is") from error
    if not inflate.eof:
        raise SerializationFailed(f"the body is cut off, or has more than {_MOST} bytes when it is inflated")
    return body
