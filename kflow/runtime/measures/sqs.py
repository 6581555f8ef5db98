"""SQS's own metrics, by `QueueName`: what was sent, received and deleted, by whomever.

    AWS/SQS   NumberOfMessagesSent SentMessageSize NumberOfMessagesReceived NumberOfEmptyReceives
              NumberOfMessagesDeleted

              ApproximateNumberOfMessagesVisible ApproximateNumberOfMessagesNotVisible
              ApproximateNumberOfMessagesDelayed

The last three are counted a while after a queue was used, and again while it is. How old the oldest message is, nobody
looks.
Source: documented: SQS Developer Guide, available CloudWatch metrics.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Final

from kflow.broker.messagequeues import Counts
from kflow.broker.metricpoints import Point, nothing
from kflow.errors import KflowError
from kflow.monitoring.measures import Measures
from kflow.sqs.asking import Ask, Count, Delete, Receive, Received, Reply, Send, Sent
from kflow.sqs.directory import Queue

NAMESPACE: Final = "AWS/SQS"
_COUNT_S: Final = 20.0
_GAUGES: Final = (
    "ApproximateNumberOfMessagesVisible",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
"""In the order of `Counts`."""
_UNITS: Final = {"SentMessageSize": "Bytes"}


class SqsMeasures:
    """Counts on the loop, and is taken by another thread.

    Args:
        measures: where they go.
        call_later: of the loop.
    """

    def __init__(self, measures: Measures, call_later: Callable[[float, Callable[[], object]], object]) -> None:
        self._measures = measures
        self._call_later = call_later
        self._used: set[Queue] = set()
        self._points: dict[tuple[Queue, str], Point] = {}
        self._lock = threading.Lock()
        measures.sources.append(self._take)

    def turn(self, queue: Queue, ask: Ask, reply: Reply | KflowError) -> None:
        """Somebody asked a queue, and this came of it."""
        if isinstance(reply, KflowError) or isinstance(ask, Count):
            return
        if not self._used:
            self._call_later(_COUNT_S, self._count)
        self._used.add(queue)
        if isinstance(ask, Send):
            assert isinstance(reply, list | tuple)
            sent = [entry for entry, each in zip(ask.entries, reply, strict=True) if isinstance(each, Sent)]
            self._add(queue, "NumberOfMessagesSent", len(sent))
            for entry in sent:
                self._add(queue, "SentMessageSize", len(entry.body or ""))
        elif isinstance(ask, Receive):
            assert isinstance(reply, Received)
            if reply.messages:
                self._add(queue, "NumberOfMessagesReceived", len(reply.messages))
            elif not reply.aside:
                self._add(queue, "NumberOfEmptyReceives", 1)
        elif isinstance(ask, Delete):
            assert isinstance(reply, list | tuple)
            self._add(queue, "NumberOfMessagesDeleted", sum([each is None for each in reply]))

    def _count(self) -> None:
        """How many messages there are in the queues that were used."""
        used, self._used = self._used, set()
        for queue in used:
            queue.desk.ask(Count(), functools.partial(self._counted, queue))

    def _counted(self, queue: Queue, reply: Counts | KflowError) -> None:
        if isinstance(reply, Counts):  # else it is gone
            for name, count in zip(_GAUGES, reply, strict=True):
                self._add(queue, name, count)

    def _add(self, queue: Queue, name: str, value: float) -> None:
        if not value and name.startswith("NumberOf"):
            return
        with self._lock:
            is_first = not self._points
            point = self._points.get((queue, name))
            if point is None:
                point = self._points[queue, name] = nothing()
            point.note(value)
        if is_first:
            self._measures.touch()

    def _take(self) -> None:
        with self._lock:
            taken, self._points = self._points, {}
        for (queue, name), point in taken.items():
            dimensions = (("QueueName", queue.facts.name),)
            place = (queue.place.account, queue.place.region)
            self._measures.note(NAMESPACE, name, point, dimensions, unit=_UNITS.get(name, "Count"), place=place)
