"""`--drain`: what was in the log when the runtime was ready has to be settled or parked; then it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kflow.runtime.plan.lease import Lease, LeaseState
from kflow.runtime.plan.leases import LeaseTable

MOST_NAMES: Final = 20
"""So many blocked lanes are named; `kflow status` shows all."""


@dataclass(slots=True)
class DrainWatch:
    """Watches the leases until each has settled everything below the end that was noted for it.

    A tumbling window that is still open, with all of its records read, is kept and counts as settled. Children of
    shards that are closed meanwhile are watched too, up to where they ended when their leases were made.

    Attributes:
        done: called once, when all have.
        ends: readable end by lease id, noted after "ready"; those that have settled it are taken out.
        awaited: whether leases are still to be added, to be watched as well.
    """

    done: Callable[[], None]
    ends: dict[int, int]
    awaited: Callable[[], bool] = lambda: False
    finished: bool = False

    def add(self, lease: Lease, end: int) -> None:
        """Watch a lease that came to be during the drain."""
        self.ends[lease.id] = end

    def waits_for(self, lease: Lease) -> bool:
        """Whether a lease has not settled up to its noted end; one that has is not looked at again."""
        end = self.ends.get(lease.id)
        if end is None or not _is_settled(lease, end):
            return end is not None
        del self.ends[lease.id]
        return False

    def check(self, table: LeaseTable) -> None:
        """After leases were returned: is everything settled?

        One lease that is not settled is enough to know: as many as there may be, each is seen settled once.
        """
        while self.ends:
            lease_id, end = self.ends.popitem()
            lease = table.leases.get(lease_id)
            if lease is not None and not _is_settled(lease, end):
                self.ends[lease_id] = end
                return
        if not self.finished and not self.awaited():
            self.finished = True
            self.done()

    def blocked(self, table: LeaseTable) -> list[Lease]:
        """Leases that have not settled up to their noted end."""
        held = [(table.leases.get(lease_id), end) for lease_id, end in self.ends.items()]
        blocked = [(lease, end) for lease, end in held if lease is not None and not _is_settled(lease, end)]
        self.ends = {lease.id: end for lease, end in blocked}
        return [lease for lease, _ in blocked]


class Beside(Protocol):
    """What else is read, besides streams: queues. Belongs to the loop's thread."""

    def report(self) -> list[dict[str, Any]]:
        """Each mapping of it, as JSON holds it, for `status`."""
        ...

    def drain(self, told: Callable[[], object]) -> None:
        """Work off what is there; `told` is called whenever something is drained."""
        ...

    def undrained(self) -> list[str]:
        """What is not, for people."""
        ...


def listed(names: Sequence[str]) -> str:
    """Names in one line, the first of them where there are very many."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _is_settled(lease: Lease, end: int) -> bool:
    # Exactly at the end, with nothing read past it, there may be a call to come that ends a tumbling window.
    is_past = lease.settled_offset > end or lease.settled_offset == end < lease.read_offset
    if is_past and lease.state is not LeaseState.PARENTS:
        return True
    if lease.state is LeaseState.DRAINED:
        return True
    is_read = lease.state is LeaseState.NEWS or (lease.state is LeaseState.DUE and lease.reason == "tumbling")
    return is_read and lease.read_offset >= end
