"""The engine of a queue's event source mapping: pure, stepped, told the time.

    receive --messages--> gathered --full, or the window is over--> running --done--> delete what succeeded
       ^                                                              |  +--failed--> nothing: they come again when
       +---- while there are fewer batches than may run --------------+               their visibility timeout is over

One receive is under way at most, and none while as many batches run as may. A batch is full with `batch_size` messages
or 6 MB; a window begins with its first message. What may not run now (a throttle) is tried again until its messages
become visible to others, and nothing begins that is visible to others already; what nobody knows the end of (its
environment was ended, or no place was free in time) goes back at once, and counts as no receive. Nothing of a group of
a FIFO queue begins while something of it runs; what is gathered of a group that failed goes back.

Source: documented: Lambda Developer Guide, with-sqs, services-sqs-errorhandling; chosen: when a window begins, how long
throttles wait, and that batches that may run are not many before there is something to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from kflow.declarations import QueueOptions

EVENT_BYTES: Final = 6 * 1024 * 1024
"""The longest event. Source: documented: Lambda quotas, synchronous invocation."""
EVENT_HEAD: Final = b'{"Records":['
EVENT_TAIL: Final = b"]}"
RECEIVED: Final = (10, 100)
"""Messages of one receive: the first, as AWS's pollers have it; up to the second as far as an event would hold them."""
IDLE_S: Final = 3600.0
"""How long a receive waits where nothing is gathered; it costs nothing."""
BACKOFF_S: Final = (1.0, 10.0)
"""Between attempts to run what may not run now, and after troubles until a batch is done: the first, doubled up to the
second."""
LEAST_S: Final = 0.05
"""Of those, however they are scaled."""
SOON_S: Final = 1.0
"""What is received has so long to begin, also where it is not hidden at all."""
CEILING_S: Final = 10.0
"""So long after a throttle no more batches are begun than ran then."""


class Item(NamedTuple):
    """A message.

    Attributes:
        delivery: what the queue knows this delivery by.
        id: its `messageId`.
        record: the event's record, as JSON text.
        group: of a FIFO queue; empty elsewhere.
        receives: how often it was received, this time included.
        sample: the beginning of its body, for people.
        until: when others may have it, monotonic seconds; the engine knows.
    """

    delivery: Any
    id: str
    record: bytes
    group: str = ""
    receives: int = 1
    sample: bytes = b""
    until: float = math.inf


class Receive(NamedTuple):
    """Receive messages; answer by `received`, or `failed`."""

    limit: int
    wait_s: float


class CancelReceive(NamedTuple):
    """Nobody waits for the receive any more: it is not answered."""


class Invoke(NamedTuple):
    """Run a batch; answer by `done`, `throttled` or `unknown`.

    Attributes:
        until: from then on others may have some of it: it does not begin any more.
    """

    number: int
    items: Sequence[Item]
    until: float


class Delete(NamedTuple):
    """Messages are done: those of a batch, or (0) those that did not pass the filters."""

    number: int
    deliveries: Sequence[Any]


class GiveBack(NamedTuple):
    """Messages go back, as if they had not been received."""

    deliveries: Sequence[Any]


Action: TypeAlias = Receive | CancelReceive | Invoke | Delete | GiveBack


class _Batch:
    """One that runs, or waits to be run again."""

    __slots__ = ("attempts", "due", "groups", "is_running", "items", "until")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.until = min(item.until for item in items)
        self.groups = frozenset(item.group for item in items if item.group)
        self.attempts = 0
        self.due = 0.0
        self.is_running = True


