"""The text of a function's log, cut into events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_READ_BYTES: Final = 1 << 20
_EVENT_BYTES: Final = 256 << 10
"""A longer line is several events. Source: documented: CloudWatch Logs quotas, event size."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a file that was written at one time by one writer.

    Attributes:
        begin: offset in the file.
        end: where the next one begins.
        ms: when, milliseconds since the epoch.
        stream: name of the writer's log stream.
        group: of the stream; empty: the function's own.
        is_event: whether it is one event, of however many lines; else each line is one.
    """

    begin: int
    end: int
    ms: int
    stream: str
    group: str
    is_event: bool


class LogText:
    """The text of a file, read ahead."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._window = b""

    def pieces(self, stretch: Stretch, *, is_settled: bool) -> Iterator[tuple[int, bytes]]:
        """The events of a stretch, and where they begin."""
        begin, at, rest = stretch.begin, stretch.begin, b""
        while at < stretch.end:
            part = self._read(at, min(stretch.end, at + _READ_BYTES))
            if not part:  # it was cut
                return
            at += len(part)
            rest += part
            if stretch.is_event and at < stretch.end and len(rest) < _EVENT_BYTES:
                continue
            whole = [] if stretch.is_event else rest.split(b"\n")[:-1]
            for line in whole:
                yield from _cut(begin, line + b"\n")
                begin += len(line) + 1
            rest = rest[sum(map(len, whole)) + len(whole) :]
            while len(rest) >= _EVENT_BYTES:
                yield begin, rest[:_EVENT_BYTES]
                begin, rest = begin + _EVENT_BYTES, rest[_EVENT_BYTES:]
        if rest and (is_settled or stretch.is_event):
            yield begin, rest

    def _read(self, begin: int, end: int) -> bytes:
        start = begin - self._start
        if start < 0 or end - self._start > len(self._window):
            self._start, start = begin, 0
            self._window = os.pread(self._fd, max(end - begin, _READ_BYTES), begin)
        return self._window[start : start + end - begin]


def _cut(begin: int, line: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(line), _EVENT_BYTES):
        yield begin + at, line[at : at + _EVENT_BYTES]
