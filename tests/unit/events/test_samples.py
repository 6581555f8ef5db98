"""Sample events are read by kflow's own readers, and have AWS's keys in AWS's order."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from kflow.events import samples
from kflow.events.kinesis import records_from_event, window_of
from kflow.events.sqs import messages_from_event

SAMPLE = samples.Sample(
    data=["one", '{"id": 2}'], name="", region="eu-west-1", account="210987654321", now_ms=1_764_000_000_123
)


def test_a_batch_of_a_stream_is_read_back() -> None:
    event = samples.kinesis(SAMPLE)
    first, second = records_from_event(event)

    assert (first.data, second.data) == (b"one", b'{"id": 2}')
    assert first.sequence_number + 1 == second.sequence_number
    assert first.arrival_ms == 1_764_000_000_123
    assert event["Records"][0]["eventSourceARN"] == "arn:aws:kinesis:eu-west-1:210987654321:stream/orders"
    assert event["Records"][0]["awsRegion"] == "eu-west-1"


def test_a_batch_of_a_window_says_which() -> None:
    event = samples.kinesis_window(replace(SAMPLE, name="clicks"))
    window = window_of(event)

    assert window is not None
    assert (window.start_s, window.end_s, window.state, window.is_final) == (1_764_000_000, 1_764_000_030, {}, False)
    assert list(event) == [
        "Records",
        "window",
        "state",
        "shardId",
        "eventSourceARN",
        "isFinalInvokeForWindow",
        "isWindowTerminatedEarly",
    ]
    assert event["eventSourceARN"] == event["Records"][0]["eventSourceARN"]


def test_a_batch_of_a_queue_is_read_back_and_has_an_order_only_in_one_that_keeps_it() -> None:
    plain, ordered = samples.sqs(SAMPLE), samples.sqs_fifo(SAMPLE)

    assert [each.body for each in messages_from_event(plain)] == ["one", '{"id": 2}']
    assert plain["Records"][0]["md5OfBody"] == "f97c5d29941bfb1b2fdab0874906ab82"
    assert plain["Records"][0]["eventSourceARN"] == "arn:aws:sqs:eu-west-1:210987654321:jobs"
    assert "MessageGroupId" not in plain["Records"][0]["attributes"]
    assert ordered["Records"][1]["eventSourceARN"] == "arn:aws:sqs:eu-west-1:210987654321:jobs.fifo"
    assert ordered["Records"][1]["attributes"]["MessageGroupId"] == "group-1"
    named = samples.sqs_fifo(replace(SAMPLE, name="mine"))
    assert named["Records"][0]["eventSourceARN"] == "arn:aws:sqs:eu-west-1:210987654321:mine.fifo"


def test_a_delivery_stream_names_its_source_only_where_it_has_one() -> None:
    direct, read = samples.firehose(SAMPLE), samples.firehose_kinesis(SAMPLE)

    assert list(direct) == ["invocationId", "deliveryStreamArn", "region", "records"]
    assert list(direct["records"][0]) == ["recordId", "approximateArrivalTimestamp", "data"]
    assert list(read) == ["invocationId", "deliveryStreamArn", "sourceKinesisStreamArn", "region", "records"]
    assert read["records"][1]["kinesisRecordMetadata"]["subsequenceNumber"] == 0
    assert base64.b64decode(read["records"][0]["data"]) == b"one"


def test_other_services_events_hold_what_was_sent() -> None:
    topic, logs = samples.sns(SAMPLE), samples.cloudwatch_logs(SAMPLE)

    assert topic["Records"][1]["Sns"]["Message"] == '{"id": 2}'
    assert topic["Records"][0]["Sns"]["Timestamp"] == "2025-11-24T16:00:00.123Z"
    assert samples.s3(replace(SAMPLE, data=["a b/ü.txt"]))["Records"][0]["s3"]["object"]["key"] == "a+b/%C3%BC.txt"
    assert samples.eventbridge(replace(SAMPLE, data=['{"id": 2}']))["detail"] == {"id": 2}
    lines = json.loads(gzip.decompress(base64.b64decode(logs["awslogs"]["data"])))["logEvents"]
    assert [each["message"] for each in lines] == ["one", '{"id": 2}']


@pytest.mark.parametrize("kind", samples.KINDS)
def test_each_kind_is_json(kind: str) -> None:
    event: Any = samples.KINDS[kind](SAMPLE)

    assert json.loads(json.dumps(event)) == event
