"""Request ids: UUIDs of version 4, as 16 bytes inside and as text outside."""

from __future__ import annotations

import os


def new_request_id() -> bytes:
    """A random one."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def request_text(request_id: bytes) -> str:
    """As AWS writes it."""
    text = request_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
