from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kflow.broker.checkpoints import SlotState
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_.mapping import Death, Grant, StepKind
from kflow.lambda_.shapes import EventShape
from tests.stepping import STREAM, Killed, Raised, Rig, fails_on, payloads

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited with error: exit status 1")
TIMEOUT = FunctionError(type="Sandbox.Timedout", message="Task timed out after 1.00 seconds")


def dies(datas: list[bytes]) -> None:
    raise Killed


def killed_inside(rig: Rig) -> None:
    """Step until the process dies in the handler."""
    with pytest.raises(Killed):
        rig.run()


def test_the_intent_is_written_before_the_handler_runs() -> None:
    rig = Rig(dies, batch_size=3)
    rig.put(*payloads(5))
    rig.grant()
    killed_inside(rig)
    slot = rig.slot
    assert (slot.state, slot.attempt, slot.count, slot.worker_pid, slot.epoch) == (SlotState.RUNNING, 1, 3, 4711, 1)
    assert (slot.checkpoint, slot.checkpoint_counter, slot.delivered) == ((0, 0), 1, 3)
    assert slot.request_id == rig.function.invocations[0].request_id


def test_a_reported_death_is_a_failed_attempt() -> None:
    rig = Rig(dies, maximum_retry_attempts=1)
    rig.put(b"1")
    rig.grant()
    killed_inside(rig)
    rig.died(EXIT)
    step = rig.run()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "backoff", 1_000)
    assert (rig.slot.state, rig.slot.attempt, rig.slot.error_type) == (SlotState.FAILED, 1, "Runtime.ExitError")
    rig.clock.advance(1_000)
    rig.grant()
    killed_inside(rig)
    rig.died(EXIT)
    assert rig.run().kind is StepKind.IDLE
    (entry,) = rig.parking.entries
    assert (entry.attempts, entry.error) == (2, EXIT)
    assert rig.results == ["failed", "parked"]
    assert rig.slot.failures == 2


def test_a_death_bisects_as_any_function_error() -> None:
    def handler(datas: list[bytes]) -> None:
        if b"3" in datas:
            raise Killed

    rig = Rig(handler, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    rig.put(*payloads(4))
    rig.grant()
    for _ in range(3):
        killed_inside(rig)
        rig.died(EXIT)
    rig.run()
    assert rig.function.seen == [payloads(4), [b"1", b"2"], [b"3", b"4"], [b"3"], [b"4"]]
    assert [record.data for record in rig.parking.entries[0].records] == [b"3"]


def test_a_death_whose_request_was_timed_out_counts_only_for_that_request() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    killed_inside(rig)
    rig.died(TIMEOUT, timed_out=True)
    rig.run()
    assert (rig.slot.attempt, rig.slot.error_type) == (1, "Sandbox.Timedout")
    rig.grant()
    killed_inside(rig)
    stale = Death(rig.pid, b"another request!", TIMEOUT)
    rig.pid += 1
    rig.drop()
    rig.grant(death=stale)
    killed_inside(rig)
    assert rig.slot.attempt == 2  # the second attempt was interrupted, and is made again


def test_a_death_of_another_process_is_not_this_attempts() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    killed_inside(rig)
    rig.drop()
    rig.grant(death=Death(1, None, EXIT))
    killed_inside(rig)
    assert rig.slot.attempt == 1


def test_a_death_between_attempts_counts_nothing() -> None:
    rig = Rig(fails_on(b"1"))
    rig.put(b"1")
    rig.grant()
    rig.run()
    rig.died(EXIT)
    rig.run()
    assert (rig.slot.attempt, rig.slot.failures) == (2, 2)
    assert [outcome.error.type for outcome in rig.outcomes if outcome.error] == ["ValueError", "ValueError"]


def test_an_interruption_is_delivered_again_and_never_counts() -> None:
    rig = Rig(dies, batch_size=2, maximum_retry_attempts=0)
    rig.put(*payloads(3))
    rig.grant()
    for _ in range(20):
        killed_inside(rig)
        rig.restart(clean=True)
    assert rig.function.seen == [[b"1", b"2"]] * 20
    assert (rig.slot.attempt, rig.slot.interruptions, rig.slot.failures) == (1, 0, 0)
    assert rig.parking.entries == []
    rig.function.handler = lambda datas: None
    assert rig.run().kind is StepKind.IDLE
    assert rig.slot.succeeded == 3


def test_an_interruption_keeps_the_attempts_that_failed() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=2)
    rig.put(b"1")
    rig.grant()
    rig.run()
    rig.function.handler = dies
    for _ in range(5):
        rig.restart()
        killed_inside(rig)
        assert rig.slot.attempt == 2
    rig.restart()
    rig.function.handler = fails_on(b"1")
    rig.run()
    assert rig.slot.attempt == 2
    assert rig.parking.entries == []


