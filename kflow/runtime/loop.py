"""The node's event loop: readiness, timers, calls from other threads; one round serves workers before producers.

A plain selector loop, not asyncio: the order within a round is part of the protocol (workers first, then producers, so
that a burst of puts never delays a lease), and a round costs one system call when something is ready. Its selector is
itself a pollable descriptor, so another loop can host it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Callable

from kflow.runtime.poller import READ, WRITE, make_poller

CATCH_UP_ROUNDS = 64
"""Before timers fire, what is most urgent is served at most this often: a socket holds less than as many pieces."""
LOOK_S = 50e-6
"""How long a loop whose last wait was short looks for more before it sleeps."""
FAR = 2
"""Of this priority and higher is what the loop does not look for: `tests/bench` "http-put", a third of its CPU."""

__all__ = ["READ", "WRITE", "Callback", "Loop", "Timer"]

Callback = Callable[[int], object]


class Timer:
    """A call that is due later; `cancel` it, or let it fire once."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Make sure that it never fires. Cancelling twice, or after it fired, does nothing."""
        self.call = None


class Loop:
    """Single-threaded; every method but `call_soon_threadsafe` belongs to the thread that runs it."""

    def __init__(self) -> None:
        self._poller = make_poller()
        self._watched: dict[int, tuple[int, int, Callback]] = {}  # by descriptor: priority, mask, callback
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: deque[Callable[[], object]] = deque()
        self._stopped = False
        self._brisk = False
        self._is_awake = False  # it will look at `_soon` before it sleeps: nobody has to wake it
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add(self._wake_read, self._woken, priority=0)

    def add(self, fd: int, callback: Callback, *, priority: int = 1, mask: int = READ) -> None:
        """Call `callback(mask)` whenever `fd` is ready; lower priorities are served first within a round."""
        self._poller.add(fd, mask)
        self._watched[fd] = (priority, mask, callback)

    def modify(self, fd: int, mask: int) -> None:
        """Change what `fd` is watched for."""
        priority, before, callback = self._watched[fd]
        if before != mask:
            self._poller.modify(fd, mask)
            self._watched[fd] = (priority, mask, callback)

    def remove(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed."""
        self._poller.remove(fd)
        del self._watched[fd]

    def call_at(self, due: float, call: Callable[[], object]) -> Timer:
        """Call once when `time.monotonic()` has reached `due`."""
        timer = Timer(due, call)
        heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once, `seconds` from now."""
        return self.call_at(time.monotonic() + seconds, call)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call in this round, after what is ready has been served; from a timer or from such a call, in the next."""
        self._soon.append(call)

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        """From any thread: call at the start of the next round."""
        self._soon.append(call)
        if not self._is_awake:
            self._is_awake = True  # before the byte, by which it goes round and takes that back
            self.wake()

    def wake(self) -> None:
        """From any thread or signal handler: end the current wait."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # the pipe is full: a wake-up is under way already

    def run(self) -> None:
        """Serve until `stop`; not at all where that was called before."""
        while not self._stopped:
            self.round()

    def stop(self) -> None:
        """End `run` after this round."""
        self._stopped = True

    def round(self, limit_s: float | None = None) -> None:
        """Wait for readiness or the next timer (at most `limit_s`), then serve everything once, timers last.

        Messages are read before timers fire: after any wait the node must have heard what already happened before it
        concludes that something did not.
        """
        ready = self._wait(self._timeout(limit_s))
        self._is_awake = True
        self._serve(ready)
        for _ in range(len(self._soon)):  # no more: each may bring another, and who is ready meanwhile must be served
            self._soon.popleft()()
        if self._timers and self._timers[0][0] <= time.monotonic():
            self._catch_up()
            self._fire()
        self._is_awake = False
        if self._soon:  # called while it did not sleep yet
            self.wake()

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        watched = self._watched
        if len(ready) > 1:
            ready.sort(key=lambda event: watched[event[0]][0])
        for fd, mask in ready:
            found = watched.get(fd)  # an earlier callback of this round may have removed it
            if found is not None:
                found[2](mask)

    def _catch_up(self) -> None:
        """Serve what is most urgent until nothing of it is left.

        A callback reads a piece at a time; and a wait that this process was stopped in (SIGSTOP, a debugger) ends with
        its time over and says that nothing is ready, whatever came meanwhile.
        """
        for _ in range(CATCH_UP_ROUNDS):
            urgent = [event for event in self._poller.poll(0) if self._watched[event[0]][0] == 0]
            if not urgent:
                break
            self._serve(urgent)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready. Where the last wait was short, look for a moment before going to sleep.

        An answer is often followed by the next request within microseconds, and waking a sleeping process costs more
        than the look (`tests/bench` "put-single"); where waits are longer, looking would only cost.
        """
        poll = self._poller.poll
        begin = time.perf_counter()
        if self._brisk:
            end = begin + LOOK_S
            while time.perf_counter() < end:
                if ready := poll(0):
                    return ready
        ready = poll(timeout)
        self._brisk = bool(ready) and time.perf_counter() - begin < 2 * LOOK_S and self._is_near(ready)
        return ready

    def _is_near(self, ready: list[tuple[int, int]]) -> bool:
        """Whether something of this machine's own is ready: for HTTP, whose clients take their time, no look pays."""
        watched = self._watched
        return any(watched[fd][0] < FAR for fd, _ in ready)

    def close(self) -> None:
        """Release the poller and the wake-up pipe."""
        self._poller.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _timeout(self, limit_s: float | None) -> float | None:
        if self._soon:
            return 0.0
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return limit_s
        due = max(0.0, self._timers[0][0] - time.monotonic())
        return due if limit_s is None else min(due, limit_s)

    def _fire(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()

    def _woken(self, mask: int) -> None:
        """Each wake-up is a byte, and hardly ever are there more than these at once; what is left wakes it again."""
        del mask
        os.read(self._wake_read, 4096)
