"""Streams and shards in the shape of boto3's responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kflow.broker.sequence import number, parse, shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import InvalidArgument

_Keeps = Callable[[ShardInfo], bool]


def shard(info: ShardInfo) -> dict[str, Any]:
    """A `Shard`. An open one has no ending sequence number: consumers take its presence for the end."""
    numbers = {"StartingSequenceNumber": str(number(info.created_s, info.index, 0, info.created_s * 1000))}
    if info.closed is not None:
        numbers["EndingSequenceNumber"] = str(info.closed)
    found: dict[str, Any] = {
        "ShardId": shard_id(info.index),
        "HashKeyRange": {"StartingHashKey": str(info.start), "EndingHashKey": str(info.end)},
        "SequenceNumberRange": numbers,
    }
    for name, parent in zip(("ParentShardId", "AdjacentParentShardId"), info.parents, strict=False):
        found[name] = shard_id(parent)
    return found


def child_shards(stream: StreamMap, index: int) -> list[dict[str, Any]]:
    """`ChildShards` of a closed shard, each with all its parents."""
    return [
        {
            "ShardId": shard_id(info.index),
            "ParentShards": [shard_id(parent) for parent in info.parents],
            "HashKeyRange": {"StartingHashKey": str(info.start), "EndingHashKey": str(info.end)},
        }
        for info in stream.shards
        if index in info.parents
    ]


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


def filtered(stream: StreamMap, wanted: Mapping[str, Any], now_ms: int) -> list[ShardInfo]:
    """The shards that a `ShardFilter` keeps. Source: documented: ShardFilter.

    Raises:
        InvalidArgument: an unknown type, or one without its parameter.
    """
    kind = wanted.get("Type", "FROM_TRIM_HORIZON")
    trim_s = max(stream.created_s, now_ms // 1000 - stream.retention_hours * 3600)
    moment_s = trim_s
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
        moment = wanted.get("Timestamp")
        if isinstance(moment, str):  # out of a token
            moment = datetime.fromisoformat(moment)
        if not isinstance(moment, datetime):
            raise InvalidArgument(f"ShardFilter of type {kind} needs a Timestamp.")
        moment_s = max(trim_s, int(moment.timestamp()))
    try:
        after = shard_index(str(wanted.get("ShardId", "")))
    except ValueError:
        after = -1
    keeps: dict[str, _Keeps] = {
        "AT_TRIM_HORIZON": lambda info: info.created_s <= trim_s and _ends_after(info, trim_s),
        "FROM_TRIM_HORIZON": lambda info: _ends_after(info, trim_s),
        "AT_LATEST": lambda info: info.is_open,
        "AT_TIMESTAMP": lambda info: info.created_s <= moment_s and _ends_after(info, moment_s),
        "FROM_TIMESTAMP": lambda info: _ends_after(info, moment_s),
        "AFTER_SHARD_ID": lambda info: info.index > after,
    }
    if kind not in keeps or (kind == "AFTER_SHARD_ID" and after < 0):
        raise InvalidArgument(f"ShardFilter {dict(wanted)} is not valid: Type must be one of {', '.join(keeps)}.")
    return [info for info in stream.shards if keeps[kind](info)]


def _ends_after(info: ShardInfo, moment_s: int) -> bool:
    return info.closed is None or parse(info.closed).arrival_s >= moment_s
