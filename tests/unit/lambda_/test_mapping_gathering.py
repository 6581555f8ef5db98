from __future__ import annotations

import json
from typing import Any

import pytest

from kflow import arn
from kflow.broker.checkpoints import Slot
from kflow.broker.parked import ParkCondition
from kflow.interfaces import Outcome
from kflow.lambda_.mapping import StepKind
from kflow.lambda_.shapes import EventShape
from kflow.records import Position
from tests.stepping import STREAM, Rig, payloads


def test_nothing_to_read_is_idle_and_invokes_nothing() -> None:
    rig = Rig()
    rig.grant()
    step = rig.step()
    assert (step.kind, step.read_offset, step.outcomes) == (StepKind.IDLE, 0, ())
    assert rig.function.seen == []
    assert rig.slots.stored == []


def test_one_record_is_one_batch_at_once() -> None:
    rig = Rig()
    block = rig.put(b"a")
    rig.grant()
    step = rig.step()
    assert rig.function.seen == [[b"a"]]
    assert (step.kind, step.position, step.read_offset) == (StepKind.IDLE, Position(block.end, 0), block.end)
    assert rig.results == ["ok"]
    assert rig.slot.checkpoint == Position(block.end, 0)
    assert rig.slot.checkpoint_counter == 2


def test_an_attempt_costs_one_intent_and_one_checkpoint() -> None:
    rig = Rig()
    rig.put(*payloads(100))
    rig.grant()
    rig.run()
    assert [slot.state.name for slot in rig.slots.stored] == ["RUNNING", "IDLE"]
    assert rig.shard.reads == 1


def test_a_batch_spans_blocks_and_a_block_is_cut_into_batches() -> None:
    rig = Rig(batch_size=4)
    rig.put(b"1", b"2", b"3")
    rig.put(b"4", b"5", b"6", b"7", b"8", b"9")
    rig.put(b"10")
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1", b"2", b"3", b"4"], [b"5", b"6", b"7", b"8"], [b"9", b"10"]]
    assert rig.shard.reads == 1


def test_records_carry_their_sequence_numbers_across_blocks_and_cuts() -> None:
    rig = Rig(batch_size=2)
    rig.put(*payloads(3))
    rig.put(*payloads(2))
    rig.grant()
    rig.run()
    numbers = [record.sequence_number for invocation in rig.function.invocations for record in invocation.records]
    assert [number >> 80 & 0xFFFF for number in numbers] == [1, 2, 3, 4, 5]


def test_the_checkpoint_inside_a_block_names_the_next_record() -> None:
    rig = Rig(batch_size=2)
    block = rig.put(*payloads(3))
    rig.grant()
    step = rig.step()
    assert (step.kind, step.position) == (StepKind.AGAIN, Position(block.offset, 2))
    assert rig.slot.checkpoint_counter == 3
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"3"]]


def test_what_was_appended_since_the_read_joins_the_batch_that_is_not_full() -> None:
    rig = Rig(batch_size=4)
    rig.put(*payloads(6))
    rig.grant()
    rig.step()
    rig.put(b"7", b"8", b"9")
    rig.run()
    assert rig.function.seen == [[b"1", b"2", b"3", b"4"], [b"5", b"6", b"7", b"8"], [b"9"]]


def test_a_batch_larger_than_one_read_is_gathered_over_several_steps() -> None:
    rig = Rig(batch_size=10)
    for _ in range(6):
        rig.put(bytes(400_000))
    rig.grant()
    kinds = [rig.step().kind for _ in range(3)]
    assert kinds == [StepKind.AGAIN, StepKind.AGAIN, StepKind.IDLE]
    assert [len(seen) for seen in rig.function.seen] == [6]


def test_a_batch_closes_before_the_record_that_would_exceed_the_event_limit() -> None:
    rig = Rig(batch_size=100)
    for _ in range(9):
        rig.put(bytes(1_000_000))  # 1,333,336 bytes of base64 each: four fit into 6 MiB, with their envelopes
    rig.grant()
    rig.run()
    assert [len(seen) for seen in rig.function.seen] == [4, 4, 1]


