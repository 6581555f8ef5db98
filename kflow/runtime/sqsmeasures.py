"""SQS's own metrics, by `QueueName`: what was sent, received and deleted, by whomever.

    AWS/SQS   NumberOfMessagesSent SentMessageSize NumberOfMessagesReceived NumberOfEmptyReceives
              NumberOfMessagesDeleted

Those of how many messages wait, and for how long, are not here: nobody counts them while nobody asks.
Source: documented: SQS Developer Guide, available CloudWatch metrics.
"""

from __future__ import annotations

import threading
from typing import Final

from kflow.broker.metricpoints import Point, nothing, of
from kflow.errors import KflowError
from kflow.monitoring.measures import Measures
from kflow.sqs.asking import Ask, Delete, Receive, Received, Reply, Send, Sent
from kflow.sqs.directory import Queue

NAMESPACE: Final = "AWS/SQS"
_UNITS: Final = {"SentMessageSize": "Bytes"}


class SqsMeasures:
    """Counts on the loop, and is taken by another thread.

    Args:
        measures: where they go.
    """

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._points: dict[tuple[Queue, str], Point] = {}
        self._lock = threading.Lock()
        measures.sources.append(self._take)

    def turn(self, queue: Queue, ask: Ask, reply: Reply | KflowError) -> None:
        """Somebody asked a queue, and this came of it."""
        if isinstance(reply, KflowError):
            return
        if isinstance(ask, Send):
            assert isinstance(reply, list | tuple)
            sent = [entry for entry, each in zip(ask.entries, reply, strict=True) if isinstance(each, Sent)]
            self._add(queue, "NumberOfMessagesSent", of(len(sent)))
            for entry in sent:
                self._add(queue, "SentMessageSize", of(len(entry.body or "")))
        elif isinstance(ask, Receive):
            assert isinstance(reply, Received)
            if reply.messages:
                self._add(queue, "NumberOfMessagesReceived", of(len(reply.messages)))
            elif not reply.aside:
                self._add(queue, "NumberOfEmptyReceives", of(1))
        elif isinstance(ask, Delete):
            assert isinstance(reply, list | tuple)
            self._add(queue, "NumberOfMessagesDeleted", of(sum(each is None for each in reply)))

    def _add(self, queue: Queue, name: str, point: Point) -> None:
        if not point.sum and name != "SentMessageSize":
            return
        with self._lock:
            is_first = not self._points
            self._points.setdefault((queue, name), nothing()).add(point)
        if is_first:
            self._measures.touch()

    def _take(self) -> None:
        with self._lock:
            taken, self._points = self._points, {}
        for (queue, name), point in taken.items():
            dimensions = (("QueueName", queue.facts.name),)
            place = (queue.place.account, queue.place.region)
            self._measures.note(NAMESPACE, name, point, dimensions, unit=_UNITS.get(name, "Count"), place=place)
