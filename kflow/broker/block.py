"""The stored block: one header, then the records of one append in columns.

    header, 64 bytes, little-endian:
        crc u32 | magic u16 | version u8 | flags u8 | body length u32 | count u32 | body crc u32 | frame u32 |
        first counter u64 | arrival ms u64 | logical offset u64 | producer u64 | part u16 | 6 bytes of zero
    body:
        data lengths u32[n] | key lengths u8[n], or u16[n] with WIDE_KEYS | MD5(key) modulo 2520 u16[n] |
        with HASH_KEYS: u8[n] (1: has an explicit hash key), 16 bytes big-endian for each that has one |
        keys | data

The header's CRC32C starts from the segment's seed (its random salt, the stream's id, the shard's index) and covers the
logical offset: neither a stale block of an earlier life of the file nor a block's image inside a payload passes.
The records of a block have consecutive counters and one arrival.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import Final, NamedTuple

from crc32c import crc32c

HEADER_BYTES: Final = 64
MAGIC: Final = 0x6B66
VERSION: Final = 1
WIDE_KEYS: Final = 1
HASH_KEYS: Final = 2
KMS: Final = 4
"""The records were put while their stream's encryption was on. Changes nothing in the body."""

_HEADER = struct.Struct("<IHBBIIIIQQQQH6x")
_CHECKED = struct.Struct("<HBBIIIIQQQQH6x")
_CRC = struct.Struct("<I")

pack_checked = _CHECKED.pack
pack_crc = _CRC.pack
unpack_header = _HEADER.unpack_from


@functools.lru_cache(maxsize=4096)
def words_u32(count: int) -> struct.Struct:
    """`count` little-endian u32, compiled once per count."""
    return struct.Struct(f"<{count}I")


@functools.lru_cache(maxsize=4096)
def words_u16(count: int) -> struct.Struct:
    """`count` little-endian u16, compiled once per count."""
    return struct.Struct(f"<{count}H")


def header(
    seed: int,
    flags: int,
    body_bytes: int,
    count: int,
    body_crc: int,
    frame: int,
    first_counter: int,
    arrival_ms: int,
    offset: int,
    producer: int,
    part: int,
) -> bytes:
    """The 64 bytes in front of a body."""
    checked = pack_checked(
        MAGIC, VERSION, flags, body_bytes, count, body_crc, frame, first_counter, arrival_ms, offset, producer, part
    )
    return pack_crc(crc32c(checked, seed)) + checked


class Header(NamedTuple):
    """A header by name, in the order of the bytes; for scans (loops that are hot unpack in place)."""

    crc: int
    magic: int
    version: int
    flags: int
    body_bytes: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    body_crc: int
    frame: int
    first_counter: int
    arrival_ms: int
    offset: int
    producer: int
    part: int

    @property
    def end(self) -> int:
        """Logical offset past the block."""
        return self.offset + HEADER_BYTES + self.body_bytes


def read_header(buffer: bytes | memoryview, at: int, seed: int, offset: int) -> Header | None:
    """The header at `buffer[at:]` if it is whole, passes its checksum and says that it lies at logical `offset`."""
    if len(buffer) - at < HEADER_BYTES:
        return None
    found = Header._make(unpack_header(buffer, at))
    if found.magic != MAGIC or found.offset != offset or crc32c(buffer[at + 4 : at + HEADER_BYTES], seed) != found.crc:
        return None
    return found


