"""The answer to a frame of blocks, while some of them are still under way."""

from __future__ import annotations

import msgspec

from kflow.broker import wire, wirecalls
from kflow.errors import KflowError

STALE = wire.ANSWER.pack(0, 0, 0, wire.STALE)
REFUSED = wire.ANSWER.pack(0, 0, 0, wire.REFUSED)


class Pending:
    """One PUT frame whose answer is not sent yet.

    Attributes:
        request: the frame's number.
        size: bytes of the frame.
        answers: one a block, in order; empty where not known yet.
        errors: why blocks were refused, by their place.
        missing: how many answers are not known yet.
    """

    __slots__ = ("answers", "errors", "missing", "request", "size")

    def __init__(self, request: int, size: int, count: int) -> None:
        self.request = request
        self.size = size
        self.answers: list[bytes] = [b""] * count
        self.errors: dict[int, KflowError] = {}
        self.missing = count

    def settle(self, part: int, answer: bytes) -> None:
        """Note the answer of one block."""
        self.answers[part] = answer
        self.missing -= 1

    def encoded(self) -> bytes:
        """The answer frame."""
        body = b"".join(self.answers)
        if self.errors:
            ordered = [wirecalls.error_as_json(self.errors[part]) for part in sorted(self.errors)]
            body += msgspec.json.encode(ordered)
        return wire.frame(wire.ANSWERED, self.request, body, len(self.answers))
