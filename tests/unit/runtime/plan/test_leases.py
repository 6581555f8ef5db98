"""The plan that brings leases and places together, stepped by hand."""

from __future__ import annotations

import sys

import pytest

from kflow.interfaces import FunctionError
from kflow.runtime.messages import DeathNote, Returned
from kflow.runtime.plan.functions import grant
from kflow.runtime.plan.leases import (
    GrantLease,
    Job,
    Lease,
    LeaseState,
    LeaseTable,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
)

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
    (lease,) = made.places[worker].leases.values()
    message = Returned(lease.id, lease.generation, reason, due_ms, read, want, settled)
    assert made.returned(worker, message, read if end is None else end, counter, now)


def grants(actions: list[object]) -> list[tuple[int, int]]:
    return [
        (action.worker, lease.id) for action in actions if isinstance(action, GrantLease) for lease in action.leases
    ]


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
    assert made.plan(1.0) == [RetireLease(1, 1, 1)]
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


def test_a_death_that_could_not_be_looked_at_goes_with_the_next_grant_and_no_other_one() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    note = DeathNote(77, None, ERROR)
    made.ended(1, note, 1.0, died=True)
    (_, action) = made.plan(1.1)
    assert isinstance(action, GrantLease)
    assert grant(action, 1.1, window_over=False).lanes[0].death == note
    give_back(made, 2, reason="storage", due_ms=1000, now=1.2, settled=False)
    made.tick(2.3)
    (action,) = made.plan(2.3)
    assert isinstance(action, GrantLease)
    assert grant(action, 2.3, window_over=False).lanes[0].death == note

    give_back(made, 2, reason="backoff", due_ms=1000, now=2.4, settled=False)

    assert made.leases[1].death is None


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

    assert made.plan(10.0) == [RetireLease(2, 2, 1)]
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

    assert made.plan(1.0) == [StopWorker(1), RetireLease(2, 2, 1)]
    give_back(made, 2, reason="retired", read=0, now=1.5)
    assert made.plan(1.5) == [StopWorker(2)]


def test_a_redrive_ends_an_idle_worker_of_another_function_where_there_is_no_place() -> None:
    made = table({"bill": 1, "ship": 0}, max_workers=1)
    made.plan(0.0)
    give_back(made, 1, now=1.0)
    made.ask("ship", Job(7, 0))

    assert made.plan(1.0) == [StopWorker(1)]
    made.ended(1, None, 1.1, died=False)

    assert [type(action) for action in made.plan(1.1)] == [StartWorker, SendJob]


@pytest.mark.parametrize("function", ["bill", "ship"])
def test_a_redrive_gets_the_place_of_a_worker_that_goes_on_and_on(function: str) -> None:
    made = table({"bill": 1, "ship": 0}, max_workers=1)
    made.plan(0.0)
    made.running(1, 1, 0.1, 0.0)
    made.ask(function, Job(7, 0))
    assert made.plan(0.5) == []
    assert made.next_due(0.5) == 1.0

    assert [type(action) for action in made.plan(1.0)] == [RetireLease]
    give_back(made, 1, reason="retired", due_ms=0, now=1.1)

    if function == "ship":
        assert made.plan(1.1) == [StopWorker(1)]
        made.ended(1, None, 1.2, died=False)
    assert SendJob in [type(action) for action in made.plan(1.2)]
    assert made.leases[1].state is LeaseState.READY


def test_nothing_is_redriven_while_a_suspect_batch_runs_alone() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, reason="suspect", due_ms=0, now=1.0, settled=False)
    made.tick(1.0)
    assert [type(action) for action in made.plan(1.0)] == [GrantLease]
    made.ask("bill", Job(7, 0))

    assert made.plan(1.1) == []
    give_back(made, 1, now=2.0)

    assert made.plan(2.0) == [SendJob(1, Job(7, 0))]


