"""The lanes of a shard: order per key, independent failures, the checkpoint of each, and how far one may run ahead."""

from __future__ import annotations

from typing import Any

import pytest

from kflow.broker.checkpoints import Slot
from kflow.lambda_.lanes import SharedSource
from kflow.lambda_.mapping import StepKind
from kflow.records import Position
from tests.stepping import Handler, Rig, fails_on

# MD5 modulo 2520, modulo 2: lane 0 and lane 1.
EVEN = "key-1"
ODD = "key-0"


class Lanes:
    """The two lanes of one shard, in one process."""

    def __init__(self, handler: Handler = lambda datas: None, **options: Any) -> None:
        options = {"parallelization_factor": 2, **options}
        first = Rig(handler, lane=0, floor=self.floor, **options)
        self.rigs = [first, Rig(handler, lane=1, beside=first, floor=self.floor, **options)]
        self.source = SharedSource(first.shard)
        for rig in self.rigs:
            rig.source = self.source
            rig.drop()

    def floor(self) -> tuple[Position, int]:
        slot: Slot = min((rig.slot for rig in self.rigs), key=lambda slot: slot.checkpoint_counter)
        return slot.checkpoint, slot.checkpoint_counter

    def put(self, *records: tuple[str, bytes]) -> None:
        self.rigs[0].put_keyed(*records)


def numbered(*keys: str) -> list[tuple[str, bytes]]:
    return [(key, b"%d" % number) for number, key in enumerate(keys, 1)]


def test_the_keys_of_these_tests_are_in_different_lanes() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD, ODD))
    for rig in lanes.rigs:
        rig.run_waits()
    assert lanes.rigs[0].function.seen == [[b"1", b"3"], [b"2", b"4", b"5"]]


def test_the_checkpoint_of_a_lane_passes_what_is_of_others() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD, ODD))
    end = lanes.rigs[0].shard.tail
    for rig in lanes.rigs:
        step = rig.run_waits()
        assert (step.position, step.read_offset) == (Position(end, 0), end)
        assert rig.slot.checkpoint_counter == 6
    assert [rig.slot.succeeded for rig in lanes.rigs] == [2, 3]


def test_a_lane_without_records_settles_what_it_scanned_with_one_store() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, EVEN))
    step = lanes.rigs[1].run_waits()
    assert (step.kind, step.position) == (StepKind.IDLE, Position(lanes.rigs[0].shard.tail, 0))
    assert [(slot.state.name, slot.checkpoint_counter) for slot in lanes.rigs[1].slots.stored] == [("IDLE", 3)]
    assert lanes.rigs[1].run_waits().kind is StepKind.IDLE
    assert len(lanes.rigs[1].slots.stored) == 1


def test_each_lane_forms_batches_of_its_own() -> None:
    lanes = Lanes(batch_size=2)
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD, EVEN, ODD))
    for rig in lanes.rigs:
        rig.run_waits()
    assert lanes.rigs[0].function.seen == [[b"1", b"3"], [b"5"], [b"2", b"4"], [b"6"]]


def test_a_poison_record_blocks_its_lane_alone() -> None:
    lanes = Lanes(fails_on(b"1"))
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD))
    even, odd = lanes.rigs
    even.grant()
    assert even.run().reason == "backoff"
    assert odd.run_waits().kind is StepKind.IDLE
    assert (even.slot.checkpoint_counter, odd.slot.checkpoint_counter) == (1, 5)
    assert (even.slot.succeeded, odd.slot.succeeded) == (0, 2)


def test_a_bisected_batch_of_a_lane_is_taken_over_with_its_stack_and_its_attempts() -> None:
    lanes = Lanes(fails_on(b"7"), bisect_batch_on_function_error=True, maximum_retry_attempts=1)
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD, EVEN, ODD, EVEN, ODD))
    even = lanes.rigs[0]
    even.grant()
    even.step()
    assert even.slot.stack == (2,)
    even.restart()
    even.run_waits()
    assert [[int(data) for data in datas] for datas in even.function.seen] == [
        [1, 3, 5, 7],
        [1, 3],
        [5, 7],
        [5],
        [7],
        [7],
    ]
    (entry,) = even.parking.entries
    assert ([record.data for record in entry.records], entry.attempts, entry.first_counter) == ([b"7"], 2, 7)


