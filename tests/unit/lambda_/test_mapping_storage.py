from __future__ import annotations

from typing import Any

import pytest

from kflow.broker.checkpoints import SlotState
from kflow.errors import Damaged
from kflow.interfaces import FunctionError
from kflow.lambda_.mapping import StepKind
from tests.stepping import Killed, Rig, fails_on, payloads

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")


def refuse(rig: Rig, *states: SlotState) -> None:
    rig.slots.refuse = lambda slot: slot.state in states


def accept(rig: Rig) -> None:
    rig.slots.refuse = lambda slot: False


def test_an_intent_that_cannot_be_written_invokes_nothing_and_counts_nothing() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=0)
    rig.put(b"1")
    refuse(rig, SlotState.RUNNING)
    for _ in range(5):
        rig.grant()
        step = rig.run()
        assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "storage", 1_000)
        assert "No space left" in step.detail
    assert rig.function.seen == []
    accept(rig)
    rig.grant()
    rig.run()
    assert len(rig.function.seen) == 1
    assert rig.parking.entries[0].attempts == 1
    assert rig.slot.invocations == 1


def test_a_checkpoint_that_cannot_be_written_is_held_and_the_handler_never_runs_again() -> None:
    rig = Rig()
    rig.put(b"1")
    refuse(rig, SlotState.IDLE)
    rig.grant()
    for _ in range(4):
        step = rig.run()
        assert (step.kind, step.reason, step.due_in_ms, step.outcomes) == (StepKind.HOLD, "storage", 1_000, ())
        rig.clock.advance(1_000)
    accept(rig)
    rig.put(b"2")
    step = rig.step()
    assert (step.kind, [outcome.result.value for outcome in step.outcomes]) == (StepKind.AGAIN, ["ok"])
    rig.run()
    assert rig.function.seen == [[b"1"], [b"2"]]
    assert rig.slot.succeeded == 2


def test_a_failure_that_cannot_be_written_is_held_and_still_counts() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=1)
    rig.put(b"1")
    refuse(rig, SlotState.FAILED)
    rig.grant()
    assert rig.run().kind is StepKind.HOLD
    accept(rig)
    step = rig.run()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "backoff", 1_000)
    assert (rig.slot.attempt, len(rig.function.seen)) == (1, 1)


def test_a_held_outcome_whose_process_ends_is_an_interruption() -> None:
    rig = Rig(maximum_retry_attempts=0)
    rig.put(b"1")
    refuse(rig, SlotState.IDLE)
    rig.grant()
    rig.run()
    accept(rig)
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"1"]]
    assert (rig.slot.succeeded, rig.slot.delivered, rig.parking.entries) == (1, 2, [])


def test_an_engine_that_is_resumed_with_a_held_outcome_believes_the_slot() -> None:
    rig = Rig(batch_size=1)
    rig.put(b"1", b"2")
    refuse(rig, SlotState.IDLE)
    rig.grant()
    rig.run()
    accept(rig)
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"1"], [b"2"]]


def test_a_split_that_cannot_be_written_is_held() -> None:
    rig = Rig(fails_on(b"1"), batch_size=2, maximum_retry_attempts=0, bisect_batch_on_function_error=True)
    rig.put(*payloads(2))
    refuse(rig, SlotState.FAILED)
    rig.grant()
    assert rig.run().kind is StepKind.HOLD
    accept(rig)
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"1"], [b"2"]]


def test_parking_that_fails_waits_and_invokes_nothing() -> None:
    rig = Rig(fails_on(b"1"), batch_size=1, maximum_retry_attempts=0)
    rig.put(b"1", b"2")
    rig.parking.refuse = True
    for _ in range(4):
        rig.grant()
        step = rig.run()
        assert (step.kind, step.reason) == (StepKind.WAIT, "storage")
    assert rig.function.seen == [[b"1"]]
    rig.drop()
    rig.parking.refuse = False
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"2"]]
    (entry,) = rig.parking.entries
    assert entry.attempts == 1
    assert entry.error is not None
    assert (entry.error.type, entry.error.message) == ("ValueError", "1 is poison")


def test_a_checkpoint_behind_parked_records_that_cannot_be_written_is_held() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=0)
    rig.put(b"1")
    refuse(rig, SlotState.IDLE)
    rig.grant()
    assert rig.run().kind is StepKind.HOLD
    assert rig.run().kind is StepKind.HOLD
    assert len(rig.parking.entries) == 1
    accept(rig)
    assert rig.run().kind is StepKind.IDLE
    assert (len(rig.parking.entries), len(rig.function.seen)) == (1, 1)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), Damaged("the block at offset 0 is damaged")])
