"""Lanes of a shard: which record belongs to which, and a source by which the lanes of one process read each block once.

A record's lane is (MD5(partition key) modulo 2520) modulo the parallelization factor: 2520 is a multiple of 1 to 10, so
what a block stores serves every factor, and no worker hashes keys. All records of a partition key are in one lane, so
lanes run at the same time and a key stays in order.

Source: documented: Lambda Developer Guide, parallelization factor; chosen: which hash it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from kflow.broker.block import Block
from kflow.lambda_.sources import READ_BYTES, Source

if TYPE_CHECKING:
    from kflow.lambda_.shapes import Shape

KEPT_BYTES: Final = 4 << 20
"""Blocks that a `SharedSource` remembers; their columns take about as much again until every lane has had its part."""

SLICE_BYTES: Final = 128 << 10
"""A lane gets no more of what is remembered at a time: so the lanes go through it together, while it is in the caches
of the processor (with 1 MiB a record cost half as much again; `tests/bench` "lanes")."""

BUCKETS: Final = 2520
"""What blocks store of a key's MD5 is modulo this."""

_BLOCK_BYTES: Final = 256
"""What a block takes besides its body."""


def partition(block: Block, factor: int) -> list[list[int]]:
    """The indexes of a block's records by lane, rising; remembered with a block of a `SharedSource`."""
    if isinstance(block, _Remembered):
        return block.partition(factor)
    return _partition(block, factor)


def taken(block: Block, factor: int, lane: int) -> tuple[Sequence[int], list[bytes], list[str]]:
    """Indexes, payloads and partition keys of a lane's records in a block, in order; empty where it has none."""
    if isinstance(block, _Remembered):
        return block.taken(factor, lane)
    places = _partition(block, factor)[lane]
    datas, keys = picked(block.columns(), places)
    return places, datas, keys


def built(block: Block, shape: Shape, factor: int, lane: int) -> tuple[Sequence[int], list[Any]] | None:
    """Indexes and records of a lane's records in a block; None where it is better to build them by themselves."""
    if isinstance(block, _Remembered) and block.readers * 2 > factor and shape.is_shared:
        return block.built(shape, factor, lane)
    return None


def picked(columns: tuple[list[bytes], list[str]], places: Sequence[int]) -> tuple[list[bytes], list[str]]:
    """Some of the payloads and partition keys."""
    datas, keys = columns
    if len(places) < 2:
        return [datas[place] for place in places], [keys[place] for place in places]
    take = itemgetter(*places)  # 16 ns a record, where a comprehension takes 40
    return list(take(datas)), list(take(keys))


