"""Lambda's own metrics: what the invocations of functions came to.

    AWS/Lambda   Invocations Errors Throttles Duration IteratorAge ConcurrentExecutions
                 DeadLetterErrors DestinationDeliveryFailures AsyncEventsReceived AsyncEventsDropped

By `FunctionName`, by `FunctionName` and `Resource` where a qualifier was used, and over all functions; and, by
`EventSourceMappingUUID`, the counts of mappings that ask for them.

Source: documented: Lambda Developer Guide, types of metrics.
"""

from __future__ import annotations

import re
import threading
from typing import Final

from kflow.broker.metricpoints import Dimensions, Point, of
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.lambda_.eventcounts import Counted
from kflow.monitoring.measures import Measures

NAMESPACE: Final = "AWS/Lambda"
MILLISECONDS: Final = "Milliseconds"
COUNT: Final = "Count"
_KEY: Final = re.compile(r"([^@:]+)(?:@([0-9]{12})\.([a-z0-9-]+))?(?::(.+))?")
_GIVEN_UP: Final = frozenset({BatchResult.EXPIRED, BatchResult.DROPPED, BatchResult.LOST})
"""With or without an attempt: one takes time."""


class Totals:
    """Of one function, since the runtime's start.

    Attributes:
        invocations: how often it ran.
        errors: how often it failed.
        throttles: how often it had no room.
        duration_us: how long it ran in all, microseconds.
    """

    __slots__ = ("duration_us", "errors", "invocations", "throttles")

    def __init__(self) -> None:
        self.invocations = self.errors = self.throttles = self.duration_us = 0


class LambdaMeasures:
    """Any thread may use it.

    Attributes:
        measures: where they go.
        totals: by the function's key.
    """

    def __init__(self, measures: Measures) -> None:
        self.measures = measures
        self.totals: dict[str, Totals] = {}
        self._lock = threading.Lock()

    def note(self, key: str, name: str, point: Point, unit: str = COUNT) -> None:
        """Values of a metric of a function.

        Args:
            key: of the function: `f`, `f:3`, `f@ACCOUNT.REGION`.
            name: of the metric.
            point: the values.
            unit: as CloudWatch calls it.
        """
        found = _KEY.fullmatch(key)
        if found is None:
            return
        function, account, region, qualifier = found.groups()
        place = (account, region) if account else None
        whose: list[Dimensions] = [(), (("FunctionName", function),)]
        if qualifier:
            whose.append((("FunctionName", function), ("Resource", f"{function}:{qualifier}")))
        for dimensions in whose:
            self.measures.note(NAMESPACE, name, point, dimensions, unit=unit, place=place)

    def invoked(self, key: str, duration_us: int, error: FunctionError | None, times: int = 1) -> None:
        """A function was invoked so many times, for so long in all."""
        failed = 0 if error is None or error.reported else 1
        with self._lock:
            totals = self.totals.setdefault(key, Totals())
            totals.invocations += times
            totals.errors += failed * times
            totals.duration_us += duration_us
        self.note(key, "Invocations", of(1, times))
        self.note(key, "Errors", of(failed, times))
        self.note(key, "Duration", of(duration_us / times / 1000, times), MILLISECONDS)

    def throttled(self, key: str) -> None:
        """A function was asked for, and had no room."""
        with self._lock:
            self.totals.setdefault(key, Totals()).throttles += 1
        self.note(key, "Throttles", of(1))

    def counted(self, counted: Counted) -> None:
        """Events of a mapping were counted."""
        found = _KEY.fullmatch(counted.function)
        place = None if found is None or not found[2] else (found[2], found[3])
        dimensions = (("EventSourceMappingUUID", counted.uuid),)
        for name, count in counted.counts.items():
            self.measures.note(NAMESPACE, name, of(count), dimensions, unit=COUNT, place=place)

    def event(self, function: str, name: str) -> None:
        """Something became of an asynchronous invocation.

        Args:
            function: its ARN, without a qualifier.
            name: of the metric.
        """
        _, _, _, region, account, _, plain = function.split(":", 6)
        self.note(f"{plain}@{account}.{region}", name, of(1))

    def outcome(self, outcome: BatchOutcome) -> None:
        """A batch of a stream has an outcome. Messages of queues are told by `invoked`."""
        if not outcome.shard_id or (outcome.result in _GIVEN_UP and not outcome.duration_us):
            return
        self.invoked(outcome.function, outcome.duration_us, outcome.error, outcome.batches)
