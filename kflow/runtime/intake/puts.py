"""Puts of calls that come over HTTP or the control socket: `Host.put` over the node's appender and its commits.

    put ── small, and its shards are quick ── appended in place ──> results, at once
      └── else: the shards' queues ── appended ── (`always`: durable) ── all parts settled ──> done(results)

The same rules as for producers' connections (`connection`), but for one: a producer that is too far ahead is not read,
while a call that finds a queue full is refused as AWS refuses, and its SDK tries again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kflow.broker.encode import Part
from kflow.broker.streammap import StreamMap
from kflow.broker.wire import Block
from kflow.errors import KflowError, ProvisionedThroughputExceeded, ResourceNotFound, StaleMap
from kflow.kinesis.host import PutResult, Stored
from kflow.runtime.intake import appender as appending
from kflow.runtime.intake.appender import Appender, Job
from kflow.runtime.intake.backlog import Backlog
from kflow.runtime.intake.blocks import OnAppend
from kflow.runtime.intake.commits import Commits
from kflow.runtime.loop import Loop

log = logging.getLogger(__name__)

QUEUE_BYTES: Final = 16 << 20
"""A shard's queue takes so much of calls, and at least one call. Chosen: the largest call and a little more."""
SLICE_S: Final = 0.0004
"""After this long on the parts of one call, others have their turn."""
_FRAME: Final = 1
"""Every call is its own frame of its own sender: where a part fails, later ones for its shard are not tried."""

Done = Callable[[list[PutResult]], object]


class Service(Protocol):
    """What appends. `kflow.runtime.intake.ingest.Ingest` is one."""

    loop: Loop
    appender: Appender
    commits: Commits | None
    backlog: Backlog
    on_append: OnAppend

    def stream(self, stream_id: int) -> StreamMap | None:
        """The map of a stream, by id."""
        ...

    def forget(self, stream_id: int) -> None:
        """Read the map of a stream again before it is used."""
        ...


class _Sender:
    """One call, as the appender sees it."""

    __slots__ = ("failed", "producer", "stale")

    def __init__(self) -> None:
        self.producer = 0
        self.failed: dict[tuple[int, int], tuple[int, str]] = {}
        self.stale: dict[int, deque[int]] = {}


class _Pending:
    """A call whose parts are not all settled.

    Attributes:
        stream: the map it was encoded by, current when it began.
        parts: its parts.
        begun: how many of them were tried or queued.
        missing: how many are not settled.
        results: of those that are.
        sender: the call as its sender.
        done: told when all are settled; None while the caller has not been told that it will be.
    """

    __slots__ = ("begun", "done", "missing", "parts", "results", "sender", "stream")

    def __init__(self, stream: StreamMap, parts: Sequence[Part], done: Done) -> None:
        self.stream = stream
        self.parts = parts
        self.begun = 0
        self.missing = len(parts)
        self.results: list[PutResult | None] = [None] * len(parts)
        self.sender = _Sender()
        self.done = done


