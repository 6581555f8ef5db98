"""What a connection has received: a part that is still used outlives the buffer."""

from __future__ import annotations

from typing import Any

from kflow.runtime.intake.receiving import BUFFER_BYTES, ReceiveBuffer


class Sent:
    """Has some bytes to receive."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv_into(self, view: memoryview) -> int:
        view[: len(self._data)] = self._data
        return len(self._data)


def test_a_buffer_that_is_let_go_holds_nothing_but_what_is_in_use() -> None:
    buffer = ReceiveBuffer()
    peer: Any = Sent(b"block")
    buffer.receive(peer)
    block = buffer.view[:5]

    buffer.let_go()

    assert (buffer.have, len(buffer.view)) == (0, 0)
    assert bytes(block) == b"block"
    assert len(block.obj) == BUFFER_BYTES  # type: ignore[arg-type]  # it is the buffer's own memory, not a copy
