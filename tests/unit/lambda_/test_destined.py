"""What destinations and dead-letter queues are told of asynchronous invocations."""

from __future__ import annotations

import json
import re

import pytest

from kflow.lambda_ import destined
from kflow.lambda_.asynchronous import Answered, End
from kflow.lambda_.destined import Delivery, Target
from kflow.lambda_.errors import InvalidParameterValue

NOW = 1_764_000_000_123
ID = bytes.fromhex("9a1e8c0f2b7d4f3ab1c6d5e4f3a2b1c0")
ARN = "arn:aws:lambda:us-east-1:123456789012:function:bill"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:told"
FAILED = Answered(payload=b'{"errorMessage": "no", "errorType": "ValueError"}', version="$LATEST", message="no")


def document(end: End, arn: str = ARN, payload: bytes = b'{"id": 1}') -> str:
    return destined.document(end, request_id=ID, arn=arn, payload=payload, now_ms=NOW)


def test_the_document_of_a_success_is_the_recorded_one() -> None:
    end = End(condition="Success", attempts=1, last=Answered(payload=b'{"ok": true}', version="$LATEST"))

    assert document(end) == (
        '{"version":"1.0","timestamp":"2025-11-24T16:00:00.123Z","requestContext":{"requestId":'
        '"9a1e8c0f-2b7d-4f3a-b1c6-d5e4f3a2b1c0","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:bill:'
        '$LATEST","condition":"Success","approximateInvokeCount":1},"requestPayload":{"id": 1},"responseContext":'
        '{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"ok": true}}'
    )


def test_the_document_of_a_failure_says_that_the_function_failed() -> None:
    found = json.loads(document(End(condition="RetriesExhausted", attempts=3, last=FAILED)))

    assert list(found) == [
        "version",
        "timestamp",
        "requestContext",
        "requestPayload",
        "responseContext",
        "responsePayload",
    ]
    assert found["requestContext"]["condition"] == "RetriesExhausted"
    assert found["requestContext"]["approximateInvokeCount"] == 3
    assert found["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert found["responsePayload"] == {"errorMessage": "no", "errorType": "ValueError"}


def test_what_was_never_run_has_no_response() -> None:
    found = json.loads(document(End(condition="ZeroReservedConcurrency", attempts=0)))

    assert list(found) == ["version", "timestamp", "requestContext", "requestPayload"]
    assert found["requestContext"]["approximateInvokeCount"] == 0


@pytest.mark.parametrize("payload", [b"hello", b"", b'"\xff"', b"[" * 5000])
def test_a_response_that_is_no_json_is_told_as_a_text(payload: bytes) -> None:
    end = End(condition="Success", attempts=1, last=Answered(payload=payload, version="1"))

    assert json.loads(document(end))["responsePayload"] == payload.decode("utf-8", "replace")


def test_a_qualified_function_is_named_as_it_was_invoked() -> None:
    end = End(condition="Success", attempts=1, last=Answered(payload=b"null", version="3"))
    found = json.loads(document(end, arn=f"{ARN}:live"))

    assert found["requestContext"]["functionArn"] == f"{ARN}:live"
    assert found["responseContext"]["executedVersion"] == "3"
    assert found["responsePayload"] is None


def test_the_object_of_a_failure_lies_under_its_function_and_its_day() -> None:
    assert destined.object_key("bill", NOW, "d0e1") == "aws/lambda/async/bill/2025/11/24/2025-11-24T16.00.00-d0e1"


def test_a_dead_letter_is_the_event_with_what_went_wrong_beside_it() -> None:
    end = End(condition="RetriesExhausted", attempts=3, last=FAILED)
    letter = destined.dead_letter(end, request_id=ID, arn=QUEUE, payload=b'{"id": 1}')

    assert letter == Delivery(
        target=QUEUE,
        body='{"id": 1}',
        attributes={
            "RequestID": ("String", "9a1e8c0f-2b7d-4f3a-b1c6-d5e4f3a2b1c0"),
            "ErrorCode": ("Number", "200"),
            "ErrorMessage": ("String", "no"),
        },
    )
    assert destined.call(letter) == (
        Target("sqs", "eu-west-1", "123456789012", "told"),
        "SendMessage",
        {
            "QueueUrl": "/123456789012/told",
            "MessageBody": '{"id": 1}',
            "MessageAttributes": {
                "RequestID": {"DataType": "String", "StringValue": "9a1e8c0f-2b7d-4f3a-b1c6-d5e4f3a2b1c0"},
                "ErrorCode": {"DataType": "Number", "StringValue": "200"},
                "ErrorMessage": {"DataType": "String", "StringValue": "no"},
            },
        },
    )


def test_a_message_of_an_error_is_cut_at_a_kilobyte_and_not_within_a_character() -> None:
    last = Answered(payload=b"{}", version="$LATEST", message="é" * 600 + "x")
    letter = destined.dead_letter(
        End(condition="RetriesExhausted", attempts=1, last=last), request_id=ID, arn=QUEUE, payload=b"{}"
    )

    assert letter.attributes["ErrorMessage"][1] == "é" * 512


def test_topics_and_functions_are_told_by_their_own_operations() -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:told"
    assert destined.call(Delivery(target=topic, body="{}")) == (
        Target("sns", "us-east-1", "123456789012", "told"),
        "Publish",
        {"TopicArn": topic, "Message": "{}"},
    )
    assert destined.call(Delivery(target=f"{ARN}:live", body="{}")) == (
        Target("lambda", "us-east-1", "123456789012", f"{ARN}:live"),
        "Invoke",
        {"FunctionName": f"{ARN}:live", "InvocationType": "Event", "Payload": b"{}"},
    )


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        ("told", "The destination ARN told is invalid."),
        (f"{QUEUE}.fifo", "FIFO queues are not supported"),
        ("arn:aws:sns:us-east-1:123456789012:told.fifo", "FIFO topics are not supported"),
        ("arn:aws:sqs:::told", "is invalid."),
        ("arn:aws:dynamodb:us-east-1:123456789012:table/told", "is invalid."),
        ("arn:aws:events:us-east-1:123456789012:event-bus/default", "kflow has no EventBridge"),
    ],
)
def test_nothing_is_told_to_what_is_no_destination(arn: str, said: str) -> None:
    with pytest.raises(InvalidParameterValue, match=re.escape(said)):
        destined.check(arn, on_success=False)


def test_buckets_are_told_of_failures_alone() -> None:
    destined.check("arn:aws:s3:::failures", on_success=False)
    with pytest.raises(InvalidParameterValue, match="for failures only"):
        destined.check("arn:aws:s3:::failures", on_success=True)
