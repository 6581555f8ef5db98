"""Opaque tokens that only this data folder can have made: of pages, of iterators, of receipts.

A token is base64 of `payload | nonce | signature`: no two are alike, nobody makes one up by accident, and it survives
restarts, for its key is the data folder's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os

_NONCE_BYTES = 8
_SIGNATURE_BYTES = 16


class Seal:
    """Makes tokens, and reads them again.

    Args:
        key: bytes that no other data folder has, at most 64.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def close(self, kind: bytes, payload: bytes) -> str:
        """A new token; one of another kind is never taken for it.

        Args:
            kind: what the token is for, at most 16 bytes, for example `b"streams"`.
            payload: what it says.
        """
        body = payload + os.urandom(_NONCE_BYTES)
        return base64.b64encode(body + self._signature(kind, body)).decode()

    def open(self, kind: bytes, token: str) -> bytes | None:
        """What a token says; None where it is none of ours, or of another kind."""
        try:
            raw = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            return None
        body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if len(body) < _NONCE_BYTES or not hmac.compare_digest(signature, self._signature(kind, body)):
            return None
        return body[:-_NONCE_BYTES]

    def _signature(self, kind: bytes, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, person=kind, digest_size=_SIGNATURE_BYTES).digest()
