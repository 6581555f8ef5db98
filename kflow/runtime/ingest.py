"""The node's side of the socket: producers' blocks in, numbers out; control requests passed on.

Everything here runs on the node's loop. A readable connection costs one receive and, where answers are ready, one send;
what a receive brought is worked through in slices, so that one producer never delays a lease. Nothing ever blocks:
answers that the kernel does not take wait in the connection's outbox, and a connection with too much unanswered is not
read until it has caught up: so a producer is slowed down by its own backlog, never by refusal.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from kflow.broker import wire
from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.errors import InternalError, KflowError, ResourceNotFound, UsageError
from kflow.runtime.appender import Appender, Job, Result, Stored
from kflow.runtime.loop import READ, WRITE, Loop

log = logging.getLogger(__name__)

UNANSWERED_BYTES = 16 << 20
"""A connection with more than this unanswered is not read."""
OUTBOX_BYTES = 1 << 20
"""Nor is one that leaves this much of its answers unread."""
SLICE_S = 0.0005
"""After this long on one connection, the others have their turn."""
BUFFER_BYTES = 128 << 10
"""Receive buffer of a connection; a larger frame gets a buffer of its own, which its blocks then keep."""
WATCH_S = 2.0
"""The socket's path is looked at this often: whoever cleaned it away gets a new one."""

OnAppend = Callable[[StreamMap, int], None]
OnControl = Callable[["Connection", int, dict[str, Any]], Any]

_FRAME_BYTES = wire.FRAME.size
_STALE = wire.ANSWER.pack(0, 0, 0, wire.STALE)
_REFUSED = wire.ANSWER.pack(0, 0, 0, wire.REFUSED)


