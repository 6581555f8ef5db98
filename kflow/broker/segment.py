"""Segment files: `<base:020d>.seg` holds a shard's blocks from logical offset `base` on, `.idx` beside it tells where.

    header, 64 bytes: magic 8 | crc u32 | shard u32 | salt 8 | base u64 | stream id u64 | created ms u64 |
                      first counter u64 | arrival u64 of the last record before it
    index, 32 bytes a point: offset u64 | first counter u64 | arrival ms u64 | crc u32 | 4 bytes of zero

A block at logical offset `o` lies at file position `o - base + 64`. The index has a point about every 256 KiB. It is a
hint: points fail their checksum or are missing after a crash, and a scan from the segment's beginning gives the same
answer.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from kflow.broker.block import HEADER_BYTES, Header, read_header
from kflow.broker.files import Files, temporary_name
from kflow.errors import Damaged

SEGMENT_HEADER_BYTES: Final = 64
INDEX_BYTES: Final = 256 << 10
"""Log bytes between two points of the index."""

_MAGIC = b"kflowsg1"
_HEADER = struct.Struct("<8sII8sQQQQQ")
_HEADER_CRC = struct.Struct("<I8sQQQQQ")
_SEED = struct.Struct("<8sQI")
_POINT = struct.Struct("<QQQI4x")
_POINT_CRC = struct.Struct("<QQQ")
_SCAN_BYTES = 64 << 10
POINT_BYTES: Final = _POINT.size
_BODIES_BYTES = 256 << 10


class Segment(NamedTuple):
    """An open segment file and what its header says.

    Attributes:
        path: where it lies.
        fd: open for reading, or for reading and writing.
        device: of the file.
        inode: of the file.
        base: logical offset of its first block.
        seed: what the CRC of each of its block headers starts from.
        created_ms: arrival of the record that began it.
        first_counter: counter of its first record, if it has one.
        arrival_ms: arrival of the last record before it; 0 for none.
    """

    path: str
    fd: int
    device: int
    inode: int
    base: int
    seed: int
    created_ms: int
    first_counter: int
    arrival_ms: int


class Point(NamedTuple):
    """One entry of an index: where a block begins, its first counter and its arrival."""

    offset: int
    first_counter: int
    arrival_ms: int


class SegmentHeader(NamedTuple):
    """What the header of a segment says, behind its magic, its checksum and its shard."""

    salt: bytes
    base: int
    stream_id: int
    created_ms: int
    first_counter: int
    arrival_ms: int


def pack_header(shard: int, header: SegmentHeader) -> bytes:
    """The 64 bytes at the beginning of a segment."""
    return _HEADER.pack(_MAGIC, crc32c(_HEADER_CRC.pack(shard, *header)), shard, *header)


def unpack_header(raw: bytes) -> SegmentHeader:
    """What 64 bytes say as the header of a segment, sound or not."""
    return SegmentHeader._make(_HEADER.unpack(raw)[3:])


def seed_of(salt: bytes, stream_id: int, shard: int) -> int:
    """What the CRC of each of a segment's block headers, and of each point of its index, starts from."""
    return crc32c(_SEED.pack(salt, stream_id, shard))


def segment_path(folder: str, base: int) -> str:
    """Path of the segment that begins at logical offset `base`."""
    return f"{folder}/{base:020d}.seg"


def index_path(path: str) -> str:
    """Path of the index beside a segment."""
    return path[:-3] + "idx"


def bases(folder: str, files: Files) -> list[int]:
    """Bases of the segments of a shard, ascending."""
    return sorted(int(name[:20]) for name in files.listdir(folder) if name.endswith(".seg") and len(name) == 24)


def spans(folder: str, files: Files, begin: int, end: int) -> list[tuple[int, int]]:
    """The segments that overlap [begin, end), ascending: base of each, and of the one after it (`end` for the last)."""
    found = bases(folder, files)
    return [
        (base, following)
        for base, following in itertools.zip_longest(found, found[1:], fillvalue=end)
        if base < end and following > begin
    ]


def create(
    folder: str,
    files: Files,
    *,
    base: int,
    stream_id: int,
    shard: int,
    created_ms: int,
    first_counter: int,
    arrival_ms: int,
    content: Callable[[int], Iterable[bytes]] | None = None,
    sync: bool = False,
) -> None:
    """Make a segment under its final name, whole or not at all.

    Args:
        folder: of the shard.
        files: file calls.
        base: logical offset of its first block.
        stream_id: of the stream.
        shard: index of the shard.
        created_ms: arrival of the record that begins it.
        first_counter: counter of its first record.
        arrival_ms: arrival of the last record before it.
        content: given the seed of the new salt, the bytes of blocks it begins with.
        sync: whether file and name are to be durable on return.
    """
    salt = os.urandom(8)
    path = segment_path(folder, base)
    temporary = temporary_name(path)
    try:
        fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            files.write_all(
                fd, pack_header(shard, SegmentHeader(salt, base, stream_id, created_ms, first_counter, arrival_ms)), 0
            )
            if content is not None:
                at = SEGMENT_HEADER_BYTES
                for piece in content(seed_of(salt, stream_id, shard)):
                    files.write_all(fd, piece, at)
                    at += len(piece)
            if sync:
                files.fsync(fd)
        finally:
            files.close(fd)
        files.discard(index_path(path))
        files.replace(temporary, path)
    except OSError:
        files.discard(temporary)
        raise
    if sync:
        files.sync_folder(folder)


