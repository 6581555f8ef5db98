"""`--drain`: what was in the log when the runtime was ready has to be settled or parked; then it stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kflow.runtime.leases import Lease, LeaseState, LeaseTable


@dataclass(slots=True)
class DrainWatch:
    """Watches the leases until each has settled everything below the end that was noted for it.

    Attributes:
        done: called once, when all have.
        ends: readable end by lease id, noted after "ready".
    """

    done: Callable[[], None]
    ends: dict[int, int]
    finished: bool = False

    def check(self, table: LeaseTable) -> None:
        """After a lease was returned: is everything settled?"""
        if not self.finished and not self.blocked(table):
            self.finished = True
            self.done()

    def blocked(self, table: LeaseTable) -> list[Lease]:
        """Leases that have not settled up to their noted end."""
        held = ((table.leases[lease_id], end) for lease_id, end in self.ends.items() if lease_id in table.leases)
        return [lease for lease, end in held if lease.state is not LeaseState.NEWS or lease.read_offset < end]
