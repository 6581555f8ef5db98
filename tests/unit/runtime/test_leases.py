"""The plan that brings leases and places together, stepped by hand."""

from __future__ import annotations

import pytest

from kflow.interfaces import FunctionError
from kflow.runtime.leases import (
    GrantLease,
    Lease,
    LeaseState,
    LeaseTable,
    RetireLease,
    SendRedrive,
    StartWorker,
    StopWorker,
)
from kflow.runtime.messages import DeathNote, Returned

ERROR = FunctionError(type="Runtime.ExitError", message="gone")


def table(functions: dict[str, int], *, max_workers: int = 8) -> LeaseTable:
    """A table with so many shards for each function, all on stream 1."""
    made = LeaseTable(max_workers)
    number = 0
    for function, shards in functions.items():
        for shard in range(shards):
            number += 1
            made.add(Lease(number, function, 1, shard, 0, settled_at=0.0))
    return made


def give_back(
    made: LeaseTable, worker: int, *, reason: str = "idle", due_ms: int | None = None, read: int = 0, now: float,
    end: int | None = None, counter: int = 0, want: int = 0, settled: bool = True,
) -> None:  # fmt: skip
    lease = made.places[worker].lease
    assert lease is not None
    message = Returned(lease.id, lease.generation, reason, due_ms, read, want, settled)
    assert made.returned(worker, message, read if end is None else end, counter, now)


def grants(actions: list[object]) -> list[tuple[int, int]]:
    return [(action.worker, action.lease.id) for action in actions if isinstance(action, GrantLease)]


def test_a_ready_lease_gets_a_new_worker_and_its_grant_at_once() -> None:
    made = table({"bill": 1})

    actions = made.plan(0.0)

    assert [type(action) for action in actions] == [StartWorker, GrantLease]
    assert made.leases[1].state is LeaseState.GRANTED
    assert made.leases[1].generation == 1


def test_a_lease_that_read_everything_waits_for_the_next_append() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, read=500, now=1.0)

    assert made.plan(1.0) == []
    assert not made.news(1, 0, 500, 6, 2.0)
    assert made.news(1, 0, 501, 7, 2.0)
    assert grants(made.plan(2.0)) == [(1, 1)]


def test_an_append_during_the_return_is_not_slept_through() -> None:
    made = table({"bill": 1})
    made.plan(0.0)

    give_back(made, 1, read=500, end=501, now=1.0)

    assert grants(made.plan(1.0)) == [(1, 1)]


def test_a_lease_goes_to_the_worker_that_had_it_last() -> None:
    made = table({"bill": 2})
    made.plan(0.0)
    give_back(made, 1, read=10, now=1.0)
    give_back(made, 2, read=10, now=1.0)

    made.news(1, 1, 20, 2, 2.0)

    assert grants(made.plan(2.0)) == [(2, 2)]


def test_a_back_off_is_granted_at_its_due_time_and_not_before() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, reason="backoff", due_ms=4000, now=1.0, settled=False)

    assert not made.news(1, 0, 999, 99, 2.0)
    assert made.next_due(2.0) == pytest.approx(5.0)
    made.tick(4.9)
    assert made.plan(4.9) == []
    made.tick(5.0)
    assert grants(made.plan(5.0)) == [(1, 1)]


def test_a_batching_window_ends_early_when_its_batch_is_full() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, reason="window", due_ms=60_000, read=10, want=101, counter=50, now=1.0)

    assert not made.news(1, 0, 20, 100, 2.0)
    assert made.news(1, 0, 30, 101, 3.0)
    assert grants(made.plan(3.0)) == [(1, 1)]


def test_only_the_grant_after_a_window_says_that_it_is_over() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, reason="window", due_ms=1000, now=1.0)
    made.tick(2.0)
    made.plan(2.0)
    first = made.leases[1].window_due
    made.ended(1, None, 3.0, died=False)
    made.plan(3.0)

    assert first
    assert not made.leases[1].window_due


def test_a_message_of_an_earlier_generation_is_void() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    old = Returned(1, 1, "idle", None, 0)
    give_back(made, 1, read=0, end=1, now=1.0)
    made.plan(1.0)

    assert made.returned(1, old, 0, 1, 2.0) is False
    assert made.leases[1].state is LeaseState.GRANTED


