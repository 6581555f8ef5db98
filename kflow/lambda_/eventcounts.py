"""How many events a mapping has read, filtered out, invoked its function with, and what became of them.

Only of mappings that ask for it (`MetricsConfig`, `EventCount`); whoever runs one adds up what it knows of each batch.

Source: documented: Lambda Developer Guide, types of metrics, event source mapping metrics; chosen: a record that is
given up and has no destination counts as dropped also where kflow keeps it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kflow.interfaces import BatchOutcome, BatchResult

GROUP: Final = "EventCount"
"""What a mapping asks for."""
POLLED: Final = "PolledEventCount"
FILTERED: Final = "FilteredOutEventCount"
INVOKED: Final = "InvokedEventCount"
FAILED: Final = "FailedInvokeEventCount"
DROPPED: Final = "DroppedEventCount"
DELIVERED: Final = "OnFailureDestinationDeliveredEventCount"
DELETED: Final = "DeletedEventCount"

_GIVEN_UP: Final = frozenset({BatchResult.EXPIRED, BatchResult.DROPPED, BatchResult.PARKED})


class Counted(NamedTuple):
    """What was counted of one mapping since it was told last.

    Attributes:
        function: key of its function.
        uuid: of the mapping.
        counts: by the metric's name.
    """

    function: str
    uuid: str
    counts: dict[str, int]


class EventCounts:
    """Counts for one mapping.

    Args:
        function: key of its function.
        uuid: of the mapping.
        filters: whether it has filters.
        delivers: whether what is given up goes to a destination, and is counted there.
    """

    def __init__(self, function: str, uuid: str, *, filters: bool, delivers: bool = False) -> None:
        self._function = function
        self._uuid = uuid
        self._filters = filters
        self._delivers = delivers
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int) -> None:
        """So many more; 0 is a value too."""
        self._counts[name] = self._counts.get(name, 0) + count

    def polled(self, count: int, filtered: int) -> None:
        """So many events were read, and so many of them did not pass the filters."""
        self.add(POLLED, count)
        if self._filters:
            self.add(FILTERED, filtered)

    def invoked(self, count: int, failed: int) -> None:
        """The function was invoked with so many events, and so many of them failed."""
        self.add(INVOKED, count)
        self.add(FAILED, failed)

    def outcome(self, outcome: BatchOutcome) -> None:
        """A batch of a stream has an outcome. Of an attempt that is the last one only the giving up is told."""
        result, count = outcome.result, outcome.records
        if result is BatchResult.LOST:
            return  # documented: what retention takes is not counted
        if result in _GIVEN_UP:
            if not self._delivers:
                self.add(DROPPED, count)
            if not outcome.duration_us:
                return
        self.invoked(count, count - outcome.succeeded)

    def take(self) -> Counted | None:
        """What was counted since this was asked last; None: nothing was."""
        if not self._counts:
            return None
        counts, self._counts = self._counts, {}
        return Counted(self._function, self._uuid, counts)
