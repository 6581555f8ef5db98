"""How often a function may run at once, and functions that may not run at all, stepped by hand."""

from __future__ import annotations

from kflow.runtime.messages import Returned
from kflow.runtime.plan.leases import GrantLease, Job, Lease, LeaseState, LeaseTable, RetireLease, SendJob


def table(functions: dict[str, int], *, max_workers: int = 8, ages: bool = False, lanes: int = 1) -> LeaseTable:
    made = LeaseTable(max_workers)
    number = 0
    for function, shards in functions.items():
        for shard in range(shards):
            for lane in range(lanes):
                number += 1
                made.add(Lease(number, function, 1, shard, 0, settled_at=0.0, lane=lane, ages=ages))
    return made


def granted(made: LeaseTable, now: float) -> list[int]:
    return [lease.id for action in made.plan(now) if isinstance(action, GrantLease) for lease in action.leases]


def give_back(
    made: LeaseTable, lease: int, *, reason: str, now: float, due_ms: int | None = None, read: int = 0, end: int = 0
) -> None:
    held = made.leases[lease]
    assert held.worker is not None
    made.returned(held.worker, Returned(lease, held.generation, reason, due_ms, read), end, 1, now)


def test_a_function_runs_in_as_many_places_as_it_may_over_all_its_keys() -> None:
    made = table({"bill": 2, "bill:3": 2, "ship": 2})
    made.limit("bill", 3, 0.0)

    assert granted(made, 0.0) == [1, 2, 3, 5, 6]
    assert made.busy("bill") == 3
    give_back(made, 1, reason="idle", now=0.5)
    assert granted(made, 0.5) == [4]


def test_lanes_of_a_shard_go_to_no_more_places_than_the_function_may_have() -> None:
    made = table({"bill": 1}, lanes=4)
    made.limit("bill", 2, 0.0)
    (grant,) = [action for action in made.plan(0.0) if isinstance(action, GrantLease)]

    assert (len(grant.leases), grant.spare) == (4, 1)


def test_shards_of_a_function_that_runs_as_often_as_it_may_take_turns() -> None:
    made = table({"bill": 3})
    made.limit("bill", 1, 0.0)
    assert granted(made, 0.0) == [1]

    assert made.next_due(0.1) == 1.0
    assert made.plan(0.9) == []
    assert made.plan(1.0) == [RetireLease(1, 1, 1)]
    give_back(made, 1, reason="retired", now=1.2)
    assert granted(made, 1.2) == [2]


def test_a_function_with_free_places_is_not_asked_to_give_any_to_one_that_may_have_no_more() -> None:
    made = table({"bill": 2, "ship": 1}, max_workers=2)
    made.limit("bill", 1, 0.0)
    assert granted(made, 0.0) == [1, 3]

    assert made.plan(1.0) == [RetireLease(1, 1, 1)]


def test_what_is_too_much_after_a_lower_limit_comes_back_after_its_attempt() -> None:
    made = table({"bill": 3})
    assert granted(made, 0.0) == [1, 2, 3]

    assert made.limit("bill", 1, 0.1) == [RetireLease(1, 1, 1), RetireLease(2, 2, 1)]
    give_back(made, 1, reason="retired", now=0.2)
    give_back(made, 2, reason="retired", now=0.2)
    assert granted(made, 0.2) == []
    made.limit("bill", None, 0.3)
    assert granted(made, 0.3) == [1, 2]


def test_a_job_that_was_let_in_counts_before_leases_do() -> None:
    made = table({"bill": 1})
    made.limit("bill", 1, 0.0)
    made.ask("bill", Job(1, None, 0.0))

    assert [type(action) for action in made.plan(0.0)][-1] is SendJob
    assert made.busy("bill") == 0
    made.ran(1, 0.5)
    assert granted(made, 0.5) == [1]


def test_nothing_of_a_function_with_limit_0_runs_and_all_of_it_goes_on_afterwards() -> None:
    made = table({"bill": 2, "ship": 1})
    made.limit("bill", 0, 0.0)

    assert granted(made, 0.0) == [3]
    assert made.is_blocked("bill")
    assert not made.is_short
    give_back(made, 3, reason="idle", now=1.0)
    assert made.next_due(1.0) == 61.0
    made.limit("bill", None, 2.0)
    assert granted(made, 2.0) == [1, 2]


def test_a_limit_of_0_holds_for_keys_that_come_later() -> None:
    made = table({})
    made.limit("bill", 0, 0.0)
    made.add(Lease(1, "bill:3", 1, 0, 0, settled_at=0.0))

    assert made.plan(0.0) == []
    made.limit("bill", 1, 1.0)
    assert granted(made, 1.0) == [1]


