"""Who waits for a place: leases, and jobs that somebody waits for, by function; and which of them may not run now.

Pure. What waits is served by the plan (`kflow.runtime.plan.planning`).
"""

from __future__ import annotations

from kflow.runtime.plan.lease import Lease
from kflow.runtime.plan.places import Job, Pool, UnitKey, owner_of


class Waiting:
    """All that wait.

    Attributes:
        pools: by function.
        hungry: the pools with leases that wait and may run.
        asked: the pools with jobs that wait.
        alone: leases whose batch is to run by itself, by id.
        limits: how many places a function may have, over all its keys; those that have a limit.
    """

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.hungry: dict[str, Pool] = {}
        self.asked: dict[str, Pool] = {}
        self.alone: dict[int, Lease] = {}
        self.limits: dict[str, int] = {}

    def pool(self, function: str) -> Pool:
        """The pool of a function, made where there is none."""
        pool = self.pools.get(function)
        if pool is None:
            pool = self.pools[function] = Pool(function)
            self._look_whether_blocked(pool)
        return pool

    def wait(self, lease: Lease) -> None:
        """A lease waits for a worker: by itself, or with the lanes of its shard that may have nothing either."""
        pool = self.pools[lease.function]
        if pool.is_blocked:
            if lease.ages and pool.looks is not None:
                pool = pool.looks
        elif lease.alone:
            self.alone[lease.id] = lease
        key = _key(lease)
        unit = pool.ready.get(key)
        if unit is None:
            pool.ready[key] = [lease]
            if not pool.is_blocked:
                self.hungry[pool.name] = pool
        else:
            unit.append(lease)

    def withdraw(self, lease: Lease) -> None:
        """It waits no longer, and gets no worker."""
        main = self.pools[lease.function]
        key = _key(lease)
        for pool in (main, main.looks):
            unit = [] if pool is None else pool.ready.get(key, [])
            if pool is not None and lease in unit:
                unit.remove(lease)
                self.alone.pop(lease.id, None)
                if not unit:
                    self.took(pool, key)
                return

    def ask(self, function: str, job: Job) -> None:
        """A job waits for a worker of its function."""
        pool = self.pool(function)
        pool.jobs.append(job)
        self.asked[function] = pool

    def took(self, pool: Pool, key: UnitKey) -> None:
        """What waited there got a place."""
        del pool.ready[key]
        if not pool.ready:
            self.hungry.pop(pool.name, None)

    def forget_jobs(self, function: str | None) -> list[Job]:
        """The jobs of a function (None: all) that still wait for a place get none any more; returns them."""
        pools = [pool for pool in self.asked.values() if function in {None, pool.function}]
        forgotten: list[Job] = []
        for pool in pools:
            del self.asked[pool.function]
            forgotten += pool.jobs
            pool.jobs.clear()
        return forgotten

    def limit(self, function: str, most: int | None) -> None:
        """At most so many places of a function run at once, over all its keys; None: as many as there are."""
        if most is None:
            self.limits.pop(function, None)
        else:
            self.limits[function] = most
        for pool in list(self.pools.values()):
            if pool.owner == function:
                self._look_whether_blocked(pool)

    def exists(self, function: str, *, exists: bool) -> bool:
        """Whether there is a function of this key; the leases of one that there is not wait.

        Returns whether that is news.
        """
        pool = self.pool(function)
        if pool.is_missing is not exists:
            return False
        pool.is_missing = not exists
        self._look_whether_blocked(pool)
        return True

    def is_blocked(self, function: str) -> bool:
        """Whether nothing of this key may run."""
        pool = self.pools.get(function)
        return self.limits.get(owner_of(function)) == 0 if pool is None else pool.is_blocked

    def _look_whether_blocked(self, pool: Pool) -> None:
        is_blocked = pool.is_missing or self.limits.get(pool.owner) == 0
        if is_blocked == pool.is_blocked or pool.looks is None:
            return
        waiting = [lease for each in (pool, pool.looks) for unit in each.ready.values() for lease in unit]
        for each in (pool, pool.looks):
            each.ready.clear()
            self.hungry.pop(each.name, None)
        pool.is_blocked = is_blocked
        for lease in sorted(waiting, key=lambda lease: lease.ready_since):
            self.alone.pop(lease.id, None)
            self.wait(lease)


def _key(lease: Lease) -> UnitKey:
    return lease.id if lease.known or lease.alone else lease.place_in_log