def test_an_interrupted_batch_has_the_same_records_though_more_have_come() -> None:
    rig = Rig(dies, batch_size=10)
    rig.put(b"1", b"2")
    rig.grant()
    killed_inside(rig)
    rig.put(b"3")
    rig.restart()
    rig.function.handler = lambda datas: None
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"1", b"2"], [b"3"]]


def test_three_interruptions_by_nodes_that_went_down_make_a_batch_suspect() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    for count in range(3):
        killed_inside(rig)
        assert rig.slot.interruptions == count
        rig.restart(clean=False)
    step = rig.run()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "suspect", 10_000)
    assert rig.slot.suspect
    assert len(rig.function.seen) == 3
    rig.grant(alone=True)
    killed_inside(rig)
    assert (rig.slot.attempt, rig.slot.interruptions) == (1, 3)


def test_a_suspect_batch_that_succeeds_alone_lets_the_others_run_again() -> None:
    rig = Rig(dies, batch_size=1)
    rig.put(b"1", b"2")
    rig.grant()
    for _ in range(3):
        killed_inside(rig)
        rig.restart(clean=False)
    rig.run()
    rig.function.handler = lambda datas: None
    rig.grant(alone=True)
    step = rig.run()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "alone", 0)
    assert rig.slot.interruptions == 0
    rig.grant()
    assert rig.run().kind is StepKind.IDLE
    assert rig.slot.succeeded == 2


def test_interruptions_without_a_node_that_went_down_make_nothing_suspect() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    for _ in range(5):
        killed_inside(rig)
        rig.drop()
        rig.grant(previous_epoch_clean=False)  # the same node: its zygote died
    assert rig.slot.interruptions == 0


def test_a_failure_that_was_seen_clears_the_suspicion() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    for _ in range(2):
        killed_inside(rig)
        rig.restart(clean=False)
    rig.function.handler = fails_on(b"1")
    rig.run()
    assert (rig.slot.attempt, rig.slot.interruptions) == (1, 0)


def test_the_same_engine_after_an_interruption_reads_the_batch_again() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    killed_inside(rig)
    rig.function.handler = lambda datas: None
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"1"]]
    assert rig.results == ["ok"]


def test_an_interrupted_handler_that_changed_its_records_gets_them_as_they_were() -> None:
    rig = Rig(shape=EventShape(STREAM.created_s, 0, arn="arn", region="r", role="role"))
    events: list[int] = []

    def invoke(invocation: Invocation) -> Outcome:
        events.append(len(invocation.records))
        records: Any = invocation.records
        records.clear()
        if len(events) == 1:
            raise Killed
        return Outcome()

    rig.function.invoke = invoke  # type: ignore[method-assign]
    rig.put(b"1", b"2")
    rig.grant()
    killed_inside(rig)
    rig.grant()
    rig.run()
    assert events == [2, 2]


# ---------------------------------------------------------------- other options


def test_options_that_form_other_batches_void_attempts_and_pieces() -> None:
    rig = Rig(fails_on(b"1"), batch_size=4, bisect_batch_on_function_error=True)
    rig.put(*payloads(4))
    rig.grant()
    rig.run()
    assert (rig.slot.attempt, rig.slot.stack) == (1, (2, 1))
    rig.options = msgspec.structs.replace(rig.options, batch_size=3)
    rig.function.handler = lambda datas: None
    rig.restart()
    rig.run()
    assert rig.function.seen[-2:] == [[b"1", b"2", b"3"], [b"4"]]
    assert rig.outcomes[-1].attempt == 1
    assert rig.slot.succeeded == 4


def test_other_code_and_other_retries_keep_attempts_and_pieces() -> None:
    rig = Rig(fails_on(b"1"), batch_size=4, maximum_retry_attempts=1)
    rig.put(*payloads(4))
    rig.grant()
    rig.run()
    rig.options = msgspec.structs.replace(rig.options, maximum_retry_attempts=5, bisect_batch_on_function_error=True)
    rig.restart()
    rig.run()
    assert rig.function.seen[1] == payloads(4)
    assert rig.slots.stored[-3].attempt == 2 or rig.slot.stack != ()


def test_a_death_with_other_options_is_still_told_and_counted() -> None:
    rig = Rig(dies, batch_size=4)
    rig.put(*payloads(4))
    rig.grant()
    killed_inside(rig)
    rig.options = msgspec.structs.replace(rig.options, batch_size=3)
    rig.function.handler = lambda datas: None
    rig.died(EXIT)
    rig.run()
    assert [(outcome.result.value, outcome.records, outcome.attempt) for outcome in rig.outcomes] == [
        ("failed", 4, 1),
        ("ok", 3, 1),
        ("ok", 1, 1),
    ]
    assert rig.slot.failures == 1


# ---------------------------------------------------------------- retention


