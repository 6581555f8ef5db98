"""What can be saved of a damaged segment: where its next sound block begins, and its header from its blocks.

The seed that a segment's checksums start from comes out of its header. Where that is damaged, every block still tells
the seed: a CRC is a walk that can be walked backwards, from the checksum over the bytes it covers to where it started.
Blocks vote; an image of a block inside a payload is outvoted by the real ones.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from kflow.broker import segment as segments
from kflow.broker.block import HEADER_BYTES, MAGIC, VERSION, Header, read_header, unpack_header
from kflow.broker.files import Files
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment, SegmentHeader
from kflow.errors import Damaged

_MARK: Final = struct.pack("<HB", MAGIC, VERSION)
_MARK_AT: Final = 4
_CHUNK_BYTES: Final = 1 << 20
_VOTES: Final = 1000
"""More blocks than this need not be asked for the seed."""
_ALL: Final = 0xFFFF_FFFF


class _Claim(NamedTuple):
    """64 bytes that say of themselves that they are a block's header, at the place where they lie."""

    raw: bytes
    header: Header


def next_block(opened: Segment, files: Files, begin: int, end: int) -> Header | None:
    """The first sound header of a block in [begin, end), byte by byte; None where there is none."""
    for claim in _claims(files, opened.fd, opened.base, begin, end):
        found = read_header(claim.raw, 0, opened.seed, claim.header.offset)
        if found is not None and found.end <= end:
            return found
    return None


def mend_header(
    folder: str, files: Files, base: int, *, stream_id: int, shard: int, first_counter: int, sync: bool
) -> bool:
    """Write a segment's damaged header anew, in place, from what its blocks tell. The caller holds `writer.lock`.

    Args:
        folder: of the shard.
        files: file calls.
        base: logical offset that the segment begins at.
        stream_id: of the stream.
        shard: index of the shard.
        first_counter: counter of its first record as the log before it tells; 0 where it does not. Its own first block
            knows better.
        sync: whether it is to be durable on return.

    Returns:
        Whether the segment can be opened now. False where no block tells anything, and for a segment whose header is
        sound but belongs to another shard: it lies in the wrong folder, which no writing mends.

    Raises:
        OSError: it cannot be read or written.
    """
    path = segments.segment_path(folder, base)
    fd = files.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        raw = files.pread(fd, SEGMENT_HEADER_BYTES, 0)
        if len(raw) < SEGMENT_HEADER_BYTES:
            return False
        said = segments.unpack_header(raw)
        if segments.pack_header(int.from_bytes(raw[12:16], "little"), said) == raw:
            return False
        made = _header(files, fd, said._replace(base=base, stream_id=stream_id), shard, first_counter)
        if made is None:
            return False
        files.write_all(fd, segments.pack_header(shard, made), 0)
        if sync:
            files.fdatasync(fd)
    finally:
        files.close(fd)
    try:
        files.close(segments.open_segment(folder, files, base, stream_id=stream_id, shard=shard).fd)
    except Damaged:
        return False
    return True


def _header(files: Files, fd: int, said: SegmentHeader, shard: int, first_counter: int) -> SegmentHeader | None:
    """The header that fits the blocks; `said` is what the damaged one says, with what the file's place tells."""
    end = said.base + files.fstat(fd).st_size - SEGMENT_HEADER_BYTES
    votes: Counter[int] = Counter()
    first: dict[int, Header] = {}
    for claim in _claims(files, fd, said.base, said.base, end):
        seed = start_of(claim.raw[_MARK_AT:], claim.header.crc)
        votes[seed] += 1
        first.setdefault(seed, claim.header)
        if votes[seed] == _VOTES:
            break
    if not votes:
        return None
    seed = votes.most_common(1)[0][0]
    block = first[seed]
    salt = said.salt if segments.seed_of(said.salt, said.stream_id, shard) == seed else _salt(seed, said, shard)
    counter = block.first_counter
    if block.offset > said.base:  # the first one is damaged too
        counter = said.first_counter if first_counter <= said.first_counter <= counter else first_counter or counter
    # A later beginning and a later arrival of the last record before it only keep records longer, and let a search
    # begin earlier.
    return said._replace(
        salt=salt,
        created_ms=block.arrival_ms,
        first_counter=counter,
        arrival_ms=block.arrival_ms,
    )


def _claims(files: Files, fd: int, base: int, begin: int, end: int) -> Iterator[_Claim]:
    """Every place in [begin, end) that claims to be the header of a block there, ascending."""
    position = begin - base + SEGMENT_HEADER_BYTES
    last = end - base + SEGMENT_HEADER_BYTES - HEADER_BYTES
    while position <= last:
        chunk = files.pread(fd, _CHUNK_BYTES + HEADER_BYTES, position)
        at = chunk.find(_MARK, _MARK_AT)
        while at >= 0 and (start := at - _MARK_AT) < _CHUNK_BYTES and start + HEADER_BYTES <= len(chunk):
            raw = chunk[start : start + HEADER_BYTES]
            header = Header._make(unpack_header(raw, 0))
            if header.offset == base + position + start - SEGMENT_HEADER_BYTES and position + start <= last:
                yield _Claim(raw, header)
            at = chunk.find(_MARK, at + 1)
        position += _CHUNK_BYTES


def _tables() -> tuple[list[int], list[int]]:
    """CRC32C, a byte at a time: forwards by the lowest byte of the state, backwards by the highest of the result."""
    forwards = []
    for byte in range(256):
        state = byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
        forwards.append(state)
    backwards = [0] * 256
    for byte, state in enumerate(forwards):
        backwards[state >> 24] = byte
    return forwards, backwards


_FORWARDS, _BACKWARDS = _tables()


def start_of(content: bytes, crc: int) -> int:
    """The value that a CRC32C of `content` must have started from to end as `crc`."""
    state = crc ^ _ALL
    for byte in reversed(content):
        index = _BACKWARDS[state >> 24]
        state = (state ^ _FORWARDS[index]) << 8 & _ALL | index ^ byte
    return state ^ _ALL


def _salt(seed: int, said: SegmentHeader, shard: int) -> bytes:
    """A salt that leads to `seed`: any does, for nothing but the seed is made of it."""
    behind = struct.pack("<QI", said.stream_id, shard)
    wanted = start_of(bytes(4) + behind, seed)  # where four zero bytes and the rest must start
    reached = crc32c(said.salt[:4])
    return said.salt[:4] + struct.pack("<I", wanted ^ reached)
