"""The records of one call to put, by column, and what came of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from kflow import limits
from kflow.errors import KflowError, ProvisionedThroughputExceeded
from kflow.kinesis.registry import Stream

SLICE_BYTES: Final = 256 * limits.KIB
"""So much is encoded at once: copying and checksums take about 0.2 ms of the loop."""


class Entries(NamedTuple):
    """The records of one call, by column, checked already.

    Attributes:
        keys: partition keys; empty where there is none, which only AUTO distribution takes.
        datas: payloads.
        hash_keys: explicit hash keys, None where a record has none; None as a whole for none.
        size: bytes of all payloads and keys.
    """

    keys: Sequence[str]
    datas: Sequence[bytes]
    hash_keys: Sequence[int | None] | None
    size: int


class Outcome(NamedTuple):
    """What came of a call, in the order of its records.

    Attributes:
        numbers: sequence numbers as decimal texts; empty where a record was not stored.
        shards: shard ids, likewise.
        errors: by the record's place, why it was not stored.
    """

    numbers: list[str]
    shards: list[str]
    errors: dict[int, KflowError]


Then = Callable[[Outcome], object]


def rate_exceeded(stream: Stream, shard: str) -> ProvisionedThroughputExceeded:
    """The refusal of a record that a shard does not take just now. Source: recorded."""
    return ProvisionedThroughputExceeded(
        f"Rate exceeded for shard {shard} in stream {stream.name} under account {stream.account}."
    )


class PutCall:
    """A call that is not through in one go.

    Attributes:
        order: rises with each call of a stream.
        entries: its records.
        then: told when it is through.
        faults: places of records that are to be refused.
        todo: places of records that are to be put, and whether the shards' limits have taken them already.
        open: how many times parts of it are under way.
        outcome: as far as it is known.
    """

    __slots__ = ("entries", "faults", "open", "order", "outcome", "then", "todo")

    def __init__(self, order: int, entries: Entries, then: Then, faults: Collection[int]) -> None:
        total = len(entries.keys)
        self.order = order
        self.entries = entries
        self.then = then
        self.faults = faults
        self.todo: deque[tuple[Sequence[int], bool]] = deque()
        self.open = 0
        self.outcome = Outcome([""] * total, [""] * total, {})

    def refuse(self, indexes: Iterable[int], error: KflowError) -> None:
        """Note why some records were not stored."""
        for index in indexes:
            self.outcome.errors[index] = error


def slices(entries: Entries) -> Iterator[Sequence[int]]:
    """The records of a call in runs of about `SLICE_BYTES`."""
    begin = size = 0
    for index, data in enumerate(entries.datas):
        if size and size + len(data) > SLICE_BYTES:
            yield range(begin, index)
            begin = index
            size = 0
        size += len(data)
    yield range(begin, len(entries.datas))


def taker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Takes some records out of a column."""
    if isinstance(indexes, range) and indexes.step == 1:
        cut = slice(indexes.start, indexes.stop)
        return lambda column: column[cut]
    if len(indexes) == 1:
        only = indexes[0]
        return lambda column: (column[only],)
    return itemgetter(*indexes)
