"""How often operations of the control plane may be called, as on AWS. Pure: told the time.

Source: documented: each operation's page; recorded: the text.
"""

from __future__ import annotations

from typing import Final

from kflow.aws.calls import Place
from kflow.errors import LimitExceeded

CALLS_PER_SECOND: Final[dict[str, int]] = {
    "AddTagsToStream": 5,
    "CreateStream": 5,
    "DecreaseStreamRetentionPeriod": 5,
    "DeleteResourcePolicy": 5,
    "DeleteStream": 5,
    "DeregisterStreamConsumer": 5,
    "DescribeAccountSettings": 5,
    "DescribeLimits": 1,
    "DescribeStream": 10,
    "DescribeStreamConsumer": 20,
    "DescribeStreamSummary": 20,
    "DisableEnhancedMonitoring": 5,
    "EnableEnhancedMonitoring": 5,
    "GetResourcePolicy": 5,
    "IncreaseStreamRetentionPeriod": 5,
    "ListShards": 1000,
    "ListStreamConsumers": 5,
    "ListStreams": 5,
    "ListTagsForResource": 5,
    "ListTagsForStream": 5,
    "MergeShards": 5,
    "PutResourcePolicy": 5,
    "RegisterStreamConsumer": 5,
    "RemoveTagsFromStream": 5,
    "SplitShard": 5,
    "StartStreamEncryption": 5,
    "StopStreamEncryption": 5,
    "TagResource": 5,
    "UntagResource": 5,
    "UpdateAccountSettings": 5,
    "UpdateMaxRecordSize": 5,
    "UpdateShardCount": 10,
    "UpdateStreamMode": 5,
    "UpdateStreamRecordDistributionStrategy": 5,
    "UpdateStreamWarmThroughput": 5,
}
"""Of an account in a region; ListShards: of one stream. What is not here is not limited so."""
_PER_STREAM: Final = frozenset({"ListShards"})
_MOST_STREAMS: Final = 10_000
"""Buckets of streams are thrown away when there are more."""


class Rates:
    """A bucket for each operation of a place, as deep as a second's calls. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[Place, str, str], tuple[float, int]] = {}  # what is left, and when that was so

    def check(self, place: Place, operation: str, name: str, now_ms: int) -> None:
        """Count a call.

        Args:
            place: the caller's.
            operation: as AWS names it.
            name: of the stream that it is about; empty where there is none.
            now_ms: milliseconds since the epoch.

        Raises:
            LimitExceeded: it is one too many.
        """
        rate = CALLS_PER_SECOND.get(operation)
        if rate is None:
            return
        key = (place, operation, name if operation in _PER_STREAM else "")
        left, at_ms = self._buckets.get(key, (rate, now_ms))
        left = min(rate, left + max(0, now_ms - at_ms) * rate / 1000)
        if left < 1:
            self._buckets[key] = (left, now_ms)
            what = f"stream {name} under account" if name else "account"
            raise LimitExceeded(f"Rate exceeded for {what} {place.account}.")
        if len(self._buckets) >= _MOST_STREAMS:
            self._buckets.clear()
        self._buckets[key] = (left - 1, now_ms)
