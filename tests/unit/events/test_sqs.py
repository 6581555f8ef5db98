"""The Lambda event of a queue."""

from __future__ import annotations

from kflow.events.sqs import event_record, messages_from_event

ARN = "arn:aws:sqs:us-east-1:123456789012:jobs.fifo"


def record(**changes):
    given = {
        "message_id": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receipt_handle": "AQEB",
        "body": "hello",
        "attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1545082649183", "MessageGroupId": "a"},
        "message_attributes": {},
        "md5_of_message_attributes": "",
        "md5_of_body": "5d41402abc4b2a76b9719d911017c592",
        "arn": ARN,
        "region": "us-east-1",
    }
    return event_record(**{**given, **changes})


def test_a_message_without_attributes_has_these_keys_in_this_order():
    assert list(record().items()) == [
        ("messageId", "059f36b4-87a3-44ab-83d2-661975830a7d"),
        ("receiptHandle", "AQEB"),
        ("body", "hello"),
        ("attributes", {"ApproximateReceiveCount": "2", "SentTimestamp": "1545082649183", "MessageGroupId": "a"}),
        ("messageAttributes", {}),
        ("md5OfBody", "5d41402abc4b2a76b9719d911017c592"),
        ("eventSource", "aws:sqs"),
        ("eventSourceARN", ARN),
        ("awsRegion", "us-east-1"),
    ]


def test_message_attributes_are_written_with_their_kind():
    made = record(
        message_attributes={"n": ("Number.int", "1"), "b": ("Binary", b"\x00\x01")}, md5_of_message_attributes="e1"
    )
    assert list(made)[4:7] == ["messageAttributes", "md5OfMessageAttributes", "md5OfBody"]
    assert made["messageAttributes"] == {
        "n": {"stringValue": "1", "stringListValues": [], "binaryListValues": [], "dataType": "Number.int"},
        "b": {"binaryValue": "AAE=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
    }


def test_the_way_back():
    (message,) = messages_from_event({"Records": [record()]})
    assert (message.body, message.message_id, message.receipt_handle) == (
        "hello",
        "059f36b4-87a3-44ab-83d2-661975830a7d",
        "AQEB",
    )
    assert (message.queue, message.group, message.receive_count, message.sent_ms) == (
        "jobs.fifo",
        "a",
        2,
        1545082649183,
    )
    assert (message.source_arn, message.md5_of_body) == (ARN, "5d41402abc4b2a76b9719d911017c592")


def test_an_event_by_hand_needs_bodies_and_ids():
    (message,) = messages_from_event({"Records": [{"messageId": "m", "body": "hello"}]})
    assert (message.body, message.message_id, message.group, message.receive_count) == ("hello", "m", "", 1)
