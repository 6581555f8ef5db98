"""A shard, as the engine reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from kflow.broker.block import Block

READ_BYTES: Final = 1 << 20
"""One read: large enough that a system call serves thousands of small records, small enough to keep in memory."""


class Source(Protocol):
    """Where the engine's records come from. `kflow.broker.reader.ShardReader` is one."""

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

    def issued(self, first: int, stop: int) -> int:
        """How many records ever had a counter in [first, stop): counters that were passed over had none."""
        ...

    def read(self, offset: int, max_bytes: int = READ_BYTES) -> Sequence[Block]:
        """Blocks from the one at `offset` on, at least one if there is one; from the horizon if that is higher."""
        ...
