"""Many user records in one: what `Producer(aggregate=True)` puts.

A record holds user records of one shard only, so that whoever filters by a shard's hash range loses none. It has the
partition key of its first user record, and that record's hash key, so it lands where the first one belongs.
Source: documented: Kinesis Producer Library, key concepts: aggregation; recorded: aws-kinesis-agg for Python.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from kflow import limits
from kflow.broker.hashkeys import HASH_KEY_END, digest
from kflow.errors import InvalidArgument
from kflow.events.aggregation import MAGIC, Aggregate
from kflow.producing.pipeline import Entries, Gathered

PAYLOAD_BYTES: Final = limits.RECORD_BYTES - 4 * limits.PARTITION_KEY_CHARACTERS
"""chosen: what every stream takes, whatever the key. AWS's own aggregators stop at 1 MiB, and at 50 KiB by default."""


class _Open(NamedTuple):
    """What gathers for one shard; `members` are the indexes of its user records."""

    aggregate: Aggregate
    members: list[int]


def gather(ends: Sequence[int], entries: Entries, limit: int = PAYLOAD_BYTES) -> Gathered:
    """Aggregate records by shard.

    The records of a key keep their order. What is alone, or too large to share, goes as it is.

    Args:
        ends: last hash key of each open shard, rising.
        entries: user records; keys are valid text.
        limit: bytes that a payload may take.

    Raises:
        InvalidArgument: an explicit hash key is out of range.
    """
    hash_keys = entries.hash_keys or [None] * len(entries.keys)
    gathered = _Gathering(entries, hash_keys)
    shards: dict[int, _Open] = {}
    for index, (data, key, hash_key) in enumerate(zip(entries.datas, entries.keys, hash_keys, strict=True)):
        shard = bisect_left(ends, where(key, hash_key))
        current = shards.get(shard)
        if current is not None:
            if current.aggregate.add(data, key, hash_key):
                current.members.append(index)
                continue
            gathered.take(shards.pop(shard))
        fresh = Aggregate(limit)
        if fresh.add(data, key, hash_key):
            shards[shard] = _Open(fresh, [index])
        else:
            gathered.take_plain(index)
    for current in shards.values():
        gathered.take(current)
    return Gathered(Entries(gathered.keys, gathered.datas, gathered.hash_keys), gathered.members)


def where(key: str, hash_key: int | None) -> int:
    """The hash key of a record.

    Raises:
        InvalidArgument: an explicit one is out of range.
    """
    if hash_key is None:
        return int.from_bytes(digest(key), "big")
    if not 0 <= hash_key <= HASH_KEY_END:
        raise InvalidArgument(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
            f"Specified value was {hash_key}"
        )
    return hash_key


class _Gathering:
    """The columns of what is going to be put."""

    def __init__(self, entries: Entries, hash_keys: Sequence[int | None]) -> None:
        self._entries = entries
        self._given = hash_keys
        self.keys: list[str] = []
        self.datas: list[bytes] = []
        self.hash_keys: list[int | None] = []
        self.members: list[Sequence[int]] = []

    def take(self, done: _Open) -> None:
        """Add what has gathered."""
        first = done.members[0]
        if len(done.members) == 1 and not self._entries.datas[first].startswith(MAGIC):
            self.take_plain(first)
            return
        key = self._entries.keys[first]
        self._add(key, done.aggregate.payload(), where(key, self._given[first]), done.members)

    def take_plain(self, index: int) -> None:
        """Add one user record as it is."""
        self._add(self._entries.keys[index], self._entries.datas[index], self._given[index], (index,))

    def _add(self, key: str, data: bytes, hash_key: int | None, members: Sequence[int]) -> None:
        self.keys.append(key)
        self.datas.append(data)
        self.hash_keys.append(hash_key)
        self.members.append(members)
