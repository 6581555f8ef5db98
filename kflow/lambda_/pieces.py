"""A piece: the records that are attempted together. It knows where it lies in the shard.

It is a batch as it was gathered, or what bisection and partial responses left of one; every cut of it is a position to
settle up to. Between its records there may be others, of another lane or filtered: they are settled along with it.

The call that ends a tumbling window is a piece without records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from kflow.broker.parked import ParkedRecord
from kflow.lambda_.picked import Part, Picked, place
from kflow.lambda_.shapes import Shape
from kflow.records import Position


class Span(NamedTuple):
    """Consecutive records of what is taken of one block."""

    block: Part
    first: int
    length: int


class Piece(msgspec.Struct, frozen=True):
    """Records of a shard that are attempted together, in order; none for the end of a tumbling window.

    Attributes:
        records: in the handler's shape.
        spans: where they are stored, in order.
        count: how many; not the length of `records`, for handlers pop from the list they are given.
        at: where it lies, and the counter there, if it has no records.
    """

    records: Sequence[Any]
    spans: tuple[Span, ...]
    count: int
    at: tuple[Position, int] = (Position(0, 0), 0)

    @property
    def start(self) -> Position:
        """Before the first record."""
        if not self.spans:
            return self.at[0]
        span = self.spans[0]
        return Position(span.block.offset, place(span.block, span.first))

    @property
    def counter(self) -> int:
        """Counter of the first record."""
        if not self.spans:
            return self.at[1]
        span = self.spans[0]
        return span.block.first_counter + place(span.block, span.first)

    @property
    def end(self) -> Position:
        """Past the last record."""
        if not self.spans:
            return self.at[0]
        block, first, length = self.spans[-1]
        stop = place(block, first + length - 1) + 1
        whole = block.whole if isinstance(block, Picked) else block.count
        return Position(block.end, 0) if stop == whole else Position(block.offset, stop)

    @property
    def end_counter(self) -> int:
        """Counter of the last record, plus 1."""
        if not self.spans:
            return self.at[1]
        block, first, length = self.spans[-1]
        return block.first_counter + place(block, first + length - 1) + 1

    @property
    def arrival_ms(self) -> int:
        """Arrival of the first record, milliseconds since the epoch."""
        return self.spans[0].block.arrival_ms

    def split(self, count: int) -> tuple[Piece, Piece]:
        """Two pieces, the left one of `count` records; both get at least one."""
        left: list[Span] = []
        right: list[Span] = []
        remaining = count
        for span in self.spans:
            taken = min(remaining, span.length)
            if taken:
                left.append(Span(span.block, span.first, taken))
            if taken < span.length:
                right.append(Span(span.block, span.first + taken, span.length - taken))
            remaining -= taken
        return (
            Piece(self.records[:count], tuple(left), count),
            Piece(self.records[count:], tuple(right), self.count - count),
        )

    def front(self, count: int) -> Piece:
        """The first `count` records, at least one: itself, where that is all of it."""
        return self if count == self.count else self.split(count)[0]

    def rebuilt(self, shape: Shape) -> Piece:
        """The same records, built anew: a handler may have changed the ones it was given."""
        records: list[Any] = []
        for block, first, length in self.spans:
            records += shape.build(block, first, first + length)
        return Piece(records, self.spans, self.count, self.at)

    def older_than(self, epoch_ms: int) -> int:
        """How many records at the front arrived before a moment: a prefix, for arrival never goes back in a shard."""
        count = 0
        for span in self.spans:
            if span.block.arrival_ms >= epoch_ms:
                break
            count += span.length
        return count

    def data(self, index: int) -> bytes:
        """The payload of one record."""
        block, at = self._place(index)
        return block.data(at)

    def number(self, index: int, shape: Shape) -> int:
        """The sequence number of one record."""
        block, at = self._place(index)
        return shape.sequence_number(shape.build(block, at, at + 1)[0])

    def numbers(self, shape: Shape) -> list[int]:
        """The sequence numbers of all records."""
        return [
            shape.sequence_number(record)
            for block, first, length in self.spans
            for record in shape.build(block, first, first + length)
        ]

    def stored(self, shape: Shape, shard_id: str) -> tuple[ParkedRecord, ...]:
        """The records as they were put, with what names them."""
        found: list[ParkedRecord] = []
        for block, first, length in self.spans:
            stop = first + length
            datas, keys = block.columns()
            numbers = map(shape.sequence_number, shape.build(block, first, stop))
            found += [
                ParkedRecord(data, key, number, block.arrival_ms, shard_id)
                for data, key, number in zip(datas[first:stop], keys[first:stop], numbers, strict=True)
            ]
        return tuple(found)

    def _place(self, index: int) -> tuple[Part, int]:
        for block, first, length in self.spans:
            if index < length:
                return block, first + index
            index -= length
        raise IndexError(index)
