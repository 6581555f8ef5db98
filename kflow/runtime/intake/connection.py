"""One connection to the node's socket: frames in, answers out, nothing ever waited for.

What a receive brought is worked through in slices, so that one producer never delays a lease. Answers that the kernel
does not take wait in the outbox, and a connection with too much unanswered is not read until it has caught up: so a
producer is slowed down by its own backlog, never by refusal. With `fsync = "always"` an answer, and with it all behind
it, waits until its records are durable (`commits`).
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from kflow.broker import handshake, wire, wirecalls
from kflow.broker.log import Log
from kflow.errors import InternalError, KflowError, ResourceNotFound, UsageError
from kflow.runtime.intake.blocks import Blocks, Store
from kflow.runtime.intake.receiving import ReceiveBuffer
from kflow.runtime.loop import READ, WRITE, Loop

log = logging.getLogger(__name__)

UNANSWERED_BYTES = 16 << 20
"""A connection with more than this unanswered is not read."""
OUTBOX_BYTES = 1 << 20
"""Nor is one that leaves this much of its answers unread."""
SLICE_S = 0.0005
"""After this long on one connection, the others have their turn."""

OnControl = Callable[["Connection", int, dict[str, Any]], Any]
OnCall = Callable[["Connection", int, wirecalls.Call], object]

_FRAME_BYTES = wire.FRAME.size


class Service(Store, Protocol):
    """What all connections of a node share; `Ingest` is the one there is.

    Attributes:
        loop: hosts them.
        store: the log.
        hello: what the node says first.
        on_control: answers control requests.
        on_call: answers calls of AWS operations.
        connections: all that are open.
        producers: by producer id, the connection it speaks by.
    """

    loop: Loop
    store: Log
    hello: handshake.Hello
    on_control: OnControl
    on_call: OnCall
    connections: set[Connection]
    producers: dict[int, Connection]


class Connection:
    """One producer or tool.

    Attributes:
        producer: id of the producer; 0 for a tool, and before hello.
        pid: process id, as it says.
        failed: by (stream id, shard): the last frame of this connection that failed there, and why.
        stale: by stream id: the last frames of this connection that were stale.
        closed: whether it is gone; answers to it are dropped.
        calls: by request, what is told when the connection goes before the call of an AWS operation is over.
        on_drain: called whenever the peer has taken all that was sent; by whoever sends events.
    """

    __slots__ = (
        "_blocks",
        "_fd",
        "_granted",
        "_held",
        "_mask",
        "_outbox",
        "_received",
        "_resuming",
        "_service",
        "_socket",
        "calls",
        "closed",
        "failed",
        "on_drain",
        "pid",
        "producer",
        "reading",
        "stale",
    )

    def __init__(self, service: Service, accepted: socket.socket) -> None:
        self._service = service
        self._socket = accepted
        self._fd = accepted.fileno()
        self._received = ReceiveBuffer()
        self._outbox = bytearray()
        self._blocks = Blocks(service, self, self._received, self._outbox)
        self._resuming = False
        self._held = False  # waits for room in the backlog
        self._granted = False  # the next frame may be served, however full the backlog is
        self._mask = READ
        self.producer = 0
        self.pid = 0
        self.failed: dict[tuple[int, int], tuple[int, str]] = {}
        self.stale: dict[int, deque[int]] = {}
        self.closed = False
        self.reading = True
        self.calls: dict[int, Callable[[], object]] = {}
        self.on_drain: Callable[[], object] | None = None
        service.loop.add(self._fd, self._ready)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._fd

    @property
    def wants_write(self) -> bool:
        """Whether answers wait for the kernel to take them."""
        return bool(self._outbox)

    def readable(self) -> None:
        """Receive once and work it through."""
        if self._received.is_full:
            return  # full of frames whose turn has not come
        try:
            received = self._received.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not received:
            self.close()
            return
        self.work()

    def writable(self) -> None:
        """Send what waits."""
        self._flush()
        if self._received.have and not self._resuming:
            self.work()

    def answer(self, request: int, value: Any) -> None:
        """Answer a control request; dropped where the connection is gone."""
        self._say(wire.json_frame(wire.CONTROL_ANSWER, request, {"ok": value}))

    def answer_call(self, request: int, answer: wirecalls.CallAnswer) -> None:
        """Answer the call of an AWS operation; dropped where the connection is gone."""
        self._say(wire.packed_frame(wire.CALL_ANSWER, request, answer))

    def send_event(self, request: int, event: wirecalls.CallEvent) -> None:
        """Send an event of a call whose answer goes on; dropped where the connection is gone."""
        self._say(wire.packed_frame(wire.CALL_EVENT, request, event))

    @property
    def buffered(self) -> int:
        """Bytes of answers and events that the kernel has not taken yet."""
        return len(self._outbox)

    def refuse(self, request: int, error: Exception) -> None:
        """Answer a control request with an error."""
        self._say(wire.json_frame(wire.CONTROL_ANSWER, request, {"error": wirecalls.error_as_json(error)}))

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
            self._service.loop.remove(self._fd)
        self._socket.close()
        self._received.let_go()
        self._blocks.drop()
        self._service.connections.discard(self)
        if self._service.producers.get(self.producer) is self:
            del self._service.producers[self.producer]
        self.on_drain = None
        calls, self.calls = self.calls, {}
        for gone in calls.values():
            gone()

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self.writable()
            if self.closed:
                return
        if mask & READ and self.reading:
            self.readable()

    def work(self) -> None:
        """Serve whole frames of the buffer, for one slice at most; then send what is answered."""
        received = self._received
        view, have, at = received.view, received.have, 0
        deadline = 0.0
        try:
            while have - at >= _FRAME_BYTES and self._is_ahead():
                length, request, kind, count = wire.FRAME.unpack_from(view, at)
                begin = at + _FRAME_BYTES
                end = begin + length
                if end > have:
                    if length > wire.FRAME_BYTES:
                        raise ValueError(f"a frame of {length} bytes")
                    break
                if at and time.perf_counter() > deadline:
                    self._resume_later()
                    break
                if end < have and not at:
                    deadline = time.perf_counter() + SLICE_S
                if self._blocks.size and not self._granted and not self._service.backlog.has_room():
                    self._held = True
                    self._service.backlog.wait(self)
                    break
                self._granted = False
                at = end
                if kind == wire.PUT and self.producer:
                    if count == 1:
                        self._blocks.put_one(request, view[begin:end])
                    else:
                        self._blocks.put(request, count, view[begin:end])
                else:
                    self._serve(kind, request, count, view[begin:end])
        except (ValueError, struct.error) as error:
            log.warning("connection dropped, what it sent is no frame pid=%d error=%s", self.pid, error)
            self.close()
        if self.closed:
            return
        if at == have and received.is_used_again:
            received.have = 0
        else:
            received.drop(at)
        if self._outbox:
            self._flush()
        if self._outbox or self._blocks.size or self._held or self._mask != READ:
            self._watch()

    def go_on(self) -> None:
        """There is room in the backlog again, for a frame at least."""
        self._held = False
        self._granted = True
        self._resume_later()

    def _is_ahead(self) -> bool:
        return (
            self.reading
            and not self._held
            and self._blocks.size <= UNANSWERED_BYTES
            and len(self._outbox) <= OUTBOX_BYTES
        )

    def _resume_later(self) -> None:
        if not self._resuming:
            self._resuming = True
            self._service.loop.call_later(0, self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if not self.closed:
            self.work()

    def _serve(self, kind: int, request: int, count: int, payload: memoryview) -> None:
        if kind == wire.RESEND and self.producer:
            self._blocks.put_later(request, count, payload, resent=True)
        elif kind == wire.CONTROL:
            self._control(request, payload)
        elif kind == wire.CALL:
            self._call(request, payload)
        elif kind == wire.HELLO:
            self._greet(payload)
        else:
            raise ValueError(f"a frame of kind {kind}, producer {self.producer}")

    def _greet(self, payload: memoryview) -> None:
        try:
            hello = msgspec.json.decode(payload, type=handshake.Hello)
        except msgspec.DecodeError as error:
            raise ValueError(f"no hello: {error}") from error
        service = self._service
        self.pid = hello.pid
        try:
            handshake.check_hello(service.hello, hello)
        except UsageError as error:
            log.warning("connection refused error=%s", error)
        else:
            self.producer = hello.producer
            former = service.producers.get(hello.producer)
            if former is not None and hello.producer:
                # it is about to send again what it has no answer to: nothing of the old connection may come after that
                former.close()
            if hello.producer:
                service.producers[hello.producer] = self
        self._outbox += wire.json_frame(wire.HELLO, 0, service.hello)

    def _control(self, request: int, payload: memoryview) -> None:
        try:
            asked = msgspec.json.decode(payload, type=dict[str, Any])
            value = self._tails(asked) if asked.get("op") == "tails" else self._service.on_control(self, request, asked)
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

    def _call(self, request: int, payload: memoryview) -> None:
        try:
            self._service.on_call(self, request, msgspec.msgpack.decode(payload, type=wirecalls.Call))
        except KflowError as error:
            self.refuse(request, error)
        except msgspec.DecodeError as error:
            raise ValueError(f"no call: {error}") from error
        except Exception as error:  # as above
            log.exception("call failed producer=%d", self.producer)
            self.refuse(request, InternalError(f"{type(error).__name__}: {error}; please report it"))

    def _tails(self, asked: dict[str, Any]) -> list[int]:
        """Where each shard of a stream ends: what a producer must know before it sends its first block there."""
        stream = self._service.stream(int(asked["stream_id"]))
        if stream is None:
            raise ResourceNotFound("the stream is gone")
        store = self._service.store
        return [store.end(stream, shard.index).tail for shard in stream.shards]

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
            if self.on_drain is not None:
                self.on_drain()
        else:
            del self._outbox[:sent]

    def _watch(self) -> None:
        """Watch for what can be done now: not for reading while it is behind."""
        if self.closed:
            return
        mask = (READ if self._is_ahead() else 0) | (WRITE if self._outbox else 0)
        if mask == self._mask:
            return
        loop = self._service.loop
        if not mask:
            loop.remove(self._fd)
        elif self._mask:
            loop.modify(self._fd, mask)
        else:
            loop.add(self._fd, self._ready, mask=mask)
        self._mask = mask
