"""The blocks that come by one connection: appended at once where that is quick, else in the queues of their shards.

    frame ── small, and its shard is quick ── appended in place ──────────────────────> answered
      └── else: its shard's queue ── appended ── (`always`: durable) ── all settled ──> in the order of the frames

What is behind a frame that waits is appended where it can be, and answered after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from kflow.broker import wire
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, ResourceNotFound, StaleMap
from kflow.runtime.intake import appender
from kflow.runtime.intake.appender import STALE_FRAMES, Appender, Job, Result, Stored
from kflow.runtime.intake.backlog import Backlog
from kflow.runtime.intake.commits import Commits
from kflow.runtime.intake.pending import REFUSED, STALE, Pending
from kflow.runtime.intake.receiving import ReceiveBuffer

OnAppend = Callable[[StreamMap, int, int, int], None]

_HEAD_BYTES = wire.PUT_HEAD.size
_BLOCK_BYTES = wire.BLOCK.size
_ONE_BYTES = wire.PUT_ONE.size


class Store(Protocol):
    """What appends, for all connections of a node.

    Attributes:
        appender: appends to the log.
        commits: what answers wait for with `fsync = "always"`; None without.
        backlog: what is kept over all connections.
        on_append: told of each append before it is answered.
    """

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


class Sender(appender.Sender, Protocol):
    """The connection that blocks come by.

    Attributes:
        closed: whether it is gone.
    """

    closed: bool

    def work(self) -> None:
        """Send what is answered, and go on with what was received."""
        ...


class Blocks:
    """Those of one connection, and the answers to their frames. Belongs to the loop.

    Attributes:
        size: bytes of the frames that are not answered yet.
    """

    __slots__ = ("_frames", "_outbox", "_received", "_sender", "_service", "size")

    def __init__(self, service: Store, sender: Sender, received: ReceiveBuffer, outbox: bytearray) -> None:
        """For one connection.

        Args:
            service: appends.
            sender: the connection.
            received: its buffer: blocks lie in it.
            outbox: where answers go.
        """
        self._service = service
        self._sender = sender
        self._received = received
        self._outbox = outbox
        self._frames: deque[Pending] = deque()
        self.size = 0

    def drop(self) -> None:
        """The connection is gone: nothing is answered. What is queued is kept until it is appended: see `_settled`."""
        kept = sum(pending.size for pending in self._frames if not pending.missing)
        self._frames.clear()
        self._service.backlog.remove(kept)

    def put_one(self, request: int, payload: memoryview) -> None:
        """Append the one block of a frame: the way of single puts, with as few steps as there can be."""
        stream_id, generation, seen, index, records, length, crc, flags = wire.PUT_ONE.unpack_from(payload)
        service = self._service
        stream = service.stream(stream_id)
        result: Result | None = None
        if (
            stream is not None
            and stream.generation == generation
            and index < len(stream.shards)
            and len(payload) == _ONE_BYTES + length
            and not self._frames
            and service.commits is None
        ):
            body = payload[_ONE_BYTES:]
            result = service.appender.append_now(
                stream, self._sender, request, 0, seen, index, records, body, crc, flags
            )
            if type(result) is tuple:
                service.on_append(stream, index, result[2], result[3])
                self._outbox += wire.answer_one(request, *result[:3])
                return
        self.put_later(request, 1, payload, resent=False, result=result)

    def put(self, request: int, count: int, payload: memoryview) -> None:
        """Append the blocks of a frame; those that need not wait are answered at once."""
        stream_id, generation, seen = wire.PUT_HEAD.unpack_from(payload)
        service = self._service
        stream = service.stream(stream_id)
        if stream is None or stream.generation != generation or service.commits is not None:
            self.put_later(request, count, payload, resent=False)
            return
        at = _HEAD_BYTES + count * _BLOCK_BYTES
        shards, size = len(stream.shards), len(payload)
        append = service.appender.append_now
        answers: list[bytes] = []
        result: Result | None = None
        for index, records, length, crc, flags in wire.BLOCK.iter_unpack(payload[_HEAD_BYTES:at]):
            end = at + length
            if index >= shards or end > size:
                break
            body = payload[at:end]
            result = append(stream, self._sender, request, len(answers), seen, index, records, body, crc, flags)
            if type(result) is not tuple:
                break
            first_counter, arrival_ms, tail, next_counter = result
            result = None
            service.on_append(stream, index, tail, next_counter)
            answers.append(wire.ANSWER.pack(first_counter, arrival_ms, tail, wire.OK))
            at = end
        if len(answers) < count or at != size or self._frames:
            self.put_later(request, count, payload, resent=False, begun=answers, result=result)
        else:
            self._outbox += wire.frame(wire.ANSWERED, request, b"".join(answers), count)

    def put_later(
        self,
        request: int,
        count: int,
        payload: memoryview,
        *,
        resent: bool,
        begun: Sequence[bytes] = (),
        result: Result | None = None,
    ) -> None:
        """Append the blocks of a frame, with those in the shards' queues that have to wait.

        Args:
            request: number of the frame.
            count: number of its blocks.
            payload: the frame.
            resent: whether its blocks may be stored already.
            begun: answers of the first blocks, where they are known.
            result: what came of the block after those, where it is known.
        """
        stream_id, generation, seen, blocks = wire.blocks_of(payload, count, resent=resent)
        service = self._service
        stream = service.stream(stream_id)
        pending = Pending(request, len(payload), count)
        self._frames.append(pending)
        self.size += pending.size
        service.backlog.add(pending.size)
        for part, answer in enumerate(begun):
            pending.settle(part, answer)
        for part, block in enumerate(blocks[len(begun) :], len(begun)):
            # Also for a shard that the newer map leaves open: taking such blocks, kills put keys out of order.
            stale = stream is None or stream.generation != generation
            if stream is None or (stale and not resent) or block.shard >= len(stream.shards):
                pending.settle(part, STALE)
                self._mark_stale(stream_id, request)
                continue
            if result is None and not resent:
                result = service.appender.append_now(stream, self._sender, request, part, seen, *block[:5])
            if result is None:
                if self._received.is_used_again:
                    block = block._replace(body=memoryview(bytes(block.body)))  # noqa: PLW2901
                job = Job(self._sender, request, part, seen, block, resent, stale)
                service.appender.queue(stream, job, self._done(stream, pending, part, block.shard))
                if stale:  # at once: what comes behind it may name the map that the node learns of next
                    self._mark_stale(stream_id, request)
            else:
                self._note(stream, pending, part, block.shard, result)
                result = None
        self._answer_done()

    def _done(self, stream: StreamMap, pending: Pending, part: int, shard: int) -> Callable[[Result], None]:
        """What to do when a queued block is through."""

        def done(result: Result) -> None:
            self._note(stream, pending, part, shard, result)
            self._settled(pending)

        return done

    def _settled(self, pending: Pending) -> None:
        """After a block was settled later: answer, and go on, where it was the last of its frame."""
        if pending.missing:
            return
        if self._sender.closed:
            self._service.backlog.remove(pending.size)
            return
        self._answer_done()
        self._sender.work()

    def _commit(self, stream: StreamMap, pending: Pending, part: int, shard: int, result: Stored) -> None:
        """Settle a block once it is durable."""

        def committed(error: KflowError | None) -> None:
            if error is None:
                pending.settle(part, wire.ANSWER.pack(*result[:3], wire.OK))
            else:
                self._note(stream, pending, part, shard, error)
                self._sender.failed[stream.id, shard] = (pending.request, str(error))
            self._settled(pending)

        assert self._service.commits is not None
        self._service.commits.wait(stream, shard, result[2], committed)

    def _note(self, stream: StreamMap, pending: Pending, part: int, shard: int, result: Result) -> None:
        """Write down what came of one block, and tell who waits for the shard."""
        if isinstance(result, tuple):
            if self._service.commits is not None:
                self._commit(stream, pending, part, shard, result)
                return
            pending.settle(part, wire.ANSWER.pack(*result[:3], wire.OK))
            self._service.on_append(stream, shard, result[2], result[3])
        elif isinstance(result, ResourceNotFound | StaleMap):
            if isinstance(result, ResourceNotFound):
                self._service.forget(stream.id)
            pending.settle(part, STALE)
            self._mark_stale(stream.id, pending.request)
        elif isinstance(result, KflowError):
            pending.errors[part] = result
            pending.settle(part, REFUSED)

    def _mark_stale(self, stream_id: int, request: int) -> None:
        """What stands behind this frame, and was sent before its answer was read, must not overtake it."""
        self._sender.stale.setdefault(stream_id, deque(maxlen=STALE_FRAMES)).append(request)

    def _answer_done(self) -> None:
        """Move answers that are complete to the outbox, in the order of their frames."""
        frames = self._frames
        while frames and not frames[0].missing:
            done = frames.popleft()
            self.size -= done.size
            self._service.backlog.remove(done.size)
            self._outbox += done.encoded()