def test_many_small_records_are_cut_by_the_size_of_their_envelopes() -> None:
    rig = Rig(batch_size=10_000)
    for _ in range(3):
        rig.put(*[b"x" * 300] * 4_000)
    rig.grant()
    rig.run()
    sizes = [len(seen) for seen in rig.function.seen]
    assert sum(sizes) == 12_000
    assert 6_000 < sizes[0] < 8_000


def test_a_record_above_the_event_limit_is_parked_and_never_sent() -> None:
    rig = Rig()
    rig.put(b"before")
    rig.put(bytes(5_000_000))
    rig.put(b"after")
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"before"], [b"after"]]
    (entry,) = rig.parking.entries
    assert (entry.first_counter, entry.last_counter, entry.attempts) == (2, 2, 0)
    assert entry.condition is ParkCondition.RETRY_ATTEMPTS_EXHAUSTED
    assert entry.error is not None
    assert entry.error.type == "RequestTooLargeException"
    assert rig.results == ["ok", "parked", "ok"]
    assert (rig.slot.succeeded, rig.slot.parked) == (2, 1)


def test_totals_count_deliveries_at_the_intent_and_successes_at_the_checkpoint() -> None:
    rig = Rig(batch_size=2)
    rig.put(*payloads(5))
    rig.grant()
    rig.run()
    slot = rig.slot
    assert (slot.delivered, slot.succeeded, slot.invocations, slot.failures) == (5, 5, 3, 0)
    assert rig.slots.stored[0].delivered == 2
    assert rig.slots.stored[0].succeeded == 0


def test_a_handler_that_pops_its_records_does_not_change_what_is_settled() -> None:
    rig = Rig(batch_size=3)
    invoke = rig.function.invoke

    def popping(invocation: Any) -> Outcome:
        outcome = invoke(invocation)
        while invocation.records:
            invocation.records.pop()
        return outcome

    rig.function.invoke = popping  # type: ignore[method-assign]
    rig.put(*payloads(5))
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1", b"2", b"3"], [b"4", b"5"]]
    assert rig.slot.succeeded == 5
    assert [outcome.records for outcome in rig.outcomes] == [3, 2]


def test_an_engine_that_is_resumed_goes_on_without_reading_again() -> None:
    rig = Rig(batch_size=1)
    rig.put(b"1", b"2", b"3")
    rig.grant()
    rig.step()
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"2"], [b"3"]]
    assert rig.shard.reads == 1


def test_an_engine_whose_slot_was_moved_meanwhile_starts_there() -> None:
    rig = Rig(batch_size=1)
    rig.put(b"1", b"2", b"3")
    rig.grant()
    rig.step()
    rig.slots.slot = Slot()
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1"], [b"1"], [b"2"], [b"3"]]


# ---------------------------------------------------------------- batching window


def test_a_window_waits_from_the_last_completion_and_says_which_counter_fills_it() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1", b"2")
    rig.grant(since_completion_ms=500)
    step = rig.step()
    assert (step.kind, step.reason, step.due_in_ms, step.want_counter) == (StepKind.WAIT, "window", 1_500, 6)
    assert rig.function.seen == []


def test_a_window_delivers_what_is_there_when_it_ends() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1", b"2")
    rig.grant(since_completion_ms=500)
    rig.step()
    rig.put(b"3")
    rig.clock.advance(1_500)
    rig.grant(since_completion_ms=2_003)  # the node's timer is never early, and sometimes late
    assert rig.run().kind is StepKind.IDLE
    assert rig.function.seen == [[b"1", b"2", b"3"]]


def test_another_worker_is_told_that_the_window_is_over() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1", b"2")
    rig.drop()
    rig.grant(since_completion_ms=2_003, window_due=True)
    assert rig.run().kind is StepKind.IDLE
    assert rig.function.seen == [[b"1", b"2"]]
    rig.put(b"3")
    assert rig.run().reason == "window"


