"""Records of one stream through one channel: encoded by the chunk, up to four frames in flight, never out of order.

A key's records never overtake each other. When an answer brings a failure, nothing more is sent before all that is
under way has been answered; what was routed by an old map then goes first, and what stood behind a refused record is
refused too. For the same reason all that is under way was routed by one map: where another thread of the process has
learnt of a newer one, the old is waited for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kflow.broker.encode import Part
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, StorageError
from kflow.producing.channel import PATIENCE_S, Channel
from kflow.producing.frames import Failure, Frame
from kflow.records import Placed

CHUNK_RECORDS = 1000
"""Records of a call that are encoded and sent together."""
FRAME_BYTES = 8 << 20
"""A chunk with more than this goes as several frames."""
FRAMES_IN_FLIGHT = 4
_PAUSE_S = 0.01


class Entries(NamedTuple):
    """Records to put, in columns.

    Attributes:
        keys: partition keys.
        datas: payloads.
        hash_keys: explicit hash keys; None where no record has one.
    """

    keys: Sequence[str]
    datas: Sequence[bytes]
    hash_keys: Sequence[int | None] | None = None

    def cut(self, begin: int, end: int) -> Entries:
        """Some neighbours of them."""
        part = slice(begin, end)
        return Entries(self.keys[part], self.datas[part], None if self.hash_keys is None else self.hash_keys[part])

    def take(self, indexes: Sequence[int]) -> Entries:
        """Some of them, in the order of `indexes`."""
        hash_keys = None if self.hash_keys is None else [self.hash_keys[index] for index in indexes]
        return Entries([self.keys[index] for index in indexes], [self.datas[index] for index in indexes], hash_keys)


class Gathered(NamedTuple):
    """User records, put together into fewer.

    Attributes:
        entries: what is put.
        members: for each of them, which user records are in it, by their indexes.
    """

    entries: Entries
    members: Sequence[Sequence[int]]


Gather = Callable[[StreamMap, Entries], Gathered]


class Sources(NamedTuple):
    """Where a pipeline gets the stream's map.

    Attributes:
        known: the map as it was last seen.
        refreshed: the map as it is now; raises `ResourceNotFound`.
    """

    known: Callable[[], StreamMap]
    refreshed: Callable[[], StreamMap]


class _Chunk(NamedTuple):
    """Records under way.

    `numbers` are their places in the call. Where they were put together, `members` says what is in each record of the
    parts.
    """

    numbers: Sequence[int]
    entries: Entries
    parts: Sequence[Part]
    frames: list[Frame]
    members: Sequence[Sequence[int]] | None

    def indexes_of(self, part: Part) -> Sequence[int]:
        """Which of the records are in a part."""
        if self.members is None:
            return range(len(self.numbers)) if part.indexes is None else part.indexes
        put = range(len(self.members)) if part.indexes is None else part.indexes
        return sorted(index for each in put for index in self.members[each])


class _Stale(NamedTuple):
    """Records that were routed by a map that is no longer valid."""

    stream: StreamMap
    numbers: Sequence[int]
    entries: Entries


class Pipeline:
    """Belongs to whoever holds the channel.

    Attributes:
        placed: where each record is, by its number; `total` long, None for those without a place.
        failures: why a record has none, by its number.
    """

    __slots__ = ("_channel", "_flying", "_gather", "_in_flight", "_source", "_stale", "failures", "placed")

    def __init__(self, channel: Channel, source: Sources, total: int = 0, *, gather: Gather | None = None) -> None:
        """Begin.

        Args:
            channel: where frames go.
            source: of the stream's map.
            total: how many records there will be; 0 where nobody asks for their places.
            gather: puts records together before they are encoded, by the map they are routed by; then `total` is 0.
        """
        self._channel = channel
        self._gather = gather
        self._source = source
        self._flying: deque[_Chunk] = deque()
        self._in_flight = 0
        self._stale: list[_Stale] = []
        self.placed: list[Placed | None] = [None] * total
        self.failures: dict[int, Failure] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._flying

    def push(self, numbers: Sequence[int], entries: Entries) -> None:
        """Encode and send some records; waits while four frames are in flight.

        Raises:
            ValidationFailed, InvalidArgument, UsageError: a record is not acceptable; none of these was sent.
        """
        while self._in_flight >= FRAMES_IN_FLIGHT and self._flying:
            self._finish(self._flying.popleft())
        stream = self._source.known()
        if self._stale or self.failures or (self._flying and self._flying[-1].frames[0].stream is not stream):
            self.settle()
            stream = self._source.known()
        self._send(stream, numbers, entries)

    def poll(self) -> None:
        """Take the answers that are there, without waiting."""
        self._channel.poll()
        while self._flying and all(frame.answers for frame in self._flying[0].frames):
            self._finish(self._flying.popleft())

    def settle(self) -> None:
        """Wait for everything under way, and route again what the stream's change left over."""
        while self._flying:
            self._finish(self._flying.popleft())
        if self._stale:
            self._route_again()

    def refuse(self, numbers: Sequence[int], error: KflowError) -> None:
        """Say of records that were never sent why they were not."""
        self.failures.update(dict.fromkeys(numbers, Failure("refused", error)))

    def _send(self, stream: StreamMap, numbers: Sequence[int], entries: Entries) -> None:
        channel = self._channel
        if self._gather is None:
            put, members = entries, None
        else:
            put, members = self._gather(stream, entries)
        parts = channel.encoder(stream).encode_many(put.keys, put.datas, put.hash_keys)
        frames = [Frame(stream, group) for group in _groups(parts)]
        self._flying.append(_Chunk(numbers, entries, parts, frames, members))
        self._in_flight += len(frames)
        for frame in frames:
            channel.submit(frame)

    def _finish(self, chunk: _Chunk) -> None:
        """Wait for a chunk's answers and note what they say."""
        frames = chunk.frames
        for frame in frames:
            self._channel.wait_for(frame)
        self._in_flight -= len(frames)
        answers = frames[0].answers if len(frames) == 1 else [answer for frame in frames for answer in frame.answers]
        if self.placed:
            self._note_places(chunk, answers)
        if any(frame.failures for frame in frames):
            self._note_failures(chunk)

    def _note_places(self, chunk: _Chunk, answers: Sequence[tuple[int, int]]) -> None:
        numbers = chunk.numbers
        encoder = self._channel.encoder(chunk.frames[0].stream)
        placed = encoder.placed(len(numbers), chunk.parts, answers)
        if isinstance(numbers, range):
            self.placed[numbers.start : numbers.stop] = placed
        else:
            for number, place in zip(numbers, placed, strict=True):
                self.placed[number] = place

    def _note_failures(self, chunk: _Chunk) -> None:
        numbers = chunk.numbers
        stale: list[int] = []
        for frame in chunk.frames:
            for place, failure in (frame.failures or {}).items():
                indexes = chunk.indexes_of(frame.parts[place])
                if failure.status == "stale":
                    stale += indexes
                else:
                    self.failures.update(dict.fromkeys([numbers[index] for index in indexes], failure))
                if self.placed:
                    for index in indexes:
                        self.placed[numbers[index]] = None
        if stale:
            stale.sort()
            stream = chunk.frames[0].stream
            self._stale.append(_Stale(stream, [numbers[index] for index in stale], chunk.entries.take(stale)))

    def _route_again(self) -> None:
        """Send stale records by the newest map, until they have a place or 10 s are over."""
        deadline = time.monotonic() + PATIENCE_S
        while self._stale:
            stale, self._stale = self._stale, []
            if self.failures:  # they stand behind what was refused
                error: KflowError = StorageError("not tried, for a record before it was refused")
                for late in stale:
                    self.refuse(late.numbers, error)
                return
            try:
                before = stale[0].stream
                stream = self._source.refreshed()
                if stream == before:
                    if time.monotonic() > deadline:
                        raise StorageError(f"stream {before.name} and its node do not agree about its shards")
                    time.sleep(_PAUSE_S)
            except KflowError as failed:
                for late in stale:
                    self.refuse(late.numbers, failed)
                return
            for late in stale:
                self._send(stream, late.numbers, late.entries)
            while self._flying:
                self._finish(self._flying.popleft())


def _groups(parts: list[Part]) -> list[list[Part]]:
    """The parts of a chunk in as many frames as it takes."""
    if len(parts) <= 2 or sum([len(part[3]) for part in parts]) <= FRAME_BYTES:
        return [parts]
    groups: list[list[Part]] = [[]]
    size = 0
    for part in parts:
        if groups[-1] and size + len(part.body) > FRAME_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += len(part.body)
    return groups