class Polling:
    """One mapping's.

    Args:
        options: see there.
        most: batches that run at once, where the options do not say less: more would wait for a place, and be received
            for nothing where they wait too long.
        backoff_scale: of all pauses.
    """

    def __init__(self, options: QueueOptions, *, most: int, backoff_scale: float = 1.0) -> None:
        self._options = options
        self._most = min(options.maximum_concurrency or most, most)
        self._scale = backoff_scale
        self._gathered: list[Item] = []
        self._at_once = RECEIVED[0]
        self._is_hurried = False
        self._is_late = False
        self._window_end = 0.0
        self._until = math.inf  # of what is gathered, the earliest
        self._batches: dict[int, _Batch] = {}
        self._last = 0
        self._is_receiving = False
        self._pause_end = 0.0
        self._is_functionless = False
        self._troubles = 0
        self._ceiling_end = 0.0
        self._ceiling = 0
        self._waiting: list[Action] = []
        self.is_stopping = False

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, and nothing of it runs any more."""
        return self.is_stopping and not (self._batches or self._is_receiving or self._gathered or self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for messages, and has none."""
        return self._is_receiving and not (self._batches or self._gathered or self._waiting)

    @property
    def state(self) -> str:
        """For people: `stopping`, `gone`, `functionless`, `running`, `throttled`, `paused`, `window` or `idle`."""
        if self.is_stopping:
            return "stopping"
        if self._pause_end == math.inf:
            return "functionless" if self._is_functionless else "gone"
        if self._batches:
            return "running" if any(batch.is_running for batch in self._batches.values()) else "throttled"
        if self._gathered:
            return "window"
        return "idle" if self._is_receiving else "paused"

    @property
    def running(self) -> int:
        """Batches that run now."""
        return sum(batch.is_running for batch in self._batches.values())

    # ------------------------------------------------------------------ what it is told

    def received(self, items: Sequence[Item], filtered: Sequence[Any], now: float, visible_s: float) -> None:
        """What the receive brought.

        Args:
            items: messages that passed the filters.
            filtered: deliveries of those that did not.
            now: monotonic seconds.
            visible_s: how long they are hidden from others.
        """
        self._is_receiving = False
        if filtered:
            self._waiting.append(Delete(0, filtered))
        if items:
            if not self._gathered:
                self._window_end = now + self._options.maximum_batching_window_in_seconds
            until = now + max(visible_s, SOON_S)
            self._until = min(self._until, until)
            self._gathered += [item._replace(until=until) for item in items]
            least, most = RECEIVED
            fit = EVENT_BYTES * len(items) // sum(len(item.record) for item in items)
            self._at_once = max(least, min(fit, most))
        elif self._is_hurried:
            self._window_end = now

    def failed(self, now: float, *, is_gone: bool = False) -> None:
        """The receive failed.

        Args:
            now: monotonic seconds.
            is_gone: there is nothing to receive from, until `wake` says that there is.
        """
        self._is_receiving = False
        if is_gone:
            self._pause_end = math.inf
        else:
            self._pause(now)

    def functionless(self) -> None:
        """There is no function to receive for, until `wake` says that there is."""
        self._is_receiving = False
        self._is_functionless = True
        self._pause_end = math.inf

    def done(self, number: int, left: frozenset[int]) -> None:
        """A batch has run.

        Args:
            number: which.
            left: places of the messages that failed; all others are done.
        """
        batch = self._batches.pop(number)
        self._troubles = 0
        succeeded = [item.delivery for place, item in enumerate(batch.items) if place not in left]
        if succeeded:
            self._waiting.append(Delete(number, succeeded))
        self._let_go({batch.items[place].group for place in left})
        for each in self._batches.values():  # there is a place now
            each.due = 0.0

    def throttled(self, number: int, now: float) -> None:
        """A batch may not run now."""
        batch = self._batches[number]
        batch.is_running = False
        batch.due = now + self._backoff(batch.attempts)
        batch.attempts += 1
        self._ceiling = max(1, sum(each.is_running for each in self._batches.values()))
        self._ceiling_end = now + CEILING_S

    def unknown(self, number: int, now: float) -> None:
        """Nobody knows what a batch came to, or it cannot run at all: it counts as no receive."""
        batch = self._batches.pop(number)
        self._waiting.append(GiveBack([item.delivery for item in batch.items]))
        self._let_go(batch.groups)
        self._pause(now)

    def wake(self) -> None:
        """What it waits for may be there: the function, or the queue."""
        self._is_functionless = False
        self._troubles = 0
        self._pause_end = 0.0
        for batch in self._batches.values():
            batch.due = 0.0

    def hurry(self) -> None:
        """From now on batching windows end as soon as the queue has nothing more."""
        self._is_hurried = True
        self._is_late = self._is_receiving and bool(self._gathered)

    def stop(self) -> None:
        """Receive nothing more; what is gathered goes back."""
        self.is_stopping = True

    # ------------------------------------------------------------------ what it does

    def step(self, now: float) -> list[Action]:
        """What is to be done now; counted as done."""
        actions, self._waiting = self._waiting, []
        if self.is_stopping:
            if self._is_receiving:
                self._is_receiving = False
                actions.append(CancelReceive())
            back = [item.delivery for item in self._gathered]
            self._gathered.clear()
            for number, batch in list(self._batches.items()):
                if not batch.is_running:
                    back += [item.delivery for item in self._batches.pop(number).items]
            if back:
                actions.append(GiveBack(back))
            return actions
        if self._is_receiving and (self._pause_end > now or self._is_late):
            self._is_late = False
            self._is_receiving = False
            actions.insert(0, CancelReceive())
        self._try_again(actions, now)
        if self._until <= now:
            self._forget_late(now)
        while len(self._batches) < self._may_run(now) and self._is_full(now):
            items = self._cut()
            if not items:
                break
            self._last += 1
            batch = self._batches[self._last] = _Batch(items)
            actions.append(Invoke(self._last, items, batch.until))
        if self._may_receive(now):
            self._is_receiving = True
            limit = min(self._at_once, self._options.batch_size - len(self._gathered))
            actions.append(Receive(limit, self._patience(now)))
        if self._waiting:
            actions += self._waiting
            self._waiting = []
        return actions

    def next_due(self, now: float) -> float | None:
        """When to step next, where nothing happens before; None: whenever something happens."""
        if self.is_stopping:
            return None
        times = [batch.due for batch in self._batches.values() if not batch.is_running]
        if now < self._pause_end < math.inf:
            times.append(self._pause_end)
        if self._gathered and self._window_end > now:
            times.append(self._window_end)
        if self._ceiling_end > now and (self._gathered or not self._is_receiving):
            times.append(self._ceiling_end)
        return min(times, default=None)

    # ------------------------------------------------------------------ inside

    def _try_again(self, actions: list[Action], now: float) -> None:
        for number, batch in list(self._batches.items()):
            if batch.is_running or batch.due > now:
                continue
            if now >= batch.until:  # others may have them by now
                del self._batches[number]
                self._let_go(batch.groups)
                continue
            batch.is_running = True
            actions.append(Invoke(number, batch.items, batch.until))

    def _forget_late(self, now: float) -> None:
        """What is gathered and visible to others is theirs. What came of its group since begins with the oldest."""
        self._gathered = [item for item in self._gathered if item.until > now]
        self._until = min((item.until for item in self._gathered), default=math.inf)

    def _may_run(self, now: float) -> int:
        return min(self._most, self._ceiling) if self._ceiling_end > now else self._most

    def _may_receive(self, now: float) -> bool:
        return (
            not self._is_receiving
            and self._pause_end <= now
            and len(self._gathered) < self._options.batch_size
            and len(self._batches) < self._may_run(now)
            and all(batch.is_running for batch in self._batches.values())
        )

    def _patience(self, now: float) -> float:
        """How long a receive may wait."""
        if not self._gathered or self._window_end <= now:
            return IDLE_S
        return 0.0 if self._is_hurried else self._window_end - now

    def _is_full(self, now: float) -> bool:
        gathered = self._gathered
        return bool(gathered) and (
            now >= self._window_end
            or len(gathered) >= self._options.batch_size
            or sum(len(item.record) + 1 for item in gathered) > _ROOM
        )

    def _cut(self) -> list[Item]:
        """A batch off the front of what is gathered: as much as an event holds, of groups of which nothing runs."""
        running = {group for batch in self._batches.values() for group in batch.groups}
        room = _ROOM
        batch: list[Item] = []
        rest: list[Item] = []
        for item in self._gathered:
            room -= len(item.record) + 1
            if room < 0 or len(batch) >= self._options.batch_size:
                room = -1  # order: nothing behind it goes before it
                rest.append(item)
            elif item.group and item.group in running:
                room += len(item.record) + 1
                rest.append(item)
            else:
                batch.append(item)
        self._gathered = rest
        self._until = min((item.until for item in rest), default=math.inf)
        return batch

    def _let_go(self, groups: frozenset[str] | set[str]) -> None:
        """Nothing that is gathered of these groups may be done now: what comes before it is not."""
        back = [item.delivery for item in self._gathered if item.group and item.group in groups]
        if back:
            self._gathered = [item for item in self._gathered if not item.group or item.group not in groups]
            self._waiting.append(GiveBack(back))

    def _pause(self, now: float) -> None:
        self._pause_end = now + self._backoff(self._troubles)
        self._troubles += 1

    def _backoff(self, attempts: int) -> float:
        first, last = BACKOFF_S
        pause: float = min(first * 2.0 ** min(attempts, 16), last) * self._scale
        return max(LEAST_S, pause)


def event(items: Sequence[Item]) -> bytes:
    """The event of a batch, JSON text."""
    return EVENT_HEAD + b",".join([item.record for item in items]) + EVENT_TAIL


_ROOM: Final = EVENT_BYTES - len(EVENT_HEAD) - len(EVENT_TAIL) + 1
