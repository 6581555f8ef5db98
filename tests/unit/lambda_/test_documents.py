"""Failure documents against what real mappings sent: keys, their order, and what is absent when."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from msgspec.structs import replace

from kflow.broker.parked import Origin, ParkCondition, ParkedBatch, ParkedRecord
from kflow.interfaces import FunctionError
from kflow.lambda_.documents import document, object_suffix, s3_object
from kflow.records import Position
from tests.parking import parked
from tests.stepping import Rig, fails_on

REQUEST = "c9b8fa9f-5a7f-4abc-af9c-0c604cde93a5"


def entry(**changes: object) -> ParkedBatch:
    records = tuple(
        ParkedRecord(b"hello", f"key{number}", 49_590_338_271_490_256_608 + number, 1_573_691_884_835 + number, SHARD)
        for number in range(3)
    )
    made = parked(
        5,
        shard=1,
        shard_id=SHARD,
        last_counter=7,
        end=Position(0, 3),
        records=records,
        error=FunctionError(type="ValueError", message="no", trace=(), request_id=REQUEST),
        attempts=2,
        parked_ms=1_573_691_886_021,
    )
    return replace(made, **changes)


SHARD = "shardId-000000000001"


def sent(given_up: ParkedBatch) -> str:
    return json.dumps(document(given_up, region="us-east-2", account="123456789012"))


def test_a_document_is_aws_s_key_by_key() -> None:
    assert sent(entry()) == (
        '{"requestContext": {"requestId": "c9b8fa9f-5a7f-4abc-af9c-0c604cde93a5", '
        '"functionArn": "arn:aws:lambda:us-east-2:123456789012:function:bill", '
        '"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 2}, '
        '"responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}, '
        '"version": "1.0", "timestamp": "2019-11-14T00:38:06.021Z", '
        '"KinesisBatchInfo": {"shardId": "shardId-000000000001", '
        '"startSequenceNumber": "49590338271490256608", "endSequenceNumber": "49590338271490256610", '
        '"approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z", '
        '"approximateArrivalOfLastRecord": "2019-11-14T00:38:04.837Z", "batchSize": 3, '
        '"streamArn": "arn:aws:kinesis:us-east-2:123456789012:stream/orders"}}'
    )


@pytest.mark.parametrize(("attempts", "said"), [(0, 1), (1, 1), (8, 8)])
def test_expired_records_have_no_response_and_count_at_least_one_invocation(attempts: int, said: int) -> None:
    found = json.loads(sent(entry(condition=ParkCondition.RECORD_AGE_EXCEEDED, attempts=attempts, error=None)))
    assert list(found) == ["requestContext", "version", "timestamp", "KinesisBatchInfo"]
    assert found["requestContext"]["condition"] == "RecordAgeExceeded"
    assert found["requestContext"]["approximateInvokeCount"] == said
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", request_of(found))


def request_of(found: dict) -> str:
    return found["requestContext"]["requestId"]


def test_a_batch_that_never_fitted_has_no_response() -> None:
    found = json.loads(sent(entry(attempts=0, error=FunctionError(type="RequestTooLargeException", message="6 MB"))))
    assert "responseContext" not in found
    assert found["requestContext"]["approximateInvokeCount"] == 1
    assert found["requestContext"]["condition"] == "RetryAttemptsExhausted"


def test_a_failure_that_the_response_reported_has_a_null_function_error() -> None:
    reported = FunctionError(type="BatchItemFailure", message="", request_id=REQUEST, reported=True)
    assert json.loads(sent(entry(error=reported)))["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": None,
    }


def test_the_request_of_a_timeout_is_taken_from_its_message() -> None:
    error = FunctionError(
        type="Sandbox.Timedout", message=f"RequestId: {REQUEST} Error: Task timed out after 1.00 seconds"
    )
    assert request_of(json.loads(sent(entry(error=error)))) == REQUEST


def test_the_same_entry_gives_the_same_document() -> None:
    unnamed = entry(error=None)
    assert sent(unnamed) == sent(unnamed)
    assert request_of(json.loads(sent(unnamed))) != request_of(json.loads(sent(replace(unnamed, first_counter=6))))


def test_the_engine_s_entries_give_the_documents_of_the_recordings() -> None:
    """Six records, the last one reported as failed: its document says 4 invocations, and no function error."""

    def handler(datas: list[bytes]) -> object:
        if b"6" not in datas:
            return None
        record = rig.function.invocations[-1].records[datas.index(b"6")]
        return {"batchItemFailures": [{"itemIdentifier": str(record.sequence_number)}]}

    rig = Rig(handler, batch_size=3, maximum_retry_attempts=3, report_batch_item_failures=True)
    rig.put(*[b"%d" % number for number in range(1, 7)])
    rig.run_waits()
    found = document(rig.parking.entries[0], region="us-east-1", account="123456789012")
    assert found["requestContext"]["approximateInvokeCount"] == 4
    assert found["requestContext"]["requestId"] == _text(rig.function.invocations[-1].request_id)
    assert found["responseContext"]["functionError"] is None
    assert found["KinesisBatchInfo"]["batchSize"] == 1
    assert [len(datas) for datas in rig.function.seen] == [3, 3, 1, 1, 1, 1]


def _text(request_id: bytes) -> str:
    text = request_id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@pytest.mark.parametrize(("retries", "count"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_n_retries_are_n_plus_one_invocations(retries: int, count: int) -> None:
    rig = Rig(fails_on(b"a"), maximum_retry_attempts=retries)
    rig.put(b"a")
    rig.run_waits()
    found = document(rig.parking.entries[0], region="us-east-1", account="123456789012")
    assert found["requestContext"]["approximateInvokeCount"] == count
    assert found["responseContext"]["functionError"] == "Unhandled"


ORIGIN = Origin(
    function_arn="arn:aws:lambda:eu-west-1:210987654321:function:bill:live",
    stream_arn="arn:aws:kinesis:eu-west-1:210987654321:stream/orders",
    mapping="f8a5a9ae-0e0c-4a1c-9d5e-3a6a3c0ed0e5",
    version="3",
    destination="s3:graves",
)


def test_an_s3_object_has_aws_s_key_and_the_event_as_text() -> None:
    given_up = entry(origin=ORIGIN)
    key, body = s3_object(given_up, region="us-east-2", account="123456789012", suffix="s-1")
    assert key == (
        "aws/lambda/f8a5a9ae-0e0c-4a1c-9d5e-3a6a3c0ed0e5/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-s-1"
    )
    content = msgspec.json.decode(body)
    event = json.loads(content.pop("payload"))
    assert content == document(given_up, region="us-east-2", account="123456789012")
    assert [record["kinesis"]["data"] for record in event["Records"]] == ["aGVsbG8="] * 3
    assert event["Records"][0]["eventID"] == "shardId-000000000001:49590338271490256608"
    assert event["Records"][0]["kinesis"]["approximateArrivalTimestamp"] == 1_573_691_884.835
    assert event["Records"][0]["awsRegion"] == "eu-west-1"
    assert event["Records"][0]["eventSourceARN"] == "arn:aws:kinesis:eu-west-1:210987654321:stream/orders"


def test_a_consumer_s_event_names_the_consumer() -> None:
    source = "arn:aws:kinesis:eu-west-1:210987654321:stream/orders/consumer/audit:1573691880"
    given_up = entry(origin=replace(ORIGIN, source_arn=source))
    _, body = s3_object(given_up, region="us-east-2", account="123456789012", suffix="s-1")
    content = msgspec.json.decode(body)
    assert content["KinesisBatchInfo"]["streamArn"] == "arn:aws:kinesis:eu-west-1:210987654321:stream/orders"
    assert json.loads(content["payload"])["Records"][0]["eventSourceARN"] == source


@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("arn:aws:iam::210987654321:role/own", "arn:aws:iam::210987654321:role/own"),
        ("", "arn:aws:iam::210987654321:role/bill"),
    ],
)
def test_the_event_in_an_object_has_the_role_of_the_function(role: str, said: str) -> None:
    given_up = entry(origin=replace(ORIGIN, role=role))
    _, body = s3_object(given_up, region="us-east-2", account="123456789012", suffix="s-1")
    assert json.loads(msgspec.json.decode(body)["payload"])["Records"][0]["invokeIdentityArn"] == said


def test_a_document_names_the_mapping_that_gave_up() -> None:
    found = json.loads(sent(entry(origin=ORIGIN)))
    assert found["requestContext"]["functionArn"] == "arn:aws:lambda:eu-west-1:210987654321:function:bill:live"
    assert found["responseContext"]["executedVersion"] == "3"
    assert found["KinesisBatchInfo"]["streamArn"] == "arn:aws:kinesis:eu-west-1:210987654321:stream/orders"


def test_what_is_sent_twice_is_the_same_object() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", object_suffix(entry()))
    assert object_suffix(entry()) == object_suffix(entry())
    assert object_suffix(entry()) != object_suffix(entry(first_counter=6))