def test_a_partial_response_cuts_a_lanes_batch_at_the_record_that_failed() -> None:
    lanes: Lanes

    def handler(datas: list[bytes]) -> Any:
        if b"5" not in datas or len(datas) == 1:
            return None
        record = lanes.rigs[0].function.invocations[-1].records[datas.index(b"5")]
        return {"batchItemFailures": [{"itemIdentifier": str(record.sequence_number)}]}

    lanes = Lanes(handler, report_batch_item_failures=True)
    lanes.put(*numbered(EVEN, ODD, EVEN, ODD, EVEN))
    even = lanes.rigs[0]
    even.grant()
    even.step()
    assert even.slot.checkpoint_counter == 4
    even.restart()
    even.run_waits()
    assert even.function.seen == [[b"1", b"3", b"5"], [b"5"]]
    assert (even.slot.succeeded, even.slot.checkpoint_counter) == (3, 6)


def test_parked_records_of_other_lanes_in_the_same_place_are_not_taken_for_this_ones() -> None:
    lanes = Lanes(fails_on(b"1", b"3"), maximum_retry_attempts=0)
    lanes.put(*numbered(EVEN, ODD, EVEN))
    even = lanes.rigs[0]
    even.run_waits()
    (entry,) = even.parking.entries
    assert (entry.first_counter, entry.last_counter, len(entry.records)) == (1, 3, 2)
    # The same place under one lane: all three records, and none of them may be settled for the two that are kept.
    whole = Rig(fails_on(b"1"), beside=even, parallelization_factor=1)
    whole.grant()
    whole.step()
    assert whole.slot.state.name == "FAILED"
    whole.restart()
    whole.step()
    assert [len(datas) for datas in whole.function.seen] == [2, 3, 3]
    assert (whole.slot.parked, whole.slot.checkpoint_counter) == (0, 1)


def test_lost_records_are_shared_out_so_that_their_sum_is_right() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, ODD, EVEN))
    lanes.put(*numbered(EVEN, ODD))
    lanes.put((EVEN, b"kept"))
    lanes.rigs[0].shard.expire(2)
    for rig in lanes.rigs:
        rig.run_waits()
    assert [rig.slot.lost for rig in lanes.rigs] == [3, 2]
    assert [rig.slot.checkpoint_counter for rig in lanes.rigs] == [7, 7]


def test_counters_that_were_passed_over_are_not_lost() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, ODD, EVEN))
    shard = lanes.rigs[0].shard
    shard.next_counter += 1000
    shard.skipped.append(range(4, 1004))
    lanes.put((EVEN, b"x"), (ODD, b"y"))
    lanes.put((EVEN, b"kept"))
    shard.expire(2)
    for rig in lanes.rigs:
        rig.run_waits()
    assert [rig.slot.lost for rig in lanes.rigs] == [3, 2]


def test_a_lane_of_one_process_reads_what_another_has_read_without_reading() -> None:
    lanes = Lanes()
    lanes.put(*numbered(EVEN, ODD))
    for rig in lanes.rigs:
        rig.run_waits()
    assert lanes.rigs[0].shard.reads == 1


# ---------------------------------------------------------------------- look-ahead


def ahead(**options: Any) -> Lanes:
    """The even lane is blocked by the first record; behind it come 300 records of the odd lane, 5 a block."""
    lanes = Lanes(fails_on(b"poison"), batch_size=10, **options)
    lanes.put((EVEN, b"poison"))
    for _ in range(60):
        lanes.put(*numbered(*[ODD] * 5))
    lanes.rigs[0].grant()
    assert lanes.rigs[0].run().reason == "backoff"
    return lanes


def test_a_lane_stops_ten_batches_of_each_lane_past_the_least_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.lambda_.gather.READ_BYTES", 500)
    lanes = ahead()
    odd = lanes.rigs[1]
    odd.grant()
    step = odd.run()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "look-ahead", 50)
    assert 200 <= odd.slot.checkpoint_counter <= 215
    assert odd.slot.checkpoint == step.position


