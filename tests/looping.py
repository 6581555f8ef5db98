"""The node's loop and threads for tests: on a manual clock, stepped by hand."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from kflow.clock import ManualClock
from kflow.errors import InternalError, KflowError
from kflow.runtime.errands import attempt


class Timer:
    """A call that is due later."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class SteppedLoop:
    """Work and timers wait until `run` or `advance`.

    Attributes:
        clock: what time it is.
        errands: what threads have still to do, and who is told then.
        submitted: pieces of work that were handed to threads, or done at once.
        done_at_once: of these the latter.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.errands: deque[tuple[Callable[[], Any], Callable[[Any], object]]] = deque()
        self.submitted = 0
        self.done_at_once = 0
        self._timers: list[tuple[int, int, Timer]] = []
        self._serial = itertools.count()

    def now_ms(self) -> int:
        return self.clock.epoch_ms

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock.monotonic_ms + round(seconds * 1000), next(self._serial), timer))
        return timer

    def submit(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        self.submitted += 1
        self.errands.append((work, then))

    def at_once(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        self.submitted += 1
        self.done_at_once += 1
        result = attempt(work)
        self.errands.append((lambda: result, then))

    def step(self) -> bool:
        """Do the next piece of work; whether there was one."""
        if not self.errands:
            return False
        work, then = self.errands.popleft()
        try:
            result: Any = work()
        except KflowError as error:
            result = error
        except Exception as error:  # noqa: BLE001  # as the node's threads do
            result = InternalError(f"{type(error).__name__}: {error}")
        then(result)
        return True

    def run(self) -> None:
        """Do all work that was handed to threads, and what follows from it; no timer."""
        while self.step():
            pass

    def advance(self, milliseconds: int) -> None:
        """Let time pass; timers fire when they are due."""
        end = self.clock.monotonic_ms + milliseconds
        self.run()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.clock.advance(max(0, due - self.clock.monotonic_ms))
            if timer.call is not None:
                timer.call()
            self.run()
        self.clock.advance(end - self.clock.monotonic_ms)

    def forget(self) -> None:
        """As after a kill: nothing is due any more."""
        self.errands.clear()
        self._timers.clear()

    @property
    def due(self) -> int:
        """How many timers are kept, those that were cancelled among them."""
        return len(self._timers)

    @property
    def timers(self) -> int:
        """How many timers run."""
        return sum(timer.call is not None for _, _, timer in self._timers)