def test_a_full_batch_does_not_wait_for_its_window() -> None:
    rig = Rig(batch_size=2, maximum_batching_window_in_seconds=300)
    rig.put(b"1", b"2", b"3")
    rig.grant()
    assert rig.step().kind is StepKind.AGAIN
    assert rig.function.seen == [[b"1", b"2"]]
    step = rig.run()
    assert (step.kind, step.reason, step.due_in_ms, step.want_counter) == (StepKind.WAIT, "window", 300_000, 5)


def test_an_event_that_is_full_does_not_wait_for_its_window() -> None:
    rig = Rig(batch_size=100, maximum_batching_window_in_seconds=300)
    for _ in range(5):
        rig.put(bytes(1_000_000))
    rig.grant()
    step = rig.run()
    assert [len(seen) for seen in rig.function.seen] == [4]
    assert (step.kind, step.reason) == (StepKind.WAIT, "window")


def test_the_next_window_starts_when_the_invocation_ends() -> None:
    rig = Rig(batch_size=2, maximum_batching_window_in_seconds=10)
    rig.function.takes_ms = 3_000
    rig.put(b"1", b"2", b"3")
    rig.grant()
    begin = rig.clock.monotonic_ms
    rig.step()
    step = rig.step()
    assert rig.clock.monotonic_ms - begin == 3_000
    assert (step.reason, step.due_in_ms) == ("window", 10_000)


def test_after_a_window_without_records_the_next_one_runs() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1")
    rig.grant(since_completion_ms=5_500)
    assert rig.step().due_in_ms == 500


def test_each_batch_has_a_window_of_its_own() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1")
    rig.grant()
    assert rig.run().due_in_ms == 2_000
    rig.clock.advance(2_000)
    rig.put(b"2")
    assert rig.step().kind is StepKind.IDLE
    rig.put(b"3")
    assert rig.step().due_in_ms == 2_000
    assert rig.function.seen == [[b"1", b"2"]]


def test_a_drain_ends_windows_at_once() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=300)
    rig.put(b"1")
    rig.grant(window_over=True)
    assert rig.run().kind is StepKind.IDLE
    assert rig.function.seen == [[b"1"]]


def test_a_window_is_not_moved_by_a_step_of_the_wall_clock() -> None:
    rig = Rig(batch_size=5, maximum_batching_window_in_seconds=2)
    rig.put(b"1")
    rig.grant()
    rig.clock.epoch_ms -= 3_600_000
    assert rig.step().due_in_ms == 2_000
    rig.clock.advance(2_000)
    rig.clock.epoch_ms += 7_200_000
    rig.grant(since_completion_ms=2_000)
    rig.run()
    assert rig.function.seen == [[b"1"]]


# ---------------------------------------------------------------- retention


def test_records_that_retention_removed_are_counted_as_lost_and_passed() -> None:
    rig = Rig()
    rig.put(*payloads(3))
    rig.put(b"4")
    rig.shard.expire(1)
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"4"]]
    assert [(outcome.result.value, outcome.records) for outcome in rig.outcomes] == [("lost", 3), ("ok", 1)]
    assert (rig.slot.lost, rig.slot.succeeded) == (3, 1)


def test_a_checkpoint_inside_a_block_that_is_gone_loses_only_what_was_not_settled() -> None:
    rig = Rig(batch_size=2)
    rig.put(*payloads(5))
    rig.put(b"6")
    rig.grant()
    rig.step()
    rig.shard.expire(1)
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"6"]]
    assert rig.slot.lost == 3


def test_what_was_read_before_retention_passed_it_is_delivered_and_then_the_loss_is_told() -> None:
    rig = Rig(batch_size=2)
    rig.put(*[bytes(349_500)] * 3)  # as much as one read takes
    rig.put(b"4")
    rig.put(b"5")
    rig.grant()
    rig.step()
    rig.shard.expire(2)
    rig.run()
    assert [len(seen) for seen in rig.function.seen] == [2, 1, 1]
    assert rig.function.seen[-1] == [b"5"]
    assert rig.results == ["ok", "ok", "lost", "ok"]
    assert rig.slot.lost == 1


