"""The Lambda event of a queue: from messages to the event a handler receives, and back.

Key order, constants and number formats are AWS's.
Source: recorded: events of real SQS event source mappings; documented: Lambda Developer Guide, with-sqs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from kflow.records import Message


class SqsMessageAttribute(TypedDict):
    """A message attribute of an event's record."""

    stringValue: NotRequired[str]
    binaryValue: NotRequired[str]
    stringListValues: list[str]
    binaryListValues: list[str]
    dataType: str


class SqsEventRecord(TypedDict):
    """One message of the event."""

    messageId: str
    receiptHandle: str
    body: str
    attributes: dict[str, str]
    messageAttributes: dict[str, SqsMessageAttribute]
    md5OfMessageAttributes: NotRequired[str | None]
    md5OfBody: str
    eventSource: str
    eventSourceARN: str
    awsRegion: str


class SqsEvent(TypedDict):
    """What one invocation receives: at least one message, all of one queue."""

    Records: list[SqsEventRecord]


def event_record(
    *,
    message_id: str,
    receipt_handle: str,
    body: str,
    attributes: dict[str, str],
    message_attributes: Mapping[str, tuple[str, str | bytes]],
    md5_of_message_attributes: str,
    md5_of_body: str,
    arn: str,
    region: str,
) -> SqsEventRecord:
    """One message.

    Args:
        message_id: a UUID.
        receipt_handle: names this delivery.
        body: its text.
        attributes: system attributes, all texts.
        message_attributes: type and value by name; binary ones are bytes.
        md5_of_message_attributes: hexadecimal; empty where there are none: the key is left out then.
        md5_of_body: hexadecimal.
        arn: of the queue.
        region: of the queue.
    """
    record: SqsEventRecord = {  # type: ignore[typeddict-item]  # the rest follows, in AWS's order
        "messageId": message_id,
        "receiptHandle": receipt_handle,
        "body": body,
        "attributes": attributes,
        "messageAttributes": {name: _attribute(*each) for name, each in message_attributes.items()},
    }
    if md5_of_message_attributes:
        record["md5OfMessageAttributes"] = md5_of_message_attributes
    record["md5OfBody"] = md5_of_body
    record["eventSource"] = "aws:sqs"
    record["eventSourceARN"] = arn
    record["awsRegion"] = region
    return record


def messages_from_event(event: Mapping[str, Any]) -> list[Message[Any]]:
    """The messages of a Lambda event; one that people write by hand may leave out what no handler needs.

    Raises:
        KeyError: the event is not one of a queue.
    """
    return [
        Message(
            body=item["body"],
            message_id=item["messageId"],
            receipt_handle=item.get("receiptHandle", ""),
            attributes=item.get("attributes", {}),
            message_attributes=item.get("messageAttributes", {}),
            md5_of_body=item.get("md5OfBody", ""),
            source_arn=item.get("eventSourceARN", ""),
        )
        for item in event["Records"]
    ]


def _attribute(kind: str, value: str | bytes) -> SqsMessageAttribute:
    shown: dict[str, Any] = {}
    if isinstance(value, bytes):
        # Binary attributes are rare.
        import pybase64

        shown["binaryValue"] = pybase64.b64encode_as_string(value)
    else:
        shown["stringValue"] = value
    shown["stringListValues"] = []
    shown["binaryListValues"] = []
    shown["dataType"] = kind
    return shown  # type: ignore[return-value]  # in AWS's order