def test_what_a_return_costs_does_not_grow_with_the_functions_that_wait() -> None:
    def steps(functions: int) -> int:
        made = table({f"f{number}": 10 for number in range(functions)}, max_workers=2)
        made.plan(0.0)
        looks = 0

        def look(frame: object, event: str, _: object) -> None:
            nonlocal looks
            looks += event == "call"

        give_back(made, 1, now=0.1)
        sys.setprofile(look)
        try:
            made.plan(0.1)
        finally:
            sys.setprofile(None)
        return looks

    assert steps(200) < steps(20) + 2 * 200  # to ask each once or twice since when it waits, and no more


def test_a_redrive_takes_a_place_of_its_function() -> None:
    made = table({"bill": 0})

    made.ask("bill", Job(7, 0))

    assert made.plan(0.0) == [StartWorker(1, "bill"), SendJob(1, Job(7, 0))]
    made.ran(1, 1.0)
    assert made.places[1].leases == {}


def test_an_idle_worker_ends_after_a_minute() -> None:
    made = table({"bill": 1})
    made.plan(0.0)
    give_back(made, 1, read=0, now=1.0)

    assert made.next_due(1.0) == pytest.approx(61.0)
    assert made.plan(61.0) == [StopWorker(1)]


def test_a_deleted_stream_takes_its_leases_away() -> None:
    made = table({"bill": 2}, max_workers=1)
    made.plan(0.0)

    assert made.remove_stream(1) == [RetireLease(1, 1, 1)]
    assert made.leases == {}
    assert made.returned(1, Returned(1, 1, "retired", None, 0), 0, 0, 1.0)
    assert made.plan(1.0) == []


# ---------------------------------------------------------------------------------------------------------- lanes


