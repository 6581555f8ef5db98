"""Who may run what: leases, places, and the plan that brings them together. Pure: told what happened, says what to do.

A lease is (function, stream, shard, lane); one worker holds it at a time, or several lanes of one shard.

      PARENTS -- all lanes of all parents are drained
         |
         v       append, or nothing to wait for
        NEWS ------> READY -------------------------> GRANTED --+
        ^ |          ^  ^     a worker is idle, or       |      |
        | |          |  |     may be started             |      | the worker's death, reported by its parent
        | |     due, |  |                                |      |
        | |  counter |  +--- returned: has a batch ------+      |
        | |         DUE <--- returned: due later --------+      |
        | |                                              |      |
        +-|----------------- returned: all read ---------+      |
          |          READY again, with the death note <---------+
          +-- its shard is closed ------> DRAINED

Lanes of a shard of which nothing is known are granted together, to one worker that looks at all of them; it returns at
once those without a batch, and as many of the others as there are places for. A lane that has a batch is granted by
itself. When a place becomes free, a worker that holds several lanes is asked to return some of those it does not run.

A place is a worker process; `max_workers` bounds them, and a worker serves one function. When places are short, an idle
worker of another function ends, else the one that has run longest past its slice is asked to return what it holds.
Waiting leases are served longest waiting first, over all functions.

A function runs at most as often at once as it is limited to, over all its keys. The leases of one that may not run at
all, or that there is not, stay READY; where their records are given up by age, they are granted to be looked at alone,
and come back to wait for that age ("throttled").

Documented difference: AWS runs all shards of all functions at once.
"""

from __future__ import annotations

import heapq

from kflow.runtime.messages import DeathNote, Returned
from kflow.runtime.plan.lease import KNOWN, Lease, LeaseState
from kflow.runtime.plan.lineage import Lineage
from kflow.runtime.plan.places import (
    BACKOFF_S,
    IDLE_S,
    SLICE_S,
    Action,
    GrantLease,
    Job,
    Place,
    PlaceState,
    Pool,
    RefuseJob,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
)
from kflow.runtime.plan.planning import Planner

__all__ = [
    "BACKOFF_S",
    "IDLE_S",
    "SLICE_S",
    "Action",
    "GrantLease",
    "Job",
    "Lease",
    "LeaseState",
    "LeaseTable",
    "Place",
    "PlaceState",
    "Pool",
    "RefuseJob",
    "RetireLease",
    "SendJob",
    "StartWorker",
    "StopWorker",
]

_STALE_DUES = 64
"""Due times that nobody waits for any more are thrown out when there are more than this, and more than half."""


