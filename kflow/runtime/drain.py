"""`--drain`: what was in the log when the runtime was ready has to be settled or parked; then it stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kflow.runtime.leases import Lease, LeaseState, LeaseTable


@dataclass(slots=True)
class DrainWatch:
    """Watches the leases until each has settled everything below the end that was noted for it.

    Attributes:
        done: called once, when all have.
        ends: readable end by lease id, noted after "ready".
    """

    done: Callable[[], None]
    ends: dict[int, int] = field(default_factory=dict)
    noted: bool = False

    def note(self, ends: dict[int, int], table: LeaseTable) -> None:
        """Note the ends; from here on `check` may find that all is done."""
        self.ends = ends
        self.noted = True
        self.check(table)

    def check(self, table: LeaseTable) -> None:
        """After a lease was returned: is everything settled?"""
        if self.noted and not self.blocked(table):
            self.noted = False
            self.done()

    def blocked(self, table: LeaseTable) -> list[Lease]:
        """Leases that have not settled up to their noted end."""
        held = ((table.leases[lease_id], end) for lease_id, end in self.ends.items() if lease_id in table.leases)
        return [lease for lease, end in held if lease.state is not LeaseState.NEWS or lease.read_offset < end]
