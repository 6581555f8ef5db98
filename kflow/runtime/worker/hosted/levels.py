"""What a function prints as JSON, line by line: what is below the level that was asked for is left out.

Source: documented: monitoring-cloudwatchlogs-log-level: the level of a JSON object is its key `level`, and INFO where
that is missing or none; chosen: text that is no JSON object is always there.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_MOST_BYTES: Final = 1 << 20
"""A line that is longer, and has no end yet, is not waited for."""
_INFO: Final = 2
_LEVELS: Final = {"TRACE": 0, "DEBUG": 1, "INFO": _INFO, "WARN": 3, "WARNING": 3, "ERROR": 4, "FATAL": 5, "CRITICAL": 5}


class _Line(msgspec.Struct):
    level: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class LevelFilter:
    """Takes what is printed, in pieces; gives what is to be logged. 0.2 us for a piece without an object.

    Args:
        level: the least that is shown, as `ApplicationLogLevel` has it.
    """

    __slots__ = ("_is_within", "_least", "_rest")

    def __init__(self, level: str) -> None:
        self._least = _LEVELS[level]
        self._rest = b""
        self._is_within = False  # what was given last did not end its line

    def passed(self, data: bytes) -> bytes:
        """What is to be logged by now: an object that has begun is held until its line ends."""
        if not self._rest and b"{" not in data:
            self._is_within = not data.endswith(b"\n")
            return data
        *lines, rest = (self._rest + data).split(b"\n")
        kept = []
        for line in lines:
            if self._is_within or self._is_shown(line):
                kept.append(line + b"\n")
            self._is_within = False
        self._rest = b""
        if rest and not self._is_within and rest.startswith(b"{") and len(rest) < _MOST_BYTES:
            self._rest = rest
        elif rest:
            kept.append(rest)
            self._is_within = True
        return b"".join(kept)

    def end(self) -> bytes:
        """What is held still, where nothing more comes for now."""
        rest, self._rest = self._rest, b""
        if not rest or not self._is_shown(rest):
            return b""
        self._is_within = True
        return rest

    def _is_shown(self, line: bytes) -> bool:
        if not line.startswith(b"{"):
            return True
        try:
            level = _decode(line).level
        except (msgspec.DecodeError, RecursionError):
            return True
        return _LEVELS.get(level.upper() if isinstance(level, str) else "", _INFO) >= self._least
