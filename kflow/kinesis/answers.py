"""Answers that are made in more than one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.kinesis import shards
from kflow.kinesis.reading import Page, Rows
from kflow.records import Position


def get_records(
    stream: StreamMap, shard: ShardInfo, rows: Rows, page: Page, now_ms: int, token: Callable[[Position], str]
) -> dict[str, Any]:
    """The answer of GetRecords, once all its rows are known.

    Args:
        stream: the stream's map as it is now.
        shard: by the map as it was before the page was read: what it calls closed has nothing to come.
        rows: all records of the answer.
        page: the last of the pages that they came from.
        now_ms: milliseconds since the epoch.
        token: makes the next iterator.

    Source: documented: GetRecords; recorded: a shard's end has ChildShards and no next iterator.
    """
    answer: dict[str, Any] = {"Records": rows.records()}
    is_over = not shard.is_open and not page.is_behind
    if not is_over:
        answer["NextShardIterator"] = token(page.position)
    is_behind = page.is_behind and rows.last_arrival_ms
    answer["MillisBehindLatest"] = max(0, now_ms - rows.last_arrival_ms) if is_behind else 0
    if is_over:
        answer["ChildShards"] = shards.child_shards(stream, shard.index)
    return answer
