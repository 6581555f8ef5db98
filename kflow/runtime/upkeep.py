"""What the log needs now and then: syncs a moment after appends, and a look at retention. On threads of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kflow.broker.log import Log
from kflow.broker.sync import SyncTask
from kflow.clock import SystemClock
from kflow.errors import KflowError, StorageError
from kflow.runtime.errands import attempt
from kflow.runtime.loop import Loop, Timer
from kflow.runtime.threads import Threads

T = TypeVar("T")

SYNC_S = 0.1
"""With `interval`: what was appended is synced at most this much later."""
RETAIN_S = 600.0
"""Looks at retention; the two that let a record expire are an hour apart."""
THREADS = 8
SYNC_THREADS = 6
"""So many of them sync, however many shards are due: reads must not wait behind a thousand syncs."""


class Upkeep:
    """Hosted by the node's loop, which never waits for a disk."""

    def __init__(self, store: Log, loop: Loop, failed: Callable[[str], None]) -> None:
        self._log = store
        self._loop = loop
        self._failed = failed
        self._clock = SystemClock()
        self._sync_timer: Timer | None = None
        self._threads = Threads(THREADS, "kflow-disk")
        self._due: deque[SyncTask] = deque()
        self._syncing = 0  # threads that work on `_due`; under the lock
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look at retention from now on."""
        self._loop.call_later(RETAIN_S, self._retain)

    def appended(self) -> None:
        """Something was appended: sync it soon, with `interval`. With `always` it is durable already (`commits`)."""
        if self._sync_timer is None and self._log.folder.fsync == "interval":
            self._sync_timer = self._loop.call_later(SYNC_S, self._sync)

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do `work` in a thread; `then` is called on the loop with what it returned, or with the error it raised.

        An exception that is none of ours becomes an `InternalError`: whoever waits would wait for ever.
        """

        def run() -> None:
            self._loop.call_soon_threadsafe(partial(then, attempt(work)))

        try:
            self._threads.submit(run)
        except RuntimeError as error:
            self._loop.call_soon_threadsafe(
                partial(then, StorageError(f"cannot read or write the data folder: {error}"))
            )

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.close()

    def _sync(self) -> None:
        self._sync_timer = None
        tasks = self._log.sync_due()
        with self._lock:
            self._due += tasks
            more = min(len(self._due), SYNC_THREADS) - self._syncing
            for _ in range(more):
                self._syncing += 1
                self._threads.submit(self._sync_some)

    def _sync_some(self) -> None:
        """In a thread: until nothing is due."""
        while True:
            with self._lock:
                if not self._due:
                    self._syncing -= 1
                    return
                task = self._due.popleft()
            self._run(task)

    def _retain(self) -> None:
        self._loop.call_later(RETAIN_S, self._retain)
        now = self._clock.now()
        self._threads.submit(lambda: self._run(lambda: self._log.retain(now)))

    def _run(self, work: Callable[[], object]) -> None:
        failure = attempt(work)
        if isinstance(failure, KflowError):
            self._failed(str(failure))