def open_segment(folder: str, files: Files, base: int, *, stream_id: int, shard: int, write: bool = False) -> Segment:
    """Open a segment and verify its header.

    Raises:
        FileNotFoundError: there is none with this base.
        Damaged: its header is not what this shard's header must be.
        OSError: it cannot be opened or read.
    """
    path = segment_path(folder, base)
    fd = files.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        found = files.fstat(fd)
        raw = files.pread(fd, SEGMENT_HEADER_BYTES, 0)
        segment = _segment(path, fd, (found.st_dev, found.st_ino), raw, (base, stream_id, shard))
    except BaseException:
        files.close(fd)
        raise
    return segment


def _segment(path: str, fd: int, identity: tuple[int, int], raw: bytes, expected: tuple[int, int, int]) -> Segment:
    if len(raw) != SEGMENT_HEADER_BYTES:
        raise Damaged(f"{path}: the segment's header is cut short")
    magic, crc, shard, salt, base, stream_id, created_ms, first_counter, arrival_ms = _HEADER.unpack(raw)
    checked = _HEADER_CRC.pack(shard, salt, base, stream_id, created_ms, first_counter, arrival_ms)
    if magic != _MAGIC or crc != crc32c(checked) or (base, stream_id, shard) != expected:
        raise Damaged(f"{path}: the segment's header fails its checksum or belongs to another shard")
    seed = seed_of(salt, stream_id, shard)
    return Segment(path, fd, *identity, base, seed, created_ms, first_counter, arrival_ms)


def scan(segment: Segment, files: Files, offset: int, end: int, *, bodies: bool = False) -> Iterator[Header]:
    """The headers of a segment's blocks from logical `offset` on, each verified, up to `end`.

    Ends at `end`, at the end of the file, or before the first block that is not valid: the caller, who knows where it
    should have ended, judges.

    Args:
        segment: open for reading.
        files: file calls.
        offset: of a block.
        end: logical offset to stop at.
        bodies: whether bodies must pass their checksum too.
    """
    base, seed, fd = segment.base, segment.seed, segment.fd
    size = _BODIES_BYTES if bodies else _SCAN_BYTES
    chunk, chunk_offset, available = memoryview(b""), offset, 0
    while offset < end:
        at = offset - chunk_offset
        if at + HEADER_BYTES > available:
            chunk = memoryview(files.pread(fd, size, offset - base + SEGMENT_HEADER_BYTES))
            chunk_offset, at, available = offset, 0, len(chunk)
        found = read_header(chunk, at, seed, offset)
        if found is None or found.end > end:
            return
        if bodies:
            begin = at + HEADER_BYTES
            if begin + found.body_bytes > available:
                wanted = max(size, HEADER_BYTES + found.body_bytes)
                chunk = memoryview(files.pread(fd, wanted, offset - base + SEGMENT_HEADER_BYTES))
                chunk_offset, begin, available = offset, HEADER_BYTES, len(chunk)
            body = chunk[begin : begin + found.body_bytes]
            if len(body) != found.body_bytes or crc32c(body) != found.body_crc:
                return
        yield found
        offset = found.end


def add_point(segment: Segment, files: Files, point: Point) -> None:
    """Add a point to a segment's index, after the block it names was committed."""
    fd = files.open(index_path(segment.path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = files.fstat(fd).st_size // _POINT.size * _POINT.size  # over a torn point
        files.write_all(fd, _POINT.pack(*point, crc32c(_POINT_CRC.pack(*point), segment.seed)), end)
    finally:
        files.close(fd)


def points(segment: Segment, files: Files) -> list[Point]:
    """The valid points of a segment's index, ascending."""
    try:
        raw = files.read_bytes(index_path(segment.path))
    except FileNotFoundError:
        return []
    found: list[Point] = []
    last = segment.base
    for offset, first_counter, arrival_ms, crc in _POINT.iter_unpack(raw[: len(raw) // _POINT.size * _POINT.size]):
        if crc == crc32c(_POINT_CRC.pack(offset, first_counter, arrival_ms), segment.seed) and offset > last:
            found.append(Point(offset, first_counter, arrival_ms))
            last = offset
    return found


def remove(folder: str, files: Files, base: int) -> None:
    """Remove a segment and its index; either may be gone already."""
    path = segment_path(folder, base)
    files.discard(path)
    files.discard(index_path(path))
