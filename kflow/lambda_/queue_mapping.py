"""An event source mapping of a queue as data, and what whoever keeps mappings asks of whoever polls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from kflow.declarations import QueueOptions
from kflow.errors import KflowError


class QueueMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping that is enabled.

    Attributes:
        uuid: of the mapping.
        key: the function's, with the qualifier that is invoked.
        function_arn: its ARN, with that qualifier, if any.
        queue_arn: ARN of the queue.
        options: see there.
        counts: whether its events are counted, for its metrics.
    """

    uuid: str
    key: str
    function_arn: str
    queue_arn: str
    options: QueueOptions
    counts: bool = False

    @property
    def queue(self) -> str:
        """Name of the queue."""
        return self.queue_arn.rpartition(":")[2]

    @property
    def is_fifo(self) -> bool:
        """Whether the queue keeps an order."""
        return self.queue_arn.endswith(".fifo")


class Queues(Protocol):
    """Polls queues for mappings. Everything here belongs to the loop's thread."""

    def check(self, mapping: QueueMapping, timeout_s: int, told: Callable[[KflowError | None], object]) -> None:
        """Whether a mapping may be made of a queue: it is there, and messages stay hidden while the function runs.

        Args:
            mapping: which.
            timeout_s: of the function.
            told: told None, or `InvalidParameterValue` in AWS's words.
        """
        ...

    def start(self, mapping: QueueMapping) -> None:
        """Poll from now on; one of the same uuid that is polled is replaced when what it runs has ended."""
        ...

    def stop(self, uuid: str, then: Callable[[], object]) -> None:
        """Poll no more; `then` is called when what runs has ended. What waits goes back."""
        ...
