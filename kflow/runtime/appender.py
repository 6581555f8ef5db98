"""Appends on behalf of the node's loop: quick ones at once, all others by one thread a shard, in order.

The loop never waits for a disk. An append runs in place only if it is small, nothing for its shard is queued and the
shard's last append was quick; else it goes to the shard's queue, and with it everything behind it for that shard. The
queue's thread exists while there is work and a little longer. So a shard on a slow disk costs its own producers time,
and nobody else.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, Protocol

from crc32c import crc32c

from kflow.broker.block import well_formed
from kflow.broker.log import Log
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap
from kflow.broker.wire import Block
from kflow.errors import InternalError, KflowError, ResourceNotFound, StaleMap, StorageError
from kflow.runtime.loop import Loop

log = logging.getLogger(__name__)

INLINE_BYTES = 64 << 10
"""Larger bodies never run on the loop: with checksum and copy they would take a good part of its slice."""
SLOW_S = 0.005
"""A shard whose last append took longer is served by its thread until one was quicker."""
LINGER_S = 10.0
"""A queue's thread ends when it had nothing to do for this long."""


Stored = tuple[int, int, int]
"""Where a block was stored: first counter, arrival in milliseconds, the shard's tail after it."""
Result = Stored | KflowError


class Sender(Protocol):
    """The connection a block came by.

    Attributes:
        producer: id of the producer.
        failed: by (stream id, shard): the last frame that failed there, and why.
    """

    producer: int
    failed: dict[tuple[int, int], tuple[int, str]]


class Job(NamedTuple):
    """One block to append.

    Attributes:
        sender: the connection.
        frame: the producer's number of the frame.
        part: the block's place in the frame.
        seen: the last frame whose answer the producer had read when it sent this one.
        block: the block; a queued one must own its body.
        resent: whether it may be stored already, from offset `block.tail` on.
        stale: whether it was routed by an older map: then it may be found, but never appended.
    """

    sender: Sender
    frame: int
    part: int
    seen: int
    block: Block
    resent: bool = False
    stale: bool = False


Done = Callable[[Result], None]


class Lane:
    """One shard's appends. Belongs to the loop, except where the thread is named.

    Attributes:
        waiting: jobs whose result the loop has not been told yet.
        slow: whether the last append took longer than `SLOW_S`; stored by whoever appended last, loop or thread.
        jobs: for the thread; under `condition`.
        thread: the thread that serves `jobs`, if there is one; under `condition`.
    """

    __slots__ = ("condition", "index", "jobs", "slow", "stream", "thread", "waiting")

    def __init__(self, stream: StreamMap, index: int) -> None:
        self.stream = stream
        self.index = index
        self.waiting = 0
        self.slow = False
        self.jobs: deque[tuple[Job, Done]] = deque()
        self.condition = threading.Condition()
        self.thread: threading.Thread | None = None


