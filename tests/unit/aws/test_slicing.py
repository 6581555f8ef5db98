"""Answers in slices: the same bytes, a bounded piece of work at a time."""

import json

import pytest

from kflow.aws.cbor_output import CborOutput
from kflow.aws.columns import Columns, Constant
from kflow.aws.json_output import JsonOutput
from kflow.aws.slicing import BLOB_BYTES, ROWS, is_long, slices
from tests.unit.aws.fakes import Kinesis, Timers, ask, make_door, operation


def columns(count, size=3, **others):
    members = {
        "SequenceNumber": [str(number) for number in range(count)],
        "ApproximateArrivalTimestamp": [1000 + number for number in range(count)],
        "Data": [b"x" * size] * count,
        "PartitionKey": [None if number % 3 else "k" for number in range(count)],
        "EncryptionType": Constant("KMS"),
    }
    return Columns(count, members | others)


def in_slices(work):
    steps = 1
    while True:
        try:
            next(work)
        except StopIteration as end:
            return steps, b"".join(end.value)
        steps += 1


@pytest.mark.parametrize("output", [JsonOutput, CborOutput])
@pytest.mark.parametrize(
    "records", [columns(ROWS + 1), columns(10_000), columns(7, BLOB_BYTES // 2), [{"Data": b"1"}, {}] * 300]
)
def test_slices_make_the_same_bytes(output, records):
    shape = operation("GetRecords").output
    answer = {"NextShardIterator": None, "Records": records, "MillisBehindLatest": 0, "ChildShards": []}
    assert is_long(records)
    steps, body = in_slices(output().sliced(shape, answer))
    assert body == output().bytes_of(shape, answer)
    assert steps == len(list(slices(records))) + 1


def test_a_slice_has_so_many_rows_and_so_many_bytes():
    assert [part.count for part in slices(columns(1200))] == [500, 500, 200]
    assert [part.count for part in slices(columns(5, BLOB_BYTES // 2))] == [2, 2, 1]
    assert [part.count for part in slices(columns(3, 2 * BLOB_BYTES))] == [1, 1, 1]
    mixed = columns(6, Data=[b"", b"x" * (BLOB_BYTES + 1), b"", b"", b"x" * BLOB_BYTES, b"y"])
    assert [part.count for part in slices(mixed)] == [1, 1, 3, 1]
    assert [len(part) for part in slices([{}] * 250)] == [100, 100, 50]


def test_short_members_are_not_long():
    for value in (columns(ROWS), Columns(0, {"Data": []}), Columns(2, {"Data": Constant("a")}), [], [{}], ["a"] * 500):
        assert not is_long(value)
    assert is_long(columns(2, BLOB_BYTES))


def test_a_long_answer_lets_the_loop_serve_others():
    timers = Timers()
    door = make_door(Kinesis(get_records={"Records": columns(1200), "MillisBehindLatest": 0}), timers=timers)
    exchange = ask("GetRecords", {"ShardIterator": "a"})
    door(exchange)
    for _ in range(3):
        assert exchange.answers == []
        timers.fire()
    assert exchange.answer.status == 200
    assert len(json.loads(exchange.answer.body)["Records"]) == 1200
    assert timers.waiting == []


def test_nothing_more_is_written_for_who_has_gone():
    timers = Timers()
    door = make_door(Kinesis(get_records={"Records": columns(1200)}), timers=timers)
    exchange = ask("GetRecords", {"ShardIterator": "a"})
    door(exchange)
    exchange.is_closed = True
    timers.fire()
    assert (exchange.answers, timers.waiting) == ([], [])


def test_columns_that_differ_in_length_are_an_internal_failure_in_whatever_slice_that_shows():
    timers = Timers()
    door = make_door(Kinesis(get_records={"Records": columns(1200, PartitionKey=["k"] * 1199)}), timers=timers)
    exchange = ask("GetRecords", {"ShardIterator": "a"})
    door(exchange)
    while timers.waiting:
        timers.fire()
    assert (exchange.answer.status, exchange.json) == (500, {"__type": "InternalFailure"})
