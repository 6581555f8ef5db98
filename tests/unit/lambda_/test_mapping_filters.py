"""Filters in the engine: filter first, then batch; what does not pass is settled, and costs nothing more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kflow.broker.parked import ParkCondition
from kflow.lambda_.mapping import StepKind
from kflow.records import Position
from tests.stepping import Handler, Rig, fails_on

GOOD = ('{"data":{"type":["good"]}}',)


def good(number: int) -> bytes:
    return b'{"type": "good",  "n": %d}' % number


def bad(number: int) -> bytes:
    return b'{"type": "bad", "n": %d}' % number


def rig_of(handler: Handler = lambda datas: None, **options: Any) -> Rig:
    return Rig(handler, filters=GOOD, **options)


def numbers(rig: Rig) -> list[list[int]]:
    return [[json.loads(data)["n"] for data in datas] for datas in rig.function.seen]


def test_only_what_passes_is_delivered_and_its_bytes_are_those_that_were_put() -> None:
    rig = rig_of()
    rig.put(good(1), bad(2), b"not json", good(4))
    rig.run_waits()
    assert rig.function.seen == [[good(1), good(4)]]
    assert (rig.slot.succeeded, rig.slot.delivered, rig.slot.checkpoint_counter) == (2, 2, 5)


def test_what_was_read_and_what_did_not_pass_is_counted() -> None:
    rig, plain = rig_of(), Rig(lambda datas: None)
    for each in (rig, plain):
        each.put(good(1), bad(2))
        each.put(bad(3))
        each.run_waits()
    assert (rig.engine.take_polled(), plain.engine.take_polled()) == ((3, 2), (3, 0))
    assert (rig.engine.take_polled(), plain.engine.take_polled()) == ((0, 0), (0, 0))


def test_the_batch_size_counts_what_passes() -> None:
    rig = rig_of(batch_size=2)
    rig.put(good(1), bad(2), bad(3), good(4), bad(5), good(6), bad(7))
    rig.run_waits()
    assert numbers(rig) == [[1, 4], [6]]
    assert rig.slot.checkpoint == Position(rig.shard.tail, 0)


def test_where_nothing_passes_the_function_is_not_called_and_the_checkpoint_moves_on() -> None:
    rig = rig_of()
    for number in range(5):
        rig.put(bad(number))
    step = rig.run_waits()
    assert (step.kind, step.position) == (StepKind.IDLE, Position(rig.shard.tail, 0))
    assert (rig.function.seen, rig.outcomes, rig.slot.checkpoint_counter) == ([], [], 6)
    assert len(rig.slots.stored) == 1


def test_what_does_not_pass_in_front_is_settled_with_the_batch_behind_it() -> None:
    rig = rig_of(fails_on(good(3)))
    rig.put(bad(1), bad(2), good(3), bad(4))
    rig.grant()
    rig.run()
    assert rig.slot.checkpoint_counter == 1
    assert (rig.slot.start, rig.slot.end, rig.slot.count) == (Position(0, 2), Position(0, 3), 1)


def test_the_batching_window_counts_what_passes() -> None:
    rig = rig_of(batch_size=3, maximum_batching_window_in_seconds=5)
    rig.put(good(1), bad(2), bad(3), bad(4))
    rig.grant()
    step = rig.run()
    assert (step.reason, step.want_counter) == ("window", 7)
    rig.put(good(5), good(6))
    rig.run()
    assert numbers(rig) == [[1, 5, 6]]


def test_a_window_that_ends_without_a_record_that_passes_does_not_call_the_function() -> None:
    rig = rig_of(maximum_batching_window_in_seconds=5)
    rig.put(bad(1))
    rig.grant()
    assert rig.run().kind is StepKind.IDLE
    assert rig.function.seen == []


def test_what_does_not_pass_is_neither_parked_nor_counted_when_its_batch_is_given_up() -> None:
    rig = rig_of(fails_on(good(1), good(5)), maximum_retry_attempts=0)
    rig.put(good(1), bad(2), bad(3), bad(4), good(5), bad(6))
    rig.run_waits()
    (entry,) = rig.parking.entries
    assert [record.data for record in entry.records] == [good(1), good(5)]
    assert (entry.first_counter, entry.last_counter) == (1, 5)
    assert (rig.slot.parked, rig.slot.checkpoint_counter) == (2, 7)


def test_bisection_halves_what_passed() -> None:
    rig = rig_of(fails_on(good(7)), bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    rig.put(good(1), bad(2), good(3), bad(4), good(5), bad(6), good(7), bad(8))
    rig.run_waits()
    assert numbers(rig) == [[1, 3, 5, 7], [1, 3], [5, 7], [5], [7]]
    assert rig.slot.checkpoint_counter == 9


def test_a_batch_is_taken_over_across_records_that_do_not_pass() -> None:
    rig = rig_of(fails_on(good(6)), bisect_batch_on_function_error=True, maximum_retry_attempts=2)
    rig.put(bad(1), good(2), bad(3))
    rig.put(bad(4), bad(5))
    rig.put(good(6), good(7), bad(8))
    rig.grant()
    for _ in range(12):
        rig.step()
        rig.restart()
        rig.clock.advance(10_000)
    rig.run_waits()
    assert (rig.slot.succeeded, rig.slot.parked) == (2, 1)
    assert [record.data for record in rig.parking.entries[0].records] == [good(6)]


def test_other_filters_form_the_batch_anew() -> None:
    rig = rig_of(fails_on(good(1)))
    rig.put(good(1), bad(2))
    rig.grant()
    rig.run()
    rig.options = type(rig.options)(filters=('{"data":{"type":["bad"]}}',))
    rig.restart()
    rig.run_waits()
    assert rig.function.seen[-1] == [bad(2)]
    assert rig.slot.failures == 1


def test_expired_records_that_do_not_pass_are_not_parked() -> None:
    rig = rig_of(maximum_record_age_in_seconds=60)
    rig.put(bad(1), good(2), bad(3))
    rig.clock.advance(61_000)
    rig.put(good(4))
    rig.run_waits()
    (entry,) = rig.parking.entries
    assert ([record.data for record in entry.records], entry.condition) == (
        [good(2)],
        ParkCondition.RECORD_AGE_EXCEEDED,
    )
    assert numbers(rig) == [[4]]


@pytest.mark.parametrize(
    ("pattern", "passing"),
    [
        ('{"partitionKey":["a"]}', [b"1", b"3"]),
        ('{"partitionKey":["b"]}', [b"2"]),
        ('{"kinesisSchemaVersion":["1.0"]}', [b"1", b"2", b"3"]),
        ('{"approximateArrivalTimestamp":[{"numeric":["=",1700000000.0]}]}', [b"1", b"2", b"3"]),
        ('{"approximateArrivalTimestamp":[{"numeric":["<",1700000000.0]}]}', []),
    ],
)
def test_a_filter_may_ask_for_what_stands_beside_the_data(pattern: str, passing: list[bytes]) -> None:
    rig = Rig(filters=(pattern,))
    rig.put_keyed(("a", b"1"), ("b", b"2"), ("a", b"3"))
    rig.run_waits()
    assert rig.function.seen == ([passing] if passing else [])


def test_a_filter_may_ask_for_a_sequence_number() -> None:
    plain = Rig()
    plain.put(b"1", b"2", b"3")
    plain.run_waits()
    number = plain.function.invocations[0].records[1].sequence_number
    rig = Rig(filters=(json.dumps({"sequenceNumber": [str(number)]}),))
    rig.put(b"1", b"2", b"3")
    rig.run_waits()
    assert rig.function.seen == [[b"2"]]


def test_filters_and_lanes_take_what_is_of_both() -> None:
    records = [(f"key-{number}", good(number) if number % 3 else bad(number)) for number in range(40)]
    seen: list[int] = []
    for lane in range(4):
        rig = Rig(filters=GOOD, parallelization_factor=4, lane=lane)
        rig.put_keyed(*records)
        rig.run_waits()
        (mine,) = numbers(rig)
        assert mine == sorted(mine)
        seen += mine
        assert rig.slot.checkpoint_counter == 41
    assert sorted(seen) == [number for number in range(40) if number % 3]
