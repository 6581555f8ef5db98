"""Who is told what an asynchronous invocation came to, and of what: destinations, and dead-letter queues.

    destination          the document: request and response, and how it ended
    dead-letter queue    the event as it was sent, with attributes that say what went wrong

Source: documented: Lambda Developer Guide, records of asynchronous invocations; recorded: document and attributes;
chosen: what is marked so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kflow.clock import utc_text_ms
from kflow.lambda_.asynchronous import End
from kflow.lambda_.errors import InvalidParameterValue
from kflow.lambda_.requests import request_text

_ARN: Final = re.compile(r"arn:aws[-a-z]*:([a-z0-9-]+):([-a-z0-9]*):(\d{12}|):(.+)", re.DOTALL)
_FUNCTION: Final = re.compile(r"function:[A-Za-z0-9_-]{1,64}(:[$A-Za-z0-9_-]+)?")
_QUEUE: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_BUCKET: Final = re.compile(r"[a-z0-9.-]{3,63}")
_MESSAGE_BYTES: Final = 1024
_NOT_RUN: Final = ("429", "Rate Exceeded.")
"""Code and message of an event that was never run (chosen)."""


class Target(NamedTuple):
    """Where something is sent.

    Attributes:
        service: `sqs`, `sns`, `lambda` or `s3`.
        region: of it; empty for a bucket.
        account: likewise.
        name: of the queue, the topic or the bucket; of a function the ARN.
    """

    service: str
    region: str
    account: str
    name: str


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to send.

    Attributes:
        target: ARN.
        body: the text.
        attributes: of the message, as (type, value) by name.
        key: of the object, where it is one.
    """

    target: str
    body: str
    attributes: dict[str, tuple[str, str]] = {}
    key: str = ""


def target(arn: str) -> Target:
    """What an ARN means.

    Raises:
        InvalidParameterValue: nothing that an invocation can be sent to.
    """
    match = _ARN.fullmatch(arn)
    service, region, account, name = match.groups() if match else ("", "", "", "")
    if service == "events":
        raise InvalidParameterValue(
            f"kflow has no EventBridge, so {arn} would never be told: use a queue, a topic, a function or a bucket"
        )
    if service in {"sqs", "sns"} and name.endswith(".fifo"):
        kind = "queues" if service == "sqs" else "topics"
        raise InvalidParameterValue(f"The destination ARN {arn} is invalid: FIFO {kind} are not supported.")  # chosen
    forms = {"sqs": _QUEUE, "sns": _TOPIC, "lambda": _FUNCTION, "s3": _BUCKET}
    if service not in forms or not forms[service].fullmatch(name) or (service != "s3" and not (region and account)):
        raise InvalidParameterValue(f"The destination ARN {arn} is invalid.")  # chosen
    return Target(service, region, account, arn if service == "lambda" else name)


def check(arn: str, *, on_success: bool) -> None:
    """Whether invocations may be told of there.

    Raises:
        InvalidParameterValue: they may not.
    """
    if target(arn).service == "s3" and on_success:
        raise InvalidParameterValue(f"The destination ARN {arn} is invalid: a bucket is for failures only.")  # chosen


def document(end: End, *, request_id: bytes, arn: str, payload: bytes, now_ms: int) -> str:
    """The record of an invocation.

    Args:
        end: what it came to.
        request_id: 16 bytes.
        arn: of the function, with its qualifier if there is one.
        payload: the event, JSON text.
        now_ms: milliseconds since the epoch.
    """
    content: dict[str, Any] = {
        "version": "1.0",
        "timestamp": utc_text_ms(now_ms),
        "requestContext": {
            "requestId": request_text(request_id),
            "functionArn": arn if arn.count(":") > 6 else f"{arn}:$LATEST",
            "condition": end.condition,
            "approximateInvokeCount": end.attempts,
        },
        "requestPayload": msgspec.Raw(payload),
    }
    if end.last is not None:
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": end.last.version}
        if end.last.message is not None:
            context["functionError"] = "Unhandled"
        content["responseContext"] = context
        content["responsePayload"] = _json(end.last.payload)
    return msgspec.json.encode(content).decode()


def _json(payload: bytes) -> msgspec.Raw | str:
    """A response as it stands; as a text where a runtime answered something else than JSON (chosen)."""
    try:
        payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")
    return msgspec.Raw(payload)


def object_key(function: str, now_ms: int, suffix: str) -> str:
    """Where the record lies in a bucket.

    Args:
        function: its name.
        now_ms: milliseconds since the epoch.
        suffix: a random UUID.
    """
    moment = utc_text_ms(now_ms)[:19].replace(":", ".")
    return f"aws/lambda/async/{function}/{moment[:10].replace('-', '/')}/{moment}-{suffix}"


def dead_letter(end: End, *, request_id: bytes, arn: str, payload: bytes) -> Delivery:
    """An event that failed, for the dead-letter queue or topic `arn`."""
    code, message = _NOT_RUN
    if end.last is not None and end.last.message is not None:
        code, message = "200", end.last.message
    return Delivery(
        target=arn,
        body=payload.decode(),
        attributes={
            "RequestID": ("String", request_text(request_id)),
            "ErrorCode": ("Number", code),
            "ErrorMessage": ("String", message.encode()[:_MESSAGE_BYTES].decode("utf-8", "ignore")),
        },
    )


def call(delivery: Delivery) -> tuple[Target, str, Mapping[str, Any]]:
    """Where something is sent, by which operation, with which parameters. Not of a bucket.

    Raises:
        InvalidParameterValue: nowhere.
    """
    where = target(delivery.target)
    attributes = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in delivery.attributes.items()}
    more: dict[str, Any] = {"MessageAttributes": attributes} if attributes else {}
    match where.service:
        case "sqs":
            url = f"/{where.account}/{where.name}"
            return where, "SendMessage", {"QueueUrl": url, "MessageBody": delivery.body, **more}
        case "sns":
            return where, "Publish", {"TopicArn": delivery.target, "Message": delivery.body, **more}
        case _:
            body = delivery.body.encode()
            return where, "Invoke", {"FunctionName": delivery.target, "InvocationType": "Event", "Payload": body}
