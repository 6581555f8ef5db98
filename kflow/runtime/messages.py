"""What the node and its children say to each other over socketpairs: small structs, framed, never pickled.

Times on the wire are durations: the clocks of two processes are never compared.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Any

import msgspec

from kflow.declarations import Handler, StreamTrigger
from kflow.interfaces import FunctionError

_LENGTH = struct.Struct("<I")
_READ_BYTES = 65536


class WorkerSpec(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """All that a worker is told at its start: the first message on its channel.

    Attributes:
        worker: the node's number for it; names its lock file.
        handler: what it runs, by name: the worker imports it.
        data_dir: the data folder.
        maps: the streams of the handler's triggers, in the order of `handler.triggers`, as their files' text (hash keys
            are 128-bit integers, which messages cannot hold).
        epoch: the node's epoch; goes into every intent.
        previous_epoch_clean: whether the node before this one stopped of its own accord.
        timeout_s: the function's timeout.
        memory_mb: the function's memory size.
        environment: variables to set for the handler.
        init_in_invocation: an import that took longer than its own limit runs under the function's timeout.
        every_batch: tell of each batch by itself: a plugin counts them.
        sources: by trigger, the event source ARN; empty where it is the stream's.
    """

    worker: int
    handler: Handler
    data_dir: str
    maps: tuple[bytes, ...]
    epoch: int
    previous_epoch_clean: bool
    region: str
    account: str
    retry_backoff_scale: float
    timeout_s: int
    memory_mb: int
    environment: dict[str, str]
    init_in_invocation: bool = False
    every_batch: bool = False
    sources: tuple[str, ...] = ()


class DeathNote(msgspec.Struct, frozen=True, array_like=True):
    """How the lease's last worker died, where its parent reported it.

    Attributes:
        worker_pid: the process.
        request_id: set where the node killed it: only the invocation that it timed out counts.
        error: what the attempt failed with.
    """

    worker_pid: int
    request_id: bytes | None
    error: FunctionError


class LaneGrant(msgspec.Struct, frozen=True, array_like=True):
    """One lane of a grant: a lease, which is returned by itself.

    Attributes:
        lease: the node's number for it.
        generation: counts its grants.
        since_completion_ms: since the lease's last settled batch.
        lane: which lane of the shard.
        window_due: the window that the lease waited for is over.
        alone: nothing else runs meanwhile.
        death: how the last holder died, where that may count.
        last_error: what the batch failed with last, in full: the slot keeps only its beginning.
    """

    lease: int
    generation: int
    since_completion_ms: int
    lane: int = 0
    window_due: bool = False
    alone: bool = False
    death: DeathNote | None = None
    last_error: FunctionError | None = None


class Grant(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Node to worker: these lanes of one shard are yours until you return them.

    Attributes:
        trigger: which trigger of the handler they are of.
        shard: index of the shard.
        lanes: at least one. With several, lanes without a batch are returned at once.
        spare: how many of the others that have a batch to return at once as well: there are places for them.
        window_over: batching windows end at once.
        throttled: the function may not run: only what is too old is given up.
    """

    trigger: int
    shard: int
    lanes: tuple[LaneGrant, ...]
    spare: int = 0
    window_over: bool = False
    throttled: bool = False