class Ingest:
    """Listens for producers and tools, appends what they send, answers.

    Args:
        store: the log; its writer lock is held by the caller for as long as this object is open.
        loop: hosts the connections.
        on_append: called with the stream's map and the shard's index after each append, before its answer is sent: so a
            waiting lease is granted first.
        on_control: called for each control request with the connection, the request's number and the request; returns
            the answer, or None to answer later by `Connection.answer`; raises `KflowError` to refuse.
        hello: what the node says first.
    """

    def __init__(
        self, store: Log, *, loop: Loop, on_append: OnAppend, on_control: OnControl, hello: wire.Hello
    ) -> None:
        self.loop = loop
        self.appender = Appender(store, loop)
        self.hello = hello
        self.on_append = on_append
        self.on_control = on_control
        self.connections: set[Connection] = set()
        self.producers: dict[int, Connection] = {}
        self._log = store
        self._maps: dict[int, StreamMap | None] = {}
        self._listener: socket.socket | None = None
        self._path = Path()
        self._bound: tuple[int, int] | None = None
        self._closed = False

    def listen(self, path: Path) -> None:
        """Bind the socket and accept from now on; whatever lies at `path` is replaced.

        Raises:
            OSError: the path cannot be bound.
        """
        self._path = path
        self._bind()
        self.loop.call_later(WATCH_S, self._watch)

    def stream(self, stream_id: int) -> StreamMap | None:
        """The map of a stream, by id; None where there is none (any more)."""
        try:
            return self._maps[stream_id]
        except KeyError:
            pass
        try:
            found = self._maps[stream_id] = self._log.folder.map_by_id(stream_id)
        except ResourceNotFound:
            return None
        return found

    def forget(self, stream_id: int) -> None:
        """To be called whenever a stream's map was published, marked deleted or removed."""
        self._maps.pop(stream_id, None)
        self.appender.forget(stream_id)

    def retire(self, stream_id: int, then: Callable[[], None]) -> None:
        """Append nothing more to a stream, and call `then` once no append to it is under way: now, or later on the loop.

        For whoever is about to delete or reset it: until then its descriptors are in use. Producers that put to it are
        told to read its map again.
        """
        self._maps[stream_id] = None
        self.appender.when_idle(stream_id, then)

    def close(self) -> None:
        """Accept and read no more, finish what is queued, answer it, close all connections, remove the socket.

        After it returned nothing more is appended: the writer lock may be given back. What was received and not taken
        up yet is dropped; its producers send it again, to the next writer.
        """
        self._closed = True
        self._unbind()
        for connection in self.connections:
            connection.stop_reading()
        self.appender.close()
        for connection in list(self.connections):
            connection.close()

    def _bind(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._bound = self._found()
        self.loop.add(listener.fileno(), self._accept)

    def _unbind(self) -> None:
        if self._listener is None:
            return
        if self._found() == self._bound:
            self._path.unlink(missing_ok=True)
        self.loop.remove(self._listener.fileno())
        self._listener.close()
        self._listener = None

    def _found(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _watch(self) -> None:
        if self._closed:
            return
        if self._found() != self._bound:
            log.warning("socket is gone, binding it again path=%s", self._path)
            self._unbind()
            try:
                self._bind()
            except OSError as error:
                log.error("socket cannot be bound path=%s error=%s", self._path, error)  # noqa: TRY400  # tried again
        self.loop.call_later(WATCH_S, self._watch)

    def _accept(self, mask: int) -> None:
        del mask
        if self._listener is None:
            return
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.ECONNABORTED, errno.EINTR):
                return
            # out of descriptors or memory: readiness would spin, so look away for a while
            log.warning("cannot accept a connection error=%s", error)
            listener = self._listener
            self.loop.remove(listener.fileno())
            self.loop.call_later(1.0, lambda: self._resume_accepting(listener))
            return
        accepted.setblocking(False)
        self.connections.add(Connection(self, accepted))

    def _resume_accepting(self, listener: socket.socket) -> None:
        if listener is self._listener:
            self.loop.add(listener.fileno(), self._accept)


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
            ordered = [wire.error_as_json(self.errors[part]) for part in sorted(self.errors)]
            body += msgspec.json.encode(ordered)
        return wire.frame(wire.ANSWERED, self.request, body, len(self.answers))


class Connection:
    """One producer or tool.

    Attributes:
        producer: id of the producer; 0 for a tool, and before hello.
        pid: process id, as it says.
        failed: by (stream id, shard): the last frame of this connection that failed there, and why.
        closed: whether it is gone; answers to it are dropped.
    """

    __slots__ = (
        "_buffer",
        "_fd",
        "_have",
        "_ingest",
        "_mask",
        "_outbox",
        "_pending",
        "_resuming",
        "_socket",
        "_unanswered",
        "_view",
        "closed",
        "failed",
        "pid",
        "producer",
        "reading",
    )

    def __init__(self, ingest: Ingest, accepted: socket.socket) -> None:
        self._ingest = ingest
        self._socket = accepted
        self._fd = accepted.fileno()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._have = 0
        self._outbox = bytearray()
        self._pending: deque[Pending] = deque()
        self._unanswered = 0
        self._resuming = False
        self._mask = READ
        self.producer = 0
        self.pid = 0
        self.failed: dict[tuple[int, int], tuple[int, str]] = {}
        self.closed = False
        self.reading = True
        ingest.loop.add(self._fd, self._ready)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._fd

    @property
    def wants_write(self) -> bool:
        """Whether answers wait for the kernel to take them."""
        return bool(self._outbox)

    def readable(self) -> None:
        """Receive once and work it through."""
        if self._have == len(self._buffer):
            return  # full of frames whose turn has not come
        try:
            received = self._socket.recv_into(self._view[self._have :])
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not received:
            self.close()
            return
        self._have += received
        self._work()

    def writable(self) -> None:
        """Send what waits."""
        self._flush()
        if self._have and not self._resuming:
            self._work()

    def answer(self, request: int, value: Any) -> None:
        """Answer a control request; dropped where the connection is gone."""
        self._say(wire.json_frame(wire.CONTROL_ANSWER, request, {"ok": value}))

    def refuse(self, request: int, error: Exception) -> None:
        """Answer a control request with an error."""
        self._say(wire.json_frame(wire.CONTROL_ANSWER, request, {"error": wire.error_as_json(error)}))

    def stop_reading(self) -> None:
        """Take nothing more from this connection."""
        self.reading = False
        self._watch()

    def close(self) -> None:
        """Close at once, with a last try to send what is answered. Blocks that are queued are appended all the same."""
        if self.closed:
            return
        if self._outbox:
            try:
                self._socket.send(self._outbox)
            except OSError as error:
                log.debug("answers dropped producer=%d error=%s", self.producer, error)
        self.closed = True
        if self._mask:
            self._ingest.loop.remove(self._fd)
        self._socket.close()
        self._pending.clear()
        self._ingest.connections.discard(self)
        if self._ingest.producers.get(self.producer) is self:
            del self._ingest.producers[self.producer]

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self.writable()
        if mask & READ and not self.closed and self.reading:
            self.readable()

    def _work(self) -> None:
        """Serve whole frames of the buffer, for one slice at most; then send what is answered."""
        view, have, at = self._view, self._have, 0
        deadline = 0.0
        try:
            while have - at >= _FRAME_BYTES and self._is_ahead():
                length, request, kind, count = wire.FRAME.unpack_from(view, at)
                end = at + _FRAME_BYTES + length
                if end > have:
                    if length > wire.FRAME_BYTES:
                        raise ValueError(f"a frame of {length} bytes")
                    break
                if deadline and time.perf_counter() > deadline:
                    self._resume_later()
                    break
                self._serve(kind, request, count, view[at + _FRAME_BYTES : end])
                at = end
                deadline = deadline or time.perf_counter() + SLICE_S
        except ValueError as error:
            log.warning("connection dropped, what it sent is no frame pid=%d error=%s", self.pid, error)
            self.close()
        if self.closed:
            return
        self._make_room(at)
        self._flush()
        self._watch()

    def _make_room(self, at: int) -> None:
        """Drop the `at` bytes that are served; a frame too large for the buffer moves to one of its own.

        Such a buffer holds that one frame, and is left to the blocks in the shards' queues: no copy of large bodies.
        """
        rest = self._have - at
        if len(self._buffer) != BUFFER_BYTES:
            if at:
                self._replace(BUFFER_BYTES, at, rest)
            return
        if rest >= _FRAME_BYTES:
            length: int = wire.FRAME.unpack_from(self._view, at)[0] + _FRAME_BYTES
            if length > BUFFER_BYTES:
                self._replace(length, at, rest)
                return
        if at:
            self._view[:rest] = self._view[at : self._have]
            self._have = rest

    def _replace(self, size: int, at: int, rest: int) -> None:
        new = bytearray(size)
        view = memoryview(new)
        view[:rest] = self._view[at : self._have]
        self._buffer, self._view, self._have = new, view, rest

    def _is_ahead(self) -> bool:
        return self.reading and self._unanswered <= UNANSWERED_BYTES and len(self._outbox) <= OUTBOX_BYTES

    def _resume_later(self) -> None:
        if not self._resuming:
            self._resuming = True
            self._ingest.loop.call_later(0, self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if not self.closed:
            self._work()

    def _serve(self, kind: int, request: int, count: int, payload: memoryview) -> None:
        if kind == wire.PUT or kind == wire.RESEND:  # noqa: PLR1714  # twice as fast as `in`, and once a frame
            if not self.producer:
                raise ValueError("blocks before hello")
            self._put(request, count, payload, resent=kind == wire.RESEND)
        elif kind == wire.CONTROL:
            self._control(request, payload)
        elif kind == wire.HELLO:
            self._greet(payload)
        else:
            raise ValueError(f"a frame of kind {kind}")

    def _greet(self, payload: memoryview) -> None:
        try:
            hello = msgspec.json.decode(payload, type=wire.Hello)
        except msgspec.DecodeError as error:
            raise ValueError(f"no hello: {error}") from error
        ingest = self._ingest
        self.pid = hello.pid
        try:
            wire.check_hello(ingest.hello, hello)
        except UsageError as error:
            log.warning("connection refused error=%s", error)
        else:
            self.producer = hello.producer
            former = ingest.producers.get(hello.producer)
            if former is not None and hello.producer:
                # it is about to send again what it has no answer to: nothing of the old connection may come after that
                former.close()
            if hello.producer:
                ingest.producers[hello.producer] = self
        self._outbox += wire.json_frame(wire.HELLO, 0, ingest.hello)

    def _control(self, request: int, payload: memoryview) -> None:
        try:
            asked = msgspec.json.decode(payload, type=dict[str, Any])
            value = self._tails(asked) if asked.get("op") == "tails" else self._ingest.on_control(self, request, asked)
        except KflowError as error:
            self.refuse(request, error)
        except msgspec.DecodeError as error:
            raise ValueError(f"no control request: {error}") from error
        except Exception as error:  # a broken promise of one operation must not end the node
            log.exception("control request failed request=%s", bytes(payload[:200]))
            self.refuse(request, InternalError(f"{type(error).__name__}: {error}; please report it"))
        else:
            if value is not None:
                self.answer(request, value)

    def _tails(self, asked: dict[str, Any]) -> list[int]:
        """Where each shard of a stream ends: what a producer must know before it sends its first block there."""
        stream = self._ingest.stream(int(asked["stream_id"]))
        if stream is None:
            raise ResourceNotFound("the stream is gone")
        return [self._ingest._log.shard(stream, shard.index).tail for shard in stream.shards]

    def _put(self, request: int, count: int, payload: memoryview, *, resent: bool) -> None:
        stream_id, generation, seen, blocks = wire.blocks_of(payload, count, resent=resent)
        ingest = self._ingest
        stream = ingest.stream(stream_id)
        pending = Pending(request, len(payload), count)
        self._pending.append(pending)
        self._unanswered += pending.size
        stale = stream is not None and stream.generation != generation
        for part, block in enumerate(blocks):
            if stream is None or (stale and not resent) or block.shard >= len(stream.shards):
                pending.settle(part, _STALE)
                continue
            job = Job(self, request, part, seen, block, resent, stale)
            result = ingest.appender.append_now(stream, job)
            if result is None:
                if len(self._buffer) == BUFFER_BYTES:  # the next receive writes over it
                    job = job._replace(block=block._replace(body=memoryview(bytes(block.body))))
                ingest.appender.queue(stream, job, self._done(stream, pending, part, block.shard))
            else:
                self._note(stream, pending, part, block.shard, result)
        self._answer_done()

    def _done(self, stream: StreamMap, pending: Pending, part: int, shard: int) -> Callable[[Result], None]:
        """What to do when a queued block is through."""

        def done(result: Result) -> None:
            self._note(stream, pending, part, shard, result)
            if not pending.missing and not self.closed:
                self._answer_done()
                self._work()

        return done

    def _note(self, stream: StreamMap, pending: Pending, part: int, shard: int, result: Result) -> None:
        """Write down what came of one block, and tell who waits for the shard."""
        if type(result) is Stored:
            pending.settle(part, wire.ANSWER.pack(result[0], result[1], result[2], wire.OK))
            self._ingest.on_append(stream, shard)
        elif isinstance(result, ResourceNotFound):
            self._ingest.forget(stream.id)
            pending.settle(part, _STALE)
        elif isinstance(result, KflowError):
            pending.errors[part] = result
            pending.settle(part, _REFUSED)

    def _answer_done(self) -> None:
        """Move answers that are complete to the outbox, in the order of their frames."""
        pending = self._pending
        while pending and not pending[0].missing:
            done = pending.popleft()
            self._unanswered -= done.size
            self._outbox += done.encoded()

    def _say(self, message: bytes) -> None:
        if self.closed:
            return
        self._outbox += message
        self._flush()
        self._watch()

    def _flush(self) -> None:
        if not self._outbox or self.closed:
            return
        try:
            sent = self._socket.send(self._outbox)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if sent == len(self._outbox):
            self._outbox.clear()
        else:
            del self._outbox[:sent]

    def _watch(self) -> None:
        """Watch for what can be done now: not for reading while it is behind."""
        if self.closed:
            return
        mask = (READ if self._is_ahead() else 0) | (WRITE if self._outbox else 0)
        if mask == self._mask:
            return
        loop = self._ingest.loop
        if not mask:
            loop.remove(self._fd)
        elif self._mask:
            loop.modify(self._fd, mask)
        else:
            loop.add(self._fd, self._ready, mask=mask)
        self._mask = mask
