"""How much a node keeps of what producers sent and it has not answered yet, over all connections.

A connection that is too far ahead of its own answers is not read (`connection`). That alone would let a thousand
connections keep a thousand times as much; so there is one bound for all of them. Above it, a connection with anything
unanswered waits for room before its next frame, in order; one that has nothing unanswered goes on, a frame at a time.
So a shard on a slow disk whose producers fill the backlog holds up the pipelines of others, and never their single
puts. A frame that is still being received counts for nothing: its producer may have been stopped in the middle of it,
and must not hold up the others for that.

A node keeps at most `BACKLOG_BYTES`, and of each connection one frame more.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

BACKLOG_BYTES: Final = 64 << 20
"""Frames that were received as a whole and are not answered."""


class Waiter(Protocol):
    """A connection, as the backlog sees it."""

    def go_on(self) -> None:
        """There is room for a frame. Called from within another connection's work: begin later, on the loop."""
        ...


class Backlog:
    """The bytes, and who waits for room. Belongs to the loop.

    Attributes:
        bytes: how many there are.
    """

    __slots__ = ("_waiting", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._waiting: deque[Waiter] = deque()

    def has_room(self) -> bool:
        """Whether more may be kept, and nobody waits before."""
        return self.bytes <= BACKLOG_BYTES and not self._waiting

    def wait(self, waiter: Waiter) -> None:
        """Call `waiter.go_on` once there is room."""
        self._waiting.append(waiter)

    def add(self, size: int) -> None:
        """So many bytes more are kept."""
        self.bytes += size

    def remove(self, size: int) -> None:
        """So many bytes are kept no more."""
        self.bytes -= size
        while self._waiting and self.bytes <= BACKLOG_BYTES:
            self._waiting.popleft().go_on()
