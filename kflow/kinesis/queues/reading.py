"""What a queue reads of the log: records that nobody has received yet, and those that are received again.

A shard that is read on keeps its reader and the blocks that were read ahead, for the next call wants the next ten
records. One thread at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from kflow.broker.asking import around_damage
from kflow.broker.block import HEADER_BYTES, Block
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.recordqueues import Row
from kflow.broker.streammap import StreamMap
from kflow.records import Position

T = TypeVar("T")

_SHARDS: Final = 8
"""Shards of a queue kept open: each has a descriptor or two, and what was read ahead."""
_AHEAD_BYTES: Final = 1 << 16


class Found(NamedTuple):
    """A record in the log.

    Attributes:
        counter: of the record in its shard.
        at: logical offset of its block.
        record: which one of the block.
        arrival_ms: arrival, milliseconds since the epoch.
        key: its partition key; empty where it was put without one.
        data: its payload.
    """

    counter: int
    at: int
    record: int
    arrival_ms: int
    key: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of data and key."""
        return len(self.data) + len(self.key.encode())


class _Open:
    """A shard that is being read."""

    __slots__ = ("ahead", "columns", "reader")

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self.ahead: deque[Block] = deque()
        self.columns: tuple[int, list[bytes], list[str]] | None = None  # of the block at this offset


class LogView:
    """The shards of one stream."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def end(self, stream: StreamMap, shard: int) -> Position:
        """Where the record will lie that is put next."""
        return Position(self._shard(stream, shard).reader.tail, 0)

    def at_time(self, stream: StreamMap, shard: int, epoch_ms: int) -> Position:
        """Before the first record that arrived at a time or later."""
        return self._guarded(stream, shard, lambda opened: opened.reader.seek_time(epoch_ms))

    def is_drained(self, stream: StreamMap, shard: int, position: Position) -> bool:
        """Whether nothing will ever come behind a position."""
        reader = self._shard(stream, shard).reader
        return reader.closed and position.offset >= reader.tail

    def fresh(
        self, stream: StreamMap, shard: int, position: Position, *, limit: int, max_bytes: int, oldest_ms: int
    ) -> tuple[list[Found], Position]:
        """The records from a position on, and the position behind them.

        Args:
            stream: map of the stream.
            shard: index of the shard.
            position: where to begin.
            limit: at most so many.
            max_bytes: at most so much data and keys; one record may be larger.
            oldest_ms: what arrived before has expired, and is left out.

        Raises:
            StorageError: they cannot be read.
        """
        found: list[Found] = []
        while len(found) < limit:
            block = self._guarded(stream, shard, lambda opened, at=position: _block(opened, at))  # type: ignore[misc]
            if block is None:
                break
            if block.arrival_ms < oldest_ms and block.count:
                later = self.at_time(stream, shard, oldest_ms)
                position = max(later, Position(block.end, 0))
                continue
            begin = position.index if block.offset == position.offset else 0
            datas, keys = _columns(self._shard(stream, shard), block)
            for at in range(begin, min(block.count, begin + limit - len(found))):
                one = Found(block.first_counter + at, block.offset, at, block.arrival_ms, keys[at], datas[at])
                max_bytes -= one.size
                if max_bytes < 0 and found:
                    return found, position
                found.append(one)
                position = Position(block.offset, at + 1)
            if begin >= block.count or position == (block.offset, block.count):
                position = Position(block.end, 0)
        return found, position

    def again(self, stream: StreamMap, rows: list[Row]) -> list[Found | None]:
        """The records of rows, in their order; None for one that has expired or was lost.

        Raises:
            StorageError: they cannot be read.
        """
        blocks: dict[tuple[int, int], Block | None] = {}
        found: list[Found | None] = []
        for row in rows:
            key = (row.shard, row.at)
            if key not in blocks:
                blocks[key] = self._guarded(stream, row.shard, lambda opened, at=row.at: _one(opened, at))  # type: ignore[misc]
            block = blocks[key]
            if block is None or block.first_counter + row.record != row.counter:
                found.append(None)
                continue
            key_text, data = block.key(row.record), block.data(row.record)
            found.append(Found(row.counter, row.at, row.record, block.arrival_ms, key_text, data))
        return found

    def close(self) -> None:
        """Close all descriptors; they are opened again when they are needed."""
        for opened in self._open.values():
            opened.reader.close()
        self._open.clear()

    def _shard(self, stream: StreamMap, shard: int) -> _Open:
        key = (stream.id, shard)
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = _Open(ShardReader(self._folder, stream, shard))
            while len(self._open) > _SHARDS:
                self._open.popitem(last=False)[1].reader.close()
        self._open.move_to_end(key)
        return opened

    def _guarded(self, stream: StreamMap, shard: int, read: Callable[[_Open], T]) -> T:
        """What `read` returns; where it meets damage, behind what the writer says is lost."""
        return around_damage(self._folder, stream, shard, lambda: read(self._shard(stream, shard)))


def _block(opened: _Open, position: Position) -> Block | None:
    """The block that holds a position, or the next one; None where there is none yet."""
    reader = opened.reader
    position = reader.clamp(position)
    ahead = opened.ahead
    while ahead and ahead[0].end <= position.offset:
        ahead.popleft()
    if not ahead or ahead[0].offset > position.offset:
        ahead.clear()
        opened.columns = None
        ahead.extend(reader.read(position.offset, _AHEAD_BYTES))
    return ahead[0] if ahead else None


def _one(opened: _Open, offset: int) -> Block | None:
    """The block at an offset; None where it is gone."""
    blocks = opened.reader.read(offset, HEADER_BYTES)
    return blocks[0] if blocks and blocks[0].offset == offset else None


def _columns(opened: _Open, block: Block) -> tuple[list[bytes], list[str]]:
    """The columns of a block that is read on: taken apart once."""
    known = opened.columns
    if known is None or known[0] != block.offset:
        datas, keys = block.columns() if block.count else ([], [])
        known = opened.columns = (block.offset, datas, keys)
    return known[1], known[2]
