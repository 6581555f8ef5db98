"""Appends on behalf of the node's loop: quick ones at once, all others by one thread a shard, in order.

The loop never waits for a disk. An append runs in place only if it is small, nothing for its shard is queued and the
shard's last append was quick; else it goes to the shard's queue, and with it everything behind it for that shard. The
queue's thread exists while there is work and a little longer. So a shard on a slow disk costs its own producers time,
and nobody else.

A shard is held while it is split or merged: nothing is appended, what comes for it waits. Once its children are
published, all that waited is answered as stale, and its producers route it again; where that failed, it is appended.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
STALE_FRAMES = 256
"""So many stale frames of a stream and connection are remembered: far more than a producer has in flight."""
LINGER_S = 10.0
"""A queue's thread ends when it had nothing to do for this long."""


Stored = tuple[int, int, int, int]
"""Where a block was stored: first counter, arrival in milliseconds, the shard's tail after it, and its next counter."""
Result = Stored | KflowError


class Sender(Protocol):
    """The connection a block came by.

    Attributes:
        producer: id of the producer.
        failed: by (stream id, shard): the last frame that failed there, and why.
        stale: by stream id: the last frames that were stale; their records are routed again, perhaps to any shard.
    """

    producer: int
    failed: dict[tuple[int, int], tuple[int, str]]
    stale: dict[int, deque[int]]


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
        waiting: jobs whose result the loop has not been told yet; one more while it is held.
        held: jobs that came since it is held; None while it is not.
        slow: whether the last append took longer than `SLOW_S`; stored by whoever appended last, loop or thread.
        jobs: for the thread; under `condition`.
        thread: the thread that serves `jobs`, if there is one; under `condition`.
    """

    __slots__ = ("condition", "held", "index", "jobs", "slow", "stream", "thread", "waiting")

    def __init__(self, stream: StreamMap, index: int) -> None:
        self.stream = stream
        self.index = index
        self.waiting = 0
        self.held: list[tuple[Job, Done]] | None = None
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
        self._awaited: list[tuple[Callable[[], bool], Callable[[], None]]] = []
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
        body: bytes | memoryview,
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
        if sender.stale and _is_behind_stale(stream, sender, frame, seen):
            return StaleMap(f"not tried, for records before it are routed again: {stream.name} has other shards by now")
        lane = self._lanes.get((stream.id, index)) or self._lane(stream, index)
        if lane.waiting or lane.slow or len(body) > INLINE_BYTES:
            return None
        began = perf_counter()
        result = self._append(stream, sender, frame, part, seen, index, records, body, crc, flags)
        if perf_counter() - began > SLOW_S:
            lane.slow = True
        return result

    def queue(self, stream: StreamMap, job: Job, done: Done) -> None:
        """Append in the shard's thread; `done` is called with what came of it, on the loop, in order."""
        if job.sender.stale and _is_behind_stale(stream, job.sender, job.frame, job.seen):
            job = job._replace(stale=True)
        lane = self._lane(stream, job.block.shard)
        lane.waiting += 1
        if lane.held is not None:
            lane.held.append((job, done))
        else:
            self._hand_over(lane, ((job, done),))

    def hold(self, stream: StreamMap, indexes: Sequence[int], then: Callable[[], None]) -> None:
        """Append nothing more to these shards; call `then` once nothing is under way there: now, or later on the loop.

        Until `release` what comes for them is kept, in order; connections bound how much that is.
        """
        lanes = [self._lane(stream, index) for index in indexes]
        for lane in lanes:
            lane.held = []
            lane.waiting += 1  # so that nothing is appended in place, and nobody takes the shard for idle
        self._when(lambda: all(lane.held is None or lane.waiting == len(lane.held) + 1 for lane in lanes), then)

    def release(self, stream: StreamMap, indexes: Sequence[int], *, closed: bool) -> None:
        """Go on with shards that were held.

        Args:
            stream: the map by which they were held.
            indexes: the shards.
            closed: whether they take no more: what is queued is answered as stale, unless it is found there. Its
                producers route it again, in order.
        """
        for index in indexes:
            lane = self._lanes.get((stream.id, index))
            if lane is None or lane.held is None:
                continue
            held, lane.held = lane.held, None
            lane.waiting -= 1
            first = 0
            if closed:
                error = StaleMap(f"the shards of stream {stream.name} have changed")
                # What was sent before may be stored already: somebody must look, and what stands behind it waits.
                first = next((at for at, (job, _) in enumerate(held) if job.resent), len(held))
                for _, done in held[:first]:
                    self._results.append((lane, done, error))
                held = [(job._replace(stale=True), done) for job, done in held]
            self._hand_over(lane, held[first:])
        if self._results or self._awaited:
            self._call()

    def when_idle(self, stream_id: int, then: Callable[[], None]) -> None:
        """Call `then` once no append to this stream is queued, held or under way: now, or later on the loop."""
        self._when(lambda: not self._is_busy(stream_id), then)

    def forget(self, stream_id: int) -> None:
        """Drop what is known of a stream whose map has changed or that is gone; what is queued is still tried."""
        for key in [key for key, lane in self._lanes.items() if key[0] == stream_id and not lane.waiting]:
            del self._lanes[key]

    def close(self) -> None:
        """Finish all that is queued, tell its results, end the threads.

        What is held is left: whether it belongs to a parent or a child is the next writer's to say.
        """
        self._closing = True
        self._awaited.clear()
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
                    shard = self._log.shard(stream, block.shard)
                    return *found, shard.tail, shard.next_counter
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
        body: bytes | memoryview,
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
            return first_counter, arrival_ms, shard.tail, first_counter + records  # an `else` would say no more
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
            self._call()

    def _hand_over(self, lane: Lane, jobs: Sequence[tuple[Job, Done]]) -> None:
        """Give jobs to the lane's thread, which begins where there is none."""
        if not jobs:
            return
        with lane.condition:
            lane.jobs.extend(jobs)
            if lane.thread is None:
                name = f"append {lane.stream.name}/{lane.index}"
                lane.thread = threading.Thread(target=self._serve, args=(lane,), name=name, daemon=True)
                lane.thread.start()
            else:
                lane.condition.notify()

    def _call(self) -> None:
        """Have results told on the loop. From any thread."""
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
            for is_so, then in awaited:
                self._when(is_so, then)

    def _when(self, is_so: Callable[[], bool], then: Callable[[], None]) -> None:
        if is_so():
            then()
        else:
            self._awaited.append((is_so, then))

    def _is_busy(self, stream_id: int) -> bool:
        return any(lane.waiting for key, lane in self._lanes.items() if key[0] == stream_id)


def _look_behind(stream: StreamMap, sender: Sender, seen: int, index: int) -> None:
    """Refuse a block whose producer did not know yet that one before it failed: no record may overtake it."""
    failed = sender.failed.get((stream.id, index))
    if failed is not None and seen < failed[0]:
        reason = StorageError(failed[1])
        raise StorageError(f"not tried, for an append before it to {shard_id(index)} failed: {reason}") from reason


def _is_behind_stale(stream: StreamMap, sender: Sender, frame: int, seen: int) -> bool:
    """Whether a frame before this one was stale and its producer did not know that yet. On the loop, in order."""
    stale = sender.stale.get(stream.id)
    if stale is None:
        return False
    while stale and stale[0] <= seen:
        stale.popleft()
    if not stale:
        del sender.stale[stream.id]
    return any(each < frame for each in stale)