def test_a_shard_that_cannot_be_read_waits(error: Exception) -> None:
    rig = Rig()
    rig.put(b"1")
    rig.shard.broken = error
    rig.grant()
    step = rig.run()
    assert (step.kind, step.reason, step.detail) == (StepKind.WAIT, "storage", str(error))
    rig.shard.broken = None
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"]]


def test_a_slot_that_cannot_be_read_waits() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.slots.unreadable = True
    rig.grant()
    assert (rig.run().reason, rig.function.seen) == ("storage", [])
    rig.slots.unreadable = False
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"]]


def test_a_death_is_kept_until_it_could_be_counted() -> None:
    def handler(datas: list[bytes]) -> Any:
        raise Killed

    rig = Rig(handler)
    rig.put(b"1")
    rig.grant()
    with pytest.raises(Killed):
        rig.run()
    rig.slots.unreadable = True
    rig.died(EXIT)
    assert rig.run().kind is StepKind.HOLD
    rig.slots.unreadable = False
    rig.shard.broken = OSError(5, "Input/output error")
    assert rig.run().kind is StepKind.HOLD
    rig.shard.broken = None
    refuse(rig, SlotState.FAILED)
    assert rig.run().kind is StepKind.HOLD
    accept(rig)
    assert rig.run().reason == "backoff"
    assert (rig.slot.attempt, rig.slot.error_type, len(rig.function.seen)) == (1, "Runtime.ExitError", 1)


def test_a_loss_that_cannot_be_written_is_held_and_told_once() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.put(b"2")
    rig.shard.expire(1)
    refuse(rig, SlotState.IDLE)
    rig.grant()
    assert rig.run().kind is StepKind.HOLD
    accept(rig)
    rig.run()
    assert rig.results == ["lost", "ok"]
    assert (rig.slot.lost, rig.function.seen) == (1, [[b"2"]])


def test_a_loss_that_was_not_written_is_found_again_by_the_next_grant() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.put(b"2")
    rig.shard.expire(1)
    refuse(rig, SlotState.IDLE)
    rig.grant()
    rig.run()
    accept(rig)
    rig.grant()
    rig.run()
    assert rig.results == ["lost", "ok"]
    assert rig.slot.lost == 1


def test_an_exception_of_the_invoker_passes_through() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.grant()

    def handler(datas: list[bytes]) -> Any:
        raise OSError(28, "the handler's own")

    rig.function.handler = handler
    with pytest.raises(OSError, match="the handler's own"):
        rig.run()
    assert rig.slot.state is SlotState.RUNNING


# ---------------------------------------------------------------------- damage


def test_a_damaged_block_is_said_with_its_offset_and_nothing_is_attempted() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.shard.broken = Damaged("the block at offset 4096 fails its checksum", 4096)
    rig.grant()
    step = rig.step()
    assert (step.kind, step.reason, step.damaged_at) == (StepKind.WAIT, "damage", 4096)
    assert "4096" in step.detail
    rig.shard.broken = None
    rig.grant()
    assert rig.run().damaged_at == -1
    assert rig.function.seen == [[b"1"]]


def test_a_damaged_slot_is_no_damage_of_the_shard() -> None:
    rig = Rig()
    rig.put(b"1")
    rig.shard.broken = Damaged("both copies are damaged")
    rig.grant()
    step = rig.step()
    assert (step.reason, step.damaged_at) == ("storage", -1)


def test_a_death_is_counted_though_its_batch_cannot_be_read_any_more() -> None:
    rig = Rig(dies, maximum_retry_attempts=1)
    rig.put(b"1")
    rig.grant()
    with pytest.raises(Killed):
        rig.step()
    rig.shard.broken = Damaged("the block fails its checksum", 0)
    rig.died(EXIT)
    step = rig.step()
    assert (step.kind, step.reason, step.damaged_at) == (StepKind.WAIT, "damage", 0)
    assert (rig.slot.state.name, rig.slot.attempt, rig.slot.failures) == ("FAILED", 1, 1)
    rig.shard.broken = None
    rig.grant()
    with pytest.raises(Killed):
        rig.step()
    rig.died(EXIT)
    rig.run()
    assert rig.parking.entries[0].attempts == 2


def test_a_death_is_kept_where_neither_the_batch_can_be_read_nor_the_slot_be_written() -> None:
    rig = Rig(dies)
    rig.put(b"1")
    rig.grant()
    with pytest.raises(Killed):
        rig.step()
    rig.shard.broken = Damaged("the block fails its checksum", 0)
    rig.slots.refuse = lambda slot: True
    rig.died(EXIT)
    assert rig.step().kind is StepKind.HOLD
    rig.slots.refuse = lambda slot: False
    assert rig.step().reason == "damage"
    assert rig.slot.attempt == 1


def dies(datas: list[bytes]) -> None:
    raise Killed


EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")
