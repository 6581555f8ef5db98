"""Frames of HTTP/2 as they lie in a buffer: counted and bounded before anything parses them.

`h2` works through whatever it is given in one go, some 20 us a frame, and a frame can be nine bytes long; so it is
given a few at a time, and what kind they are is known beforehand.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How HTTP/2 with prior knowledge begins."""

DATA = 0
HEADERS = 1
GOAWAY = 7
CONTINUATION = 9

FRAMES = 24
"""So many are worked through in one round of the loop: about 0.5 ms."""
HEADER_BYTES = 9
FRAME_BYTES = 16384
"""The longest frame that a peer may send, as every peer may by default."""


class Prefix:
    """The next frames of a buffer.

    Attributes:
        size: bytes of them.
        count: how many they are.
        idle: how many of them bring nothing of a request.
        is_cut: whether there are more whole frames behind them.
        goaway_size: of the GOAWAY that follows them, else 0; `h2` must not see it: it would send nothing more.
        is_overlong: whether what follows them is longer than a frame may be.
    """

    __slots__ = ("count", "goaway_size", "idle", "is_cut", "is_overlong", "size")

    def __init__(self, data: bytes | bytearray) -> None:
        at = 0
        end = len(data)
        self.count = 0
        self.idle = 0
        self.is_cut = False
        self.goaway_size = 0
        self.is_overlong = False
        while at + HEADER_BYTES <= end:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            if length > FRAME_BYTES:
                self.is_overlong = True
                break
            if at + HEADER_BYTES + length > end:
                break
            if kind == GOAWAY:
                self.goaway_size = HEADER_BYTES + length
                break
            if self.count == FRAMES:
                self.is_cut = True
                break
            self.count += 1
            if (kind != DATA or not length) and kind not in (HEADERS, CONTINUATION):
                self.idle += 1
            at += HEADER_BYTES + length
        self.size = at


def goaway(last_stream_id: int, error: int) -> bytes:
    """The frame that says that streams after `last_stream_id` are not served.

    Written here, as `h2` sends nothing more after one of its own, and the answers under way are to follow.
    """
    return struct.pack(">BHBBLLL", 0, 8, GOAWAY, 0, 0, last_stream_id, error)
