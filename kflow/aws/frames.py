"""Frames of AWS's event streams: a head with checksum, headers, a payload, and a checksum of everything.

    u32 length of all | u32 length of headers | u32 CRC-32 of those 8 bytes | headers | payload | u32 CRC-32 of the rest

All integers big-endian. A header is `u8 length | name | u8 kind | value`, where texts and bytes have a u16 length.
Source: recorded: frames of SubscribeToShard; documented: Smithy, Amazon Event Stream specification.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple
from zlib import crc32

from kflow.errors import KflowError

PAYLOAD_BYTES_MAX: Final = 24 << 20
"""Source: documented: Smithy, Amazon Event Stream specification, as the next two."""
HEADERS_BYTES_MAX: Final = 128 << 10
VALUE_BYTES_MAX: Final = (1 << 15) - 1

_HEAD: Final = struct.Struct(">II")
_CRC: Final = struct.Struct(">I")
_FRAMING: Final = 16


class BrokenFrame(KflowError):
    """Bytes that are no frame of an event stream; says what is wrong with them."""


class Kind(IntEnum):
    """Of a header's value."""

    TRUE = 0
    FALSE = 1
    BYTE = 2
    SHORT = 3
    INTEGER = 4
    LONG = 5
    BYTES = 6
    STRING = 7
    TIMESTAMP = 8
    UUID = 9


_NUMBERS: Final = {
    Kind.BYTE: struct.Struct(">b"),
    Kind.SHORT: struct.Struct(">h"),
    Kind.INTEGER: struct.Struct(">i"),
    Kind.LONG: struct.Struct(">q"),
    Kind.TIMESTAMP: struct.Struct(">q"),
}
_LENGTH: Final = struct.Struct(">H")


class Frame(NamedTuple):
    """One frame, taken apart.

    Attributes:
        headers: by name: str, bytes, bool, int (numbers, and timestamps in milliseconds) or UUID.
        payload: as sent.
    """

    headers: Mapping[str, Any]
    payload: bytes


def header(name: str, value: Any, kind: Kind = Kind.STRING) -> bytes:
    """One header as bytes.

    Args:
        name: 1 to 255 bytes in UTF-8.
        value: as in `Frame.headers`; for a boolean, `kind` is `Kind.TRUE` or `Kind.FALSE`, and this is not looked at.
        kind: of the value.

    Raises:
        BrokenFrame: it does not fit.
    """
    coded = name.encode()
    if not 1 <= len(coded) <= 255:
        raise BrokenFrame(f"the name of a header takes 1 to 255 bytes, and {name!r} takes {len(coded)}")
    if kind <= Kind.FALSE:
        return bytes((len(coded), *coded, kind))
    if kind in _NUMBERS:
        try:
            rest = _NUMBERS[kind].pack(value)
        except struct.error as error:
            raise BrokenFrame(f"header {name}: {value!r} is no {kind.name.lower()}: {error}") from error
    elif kind is Kind.UUID:
        rest = value.bytes
    else:
        rest = value.encode() if kind is Kind.STRING else bytes(value)
        if len(rest) > VALUE_BYTES_MAX:
            raise BrokenFrame(f"header {name} takes {len(rest)} bytes, and {VALUE_BYTES_MAX} are allowed")
        rest = _LENGTH.pack(len(rest)) + rest
    return bytes((len(coded), *coded, kind)) + rest


def headers(values: Mapping[str, str]) -> bytes:
    """Some headers with texts as bytes: to be made once and sent often."""
    return b"".join([header(name, value) for name, value in values.items()])


def encode(coded_headers: bytes, payload: bytes) -> bytes:
    """One frame. Hot: the payload is read once for the checksum, and copied once.

    Args:
        coded_headers: as `headers` makes them.
        payload: at most `PAYLOAD_BYTES_MAX`.
    """
    head = _HEAD.pack(_FRAMING + len(coded_headers) + len(payload), len(coded_headers))
    front = b"".join((head, _CRC.pack(crc32(head)), coded_headers))
    return b"".join((front, payload, _CRC.pack(crc32(payload, crc32(front)))))


class Decoder:
    """Takes a stream of frames apart, however it was cut. Remembers at most one frame that is not complete.

    After `BrokenFrame` it is of no use: nothing says where the next frame begins.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """Whether a stream that ends here ends well."""
        return not self._pending

    def feed(self, data: bytes) -> list[Frame]:
        """Add some bytes.

        Returns:
            The frames they complete, in order.

        Raises:
            BrokenFrame: a checksum or a length is wrong.
        """
        pending = self._pending
        pending += data
        found: list[Frame] = []
        begin = 0
        while len(pending) - begin >= 12:
            total, size = _HEAD.unpack_from(pending, begin)
            if _CRC.unpack_from(pending, begin + 8)[0] != crc32(pending[begin : begin + 8]):
                raise BrokenFrame("the head of a frame fails its checksum")
            if size > HEADERS_BYTES_MAX or not _FRAMING + size <= total <= _FRAMING + size + PAYLOAD_BYTES_MAX:
                raise BrokenFrame(f"no frame has {total} bytes, {size} of them headers")
            if len(pending) - begin < total:
                break
            found.append(_frame(bytes(pending[begin : begin + total]), size))
            begin += total
        del pending[:begin]
        return found


def _frame(data: bytes, size: int) -> Frame:
    if _CRC.unpack_from(data, len(data) - 4)[0] != crc32(memoryview(data)[:-4]):
        raise BrokenFrame("a frame fails its checksum")
    try:
        found = dict(_headers(data[12 : 12 + size]))
    except (struct.error, IndexError, ValueError) as error:
        raise BrokenFrame(f"the headers of a frame cannot be read: {error}") from error
    return Frame(found, data[12 + size : -4])


def _headers(data: bytes) -> Iterator[tuple[str, Any]]:
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name = data[at + 1 : end].decode()
        kind = Kind(data[end])
        at = end + 1
        if kind <= Kind.FALSE:
            yield name, kind is Kind.TRUE
        elif kind in _NUMBERS:
            yield name, _NUMBERS[kind].unpack_from(data, at)[0]
            at += _NUMBERS[kind].size
        elif kind is Kind.UUID:
            yield name, uuid.UUID(bytes=data[at : at + 16])
            at += 16
        else:
            end = at + 2 + _LENGTH.unpack_from(data, at)[0]
            value = data[at + 2 : end]
            if end > len(data):
                raise ValueError("a value is cut off")
            yield name, value.decode() if kind is Kind.STRING else value
            at = end