class Map(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Node to worker: the shards of a stream have changed. Sent before the first grant that needs it.

    Attributes:
        trigger: which trigger of the handler reads it.
        text: the map as its file's text.
    """

    trigger: int
    text: bytes


class Trigger(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Node to worker: the function reads this as well, or by other options. Sent before the first grant that needs it.

    Attributes:
        index: of the trigger, in place of the one that had it, or past the last one.
        trigger: as it is from now on.
        text: the map of its stream, as its file's text.
        source: ARN that its events name; empty where it is the stream's.
    """

    index: int
    trigger: StreamTrigger
    text: bytes
    source: str

    def added_to(self, spec: WorkerSpec) -> WorkerSpec:
        """What a worker would be told at its start now."""
        count = len(spec.handler.triggers)
        here = slice(self.index, self.index + 1)
        triggers, maps, sources = list(spec.handler.triggers), list(spec.maps), list(spec.sources) or [""] * count
        triggers[here], maps[here], sources[here] = [self.trigger], [self.text], [self.source]
        handler = msgspec.structs.replace(spec.handler, triggers=tuple(triggers))
        return msgspec.structs.replace(spec, handler=handler, maps=tuple(maps), sources=tuple(sources))


class Retire(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Node to worker: return the lease at the end of the running attempt."""

    lease: int
    generation: int


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Node to worker: end, once nothing is held."""


class Redrive(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Node to worker: send this parked entry to the handler once more."""

    number: int
    trigger: int


class Invoke(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Node to worker: run the function once with this event.

    Attributes:
        number: the node's number for it.
        request_id: of the invocation.
        payload: the event, JSON text.
        arn: of the function, as it is invoked.
        client_context: JSON text; empty: none.
        tail: whether the end of its log is wanted.
    """

    number: int
    request_id: bytes
    payload: bytes
    arn: str
    client_context: str = ""
    tail: bool = False


ToWorker = WorkerSpec | Grant | Map | Trigger | Retire | Stop | Redrive | Invoke


class Running(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Worker to node, before an invocation, without waiting.

    Attributes:
        generation: of the grant; 0 for a job.
        request_id: of the invocation.
        deadline_ms: how long it may take from now.
        initialising: the import of the user's module, not the handler.
        lease: which of the leases that the worker holds; 0 for a job.
        base_kb: private memory of the process when it was new, KiB; 0 where that cannot be known.
    """

    generation: int
    request_id: bytes
    deadline_ms: int
    initialising: bool = False
    lease: int = 0
    base_kb: int = 0


class Returned(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Worker to node, after the last slot write: the lease is free.

    Attributes:
        reason: `idle`, `retired`, `unread`, `lane` (has a batch, left to another worker), `backoff`, `window`,
            `tumbling`, `suspect`, `alone`, `storage`, `look-ahead`, `damage`, `throttled`.
        due_ms: when to grant it again; None: at the next append past `read_offset`.
        read_offset: how far the log was read.
        want_counter: also grant when the shard's next counter has reached this; 0: do not.
        settled: whether a batch was settled under this grant.
        broken: the environment is to be thrown away (its import failed).
        last_error: what the batch at the checkpoint failed with last.
        detail: for `storage`: what failed.
        dropped: lines for people that were lost since the last return, because the node was slow to read them.
        settled_offset: everything before it is settled.
        damaged_at: for `damage`: logical offset of the block that cannot be read; -1 elsewhere.
        last: what became of the last attempt under this grant: `ok`, `failed`; empty: there was none.
    """

    lease: int
    generation: int
    reason: str
    due_ms: int | None
    read_offset: int
    want_counter: int = 0
    settled: bool = False
    broken: bool = False
    last_error: FunctionError | None = None
    detail: str = ""
    dropped: int = 0
    settled_offset: int = 0
    damaged_at: int = -1
    last: str = ""


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Worker to node: no invocation runs, and I am still at it.

    Attributes:
        generation: of the grant.
        detail: what the storage refuses, where an outcome is held that cannot be written.
        lease: which lease it is about.
    """

    generation: int
    detail: str = ""
    lease: int = 0


class Redriven(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Worker to node: what became of a redrive."""

    number: int
    error: FunctionError | None = None
    broken: bool = False


class Invoked(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Worker to node: what became of an invocation.

    Attributes:
        number: the node's number for it.
        payload: the response as JSON text; with an error Lambda's payload of it.
        error: set where the function failed.
        log: the last 4 KiB of its log, where that is wanted.
        duration_us: time in the function.
        broken: the environment is to be thrown away.
    """

    number: int
    payload: bytes
    error: FunctionError | None = None
    log: bytes = b""
    duration_us: int = 0
    broken: bool = False


class Parked(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Worker to node: records were parked, and their failure document is to be sent to its destination."""

    number: int


FromWorker = Running | Returned | Alive | Redriven | Invoked | Parked


class Spawn(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Node to zygote, with the worker's two sockets beside it: fork a worker."""

    worker: int


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Zygote to node: the wait status of a worker."""

    pid: int
    status: int


class Born(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Zygote to node: a worker's pid. `worker` 0: the zygote itself is ready."""

    worker: int
    pid: int


FromZygote = Ended | Born

encode = msgspec.msgpack.Encoder().encode
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_zygote: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)
_spawn: msgspec.msgpack.Decoder[Spawn] = msgspec.msgpack.Decoder(Spawn)

DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "to_worker": _to_worker,
    "from_worker": _from_worker,
    "from_zygote": _from_zygote,
    "spawn": _spawn,
}


class Channel:
    """Framed messages over one stream socket. One reader, one writer.

    Attributes:
        sent: how often `send` was called.
    """

    __slots__ = ("_decode", "_missing", "_outbox", "_parts", "closed", "sent", "socket")

    def __init__(self, sock: socket.socket, hears: str) -> None:
        self.socket = sock
        self.closed = False
        self.sent = 0
        self._decode = DECODERS[hears].decode
        self._parts: list[bytes] = []  # of a message that has not arrived whole: it may be of megabytes
        self._missing = 0
        self._outbox: deque[bytes | memoryview] = deque()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def send(self, *messages: msgspec.Struct) -> None:
        """Send, all in one system call, waiting for room. For the children: they have nothing better to do."""
        data = b""
        for message in messages:
            body = encode(message)
            data += _LENGTH.pack(len(body)) + body
        self.sent += 1
        self.socket.sendall(data)

    def post(self, message: msgspec.Struct) -> bool:
        """Send without ever waiting: what does not fit is kept. Returns whether something is left for `flush`."""
        body = encode(message)
        self._outbox.append(_LENGTH.pack(len(body)) + body)
        return self.flush()

    def flush(self) -> bool:
        """Send what is kept. Returns whether something is still left."""
        if self.closed:
            self._outbox.clear()
        while self._outbox:
            data = self._outbox[0]
            try:
                sent = self.socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except (BrokenPipeError, ConnectionResetError):
                # The other side is gone; its parent will report how. What was meant for it is void.
                self.closed = True
                self._outbox.clear()
                return False
            if sent == len(data):
                self._outbox.popleft()
            else:
                self._outbox[0] = memoryview(data)[sent:]
        return False

    def receive(self, *, wait: bool) -> list[Any]:
        """Messages that have arrived: with `wait` at least one, unless the other side has closed (`closed` is set)."""
        while True:
            try:
                data = self.socket.recv(_READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                return []
            messages = self._split(data)
            if messages or not wait:
                return messages

    def _split(self, data: bytes) -> list[Any]:
        if len(data) < self._missing:
            self._parts.append(data)
            self._missing -= len(data)
            return []
        buffer = b"".join((*self._parts, data)) if self._parts else data
        messages: list[Any] = []
        at, end, needed = 0, len(buffer), _LENGTH.size
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            needed = _LENGTH.size + length
            if at + needed > end:
                break
            messages.append(self._decode(buffer[at + _LENGTH.size : at + needed]))
            at, needed = at + needed, _LENGTH.size
        rest = buffer[at:]
        self._parts, self._missing = ([rest], needed - len(rest)) if rest else ([], 0)
        return messages

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self.socket.close()
