"""Pages of a log's events: the first of many, or the last."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from kflow.monitoring.logged import Logged

PAGE_BYTES: Final = 1 << 20
"""An answer holds so much. Source: documented: GetLogEvents, FilterLogEvents."""


class Last:
    """The last of many events, a page of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: list[Logged] = []

    @property
    def is_full(self) -> bool:
        """Whether there are as many as a page has."""
        return len(self._events) >= self._limit

    def add(self, event: Logged) -> None:
        """One more."""
        self._events.append(event)
        if len(self._events) >= 2 * self._limit:
            del self._events[: -self._limit]

    def events(self) -> list[Logged]:
        """In order; those that are too many for an answer are left out at the beginning."""
        found = list(reversed(first(iter(reversed(self._events)), self._limit)))
        self._events = []
        return found


def first(events: Iterable[Logged], limit: int) -> list[Logged]:
    """The first of them that fit into an answer: at most so many, at least one."""
    found: list[Logged] = []
    size = 0
    for event in islice(events, limit):
        size += event.size
        if found and size > PAGE_BYTES:
            break
        found.append(event)
    return found
