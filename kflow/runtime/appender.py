"""Appends on behalf of the node's loop: quick ones at once, all others by one thread a shard, in order.

The loop never waits for a disk. An append runs in place only if it is small, nothing for its shard is queued and the
shard's last append was quick; else it goes to the shard's queue, and with it everything behind it for that shard. The
queue's thread exists while there is work and a little longer. So a shard on a slow disk costs its own producers time,
and nobody else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from crc32c import crc32c

from kflow.broker.block import well_formed
from kflow.broker.log import Log
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap
from kflow.broker.wire import Block
from kflow.errors import InternalError, KflowError, ResourceNotFound, StorageError
from kflow.runtime.loop import Loop

log = logging.getLogger(__name__)

INLINE_BYTES = 64 << 10
"""Larger bodies never run on the loop: with checksum and copy they would take a good part of its slice."""
SLOW_S = 0.005
"""A shard whose last append took longer is served by its thread until one was quicker."""
LINGER_S = 10.0
"""A queue's thread ends when it had nothing to do for this long."""


class Stored(NamedTuple):
    """Where a block was stored, and the shard's tail after it."""

    first_counter: int
    arrival_ms: int
    tail: int


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

    def append_now(self, stream: StreamMap, job: Job) -> Result | None:
        """Append in place, if that is certain to be quick.

        Returns:
            What came of it; None where the job must be queued.
        """
        block = job.block
        lane = self._lane(stream, block.shard)
        if lane.waiting or lane.slow or job.resent or len(block.body) > INLINE_BYTES:
            return None
        began = time.perf_counter()
        result = self._run(lane, job)
        lane.slow = time.perf_counter() - began > SLOW_S
        return result

    def queue(self, stream: StreamMap, job: Job, done: Done) -> None:
        """Append in the shard's thread; `done` is called with what came of it, on the loop, in the order of queueing."""
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

    def _run(self, lane: Lane, job: Job) -> Result:
        """Append; on the loop or in the lane's thread, never both at a time for one shard."""
        block, sender = job.block, job.sender
        failed = sender.failed.get((lane.stream.id, lane.index)) if sender.failed else None
        try:
            shard = self._log.shard(lane.stream, lane.index)
            if job.resent:
                found = self._log.find(lane.stream, lane.index, sender.producer, job.frame, job.part, block.tail)
                if found is not None:
                    return Stored(found[0], found[1], shard.tail)
            if job.stale:
                return ResourceNotFound("the stream's shards have changed")
            if failed is not None and job.seen < failed[0]:
                raise StorageError(f"not tried, for an append before it to {shard_id(lane.index)} failed: {failed[1]}")
            if crc32c(block.body) != block.crc or not well_formed(block.body, block.count, block.flags):
                raise StorageError("the block was damaged on its way to the node")
            placed = shard.append(block.body, block.count, block.crc, block.flags, sender.producer, job.frame, job.part)
        except ResourceNotFound as error:
            return error
        except KflowError as error:
            reason = failed[1] if failed is not None and job.seen < failed[0] else str(error)
            sender.failed[lane.stream.id, lane.index] = (job.frame, reason)
            return error
        except Exception as error:  # a broken promise must fail this block, not end the node or silence the shard
            log.exception("append failed stream=%s shard=%d", lane.stream.name, lane.index)
            reason = f"{type(error).__name__}: {error}; please report it"
            sender.failed[lane.stream.id, lane.index] = (job.frame, reason)
            return InternalError(reason)
        return Stored(placed[0], placed[1], shard.tail)

    def _serve(self, lane: Lane) -> None:
        """The lane's thread."""
        while True:
            with lane.condition:
                while not lane.jobs:
                    if self._closing or (not lane.condition.wait(LINGER_S) and not lane.jobs):
                        lane.thread = None
                        return
                job, done = lane.jobs.popleft()
            began = time.perf_counter()
            result = self._run(lane, job)
            lane.slow = time.perf_counter() - began > SLOW_S
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
