"""Threads for one destination: as many as there is work for, none when there is none.

A slow destination keeps its own crew busy, and nobody else's.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS: Final = 32
"""Requests under way at once, of one destination. chosen: SDKs keep 10 to 50 connections."""
WAITING: Final = 512
"""Requests that wait for one of these: above it, the next is refused. chosen."""
IDLE_S: Final = 10.0
"""A thread with nothing to do ends after so long. chosen."""


class Crew(Generic[T]):
    """Does work in its order. `submit` and `close` belong to one thread; what work raises is logged.

    Args:
        name: of its threads.
        make: makes what a thread keeps from one piece of work to the next, and hands to each.
        drop: lets go of that.
    """

    def __init__(self, name: str, make: Callable[[], T], drop: Callable[[T], object], idle_s: float = IDLE_S) -> None:
        self._name = name
        self._make = make
        self._drop = drop
        self._idle_s = idle_s
        self._waiting: deque[Callable[[T], object]] = deque()
        self._news = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_closed = False

    @property
    def threads(self) -> int:
        """How many there are."""
        return self._threads

    def submit(self, work: Callable[[T], object]) -> bool:
        """Do it as soon as a thread is free; False: too many wait already."""
        with self._news:
            if self._is_closed or len(self._waiting) >= WAITING:
                return False
            self._waiting.append(work)
            if self._idle >= len(self._waiting):
                self._news.notify()
            elif self._threads < THREADS:
                self._threads += 1
                # daemons: what they wait for must not hold up the end of the process
                threading.Thread(target=self._work, name=f"kflow-{self._name}", daemon=True).start()
        return True

    def close(self) -> None:
        """Begin nothing more."""
        with self._news:
            self._is_closed = True
            self._waiting.clear()
            self._news.notify_all()

    def _work(self) -> None:
        kept = self._make()
        while (work := self._next()) is not None:
            try:
                work(kept)
            except Exception:
                log.exception("work failed crew=%s", self._name)
        self._drop(kept)

    def _next(self) -> Callable[[T], object] | None:
        with self._news:
            self._idle += 1
            is_due = self._news.wait_for(lambda: self._waiting or self._is_closed, self._idle_s)
            self._idle -= 1
            if is_due and self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None
