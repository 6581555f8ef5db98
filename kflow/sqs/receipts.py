"""Texts that clients get and give back: receipt handles, handles of move tasks, tokens of pages.

Each is signed with the data folder's key: what we did not make is told from what we did, also after a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final, NamedTuple

_FORM: Final = struct.Struct(">8sQI")
_SIGNATURE: Final = 16


class Delivery(NamedTuple):
    """One delivery of a message.

    Attributes:
        number: of the message in its queue.
        receives: how often it had been received then; later deliveries have more.
        handle: as the client gave it; empty where it gave none.
    """

    number: int
    receives: int
    handle: str = ""


class Receipts:
    """Makes and reads them.

    Args:
        key: bytes that no other data folder has, at most 64.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def handle(self, queue: str, number: int, receives: int) -> str:
        """The receipt handle of a delivery, good for this queue alone."""
        return self.close(b"receipt", _FORM.pack(bytes.fromhex(queue), number, receives))

    def delivery(self, queue: str, handle: str) -> Delivery | None:
        """What a receipt handle says; None where it is none, or another queue's."""
        said = self.open(b"receipt", handle)
        if said is None or len(said) != _FORM.size:
            return None
        owner, number, receives = _FORM.unpack(said)
        return Delivery(number, receives, handle) if owner == bytes.fromhex(queue) else None

    def close(self, kind: bytes, said: bytes) -> str:
        """A text that says something; one of another kind is never taken for it."""
        return base64.b64encode(said + self._signature(kind, said)).decode()

    def open(self, kind: bytes, text: str) -> bytes | None:
        """What a text says; None where it is none of ours."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        said, signature = raw[:-_SIGNATURE], raw[-_SIGNATURE:]
        return said if hmac.compare_digest(signature, self._signature(kind, said)) else None

    def _signature(self, kind: bytes, said: bytes) -> bytes:
        return hashlib.blake2b(said, key=self._key, person=kind, digest_size=_SIGNATURE).digest()