class LeaseTable:
    """All leases and places of a node. Not thread-safe: it belongs to the node's loop.

    Attributes:
        ends: by (stream id, shard): its readable end and the counter of its next record, as far as was told.
    """

    def __init__(self, max_workers: int) -> None:
        self.max_workers = max_workers
        self.leases: dict[int, Lease] = {}
        self.ends: dict[tuple[int, int], tuple[int, int]] = {}
        self._planner = Planner(max_workers)
        self.places: dict[int, Place] = self._planner.places
        self._waiting = self._planner.waiting
        self.pools: dict[str, Pool] = self._waiting.pools
        self._lineage = Lineage()
        self._by_shard: dict[tuple[int, int], dict[int, Lease]] = {}
        self._asleep: dict[tuple[int, int], dict[int, Lease]] = {}
        self._too_far_ahead: dict[tuple[str, int, int], dict[int, Lease]] = {}
        self._due: list[tuple[float, int, int]] = []
        self._dues = 0

    @property
    def stopping(self) -> bool:
        """Whether nothing is granted any more, and all that is held is asked back."""
        return self._planner.stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._planner.stopping = value

    # ------------------------------------------------------------------ leases and shards come and go

    def add(self, lease: Lease, now: float | None = None) -> None:
        """Take a lease in, parents before their children.

        One that is READY waits for a worker, one in NEWS for the next append; either waits for its parents first.

        Args:
            lease: with the state that its content asks for.
            now: monotonic seconds; the lease's own beginning where it is not given.
        """
        self.leases[lease.id] = lease
        self._waiting.pool(lease.function)
        self._by_shard.setdefault(lease.place_in_log, {})[lease.id] = lease
        self._lineage.add(lease)
        if self._lineage.must_wait(lease):
            lease.state = LeaseState.PARENTS
        elif lease.state is LeaseState.READY:
            self._make_ready(lease, lease.settled_at if now is None else now)
        else:
            self._sleep(lease, lease.settled_at if now is None else now)

    def readers(self, function: str, stream_id: int) -> list[Lease]:
        """The leases of a function on a stream."""
        return [each for each in self.leases.values() if (each.function, each.stream_id) == (function, stream_id)]

    def has(self, function: str, stream_id: int, shard: int) -> bool:
        """Whether a function has leases on a shard."""
        return any(each.function == function for each in self._by_shard.get((stream_id, shard), {}).values())

    def remove_consumer(self, function: str, stream_id: int) -> tuple[list[Lease], list[Action]]:
        """Forget the leases of a function on a stream; workers that hold one are told to return it.

        Returns:
            Those that are held, and what to carry out.
        """
        actions: list[Action] = []
        held: list[Lease] = []
        for lease in self.readers(function, stream_id):
            self._wake(lease)
            del self.leases[lease.id]
            self._by_shard[lease.place_in_log].pop(lease.id, None)
            self._waiting.withdraw(lease)
            if lease.worker is not None:
                held.append(lease)
                actions.append(RetireLease(lease.worker, lease.id, lease.generation))
        self._lineage.remove_consumer(function, stream_id)
        return held, actions

    def remove_stream(self, stream_id: int) -> list[Action]:
        """Forget the leases of a deleted stream; workers that hold one are told to return it."""
        actions: list[Action] = []
        for lease in [lease for lease in self.leases.values() if lease.stream_id == stream_id]:
            self._wake(lease)
            del self.leases[lease.id]
            self._by_shard.pop(lease.place_in_log, None)
            self.ends.pop(lease.place_in_log, None)
            self._waiting.withdraw(lease)
            if lease.worker is not None:
                actions.append(RetireLease(lease.worker, lease.id, lease.generation))
        self._lineage.remove_stream(stream_id)
        return actions

    def close_shard(self, stream_id: int, shard: int, now: float) -> bool:
        """A shard takes no more records. What has settled all of it is drained; windows need not be waited for.

        `ends` names the shard's last end by now. Returns whether a lease waits for a worker (call `plan`).
        """
        self._lineage.close((stream_id, shard))
        for lease in list(self._by_shard.get((stream_id, shard), {}).values()):
            if lease.state is LeaseState.NEWS:
                self._wake(lease)
                self._sleep(lease, now)
            elif lease.state is LeaseState.DUE and lease.reason in ("window", "tumbling"):
                self._make_ready(lease, now)
        return self.is_short

    # ------------------------------------------------------------------ what happened

    def news(self, stream_id: int, shard: int, readable_end: int, next_counter: int, now: float) -> bool:
        """A shard has something new. Returns whether a lease became ready (call `plan`)."""
        key = (stream_id, shard)
        self.ends[key] = (readable_end, next_counter)
        asleep = self._asleep.get(key)
        if not asleep:
            return False
        woken = [lease for lease in asleep.values() if _wakes(lease, readable_end, next_counter)]
        for lease in woken:
            self._make_ready(lease, now)
        return bool(woken)

    def running(self, worker: int, lease: int, now: float, started_at: float) -> bool:
        """A worker begins to run a batch. Returns whether it holds others that might go elsewhere (call `plan`).

        Args:
            worker: which.
            lease: whose batch; 0 for a job.
            now: monotonic seconds.
            started_at: when the worker's start began.
        """
        place = self.places[worker]
        place.running = lease
        if not place.start_s:
            place.start_s = now - started_at
        return len(place.leases) > 1

    def ask(self, function: str, job: Job) -> None:
        """A job is to be run as soon as there is a place for it."""
        self._waiting.ask(function, job)

    def waits(self, worker: int) -> bool:
        """What a worker runs waits for an invocation; returns whether there is such a worker. `goes_on` follows."""
        return self._planner.waits(worker)

    def goes_on(self, worker: int) -> None:
        """What it waited for is over. Plan afterwards."""
        self._planner.goes_on(worker)

    def forget_jobs(self, function: str | None = None) -> list[Job]:
        """The jobs of a function (None: all) that still wait for a place get none any more; returns them."""
        return self._waiting.forget_jobs(function)

    def limit(self, function: str, most: int | None, now: float) -> list[Action]:
        """At most so many invocations of a function run at once, over all its keys. Carry this out, and plan."""
        actions = self._planner.limit(function, most)
        self._hurry_throttled(now)
        return actions

    def exists(self, function: str, now: float, *, exists: bool) -> None:
        """Whether there is a function of this key. Plan afterwards."""
        if self._waiting.exists(function, exists=exists):
            self._hurry_throttled(now)

    def is_blocked(self, function: str) -> bool:
        """Whether nothing of this key may run."""
        return self._waiting.is_blocked(function)

    def busy(self, function: str) -> int:
        """How many places of a function, over all its keys, are at its leases."""
        return self._planner.busy(function)

    def _hurry_throttled(self, now: float) -> None:
        """What waited for the age of its records need not, where its function may run again."""
        for lease in list(self.leases.values()):
            is_throttled = lease.state is LeaseState.DUE and lease.reason == "throttled"
            if is_throttled and not self._waiting.is_blocked(lease.function):
                self._make_ready(lease, now)

    def renew(self, function: str, now: float) -> list[Action]:
        """A function means something else from now on; its workers end with what they run. Carry this out, and plan."""
        return self._planner.renew(function, now)

    def returned(self, worker: int, message: Returned, readable_end: int, next_counter: int, now: float) -> bool:
        """A worker gave a lease back. Returns False where the message is of a generation given back before."""
        place = self.places[worker]
        lease = place.leases.get(message.lease)
        if lease is None or lease.generation != message.generation:
            return False
        self._planner.release(place, lease, now)
        if message.broken:
            place.state = PlaceState.STOPPING
        if message.settled:
            lease.settled_at = now
            self.pools[place.function].deaths = 0
        if lease.id not in self.leases:
            return True
        self.ends[lease.place_in_log] = (readable_end, next_counter)
        lease.read_offset = message.read_offset
        lease.settled_offset = max(lease.settled_offset, message.settled_offset)
        lease.want_counter = message.want_counter
        lease.reason = message.reason
        lease.known = message.reason in KNOWN
        lease.last_error = message.last_error
        lease.alone = message.reason == "suspect"
        lease.last = message.last or lease.last
        if message.reason == "storage":  # it may not have come so far as to count the death: a slot tells
            lease.death = lease.told
        if message.settled:
            for other in list(self._too_far_ahead.get(lease.family, {}).values()):
                self._make_ready(other, now)
        if message.reason in ("retired", "lane", "unread"):
            self._make_ready(lease, now)
        elif message.reason == "throttled" and not self._waiting.is_blocked(lease.function):
            self._make_ready(lease, now)  # it may run again by now
        elif message.due_ms is not None:
            self._wait(lease, now + message.due_ms / 1000)
            if _wakes(lease, readable_end, next_counter):
                self._make_ready(lease, now)
        else:
            self._sleep(lease, now)
        return True

    def ran(self, worker: int, now: float, *, broken: bool = False) -> None:
        """A worker has finished a job."""
        place = self.places[worker]
        self._planner.release(place, None, now)
        if broken:
            place.state = PlaceState.STOPPING
        else:
            self.pools[place.function].deaths = 0

    def ended(self, worker: int, death: DeathNote | None, now: float, *, died: bool) -> list[Lease]:
        """A worker's end has been reported by its parent (or it is certain that it is gone).

        Args:
            worker: which.
            death: how it died, where that counts as an attempt of a lease it held.
            now: monotonic seconds.
            died: whether it ended other than as it was asked to.

        Returns:
            The leases it held. Each gets the death note: the slots say which of them was running.
        """
        place = self.places.pop(worker)
        self._planner.goes_on(worker)
        if died:
            self.pools[place.function].died(now, in_job=place.job is not None)
        held, ran = list(place.leases.values()), place.running
        for lease in held:
            self._planner.release(place, lease, now)
            lease.death = death
            lease.reason = ""
            lease.known = lease.id == ran
            if lease.id in self.leases:
                self._make_ready(lease, now)
        return held

    def hurry(self, lease: Lease, now: float) -> None:
        """Do not wait for its due time any longer."""
        if lease.state is LeaseState.DUE:
            self._make_ready(lease, now)

    # ------------------------------------------------------------------ what to do

    @property
    def is_short(self) -> bool:
        """Whether leases wait for a place: the slices of busy workers count then."""
        return bool(self._waiting.hungry)

    def tick(self, now: float) -> None:
        """Make the leases ready whose time has come."""
        while self._due and self._due[0][0] <= now:
            _, lease_id, generation = heapq.heappop(self._due)
            lease = self.leases.get(lease_id)
            if lease is not None and lease.state is LeaseState.DUE and lease.generation == generation:
                self._make_ready(lease, now)

    def plan(self, now: float) -> list[Action]:
        """What to do now. The caller carries it out; the table already counts it as done."""
        return self._planner.plan(now)

    def next_due(self, now: float) -> float | None:
        """When `tick` and `plan` have to be called next if nothing happens before."""
        planned = self._planner.next_due(now)
        if not self._due:
            return planned
        return self._due[0][0] if planned is None else min(planned, self._due[0][0])

    # ------------------------------------------------------------------ the states

    def _make_ready(self, lease: Lease, now: float) -> None:
        self._wake(lease)
        lease.state = LeaseState.READY
        lease.ready_since = now
        self._waiting.wait(lease)

    def _wait(self, lease: Lease, due: float) -> None:
        """Until a due time; also for a counter where one is wanted, or for the lane that holds it back."""
        lease.state, lease.due = LeaseState.DUE, due
        self._dues += 1
        heapq.heappush(self._due, (due, lease.id, lease.generation))
        if len(self._due) > max(_STALE_DUES, 2 * self._dues):
            self._drop_stale_dues()
        if lease.want_counter:
            self._asleep.setdefault(lease.place_in_log, {})[lease.id] = lease
        if lease.reason == "look-ahead":
            self._too_far_ahead.setdefault(lease.family, {})[lease.id] = lease

    def _sleep(self, lease: Lease, now: float) -> None:
        """Until something is appended; drained where nothing ever will be."""
        lease.state = LeaseState.NEWS
        lease.known = False
        if self.ends.get(lease.place_in_log, (0, 0))[0] > lease.read_offset:
            self._make_ready(lease, now)
        elif self._lineage.is_closed(lease):
            lease.state = LeaseState.DRAINED
            for child in self._lineage.drained(lease):
                self._sleep(child, now)
        else:
            self._asleep.setdefault(lease.place_in_log, {})[lease.id] = lease

    def _wake(self, lease: Lease) -> None:
        """Take it off whatever it waits for."""
        if lease.state is LeaseState.DUE:
            self._dues -= 1
            lease.due = None
            if lease.reason == "look-ahead":
                self._too_far_ahead[lease.family].pop(lease.id, None)
        asleep = self._asleep.get(lease.place_in_log)
        if asleep:
            asleep.pop(lease.id, None)

    def _drop_stale_dues(self) -> None:
        """Windows that fill up early leave their due times behind, and there may be hundreds of them a second."""
        leases = self.leases
        self._due = [
            entry
            for entry in self._due
            if (lease := leases.get(entry[1])) is not None
            and lease.state is LeaseState.DUE
            and lease.generation == entry[2]
        ]
        heapq.heapify(self._due)


def _wakes(lease: Lease, readable_end: int, next_counter: int) -> bool:
    if lease.state is LeaseState.NEWS:
        return readable_end > lease.read_offset
    return lease.state is LeaseState.DUE and 0 < lease.want_counter <= next_counter
