"""Aggregated records, as the Kinesis Producer Library packs them: many user records in the payload of one.

    F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf bytes

    AggregatedRecord: 1 repeated string partition keys; 2 repeated string explicit hash keys; 3 repeated Record
    Record:           1 uint64 index of the partition key; 2 optional uint64 index of the explicit hash key;
                      3 bytes data; 4 repeated Tag (1 string key, 2 optional string value), which nobody uses

Source: documented: aggregation-format.md of the Kinesis Producer Library; its message definition, proto2.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

MAGIC: Final = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES: Final = 16
_FRAMING: Final = len(MAGIC) + _DIGEST_BYTES
_NESTED_MAX: Final = 100
"""Groups within groups; as protobuf's own parsers."""


class UserRecord(NamedTuple):
    """One record out of an aggregated one; its place among them is its sub-sequence number.

    Attributes:
        data: payload.
        partition_key: as its producer chose it.
        explicit_hash_key: as its producer wrote it, decimal digits; None where the partition key decides.
    """

    data: bytes
    partition_key: str
    explicit_hash_key: str | None


class Aggregate:
    """Gathers user records into the payload of one record.

    Attributes:
        count: records gathered.
        size: bytes of the payload.
    """

    __slots__ = ("_hash_keys", "_keys", "_limit", "_pieces", "_table", "count", "size")

    def __init__(self, limit: int) -> None:
        """Begin.

        Args:
            limit: bytes that the payload may take.
        """
        self.count = 0
        self.size = _FRAMING
        self._limit = limit
        self._table: list[bytes] = []
        self._pieces: list[bytes] = []
        self._keys: dict[str, int] = {}
        self._hash_keys: dict[int, int] = {}

    def add(self, data: bytes, key: str, hash_key: int | None) -> bool:
        """Gather one more record.

        Returns:
            Whether it fits; where it does not, nothing has changed.
        """
        table = []
        place = self._keys.get(key)
        if place is None:
            place = len(self._keys)
            coded = key.encode()
            table.append(b"\x0a" + _varint(len(coded)) + coded)
        head = b"\x08" + _varint(place)
        if hash_key is not None:
            place = self._hash_keys.get(hash_key)
            if place is None:
                place = len(self._hash_keys)
                coded = str(hash_key).encode()
                table.append(b"\x12" + _varint(len(coded)) + coded)
            head += b"\x10" + _varint(place)
        size = len(data)
        head += b"\x1a" + _varint(size)
        head = b"\x1a" + _varint(len(head) + size) + head
        size += self.size + len(head) + sum(map(len, table))
        if size > self._limit:
            return False
        self.size = size
        self.count += 1
        self._keys.setdefault(key, len(self._keys))
        if hash_key is not None:
            self._hash_keys.setdefault(hash_key, len(self._hash_keys))
        self._table += table
        self._pieces += (head, data)
        return True

    def payload(self) -> bytes:
        """The payload of the one record."""
        message = b"".join((*self._table, *self._pieces))
        return b"".join((MAGIC, message, _md5(message)))


def split(payload: bytes) -> list[UserRecord] | None:
    """Take an aggregated payload apart.

    Returns:
        The user records; None where the payload is not aggregated, or is broken: then it is one record as it stands.
        Behind a record whose keys are not in the tables the rest is lost, as it is in AWS's own consumers: logged.
    """
    if not payload.startswith(MAGIC) or len(payload) <= _FRAMING:
        return None
    message = payload[len(MAGIC) : -_DIGEST_BYTES]
    if _md5(message) != payload[-_DIGEST_BYTES:]:
        return None
    try:
        keys, hash_keys, rows = _parse(message)
    except (ValueError, IndexError):
        return None
    records: list[UserRecord] = []
    for key, hash_key, begin, end in rows:
        if key >= len(keys) or (hash_key is not None and hash_key >= len(hash_keys)):
            log.warning(
                "an aggregated record names a key it does not hold: kept=%d lost=%d",
                len(records),
                len(rows) - len(records),
            )
            break
        records.append(UserRecord(message[begin:end], keys[key], None if hash_key is None else hash_keys[hash_key]))
    return records


def effective_hash_key(record: UserRecord) -> int:
    """Where a user record belongs: its explicit hash key, else the MD5 of its partition key."""
    explicit = record.explicit_hash_key
    if explicit is not None and explicit.isascii() and explicit.isdigit():
        return int(explicit)
    return int.from_bytes(_md5(record.partition_key.encode(errors="replace")), "big")


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SHORT[value]
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


_SHORT: Final = tuple(bytes((value,)) for value in range(0x80))

_Row = tuple[int, int | None, int, int]
"""Index of the partition key, index of the explicit hash key, where the data begins and ends."""


def _parse(message: bytes) -> tuple[list[str], list[str], list[_Row]]:
    """The tables and the records of an AggregatedRecord.

    Raises:
        ValueError, IndexError: it is none.
    """
    keys: list[str] = []
    hash_keys: list[str] = []
    rows: list[_Row] = []
    at, end = 0, len(message)
    while at < end:
        tag, at = _read(message, at)
        if tag not in (0x0A, 0x12, 0x1A):
            at = _skip(message, at, end, tag)
            continue
        size, at = _read(message, at)
        stop = at + size
        if stop > end:
            raise ValueError("cut off")
        if tag == 0x1A:
            rows.append(_record(message, at, stop))
        else:
            # As in Java, where a string of proto2 is not looked at: what is no UTF-8 is replaced.
            (keys if tag == 0x0A else hash_keys).append(message[at:stop].decode(errors="replace"))
        at = stop
    return keys, hash_keys, rows


def _record(message: bytes, at: int, end: int) -> _Row:
    key: int | None = None
    hash_key: int | None = None
    begin = stop = -1
    while at < end:
        tag, at = _read(message, at)
        if tag == 0x08:
            key, at = _read(message, at)
        elif tag == 0x10:
            hash_key, at = _read(message, at)
        elif tag in (0x1A, 0x22):
            size, at = _read(message, at)
            if tag == 0x1A:
                begin, stop = at, at + size
            else:
                _check_tag(message, at, min(at + size, end))
            at += size
        else:
            at = _skip(message, at, end, tag)
    if at > end or key is None or begin < 0:
        raise ValueError("cut off, or without what is required")
    return key, hash_key, begin, stop


def _check_tag(message: bytes, at: int, end: int) -> None:
    has_key = False
    while at < end:
        tag, at = _read(message, at)
        has_key = has_key or tag == 0x0A
        at = _skip(message, at, end, tag)
    if at > end or not has_key:
        raise ValueError("a tag without its key")


def _skip(message: bytes, at: int, end: int, tag: int, depth: int = 0) -> int:
    """Where the next field begins; for one that nobody knows."""
    kind = tag & 7
    if tag >> 3 == 0 or tag > 0xFFFF_FFFF:
        raise ValueError("no such field")
    if kind == 0:
        at = _read(message, at)[1]
    elif kind == 1:
        at += 8
    elif kind == 2:
        size, at = _read(message, at)
        at += size
    elif kind == 5:
        at += 4
    elif kind == 3 and depth < _NESTED_MAX:
        while True:
            inner, at = _read(message, at)
            if inner & 7 == 4:
                break
            at = _skip(message, at, end, inner, depth + 1)
        if inner >> 3 != tag >> 3:
            raise ValueError("a group ends that is not open")
    else:
        raise ValueError("no such kind of field")
    if at > end:
        raise ValueError("cut off")
    return at


def _read(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    byte = message[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("a varint of more than ten bytes")
