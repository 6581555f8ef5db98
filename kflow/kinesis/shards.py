"""Shards in AWS's shape, and which of them are listed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from kflow.broker.sequence import number, parse, shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import InvalidArgument, ResourceNotFound
from kflow.kinesis.registry import Stream


@functools.lru_cache(maxsize=2048)
def shard(info: ShardInfo) -> dict[str, Any]:
    """A `Shard`, which is not to be changed: the next who asks gets the same.

    An open one has no ending sequence number: consumers take its presence for the end.
    """
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


def is_expired(info: ShardInfo, stream: StreamMap, now_ms: int) -> bool:
    """Whether a shard is listed no more: closed, and all of it past the retention. Source: documented: shard states."""
    return not _ends_after(info, stream.trim_ms(now_ms) // 1000)


def births(stream: Stream, now_ms: int) -> list[int]:
    """When each shard began, by the clock, in seconds since the epoch; the first ones with their stream.

    Seconds of creation in sequence numbers do not say it: none is used twice in a folder, so that they run ahead of the
    clock where streams and shards are made quickly. Children begin the second after their parents' end, as on AWS;
    those of a shard that was closed by the change that made it may be said to begin some seconds before they did.
    """
    found: list[int] = []
    ends: list[int] = []
    closed = [None if info.closed is None else parse(info.closed).arrival_s for info in stream.map.shards]
    began = min([stream.created_ms // 1000, now_ms // 1000, *(end for end in closed if end is not None)])
    for info, end in zip(stream.map.shards, closed, strict=True):
        born = max((ends[parent] + 1 for parent in info.parents), default=began)
        found.append(born)
        ends.append(born if end is None or end == info.created_s else end)
    return found


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
            return [info for info in found if _ends_after(info, moment)]
        return _open_at(stream, found, moment, now_ms)
    if kind == "AFTER_SHARD_ID":
        if given_shard is None:
            raise InvalidArgument("ShardFilter of type AFTER_SHARD_ID must have a ShardId.")
        after = index_of(stream.name, stream.account, given_shard)
        return [info for info in found if info.index > after]
    if kind == "AT_TRIM_HORIZON":
        began = min(births(stream, now_ms))
        return _open_at(stream, found, max(began, stream.map.trim_ms(now_ms) // 1000), now_ms)
    if kind == "AT_LATEST":
        return [info for info in found if info.is_open]
    if kind not in (None, "FROM_TRIM_HORIZON"):
        raise InvalidArgument(f"{kind} is not the Type of a ShardFilter.")
    return found


def _open_at(stream: Stream, found: Sequence[ShardInfo], moment_s: int, now_ms: int) -> list[ShardInfo]:
    born = births(stream, now_ms)
    return [info for info in found if born[info.index] <= moment_s and _ends_after(info, moment_s)]


def _ends_after(info: ShardInfo, moment_s: int) -> bool:
    return info.closed is None or parse(info.closed).arrival_s >= moment_s
