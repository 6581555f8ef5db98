"""Pages of records of one shard, by column: what GetRecords, SubscribeToShard and others answer with.

A page is columns of records and the spans of blocks that they lie in: numbers, arrivals and positions follow from the
spans, and are made only for who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import Any, Final, NamedTuple

from kflow import limits
from kflow.aws.columns import Columns, Constant
from kflow.broker.block import KMS, Block
from kflow.broker.reader import READ_BYTES, ShardReader
from kflow.broker.sequence import STEP, number
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.records import Position

_LEAST_BYTES: Final = 64 * limits.KIB
_GUESSED_BYTES: Final = 256
"""Of one record, for how much to read at once."""


class Span(NamedTuple):
    """Records of a page that follow each other in one block.

    Attributes:
        offset: logical offset of the block.
        index: of the first of them in the block.
        count: how many.
        counter: of the first of them; the others follow by 1.
        arrival_ms: of all of them.
        flags: of the block.
    """

    offset: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    counter: int
    arrival_ms: int
    flags: int


class Cut(NamedTuple):
    """A block that a page took a part of, with its columns."""

    block: Block
    datas: list[bytes]
    keys: list[str]


class Page(NamedTuple):
    """Some records of one shard, in order.

    Attributes:
        shard: the shard.
        datas: payloads.
        keys: partition keys; empty where a record has none (AUTO distribution).
        spans: where they lie, at least one record each.
        size: bytes of all payloads and keys.
        position: behind the last record: where the next page begins.
        next_counter: counter of the record at `position`, be it there already or to come; 0 where no block was read.
        is_behind: whether the shard has more just now.
        cut: the block that `position` lies in the middle of.
    """

    shard: ShardInfo
    datas: list[bytes]
    keys: list[str]
    spans: list[Span]
    size: int
    position: Position
    next_counter: int
    is_behind: bool
    cut: Cut | None = None

    @property
    def rows(self) -> int:
        """How many records."""
        return len(self.datas)

    @property
    def last_arrival_ms(self) -> int:
        """Arrival of the last record; 0 without records."""
        return self.spans[-1].arrival_ms if self.spans else 0

    @property
    def last_number(self) -> int:
        """Sequence number of the last record; the page has one."""
        span = self.spans[-1]
        return number(self.shard.created_s, self.shard.index, span.counter + span.count - 1, span.arrival_ms)

    def behind_ms(self, now_ms: int) -> int:
        """MillisBehindLatest: age of the last record where the shard has more, else 0. Source: documented: GetRecords.

        A page without records is at the tip, or in front of what may not be read yet.
        """
        return max(0, now_ms - self.spans[-1].arrival_ms) if self.is_behind and self.spans else 0

    def numbers(self) -> list[str]:
        """Sequence numbers, as decimal texts."""
        created_s, index = self.shard.created_s, self.shard.index
        found: list[str] = []
        for span in self.spans:
            first = number(created_s, index, span.counter, span.arrival_ms)
            if span.count == 1:
                found.append(str(first))
                continue
            # `count` adds 0.25 us a number, `range` 0.32: its steps exceed 64 bits
            found += map(str, islice(count(first, STEP), span.count))
        return found

    def arrivals(self) -> list[int]:
        """Arrivals, milliseconds since the epoch."""
        found: list[int] = []
        for span in self.spans:
            found += [span.arrival_ms] * span.count
        return found

    def positions(self) -> list[Position]:
        """In front of each record."""
        return [
            Position(span.offset, index) for span in self.spans for index in range(span.index, span.index + span.count)
        ]

    def records(self) -> Columns:
        """As `Record`s of the model."""
        rows = Rows()
        rows.add(self)
        return rows.records()


class Rows:
    """Records of pages that follow each other, by column; what is made of each page is made when it is added.

    Attributes:
        datas: payloads.
        size: bytes of all payloads and keys.
        last_arrival_ms: arrival of the last one; 0 without any.
    """

    __slots__ = ("_arrivals", "_keys", "_numbers", "_spans", "datas", "last_arrival_ms", "size")

    def __init__(self) -> None:
        self.datas: list[bytes] = []
        self.size = 0
        self.last_arrival_ms = 0
        self._keys: list[str] = []
        self._numbers: list[str] = []
        self._arrivals: list[int] = []
        self._spans: list[Span] = []

    def add(self, page: Page) -> None:
        """Append the records of a page."""
        self.datas += page.datas
        self.size += page.size
        self.last_arrival_ms = page.last_arrival_ms or self.last_arrival_ms
        self._keys += page.keys
        self._numbers += page.numbers()
        self._arrivals += page.arrivals()
        self._spans += page.spans

    def records(self) -> Columns:
        """As `Record`s of the model.

        Source: documented: Record; recorded: EncryptionType is left out where encryption is off.
        """
        spans, keys = self._spans, self._keys
        sealed = sum(1 for span in spans if span.flags & KMS)
        members: dict[str, Sequence[Any] | Constant] = {
            "SequenceNumber": self._numbers,
            "ApproximateArrivalTimestamp": self._arrivals,
            "Data": self.datas,
        }
        members["PartitionKey"] = keys if all(keys) else [key or None for key in keys]
        if sealed == len(spans) and spans:
            members["EncryptionType"] = Constant("KMS")
        elif sealed:
            types: list[str | None] = []
            for span in spans:
                types += ["KMS" if span.flags & KMS else None] * span.count
            members["EncryptionType"] = types
        return Columns(len(keys), members)


def trim_ms(stream: StreamMap, now_ms: int) -> int:
    """TRIM_HORIZON of a stream: records that arrived before are not returned any more. Source: documented."""
    return stream.trim_ms(now_ms)


def read_page(
    reader: ShardReader,
    shard: ShardInfo,
    position: Position,
    *,
    limit: int = limits.GET_RECORDS_ENTRIES,
    max_bytes: int = limits.GET_RECORDS_BYTES,
    first_bytes: int | None = None,
    oldest_ms: int = 0,
    buffer: memoryview | None = None,
    cut: Cut | None = None,
) -> Page | None:
    """Read up to `limit` records and `max_bytes` of data and keys, at least one record where there is one.

    Args:
        reader: of the shard.
        shard: the shard.
        position: where to begin.
        limit: records at most, at least 1.
        max_bytes: bytes at most; the first record may be larger.
        first_bytes: how large the first record may be; None for any size.
        oldest_ms: records that arrived before this are left out, `trim_ms`.
        buffer: given by who must not wait for a disk.
        cut: the block at `position`, if it is known.

    Returns:
        A page; None where the disk would have to be waited for, which only happens with a `buffer`. The page ends in
        front of what is not in memory.

    Raises:
        Damaged: as `ShardReader.read`.
        StorageError: likewise.

    Source: documented: GetRecords.
    """
    position = reader.clamp(position)
    datas: list[bytes] = []
    keys: list[str] = []
    spans: list[Span] = []
    size = 0
    next_counter = 0
    is_first = True
    wanted = min(READ_BYTES, max(_LEAST_BYTES, limit * _GUESSED_BYTES))
    while True:
        if cut is not None and cut.block.offset == position.offset:
            blocks: list[Block] | None = [cut.block]
        elif buffer is None:
            blocks = reader.read(position.offset, wanted)
        else:
            enough = limit - len(datas) + position.index
            blocks = reader.read_cached(position.offset, buffer[:wanted], enough)
            if blocks is None and wanted < len(buffer):
                blocks = reader.read_cached(position.offset, buffer, enough)  # a block that is larger
            if blocks is None:
                if not spans:
                    return None
                return Page(shard, datas, keys, spans, size, position, next_counter, is_behind=True)
        if not blocks:
            return Page(shard, datas, keys, spans, size, position, next_counter, is_behind=False)
        if is_first and blocks[0].count and blocks[0].arrival_ms < oldest_ms:
            if buffer is not None:
                return None
            is_first = False
            position = max(position, reader.seek_time(oldest_ms))
            cut = None
            continue
        is_first = False
        for block in blocks:
            begin = position.index if block.offset == position.offset else 0
            room = limit - len(datas)
            left = block.count - begin
            known = cut if cut is not None and cut.block is block else None
            if not begin and left <= room and (block_size := block.size) <= max_bytes - size:
                more_datas, more_keys = block.columns() if known is None else known[1:]
                taken, more = left, block_size
            else:
                known = known or Cut(block, *block.columns())
                taken, more = _fitting(known, begin, room, max_bytes - size, 0 if datas else first_bytes)
                more_datas, more_keys = known.datas[begin : begin + taken], known.keys[begin : begin + taken]
            if taken:
                spans.append(
                    Span(block.offset, begin, taken, block.first_counter + begin, block.arrival_ms, block.flags)
                )
                datas += more_datas
                keys += more_keys
                size += more
            next_counter = block.first_counter + begin + taken
            if taken < left:
                position = Position(block.offset, begin + taken)
                return Page(shard, datas, keys, spans, size, position, next_counter, is_behind=True, cut=known)
            position = Position(block.end, 0)
            if len(datas) >= limit:
                return Page(
                    shard, datas, keys, spans, size, position, next_counter, is_behind=position.offset < reader.tail
                )


def _fitting(known: Cut, begin: int, room: int, budget: int, first_bytes: int | None) -> tuple[int, int]:
    """How many records from `begin` on fit, and their bytes; one of up to `first_bytes` fits in any case."""
    sizes = [
        len(data) + len(key.encode())
        for data, key in zip(known.datas[begin : begin + room], known.keys[begin : begin + room], strict=True)
    ]
    total = sum(sizes)
    if total <= budget:
        return len(sizes), total
    taken = total = 0
    for size in sizes:
        if total + size > budget and (taken or (first_bytes is not None and size > first_bytes)):
            break
        taken += 1
        total += size
    return taken, total