class Appender:
    """The only caller of `Shard.append` in a node. Its methods belong to the loop's thread."""

    def __init__(self, store: Log, loop: Loop) -> None:
        self._log = store
        self._loop = loop
        self._lanes: dict[tuple[int, int], Lane] = {}
        self._results: deque[tuple[Lane, Done, Result]] = deque()
        self._awaited: list[tuple[int, Callable[[], None]]] = []
        self._called = False
        self._closing = False

    def append_now(
        self,
        stream: StreamMap,
        sender: Sender,
        frame: int,
        part: int,
        seen: int,
        index: int,
        records: int,
        body: memoryview,
        crc: int,
        flags: int,
    ) -> Result | None:
        """Append one block in place, if that is certain to be quick.

        Args:
            stream: the map it was routed by, current.
            sender: the connection.
            frame: the producer's number of the frame.
            part: the block's place in the frame.
            seen: as in `Job`.
            index: of the shard.
            records: how many are in it.
            body: the block's body.
            crc: CRC32C of the body.
            flags: of the block.

        Returns:
            What came of it; None where the block must be queued.
        """
        lane = self._lanes.get((stream.id, index))
        if lane is None:
            lane = self._lane(stream, index)
        if lane.waiting or lane.slow or len(body) > INLINE_BYTES:
            return None
        began = perf_counter()
        result = self._append(stream, sender, frame, part, seen, index, records, body, crc, flags)
        if perf_counter() - began > SLOW_S:
            lane.slow = True
        return result

    def queue(self, stream: StreamMap, job: Job, done: Done) -> None:
        """Append in the shard's thread; `done` is called with what came of it, on the loop, in order."""
        lane = self._lane(stream, job.block.shard)
        lane.waiting += 1
        with lane.condition:
            lane.jobs.append((job, done))
            if lane.thread is None:
                name = f"append {stream.name}/{lane.index}"
                lane.thread = threading.Thread(target=self._serve, args=(lane,), name=name, daemon=True)
                lane.thread.start()
            else:
                lane.condition.notify()

    def when_idle(self, stream_id: int, then: Callable[[], None]) -> None:
        """Call `then` once no append to this stream is queued or under way: now, or later on the loop."""
        if self._is_busy(stream_id):
            self._awaited.append((stream_id, then))
        else:
            then()

    def forget(self, stream_id: int) -> None:
        """Drop what is known of a stream whose map has changed or that is gone; what is queued is still tried."""
        for key in [key for key, lane in self._lanes.items() if key[0] == stream_id and not lane.waiting]:
            del self._lanes[key]

    def close(self) -> None:
        """Finish all that is queued, tell its results, end the threads."""
        self._closing = True
        for lane in self._lanes.values():
            with lane.condition:
                thread = lane.thread
                lane.condition.notify()
            if thread is not None:
                thread.join()
        self._deliver()

    def _lane(self, stream: StreamMap, index: int) -> Lane:
        key = (stream.id, index)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(stream, index)
        elif lane.stream is not stream:
            lane.stream = stream  # a newer map of the same stream: the queue goes on, so that order holds
        return lane

    def _run(self, stream: StreamMap, job: Job) -> Result:
        """Append a queued block, after a look for it where it may be stored already."""
        block, sender = job.block, job.sender
        try:
            if job.resent:
                found = self._log.find(stream, block.shard, sender.producer, job.frame, job.part, block.tail)
                if found is not None:
                    return found[0], found[1], self._log.shard(stream, block.shard).tail
        except KflowError as error:
            return self._failed(stream, sender, job.frame, block.shard, error)
        if job.stale:
            return StaleMap(f"the shards of stream {stream.name} have changed")
        return self._append(stream, sender, job.frame, job.part, job.seen, *block[:5])

    def _append(
        self,
        stream: StreamMap,
        sender: Sender,
        frame: int,
        part: int,
        seen: int,
        index: int,
        records: int,
        body: memoryview,
        crc: int,
        flags: int,
    ) -> Result:
        """On the loop or in the shard's thread, never both at a time for one shard."""
        try:
            if sender.failed:
                _look_behind(stream, sender, seen, index)
            if crc32c(body) != crc or not well_formed(body, records, flags):
                raise StorageError("the block was damaged on its way to the node")
            shard = self._log.shard(stream, index)
            first_counter, arrival_ms = shard.append(body, records, crc, flags, sender.producer, frame, part)
            return first_counter, arrival_ms, shard.tail  # noqa: TRY300  # an `else` would say no more
        except KflowError as error:
            return self._failed(stream, sender, frame, index, error)
        except Exception as error:  # a broken promise must fail this block, not end the node or silence the shard
            log.exception("append failed stream=%s shard=%d", stream.name, index)
            broken = InternalError(f"{type(error).__name__}: {error}; please report it")
            return self._failed(stream, sender, frame, index, broken)

    def _failed(self, stream: StreamMap, sender: Sender, frame: int, index: int, error: KflowError) -> KflowError:
        """Note a failure, so that what stands behind it on this connection fails too."""
        if not isinstance(error, ResourceNotFound | StaleMap):
            cause = error.__cause__
            sender.failed[stream.id, index] = (frame, str(cause if isinstance(cause, KflowError) else error))
        return error

    def _serve(self, lane: Lane) -> None:
        """The lane's thread."""
        while True:
            with lane.condition:
                while not lane.jobs:
                    if self._closing or (not lane.condition.wait(LINGER_S) and not lane.jobs):
                        lane.thread = None
                        return
                job, done = lane.jobs.popleft()
            began = perf_counter()
            result = self._run(lane.stream, job)
            lane.slow = perf_counter() - began > SLOW_S
            self._results.append((lane, done, result))
            if not self._called:
                self._called = True
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._called = False  # before the results are taken: whoever comes later calls again
        while self._results:
            lane, done, result = self._results.popleft()
            lane.waiting -= 1
            done(result)
        if self._awaited:
            awaited, self._awaited = self._awaited, []
            for stream_id, then in awaited:
                self.when_idle(stream_id, then)

    def _is_busy(self, stream_id: int) -> bool:
        return any(lane.waiting for key, lane in self._lanes.items() if key[0] == stream_id)


def _look_behind(stream: StreamMap, sender: Sender, seen: int, index: int) -> None:
    """Refuse a block whose producer did not know yet that one before it failed: no record may overtake it."""
    failed = sender.failed.get((stream.id, index))
    if failed is not None and seen < failed[0]:
        reason = StorageError(failed[1])
        raise StorageError(f"not tried, for an append before it to {shard_id(index)} failed: {reason}") from reason