def test_everything_expired_leaves_an_idle_lease_at_the_horizon() -> None:
    rig = Rig()
    rig.put(*payloads(3))
    end = rig.put(b"4").end
    rig.shard.expire(2)
    rig.grant()
    step = rig.run()
    assert (step.kind, step.position, step.read_offset) == (StepKind.IDLE, Position(end, 0), end)
    assert (rig.slot.lost, rig.slot.checkpoint_counter) == (4, 5)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_every_record_is_delivered_once_and_in_order_whatever_the_batch_size(size: int) -> None:
    rig = Rig(batch_size=size)
    sent = payloads(60)
    for start in (0, 1, 5, 30):
        stop = {0: 1, 1: 5, 5: 30, 30: 60}[start]
        rig.put(*sent[start:stop])
    rig.grant()
    rig.run()
    assert [data for seen in rig.function.seen for data in seen] == sent


# ---------------------------------------------------------------------- read-ahead


def test_no_more_is_read_ahead_than_fills_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 10,000 records of 1 MiB would be 10 GB: what is held is one event, and one read beyond."""
    read: list[int] = []
    rig = Rig(batch_size=10_000)
    for _ in range(40):
        rig.put(b"x" * 1_000_000)
    plain = rig.shard.read

    def noting(offset: int, max_bytes: int = 1 << 20) -> Any:
        found = plain(offset, max_bytes)
        read.extend(len(block.body) for block in found)
        return found

    monkeypatch.setattr(rig.shard, "read", noting)
    rig.grant()
    held = []
    while rig.step().kind is StepKind.AGAIN:
        delivered = sum(len(data) for datas in rig.function.seen for data in datas)
        held.append(sum(read) - delivered)
    assert max(held) <= 6 * 1024 * 1024 + (1 << 20)
    assert [len(datas) for datas in rig.function.seen] == [4] * 10


def test_small_records_fill_a_batch_of_ten_thousand_where_they_fit() -> None:
    rig = Rig(batch_size=10_000)
    for _ in range(10):
        rig.put(*[b"x" * 60] * 1000)
    rig.grant()
    rig.run()
    assert sum(map(len, rig.function.seen)) == 10_000
    assert len(rig.function.seen[0]) > 9_000


@pytest.mark.parametrize("filters", [(), ('{"data": {"n": [{"exists": true}]}}',)], ids=["all", "filtered"])
@pytest.mark.parametrize("key", ["\x01" * 256, '"' * 256, "\n" + "k" * 255], ids=["control", "quotes", "one of them"])
def test_an_event_is_within_its_limit_whatever_characters_its_keys_have(key: str, filters: tuple[str, ...]) -> None:
    rig = Rig(batch_size=10_000, filters=filters)
    events = EventShape(
        STREAM.created_s,
        0,
        arn=arn.stream_arn("ap-southeast-2", "123456789012", "orders"),
        region="ap-southeast-2",
        role=arn.role_arn("123456789012", "bill"),
    )
    for _ in range(12):
        rig.put(*[b'{"n": 1}'] * 1000, key=key)
    rig.grant()
    rig.run()
    assert sum(map(len, rig.function.seen)) == 12_000
    sizes = [
        len(json.dumps({"Records": events.rebuild(call.records)}, separators=(",", ":"), ensure_ascii=False).encode())
        for call in rig.function.invocations
    ]
    assert max(sizes) <= 6 * 1024 * 1024
    if not filters:
        assert max(sizes) > 6 * 1024 * 1024 - 32 * 1024


def test_a_batch_of_ten_thousand_empty_payloads_is_one_event() -> None:
    rig = Rig(batch_size=10_000, report_batch_item_failures=True, bisect_batch_on_function_error=True)
    rig.put(*[b""] * 10_000)
    rig.grant()
    rig.run()
    assert [len(datas) for datas in rig.function.seen] == [10_000]
    assert rig.slot.succeeded == 10_000


def test_a_full_event_does_not_wait_for_the_batching_window() -> None:
    rig = Rig(batch_size=1000, maximum_batching_window_in_seconds=300)
    for _ in range(8):
        rig.put(b"x" * 1_000_000)
    rig.grant()
    step = rig.run()
    assert [len(datas) for datas in rig.function.seen] == [4]
    assert step.reason == "window"
