"""Limits on functions, whatever comes in whatever order: never exceeded, and every lease has its turn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.runtime.messages import Returned
from kflow.runtime.plan.leases import GrantLease, Lease, LeaseState, LeaseTable, RetireLease, StopWorker
from kflow.runtime.plan.places import PlaceState

KEYS = ("bill", "bill:1", "ship")
OWNERS = ("bill", "ship")


class Driver:
    """A table whose workers do as they are told, after a while."""

    def __init__(self, shards: int, lanes: int, max_workers: int) -> None:
        self.table = LeaseTable(max_workers)
        self.now = 0.0
        self.limits: dict[str, int] = {}
        self.missing: set[str] = set()
        self.ran: set[int] = set()
        self.wanted_back: set[int] = set()
        self.stopping: set[int] = set()
        self.throttled: set[int] = set()
        number = 0
        for key in KEYS:
            for shard in range(shards):
                for lane in range(lanes):
                    number += 1
                    self.table.add(
                        Lease(number, key, 1, shard, 0, settled_at=0.0, lane=lane, ages=number % 2 == 0), self.now
                    )

    def carry_out(self, actions: list[object]) -> None:
        for action in actions:
            if isinstance(action, GrantLease):
                for lease in action.leases:
                    (self.throttled if action.throttled else self.ran).add(lease.id)
                    if not action.throttled:
                        self.throttled.discard(lease.id)
            elif isinstance(action, RetireLease):
                self.wanted_back.add(action.lease)
            elif isinstance(action, StopWorker):
                self.stopping.add(action.worker)

    def plan(self) -> None:
        self.table.tick(self.now)
        self.carry_out(self.table.plan(self.now))
        for owner, most in self.limits.items():
            busy = [
                place
                for place in self.table.places.values()
                if place.owner == owner and place.state is PlaceState.BUSY and not place.looks and not place.retiring
            ]
            assert len(busy) <= most, f"{owner} runs {len(busy)} times"
        for lease in self.table.leases.values():
            is_missing = lease.function in self.missing or self.limits.get(lease.function.partition(":")[0]) == 0
            if is_missing and lease.state is LeaseState.GRANTED and lease.id not in self.wanted_back:
                assert lease.id in self.throttled or lease.retiring

    def limit(self, owner: str, most: int | None) -> None:
        if most is None:
            self.limits.pop(owner, None)
        else:
            self.limits[owner] = most
        self.carry_out(list(self.table.limit(owner, most, self.now)))
        self.plan()

    def exists(self, key: str, *, exists: bool) -> None:
        (self.missing.discard if exists else self.missing.add)(key)
        self.table.exists(key, self.now, exists=exists)
        self.carry_out(list(self.table.renew(key, self.now)))
        self.plan()

    def give_back(self, lease: Lease, reason: str = "retired") -> None:
        assert lease.worker is not None
        due_ms = 50 if reason == "throttled" else 0
        self.wanted_back.discard(lease.id)
        self.table.returned(lease.worker, Returned(lease.id, lease.generation, reason, due_ms, 0), 10, 2, self.now)
        self.plan()

    def turn(self) -> None:
        """Let a second pass: what is wanted back is returned, looks end, workers end."""
        self.now += 1.1
        self.plan()
        for lease in list(self.table.leases.values()):
            if lease.state is LeaseState.GRANTED and lease.id in self.throttled:
                self.give_back(lease, "throttled")
            elif lease.state is LeaseState.GRANTED and lease.id in self.wanted_back:
                self.give_back(lease)
        for worker in list(self.stopping):
            self.stopping.discard(worker)
            if worker in self.table.places:
                self.table.ended(worker, None, self.now, died=False)
        self.plan()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("limit"), st.sampled_from(OWNERS), st.sampled_from([None, 0, 1, 2])),
        st.tuples(st.just("exists"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("turn"), st.just(""), st.just(None)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, shards=st.integers(1, 3), lanes=st.integers(1, 3), max_workers=st.integers(1, 5))
def test_limits_hold_and_all_leases_have_their_turn_once_they_may(
    steps: list[tuple[str, str, int | bool | None]], shards: int, lanes: int, max_workers: int
) -> None:
    driver = Driver(shards, lanes, max_workers)
    driver.plan()
    for kind, name, value in steps:
        if kind == "limit":
            driver.limit(name, value)
        elif kind == "exists":
            driver.exists(name, exists=bool(value))
        else:
            driver.turn()
    for key in KEYS:
        driver.exists(key, exists=True)
    for owner in OWNERS:
        driver.limit(owner, 1)
    driver.ran.clear()
    for lease in driver.table.leases.values():
        if lease.state is LeaseState.GRANTED and lease.id not in driver.throttled:
            driver.ran.add(lease.id)
    for _ in range(12 * len(driver.table.leases)):
        driver.turn()

    assert driver.ran == set(driver.table.leases)
