"""Records of Lambda's event as texts: what their objects are, written."""

from __future__ import annotations

import json

import pytest

from kflow.broker import sequence
from kflow.lambda_.event_texts import EventTextShape
from kflow.lambda_.shapes import EventShape
from tests.blocks import Block

NAMES = {
    "arn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
    "region": "eu-west-1",
    "role": "arn:aws:iam::123456789012:role/bill",
}
TEXTS = EventTextShape(1_600_000_000, 3, **NAMES)
EVENTS = EventShape(1_600_000_000, 3, **NAMES)

BLOCK = Block([b"a", b"", b"c" * 200, b"d", b"e"], ["x", "schlüssel", '"quoted"\\', "\x00\n", '"sequenceNumber":"1"'])


def test_a_record_is_written_as_lambda_writes_it():
    number = sequence.number(1_600_000_000, 3, 7, 1_700_000_000_123)
    assert TEXTS.build(BLOCK, 0, 1)[0] == (
        '{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"x","sequenceNumber":"' + str(number) + '",'
        '"data":"YQ==","approximateArrivalTimestamp":1700000000.123},"eventSource":"aws:kinesis","eventVersion":"1.0",'
        '"eventID":"shardId-000000000003:' + str(number) + '","eventName":"aws:kinesis:record",'
        '"invokeIdentityArn":"arn:aws:iam::123456789012:role/bill","awsRegion":"eu-west-1",'
        '"eventSourceARN":"arn:aws:kinesis:eu-west-1:123456789012:stream/orders"}'
    )


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 4), (4, 5)])
def test_texts_say_what_objects_say(start, stop):
    texts = TEXTS.build(BLOCK, start, stop)
    assert [json.loads(text) for text in texts] == EVENTS.build(BLOCK, start, stop)
    assert [TEXTS.sequence_number(text) for text in texts] == [
        EVENTS.sequence_number(record) for record in EVENTS.build(BLOCK, start, stop)
    ]


def test_kept_records_are_written_as_they_were():
    kept = [
        {"data": b"k", "partition_key": '"', "sequence_number": 12, "shard_id": "shardId-000000000001", "arrival_ms": 5}
    ]
    assert [json.loads(text) for text in TEXTS.rebuild(kept)] == EVENTS.rebuild(kept)


def test_slices_of_texts_are_what_slices_of_a_list_are():
    whole = list(TEXTS.build(BLOCK, 0, 5))
    texts = TEXTS.build(BLOCK, 0, 5)
    assert len(texts) == 5
    assert list(texts[1:3]) == whole[1:3]
    assert list(texts[3:][:1]) == whole[3:4]
    assert list(texts[4:2]) == []
    assert texts[::2] == whole[::2]
    assert (texts[-1], texts[0]) == (whole[-1], whole[0])
    assert [*texts[:2], *texts[2:]] == whole


def test_texts_are_joined_as_they_are():
    whole = list(TEXTS.build(BLOCK, 0, 5))
    texts = TEXTS.build(BLOCK, 0, 5)
    assert texts.joined() == ",".join(whole).encode()
    assert texts[2:3].joined() == whole[2].encode()  # type: ignore[attr-defined]
    assert texts[5:].joined() == b""  # type: ignore[attr-defined]
