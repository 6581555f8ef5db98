"""Failure documents: what Lambda sends to an on-failure destination for records that a mapping gave up, as data.

    document  the JSON of SQS and SNS; it names the records and does not hold them
    s3_object the key and the body of an S3 destination; the body holds the event, too

Order of keys, and what is absent when, are AWS's.
Source: recorded: documents of real Kinesis event source mappings; chosen: what is marked so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from kflow import arn
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.clock import utc_text_ms
from kflow.events.kinesis import event_records
from kflow.lambda_.requests import request_text

_REQUEST = re.compile(r"RequestId: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def document(entry: ParkedBatch, *, region: str, account: str) -> dict[str, Any]:
    """The failure document of a batch that was given up.

    Args:
        entry: the batch.
        region: AWS region that ARNs name.
        account: AWS account that ARNs name, 12 digits.
    """
    first, last = entry.records[0], entry.records[-1]
    content: dict[str, Any] = {
        "requestContext": {
            "requestId": _request_id(entry),
            # recorded: the mapping's own ARN of the function, without `:$LATEST`.
            "functionArn": arn.function_arn(region, account, entry.function),
            "condition": entry.condition.value,
            # recorded: 1 also for records that the function never got; chosen: for those above the event limit, too.
            "approximateInvokeCount": max(1, entry.attempts),
        }
    }
    if entry.condition is not ParkCondition.RECORD_AGE_EXCEEDED and entry.attempts:
        reported = entry.error is not None and entry.error.reported
        content["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": None if reported else "Unhandled",
        }
    content["version"] = "1.0"
    content["timestamp"] = utc_text_ms(entry.parked_ms)
    content["KinesisBatchInfo"] = {
        "shardId": entry.shard_id,
        "startSequenceNumber": str(first.sequence_number),
        "endSequenceNumber": str(last.sequence_number),
        "approximateArrivalOfFirstRecord": utc_text_ms(first.arrival_ms),
        "approximateArrivalOfLastRecord": utc_text_ms(last.arrival_ms),
        "batchSize": len(entry.records),
        "streamArn": arn.stream_arn(region, account, entry.stream),
    }
    return content


def s3_object(entry: ParkedBatch, *, region: str, account: str, mapping: str, suffix: str) -> tuple[str, bytes]:
    """Key and body of the object that an S3 destination gets: the document, and the event as a JSON string.

    Args:
        entry: the batch.
        region: AWS region that ARNs name.
        account: AWS account that ARNs name, 12 digits.
        mapping: UUID of the mapping.
        suffix: a random UUID.

    Source: recorded: the key; chosen: the payload is a string, which the recording cannot tell from an object.
    """
    content = document(entry, region=region, account=account)
    moment = content["timestamp"][:19].replace(":", ".")
    day = moment[:10]
    key = f"aws/lambda/{mapping}/{entry.shard_id}/{day.replace('-', '/')}/{moment}-{suffix}"
    records: list[Any] = []
    for record in entry.records:
        records += event_records(
            [record.data],
            [record.partition_key],
            [record.sequence_number],
            shard_id=record.shard_id,
            arrival_ms=record.arrival_ms,
            arn=arn.stream_arn(region, account, entry.stream),
            region=region,
            role=arn.role_arn(account, entry.function),
        )
    content["payload"] = _json({"Records": records})
    return key, _json(content).encode()


def _json(content: Any) -> str:
    return msgspec.json.encode(content).decode()


def _request_id(entry: ParkedBatch) -> str:
    """The request of the last attempt, where its error still names it; chosen: else one made of the batch itself."""
    error = entry.error
    if error is not None and error.request_id:
        return error.request_id
    named = _REQUEST.search(error.message) if error is not None else None
    if named:
        return named[1]
    parts: Sequence[object] = (entry.function, entry.stream_id, entry.shard, entry.first_counter, entry.last_counter)
    raw = bytearray(hashlib.blake2b(repr((*parts, entry.parked_ms)).encode(), digest_size=16).digest())
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return request_text(bytes(raw))
