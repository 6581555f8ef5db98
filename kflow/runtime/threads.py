"""Threads for work that waits for a disk.

The standard library's pool makes a future for each piece, which costs half as much as a message's transaction, and
which nobody here would read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

Work: TypeAlias = Callable[[], object]
"""Raises nothing."""


class Threads:
    """So many at most; each is started when all before it are at work, and waits for more until the end.

    Args:
        most: how many there may be.
        name: what debuggers call them, with a number.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0  # pieces that wait or are under way; under the lock
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, work: Work) -> None:
        """Have some work done, after what was submitted before has begun. From any thread.

        Raises:
            RuntimeError: it is closed; or the system allows not even one thread.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the threads {self._name} are closed")
            if self._open >= len(self._threads) < self._most:
                self._start()
            self._open += 1
            self._queue.put(work)

    def close(self) -> None:
        """Wait until all that was submitted is done. Closing twice does nothing."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
        if is_first:
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        # A daemon: where a node breaks before it closes them, its process must end.
        thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there may be no more of them, of this user or in this container
            if not self._threads:
                raise
            return  # those that there are do the work
        self._threads.append(thread)

    def _run(self) -> None:
        take, lock = self._queue.get, self._lock
        while (work := take()) is not None:
            work()
            with lock:
                self._open -= 1
            del work  # while it waits, what was done is not held
