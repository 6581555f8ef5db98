"""A value in memory with a copy on the disk: changed at once, written by a thread, one write at a time.

            set                   a thread writes
    value --------> value, new -----------------> durable: those who asked are answered
                         |  it cannot be written
                         +--> the value that is on the disk; all who asked since are refused

What was set while a write is under way is written together, by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from kflow.errors import KflowError
from kflow.interfaces import Done

T = TypeVar("T")
R = TypeVar("R")


class Threads(Protocol):
    """Does file work. `kflow.kinesis.host.Host` is one."""

    def submit(self, work: Callable[[], R], then: Callable[[R | KflowError], object]) -> None:
        """Do `work` in a thread; `then` is called on the loop with what it returned, or with the error it raised."""
        ...


class Kept(Generic[T]):
    """Belongs to the loop's thread.

    Args:
        value: as it is on the disk.
        write: replaces it there in one step; runs in a thread; raises what refuses it.
        threads: where.
        changed: told of each new value, also of one that comes back.
    """

    def __init__(self, value: T, write: Callable[[T], None], threads: Threads, changed: Callable[[T], object]) -> None:
        self.value = value
        self._stored = value
        self._write = write
        self._threads = threads
        self._changed = changed
        self._waiting: list[Done] = []
        self._is_busy = False

    def set(self, value: T, done: Done) -> None:
        """Have another value from now on; `done` is told when it is kept."""
        self.value = value
        self._waiting.append(done)
        self._changed(value)
        if not self._is_busy:
            self._begin()

    def _begin(self) -> None:
        self._is_busy = True
        told, self._waiting = self._waiting, []
        value = self.value

        def then(failure: KflowError | None) -> None:
            self._over(value, told, failure)

        self._threads.submit(lambda: self._write(value), then)

    def _over(self, value: T, told: list[Done], failure: KflowError | None) -> None:
        if failure is None:
            self._stored = value
        else:  # what was set since stands on what is not kept
            told, self._waiting = told + self._waiting, []
            self.value = self._stored
            self._changed(self.value)
        self._is_busy = False
        if self._waiting:
            self._begin()
        for done in told:
            done(failure)
