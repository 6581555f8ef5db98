"""From stored blocks to the records of one invocation: read ahead, build once per block, cut by count and event size.

Settles nothing and decides nothing: a crash loses nothing but read-ahead. What is read ahead is bounded: it fills at
most one event, and what one read brings beyond that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from kflow.lambda_.event_size import (
    ENVELOPE_BYTES,
    ESCAPE_BYTES,
    EVENT_BYTES,
    KEY_ESCAPES_BYTES,
    PADDING_BYTES,
    escapes,
    event_sizes,
)
from kflow.lambda_.picked import STORED_BYTES, Part, Picked, bound, place, weight
from kflow.lambda_.pieces import Piece, Span
from kflow.lambda_.selection import Selection
from kflow.lambda_.shapes import Shape
from kflow.lambda_.sources import READ_BYTES, Source
from kflow.records import Position


class Gap(NamedTuple):
    """What lies between the last record read and the next one there is has been removed.

    Attributes:
        position: of the next record there is.
        counter: its counter.
        records: how many there were, of all lanes, whether they would have passed filters or not.
    """

    position: Position
    counter: int
    records: int


class _Chunk:
    """What is taken of a block that has been read; `at` is the first record not handed out yet."""

    __slots__ = ("at", "bound", "built", "built_from", "part")

    def __init__(self, part: Part, at: int) -> None:
        self.part = part
        self.at = at
        self.bound = bound(part)
        self.built: Sequence[Any] | None = part.built if isinstance(part, Picked) else None
        self.built_from = 0


class Gatherer:
    """Reads a shard forward and cuts what it selects into pieces.

    Attributes:
        held: records read, selected and not taken.
        read_offset: logical offset up to which the shard has been read.
        caught_up: whether the last read reached the tail of its moment, or a gap that is to be reported first.
        counter: counter of the record after the last one read; where nothing has been read, of the next to settle.
        polled: records of the lane that were read, since this was set to 0.
        filtered: how many of them did not pass the filters.
    """

    def __init__(self, source: Source, shape: Shape, *, record_bytes: int, selection: Selection | None = None) -> None:
        """Read from the shard's beginning, until `restart` says otherwise.

        Args:
            source: the shard.
            shape: how records are built.
            record_bytes: JSON of one event record without its payload and partition key, in bytes.
            selection: what is taken; all where there is none.
        """
        self._source = source
        self._shape = shape
        self._record_bytes = record_bytes
        self._selection = selection
        self._chunks: deque[_Chunk] = deque()
        self._skip = 0
        self._untouched_bytes = 0
        self.held = 0
        self.read_offset = 0
        self.caught_up = False
        self.counter = 0
        self.polled = 0
        self.filtered = 0

    def restart(self, position: Position, counter: int) -> None:
        """Forget what has been read and begin at `position`, whose record has `counter`."""
        self._chunks.clear()
        self._untouched_bytes = 0
        self.held = 0
        self.read_offset, self._skip = position
        self.caught_up = False
        self.counter = counter

    @property
    def has_more(self) -> bool:
        """Whether the shard holds records past what has been read."""
        return self._source.tail > self.read_offset

    @property
    def at_end(self) -> bool:
        """Whether the shard is closed and all of it has been read."""
        return self._source.closed and not self.has_more

    @property
    def edge(self) -> tuple[Position, int]:
        """Before the first record held, else past all that was read; and the counter there."""
        if self._chunks:
            chunk = self._chunks[0]
            at = place(chunk.part, chunk.at)
            return Position(chunk.part.offset, at), chunk.part.first_counter + at
        return Position(self.read_offset, self._skip), self.counter

    @property
    def arrival_ms(self) -> int:
        """Arrival of the first record held."""
        return self._chunks[0].part.arrival_ms

    def has(self, count: int) -> bool:
        """Whether so many records are held, or more than fit into one event: there is no use in reading on."""
        held = self.held
        if held >= count:
            return True
        left = EVENT_BYTES - held * (self._record_bytes - STORED_BYTES)
        return self._untouched_bytes > left and sum(weight(c.part) for c in self._chunks if not c.at) > left

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
                return self._gap(Position(source.horizon, 0), source.next_counter)
            return None
        first = blocks[0]
        if first.offset != self.read_offset:
            self.caught_up = True
            return None if self.held else self._gap(Position(first.offset, 0), first.first_counter)
        selection, skip = self._selection, self._skip
        for block in blocks:
            part: Part | None = block
            if selection is None:
                self.polled += block.count - skip
            else:
                part = selection.of(block)
                self.polled += selection.members
                self.filtered += selection.members - (0 if part is None else part.count)
            if part is not None:
                self._add(part, skip)
            skip = 0
        self._skip = 0
        last = blocks[-1]
        self.read_offset = last.end
        self.counter = last.first_counter + last.count
        self.caught_up = last.end >= tail
        return None

    def fitting(self, count: int, *, besides_bytes: int = 0) -> int:
        """How many of the next `count` held records fit into one event: at least 1, even where that one does not fit.

        The bound of the common case looks at blocks only; records are measured where it comes near the limit.

        Args:
            count: how many at most.
            besides_bytes: of the event's JSON, besides its records and their envelope.
        """
        count = min(count, self.held)
        limit = EVENT_BYTES - ENVELOPE_BYTES - besides_bytes
        chunks: list[_Chunk] = []
        left = count
        for chunk in self._chunks:
            chunks.append(chunk)
            left -= chunk.part.count - chunk.at
            if left <= 0:
                break
        room = limit - count * (self._record_bytes + PADDING_BYTES)
        stored = sum([chunk.bound for chunk in chunks])
        if stored * 4 // 3 + min(stored * ESCAPE_BYTES, count * KEY_ESCAPES_BYTES) <= room:
            return count
        stored = sum([weight(chunk.part) for chunk in chunks])
        if stored * 4 // 3 <= room and stored * 4 // 3 + self._escapes(count) <= room:
            return count
        return max(1, self._measured(count, limit))

    def before(self, epoch_ms: int) -> int:
        """How many of the held records arrived before a moment: those at the front."""
        count = 0
        for chunk in self._chunks:
            if chunk.part.arrival_ms >= epoch_ms:
                break
            count += chunk.part.count - chunk.at
        return count

    def take(self, count: int) -> Piece:
        """The next `count` held records, built; with none, a piece that lies before the first one."""
        if not count:
            return Piece([], (), 0, self.edge)
        records: Sequence[Any] = []
        spans: list[Span] = []
        chunks = self._chunks
        left = count
        while left:
            chunk = chunks[0]
            part, at = chunk.part, chunk.at
            if not at:
                self._untouched_bytes -= chunk.bound
            taken = min(left, part.count - at)
            built = chunk.built
            if built is None:
                built = chunk.built = self._shape.build(part, at, part.count)
                chunk.built_from = at
            begin = at - chunk.built_from
            some = built if taken == len(built) else built[begin : begin + taken]
            records = [*records, *some] if records else some
            spans.append(Span(part, at, taken))
            left -= taken
            if at + taken == part.count:
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

    def fits(self, piece: Piece, *, besides_bytes: int = 0) -> bool:
        """Whether a piece of one record is within the event limit by itself."""
        part, index, _ = piece.spans[0]
        limit = EVENT_BYTES - ENVELOPE_BYTES - besides_bytes
        if weight(part) * 4 // 3 + self._record_bytes + PADDING_BYTES + KEY_ESCAPES_BYTES <= limit:
            return True
        return event_sizes([part.data(index)], [part.key(index)], self._record_bytes)[0] - 1 <= limit

    def fitting_of(self, piece: Piece, *, besides_bytes: int) -> int:
        """How many records at the front of a piece fit into one event, at least 1; measures each of them."""
        room = EVENT_BYTES - ENVELOPE_BYTES - besides_bytes + 1  # no comma after the last one
        fitting = 0
        for part, first, length in piece.spans:
            datas, keys = part.columns()
            stop = first + length
            for size in event_sizes(datas[first:stop], keys[first:stop], self._record_bytes):
                room -= size
                if room < 0:
                    return max(1, fitting)
                fitting += 1
        return fitting

    def _add(self, part: Part, skip: int) -> None:
        at = skip
        if skip and isinstance(part, Picked):
            at = bisect_left(part.places, skip)
        if at >= part.count:
            return
        chunk = _Chunk(part, at)
        self._chunks.append(chunk)
        self.held += part.count - at
        if not at:
            self._untouched_bytes += chunk.bound

    def _gap(self, position: Position, counter: int) -> Gap:
        return Gap(position, counter, self._source.issued(self.counter, counter))

    def _escapes(self, count: int) -> int:
        """What JSON's escapes add to the keys of the next `count` held records, at most."""
        added = 0
        for chunk in self._chunks:
            _, keys = chunk.part.columns()
            taken = min(count, chunk.part.count - chunk.at)
            added += escapes(keys[chunk.at : chunk.at + taken])
            count -= taken
            if not count:
                break
        return added

    def _measured(self, count: int, limit: int) -> int:
        total = -1  # no comma after the last one
        fitting = 0
        for chunk in self._chunks:
            datas, keys = chunk.part.columns()
            stop = chunk.at + count - fitting
            for size in event_sizes(datas[chunk.at : stop], keys[chunk.at : stop], self._record_bytes):
                total += size
                if total > limit:
                    return fitting
                fitting += 1
            if fitting == count:
                break
        return fitting
