"""Group commit: with `fsync = "always"` an answer waits here until what it tells of is durable.

    append --> WAITING --enough others wait too, or 1 ms are over, and no sync of the shard runs--> SYNCING
                                                                                                      |
               the shard's leases are told, then all whose records the sync covered are answered <----+

A sync of a shard covers all that was appended before it began. While it runs, the next ones gather behind it; and where
many have been putting at the same time, the first to come back waits a moment for the others, so that they share one
sync and not each have their own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.broker.sync import THREADS, Committed
from kflow.errors import InternalError, KflowError, NotDurable, ResourceNotFound
from kflow.runtime.loop import Loop, Timer

log = logging.getLogger(__name__)

GATHER_S: Final = 0.001
"""The first of many waits at most this long for the others."""

Then = Callable[[KflowError | None], None]
OnDurable = Callable[[StreamMap, int, int, int], None]


class _Group:
    """Those that wait for one shard. Belongs to the loop.

    Attributes:
        waiting: (tail that must be durable, what to call then), tails ascending.
        together: how many waited at the same time, as of the last sync.
        sync: the one that runs.
        timer: ends the gathering, at which the next one begins.
        is_due: whether that is at the end of this round.
    """

    __slots__ = ("index", "is_due", "stream", "sync", "timer", "together", "waiting")

    def __init__(self, stream: StreamMap, index: int) -> None:
        self.stream = stream
        self.index = index
        self.waiting: deque[tuple[int, Then]] = deque()
        self.together = 1
        self.sync: Future[None] | None = None
        self.timer: Timer | None = None
        self.is_due = False


class Commits:
    """Makes appends durable, shard by shard, in threads; tells on the loop.

    Args:
        store: the log.
        loop: its thread calls everything here.
        on_durable: told of each sync before anybody is answered: stream, shard, durable tail, and the counter of the
            first record at or behind it.
        failed: told what a sync failed of, for people.
    """

    def __init__(self, store: Log, loop: Loop, on_durable: OnDurable, failed: Callable[[str], None]) -> None:
        self._log = store
        self._loop = loop
        self._on_durable = on_durable
        self._failed = failed
        self._groups: dict[tuple[int, int], _Group] = {}
        self._results: deque[tuple[_Group, Committed | KflowError]] = deque()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kflow-commit")
        self._closing = False

    def wait(self, stream: StreamMap, index: int, tail: int, then: Then) -> None:
        """Call `then` on the loop once a shard is durable up to `tail`; with the error, where it cannot become so."""
        key = (stream.id, index)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(stream, index)
        group.stream = stream
        waiting = group.waiting
        if waiting and waiting[-1][0] > tail:  # a block that was found again, behind others
            tail = waiting[-1][0]
        waiting.append((tail, then))
        self._go_on(group)

    def close(self) -> None:
        """Make durable what is waited for, and tell of it."""
        self._closing = True
        for group in self._groups.values():
            self._go_on(group)
        while syncs := [group.sync for group in self._groups.values() if group.sync is not None]:
            wait(syncs)
            self._deliver()
        self._threads.shutdown()

    def forget(self, stream_id: int) -> None:
        """Drop what is known of a stream that has changed or is gone; those who wait are still told."""
        for key in [key for key, group in self._groups.items() if key[0] == stream_id and not group.waiting]:
            if self._groups[key].sync is None:
                del self._groups[key]

    def _go_on(self, group: _Group) -> None:
        """Sync, if it is time; not before this round of the loop is over, which may bring others."""
        if group.sync is not None or not group.waiting:
            return
        if self._closing:
            self._begin(group)
        elif 2 * len(group.waiting) < group.together:
            if group.timer is None:
                group.timer = self._loop.call_later(GATHER_S, lambda: self._begin(group))
        elif not group.is_due:
            group.is_due = True
            if group.timer is not None:
                group.timer.cancel()
            group.timer = self._loop.call_later(0, lambda: self._begin(group))

    def _begin(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        group.is_due = False
        group.sync = self._threads.submit(self._run, group, group.stream)

    def _run(self, group: _Group, stream: StreamMap) -> None:
        """In a thread."""
        result: Committed | KflowError
        try:
            result = self._log.make_durable(stream, group.index)
        except KflowError as error:
            result = error
        except Exception as error:  # a broken promise must fail those who wait, not leave them waiting
            log.exception("sync failed stream=%s shard=%d", group.stream.name, group.index)
            result = InternalError(f"{type(error).__name__}: {error}; please report it")
        self._results.append((group, result))
        self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._results:
            group, result = self._results.popleft()
            group.sync = None
            waiting = group.waiting
            group.together = len(waiting)
            if isinstance(result, KflowError):
                self._fail(group, result)
            else:
                durable, counter = result
                self._on_durable(group.stream, group.index, durable, counter)
                while waiting and waiting[0][0] <= durable:
                    waiting.popleft()[1](None)
            self._go_on(group)

    def _fail(self, group: _Group, error: KflowError) -> None:
        """Whether what they appended survives a loss of power nobody knows."""
        if not isinstance(error, ResourceNotFound):
            self._failed(str(error))
            error = NotDurable(str(error))
        failed = list(group.waiting)
        group.waiting.clear()
        for _, then in failed:
            then(error)