def test_workers_never_exceed_the_maximum() -> None:
    made = table({"bill": 20}, max_workers=3)

    assert len(grants(made.plan(0.0))) == 3
    assert len(made.places) == 3


def test_the_longest_waiting_lease_is_served_first() -> None:
    made = table({"bill": 3}, max_workers=1)
    made.plan(0.0)
    give_back(made, 1, read=0, end=1, now=1.0)

    assert grants(made.plan(1.0)) == [(1, 2)]


def test_an_idle_worker_ends_for_a_function_that_waits() -> None:
    made = table({"bill": 1, "ship": 1}, max_workers=1)
    made.plan(0.0)
    give_back(made, 1, read=0, now=0.5)

    assert made.plan(0.5) == [StopWorker(1)]
    made.ended(1, None, 0.6, died=False)
    assert grants(made.plan(0.6)) == [(2, 2)]


def test_a_long_runner_is_asked_to_return_only_after_its_slice_and_only_if_something_waits() -> None:
    made = table({"bill": 1, "ship": 1}, max_workers=1)
    made.plan(0.0)

    assert made.plan(0.9) == []
    assert made.plan(1.0) == [RetireLease(1, 1)]
    assert made.plan(1.1) == []
    alone = table({"bill": 1}, max_workers=1)
    alone.plan(0.0)
    assert alone.plan(100.0) == []


def test_a_death_makes_the_lease_ready_with_its_note_and_starts_back_off() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    note = DeathNote(77, None, ERROR)

    made.ended(1, note, 1.0, died=True)

    assert made.leases[1].death == note
    assert made.plan(1.0) == []
    assert made.next_due(1.0) == pytest.approx(1.1)
    assert grants(made.plan(1.1)) == [(2, 1)]
    made.ended(2, note, 2.0, died=True)
    assert made.plan(2.1) == []
    assert grants(made.plan(2.2)) == [(3, 1)]


def test_back_off_of_one_function_does_not_hold_another() -> None:
    made = table({"bill": 1, "ship": 1})
    made.plan(0.0)
    made.ended(1, None, 1.0, died=True)
    give_back(made, 2, read=0, end=1, now=1.0)

    assert grants(made.plan(1.0)) == [(2, 2)]


def test_a_suspect_batch_runs_while_nothing_else_does() -> None:
    made = table({"bill": 2})
    made.plan(0.0)
    give_back(made, 1, reason="suspect", due_ms=10_000, now=0.0, settled=False)
    made.tick(10.0)

    assert made.plan(10.0) == [RetireLease(2, 1)]
    give_back(made, 2, reason="retired", read=0, now=10.5)
    assert grants(made.plan(10.5)) == [(1, 1)]
    assert made.plan(10.6) == []
    give_back(made, 1, read=0, now=11.0)
    assert grants(made.plan(11.0)) == [(2, 2)]


def test_stopping_retires_the_busy_and_stops_the_idle() -> None:
    made = table({"bill": 2})
    made.plan(0.0)
    give_back(made, 1, read=0, now=0.5)
    made.stopping = True

    assert made.plan(1.0) == [StopWorker(1), RetireLease(2, 1)]
    give_back(made, 2, reason="retired", read=0, now=1.5)
    assert made.plan(1.5) == [StopWorker(2)]


def test_a_redrive_takes_a_place_of_its_function() -> None:
    made = table({"bill": 0})

    made.redrive("bill", 7, 0)

    assert made.plan(0.0) == [StartWorker(1, "bill"), SendRedrive(1, 7, 0)]
    made.redriven(1, 1.0)
    assert made.places[1].lease is None


def test_an_idle_worker_ends_after_a_minute() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, read=0, now=1.0)

    assert made.next_due(1.0) == pytest.approx(61.0)
    assert made.plan(61.0) == [StopWorker(1)]


def test_a_deleted_stream_takes_its_leases_away() -> None:
    made = table({"bill": 2}, max_workers=1)
    made.plan(0.0)

    assert made.remove_stream(1) == [RetireLease(1, 1)]
    assert made.leases == {}
    assert made.returned(1, Returned(1, 1, "retired", None, 0), 0, 0, 1.0)
    assert made.plan(1.0) == []
