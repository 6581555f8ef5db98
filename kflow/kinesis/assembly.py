"""How many long answers are put together at a time: each holds up to 10 MiB of records, and as much again as text.

ask ── a place is free ──> begin ──> ... ──> leave
 └── none is ──> waits, and holds nothing ──> begin, in a later round of the loop
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from kflow.interfaces import Cancellable

PLACES: Final = 4
"""Chosen: about 100 MiB at most. More would not be quicker, for the loop does one thing at a time."""

Begin = Callable[[], object]


class Assembly:
    """Places for answers under way, in the order in which they were asked for. Belongs to the loop.

    Args:
        call_later: of the loop.
        places: how many there are.
    """

    def __init__(
        self, call_later: Callable[[float, Callable[[], object]], Cancellable], *, places: int = PLACES
    ) -> None:
        self._call_later = call_later
        self._free = places
        self._waiting: deque[Begin] = deque()
        self._is_due = False

    def ask(self, begin: Begin) -> bool:
        """Take a place, and return True; where there is none: `begin` is called once it is taken."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        self._waiting.append(begin)
        return False

    def leave(self) -> None:
        """A place that was taken is free again."""
        self._free += 1
        if self._waiting and not self._is_due:
            self._is_due = True
            self._call_later(0, self._next)

    def _next(self) -> None:
        self._is_due = False
        if not self._free or not self._waiting:
            return
        self._free -= 1
        begin = self._waiting.popleft()
        if self._free and self._waiting:
            self._is_due = True
            self._call_later(0, self._next)
        begin()
