"""`deaggregate` in the forms that handlers and readers have."""

import base64
import logging
from datetime import UTC, datetime

import pytest
from aws_kinesis_agg.deaggregator import deaggregate_records

from kflow import Batch, Record, UsageError
from kflow.events.aggregation import Aggregate
from kflow.events.deaggregation import DeaggregatedRecord, deaggregate

NUMBER = "49590338271490256608559692538361571095921575989136588898"


def packed(*records):
    aggregate = Aggregate(1 << 20)
    for data, key, hash_key in records:
        assert aggregate.add(data, key, hash_key)
    return aggregate.payload()


TWO = packed((b"one", "a", None), (b"two", "b", 5))


def event_record(data):
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "outer",
            "sequenceNumber": NUMBER,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1545084650.987,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{NUMBER}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-2",
        "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
    }


def test_an_event_gives_event_records_with_their_place():
    plain = event_record(b"plain")
    first, second, third = deaggregate({"Records": [event_record(TWO), plain]})

    assert first == event_record(b"one") | {
        "kinesis": event_record(b"one")["kinesis"] | {"partitionKey": "a", "subSequenceNumber": 0, "aggregated": True}
    }
    assert second["kinesis"]["data"] == "dHdv"
    assert second["kinesis"]["explicitHashKey"] == "5"
    assert second["kinesis"]["subSequenceNumber"] == 1
    assert second["eventID"] == f"shardId-000000000006:{NUMBER}"
    assert third is plain


def test_aws_own_library_finds_the_same():
    records = [event_record(packed((b"one", "a", 4), (b"two", "b", 5))), event_record(b"plain")]
    theirs = deaggregate_records(records)
    for record in theirs[:2]:
        record["kinesis"]["data"] = record["kinesis"]["data"].decode()

    assert deaggregate(records) == theirs


def test_a_batch_gives_records():
    record = Record(TWO, "outer", int(NUMBER), "shardId-000000000006", 1545084650987)
    plain = Record(b"plain", "k", int(NUMBER) + 1, "shardId-000000000006", 1545084650987)

    assert deaggregate(Batch([record, plain], "orders", "shardId-000000000006")) == [
        DeaggregatedRecord(b"one", "a", int(NUMBER), "shardId-000000000006", 1545084650987, sub_sequence_number=0),
        DeaggregatedRecord(
            b"two",
            "b",
            int(NUMBER),
            "shardId-000000000006",
            1545084650987,
            sub_sequence_number=1,
            explicit_hash_key=5,
        ),
        plain,
    ]


def test_an_answer_of_get_records_gives_its_form():
    when = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"SequenceNumber": NUMBER, "ApproximateArrivalTimestamp": when, "Data": TWO, "PartitionKey": "outer"}

    assert deaggregate([row]) == [
        row | {"Data": b"one", "PartitionKey": "a", "SubSequenceNumber": 0},
        row | {"Data": b"two", "PartitionKey": "b", "SubSequenceNumber": 1, "ExplicitHashKey": "5"},
    ]


@pytest.mark.parametrize("hash_range", [(0, 100), {"StartingHashKey": "0", "EndingHashKey": "100"}])
def test_records_of_other_shards_are_left_out_one_by_one_and_logged(hash_range, caplog):
    mixed = packed((b"one", "a", 1), (b"two", "b", 101), (b"three", "c", 100))
    with caplog.at_level(logging.WARNING):
        found = deaggregate([event_record(mixed)], hash_range=hash_range)

    assert [(record["kinesis"]["partitionKey"], record["kinesis"]["subSequenceNumber"]) for record in found] == [
        ("a", 0),
        ("c", 2),
    ]
    assert caplog.messages == [f"user records of other shards are left out sequence_number={NUMBER} left_out=1 kept=2"]


def test_one_record_and_none_at_all_will_do():
    assert len(deaggregate(event_record(TWO))) == 2
    assert deaggregate({"Records": []}) == []


@pytest.mark.parametrize("wrong", [{"Rows": []}, {}, None, 5, ["text"], [{"eventSource": "aws:sqs"}]])
def test_what_is_no_record_is_refused(wrong):
    with pytest.raises(UsageError, match="deaggregate takes the event of a Kinesis stream"):
        deaggregate(wrong)
