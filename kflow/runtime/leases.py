"""Who may run what: leases, places, and the plan that brings them together. Pure: told what happened, says what to do.

A lease is (function, stream, shard); one worker holds it at a time.

                 append, or nothing to wait for
        +------> READY ----------------------------> GRANTED --+
        |          ^      a worker is idle, or          |      |
        |   due    |      may be started                |      | the worker's death, reported by its parent
        |          |                                    |      |
      NEWS       DUE <----------------------------------+      |
        ^          ^       returned: due later          |      |
        |          |                                    |      |
        +----------+------ returned: all read ----------+      |
                   |                                           |
                   +-------------------------------------------+  READY again, with the death note

A place is a worker process; `max_workers` bounds them, and a worker serves one function. When places are short, an idle
worker of another function ends, else the one that has run longest past its slice is asked to return its lease. Waiting
leases are served longest waiting first, over all functions.

Documented difference: AWS runs all shards of all functions at once.
"""

from __future__ import annotations

import enum
import heapq
from collections import deque
from dataclasses import dataclass, field

from kflow.interfaces import FunctionError
from kflow.runtime.messages import DeathNote, Returned

SLICE_S = 1.0
"""A busy worker gives its place up after this long (or ten times its start time) when something else waits."""
IDLE_S = 60.0
"""An idle worker ends after this long."""
BACKOFF_S = (0.1, 10.0)
"""Starts of one function wait this long after a death: the first value, doubled up to the second."""


class LeaseState(enum.Enum):
    """Where a lease is; drawn in the module's docstring."""

    NEWS = "news"
    DUE = "due"
    READY = "ready"
    GRANTED = "granted"


@dataclass(slots=True)
class Lease:
    """The right to run one function on one shard.

    Attributes:
        generation: counts grants; messages of another generation are void.
        read_offset: how far the last holder had read.
        want_counter: in a batching window, the next counter at which its batch is full.
        settled_at: when the last batch was settled, else when the lease was made.
        reason: why the last holder returned it; empty while it is held.
        window_due: it is granted because its batching window is over.
        ready_since: since when it waits for a worker.
        alone: it is to run while nothing else does.
        last_error: what its batch failed with last, for the next holder.
        trouble: what the storage refused it, so that it is told once.
    """

    id: int
    function: str
    stream_id: int
    shard: int
    trigger: int
    settled_at: float
    state: LeaseState = LeaseState.READY
    generation: int = 0
    worker: int | None = None
    last_worker: int | None = None
    read_offset: int = 0
    want_counter: int = 0
    due: float | None = None
    reason: str = ""
    window_due: bool = False
    ready_since: float = 0.0
    alone: bool = False
    death: DeathNote | None = None
    last_error: FunctionError | None = None
    trouble: str = ""


class PlaceState(enum.Enum):
    """What a worker process is up to."""

    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"


@dataclass(slots=True)
class Place:
    """A worker process, as the plan sees it.

    Attributes:
        since: when the state last changed.
        start_s: how long its start took; 0 while unknown.
        retiring: it has been asked to return its lease.
    """

    id: int
    function: str
    since: float
    state: PlaceState = PlaceState.IDLE
    lease: Lease | None = None
    redrive: int | None = None
    start_s: float = 0.0
    retiring: bool = False


@dataclass(slots=True)
class Pool:
    """What is kept per function: parked entries to send again, and the back-off of its starts."""

    redrives: deque[tuple[int, int]] = field(default_factory=deque)
    deaths: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker for a function; it is an idle place at once, and grants may be sent to it before it lives."""

    worker: int
    function: str


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Send a grant."""

    worker: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class SendRedrive:
    """Have a worker send a parked entry to its function again."""

    worker: int
    number: int
    trigger: int


