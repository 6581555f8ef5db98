"""Polls queues for event source mappings, each by a poller of its own.

A mapping that has nothing to do waits at its queue's desk, or for its queue to be made, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kflow.broker.host import Host
from kflow.countdown import countdown
from kflow.errors import KflowError
from kflow.lambda_.errors import InvalidParameterValue
from kflow.lambda_.queue_mapping import QueueMapping
from kflow.runtime.feed import Totals
from kflow.runtime.mappings.queuepoller import Parts, Poller
from kflow.sqs.directory import Queue

if TYPE_CHECKING:
    from kflow.services.sqs.service import Sqs


class QueuePolling:
    """A `kflow.lambda_.queue_mapping.Queues`. Belongs to the loop's thread.

    Args:
        parts: what pollers share.
    """

    def __init__(self, parts: Parts) -> None:
        self._make_sqs = parts.sqs
        self._parts = replace(parts, sqs=lambda: self.sqs)
        self._sqs: Sqs | None = None
        self._pollers: dict[str, Poller] = {}

    @property
    def host(self) -> Host:
        """Loop, threads, and whom people hear from."""
        return self._parts.host

    @property
    def totals(self) -> Mapping[str, Totals]:
        """What became of messages since the runtime started, by function."""
        return self._parts.totals

    @property
    def sqs(self) -> Sqs:
        """The queues."""
        if self._sqs is None:
            self._sqs = self._make_sqs()
            self._sqs.directory.made = self._made
        return self._sqs

    @property
    def mappings(self) -> Sequence[QueueMapping]:
        """What is polled."""
        return [poller.mapping for poller in self._pollers.values()]

    def report(self) -> list[dict[str, Any]]:
        """Each mapping, as JSON holds it, for `status`."""
        return [poller.report() for poller in self._pollers.values()]

    # ------------------------------------------------------------------ mappings

    def check(self, mapping: QueueMapping, timeout_s: int, told: Callable[[KflowError | None], object]) -> None:
        """Whether a mapping may be made of a queue.

        Source: recorded: the text of a queue that is not there; chosen: that of a visibility timeout.
        """

        def loaded(failure: KflowError | None) -> None:
            queue = None if failure is not None else self.sqs.directory.by_arn(mapping.queue_arn)
            if failure is not None:
                told(failure)
            elif queue is None:
                told(
                    InvalidParameterValue(
                        "Error occurred while ReceiveMessage. "
                        "SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
                        "SQS Error Message: The specified queue does not exist."
                    )
                )
            elif queue.facts.visibility_s < timeout_s:
                told(
                    InvalidParameterValue(
                        f"Queue visibility timeout: {queue.facts.visibility_s} seconds is less than Function timeout: "
                        f"{timeout_s} seconds"
                    )
                )
            else:
                told(None)

        self.sqs.directory.when_loaded(loaded)

    def start(self, mapping: QueueMapping) -> None:
        """Poll from now on."""
        before = self._pollers.get(mapping.uuid)
        made = self._pollers[mapping.uuid] = Poller(self._parts, mapping)
        if before is None:
            made.start()
        else:
            before.stop(made.start)

    def stop(self, uuid: str, then: Callable[[], object]) -> None:
        """Poll no more."""
        poller = self._pollers.get(uuid)
        if poller is None:
            then()
            return

        def over() -> None:
            if self._pollers.get(uuid) is poller:
                del self._pollers[uuid]
            then()

        poller.stop(over)

    def function_changed(self, key: str) -> None:
        """A function is there, or may run more often than before: look again at once.

        Args:
            key: its key; without a qualifier: all its keys.
        """
        for poller in self._pollers.values():
            if key in {poller.mapping.key, poller.mapping.key.partition(":")[0]}:
                poller.wake()

    def drain(self, told: Callable[[], object]) -> None:
        """Work off what is there: a queue is drained once it has been empty, with nothing in flight or delayed."""
        for poller in self._pollers.values():
            poller.drain(told)

    def undrained(self) -> list[str]:
        """What is not, for people."""
        return [f"{each.mapping.key} {each.mapping.queue}" for each in self._pollers.values() if not each.is_drained]

    def close(self, then: Callable[[], object]) -> None:
        """Poll nothing more; calls back when what runs has ended and is settled."""
        over = countdown(len(self._pollers) + 1, then)
        for each in list(self._pollers):
            self.stop(each, over)
        over()

    def _made(self, queue: Queue) -> None:
        for poller in self._pollers.values():
            if poller.mapping.queue_arn == queue.arn:
                poller.wake()
