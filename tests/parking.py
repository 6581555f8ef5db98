"""A batch that was given up, for tests of whatever keeps it, shows it or tells of it."""

from __future__ import annotations

from typing import Any

import msgspec

from kflow.broker.parked_batch import ParkCondition, ParkedBatch, ParkedRecord
from kflow.records import Position


def parked(counter: int = 1, **changes: Any) -> ParkedBatch:
    """One record of the first shard of `orders`, by its counter, given up after three attempts; but for `changes`."""
    shard_id = "shardId-000000000000"
    entry = ParkedBatch(
        function="bill",
        stream="orders",
        stream_id=7,
        shard=0,
        shard_id=shard_id,
        first_counter=counter,
        last_counter=counter,
        start=Position(0, 0),
        end=Position(0, 1),
        records=(ParkedRecord(b"x", "k", 49 + counter, 1_700_000_000_000, shard_id),),
        error=None,
        attempts=3,
        condition=ParkCondition.RETRY_ATTEMPTS_EXHAUSTED,
        parked_ms=1_700_000_001_000,
    )
    return msgspec.structs.replace(entry, **changes)
