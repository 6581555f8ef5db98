"""Streams and records in the shape of boto3's responses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kflow.broker.streammap import StreamMap
from kflow.kinesis.page import Page


def description(stream: StreamMap, arn: str) -> dict[str, Any]:
    """What `StreamDescription` and `StreamDescriptionSummary` have in common."""
    return {
        "StreamName": stream.name,
        "StreamARN": arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": str(stream.mode)},
        "RetentionPeriodHours": stream.retention_hours,
        "StreamCreationTimestamp": datetime.fromtimestamp(stream.created_s, UTC),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same without some members."""
    return {name: value for name, value in found.items() if name not in names}


def records(page: Page) -> list[dict[str, Any]]:
    """A page as a list of `Record`s."""
    moments = (datetime.fromtimestamp(arrival_ms / 1000, UTC) for arrival_ms in page.arrivals())
    rows = zip(page.numbers(), moments, page.datas, page.keys, strict=True)
    return [
        {"SequenceNumber": number, "ApproximateArrivalTimestamp": moment, "Data": data}
        | ({"PartitionKey": key} if key else {})
        for number, moment, data, key in rows
    ]