class Puts:
    """`Host.put` of a node. Belongs to the loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sender = _Sender()  # of calls of one part that are appended in place: nothing stands behind that
        self._queued: dict[tuple[int, int], int] = {}  # bytes in a shard's queue
        self._unbegun: deque[_Pending] = deque()
        self._is_due = False

    def put(self, stream: StreamMap, parts: Sequence[Part], done: Done) -> list[PutResult] | None:
        """Append the parts of one call: see `kflow.kinesis.host.Host.put`."""
        service = self._service
        current = service.stream(stream.id)
        if current is None or current.generation != stream.generation:
            return [_stale(stream) for _ in parts]
        if service.commits is None and not self._unbegun and len(parts) == 1:
            shard, _, count, body, crc, flags = parts[0]
            result = service.appender.append_now(current, self._sender, _FRAME, 0, 0, shard, count, body, crc, flags)
            if isinstance(result, tuple):
                first_counter, arrival_ms, tail, next_counter = result
                service.on_append(current, shard, tail, next_counter)
                return [Stored(first_counter, arrival_ms)]
            if result is not None:
                self._sender = _Sender()
                return [self._failed(current, result)]
        pending = _Pending(current, parts, done)
        self._unbegun.append(pending)
        if len(self._unbegun) == 1:
            self._work(pending)
        if pending.missing:
            return None
        return pending.results  # type: ignore[return-value]  # none is missing

    def _work(self, pending: _Pending) -> None:
        """Append or queue what is left of a call, for one slice of the loop at most."""
        parts, total = pending.parts, len(pending.parts)
        deadline = time.perf_counter() + SLICE_S
        while pending.begun < total:
            number = pending.begun
            pending.begun += 1
            self._append(pending, number, parts[number])
            if time.perf_counter() > deadline:
                break
        if pending.begun == total:
            self._unbegun.popleft()
        if self._unbegun and not self._is_due:
            self._is_due = True
            self._service.loop.call_later(0, self._resume)

    def _resume(self) -> None:
        self._is_due = False
        pending = self._unbegun[0]
        self._work(pending)
        if not pending.missing and pending.begun == len(pending.parts):
            self._tell(pending)

    def _append(self, pending: _Pending, number: int, part: Part) -> None:
        service, stream = self._service, pending.stream
        current = service.stream(stream.id)
        if current is None or current.generation != stream.generation:  # since `put` looked, slices ago
            self._settle(pending, number, _stale(stream))
            return
        body = memoryview(part.body)
        result = service.appender.append_now(
            stream, pending.sender, _FRAME, number, 0, part.shard, part.count, body, part.crc, part.flags
        )
        if result is not None:
            self._appended(pending, number, part, result)
            return
        key, size = (stream.id, part.shard), len(body)
        queued = self._queued.get(key, 0)
        if (queued and queued + size > QUEUE_BYTES) or not service.backlog.has_room():
            text = f"shard {part.shard} of stream {stream.name} is behind: {queued} bytes wait for it; try again later"
            self._settle(pending, number, ProvisionedThroughputExceeded(text))
            return
        self._queued[key] = queued + size
        service.backlog.add(size)
        job = Job(pending.sender, _FRAME, number, 0, Block(part.shard, part.count, body, part.crc, part.flags, 0))

        def through(result: appending.Result) -> None:
            left = self._queued[key] - size
            if left:
                self._queued[key] = left
            else:
                del self._queued[key]
            service.backlog.remove(size)
            self._appended(pending, number, part, result)
            if not pending.missing:
                self._tell(pending)

        service.appender.queue(stream, job, through)

    def _appended(self, pending: _Pending, number: int, part: Part, result: appending.Result) -> None:
        """A part is in the log, or is not; with `always` it is settled once it is durable."""
        service, stream = self._service, pending.stream
        if not isinstance(result, tuple):
            self._settle(pending, number, self._failed(stream, result))
            return
        first_counter, arrival_ms, tail, next_counter = result
        stored = Stored(first_counter, arrival_ms)
        if service.commits is None:
            service.on_append(stream, part.shard, tail, next_counter)
            self._settle(pending, number, stored)
            return

        def committed(error: KflowError | None) -> None:
            self._settle(pending, number, stored if error is None else error)
            if not pending.missing:
                self._tell(pending)

        service.commits.wait(stream, part.shard, tail, committed)

    def _failed(self, stream: StreamMap, error: KflowError) -> KflowError:
        if isinstance(error, ResourceNotFound):  # whoever asked looks whether the stream is there still
            self._service.forget(stream.id)
            return StaleMap(str(error))
        return error

    def _settle(self, pending: _Pending, number: int, result: PutResult) -> None:
        pending.results[number] = result
        pending.missing -= 1

    def _tell(self, pending: _Pending) -> None:
        try:
            pending.done(pending.results)  # type: ignore[arg-type]  # none is missing
        except Exception:  # whoever asked is broken; the shards' other callers must be told all the same
            log.exception("what was to happen after a put failed stream=%s", pending.stream.name)


def _stale(stream: StreamMap) -> StaleMap:
    return StaleMap(f"the shards of stream {stream.name} have changed")