def test_a_lane_that_waits_for_the_others_looks_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.lambda_.gather.READ_BYTES", 500)
    lanes = ahead()
    odd = lanes.rigs[1]
    waits = []
    for _ in range(10):
        odd.grant()
        waits.append(odd.run().due_in_ms)
    assert waits == [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]


def test_a_lane_goes_on_when_the_blocked_one_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.lambda_.gather.READ_BYTES", 500)
    lanes = ahead()
    even, odd = lanes.rigs
    odd.grant()
    odd.run()
    even.function.handler = lambda datas: None
    even.clock.advance(60_000)
    even.run_waits(until="look-ahead")
    odd.run_waits(until="look-ahead")
    even.run_waits(until="look-ahead")
    assert odd.run_waits().kind is StepKind.IDLE
    assert even.run_waits().kind is StepKind.IDLE
    assert (even.slot.succeeded, odd.slot.succeeded) == (1, 300)


def test_a_lane_that_may_not_read_on_delivers_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.lambda_.gather.READ_BYTES", 500)
    lanes = Lanes(batch_size=10)
    lanes.put((ODD, b"only"))
    for _ in range(60):
        lanes.put(*numbered(*[EVEN] * 5))
    odd = lanes.rigs[1]
    odd.grant()
    step = odd.run()
    assert odd.function.seen == [[b"only"]]
    assert step.reason == "look-ahead"
    assert odd.slot.checkpoint_counter > 200


def test_the_other_lanes_are_not_asked_while_a_lane_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    rig = Rig(parallelization_factor=2, batch_size=10, floor=lambda: asked.append(1) or (Position(0, 0), 1))  # type: ignore[func-returns-value]
    rig.put_keyed(*numbered(*[EVEN] * 150))
    rig.run_waits()
    assert asked == []


def test_a_scan_without_records_moves_the_checkpoint_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.lambda_.mapping.SCAN_BYTES", 3000)
    monkeypatch.setattr("kflow.lambda_.gather.READ_BYTES", 1000)
    rig = Rig(parallelization_factor=2, lane=1)
    for _ in range(10):
        rig.put_keyed((EVEN, b"x" * 800))
    rig.run_waits()
    counters = [slot.checkpoint_counter for slot in rig.slots.stored]
    assert counters == [5, 9, 11]


# ---------------------------------------------------------------------- look


def test_a_look_stops_before_the_attempt_and_the_next_step_makes_it() -> None:
    rig = Rig()
    rig.put(b"a")
    rig.grant()
    assert rig.engine.look(rig.clock.now()) is None
    assert rig.slots.stored == []
    assert rig.function.seen == []
    rig.step()
    assert rig.function.seen == [[b"a"]]


def test_a_look_says_what_there_is_to_wait_for() -> None:
    rig = Rig(fails_on(b"a"))
    rig.grant()
    step = rig.engine.look(rig.clock.now())
    assert step is not None
    assert step.kind is StepKind.IDLE
    rig.put(b"a")
    rig.run()
    rig.grant()
    rig.step()
    step = rig.engine.look(rig.clock.now())
    assert step is not None
    assert (step.reason, step.due_in_ms) == ("backoff", 2000)


def test_a_batch_that_was_looked_at_and_given_back_is_tried_by_another_holder_as_the_first_time() -> None:
    rig = Rig()
    rig.put(b"a", b"b")
    rig.grant()
    assert rig.engine.look(rig.clock.now()) is None
    looked = rig.engine
    rig.restart()
    rig.run()
    assert rig.function.invocations[0].attempt == 1
    # The first holder gets the lease again: the slot has moved, and so does it.
    rig.engine = looked
    rig.put(b"c")
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"a", b"b"], [b"c"]]


def test_a_look_parks_what_is_spent() -> None:
    rig = Rig(fails_on(b"a"), maximum_retry_attempts=0)
    rig.put(b"a")
    rig.grant()
    rig.step()
    step = rig.engine.look(rig.clock.now())
    assert step is not None
    assert [outcome.result.value for outcome in step.outcomes] == ["parked"]
