"""Quotas of an account in a region: what a new stream, or more shards, may not exceed. Pure.

Source: documented: Kinesis quotas, DescribeLimits; recorded: the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kflow import limits
from kflow.aws.calls import Place
from kflow.broker.attributes import lasts
from kflow.broker.streammap import StreamMode
from kflow.errors import LimitExceeded
from kflow.kinesis.registry import Registry, Stream

SHARDS: Final = 1000
SHARDS_LARGE: Final = 20_000
LARGE_REGIONS: Final = frozenset({"us-east-1", "us-west-2", "eu-west-1"})

_LIMITS_PAGE: Final = "http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html"


def shard_limit(place: Place) -> int:
    """How many open shards an account may have in a region."""
    return SHARDS_LARGE if place.region in LARGE_REGIONS else SHARDS


def open_shards(streams: Sequence[Stream]) -> int:
    """How many open shards some streams have."""
    return sum(each.open_count for each in streams)


def on_demand(streams: Sequence[Stream]) -> int:
    """How many of some streams are on-demand."""
    return sum(each.map.mode is StreamMode.ON_DEMAND for each in streams)


def check_shards(registry: Registry, place: Place, more: int) -> None:
    """Refuse so many shards more than there are.

    Raises:
        LimitExceeded: they would be more than the account may have.
    """
    current, limit = open_shards(registry.streams(place)), shard_limit(place)
    if more > 0 and current + more > limit:
        raise LimitExceeded(
            f"This request would exceed the shard limit for the account {place.account} in {place.region}. Current "
            f"shard count for the account: {current}. Limit: {limit}. Number of additional shards that would have "
            f"resulted from this request: {more}. Refer to the AWS Service Limits page ({_LIMITS_PAGE}) for current "
            "limits and how to request higher limits."
        )


def check_creation(registry: Registry, place: Place, mode: StreamMode, shards: int, now_ms: int) -> None:
    """Refuse one stream more than there may be.

    Raises:
        LimitExceeded: too many are being made, too many are on-demand, or there would be too many shards.
    """
    streams, under_way = registry.streams(place), registry.expected(place)
    creating = sum(lasts(each.attributes.active_ms, now_ms) for each in streams) + len(under_way)
    if creating >= limits.STREAMS_CREATING:
        raise LimitExceeded(
            "This request would have exceed the limit on the number  of streams that can simultaneously be in CREATING "
            f"or DELETING for the account {place.account}. Limit: {limits.STREAMS_CREATING}."
        )
    if mode is StreamMode.ON_DEMAND:
        current = on_demand(streams)
        if current >= limits.ON_DEMAND_STREAMS:
            raise LimitExceeded(
                "This request would exceed the limit on the number of On-Demand streams for the account "
                f"{place.account} in {place.region}. Current On-Demand streams count: {current}. "
                f"Limit: {limits.ON_DEMAND_STREAMS}."
            )
    check_shards(registry, place, shards)
