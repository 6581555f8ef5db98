"""Shards in AWS's shape, and which of them are listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kflow.broker.sequence import number, parse, shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import InvalidArgument, ResourceNotFound
from kflow.kinesis.registry import Stream

_HOUR_S: Final = 3600
_Keeps = Callable[[ShardInfo], bool]


def shard(info: ShardInfo) -> dict[str, Any]:
    """A `Shard`. An open one has no ending sequence number: consumers take its presence for the end."""
    numbers = {"StartingSequenceNumber": str(number(info.created_s, info.index, 0, info.created_s * 1000))}
    if info.closed is not None:
        numbers["EndingSequenceNumber"] = str(info.closed)
    found: dict[str, Any] = {"ShardId": shard_id(info.index)}
    for name, parent in zip(("ParentShardId", "AdjacentParentShardId"), info.parents, strict=False):
        found[name] = shard_id(parent)
    found["HashKeyRange"] = {"StartingHashKey": str(info.start), "EndingHashKey": str(info.end)}
    found["SequenceNumberRange"] = numbers
    return found


def child_shards(stream: StreamMap, index: int) -> list[dict[str, Any]]:
    """`ChildShards` of a closed shard, each with all its parents. Source: documented: ChildShard."""
    return [
        {
            "ShardId": shard_id(info.index),
            "ParentShards": [shard_id(parent) for parent in info.parents],
            "HashKeyRange": {"StartingHashKey": str(info.start), "EndingHashKey": str(info.end)},
        }
        for info in stream.shards
        if index in info.parents
    ]


def index_of(stream_name: str, account: str, given: str) -> int:
    """The index that a shard id names, checked before anybody looks for the stream. Source: recorded.

    Raises:
        ResourceNotFound: it names none.
    """
    try:
        return shard_index(given)
    except ValueError as error:
        raise ResourceNotFound(
            f"Could not find shard {given} in stream {stream_name} under account {account}."
        ) from error


def absent(stream_name: str, account: str, index: int) -> ResourceNotFound:
    """The refusal of whoever wants to read a shard that does not exist, or whose stream does not. Source: recorded."""
    return ResourceNotFound(f"Shard {shard_id(index)} in stream {stream_name} under account {account} does not exist")


def trim_s(stream: StreamMap, now_ms: int) -> int:
    """TRIM_HORIZON in seconds since the epoch: creation of the stream, or the retention ago, whatever is later."""
    return max(stream.created_s, now_ms // 1000 - stream.retention_hours * _HOUR_S)


def is_expired(info: ShardInfo, stream: StreamMap, now_ms: int) -> bool:
    """Whether a shard is listed no more: closed, and all of it past the retention. Source: documented: shard states."""
    return not _ends_after(info, trim_s(stream, now_ms))


def listed(stream: StreamMap, now_ms: int) -> list[ShardInfo]:
    """The shards of a stream that are not expired, by index."""
    return [info for info in stream.shards if not is_expired(info, stream, now_ms)]


def filtered(
    stream: Stream, kind: str | None, given_shard: str | None, epoch_ms: int | None, now_ms: int
) -> Sequence[ShardInfo]:
    """The shards that a `ShardFilter` keeps, by index.

    Args:
        stream: whose shards.
        kind: its Type; None for no filter.
        given_shard: its ShardId.
        epoch_ms: its Timestamp, milliseconds since the epoch.
        now_ms: milliseconds since the epoch.

    Raises:
        InvalidArgument: the type lacks its parameter.
        ResourceNotFound: ShardId names no shard.

    Source: documented: ShardFilter; chosen: the texts.
    """
    found = listed(stream.map, now_ms)
    trim = trim_s(stream.map, now_ms)
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP"):
        if epoch_ms is None:
            raise InvalidArgument(f"ShardFilter of type {kind} must have a Timestamp.")
        if epoch_ms > now_ms:
            raise InvalidArgument(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {epoch_ms}, currentTimestampInMillis: {now_ms}"
            )
        moment = epoch_ms // 1000
        if kind == "FROM_TIMESTAMP":
            return [info for info in found if _ends_after(info, max(moment, trim))]
        return [info for info in found if info.created_s <= moment and _ends_after(info, moment)]
    if kind == "AFTER_SHARD_ID":
        if given_shard is None:
            raise InvalidArgument("ShardFilter of type AFTER_SHARD_ID must have a ShardId.")
        after = index_of(stream.name, stream.account, given_shard)
        return [info for info in found if info.index > after]
    keeps: dict[str, _Keeps] = {
        "AT_TRIM_HORIZON": lambda info: info.created_s <= trim,
        "AT_LATEST": lambda info: info.is_open,
    }
    if kind in keeps:
        return [info for info in found if keeps[kind](info)]
    if kind not in (None, "FROM_TRIM_HORIZON"):
        raise InvalidArgument(f"{kind} is not the Type of a ShardFilter.")
    return found


def _ends_after(info: ShardInfo, moment_s: int) -> bool:
    return info.closed is None or parse(info.closed).arrival_s >= moment_s
