"""A lease whose function may not run: records still go by their age, and nothing is attempted."""

from __future__ import annotations

from kflow.broker.parked import ParkCondition
from kflow.lambda_.mapping import StepKind
from tests.stepping import Rig, fails_on


def test_a_batch_of_a_function_that_may_not_run_waits_for_its_age_and_costs_no_attempt() -> None:
    rig = Rig(maximum_record_age_in_seconds=60, maximum_retry_attempts=0)
    rig.put(b"1")
    rig.clock.advance(10_000)
    rig.put(b"2")

    rig.grant(throttled=True)
    step = rig.run()

    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "throttled", 50_001)
    assert rig.function.seen == []
    assert (rig.slot.invocations, rig.slot.attempt) == (0, 0)


def test_records_that_grow_too_old_meanwhile_are_parked_and_the_others_are_delivered_later() -> None:
    rig = Rig(maximum_record_age_in_seconds=60)
    rig.put(b"1")
    rig.clock.advance(10_000)
    rig.put(b"2")
    rig.grant(throttled=True)
    rig.clock.advance(rig.run().due_in_ms or 0)

    rig.grant(throttled=True)
    step = rig.run()

    (entry,) = rig.parking.entries
    assert [record.data for record in entry.records] == [b"1"]
    assert (entry.condition, entry.attempts) == (ParkCondition.RECORD_AGE_EXCEEDED, 0)
    assert (step.reason, step.due_in_ms) == ("throttled", 10_000)
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"2"]]


def test_a_batch_that_has_failed_keeps_its_attempts_and_is_not_halved_while_it_is_throttled() -> None:
    rig = Rig(fails_on(b"1"), maximum_record_age_in_seconds=600, maximum_retry_attempts=2)
    rig.put(b"1", b"2")
    rig.grant()
    rig.clock.advance(rig.run().due_in_ms or 0)

    rig.grant(throttled=True)
    step = rig.run()

    assert step.reason == "throttled"
    assert (rig.slot.attempt, rig.slot.invocations, rig.slot.count) == (1, 1, 2)
    rig.run_waits()
    assert rig.function.seen == [[b"1", b"2"]] * 3


def test_without_a_limit_on_age_a_throttled_batch_is_looked_at_again_in_an_hour() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.grant(throttled=True)

    assert rig.run().due_in_ms == 3_600_000


def test_the_call_that_ends_a_window_waits_as_well() -> None:
    rig = Rig(lambda datas: {"state": {}}, tumbling_window_in_seconds=60, maximum_record_age_in_seconds=600)
    rig.put(b"1")
    rig.grant()
    rig.run()
    rig.clock.advance(120_000)

    rig.grant(throttled=True)
    step = rig.run()

    assert (step.reason, step.due_in_ms) == ("throttled", 3_600_000)
    assert rig.function.seen == [[b"1"]]