def _partition(block: Block, factor: int) -> list[list[int]]:
    parts: list[list[int]] = [[] for _ in range(factor)]
    adds = [part.append for part in parts] * (BUCKETS // factor)  # by bucket: no division a record
    for index, bucket in enumerate(block.lanes()):
        adds[bucket](index)
    return parts


class _Remembered(Block):
    """A block that keeps what was made of it."""

    __slots__ = ("_bounds", "_built", "_by_lane", "_columns", "_factor", "_left", "_parts", "readers")

    def __init__(self, block: Block, readers: int) -> None:
        super().__init__(
            block.offset, block.end, block.first_counter, block.arrival_ms, block.count, block.flags, block.body
        )
        self._columns: tuple[list[bytes], list[str]] | None = None
        self.readers = readers
        self._built: list[Any] = []
        self._by_lane: tuple[list[bytes], list[str]] = ([], [])
        self._bounds: list[int] = []
        self._factor = 0
        self._left = 0
        self._parts: list[list[int]] = []

    def columns(self) -> tuple[list[bytes], list[str]]:
        """All payloads and all partition keys, in order; not to be changed."""
        if self._columns is None:
            self._columns = super().columns()
        return self._columns

    def partition(self, factor: int) -> list[list[int]]:
        """As the module's function."""
        if self._factor != factor:
            self._factor, self._parts = factor, _partition(self, factor)
            self._bounds, self._by_lane, self._built = [], ([], []), []
        return self._parts

    def taken(self, factor: int, lane: int) -> tuple[Sequence[int], list[bytes], list[str]]:
        """As the module's function: put in the order of the lanes once, so that each lane only slices.

        What all lanes have taken is kept by them alone.
        """
        begin, end = self._place(factor, lane)
        if not self._by_lane[0]:
            self._by_lane = picked(self.columns(), list(chain.from_iterable(self._parts)))
        datas, keys = self._by_lane
        self._took(lane)
        return self._parts[lane], datas[begin:end], keys[begin:end]

    def built(self, shape: Shape, factor: int, lane: int) -> tuple[Sequence[int], list[Any]]:
        """Indexes and records of a lane: built all at once, in the order in which they lie in memory.

        For a shape whose records never change, and where most lanes are read here: the others' are built in vain.
        """
        begin, end = self._place(factor, lane)
        if not self._built:
            whole = shape.build(self, 0, self.count)
            order = list(chain.from_iterable(self._parts))
            self._built = list(itemgetter(*order)(whole) if self.count > 1 else whole)
        records = self._built[begin:end]
        self._took(lane)
        return self._parts[lane], records

    def _place(self, factor: int, lane: int) -> tuple[int, int]:
        parts = self.partition(factor)
        if not self._bounds:
            self._bounds = list(accumulate(map(len, parts), initial=0))
            self._left = (1 << factor) - 1
        return self._bounds[lane], self._bounds[lane + 1]

    def _took(self, lane: int) -> None:
        self._left &= ~(1 << lane)
        if not self._left:
            self._columns, self._by_lane, self._built, self._bounds = None, ([], []), [], []


class SharedSource:
    """A `Source` for the lanes of one shard in one process: it remembers the last few blocks read.

    A lane that reads where another one has just read costs no system call, no checksum and no parsing. Not thread-safe.

    Attributes:
        readers: how many lanes of this process read by it; its host says so.
    """

    def __init__(self, source: Source, *, kept_bytes: int = KEPT_BYTES) -> None:
        """Read through `source`.

        Args:
            source: the shard.
            kept_bytes: how many bytes of blocks are remembered; the last read is, whatever its size.
        """
        self.readers = 1
        self._source = source
        self._kept_bytes = kept_bytes
        self._blocks: dict[int, _Remembered] = {}  # by offset, in the order they were read
        self._bytes = 0

    @property
    def tail(self) -> int:
        """Logical offset up to which records may be read now."""
        return self._source.tail

    @property
    def horizon(self) -> int:
        """Logical offset below which retention has removed what there was."""
        return self._source.horizon

    @property
    def next_counter(self) -> int:
        """The counter that the next record will get."""
        return self._source.next_counter

    @property
    def closed(self) -> bool:
        """Whether nothing will be appended any more."""
        return self._source.closed

    def issued(self, first: int, stop: int) -> int:
        """How many records ever had a counter in [first, stop)."""
        return self._source.issued(first, stop)

    def read(self, offset: int, max_bytes: int = READ_BYTES) -> Sequence[Block]:
        """Blocks from the one at `offset` on, at least one if there is one; from the horizon if that is higher."""
        found = self._remembered(offset, max_bytes) if offset >= self._source.horizon else []
        if not found:
            read = self._read(offset, max_bytes)
            found = self._remembered(read[0].offset, max_bytes) if read else []
        return found

    def _remembered(self, offset: int, max_bytes: int) -> list[Block]:
        found: list[Block] = []
        size = 0
        block = self._blocks.get(offset)
        while block is not None:
            size += len(block.body)
            if found and size > min(max_bytes, SLICE_BYTES):
                break
            found.append(block)
            if block.end == block.offset:  # what is left of a range that is lost up to the tail: a counter, no bytes
                break
            block = self._blocks.get(block.end)
        return found

    def forget(self) -> None:
        """Remember no block: for a host that keeps many shards, of which this one has nothing to read."""
        self._blocks.clear()
        self._bytes = 0

    def _read(self, offset: int, max_bytes: int) -> Sequence[Block]:
        blocks = [_Remembered(block, self.readers) for block in self._source.read(offset, max_bytes)]
        for block in blocks:
            before = self._blocks.pop(block.offset, None)
            self._bytes += _bytes(block) - (0 if before is None else _bytes(before))
            self._blocks[block.offset] = block
        spare = len(self._blocks) - len(blocks)
        for oldest in list(self._blocks)[:spare] if self._bytes > self._kept_bytes else ():
            self._bytes -= _bytes(self._blocks.pop(oldest))
            if self._bytes <= self._kept_bytes:
                break
        return blocks


def _bytes(block: Block) -> int:
    return len(block.body) + _BLOCK_BYTES
