"""The MD5s by which clients see that a message arrived as it was sent.

Source: recorded: MD5OfMessageAttributes of AWS; documented: Amazon SQS developer guide, calculating the MD5.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

_LENGTH = struct.Struct(">I")


class Value(NamedTuple):
    """A message attribute.

    Attributes:
        kind: its DataType, whole, for example `Number.int`.
        value: text, or bytes where it is binary.
    """

    kind: str
    value: str | bytes


def of_body(body: str) -> str:
    """MD5OfMessageBody."""
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def of_attributes(attributes: Mapping[str, Value]) -> str:
    """MD5OfMessageAttributes: over name, type and value of each, in the order of the names."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        kind, value = attributes[name]
        mark, data = (b"\x02", value) if isinstance(value, bytes) else (b"\x01", value.encode())
        for part in (name.encode(), kind.encode()):
            digest.update(_LENGTH.pack(len(part)) + part)
        digest.update(mark + _LENGTH.pack(len(data)) + data)
    return digest.hexdigest()