@dataclass(frozen=True, slots=True)
class RetireLease:
    """Ask a busy worker to return its lease at the end of the attempt."""

    worker: int
    generation: int


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Ask an idle worker to end."""

    worker: int


Action = StartWorker | GrantLease | SendRedrive | RetireLease | StopWorker


class LeaseTable:
    """All leases and places of a node. Not thread-safe: it belongs to the node's loop."""

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers
        self.leases: dict[int, Lease] = {}
        self.places: dict[int, Place] = {}
        self.pools: dict[str, Pool] = {}
        self.stopping = False
        self._by_shard: dict[tuple[int, int], list[Lease]] = {}
        self._ready: list[Lease] = []
        self._due: list[tuple[float, int, int]] = []
        self._next_worker = 0
        self._exclusive: Lease | None = None
        self._redriving: set[str] = set()

    # ------------------------------------------------------------------ what happened

    def add(self, lease: Lease) -> None:
        """Take a lease in: ready at once, or waiting for news where nothing is left to read."""
        self.leases[lease.id] = lease
        self.pools.setdefault(lease.function, Pool())
        self._by_shard.setdefault((lease.stream_id, lease.shard), []).append(lease)
        if lease.state is LeaseState.READY:
            self._make_ready(lease, lease.settled_at)

    def remove_stream(self, stream_id: int) -> list[Action]:
        """Forget the leases of a deleted stream; workers that hold one are told to return it."""
        actions: list[Action] = []
        for lease in [lease for lease in self.leases.values() if lease.stream_id == stream_id]:
            del self.leases[lease.id]
            self._by_shard.pop((lease.stream_id, lease.shard), None)
            if lease in self._ready:
                self._ready.remove(lease)
            if lease.worker is not None:
                actions.append(RetireLease(lease.worker, lease.generation))
        return actions

    def news(self, stream_id: int, shard: int, readable_end: int, next_counter: int, now: float) -> bool:
        """A shard has something new. Returns whether a lease became ready (call `plan`)."""
        woken = False
        for lease in self._by_shard.get((stream_id, shard), ()):
            if self._wakes(lease, readable_end, next_counter):
                self._make_ready(lease, now)
                woken = True
        return woken

    def redrive(self, function: str, number: int, trigger: int) -> None:
        """Queue a parked entry to be sent to its function again."""
        self.pools.setdefault(function, Pool()).redrives.append((number, trigger))
        self._redriving.add(function)

    def returned(self, worker: int, message: Returned, readable_end: int, next_counter: int, now: float) -> bool:
        """A worker gave a lease back. Returns False where the message is of a generation given back before."""
        place = self.places[worker]
        lease = place.lease
        if lease is None or lease.id != message.lease or lease.generation != message.generation:
            return False
        self._release(place, now)
        if message.settled:
            lease.settled_at = now
            self.pools[place.function].deaths = 0
        if lease.id not in self.leases:
            return True
        lease.read_offset = message.read_offset
        lease.want_counter = message.want_counter
        lease.reason = message.reason
        lease.last_error = message.last_error
        lease.alone = message.reason == "suspect"
        if message.reason == "retired":
            self._make_ready(lease, now)
        elif message.due_ms is not None:
            lease.state = LeaseState.DUE
            lease.due = now + message.due_ms / 1000
            heapq.heappush(self._due, (lease.due, lease.id, lease.generation))
            if self._wakes(lease, readable_end, next_counter):
                self._make_ready(lease, now)
        else:
            lease.state = LeaseState.NEWS
            if readable_end > lease.read_offset:
                self._make_ready(lease, now)
        return True

    def redriven(self, worker: int, now: float) -> None:
        """A worker has finished a redrive."""
        self._release(self.places[worker], now)

    def ended(self, worker: int, death: DeathNote | None, now: float, *, died: bool) -> Lease | None:
        """A worker's end has been reported by its parent (or it is certain that it is gone).

        Args:
            worker: which.
            death: how it died, where that counts as an attempt of the lease it held.
            now: monotonic seconds.
            died: whether it ended other than as it was asked to.

        Returns:
            The lease it held.
        """
        place = self.places.pop(worker)
        lease = place.lease
        pool = self.pools[place.function]
        if died:
            pool.not_before = now + min(BACKOFF_S[0] * 2**pool.deaths, BACKOFF_S[1])
            pool.deaths += 1
        if lease is not None:
            self._release(place, now)
            lease.death = death
            if lease.id in self.leases:
                self._make_ready(lease, now)
        return lease

    def hurry(self, lease: Lease, now: float) -> None:
        """Do not wait for its due time any longer."""
        if lease.state is LeaseState.DUE:
            self._make_ready(lease, now)

    @property
    def is_short(self) -> bool:
        """Whether leases wait for a place: the slices of busy workers count then."""
        return bool(self._ready)

    # ------------------------------------------------------------------ what to do

    def tick(self, now: float) -> None:
        """Make the leases ready whose time has come."""
        while self._due and self._due[0][0] <= now:
            _, lease_id, generation = heapq.heappop(self._due)
            lease = self.leases.get(lease_id)
            if lease is not None and lease.state is LeaseState.DUE and lease.generation == generation:
                self._make_ready(lease, now)

    def plan(self, now: float) -> list[Action]:
        """What to do now. The caller carries it out; the table already counts it as done."""
        actions: list[Action] = []
        if self.stopping:
            return self._stop_all(now)
        if self._ready:
            if self._exclusive is not None or any(lease.alone for lease in self._ready):
                self._plan_alone(actions, now)
            else:
                self._plan_ready(actions, now)
        for function in list(self._redriving):
            self._plan_redrives(function, actions, now)
        for place in self.places.values():
            if place.state is PlaceState.IDLE and now - place.since >= IDLE_S:
                self._stop(place, actions, now)
        return actions

    def next_due(self, now: float) -> float | None:
        """When `tick` and `plan` have to be called next if nothing happens before."""
        times = [self._due[0][0]] if self._due else []
        times += [p.since + IDLE_S for p in self.places.values() if p.state is PlaceState.IDLE]
        if self._ready and not self.stopping:
            times += [self._slice_end(p) for p in self.places.values() if p.state is PlaceState.BUSY and not p.retiring]
            times += [pool.not_before for pool in self.pools.values() if pool.not_before > now]
        return min(times, default=None)

    # ------------------------------------------------------------------ the plan's parts

    def _plan_ready(self, actions: list[Action], now: float) -> None:
        hungry: list[Lease] = []
        waiting: list[Lease] = []
        for lease in self._ready:
            place = self._idle(lease.function, lease.last_worker) or self._start(lease.function, actions, now)
            if place is None:
                waiting.append(lease)
                if self.pools[lease.function].not_before <= now:
                    hungry.append(lease)
            else:
                self._grant(lease, place, actions, now)
        self._ready = waiting
        if hungry:
            self._make_room(hungry, actions, now)

    def _plan_redrives(self, function: str, actions: list[Action], now: float) -> None:
        waiting = self.pools[function].redrives
        while waiting and (place := self._idle(function) or self._start(function, actions, now)):
            number, trigger = waiting.popleft()
            self._occupy(place, now)
            place.redrive = number
            actions.append(SendRedrive(place.id, number, trigger))
        if not waiting:
            self._redriving.discard(function)

    def _make_room(self, hungry: list[Lease], actions: list[Action], now: float) -> None:
        """Free places for leases that found none: end idle workers of other functions, then retire long runners."""
        wanted = len(hungry)
        wanted -= sum(1 for place in self.places.values() if place.retiring or place.state is PlaceState.STOPPING)
        functions = {lease.function for lease in hungry}
        for place in list(self.places.values()):
            if wanted <= 0:
                return
            if place.state is PlaceState.IDLE and place.function not in functions:
                self._stop(place, actions, now)
                wanted -= 1
        long_runners = [
            place
            for place in self.places.values()
            if place.lease is not None and not place.retiring and self._slice_end(place) <= now
        ]
        for place in sorted(long_runners, key=lambda place: place.since)[:wanted]:
            place.retiring = True
            if place.lease is not None:
                actions.append(RetireLease(place.id, place.lease.generation))

    def _plan_alone(self, actions: list[Action], now: float) -> None:
        """A batch that was there at three unclean ends runs by itself, so that only it can be blamed for the next."""
        if self._exclusive is not None:
            return
        busy = [place for place in self.places.values() if place.state is PlaceState.BUSY]
        if busy:
            for place in busy:
                if place.lease is not None and not place.retiring:
                    place.retiring = True
                    actions.append(RetireLease(place.id, place.lease.generation))
            return
        lease = next(lease for lease in self._ready if lease.alone)
        place_or_none = self._idle(lease.function, lease.last_worker) or self._start(lease.function, actions, now)
        if place_or_none is None:
            for place in list(self.places.values())[:1]:
                self._stop(place, actions, now)
            return
        self._ready.remove(lease)
        self._exclusive = lease
        self._grant(lease, place_or_none, actions, now)

    def _stop_all(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for place in list(self.places.values()):
            if place.state is PlaceState.IDLE:
                self._stop(place, actions, now)
            elif place.lease is not None and not place.retiring:
                place.retiring = True
                actions.append(RetireLease(place.id, place.lease.generation))
        return actions

    def _grant(self, lease: Lease, place: Place, actions: list[Action], now: float) -> None:
        lease.state = LeaseState.GRANTED
        lease.window_due, lease.reason = lease.reason == "window", ""
        lease.generation += 1
        lease.worker = lease.last_worker = place.id
        self._occupy(place, now)
        place.lease = lease
        actions.append(GrantLease(place.id, lease))

    def _start(self, function: str, actions: list[Action], now: float) -> Place | None:
        if len(self.places) >= self.max_workers or self.pools[function].not_before > now:
            return None
        self._next_worker += 1
        place = Place(self._next_worker, function, now)
        self.places[place.id] = place
        actions.append(StartWorker(place.id, function))
        return place

    def _stop(self, place: Place, actions: list[Action], now: float) -> None:
        if place.state is PlaceState.IDLE:
            place.state = PlaceState.STOPPING
            place.since = now
            actions.append(StopWorker(place.id))

    def _idle(self, function: str, preferred: int | None = None) -> Place | None:
        if preferred is not None:
            place = self.places.get(preferred)
            if place is not None and place.state is PlaceState.IDLE:
                return place
        for place in self.places.values():
            if place.state is PlaceState.IDLE and place.function == function:
                return place
        return None

    def _occupy(self, place: Place, now: float) -> None:
        place.state = PlaceState.BUSY
        place.since = now
        place.retiring = False

    def _release(self, place: Place, now: float) -> None:
        lease, place.lease, place.redrive = place.lease, None, None
        place.state = PlaceState.IDLE
        place.since = now
        place.retiring = False
        if lease is not None:
            lease.worker = None
            if lease is self._exclusive:
                self._exclusive = None

    def _make_ready(self, lease: Lease, now: float) -> None:
        lease.state = LeaseState.READY
        lease.due = None
        lease.ready_since = now
        self._ready.append(lease)

    def _wakes(self, lease: Lease, readable_end: int, next_counter: int) -> bool:
        if lease.state is LeaseState.NEWS:
            return readable_end > lease.read_offset
        return lease.state is LeaseState.DUE and 0 < lease.want_counter <= next_counter

    @staticmethod
    def _slice_end(place: Place) -> float:
        return place.since + max(SLICE_S, 10 * place.start_s)
