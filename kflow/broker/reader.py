"""A reader's view of one shard: blocks from an offset on, and where a counter or a time begins.

Reads files and the mapped control page, never writes, takes no lock, and never looks past the tail. Any number of
readers in any process; one object belongs to one thread at a time.

A block that fails its checksum is read again from a fresh descriptor; if it fails again, it is looked up in the shard's
list of lost ranges (`kflow.broker.damage`) and left out where it is listed. Only what is not listed is an error.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from crc32c import crc32c

from kflow.broker import damage
from kflow.broker import segment as segments
from kflow.broker.block import HEADER_BYTES, MAGIC, Block, unpack_header
from kflow.broker.ctl import ARRIVAL, CLOSED, COUNTER, DURABLE, DURABLE_COUNTER, HORIZON, TAIL, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.segment import SEGMENT_HEADER_BYTES, Segment
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.errors import Damaged, DataFolderBusy, StorageError
from kflow.records import Position

READ_BYTES: Final = 1 << 20
_RECOVERY_WAIT_S: Final = 10.0
_RECOVERY_PAUSE_S: Final = 0.05


class ShardReader:
    """Reads one shard.

    Raises:
        StorageError: the shard cannot be opened.
    """

    def __init__(self, folder: DataFolder, stream: StreamMap, index: int) -> None:
        self._segment: Segment | None = None
        self._files = folder.files
        self._folder = os.fspath(folder.shard_dir(stream, index))
        self._stream_id = stream.id
        self._index = index
        self._name = f"shard {index} of stream {stream.name}"
        self._durable_only = folder.fsync == "always"
        self._lost: tuple[LostRange, ...] = ()  # read when a block fails: a sound shard pays nothing for it
        self._ctl = self._open_ctl(folder, stream)
        self._words = self._ctl.words

    def _open_ctl(self, folder: DataFolder, stream: StreamMap) -> Ctl:
        try:
            deadline = time.monotonic() + _RECOVERY_WAIT_S
            while True:
                ctl = self._ctl_if_current()
                if ctl is not None:
                    return ctl
                if self._have_recovered(folder, stream) or time.monotonic() > deadline:
                    return self._ctl_as_it_is()
        except OSError as error:
            raise storage_error(error, f"open {self._name}") from error

    def _ctl_as_it_is(self) -> Ctl:
        return Ctl.open(self._folder, self._files, owner=(self._stream_id, self._index), write=False)

    def _ctl_if_current(self) -> Ctl | None:
        try:
            ctl = self._ctl_as_it_is()
        except FileNotFoundError:
            self._files.stat(self._folder)
            return None
        except StorageError:  # to be made anew by recovery, which says so
            return None
        return ctl if ctl.is_current else None

    def _have_recovered(self, folder: DataFolder, stream: StreamMap) -> bool:
        """The machine was restarted since this shard was written: have it recovered, unless the folder is read-only.

        Returns:
            False where a node holds the lock, which recovers all shards before its first append: look again.
        """
        try:
            with writing(folder, timeout_s=_RECOVERY_PAUSE_S) as log:
                log.shard(stream, self._index)
        except DataFolderBusy:
            return False
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            self._durable_only = True
        return True

    @property
    def tail(self) -> int:
        """Logical offset past the last block that may be read; with `fsync = "always"` only what is durable may be."""
        return self._words[DURABLE if self._durable_only else TAIL]

    @property
    def horizon(self) -> int:
        """Logical offset below which records have expired; a block begins here, or it is the tail."""
        return self._words[HORIZON]

    @property
    def next_counter(self) -> int:
        """Counter of the first record at or behind the tail, be it there already (`always`: not durable) or to come."""
        return self._words[DURABLE_COUNTER if self._durable_only else COUNTER]

    @property
    def closed(self) -> bool:
        """Whether the shard takes no more records."""
        return self._words[CLOSED] != 0

    @property
    def last_arrival_ms(self) -> int:
        """Arrival of the last record, milliseconds since the epoch; 0 if there never was one."""
        return self._words[ARRIVAL]

    def read(self, offset: int, max_bytes: int = READ_BYTES) -> list[Block]:
        """The blocks from `offset` on, verified.

        One `pread` where the offset lies in the segment that was read last. An offset below the horizon, or in a range
        that was lost, moves up: look at `Block.offset`. Where a lost range reaches the tail, an empty block at the tail
        says so (`count` 0, `first_counter` that of the record to come), so that nobody waits in front of it for ever.

        Args:
            offset: where a block begins.
            max_bytes: how much to read; more, if the first block is larger.

        Returns:
            At least one block, unless there is none between `offset` and the tail.

        Raises:
            Damaged: the block at `Damaged.offset` fails its checksum, also when read again from a fresh descriptor, and
                is not listed as lost. Blocks before it have been read.
            StorageError: the file cannot be read.
        """
        tail = self.tail
        offset = max(offset, self._words[HORIZON])
        if offset >= tail:
            return []
        max_bytes = max(max_bytes, HEADER_BYTES)
        try:
            try:
                return self._read_around(offset, tail, max_bytes) if self._lost else self._read(offset, tail, max_bytes)
            except Damaged:
                self._drop()
            try:
                return self._read_around(offset, tail, max_bytes)
            except Damaged as error:
                self._drop()
                self._lost = damage.read(self._folder, self._files)
                if error.offset is None or damage.holding(self._lost, error.offset) is None:
                    fix = "a runtime leaves it out where a handler meets it, else `kflow doctor --repair` does"
                    raise Damaged(f"{error}; {fix}", error.offset) from error
            return self._read_around(offset, tail, max_bytes)
        except OSError as error:
            raise storage_error(error, f"read {self._name}") from error

    def read_cached(self, offset: int, buffer: memoryview, records: int = 1 << 30) -> list[Block] | None:
        """As `read`, for whoever must not wait for a disk.

        Args:
            offset: where a block begins, not below the horizon.
            buffer: to read into, for this call only.
            records: how many are enough.

        Returns:
            Whole blocks that are in memory; None where there is none, and where anything is out of the ordinary (the
            next segment, a lost range, damage): `read` in a thread then.
        """
        segment = self._segment
        if offset >= self.tail:
            return []
        if segment is None or offset < segment.base or self._lost:
            return None
        view = buffer[: self.tail - offset]
        try:
            have = self._files.pread_cached(segment.fd, view, offset - segment.base + SEGMENT_HEADER_BYTES)
            return _blocks(segment, view[:have], offset, records)[0] or None
        except (OSError, Damaged):
            return None

    def issued(self, first: int, stop: int) -> int:
        """How many records ever had a counter in [first, stop): after power loss a shard leaves counters out.

        Raises:
            Damaged: the list of lost ranges is not valid.
            StorageError: it cannot be read.
        """
        try:
            return damage.issued(damage.read(self._folder, self._files), first, stop)
        except OSError as error:
            raise storage_error(error, f"read {self._name}") from error

    def clamp(self, position: Position) -> Position:
        """`position`, or the horizon where that is past it; in a range that is known to be lost, the end of that."""
        horizon = self._words[HORIZON]
        if position.offset < horizon:
            position = Position(horizon, 0)
        lost = damage.holding(self._lost, position.offset)
        return position if lost is None or lost.end > self.tail else Position(lost.end, 0)

    def seek_counter(self, counter: int) -> Position:
        """Before the first record whose counter is `counter` or more; the tail if there is none."""
        return self._seek(counter, by_time=False)

    def seek_time(self, epoch_ms: int) -> Position:
        """Before the first record that arrived at `epoch_ms` or later; the tail if there is none."""
        return self._seek(epoch_ms, by_time=True)

    def fds(self) -> list[tuple[int, int, int]]:
        """What is open: (descriptor, device, inode)."""
        segment = self._segment
        return [] if segment is None else [(segment.fd, segment.device, segment.inode)]

    def close(self) -> None:
        """Close the descriptor; the reader opens it again when it is used again."""
        self._drop()

    def __del__(self) -> None:
        self._drop()

    def _read_around(self, offset: int, tail: int, max_bytes: int) -> list[Block]:
        """As `_read`, with what is listed as lost left out."""
        lost = damage.holding(self._lost, offset)
        if lost is None:
            return self._read(offset, tail, max_bytes)
        return self._read(lost.end, tail, max_bytes) if lost.end < tail else self._behind(lost, tail)

    def _behind(self, lost: LostRange, tail: int) -> list[Block]:
        """What stands for a lost range that reaches the tail; nothing, where it is past what may be read yet."""
        if lost.end > tail:
            return []
        return [Block(tail, tail, lost.next_counter, self._words[ARRIVAL], 0, 0, b"")]

    def _read(self, offset: int, tail: int, max_bytes: int) -> list[Block]:
        segment = self._segment
        buffer = b""
        if segment is not None and offset >= segment.base:
            want = min(tail - offset, max_bytes)
            buffer = self._files.pread(segment.fd, want, offset - segment.base + SEGMENT_HEADER_BYTES)
        while not buffer:
            found = self._move(offset)
            if isinstance(found, LostRange):
                return self._behind(found, tail)
            segment, offset = found
            if offset >= tail:
                return []
            want = min(tail - offset, max_bytes)
            buffer = self._files.pread(segment.fd, want, offset - segment.base + SEGMENT_HEADER_BYTES)
        assert segment is not None
        blocks, needed = _blocks(segment, buffer, offset)
        if not blocks:
            buffer = self._files.pread(segment.fd, needed, offset - segment.base + SEGMENT_HEADER_BYTES)
            blocks, _ = _blocks(segment, buffer, offset)
            if not blocks:
                raise Damaged(f"{segment.path}: the block at offset {offset} is cut short", offset)
        return blocks

    def _move(self, offset: int) -> tuple[Segment, int] | LostRange:
        """Open the segment that holds `offset`, past its end the next one, where the open one has no such bytes.

        Returns:
            The segment and where to go on in it; or the lost range behind which there is nothing yet.
        """
        tail = self.tail
        while True:
            offset = max(offset, self._words[HORIZON])
            lost = damage.holding(self._lost, offset)
            if lost is not None:
                offset = lost.end
                if offset >= tail:
                    return lost
            found = [base for base in segments.bases(self._folder, self._files) if base < tail]
            base = max((base for base in found if base <= offset), default=-1)
            try:
                if base >= 0:
                    segment = self._open(base, offset)
                    if self._end(segment) > offset:
                        return segment, offset
                # Bytes between here and the next segment are lost (`recovery`), or their file is.
                base = min((base for base in found if base > offset), default=-1)
                if base >= 0:
                    if damage.holding(self._lost, base) is None:
                        return self._open(base), base
                    offset = base
                    continue
            except FileNotFoundError:  # it expired meanwhile, and the horizon has moved
                if self._words[HORIZON] <= offset:
                    raise
                continue
            if self._words[HORIZON] <= offset:
                raise Damaged(f"{self._folder}: no segment holds offset {offset}, though the tail is {tail}", offset)

    def _open(self, base: int, offset: int = 0) -> Segment:
        """Open a segment; one whose header is damaged fails at its first byte that is wanted."""
        self._drop()
        try:
            segment = segments.open_segment(
                self._folder, self._files, base, stream_id=self._stream_id, shard=self._index
            )
        except Damaged as error:
            raise Damaged(str(error), max(base, offset)) from error
        self._segment = segment
        return segment

    def _end(self, segment: Segment) -> int:
        """Logical offset past the last byte of a segment's file."""
        return segment.base + self._files.fstat(segment.fd).st_size - SEGMENT_HEADER_BYTES

    def _seek(self, target: int, *, by_time: bool) -> Position:
        try:
            while True:
                horizon = self._words[HORIZON]
                try:
                    return self.clamp(self._seek_once(target, by_time=by_time))
                except FileNotFoundError:  # it expired meanwhile, and the horizon has moved
                    if self._words[HORIZON] == horizon:
                        raise
        except OSError as error:
            raise storage_error(error, f"read {self._name}") from error

    def _seek_once(self, target: int, *, by_time: bool) -> Position:
        tail = self.tail
        found = [base for base in segments.bases(self._folder, self._files) if base < tail]
        # Of the segments that begin before the target, the last one holds it or ends before it.
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            segment = self._open_listed(found, middle, tail)
            if segment is None:  # lost as a whole
                del found[middle]
                high -= 1
                continue
            before = segment.arrival_ms < target if by_time else segment.first_counter <= target
            low, high = (middle + 1, high) if before else (low, middle)
        for number in range(max(0, low - 1), len(found)):
            segment = self._open_listed(found, number, tail)
            position = None if segment is None else self._seek_in(segment, target, tail, by_time=by_time)
            if position is not None:
                return position
        return Position(tail, 0)

    def _open_listed(self, found: list[int], number: int, tail: int) -> Segment | None:
        """A segment to look through; None where its header is damaged and all of it is listed as lost.

        Raises:
            Damaged: its header is damaged, and it is not listed.
        """
        base = found[number]
        try:
            return self._open(base)
        except Damaged:
            self._lost = damage.read(self._folder, self._files)
            lost = damage.holding(self._lost, base)
            following = found[number + 1] if number + 1 < len(found) else tail
            if lost is None or lost.end < following:
                raise
            return None

    def _seek_in(self, segment: Segment, target: int, tail: int, *, by_time: bool) -> Position | None:
        end = min(tail, self._end(segment))
        reached = self._start(segment, target, by_time=by_time)
        while True:
            for header in segments.scan(segment, self._files, reached, end):
                if by_time:
                    if header.arrival_ms >= target:
                        return Position(header.offset, 0)
                elif header.first_counter + header.count > target:
                    return Position(header.offset, max(0, target - header.first_counter))
                reached = header.end
            if reached >= end:
                return None
            self._lost = damage.read(self._folder, self._files)
            lost = damage.holding(self._lost, reached)
            if lost is None:
                text = f"{segment.path}: no valid block at offset {reached}, though blocks reach {end}"
                raise Damaged(text, reached)
            reached = lost.end

    def _start(self, segment: Segment, target: int, *, by_time: bool) -> int:
        """The last point of the index before the target, if a valid block lies there, else the segment's beginning."""
        for point in reversed(segments.points(segment, self._files)):
            if (point.arrival_ms < target if by_time else point.first_counter <= target) and any(
                segments.scan(segment, self._files, point.offset, self.tail)
            ):
                return point.offset
        return segment.base

    def _drop(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            self._files.close_if(segment.fd, segment.device, segment.inode)


def _blocks(
    segment: Segment, buffer: bytes | memoryview, offset: int, records: int = 1 << 30
) -> tuple[list[Block], int]:
    """The whole blocks of `buffer`, which begins at logical `offset`; and how many bytes the first one needs.

    No more blocks than so many `records` take.

    Raises:
        Damaged: the header or the body of the first one fails its checksum.
    """
    blocks: list[Block] = []
    seed = segment.seed
    at, available = 0, len(buffer)
    needed = HEADER_BYTES
    while at + HEADER_BYTES <= available and records > 0:
        crc, magic, _, flags, body_bytes, count, body_crc, _, first_counter, arrival_ms, where, _, _ = unpack_header(
            buffer, at
        )
        begin = at + HEADER_BYTES
        if magic != MAGIC or where != offset + at or crc32c(buffer[at + 4 : begin], seed) != crc:
            if blocks:
                break  # what is sound is read first; the next read begins at the damage
            raise Damaged(f"{segment.path}: the block header at offset {offset} fails its checksum", offset)
        end = begin + body_bytes
        if end > available:
            needed = end - at
            break
        body = bytes(buffer[begin:end])
        if crc32c(body) != body_crc:
            if blocks:
                break
            raise Damaged(f"{segment.path}: the block at offset {where} fails its checksum", where)
        blocks.append(Block(where, offset + end, first_counter, arrival_ms, count, flags, body))
        records -= count
        at = end
    return blocks, needed
