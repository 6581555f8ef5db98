"""What peers have not taken of their answers, counted over all connections, so that they cannot fill the memory.

A client that asks for 10 MiB and reads nothing costs 14 MiB until its time is up, and there may be thousands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class Holder(Protocol):
    """Something that keeps bytes for a peer: a socket, TLS, the streams of HTTP/2."""

    def abort(self) -> None:
        """Close the connection; its last note says 0."""
        ...


class Backlog:
    """Above the limit, the connection whose peer has taken nothing for the longest is closed, and so on.

    Args:
        limit: bytes.
        later: calls in the next round of the loop: whoever notes something is in the middle of it.
    """

    def __init__(self, limit: int, later: Callable[[Callable[[], object]], object]) -> None:
        self.total = 0
        self._limit = limit
        self._later = later
        self._is_due = False
        self._holders: dict[Holder, int] = {}  # whoever took something last is last

    def note(self, holder: Holder, count: int) -> None:
        """So many bytes wait in a holder by now; to be told after each change, but need not be while it is 0."""
        before = self._holders.get(holder, 0)
        self.total += count - before
        if count < before:
            del self._holders[holder]
        if count:
            self._holders[holder] = count
        if self.total > self._limit and not self._is_due:
            self._is_due = True
            self._later(self._shed)

    def _shed(self) -> None:
        self._is_due = False
        while self.total > self._limit:
            holder = next(iter(self._holders))
            log.warning("answers that nobody reads take too much memory, a connection is closed bytes=%d", self.total)
            holder.abort()
            self.note(holder, 0)