def laned(factor: int, *, shards: int = 1, max_workers: int = 8) -> LeaseTable:
    """A table of one function, with so many lanes a shard; lease ids count lanes within shards."""
    made = LeaseTable(max_workers)
    for number in range(shards * factor):
        made.add(Lease(number + 1, "bill", 1, number // factor, 0, settled_at=0.0, lane=number % factor))
    return made


def say(made: LeaseTable, lease: int, reason: str, *, due_ms: int | None = 0, now: float = 1.0, read: int = 0,
        want: int = 0, settled: bool = False) -> None:  # fmt: skip
    """The worker that holds a lease returns it."""
    held = made.leases[lease]
    assert held.worker is not None
    message = Returned(lease, held.generation, reason, due_ms, read, want, settled)
    assert made.returned(held.worker, message, made.ends.get((1, held.shard), (0, 0))[0], 0, now)


def granted(actions: list[object]) -> list[tuple[int, list[int], int]]:
    """Each grant: worker, leases, spare."""
    return [(a.worker, [lease.id for lease in a.leases], a.spare) for a in actions if isinstance(a, GrantLease)]


def test_lanes_of_unknown_content_go_to_one_worker_that_is_told_how_many_places_there_are() -> None:
    made = laned(4, max_workers=3)

    assert granted(made.plan(0.0)) == [(1, [1, 2, 3, 4], 2)]


def test_each_shard_has_a_worker_that_looks_at_its_lanes_and_places_are_promised_once() -> None:
    made = laned(3, shards=2, max_workers=3)

    assert granted(made.plan(0.0)) == [(1, [1, 2, 3], 1), (2, [4, 5, 6], 1)]


def test_a_lane_with_a_batch_that_its_finder_left_gets_a_worker_of_its_own() -> None:
    made = laned(4, max_workers=3)
    made.plan(0.0)
    say(made, 4, "idle", due_ms=None)
    say(made, 2, "lane")
    say(made, 3, "lane")

    assert granted(made.plan(1.0)) == [(2, [2], 0), (3, [3], 0)]
    assert made.places[1].leases.keys() == {1}


def test_a_worker_that_keeps_one_lane_is_busy_until_it_has_returned_the_last() -> None:
    made = laned(2, max_workers=1)
    made.plan(0.0)
    say(made, 1, "idle", due_ms=None)

    assert made.places[1].state.value == "busy"
    say(made, 2, "idle", due_ms=None)
    assert made.places[1].state.value == "idle"


def test_an_append_wakes_the_sleeping_lanes_together_and_leaves_the_running_one() -> None:
    made = laned(3, max_workers=2)
    made.plan(0.0)
    say(made, 1, "idle", due_ms=None)
    say(made, 3, "idle", due_ms=None)

    assert made.news(1, 0, 10, 2, 2.0)
    assert granted(made.plan(2.0)) == [(2, [1, 3], 0)]


def test_lanes_that_backed_off_are_granted_one_by_one() -> None:
    made = laned(2, max_workers=8)
    made.plan(0.0)
    say(made, 1, "backoff", due_ms=1000)
    say(made, 2, "backoff", due_ms=1000)
    made.tick(2.0)

    assert granted(made.plan(2.0)) == [(1, [1], 0), (2, [2], 0)]


def test_a_free_place_is_filled_with_a_lane_that_its_holder_does_not_run() -> None:
    made = LeaseTable(2)
    for number in range(3):
        made.add(Lease(number + 1, "bill", 1, 0, 0, settled_at=0.0, lane=number))
    made.add(Lease(4, "ship", 1, 0, 0, settled_at=0.0))
    made.plan(0.0)
    assert not made.running(2, 4, 0.1, 0.0)
    assert made.running(1, 1, 0.1, 0.0)
    assert made.plan(0.2) == []
    say(made, 4, "idle", due_ms=None, now=0.3)

    assert made.plan(0.3) == [RetireLease(1, 2, 1)]
    assert made.plan(0.4) == []
    say(made, 2, "retired", now=0.5)
    assert made.plan(0.5) == [StopWorker(2)]
    made.ended(2, None, 0.6, died=False)
    assert granted(made.plan(0.6)) == [(3, [2], 0)]


def test_lanes_are_not_taken_from_a_worker_that_still_looks_at_them() -> None:
    made = laned(3, max_workers=2)

    made.plan(0.0)

    assert made.plan(0.1) == []


def test_a_worker_past_its_slice_is_asked_for_all_its_lanes() -> None:
    made = laned(2, max_workers=1)
    made.plan(0.0)
    made.add(Lease(9, "ship", 1, 0, 0, settled_at=0.0), 0.5)

    assert made.plan(0.6) == []
    assert made.plan(1.0) == [RetireLease(1, 1, 1), RetireLease(1, 2, 1)]


def test_the_death_of_a_worker_gives_every_lane_it_held_the_note_and_the_running_one_a_place_of_its_own() -> None:
    made = laned(3, max_workers=4)
    made.plan(0.0)
    made.running(1, 2, 0.1, 0.0)
    note = DeathNote(77, None, ERROR)

    held = made.ended(1, note, 1.0, died=True)

    assert [lease.id for lease in held] == [1, 2, 3]
    assert {lease.death for lease in held} == {note}
    assert granted(made.plan(1.2)) == [(2, [1, 3], 1), (3, [2], 0)]


def test_a_lane_that_was_too_far_ahead_goes_on_when_another_one_has_settled_something() -> None:
    made = laned(2)
    made.plan(0.0)
    say(made, 1, "look-ahead", due_ms=10_000)
    say(made, 2, "idle", due_ms=None, settled=True, now=2.0)

    assert granted(made.plan(2.0)) == [(1, [1], 0)]


def test_a_lane_in_an_open_tumbling_window_is_woken_by_any_record() -> None:
    made = laned(1)
    made.plan(0.0)
    say(made, 1, "tumbling", due_ms=60_000, want=5)

    assert not made.news(1, 0, 10, 4, 2.0)
    assert made.news(1, 0, 20, 5, 2.0)


def test_due_times_that_nobody_waits_for_any_more_do_not_pile_up() -> None:
    made = laned(1)
    for counter in range(1, 2_000):
        made.plan(float(counter))
        say(made, 1, "window", due_ms=300_000, want=counter, now=float(counter))
        made.news(1, 0, counter, counter, float(counter))

    assert len(made._due) <= 65
    assert made.leases[1].state is LeaseState.READY


def test_two_hundred_handlers_of_one_stream_all_get_their_turn() -> None:
    made = table({f"f{number}": 1 for number in range(200)}, max_workers=8)
    served: list[int] = []
    now = 0.0
    while len(set(served)) < 200:
        now += 0.01
        assert now < 60, f"{200 - len(set(served))} handlers wait for ever"
        for action in made.plan(now):
            if isinstance(action, GrantLease):
                served.append(action.leases[0].id)
                lease = action.leases[0]
                made.returned(action.worker, Returned(lease.id, lease.generation, "idle", None, 0), 0, 1, now)
            elif isinstance(action, StopWorker):
                made.ended(action.worker, None, now, died=False)
        assert len(made.places) <= 8

    assert len(served) == 200


def test_a_worker_that_was_made_to_return_its_lease_is_not_given_it_again_while_another_function_waits() -> None:
    made = table({"bill": 1, "ship": 1}, max_workers=1)
    made.plan(0.0)
    assert made.plan(1.0) == [RetireLease(1, 1, 1)]

    say(made, 1, "retired", now=1.1)

    assert made.plan(1.1) == [StopWorker(1)]
    made.ended(1, None, 1.2, died=False)
    assert grants(made.plan(1.2)) == [(2, 2)]
    say(made, 2, "idle", due_ms=None, now=1.3)
    assert made.plan(1.3) == [StopWorker(2)]
    made.ended(2, None, 1.4, died=False)
    assert grants(made.plan(1.4)) == [(3, 1)]


def test_a_function_that_backs_off_takes_no_place_from_one_that_could_use_it() -> None:
    made = table({"bill": 1, "ship": 1}, max_workers=1)
    made.plan(0.0)
    made.ended(1, None, 0.1, died=True)
    assert grants(made.plan(0.1)) == [(2, 2)]
    say(made, 2, "retired", now=0.15)

    assert grants(made.plan(0.15)) == [(2, 2)]


def test_fairness_all_functions_have_turns_however_many_shards_one_of_them_reads() -> None:
    made = table({"bill": 12, "ship": 1, "ring": 2}, max_workers=2)
    turns = {"bill": 0, "ship": 0, "ring": 0}
    now = 0.0
    while now < 120:
        for action in made.plan(now):
            if isinstance(action, GrantLease):
                turns[action.leases[0].function] += 1
            elif isinstance(action, RetireLease):
                say(made, action.lease, "retired", now=now)
            elif isinstance(action, StopWorker):
                made.ended(action.worker, None, now, died=False)
        now += 0.25

    assert turns["bill"] >= 8 * turns["ship"] * 0.9
    assert turns["ship"] >= 10
    assert turns["ring"] >= 1.8 * turns["ship"]


def test_fairness_no_shard_waits_for_more_than_a_round_of_the_others() -> None:
    made = table({"bill": 20}, max_workers=2)
    turns: list[int] = []
    now = 0.0
    while len(turns) < 100:
        for action in made.plan(now):
            if isinstance(action, GrantLease):
                turns.append(action.leases[0].id)
            elif isinstance(action, RetireLease):
                say(made, action.lease, "retired", now=now)
        now += 0.5

    for begin in range(0, 80, 20):
        assert sorted(turns[begin : begin + 20]) == list(range(1, 21))


# ---------------------------------------------------------------------------------------------------------- parents


def family(*, factor: int = 1) -> LeaseTable:
    """Shards 0 and 1, and shard 2 that was merged from both; of one function, all with records."""
    made = LeaseTable(8)
    for shard, parents in ((0, ()), (1, ()), (2, (0, 1))):
        made.ends[1, shard] = (100, 10)
        for lane in range(factor):
            number = shard * factor + lane + 1
            made.add(Lease(number, "bill", 1, shard, 0, settled_at=0.0, lane=lane, parents=parents))
    return made


def test_a_child_waits_until_both_parents_are_closed_and_read() -> None:
    made = family()
    assert grants(made.plan(0.0)) == [(1, 1), (2, 2)]
    assert made.leases[3].state is LeaseState.PARENTS
    made.close_shard(1, 0, 0.5)
    made.close_shard(1, 1, 0.5)
    say(made, 1, "idle", due_ms=None, read=100)
    assert made.leases[1].state is LeaseState.DRAINED
    assert made.plan(1.0) == []

    say(made, 2, "idle", due_ms=None, read=100, now=2.0)

    assert grants(made.plan(2.0)) == [(1, 3)]


def test_a_parent_that_was_read_before_it_closed_is_drained_by_its_closing() -> None:
    made = family()
    made.plan(0.0)
    say(made, 1, "idle", due_ms=None, read=100)
    say(made, 2, "idle", due_ms=None, read=100)

    made.close_shard(1, 0, 1.5)
    assert made.leases[3].state is LeaseState.PARENTS
    assert made.close_shard(1, 1, 1.5)

    assert grants(made.plan(2.0)) == [(1, 3)]


def test_a_parent_that_backs_off_holds_its_children_up() -> None:
    made = family()
    made.plan(0.0)
    made.close_shard(1, 0, 0.5)
    made.close_shard(1, 1, 0.5)
    say(made, 1, "idle", due_ms=None, read=100)
    say(made, 2, "backoff", due_ms=60_000, read=100)

    assert made.plan(2.0) == []
    assert made.leases[3].state is LeaseState.PARENTS


def test_every_lane_of_every_parent_must_be_drained() -> None:
    made = family(factor=2)
    made.plan(0.0)
    made.close_shard(1, 0, 0.5)
    made.close_shard(1, 1, 0.5)
    for lease in (1, 2, 3):
        say(made, lease, "idle", due_ms=None, read=100)
    assert made.leases[5].state is LeaseState.PARENTS

    say(made, 4, "idle", due_ms=None, read=100)

    assert granted(made.plan(2.0))[0][1] == [5, 6]


def test_another_function_that_lags_behind_does_not_hold_this_ones_children_up() -> None:
    made = family()
    made.add(Lease(8, "ship", 1, 0, 0, settled_at=0.0))
    made.plan(0.0)
    made.close_shard(1, 0, 0.5)
    made.close_shard(1, 1, 0.5)
    say(made, 1, "idle", due_ms=None, read=100)
    say(made, 2, "idle", due_ms=None, read=100)

    assert 3 in {lease for _, lease in grants(made.plan(1.0))}


def test_closing_ends_the_wait_for_a_window() -> None:
    made = family()
    made.plan(0.0)
    say(made, 1, "tumbling", due_ms=600_000, read=100)
    say(made, 2, "window", due_ms=600_000, read=100)

    made.close_shard(1, 0, 2.0)
    made.close_shard(1, 1, 2.0)

    assert sorted(lease for _, lease in grants(made.plan(2.0))) == [1, 2]


def test_an_empty_child_that_is_closed_itself_lets_its_own_children_go_on() -> None:
    made = LeaseTable(8)
    made.ends[1, 0] = (100, 10)
    made.ends[1, 2] = (50, 5)
    made.add(Lease(1, "bill", 1, 0, 0, settled_at=0.0))
    made.add(Lease(2, "bill", 1, 1, 0, settled_at=0.0, parents=(0,), state=LeaseState.NEWS))
    made.add(Lease(3, "bill", 1, 2, 0, settled_at=0.0, parents=(1,)))
    made.plan(0.0)
    made.close_shard(1, 0, 0.5)
    made.close_shard(1, 1, 0.5)

    say(made, 1, "idle", due_ms=None, read=100)

    assert made.leases[2].state is LeaseState.DRAINED
    assert grants(made.plan(1.0)) == [(1, 3)]


def test_a_parent_nobody_knows_holds_nobody_up() -> None:
    made = LeaseTable(1)
    made.ends[1, 7] = (100, 10)

    made.add(Lease(1, "bill", 1, 7, 0, settled_at=0.0, parents=(3,)))

    assert grants(made.plan(0.0)) == [(1, 1)]
