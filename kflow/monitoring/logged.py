"""One event of a log, and its id.

An id is 56 digits, as AWS's: time, kind of source, number of the source, place in it. Ids rise with time, so a page
goes on behind the last id of the one before, whatever was written meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import Final, NamedTuple

DIGITS: Final = 56
_ID: Final = re.compile(f"[0-9]{{{DIGITS}}}")
_EVENT_BYTES: Final = 26
"""What an event takes beside its text. Source: documented: PutLogEvents."""

NO_ID: Final = "0" * DIGITS
"""Before all others."""
LAST_ID: Final = "9" * DIGITS
"""Behind all others."""


class Logged(NamedTuple):
    """One event.

    Attributes:
        id: see above; the order of events.
        ms: when it happened, milliseconds since the epoch.
        stream: name of its log stream.
        text: with the line end, where it had one.
        taken_ms: when it was taken in.
    """

    id: str
    ms: int
    stream: str
    text: str
    taken_ms: int

    @property
    def size(self) -> int:
        """Bytes, as CloudWatch Logs counts them."""
        return len(self.text.encode("utf-8", "replace")) + _EVENT_BYTES


def event_id(ms: int, kind: int, source: int, place: int) -> str:
    """The id of an event.

    Args:
        ms: when it happened.
        kind: of source: 0 to 99.
        source: number of the source.
        place: in the source.
    """
    return f"{ms:014d}{kind:02d}{source:020d}{place:020d}"


def first_id(ms: int) -> str:
    """An id that is before all events of this time."""
    return f"{max(ms, 1) - 1:014d}".ljust(DIGITS, "9")


def time_of(event: str) -> int:
    """When an event happened, by its id."""
    return int(event[:14])


def is_id(text: str) -> bool:
    """Whether a text is an id."""
    return _ID.fullmatch(text) is not None


class Bounds(NamedTuple):
    """Which events are meant.

    Attributes:
        after: those behind this id.
        since_ms: not before this time.
        until_ms: before this time.
    """

    after: str
    since_ms: int
    until_ms: int

    def holds(self, event: Logged) -> bool:
        """Whether an event is within."""
        return event.id > self.after and self.since_ms <= event.ms < self.until_ms


def merged(sources: Iterable[Iterator[Logged]]) -> Iterator[Logged]:
    """The events of all sources, each of which is in order."""
    return merge(*sources)
