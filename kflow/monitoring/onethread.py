"""Work in a thread, one piece at a time: what is not made for several threads, and must not keep all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from kflow.errors import KflowError
from kflow.interfaces import Loop

T = TypeVar("T")


class OneThread:
    """Belongs to the loop's thread."""

    def __init__(self, host: Loop) -> None:
        self._host = host
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], object]]] = deque()
        self._is_busy = False

    def do(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do it when all before it is done."""
        self._waiting.append((work, then))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._is_busy = False
            return
        self._is_busy = True
        work, then = self._waiting.popleft()

        def done(result: Any) -> None:
            self._next()  # first: what is told may raise
            then(result)

        self._host.submit(work, done)
