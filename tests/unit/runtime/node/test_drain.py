"""When a drain is over."""

from __future__ import annotations

import pytest

from kflow.runtime.messages import Returned
from kflow.runtime.node.drain import DrainWatch, listed
from kflow.runtime.plan.leases import Lease, LeaseTable


class World:
    """One function on shards of one stream, and a drain of it."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.table = LeaseTable(4)
        self.done = 0
        self.pending = False
        for lease, end in ends.items():
            self.table.ends[1, lease] = (end, 0)
            self.table.add(Lease(lease, "bill", 1, lease, 0, settled_at=0.0))
        self.table.plan(0.0)
        self.watch = DrainWatch(self._finished, dict(ends), lambda: self.pending)

    def _finished(self) -> None:
        self.done += 1

    def say(self, lease: int, reason: str, *, read: int, settled: int = 0, due_ms: int | None = None) -> None:
        held = self.table.leases[lease]
        assert held.worker is not None
        message = Returned(lease, held.generation, reason, due_ms, read, settled_offset=settled)
        end = self.table.ends[1, lease][0]
        assert self.table.returned(held.worker, message, end, 0, 1.0)
        self.watch.check(self.table)


def test_it_is_over_when_every_lease_has_read_and_settled_what_there_was() -> None:
    world = World({1: 100, 2: 50})
    world.say(1, "idle", read=100)
    assert not world.done

    world.say(2, "idle", read=50)

    assert world.done == 1


def test_what_a_return_costs_does_not_grow_with_the_leases_that_are_not_settled() -> None:
    world = World(dict.fromkeys(range(1, 1001), 100))
    looks = 0

    class Leases(dict[int, Lease]):
        def get(self, key: int, default: object = None) -> Lease | None:  # type: ignore[override]
            nonlocal looks
            looks += 1
            return super().get(key)

    world.table.leases = Leases(world.table.leases)
    for lease in range(1, 5):
        world.say(lease, "idle", read=100)

    assert looks < 20


def test_a_thousand_blocked_lanes_are_not_all_named() -> None:
    assert listed(["a", "b"]) == "a, b"

    text = listed([f"bill orders/{shard}" for shard in range(1000)])

    assert text.startswith("bill orders/0, bill orders/1, ")
    assert text.endswith("bill orders/19 and 980 more")


def test_records_that_come_meanwhile_are_not_waited_for() -> None:
    world = World({1: 100})
    world.table.ends[1, 1] = (900, 0)

    world.say(1, "retired", read=400, settled=100, due_ms=0)

    assert world.done == 1


@pytest.mark.parametrize(("reason", "over"), [("tumbling", True), ("backoff", False), ("window", False)])
def test_an_open_tumbling_window_is_kept_and_counts_as_settled(reason: str, over: bool) -> None:
    world = World({1: 100})

    world.say(1, reason, read=100, settled=60, due_ms=60_000)

    assert bool(world.done) is over


@pytest.mark.parametrize("reason", ["backoff", "retired"])
def test_a_call_that_ends_a_window_is_waited_for_though_no_record_is_left(reason: str) -> None:
    world = World({1: 100})

    world.say(1, reason, read=100, settled=100, due_ms=0)

    assert not world.done
    assert [lease.id for lease in world.watch.blocked(world.table)] == [1]


def test_a_tumbling_window_with_records_left_to_read_is_not_settled() -> None:
    world = World({1: 100})

    world.say(1, "tumbling", read=90, settled=60, due_ms=60_000)

    assert not world.done


def test_children_that_come_to_be_are_waited_for() -> None:
    world = World({1: 100})
    world.pending = True
    world.say(1, "idle", read=100)
    assert not world.done
    world.table.ends[1, 2] = (30, 0)
    child = Lease(2, "bill", 1, 2, 0, settled_at=1.0, parents=(1,))
    world.table.add(child, 1.0)
    world.watch.add(child, 30)
    world.pending = False
    world.watch.check(world.table)
    assert not world.done

    world.table.close_shard(1, 1, 1.0)
    world.table.plan(1.0)
    world.say(2, "idle", read=30)

    assert world.done == 1


def test_what_a_deleted_stream_had_is_not_waited_for() -> None:
    world = World({1: 100})

    world.table.remove_stream(1)
    world.watch.check(world.table)

    assert world.done == 1


def test_whoever_blocks_is_named() -> None:
    world = World({1: 100, 2: 50})
    world.say(2, "idle", read=50)

    assert [lease.id for lease in world.watch.blocked(world.table)] == [1]
