"""Streams and consumers in the shapes of AWS's answers. Pure."""

from __future__ import annotations

import itertools
from typing import Any

from kflow import limits
from kflow.broker.attributes import Consumer
from kflow.broker.streammap import StreamMode
from kflow.kinesis import consumers, shards
from kflow.kinesis.alterations import warm_throughput
from kflow.kinesis.registry import Status, Stream


def summary(stream: Stream, now_ms: int) -> dict[str, Any]:
    """A row of ListStreams."""
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": str(stream.status(now_ms)),
        "StreamModeDetails": {"StreamMode": str(stream.map.mode)},
        "StreamCreationTimestamp": stream.created_ms,
    }


def _description(stream: Stream, now_ms: int) -> dict[str, Any]:
    """What DescribeStream and DescribeStreamSummary have in common."""
    kept = stream.attributes
    described = {
        **summary(stream, now_ms),
        "RetentionPeriodHours": stream.map.retention_hours,
        "EnhancedMonitoring": [{"ShardLevelMetrics": list(kept.metrics)}],
        "EncryptionType": "KMS" if kept.key_id else "NONE",
    }
    if kept.key_id:
        described["KeyId"] = kept.key_id
    return described


def stream_page(stream: Stream, *, after: int, limit: int, now_ms: int) -> dict[str, Any]:
    """StreamDescription.

    Args:
        stream: the stream.
        after: index of the shard before the first one; -1 for the beginning.
        limit: most shards.
        now_ms: milliseconds since the epoch.

    Source: recorded: no shards while CREATING or DELETING.
    """
    is_there = stream.status(now_ms) in (Status.ACTIVE, Status.UPDATING)
    there = stream.map.shards[after + 1 :] if is_there else ()  # by index, without a gap
    listed = (each for each in there if each.is_open or not shards.is_expired(each, stream.map, now_ms))
    found = list(itertools.islice(listed, limit + 1))
    return {
        **_description(stream, now_ms),
        "Shards": [shards.shard(each) for each in found[:limit]],
        "HasMoreShards": len(found) > limit,
    }


def stream_summary(stream: Stream, *, queues: int, is_advantage: bool, now_ms: int) -> dict[str, Any]:
    """StreamDescriptionSummary."""
    is_there = stream.status(now_ms) in (Status.ACTIVE, Status.UPDATING)
    described = {
        **_description(stream, now_ms),
        "OpenShardCount": stream.open_count if is_there else 0,
        "ConsumerCount": len(stream.consumers(now_ms)),
        "MaxRecordSizeInKiB": stream.map.max_record_bytes // limits.KIB,
        "ChannelCount": 0,
        "QueueCount": queues,
    }
    if stream.map.mode is StreamMode.ON_DEMAND:
        described["RecordDistributionStrategy"] = stream.attributes.distribution
        if is_advantage:
            described["WarmThroughput"] = warm_throughput(stream, now_ms)
    return described


def consumer(stream: Stream, found: Consumer, now_ms: int) -> dict[str, Any]:
    """A consumer as RegisterStreamConsumer and ListStreamConsumers show it."""
    return {
        "ConsumerName": found.name,
        "ConsumerARN": stream.consumer_arn(found),
        "ConsumerStatus": str(consumers.status(found, now_ms)),
        "ConsumerCreationTimestamp": found.created_s * 1000,
    }
