"""The plan: which waiting lease goes to which worker, who starts, who stops, who gives back. Pure, and never waits.

Nothing here knows what leases wait for before they wait for a worker: `kflow.runtime.plan.leases` does.
"""

from __future__ import annotations

import heapq
import itertools

from kflow.runtime.plan.lease import Lease, LeaseState
from kflow.runtime.plan.places import (
    IDLE_S,
    NESTED,
    SLICE_S,
    Action,
    GrantLease,
    Place,
    PlaceState,
    Pool,
    RefuseJob,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
    Unit,
)
from kflow.runtime.plan.waiting import Waiting


class Planner:
    """The places of a node, and the leases that wait for one.

    Attributes:
        places: by the worker's number.
        waiting: who waits for one.
        stopping: nothing is granted any more.
    """

    def __init__(self, max_workers: int) -> None:
        self.places: dict[int, Place] = {}
        self.waiting = Waiting()
        self.stopping = False
        self._max_workers = max_workers
        self._next_worker = 0
        self._exclusive: Lease | None = None
        self._pools = self.waiting.pools
        self._hungry = self.waiting.hungry
        self._asked = self.waiting.asked
        self._alone = self.waiting.alone
        self._limits = self.waiting.limits
        self._several: dict[int, Place] = {}  # places that hold more than one lease
        self._waits: dict[int, int] = {}  # by worker: for how many invocations what it runs waits

    # ------------------------------------------------------------------ places

    def waits(self, worker: int) -> bool:
        """What a worker runs waits for an invocation: its place is not counted meanwhile, or both could wait for ever.

        Returns whether there is such a worker, and it runs something.
        """
        place = self.places.get(worker)
        if place is None or place.state is not PlaceState.BUSY:
            return False
        self._waits[worker] = self._waits.get(worker, 0) + 1
        return True

    def goes_on(self, worker: int) -> None:
        """One of the invocations that it waited for is over, or so is the worker."""
        left = self._waits.pop(worker, 0) - 1
        if left > 0 and worker in self.places:
            self._waits[worker] = left

    def renew(self, function: str, now: float) -> list[Action]:
        """A function means something else from now on: its workers end with what they run, and new ones start."""
        actions: list[Action] = []
        for place in self.places.values():
            if place.function == function and not place.is_stale:
                place.is_stale = True
                if place.state is PlaceState.IDLE:
                    self._stop(place, actions, now)
                elif not place.retiring:
                    self._retire(place, actions)
        return actions

    def limit(self, function: str, most: int | None) -> list[Action]:
        """At most so many places of a function run at once, over all its keys; None: as many as there are.

        Those that are too many return what they hold after the running attempt. What waits for a place as a job was let
        in before, and is run.
        """
        self.waiting.limit(function, most)
        actions: list[Action] = []
        busy = [] if most is None else self._busy(function)
        for place in busy[: max(0, len(busy) - (most or 0))]:
            if place.leases and not place.retiring:
                self._retire(place, actions)
        return actions

    def busy(self, function: str) -> int:
        """How many places of a function, over all its keys, hold leases that they may run."""
        return sum(1 for place in self._busy(function) if place.leases)

    def _busy(self, function: str) -> list[Place]:
        return [
            place
            for place in self.places.values()
            if place.owner == function and place.state is PlaceState.BUSY and not place.looks
        ]

    def _room(self, pool: Pool) -> int:
        """How many more places a pool may have by its function's limit."""
        most = self._limits.get(pool.owner)
        if most is None or pool.looks is None:
            return self._max_workers
        jobs = sum(len(each.jobs) for each in self._asked.values() if each.owner == pool.owner)
        return most - len(self._busy(pool.owner)) - jobs

    def release(self, place: Place, lease: Lease | None, now: float) -> None:
        """A worker holds a lease (None: a job) no longer; with the last one it is idle."""
        if lease is None:
            place.job = None
        else:
            place.leases.pop(lease.id, None)
            if self._several and len(place.leases) < 2:
                self._several.pop(place.id, None)
            lease.worker = None
            lease.retiring = False
            if lease is self._exclusive:
                self._exclusive = None
        if place.leases or place.state is not PlaceState.BUSY:
            return
        place.state = PlaceState.IDLE
        place.since = now
        place.running = None
        place.retiring = False
        place.looks = False

    # ------------------------------------------------------------------ the plan

    def plan(self, now: float) -> list[Action]:
        """What to do now; counted as done."""
        actions: list[Action] = []
        if self.stopping:
            self._stop_all(actions, now)
            return actions
        if self._exclusive is not None or self._alone:
            self._plan_alone(actions, now)
            if self._asked and self._waits and self._exclusive is not None:
                self._plan_jobs(actions, now)  # what runs by itself may wait for one of them
        else:
            if self._asked:
                if self._hungry and self._free() > 0 and self._have_waited():
                    self._serve_all(actions, now)
                self._plan_jobs(actions, now)
            if self._hungry:
                self._plan_ready(actions, now)
            elif self._several and not self._asked:
                self._spread(actions, now)
            if self._hungry or self._asked:
                self._make_room(actions, now)
        for place in self.places.values():
            if place.state is PlaceState.IDLE and (place.is_stale or now - place.since >= IDLE_S):
                self._stop(place, actions, now)
        if len(self.places) > self._most():
            self._end_spare(actions, now)
        return actions

    def _most(self) -> int:
        """How many places there may be now: those that wait for another function are not counted."""
        return self._max_workers + min(NESTED, len(self._waits)) if self._waits else self._max_workers

    def _end_spare(self, actions: list[Action], now: float) -> None:
        """What waited for another function goes on: idle places are too many again."""
        idle = [place for place in self.places.values() if place.state is PlaceState.IDLE]
        stopping = sum(1 for place in self.places.values() if place.state is PlaceState.STOPPING)
        for place in sorted(idle, key=lambda place: place.since)[: max(0, len(self.places) - stopping - self._most())]:
            self._stop(place, actions, now)

    def next_due(self, now: float) -> float | None:
        """When `plan` has to be called next if nothing happens before."""
        times = [place.since + IDLE_S for place in self.places.values() if place.state is PlaceState.IDLE]
        if (self._hungry or self._asked) and not self.stopping:
            # A slice that is over was looked at by the last plan: if it is not retired by now, it need not be.
            times += [
                place.slice_end
                for place in self.places.values()
                if place.state is PlaceState.BUSY and place.leases and not place.retiring and place.slice_end > now
            ]
            times += [pool.not_before for pool in self._hungry.values() if pool.not_before > now]
        times += [pool.not_before for pool in self._asked.values() if pool.not_before > now]
        return min(times, default=None)

    def _plan_ready(self, actions: list[Action], now: float) -> None:
        """Grant to idle workers and to new ones, longest waiting first."""
        if len(self._hungry) == 1:
            (pool,) = self._hungry.values()
            while pool.ready and self._serve(pool, actions, now):
                pass
        elif self._free() > 0:
            self._serve_all(actions, now)

    def _serve_all(self, actions: list[Action], now: float) -> None:
        """Over several functions: an idle worker is not for its own function while another one has waited longer."""
        order = [(pool.waits_since, number, pool, 0) for number, pool in enumerate(self._hungry.values())]
        heapq.heapify(order)
        coming = self._coming()
        owed: dict[str, int] = {}
        while order and (coming > 0 or self._free() > 0):
            _, number, pool, unserved = heapq.heappop(order)
            if self._limits and self._room(pool) <= owed.get(pool.owner, 0):
                continue  # what there is room for is for another key of the function, which has waited longer
            if not unserved and self._serve(pool, actions, now):
                pass
            elif pool.not_before <= now and (coming > 0 or self._evict(pool, actions, now)):
                coming -= coming > 0
                unserved += 1
                owed[pool.owner] = owed.get(pool.owner, 0) + 1
            else:
                continue  # nothing in this plan gives it a place any more
            waiting = next(itertools.islice(pool.ready.values(), unserved, None), None)
            if waiting is not None:
                heapq.heappush(order, (waiting[0].ready_since, number, pool, unserved))

    def _evict(self, pool: Pool, actions: list[Action], now: float) -> bool:
        """End an idle worker that is less needed: of a function that has nothing, else of the one that waits least."""
        idle = [place for place in self.places.values() if place.state is PlaceState.IDLE]
        for place in idle:
            if place.function not in self._hungry:
                self._stop(place, actions, now)
                return True
        others = [place for place in idle if self._hungry[place.function].waits_since > pool.waits_since]
        if not others:
            return False
        self._stop(max(others, key=lambda place: self._hungry[place.function].waits_since), actions, now)
        return True

    def _serve(self, pool: Pool, actions: list[Action], now: float) -> bool:
        """Grant what waits longest in a pool; returns whether there was a place for it."""
        if self._limits and self._room(pool) <= 0:
            return False
        key, unit = next(iter(pool.ready.items()))
        place = self._idle(pool.function, unit[0].last_worker) or self._start(pool, actions, now)
        if place is None:
            return False
        self.waiting.took(pool, key)
        self._grant(unit, place, actions, now, looks=pool.looks is None)
        return True

    def _make_room(self, actions: list[Action], now: float) -> None:
        """Free places for what found none: end idle workers of other functions, then retire long runners."""
        hungry = [pool for pool in self._hungry.values() if pool.not_before <= now]
        wanted = sum(len(pool.ready) for pool in hungry)
        if self._limits:
            wanted = sum(max(0, min(len(pool.ready), self._room(pool))) for pool in hungry)
            self._take_turns(hungry, actions, now)
        wanted += sum(len(pool.jobs) for pool in self._asked.values() if pool.not_before <= now)
        wanted -= self._coming()
        for place in list(self.places.values()):
            if wanted <= 0:
                return
            if place.state is PlaceState.IDLE and place.function not in self._hungry:
                self._stop(place, actions, now)
                wanted -= 1
        for place in self._long_runners(now)[: max(0, wanted)]:
            self._retire(place, actions)

    def _long_runners(self, now: float) -> list[Place]:
        """Places that are past their slice, the one that has run longest first."""
        found = [
            place
            for place in self.places.values()
            if place.leases and not place.retiring and place.state is PlaceState.BUSY and place.slice_end <= now
        ]
        return sorted(found, key=lambda place: place.since)

    def _take_turns(self, hungry: list[Pool], actions: list[Action], now: float) -> None:
        """Leases of a function that runs as often as it may get their turn too."""
        for owner in {pool.owner for pool in hungry if pool.owner in self._limits}:
            own = [pool for pool in hungry if pool.owner == owner and pool.looks is not None]
            waiting = sum(len(pool.ready) for pool in own) - max(0, self._room(own[0])) if own else 0
            waiting -= sum(place.retiring for place in self._busy(owner))
            for place in [each for each in self._long_runners(now) if each.owner == owner][: max(0, waiting)]:
                self._retire(place, actions)

    def _spread(self, actions: list[Action], now: float) -> None:
        """Places are free and no lease waits: have workers that hold several lanes return those they do not run."""
        several = list(self._several.values())
        free = self._free() - sum(lease.retiring for place in several for lease in place.leases.values())
        for place in several:
            if place.running is None or place.retiring or place.state is not PlaceState.BUSY:
                continue
            pool = self._pools[place.function]
            if pool.not_before > now:
                continue
            room = self._room(pool) if self._limits else free
            for lease in place.leases.values():
                if free <= 0:
                    return
                if room > 0 and lease.id != place.running and not lease.retiring:
                    lease.retiring = True
                    actions.append(RetireLease(place.id, lease.id, lease.generation))
                    free -= 1
                    room -= 1

    def _plan_alone(self, actions: list[Action], now: float) -> None:
        """A batch that was there at three unclean ends runs by itself, so that only it can be blamed for the next."""
        if self._exclusive is not None:
            return
        busy = [place for place in self.places.values() if place.state is PlaceState.BUSY]
        if busy:
            for place in busy:
                if not place.retiring:
                    self._retire(place, actions)
            return
        lease = next(iter(self._alone.values()))
        pool = self._pools[lease.function]
        place_or_none = self._idle(lease.function, lease.last_worker) or self._start(pool, actions, now)
        if place_or_none is None:
            for place in list(self.places.values())[:1]:
                self._stop(place, actions, now)
            return
        self.waiting.withdraw(lease)
        self._exclusive = lease
        self._grant([lease], place_or_none, actions, now)

    def _have_waited(self) -> bool:
        """Whether a lease has waited so much longer than any job that it goes first."""
        since = min(pool.jobs[0].since for pool in self._asked.values())
        return min(pool.waits_since for pool in self._hungry.values()) < since - SLICE_S

    def _plan_jobs(self, actions: list[Action], now: float) -> None:
        """Jobs go before leases: somebody waits for the answer. A worker stays with its function, as if by a slice."""
        coming = self._coming()
        for pool in list(self._asked.values()):
            while pool.jobs and pool.jobs[0].until <= now:
                actions.append(RefuseJob(pool.jobs.popleft()))
            if not pool.jobs:
                del self._asked[pool.function]
        late = min((pool.jobs[0].since for pool in self._asked.values()), default=now) + SLICE_S
        for pool in sorted(self._asked.values(), key=lambda pool: pool.jobs[0].since > late):
            while pool.jobs and (place := self._idle(pool.function) or self._start(pool, actions, now)):
                job = pool.jobs.popleft()
                if job.until <= now:
                    actions.append(RefuseJob(job))
                    continue
                self._occupy(place, now)
                place.job = job
                actions.append(SendJob(place.id, job))
            if not pool.jobs:
                del self._asked[pool.function]
            elif pool.not_before <= now:
                others = [place for place in self.places.values() if place.state is PlaceState.IDLE]
                for place in others[: max(0, len(pool.jobs) - coming)]:
                    self._stop(place, actions, now)
                coming = max(0, coming - len(pool.jobs))

    def _stop_all(self, actions: list[Action], now: float) -> None:
        for place in list(self.places.values()):
            if place.state is PlaceState.IDLE:
                self._stop(place, actions, now)
            elif not place.retiring:
                self._retire(place, actions)

    # ------------------------------------------------------------------ its moves

    def _grant(self, unit: Unit, place: Place, actions: list[Action], now: float, *, looks: bool = False) -> None:
        for lease in unit:
            lease.state = LeaseState.GRANTED
            lease.window_due, lease.reason = lease.reason == "window", ""
            lease.generation += 1
            lease.worker = lease.last_worker = place.id
            lease.retiring = False
            place.leases[lease.id] = lease
        self._occupy(place, now)
        place.looks = looks
        spare = 0
        if len(unit) > 1:
            self._several[place.id] = place
            spare = self._spare(place, len(unit), now)
        actions.append(GrantLease(place.id, tuple(unit), spare, throttled=looks))

    def _retire(self, place: Place, actions: list[Action]) -> None:
        """Have a worker return all it holds; a job is waited for."""
        place.retiring = bool(place.leases)
        for lease in place.leases.values():
            if not lease.retiring:
                lease.retiring = True
                actions.append(RetireLease(place.id, lease.id, lease.generation))

    def _start(self, pool: Pool, actions: list[Action], now: float) -> Place | None:
        if len(self.places) >= self._most() or pool.not_before > now:
            return None
        self._next_worker += 1
        place = Place(self._next_worker, pool.function, now)
        self.places[place.id] = place
        actions.append(StartWorker(place.id, pool.function))
        return place

    def _stop(self, place: Place, actions: list[Action], now: float) -> None:
        if place.state is PlaceState.IDLE:
            place.state = PlaceState.STOPPING
            place.since = now
            actions.append(StopWorker(place.id))

    def _idle(self, function: str, preferred: int | None = None) -> Place | None:
        if preferred is not None:
            place = self.places.get(preferred)
            if place is not None and place.state is PlaceState.IDLE and not place.is_stale:
                return place
        for place in self.places.values():
            if place.state is PlaceState.IDLE and place.function == function and not place.is_stale:
                return place
        return None

    def _occupy(self, place: Place, now: float) -> None:
        place.state = PlaceState.BUSY
        place.since = now
        place.running = None
        place.retiring = False

    def _coming(self) -> int:
        """Places that somebody will have soon."""
        return sum(1 for place in self.places.values() if place.retiring or place.state is PlaceState.STOPPING)

    def _free(self) -> int:
        """Places that somebody could have now: not started yet, or idle."""
        return self._most() - sum(1 for place in self.places.values() if place.state is not PlaceState.IDLE)

    def _spare(self, place: Place, lanes: int, now: float) -> int:
        """How many of the lanes just granted could go elsewhere, once those that wait have been served."""
        pool = self._pools[place.function]
        if pool.not_before > now or place.looks:
            return 0
        waiting = sum(len(pool.ready) for pool in self._hungry.values())
        spare = min(self._free() - waiting, lanes - 1)
        return max(0, min(spare, self._room(pool)) if self._limits else spare)
