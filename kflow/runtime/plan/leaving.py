"""Leases that were taken away while a worker held them: who waits until what it runs is over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kflow.runtime.plan.lease import Lease


class Leaving:
    """Belongs to the node's loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[set[int], Callable[[], object]]] = {}

    def wait(self, leases: Iterable[Lease], then: Callable[[], object]) -> None:
        """Call `then` when none of these is held any more; at once where there are none."""
        left = {lease.id for lease in leases}
        if not left:
            then()
        for lease in left:
            self._waiting[lease] = (left, then)

    def left(self, lease: int) -> None:
        """A lease is held no longer. One that nobody waits for is passed over."""
        found = self._waiting.pop(lease, None)
        if found is not None:
            found[0].discard(lease)
            if not found[0]:
                found[1]()
