"""How far the lanes of a shard are behind: counted where they differ, for lanes share their shard's records.

A record belongs to one lane, and which one stands in its block. Between the least and the greatest checkpoint of the
lanes each block must be looked at to know; the look-ahead of lanes bounds that range. Behind it, what no lane has
settled is what the shard holds; how it splits up among the lanes is estimated past a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from kflow.broker.block import Block
from kflow.errors import Damaged
from kflow.records import Position

SHARD_BYTES: Final = 8 << 20
"""Most that is read of one shard to split its backlog up among lanes."""
TOTAL_BYTES: Final = 64 << 20
"""Most that is read for that in one survey."""
_READ_BYTES: Final = 1 << 20


class Log(Protocol):
    """What is asked of a shard. `kflow.broker.reader.ShardReader` is one."""

    @property
    def next_counter(self) -> int:
        """Counter of the next record to come."""
        ...

    def read(self, offset: int, max_bytes: int = ...) -> list[Block]:
        """The blocks from `offset` on."""
        ...

    def issued(self, first: int, stop: int) -> int:
        """How many records ever had a counter in [first, stop)."""
        ...

    def clamp(self, position: Position) -> Position:
        """`position`, or where reading goes on."""
        ...


class Checkpoint(NamedTuple):
    """Where a lane stands: everything before is settled."""

    position: Position
    counter: int


class Behind(NamedTuple):
    """What a lane has not settled.

    Attributes:
        records: how many.
        exact: whether they were counted; else they are an even share of what the shard holds.
        oldest_ms: arrival of the first of them, or of an earlier record where the first one was not reached; 0 where
            there is none, or it cannot be read.
        damaged_at: logical offset of damage that nobody has quarantined yet, found on the way; -1 for none.
    """

    records: int
    exact: bool
    oldest_ms: int
    damaged_at: int = -1


class Budget:
    """How much may still be read."""

    def __init__(self, total_bytes: int = TOTAL_BYTES) -> None:
        self.left = total_bytes

    def of_shard(self) -> int:
        """How much may be read of the next shard."""
        return min(self.left, SHARD_BYTES)


def of_lanes(log: Log, checkpoints: Sequence[Checkpoint], budget: Budget) -> list[Behind]:
    """How far each lane of one shard is behind, in the order of the lanes. Within the budget their sum is exact.

    Args:
        log: the shard.
        checkpoints: of its lanes, all of them, in order.
        budget: what may be read, one block of each shard besides; what is read is taken off it.
    """
    stop = log.next_counter
    if len(checkpoints) == 1:
        (only,) = checkpoints
        records = log.issued(only.counter, stop)
        oldest_ms, damaged_at = _arrival(log, only) if records else (0, -1)
        return [Behind(records, True, oldest_ms, damaged_at)]
    if all(each.counter >= stop for each in checkpoints):
        return [Behind(0, True, 0) for _ in checkpoints]
    count = _Count(checkpoints)
    reached, damaged_at = _read(log, count, budget)
    return count.found(log, reached, stop, damaged_at)


class _Count:
    """Records of each lane, block by block."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.checkpoints = checkpoints
        self.records = [0] * len(checkpoints)
        self.oldest_ms = [0] * len(checkpoints)
        self.last_ms = 0

    def add(self, block: Block) -> None:
        """Count the records of a block that their lanes have not settled."""
        factor = len(self.checkpoints)
        self.last_ms = block.arrival_ms
        counters = [each.counter for each in self.checkpoints]
        for counter, value in enumerate(block.lanes(), block.first_counter):
            lane = value % factor
            if counter >= counters[lane]:
                self.records[lane] += 1
                self.oldest_ms[lane] = self.oldest_ms[lane] or block.arrival_ms

    def found(self, log: Log, reached: int, stop: int, damaged_at: int) -> list[Behind]:
        """What was counted up to the counter `reached`, and an even share of what lies behind it."""
        factor = len(self.checkpoints)
        found = []
        for lane, checkpoint in enumerate(self.checkpoints):
            rest = log.issued(max(reached, checkpoint.counter), stop)
            share = rest // factor + (lane < rest % factor)  # the shares add up
            oldest_ms = self.oldest_ms[lane] or (self.last_ms if share else 0)
            found.append(Behind(self.records[lane] + share, rest == 0, oldest_ms, damaged_at))
        return found


def _read(log: Log, count: _Count, budget: Budget) -> tuple[int, int]:
    """Count from the least checkpoint on; the counter that was reached, and where damage was found (-1: nowhere)."""
    least = min(count.checkpoints, key=lambda each: each.counter)
    reached, offset = least.counter, log.clamp(least.position).offset
    left = budget.of_shard()
    while True:
        try:
            blocks = log.read(offset, min(max(left, 1), _READ_BYTES))
        except Damaged as error:
            return reached, -1 if error.offset is None else error.offset
        if not blocks:
            return log.next_counter, -1
        for block in blocks:
            if block.count:
                count.add(block)
            reached = block.first_counter + block.count
        taken = blocks[-1].end - blocks[0].offset
        left -= taken
        budget.left -= taken
        if left <= 0 or blocks[-1].end <= offset:
            return reached, -1
        offset = blocks[-1].end


def _arrival(log: Log, checkpoint: Checkpoint) -> tuple[int, int]:
    """Arrival of the first record behind a checkpoint (0: unknown), and where damage was found (-1: nowhere)."""
    try:
        blocks = log.read(log.clamp(checkpoint.position).offset, 1)
    except Damaged as error:
        return 0, -1 if error.offset is None else error.offset
    return (blocks[0].arrival_ms if blocks and blocks[0].count else 0), -1