class Block:
    """One block as a reader sees it; its checksums have been verified.

    Attributes:
        offset: logical offset of its header.
        end: logical offset past it.
        first_counter: counter of its first record; the others follow by 1.
        arrival_ms: arrival of all its records, milliseconds since the epoch.
        count: number of records, at least 1.
        flags: `WIDE_KEYS`, `HASH_KEYS`, `KMS`.
        body: the columns, as the module's docstring draws them.
    """

    __slots__ = ("arrival_ms", "body", "count", "end", "first_counter", "flags", "offset")

    def __init__(
        self, offset: int, end: int, first_counter: int, arrival_ms: int, count: int, flags: int, body: bytes
    ) -> None:
        self.offset = offset
        self.end = end
        self.first_counter = first_counter
        self.arrival_ms = arrival_ms
        self.count = count
        self.flags = flags
        self.body = body

    def columns(self) -> tuple[list[bytes], list[str]]:
        """All payloads and all partition keys, in order.

        Read like files: 45 ns a record, where slicing in a comprehension takes 120 (`tests/bench` "read").
        """
        body = self.body
        key_lens, start = self._key_columns()
        if self.count == 1:  # a single put on its way to a waiting handler
            end = start + key_lens[0]
            return [body[end:]], [body[start:end].decode()]
        lens = words_u32(self.count).unpack_from(body)
        columns = BytesIO(body)
        columns.seek(start)
        key_bytes = columns.read(sum(key_lens))
        text = key_bytes.decode()
        if len(text) == len(key_bytes):  # ASCII: one decode for all
            keys = list(map(StringIO(text, newline="").read, key_lens))
        else:
            keys = [key.decode() for key in map(BytesIO(key_bytes).read, key_lens)]
        return list(map(columns.read, lens)), keys

    @property
    def size(self) -> int:
        """Bytes of all keys and payloads."""
        return len(self.body) - self._key_columns()[1] if self.count else 0

    def data(self, index: int) -> bytes:
        """The payload of one record, without slicing the others."""
        lens = words_u32(self.count).unpack_from(self.body)
        key_lens, start = self._key_columns()
        begin = start + sum(key_lens) + sum(lens[:index])
        return self.body[begin : begin + lens[index]]

    def key(self, index: int) -> str:
        """The partition key of one record."""
        key_lens, start = self._key_columns()
        begin = start + sum(key_lens[:index])
        return self.body[begin : begin + key_lens[index]].decode()

    def lanes(self) -> tuple[int, ...]:
        """MD5(partition key) modulo 2520 of each record."""
        count = self.count
        return words_u16(count).unpack_from(self.body, (6 if self.flags & WIDE_KEYS else 5) * count)

    def hash_keys(self) -> list[int | None]:
        """The explicit hash key of each record, None where it was routed by its partition key."""
        if not self.flags & HASH_KEYS:
            return [None] * self.count
        start = (8 if self.flags & WIDE_KEYS else 7) * self.count
        present = self.body[start : start + self.count]
        at = start + self.count
        found: list[int | None] = []
        for has in present:
            found.append(int.from_bytes(self.body[at : at + 16], "big") if has else None)
            at += 16 * has
        return found

    def _key_columns(self) -> tuple[Sequence[int], int]:
        """Byte lengths of the keys, and where the keys begin."""
        body, count = self.body, self.count
        at = 4 * count
        if self.flags & WIDE_KEYS:
            key_lens: Sequence[int] = words_u16(count).unpack_from(body, at)
            at += 4 * count
        else:
            key_lens = body[at : at + count]
            at += 3 * count
        if self.flags & HASH_KEYS:
            at += count + 16 * sum(body[at : at + count])
        return key_lens, at


_ONE_FIXED: Final = 7
"""Bytes of the lengths and the lane of one record."""


def well_formed(body: bytes | memoryview, count: int, flags: int) -> bool:
    """Whether the lengths in a body from outside add up to it; what the writer checks before it appends."""
    if count == 1 and not flags and len(body) >= _ONE_FIXED:  # of one record, as most are
        return len(body) == _ONE_FIXED + body[4] + int.from_bytes(body[:4], "little")
    wide = 1 if flags & WIDE_KEYS else 0
    fixed = (7 + wide) * count
    if count < 1 or flags & ~(WIDE_KEYS | HASH_KEYS | KMS) or len(body) < fixed:
        return False
    keys: Sequence[int] = words_u16(count).unpack_from(body, 4 * count) if wide else body[4 * count : 5 * count]
    total = fixed + sum(keys) + sum(words_u32(count).unpack_from(body))
    if flags & HASH_KEYS:
        present = bytes(body[fixed : fixed + count])
        if len(present) < count or present.strip(b"\0\1"):
            return False
        total += count + 16 * present.count(1)
    return bool(total == len(body))
