"""A worker's messages from its node: taken in order, but for what asks for a lease back, which is looked at early."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable

from kflow.runtime import messages
from kflow.runtime.messages import Channel, ToWorker


class Inbox:
    """What has arrived and is not served yet."""

    def __init__(self, channel: Channel, waiting: Iterable[ToWorker] = ()) -> None:
        self._channel = channel
        self._waiting: deque[ToWorker] = deque(waiting)
        self._ready = select.poll()  # for a descriptor of any number
        self._ready.register(channel, select.POLLIN)

    @property
    def closed(self) -> bool:
        """Whether the node is gone."""
        return self._channel.closed

    def next(self) -> ToWorker | None:
        """The next message to serve, waited for; None when the node is gone."""
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                if not isinstance(message, messages.Retire):  # of a lease that has been returned since
                    return message
            received = self._channel.receive(wait=True)
            if not received:
                return None
            self._waiting.extend(received)

    def look(self) -> None:
        """Take in what has arrived: one system call."""
        self._waiting.extend(self._channel.receive(wait=False))

    def wait(self, seconds: float) -> None:
        """Wait for a message, at most so long; take in what has arrived."""
        self._ready.poll(seconds * 1000)
        self.look()

    def wants_back(self, lease: int, generation: int) -> bool:
        """Whether the node has asked for a lease, or is gone."""
        if self._channel.closed:
            return True
        return any(
            isinstance(each, messages.Retire) and each.lease == lease and each.generation == generation
            for each in self._waiting
        )