def test_leases_of_a_function_that_there_is_not_wait_for_it() -> None:
    made = table({"bill": 1})
    made.exists("bill", 0.0, exists=False)
    assert made.plan(0.0) == []
    made.limit("bill", 5, 0.0)
    assert made.plan(0.0) == []

    made.exists("bill", 1.0, exists=True)

    assert granted(made, 1.0) == [1]


def test_records_that_age_are_looked_at_while_their_function_may_not_run() -> None:
    made = table({"bill": 1}, ages=True)
    made.limit("bill", 0, 0.0)

    (grant,) = [action for action in made.plan(0.0) if isinstance(action, GrantLease)]
    assert grant.throttled
    assert made.busy("bill") == 0
    give_back(made, 1, reason="throttled", due_ms=60_000, now=0.1, end=900)
    assert (made.leases[1].state, made.leases[1].due) == (LeaseState.DUE, 60.1)
    made.news(1, 0, 1000, 20, 1.0)
    assert granted(made, 1.0) == []
    made.tick(60.1)
    (grant,) = [action for action in made.plan(60.1) if isinstance(action, GrantLease)]
    assert grant.throttled
    give_back(made, 1, reason="throttled", due_ms=9_000, now=60.2, end=1000)

    made.limit("bill", None, 61.0)
    (grant,) = [action for action in made.plan(61.0) if isinstance(action, GrantLease)]
    assert not grant.throttled


def test_a_look_that_ends_after_its_function_may_run_again_is_followed_by_a_run() -> None:
    made = table({"bill": 1}, ages=True)
    made.exists("bill", 0.0, exists=False)
    made.plan(0.0)
    made.exists("bill", 0.1, exists=True)
    give_back(made, 1, reason="throttled", due_ms=60_000, now=0.2, end=900)

    assert granted(made, 0.2) == [1]


def test_looks_do_not_count_for_the_limit_of_another_key() -> None:
    made = table({"bill:1": 1, "bill:2": 1}, ages=True)
    made.exists("bill:1", 0.0, exists=False)
    made.limit("bill", 1, 0.0)

    grants = {action.leases[0].id: action.throttled for action in made.plan(0.0) if isinstance(action, GrantLease)}

    assert grants == {1: True, 2: False}


def test_a_suspect_batch_of_a_blocked_function_holds_nobody_up() -> None:
    made = table({"bill": 1, "ship": 1})
    assert granted(made, 0.0) == [1, 2]
    give_back(made, 1, reason="suspect", due_ms=0, now=0.1)
    give_back(made, 2, reason="idle", now=0.1)
    made.limit("bill", 0, 0.2)
    made.tick(0.3)
    made.news(1, 0, 10, 2, 0.3)

    assert granted(made, 0.3) == [2]
    assert made.leases[1].state is LeaseState.READY
    made.limit("bill", None, 0.5)
    assert made.plan(0.5) == [RetireLease(2, 2, 2)]
    give_back(made, 2, reason="retired", now=0.6)
    assert granted(made, 0.6) == [1]


def test_the_leases_of_one_consumer_go_and_those_of_others_stay() -> None:
    made = table({"bill": 2, "ship": 1}, max_workers=2)
    assert granted(made, 0.0) == [1, 2]

    held, actions = made.remove_consumer("bill", 1)

    assert [lease.id for lease in held] == [1, 2]
    assert actions == [RetireLease(1, 1, 1), RetireLease(2, 2, 1)]
    assert list(made.leases) == [3]
    assert not made.has("bill", 1, 0)
    made.returned(1, Returned(1, 1, "retired", 0, 10), 20, 3, 0.5)
    made.plan(0.5)  # its place is for others
    made.ended(1, None, 0.6, died=False)
    assert granted(made, 0.6) == [3]
    again = Lease(4, "bill", 1, 0, 1, settled_at=0.6)
    made.add(again, 0.6)
    assert again.state is LeaseState.READY


def test_children_whose_consumer_went_and_came_back_wait_for_their_parents_again() -> None:
    made = LeaseTable(4)
    made.close_shard(1, 0, 0.0)
    for start in (1, 3):
        parent = Lease(start, "bill", 1, 0, 0, settled_at=0.0)
        child = Lease(start + 1, "bill", 1, 1, 0, settled_at=0.0, parents=(0,))
        made.add(parent, 0.0)
        made.add(child, 0.0)
        assert child.state is LeaseState.PARENTS
        if start == 1:
            made.remove_consumer("bill", 1)
    assert granted(made, 1.0) == [3]
    give_back(made, 3, reason="idle", now=1.1)
    assert made.leases[4].state is LeaseState.NEWS
