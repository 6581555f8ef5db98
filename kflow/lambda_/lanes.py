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
from typing import Final

from kflow.broker.block import Block
from kflow.lambda_.sources import READ_BYTES, Source

KEPT_BYTES: Final = 4 << 20
"""Blocks that a `SharedSource` remembers; their columns, once a lane has used them, take about as much again."""

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

    __slots__ = ("_bounds", "_by_lane", "_columns", "_factor", "_parts")

    def __init__(self, block: Block) -> None:
        super().__init__(
            block.offset, block.end, block.first_counter, block.arrival_ms, block.count, block.flags, block.body
        )
        self._columns: tuple[list[bytes], list[str]] | None = None
        self._by_lane: tuple[list[bytes], list[str]] = ([], [])
        self._bounds: list[int] = []
        self._factor = 0
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
            self._bounds = []
        return self._parts

    def taken(self, factor: int, lane: int) -> tuple[Sequence[int], list[bytes], list[str]]:
        """As the module's function: put in the order of the lanes once, so that each lane only slices."""
        parts = self.partition(factor)
        if not self._bounds:
            self._by_lane = picked(self.columns(), list(chain.from_iterable(parts)))
            self._bounds = list(accumulate(map(len, parts), initial=0))
        datas, keys = self._by_lane
        begin, end = self._bounds[lane : lane + 2]
        return parts[lane], datas[begin:end], keys[begin:end]


class SharedSource:
    """A `Source` for the lanes of one shard in one process: it remembers the last few blocks read.

    A lane that reads where another one has just read costs no system call, no checksum and no parsing. Not thread-safe.
    """

    def __init__(self, source: Source, *, kept_bytes: int = KEPT_BYTES) -> None:
        """Read through `source`.

        Args:
            source: the shard.
            kept_bytes: how many bytes of blocks are remembered; the last read is, whatever its size.
        """
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
        found: list[Block] = []
        size = 0
        block = self._blocks.get(offset) if offset >= self._source.horizon else None
        while block is not None:
            size += len(block.body)
            if found and size > max_bytes:
                break
            found.append(block)
            block = self._blocks.get(block.end)
        return found or self._read(offset, max_bytes)

    def forget(self) -> None:
        """Remember no block: for a host that keeps many shards, of which this one has nothing to read."""
        self._blocks.clear()
        self._bytes = 0

    def _read(self, offset: int, max_bytes: int) -> Sequence[Block]:
        blocks = [_Remembered(block) for block in self._source.read(offset, max_bytes)]
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
