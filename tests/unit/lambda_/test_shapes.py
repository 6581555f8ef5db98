"""Records of a block in the shape of each form."""

from __future__ import annotations

from kflow.broker import sequence
from kflow.lambda_.shapes import EventShape, RecordShape
from kflow.records import Record
from tests.blocks import Block

BLOCK = Block([b"a", b"b", b"c"], ["x", "y", "z"])
NUMBERS = [sequence.number(1_600_000_000, 3, counter, 1_700_000_000_123) for counter in (7, 8, 9)]
EVENTS = EventShape(1_600_000_000, 3, arn="arn", region="us-east-1", role="role")
RECORDS = RecordShape(1_600_000_000, 3)


def test_records_carry_the_blocks_numbers_and_arrival():
    assert RECORDS.build(BLOCK, 0, 3) == [
        Record(b"a", "x", NUMBERS[0], "shardId-000000000003", 1_700_000_000_123),
        Record(b"b", "y", NUMBERS[1], "shardId-000000000003", 1_700_000_000_123),
        Record(b"c", "z", NUMBERS[2], "shardId-000000000003", 1_700_000_000_123),
    ]


def test_a_slice_has_the_numbers_of_its_place():
    assert RECORDS.build(BLOCK, 1, 3) == RECORDS.build(BLOCK, 0, 3)[1:]
    assert EVENTS.build(BLOCK, 1, 2) == EVENTS.build(BLOCK, 0, 3)[1:2]


def test_both_shapes_tell_the_number_of_a_record():
    assert [RECORDS.sequence_number(record) for record in RECORDS.build(BLOCK, 0, 3)] == NUMBERS
    assert [EVENTS.sequence_number(record) for record in EVENTS.build(BLOCK, 0, 3)] == NUMBERS


def test_kept_records_take_the_shape_again():
    kept = [
        {
            "data": b"a",
            "partition_key": "x",
            "sequence_number": NUMBERS[0],
            "shard_id": "shardId-000000000003",
            "arrival_ms": 1_700_000_000_123,
        }
    ]
    assert RECORDS.rebuild(kept) == RECORDS.build(BLOCK, 0, 1)
    assert EVENTS.rebuild(kept) == EVENTS.build(BLOCK, 0, 1)
    assert EVENTS.rebuild(RECORDS.build(BLOCK, 0, 3)) == EVENTS.build(BLOCK, 0, 3)
