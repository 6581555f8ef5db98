"""What a connection has received and not served yet: whole frames, and the beginning of one.

Small frames share one buffer, which is used again and again. A frame that does not fit gets a buffer of its own, as
large as it is: that one is left to the blocks in the shards' queues, so that large bodies are never copied.
"""

from __future__ import annotations

import socket
from typing import Final

from kflow.broker import wire

BUFFER_BYTES: Final = 128 << 10
"""Of the buffer that is used again; a larger frame gets one of its own."""

_FRAME_BYTES: Final = wire.FRAME.size
_LARGEST_BYTES: Final = _FRAME_BYTES + wire.FRAME_BYTES


class ReceiveBuffer:
    """The bytes of one connection. Belongs to the loop.

    Attributes:
        view: the buffer.
        have: how many bytes of it are received.
    """

    __slots__ = ("have", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_BYTES))
        self.have = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be received before something is dropped."""
        return self.have == len(self.view)

    @property
    def is_used_again(self) -> bool:
        """Whether the next receive may write over what is served: who keeps a part of it needs a copy."""
        return len(self.view) == BUFFER_BYTES

    def receive(self, connection: socket.socket) -> int:
        """Receive once, behind what is there; how many bytes, 0 at the end of the stream.

        Raises:
            OSError: of the socket.
        """
        have = self.have
        received = connection.recv_into(self.view[have:] if have else self.view)
        self.have = have + received
        return received

    def drop(self, at: int) -> None:
        """Forget the first `at` bytes, which are served; a frame too large for the buffer moves to one of its own."""
        view, have = self.view, self.have
        rest = have - at
        if len(view) != BUFFER_BYTES:
            if at:
                self._replace(BUFFER_BYTES, at)
            return
        if rest >= _FRAME_BYTES:
            length: int = wire.FRAME.unpack_from(view, at)[0] + _FRAME_BYTES
            if BUFFER_BYTES < length <= _LARGEST_BYTES:
                self._replace(length, at)
                return
        if at:
            view[:rest] = view[at:have]
            self.have = rest

    def let_go(self) -> None:
        """Nothing is received any more: give the memory back once nobody uses a part of it."""
        self.view, self.have = memoryview(b""), 0

    def _replace(self, size: int, at: int) -> None:
        new = memoryview(bytearray(size))
        rest = self.have - at
        new[:rest] = self.view[at : self.have]
        self.view, self.have = new, rest
