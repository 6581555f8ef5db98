"""Failure documents: what Lambda sends to an on-failure destination for records that a mapping gave up, as data.

    document  the JSON of SQS and SNS; it names the records and does not hold them
    s3_object the key and the body of an S3 destination; the body holds the event, too

Order of keys, and what is absent when, are AWS's.
Source: recorded: documents of real Kinesis event source mappings; chosen: what is marked so.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from kflow import arn
from kflow.broker.parked import Origin, ParkCondition, ParkedBatch
from kflow.clock import utc_text_ms
from kflow.events.kinesis import event_records
from kflow.lambda_.destinations import declared_mapping
from kflow.lambda_.requests import request_text

_REQUEST = re.compile(r"RequestId: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def document(entry: ParkedBatch, *, region: str, account: str) -> dict[str, Any]:
    """The failure document of a batch that was given up.

    Args:
        entry: the batch.
        region: AWS region that ARNs name, where the batch does not know its mapping.
        account: likewise, 12 digits.
    """
    origin = entry.origin or _origin(entry, region, account)
    first, last = entry.records[0], entry.records[-1]
    content: dict[str, Any] = {
        "requestContext": {
            "requestId": _request_id(entry),
            # recorded: the mapping's own ARN of the function, without `:$LATEST`.
            "functionArn": origin.function_arn,
            "condition": entry.condition.value,
            # recorded: 1 also for records that the function never got; chosen: for those above the event limit, too.
            "approximateInvokeCount": max(1, entry.attempts),
        }
    }
    if entry.condition is not ParkCondition.RECORD_AGE_EXCEEDED and entry.attempts:
        reported = entry.error is not None and entry.error.reported
        content["responseContext"] = {
            "statusCode": 200,
            "executedVersion": origin.version,
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
        "streamArn": origin.stream_arn,
    }
    return content


def s3_object(entry: ParkedBatch, *, region: str, account: str, suffix: str) -> tuple[str, bytes]:
    """Key and body of the object that an S3 destination gets: the document, and the event as a JSON string.

    Args:
        entry: the batch.
        region: as for `document`.
        account: as for `document`.
        suffix: a random UUID.

    Source: recorded: the key; chosen: the payload is a string, which the recording cannot tell from an object.
    """
    origin = entry.origin or _origin(entry, region, account)
    content = document(entry, region=region, account=account)
    moment = content["timestamp"][:19].replace(":", ".")
    day = moment[:10]
    key = f"aws/lambda/{origin.mapping}/{entry.shard_id}/{day.replace('-', '/')}/{moment}-{suffix}"
    records: list[Any] = []
    for record in entry.records:
        records += event_records(
            [record.data],
            [record.partition_key],
            [record.sequence_number],
            shard_id=record.shard_id,
            arrival_ms=record.arrival_ms,
            arn=origin.source_arn or origin.stream_arn,
            region=origin.stream_arn.split(":")[3],
            role=origin.role or arn.role_arn(origin.function_arn.split(":")[4], entry.function),
        )
    content["payload"] = _json({"Records": records})
    return key, _json(content).encode()


def _origin(entry: ParkedBatch, region: str, account: str) -> Origin:
    """What is so of a handler and a stream of this place."""
    return Origin(
        function_arn=arn.function_arn(region, account, entry.function),
        stream_arn=arn.stream_arn(region, account, entry.stream),
        mapping=declared_mapping(account, region, entry.function, entry.stream),
    )


def _json(content: Any) -> str:
    return msgspec.json.encode(content).decode()


def object_suffix(entry: ParkedBatch) -> str:
    """The UUID that ends an object's key.

    It looks random, and is the same for the same entry: what is sent twice, because somebody died, is one object.
    """
    return _uuid_of("object", entry)


def _request_id(entry: ParkedBatch) -> str:
    """The request of the last attempt, where its error still names it; chosen: else one made of the batch itself."""
    error = entry.error
    if error is not None and error.request_id:
        return error.request_id
    named = _REQUEST.search(error.message) if error is not None else None
    if named:
        return named[1]
    return _uuid_of("request", entry)


def _uuid_of(what: str, entry: ParkedBatch) -> str:
    """A version 4 UUID made of a batch."""
    counters = (entry.first_counter, entry.last_counter)
    parts = (what, entry.function, entry.stream_id, entry.shard, *counters, entry.parked_ms)
    raw = bytearray(hashlib.blake2b(repr(parts).encode(), digest_size=16).digest())
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return request_text(bytes(raw))