def test_retention_that_passes_a_failing_batch_voids_it_and_counts_the_loss() -> None:
    rig = Rig(fails_on(b"1"), batch_size=4)
    rig.put(*payloads(2))
    rig.put(b"3", b"4")
    rig.grant()
    rig.run()
    rig.shard.expire(1)
    rig.restart()
    rig.run()
    assert rig.function.seen == [payloads(4), [b"3", b"4"]]
    assert rig.results == ["failed", "lost", "ok"]
    assert (rig.slot.lost, rig.slot.succeeded, rig.slot.attempt) == (2, 2, 0)


def test_a_death_is_counted_though_retention_has_passed_its_batch() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.put(b"2")
    rig.options = msgspec.structs.replace(rig.options, batch_size=1)
    rig.drop()
    rig.grant()
    killed_inside(rig)
    rig.shard.expire(1)
    rig.function.handler = lambda datas: None
    rig.died(EXIT)
    rig.run()
    assert (rig.slot.lost, rig.slot.failures, rig.slot.succeeded) == (1, 1, 1)
    assert rig.outcomes[0].error == EXIT


# ---------------------------------------------------------------- parked before the crash


def crash_after_parking(rig: Rig) -> None:
    """Let the process die between the parked file and the checkpoint."""
    parked = len(rig.parking.entries)
    park = rig.parking.park

    def park_and_die(entry: object) -> int:
        park(entry)  # type: ignore[arg-type]
        raise Killed

    rig.parking.park = park_and_die  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        rig.run()
    assert len(rig.parking.entries) == parked + 1
    rig.parking.park = park  # type: ignore[method-assign]


def test_what_was_parked_before_a_crash_is_settled_and_not_parked_again() -> None:
    rig = Rig(fails_on(b"1"), batch_size=2, maximum_retry_attempts=0)
    rig.put(*payloads(3))
    rig.grant()
    crash_after_parking(rig)
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"3"]]
    assert len(rig.parking.entries) == 1
    assert (rig.slot.parked, rig.slot.succeeded) == (2, 1)
    assert [(outcome.result.value, outcome.parked) for outcome in rig.outcomes] == [("parked", 1), ("ok", 0)]


def test_exactly_the_parked_range_is_settled_though_more_has_expired_since() -> None:
    rig = Rig(maximum_record_age_in_seconds=60)
    rig.put(b"1")
    rig.clock.advance(30_000)
    rig.put(b"2")
    rig.clock.advance(20_000)
    rig.put(b"3")
    rig.clock.advance(11_000)  # 1 has expired
    rig.grant()
    crash_after_parking(rig)
    rig.clock.advance(30_000)  # now 2 has, too
    rig.restart()
    rig.run()
    assert [[record.data for record in entry.records] for entry in rig.parking.entries] == [[b"1"], [b"2"]]
    assert rig.function.seen == [[b"3"]]
    assert rig.results == ["expired", "expired", "ok"]


def test_a_parked_piece_is_settled_and_the_next_piece_follows() -> None:
    rig = Rig(fails_on(b"1"), batch_size=2, maximum_retry_attempts=0, bisect_batch_on_function_error=True)
    rig.put(*payloads(2))
    rig.grant()
    crash_after_parking(rig)
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"1"], [b"2"]]
    assert (rig.slot.parked, rig.slot.succeeded, rig.slot.stack) == (1, 1, ())


def test_a_file_of_an_earlier_pass_over_the_records_settles_nothing() -> None:
    rig = Rig(fails_on(b"1"), batch_size=1, maximum_retry_attempts=1)
    rig.put(b"1")
    rig.run_waits()
    assert (len(rig.function.seen), len(rig.parking.entries)) == (2, 1)
    rig.slots.slot = msgspec.structs.replace(rig.slot, checkpoint=(0, 0), checkpoint_counter=1)  # replay, totals stay
    rig.drop()
    rig.run_waits()
    assert len(rig.function.seen) == 4
    assert rig.slot.parked == 2


def test_a_stale_grant_of_the_same_engine_is_replaced_by_the_new_one() -> None:
    rig = Rig(fails_on(b"1"))
    rig.put(b"1")
    rig.grant()
    rig.run()
    rig.engine.resume(Grant(9, 99))
    rig.run()
    assert (rig.slot.epoch, rig.slot.worker_pid) == (9, 99)


def test_a_handler_error_is_told_with_its_own_words_when_it_is_parked_in_the_same_life() -> None:
    error = FunctionError(type="ValueError", message="x" * 1000, trace=("frame",))

    def handler(datas: list[bytes]) -> None:
        raised = Raised()
        raised.error = error
        raise raised

    rig = Rig(handler, maximum_retry_attempts=0)
    rig.put(b"1")
    rig.grant()
    rig.run()
    assert rig.parking.entries[0].error == error
    assert rig.outcomes[-1].error == error
