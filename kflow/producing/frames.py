"""What a channel carries: frames of blocks, and why one has no place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kflow.broker.encode import Part
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, StaleMap

Block = tuple[int, int, bytes, int, int]
"""Shard, records, body, CRC, flags: a part as the wire takes it."""
Answer = tuple[int, int]
"""First counter and arrival of a stored part."""


class Failure(NamedTuple):
    """Why one part of a frame has no place.

    Attributes:
        status: `stale` (routed by a map that is no longer valid: nothing is stored, route it again), `refused` (nothing
            is stored) or `unknown` (it may be stored).
        error: what happened.
    """

    status: str
    error: KflowError


class Frame:
    """Some blocks on their way.

    Attributes:
        stream: the map they were routed by.
        parts: the blocks.
        number: given by the channel.
        sent: whether some writer may have stored it, so that the next one must look.
        is_behind: whether a frame before it failed after this one was sent: should it be sent again, it is only looked
            for, as what failed is to come first.
        tails: each part's shard's tail, as known before it was first sent.
        answers: where each part is; (0, 0) where it failed. Empty until answered.
        failures: by place of the part; None where nothing failed.
    """

    __slots__ = ("answers", "failures", "is_behind", "number", "parts", "sent", "stream", "tails")

    def __init__(self, stream: StreamMap, parts: Sequence[Part]) -> None:
        self.stream = stream
        self.parts = parts
        self.number = 0
        self.sent = False
        self.is_behind = False
        self.tails: Sequence[int] = ()
        self.answers: list[Answer] = []
        self.failures: dict[int, Failure] | None = None

    @property
    def generation(self) -> int:
        """Of the map they were routed by; 0, which no map has, where nothing of it may be appended any more."""
        return 0 if self.is_behind else self.stream.generation

    def blocks(self) -> list[Block]:
        """The parts as the wire takes them."""
        return [part[0:1] + part[2:] for part in self.parts]

    def note_tails(self, tails: Sequence[int]) -> None:
        """Note where to look for each part, should its answer be lost; a newer shard is looked through from 0."""
        self.tails = [tails[part[0]] if part[0] < len(tails) else 0 for part in self.parts]

    def note(self, answers: Sequence[Answer | KflowError]) -> None:
        """Note what the log said of each part."""
        for place, answer in enumerate(answers):
            if isinstance(answer, KflowError):
                self.fail(place, Failure("stale" if isinstance(answer, StaleMap) else "refused", answer))
        self.answers = [(0, 0) if isinstance(answer, KflowError) else answer for answer in answers]

    def fail(self, place: int, failure: Failure) -> None:
        """Note that one part has no place."""
        if self.failures is None:
            self.failures = {}
        self.failures[place] = failure

    def doubt(self, error: KflowError) -> None:
        """Note that whatever has a place may lose it with the power."""
        for place in range(len(self.parts)):
            if self.failures is None or place not in self.failures:
                self.fail(place, Failure("unknown", error))
                self.answers[place] = (0, 0)

    def fail_all(self, failure: Failure) -> None:
        """Note that no part has a place; that is an answer too."""
        self.failures = dict.fromkeys(range(len(self.parts)), failure)
        self.answers = [(0, 0)] * len(self.parts)
