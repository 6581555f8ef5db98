"""Jobs beside leases: invocations and parked entries, and what a function means anew, stepped by hand."""

from __future__ import annotations

from kflow.runtime.messages import Returned
from kflow.runtime.plan.leases import (
    GrantLease,
    Job,
    Lease,
    LeaseTable,
    RefuseJob,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
)
from kflow.runtime.plan.places import NESTED


def table(functions: dict[str, int], *, max_workers: int) -> LeaseTable:
    made = LeaseTable(max_workers)
    number = 0
    for function, shards in functions.items():
        for shard in range(shards):
            number += 1
            made.add(Lease(number, function, 1, shard, 0, settled_at=0.0))
    return made


def give_back(made: LeaseTable, worker: int, *, reason: str, due_ms: int | None, now: float) -> None:
    (lease,) = made.places[worker].leases.values()
    made.returned(worker, Returned(lease.id, lease.generation, reason, due_ms, 0), 0, 0, now)


def test_a_lease_that_waits_much_longer_than_every_job_goes_first() -> None:
    made = table({"bill": 0, "ship": 1}, max_workers=1)
    made.leases[1].ready_since = 0.0
    made.ask("bill", Job(1, None, 0.0))
    assert made.plan(0.0) == [StartWorker(1, "bill"), SendJob(1, Job(1, None, 0.0))]
    made.ran(1, 2.0)
    made.ask("bill", Job(2, None, 2.0))

    assert made.plan(2.0) == [StopWorker(1)]
    made.ended(1, None, 2.1, died=False)
    assert [type(action) for action in made.plan(2.1)] == [StartWorker, GrantLease]
    give_back(made, 2, reason="idle", due_ms=None, now=2.5)
    assert made.plan(2.5) == [StopWorker(2)]
    made.ended(2, None, 2.6, died=False)
    assert made.plan(2.6) == [StartWorker(3, "bill"), SendJob(3, Job(2, None, 2.0))]


def test_a_function_that_means_something_else_gets_new_workers_for_what_comes() -> None:
    made = table({"bill": 2}, max_workers=4)
    made.plan(0.0)
    give_back(made, 2, reason="idle", due_ms=None, now=0.5)

    assert made.renew("bill", 1.0) == [RetireLease(1, 1, 1), StopWorker(2)]
    assert made.renew("bill", 1.0) == []
    made.ask("bill", Job(1, None, 1.0))
    assert made.plan(1.0) == [StartWorker(3, "bill"), SendJob(3, Job(1, None, 1.0))]
    give_back(made, 1, reason="retired", due_ms=0, now=1.5)
    assert made.plan(1.5) == [StartWorker(4, "bill"), GrantLease(4, (made.leases[1],)), StopWorker(1)]


