"""From stored blocks to the records of one invocation: read ahead, build once per block, cut by count and event size.

Settles nothing and decides nothing: a crash loses nothing but read-ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from kflow.broker.block import Block
from kflow.lambda_.event_size import ENVELOPE_BYTES, EVENT_BYTES, PADDING_BYTES, event_sizes
from kflow.lambda_.pieces import Piece, Span
from kflow.lambda_.shapes import Shape
from kflow.records import Position

READ_BYTES: Final = 1 << 20
"""One read: large enough that a system call serves thousands of small records, small enough to keep in memory."""


class Source(Protocol):
    """A shard, as the engine reads it. `kflow.broker.reader.ShardReader` is one."""

    @property
    def tail(self) -> int:
        """Logical offset up to which records may be read now."""
        ...

    @property
    def horizon(self) -> int:
        """Logical offset below which retention has removed what there was."""
        ...

    @property
    def next_counter(self) -> int:
        """The counter that the next record will get."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing will be appended any more."""
        ...

    def read(self, offset: int, max_bytes: int = READ_BYTES) -> Sequence[Block]:
        """Blocks from the one at `offset` on, at least one if there is one; from the horizon if that is higher."""
        ...


class Gap(NamedTuple):
    """What lies between the last record read and the next one there is has been removed.

    Attributes:
        position: of the next record there is.
        counter: its counter.
    """

    position: Position
    counter: int


class _Chunk:
    """A block that has been read; `at` is the first record not taken yet."""

    __slots__ = ("at", "block", "built", "built_from")

    def __init__(self, block: Block, at: int) -> None:
        self.block = block
        self.at = at
        self.built: list[Any] | None = None
        self.built_from = 0


class Gatherer:
    """Reads a shard forward and cuts it into pieces.

    Attributes:
        held: records read and not taken.
        read_offset: logical offset up to which the shard has been read.
        caught_up: whether the last read reached the tail of its moment, or a gap that is to be reported first.
        counter: counter of the record after the last one read; where nothing has been read, of the next to settle.
    """

    def __init__(self, source: Source, shape: Shape, *, record_bytes: int) -> None:
        """Read from the shard's beginning, until `restart` says otherwise.

        Args:
            source: the shard.
            shape: how records are built.
            record_bytes: JSON of one event record without its payload and partition key, in bytes.
        """
        self._source = source
        self._shape = shape
        self._record_bytes = record_bytes
        self._chunks: deque[_Chunk] = deque()
        self._skip = 0
        self.held = 0
        self.read_offset = 0
        self.caught_up = False
        self.counter = 0

    def restart(self, position: Position, counter: int) -> None:
        """Forget what has been read and begin at `position`, whose record has `counter`."""
        self._chunks.clear()
        self.held = 0
        self.read_offset, self._skip = position
        self.caught_up = False
        self.counter = counter

    @property
    def has_more(self) -> bool:
        """Whether the shard holds records past what has been read."""
        return self._source.tail > self.read_offset

    def fill(self) -> Gap | None:
        """Read once.

        Returns:
            What is missing before the next record, where retention (or a loss that the log names) removed some; told
            only when nothing is held, so that what was read before it is settled first.

        Raises:
            OSError, StorageError: the shard cannot be read; nothing has changed.
        """
        source = self._source
        tail = source.tail
        blocks = source.read(self.read_offset, READ_BYTES)
        if not blocks:
            self.caught_up = True
            if source.horizon > self.read_offset and not self.held:
                return Gap(Position(source.horizon, 0), source.next_counter)
            return None
        first = blocks[0]
        if first.offset != self.read_offset:
            self.caught_up = True
            return None if self.held else Gap(Position(first.offset, 0), first.first_counter)
        for block in blocks:
            self._chunks.append(_Chunk(block, 0))
            self.held += block.count
        if self._skip:
            self._chunks[-len(blocks)].at = self._skip
            self.held -= self._skip
            self._skip = 0
        last = blocks[-1]
        self.read_offset = last.end
        self.counter = last.first_counter + last.count
        self.caught_up = last.end >= tail
        return None

    def fitting(self, count: int) -> int:
        """How many of the next `count` held records fit into one event: at least 1, even where that one does not fit.

        The bound of the common case looks at blocks only; records are measured where it comes near the limit.
        """
        count = min(count, self.held)
        bound, left = ENVELOPE_BYTES, count
        for chunk in self._chunks:
            taken = min(left, chunk.block.count - chunk.at)
            bound += len(chunk.block.body) * 4 // 3 + taken * (self._record_bytes + PADDING_BYTES)
            left -= taken
            if not left:
                break
        if bound <= EVENT_BYTES:
            return count
        return max(1, self._measured(count))

    def take(self, count: int) -> Piece:
        """The next `count` held records, built."""
        records: list[Any] = []
        spans: list[Span] = []
        chunks = self._chunks
        left = count
        while left:
            chunk = chunks[0]
            block, at = chunk.block, chunk.at
            taken = min(left, block.count - at)
            built = chunk.built
            if built is None:
                built = chunk.built = self._shape.build(block, at, block.count)
                chunk.built_from = at
            begin = at - chunk.built_from
            part = built if taken == len(built) else built[begin : begin + taken]
            records = records + part if records else part
            spans.append(Span(block, at, taken))
            left -= taken
            if at + taken == block.count:
                chunks.popleft()
            else:
                chunk.at = at + taken
        self.held -= count
        return Piece(records, tuple(spans), count)

    def take_again(self, counts: Sequence[int]) -> list[Piece] | Gap | None:
        """Read and take pieces whose sizes were noted before, whatever their event's size.

        Returns:
            One piece a count; what is missing before them; or None where the shard holds too few.

        Raises:
            OSError, StorageError: the shard cannot be read; calling again goes on.
        """
        wanted = sum(counts)
        while self.held < wanted:
            gap = self.fill()
            if gap is not None:
                return gap
            if self.caught_up:
                break
        return [self.take(count) for count in counts] if wanted <= self.held else None

    def fits(self, piece: Piece) -> bool:
        """Whether a piece of one record is within the event limit by itself."""
        block, index, _ = piece.spans[0]
        if len(block.body) * 4 // 3 + self._record_bytes + ENVELOPE_BYTES <= EVENT_BYTES:
            return True
        sizes = event_sizes([block.data(index)], [block.key(index)], self._record_bytes)
        return sizes[0] + ENVELOPE_BYTES <= EVENT_BYTES

    def _measured(self, count: int) -> int:
        total = ENVELOPE_BYTES
        fitting = 0
        for chunk in self._chunks:
            datas, keys = chunk.block.columns()
            stop = chunk.at + count - fitting
            for size in event_sizes(datas[chunk.at : stop], keys[chunk.at : stop], self._record_bytes):
                total += size
                if total > EVENT_BYTES:
                    return fitting
                fitting += 1
            if fitting == count:
                break
        return fitting
