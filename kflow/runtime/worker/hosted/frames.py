"""What a runtime process writes: plain output, and frames of its log, in the order in which they were written.

One pipe is its standard output, its standard error and the descriptor of `_LAMBDA_TELEMETRY_LOG_FD`, so that a line
that was printed stays before one that was logged after it. A frame begins with bytes that begin nothing in UTF-8:

    0xA5 0x5A 0x00 type | length, 4 bytes | microseconds, 8 bytes | the message

A runtime that writes no frames writes none of these: then all is plain output. What only looks like the beginning of a
frame is let through as output.

Source: recorded: awslambdaric 4.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_MAGIC: Final = b"\xa5\x5a\x00"
_HEAD: Final = 16
_TYPES: Final = frozenset({0x02, 0x03, 0x0A, 0x0B, 0x0E, 0x0F, 0x12, 0x13, 0x16, 0x17, 0x1A, 0x1B})
_MOST_BYTES: Final = 16 << 20
"""A longer message is none: it is passed on as output."""


class Piece(NamedTuple):
    """Some of what was written.

    Attributes:
        data: the text.
        is_event: it is the message of a frame: one event of the log, of however many lines; else as it was printed.
    """

    data: bytes
    is_event: bool


class Frames:
    """Takes what is read from the pipe; gives what belongs into the log."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Piece]:
        """What has arrived, as far as it is complete; each frame's message ends its line."""
        if not self._rest and b"\xa5" not in data:
            return [Piece(data, is_event=False)]
        data = self._rest + data
        self._rest = b""
        found: list[Piece] = []
        plain: list[bytes] = []
        at = 0
        while True:
            begin = data.find(b"\xa5", at)
            if begin < 0:
                plain.append(data[at:])
                break
            head = data[begin : begin + _HEAD]
            if not _may_be(head):
                plain.append(data[at : begin + 1])
                at = begin + 1
                continue
            plain.append(data[at:begin])
            length = int.from_bytes(head[4:8], "big") if len(head) >= 8 else 0
            end = begin + _HEAD + length
            if len(head) < _HEAD or end > len(data):
                self._rest = data[begin:]
                break
            message = data[begin + _HEAD : end]
            _flush(plain, found)
            found.append(Piece(message if message.endswith(b"\n") else message + b"\n", is_event=True))
            at = end
        _flush(plain, found)
        return found

    def end(self) -> bytes:
        """What is left where nothing more comes."""
        rest, self._rest = self._rest, b""
        return rest


def _flush(plain: list[bytes], found: list[Piece]) -> None:
    text = b"".join(plain)
    plain.clear()
    if text:
        found.append(Piece(text, is_event=False))


def _may_be(head: bytes) -> bool:
    """Whether these are the first bytes of a frame, as far as they go."""
    if not _MAGIC.startswith(head[:3]):
        return False
    if len(head) > 3 and head[3] not in _TYPES:
        return False
    return len(head) < 8 or int.from_bytes(head[4:8], "big") <= _MOST_BYTES
