"""The event of a Kinesis stream, key by key, and back."""

from __future__ import annotations

import itertools
import json

from kflow.events.kinesis import event_records, records_from_event
from kflow.records import Record

FIRST = 49590338271490256608559692538361571095921575989136588898
ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
ROLE = "arn:aws:iam::123456789012:role/lambda-role"


def records(datas, keys, numbers, arrival_ms=1545084650987):
    return event_records(
        datas,
        keys,
        numbers,
        shard_id="shardId-000000000006",
        arrival_ms=arrival_ms,
        arn=ARN,
        region="us-east-2",
        role=ROLE,
    )


def test_an_event_record_is_awss_with_its_key_order():
    assert json.dumps({"Records": records([b"hello"], ["test_0"], [FIRST])}) == (
        '{"Records": [{"kinesis": {"kinesisSchemaVersion": "1.0", "partitionKey": "test_0", '
        '"sequenceNumber": "49590338271490256608559692538361571095921575989136588898", "data": "aGVsbG8=", '
        '"approximateArrivalTimestamp": 1545084650.987}, "eventSource": "aws:kinesis", "eventVersion": "1.0", '
        '"eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136588898", '
        '"eventName": "aws:kinesis:record", "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role", '
        '"awsRegion": "us-east-2", "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"}]}'
    )


def test_numbers_may_be_endless():
    made = records([b"a", b"b"], ["x", "y"], itertools.count(5, 10))
    assert [record["kinesis"]["sequenceNumber"] for record in made] == ["5", "15"]


def test_the_arrival_has_milliseconds():
    (record,) = records([b""], ["k"], [1], arrival_ms=1607497475000)
    assert record["kinesis"]["approximateArrivalTimestamp"] == 1607497475.0
    assert record["kinesis"]["data"] == ""


def test_records_come_back_with_the_bytes_that_were_put():
    event = {"Records": records([b"\x00\xff", "äß".encode()], ["k", "schlüssel"], [FIRST, FIRST + 1])}
    assert records_from_event(json.loads(json.dumps(event))) == [
        Record(b"\x00\xff", "k", FIRST, "shardId-000000000006", 1545084650987),
        Record("äß".encode(), "schlüssel", FIRST + 1, "shardId-000000000006", 1545084650987),
    ]