def test_a_job_that_runs_ends_in_the_environment_it_began_in() -> None:
    made = table({"bill": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)

    assert made.renew("bill", 0.5) == []
    assert made.plan(0.5) == []
    made.ran(1, 1.0)
    assert made.plan(1.0) == [StopWorker(1)]


def test_jobs_that_wait_are_forgotten_and_those_that_run_are_not() -> None:
    made = table({"bill": 0, "ship": 0}, max_workers=1)
    for number, function in enumerate(("bill", "bill", "ship")):
        made.ask(function, Job(number, None, 0.0))
    assert made.plan(0.0) == [StartWorker(1, "bill"), SendJob(1, Job(0, None, 0.0))]

    assert made.forget_jobs("bill") == [Job(1, None, 0.0)]
    assert made.forget_jobs() == [Job(2, None, 0.0)]
    made.ran(1, 1.0)
    assert made.plan(1.0) == []


def test_a_function_that_ends_its_process_in_jobs_may_be_tried_again_soon() -> None:
    made = table({"bill": 0}, max_workers=1)
    now, waits = 0.0, []
    for number in range(1, 7):
        made.ask("bill", Job(number, None, now))
        assert [type(action) for action in made.plan(now)] == [StartWorker, SendJob]
        made.ended(number, None, now, died=True)
        waits.append(round(made.pools["bill"].not_before - now, 3))
        now += 1.0
    assert waits == [0.1, 0.2, 0.4, 0.4, 0.4, 0.4]

    made.ask("bill", Job(7, None, now))
    made.plan(now)
    made.ran(7, now)
    assert made.pools["bill"].deaths == 0


def test_a_place_that_waits_for_another_function_is_not_counted() -> None:
    made = table({"bill": 0, "ship": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)
    assert made.waits(1)
    made.ask("ship", Job(2, None, 0.1))

    assert made.plan(0.1) == [StartWorker(2, "ship"), SendJob(2, Job(2, None, 0.1))]
    made.ran(2, 0.2)
    made.goes_on(1)
    assert made.plan(0.2) == [StopWorker(2)]
    made.ended(2, None, 0.3, died=False)
    made.ask("ship", Job(3, None, 0.3))
    assert made.plan(0.3) == []


def test_a_function_that_invokes_itself_gets_so_many_places_and_no_more() -> None:
    made = table({"bill": 0}, max_workers=1)
    for number in range(1, 1 + 1 + NESTED):
        made.ask("bill", Job(number, None, 0.0))
        assert made.plan(0.0) == [StartWorker(number, "bill"), SendJob(number, Job(number, None, 0.0))]
        assert made.waits(number)
    made.ask("bill", Job(1000, None, 0.0))
    assert made.plan(0.0) == []


def test_only_what_runs_waits() -> None:
    made = table({"bill": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)
    made.ran(1, 0.1)
    assert not made.waits(1)
    assert not made.waits(2)


def test_who_waited_and_died_makes_no_room_any_more() -> None:
    made = table({"bill": 0, "ship": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)
    assert made.waits(1)
    assert made.waits(1)
    made.ended(1, None, 0.1, died=True)
    made.ask("ship", Job(2, None, 0.1))
    made.ask("ship", Job(3, None, 0.1))
    assert made.plan(0.1) == [StartWorker(2, "ship"), SendJob(2, Job(2, None, 0.1))]


def test_a_function_that_always_has_jobs_leaves_a_place_to_those_that_wait_longer() -> None:
    made = table({"bill": 0, "ship": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)
    made.ask("bill", Job(1, None, 0.1))
    made.ask("ship", Job(2, None, 0.1))
    now = 0.1
    while StopWorker(1) not in made.plan(now):
        assert now < 3
        now += 0.1
        made.ask("bill", Job(1, None, now))
        made.ran(1, now)
    assert 1.1 < now < 1.5
    made.ended(1, None, now, died=False)
    assert made.plan(now) == [StartWorker(2, "ship"), SendJob(2, Job(2, None, 0.1))]


def test_a_job_that_has_waited_too_long_is_not_run() -> None:
    made = table({"bill": 0}, max_workers=1)
    made.ask("bill", Job(1, None, 0.0))
    made.plan(0.0)
    made.ask("bill", Job(2, None, 0.0, until=5.0))
    made.ask("bill", Job(3, None, 0.0))
    made.ran(1, 5.0)

    assert made.plan(5.0) == [RefuseJob(Job(2, None, 0.0, until=5.0)), SendJob(1, Job(3, None, 0.0))]


def test_a_suspect_batch_that_runs_alone_gets_what_it_waits_for() -> None:
    made = table({"bill": 1, "ship": 0}, max_workers=1)
    made.plan(0.0)
    give_back(made, 1, reason="suspect", due_ms=0, now=0.5)
    made.tick(0.5)
    assert made.leases[1].alone
    assert [type(action) for action in made.plan(0.5)] == [GrantLease]
    made.ask("ship", Job(1, None, 0.6))
    assert made.plan(0.6) == []
    assert made.waits(1)
    assert made.plan(0.7) == [StartWorker(2, "ship"), SendJob(2, Job(1, None, 0.6))]
