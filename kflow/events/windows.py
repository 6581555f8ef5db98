"""What the event of a tumbling window has beside its records. Source: documented: Lambda Developer Guide."""

from __future__ import annotations

from typing import Any

from kflow.clock import utc_text
from kflow.records import Window


def window_members(window: Window, shard_id: str) -> dict[str, Any]:
    """In AWS's order, for an event of this shard."""
    return {
        "window": {"start": utc_text(window.start_s), "end": utc_text(window.end_s)},
        "state": window.state,
        "shardId": shard_id,
        "eventSourceARN": window.source_arn,
        "isFinalInvokeForWindow": window.is_final,
        "isWindowTerminatedEarly": window.is_terminated_early,
    }
