"""Which states allow what, in AWS's words. Pure."""

from __future__ import annotations

from typing import Final

from kflow.errors import ResourceInUse
from kflow.kinesis.registry import Status, Stream

DAY_MS: Final = 86_400_000


def require_active(stream: Stream, now_ms: int) -> None:
    """Refuse a change of a stream that is in the middle of another.

    Raises:
        ResourceInUse: it is not ACTIVE.

    Source: recorded: SplitShard on a CREATING and on an UPDATING stream.
    """
    status = stream.status(now_ms)
    if status is not Status.ACTIVE:
        raise in_state(stream, status)


def require_there(stream: Stream, now_ms: int) -> None:
    """Refuse a change that may go along with another, as of tags, of a stream that is being made or deleted.

    Raises:
        ResourceInUse: it is neither ACTIVE nor UPDATING.
    """
    status = stream.status(now_ms)
    if status not in (Status.ACTIVE, Status.UPDATING):
        raise in_state(stream, status)


def in_state(stream: Stream, status: Status) -> ResourceInUse:
    """The refusal of a stream in a state that does not allow it. Source: recorded."""
    return ResourceInUse(f"Stream {stream.name} under account {stream.account} not ACTIVE, instead in state {status}")


def within_a_day(times_ms: tuple[int, ...], now_ms: int) -> tuple[int, ...]:
    """Those of some times that lie in the last 24 hours."""
    return tuple(each for each in times_ms if now_ms - each < DAY_MS)
