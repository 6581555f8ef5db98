"""Children after their parents: which shards are closed, and which consumers have drained them in every lane. Pure.

Order per partition key over a split or a merge holds because nobody reads a child before all that its parents hold is
settled. A parent that no lease is known of (it expired, or was never there for this consumer) holds nobody up.

Source: chosen: AWS promises order per key, which needs this; no page says so for Lambda.
"""

from __future__ import annotations

from kflow.runtime.plan.lease import Lease

_Family = tuple[str, int, int]


class Lineage:
    """The shards of all consumers, as parents and children."""

    def __init__(self) -> None:
        self._closed: set[tuple[int, int]] = set()
        self._undrained: dict[_Family, int] = {}
        self._children: dict[_Family, dict[int, Lease]] = {}

    def add(self, lease: Lease) -> None:
        """Count a lane. Its parents' lanes must be known by then."""
        self._undrained[lease.family] = self._undrained.get(lease.family, 0) + 1

    def must_wait(self, lease: Lease) -> bool:
        """Whether a parent is not drained; the lease is then among those that `drained` gives back later."""
        waits = False
        for parent in lease.parents:
            family = (lease.function, lease.stream_id, parent)
            if self._undrained.get(family):
                self._children.setdefault(family, {})[lease.id] = lease
                waits = True
        return waits

    def close(self, shard: tuple[int, int]) -> None:
        """A shard, as (stream id, index), takes no more records."""
        self._closed.add(shard)

    def is_closed(self, lease: Lease) -> bool:
        """Whether its shard takes no more records."""
        return lease.place_in_log in self._closed

    def drained(self, lease: Lease) -> list[Lease]:
        """A lane of a closed shard has settled everything. Returns the leases that need not wait any longer."""
        family = lease.family
        self._undrained[family] -= 1
        if self._undrained[family]:
            return []
        children = self._children.pop(family, {})
        return [child for child in children.values() if not self.must_wait(child)]

    def remove_consumer(self, function: str, stream_id: int) -> None:
        """Forget a function on a stream."""
        for table in (self._undrained, self._children):
            for family in [family for family in table if family[:2] == (function, stream_id)]:
                del table[family]

    def remove_stream(self, stream_id: int) -> None:
        """Forget a stream."""
        self._closed = {shard for shard in self._closed if shard[0] != stream_id}
        for table in (self._undrained, self._children):
            for family in [family for family in table if family[1] == stream_id]:
                del table[family]
