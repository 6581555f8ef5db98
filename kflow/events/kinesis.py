"""The Lambda event of a Kinesis stream: from records to the event a handler receives, and back.

Key order, constants and number formats are AWS's: some users compare logs line by line.
Source: recorded: events of real Kinesis event source mappings; documented: Lambda Developer Guide, with-kinesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import pybase64

from kflow.clock import utc_seconds
from kflow.records import Record, Window


class KinesisPayload(TypedDict):
    """The `kinesis` part of an event record."""

    kinesisSchemaVersion: str
    partitionKey: str
    sequenceNumber: str
    data: str
    approximateArrivalTimestamp: float


class KinesisEventRecord(TypedDict):
    """One record of the event."""

    kinesis: KinesisPayload
    eventSource: str
    eventVersion: str
    eventID: str
    eventName: str
    invokeIdentityArn: str
    awsRegion: str
    eventSourceARN: str


class KinesisEvent(TypedDict):
    """What one invocation receives: at least one record, all of one shard, in order."""

    Records: list[KinesisEventRecord]


def event_records(
    datas: Sequence[bytes],
    keys: Sequence[str],
    numbers: Iterable[int],
    *,
    shard_id: str,
    arrival_ms: int,
    arn: str,
    region: str,
    role: str,
) -> list[KinesisEventRecord]:
    """The event's records for records of one shard that arrived together. Called once a block, on the hot path.

    Args:
        datas: payloads.
        keys: partition keys, one a payload.
        numbers: sequence numbers; may be endless, as many are taken as there are payloads.
        shard_id: `shardId-` and twelve digits.
        arrival_ms: milliseconds since the epoch; the event holds seconds with three decimals.
        arn: the mapping's event source ARN.
        region: region of the stream.
        role: ARN of the function's execution role.
    """
    arrival = arrival_ms / 1000
    prefix = shard_id + ":"
    encode = pybase64.b64encode_as_string
    return [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": key,
                "sequenceNumber": number,
                "data": encode(data),
                "approximateArrivalTimestamp": arrival,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": prefix + number,
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": role,
            "awsRegion": region,
            "eventSourceARN": arn,
        }
        for data, key, number in zip(datas, keys, map(str, numbers), strict=False)
    ]


def records_from_event(event: Mapping[str, Any]) -> list[Record[Any]]:
    """The records of a Lambda event, with their bytes as they were put.

    Raises:
        KeyError: the event is not one of a Kinesis stream.
    """
    decode = pybase64.b64decode
    records: list[Record[Any]] = []
    for item in event["Records"]:
        kinesis = item["kinesis"]
        records.append(
            Record(
                decode(kinesis["data"]),
                kinesis["partitionKey"],
                int(kinesis["sequenceNumber"]),
                item["eventID"].partition(":")[0],
                round(kinesis["approximateArrivalTimestamp"] * 1000),
            )
        )
    return records


def source_arn(event: Mapping[str, Any]) -> str:
    """The event source ARN of an event: all its records have the same, and an event of a window names it itself."""
    if "window" in event:
        return str(event["eventSourceARN"])
    return str(event["Records"][0]["eventSourceARN"])


def shard_of(event: Mapping[str, Any]) -> str:
    """The shard id of an event: all its records are of the same, and an event of a window names it itself."""
    if "window" in event:
        return str(event["shardId"])
    return str(event["Records"][0]["eventID"]).partition(":")[0]


def window_of(event: Mapping[str, Any]) -> Window | None:
    """The tumbling window of an event; None for an event without.

    Source: documented: Lambda Developer Guide, tumbling windows.
    """
    window = event.get("window")
    if window is None:
        return None
    return Window(
        start_s=utc_seconds(window["start"]),
        end_s=utc_seconds(window["end"]),
        state=event["state"] or {},
        is_final=event["isFinalInvokeForWindow"],
        is_terminated_early=event["isWindowTerminatedEarly"],
        source_arn=str(event["eventSourceARN"]),
    )
