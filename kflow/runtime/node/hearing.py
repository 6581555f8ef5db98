"""The node's end of the socket by which all workers tell people of their batches; `worker.live` is the other."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import msgspec

from kflow.interfaces import BatchOutcome
from kflow.lambda_.eventcounts import Counted
from kflow.runtime.feed import Feed, live_pair
from kflow.runtime.loop import Loop

_PER_ROUND: Final = 64
_BYTES: Final = 65536
_decode = msgspec.msgpack.Decoder(BatchOutcome | Counted).decode


class Hearing:
    """Passes on what workers tell, when the loop has nothing better to do.

    Attributes:
        out: what workers write to; handed to each of them.
    """

    def __init__(
        self, loop: Loop, feed: Feed, tell: Callable[[BatchOutcome], None], count: Callable[[Counted], None]
    ) -> None:
        """Listen from now on.

        Args:
            loop: the node's.
            feed: whose thread calls `tell`.
            tell: told of each outcome, in order for each worker.
            count: told what was counted of a mapping.
        """
        self._loop = loop
        self._feed = feed
        self._tell = tell
        self._count = count
        self._socket, self.out = live_pair()
        loop.add(self._socket.fileno(), self._hear, priority=3)

    def close(self) -> None:
        """Pass on what is left, then close both ends. The workers have ended."""
        while self._hear(0):
            pass
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        self.out.close()

    def _hear(self, mask: int) -> bool:
        """One round's worth; returns whether there was more."""
        del mask
        tell = self._tell
        for _ in range(_PER_ROUND):
            try:
                data = self._socket.recv(_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            outcome = _decode(data)
            if isinstance(outcome, Counted):
                self._count(outcome)
                continue
            self._feed.publish(lambda outcome=outcome: tell(outcome))  # type: ignore[misc]  # bound now
        return True
