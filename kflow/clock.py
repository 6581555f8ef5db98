"""The two clocks everything is told the time by."""

from __future__ import annotations

import time
from datetime import datetime
from typing import NamedTuple, Protocol


class Now(NamedTuple):
    """One reading of both clocks, in milliseconds.

    `monotonic_ms` measures waits (back-off, windows); `epoch_ms` is the wall clock, for record age only. They are read
    together because a step of the wall clock must never move a wait.
    """

    monotonic_ms: int
    epoch_ms: int


class Clock(Protocol):
    """Where the time comes from: the system, or a test."""

    def now(self) -> Now:
        """Read both clocks."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> Now:
        """Read both clocks."""
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


class ManualClock:
    """A clock that stands still until it is moved: for tests and simulation."""

    __slots__ = ("epoch_ms", "monotonic_ms")

    def __init__(self, epoch_ms: int = 1_700_000_000_000, monotonic_ms: int = 1_000_000) -> None:
        self.epoch_ms = epoch_ms
        self.monotonic_ms = monotonic_ms

    def now(self) -> Now:
        """Read both clocks."""
        return Now(self.monotonic_ms, self.epoch_ms)

    def advance(self, milliseconds: int) -> None:
        """Let time pass on both clocks."""
        self.monotonic_ms += milliseconds
        self.epoch_ms += milliseconds


def utc_text(epoch_s: int) -> str:
    """A moment as AWS writes it in events: UTC, whole seconds, `Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))


def utc_text_ms(epoch_ms: int) -> str:
    """A moment as AWS writes it in failure documents: UTC, milliseconds, `Z`."""
    return f"{utc_text(epoch_ms // 1000)[:-1]}.{epoch_ms % 1000:03d}Z"


def utc_seconds(text: str) -> int:
    """The moment of such a text, seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    return int(datetime.fromisoformat(text).timestamp())
