"""Frames between producers, tools and the node, over a unix stream socket; blocks travel as they are stored.

    frame    | bytes after this header u32 | request u32 | kind u16 | count u16 |            little endian, 12 bytes
    HELLO    JSON of `Hello`, first in both directions
    PUT      | stream id u64 | map generation u32 | seen u32 | count x BLOCK | count bodies
    RESEND   as PUT, with count x RESENT instead of the BLOCKs
    BLOCK    | shard u32 | records u32 | body bytes u32 | body CRC32C u32 | flags u16 | reserved u16 |
    RESENT   BLOCK | tail u64 |      the shard's tail that the producer knew before it first sent the block
    ANSWER   count x | first counter u64 | arrival ms u64 | tail u64 | status u64 |, then JSON errors of failed blocks
    CONTROL  JSON {"op": ...}; answered by CONTROL_ANSWER, JSON {"ok": ...} or {"error": {"type", "message"}}
    CALL     MessagePack of `Call`, an operation of an AWS service; answered by CALL_ANSWER, of `CallAnswer`,
             which CALL_EVENTs of `CallEvent` follow where it says so

A request's number is the producer's frame number: together with the producer's id and the block's place in the frame it
stands in the stored block's header, so that a frame which is sent again after a lost connection is found and not stored
twice. `seen` is the last frame whose answer the producer has read: until it has read of a failure, the node fails all
later blocks of that connection for the same shard, so that nothing overtakes a failed record of its key.

Blocks of one connection are answered in order. Bodies are the stored bytes: nothing is encoded twice.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kflow import errors
from kflow.broker import folder
from kflow.broker.folder import BLOCK as BLOCK_FORMAT
from kflow.errors import InternalError, KflowError, NoNode, StorageError, UsageError

PROTOCOL = (1, 1)
"""Lowest and highest version of this protocol that this library speaks."""

FRAME = struct.Struct("<IIHH")
PUT_HEAD = struct.Struct("<QII")
BLOCK = struct.Struct("<IIIIH2x")
RESENT = struct.Struct("<IIIIH2xQ")
ANSWER = struct.Struct("<QQQQ")
_ONE = struct.Struct("<IIHHQIIIIIIH2x")
_ANSWER_ONE = struct.Struct("<IIHHQQQQ")
PUT_ONE = struct.Struct("<QIIIIIIH2x")
"""`PUT_HEAD` and one `BLOCK`."""

HELLO, PUT, RESEND, ANSWERED, CONTROL, CONTROL_ANSWER = 1, 2, 3, 4, 5, 6
CALL, CALL_ANSWER, CALL_EVENT = 7, 8, 9

OK, STALE, REFUSED = 0, 1, 2
"""Status of one block: stored; the map it was routed by is no longer valid; refused, nothing of it is stored."""

FRAME_BYTES = 32 << 20
"""Largest frame a node accepts; producers stay below half of it."""

Buffer = bytes | bytearray | memoryview

_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
"""User code may have given SIGPIPE its default action: a node that went away must not kill the producer."""
_JOINED_BYTES = 4096
"""Below this one copy costs less than the kernel's walk over several buffers."""
_ANSWER_BYTES = 4096


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What each side says first.

    Attributes:
        protocol: lowest and highest protocol version it speaks.
        block: version of its block format.
        folder_id: id of the data folder, hexadecimal.
        version: of the library.
        pid: its process.
        producer: id of the producer; 0 for a tool that only asks, and for the node.
        is_guarded: whether the node limits, delays or refuses calls of AWS operations on purpose: clients that could go
            around its services to the log must not.
    """

    protocol: tuple[int, int]
    block: int
    folder_id: str
    version: str
    pid: int
    producer: int = 0
    is_guarded: bool = False


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an operation, for this machine's own clients: no HTTP, no base64.

    Attributes:
        service: for example `kinesis`.
        operation: for example `PutRecord`.
        parameters: as boto3 takes them; timestamps are datetimes, or seconds since the epoch.
        account: of the caller's place; empty for the folder's own.
        region: as `account`.
    """

    service: str
    operation: str
    parameters: dict[str, Any]
    account: str = ""
    region: str = ""


class CallError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was refused, in AWS's words.

    Attributes:
        code: for example `ResourceNotFoundException`.
        message: AWS's text.
        status: as HTTP has it.
    """

    code: str
    message: str
    status: int = 400


class CallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a call: an output as boto3 has it, less `ResponseMetadata`, or an error.

    Attributes:
        output: by member name.
        error: why it was refused; None: it was not.
        request_id: of the call.
        goes_on: whether events follow, until one says that it is the last.
    """

    output: dict[str, Any] = {}
    error: CallError | None = None
    request_id: str = ""
    goes_on: bool = False


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an answer that goes on.

    Attributes:
        name: of the member of the event stream; empty where it only ends.
        members: of the event.
        error: why the stream ends; None: it does not, or without an error.
        is_last: whether nothing follows.
    """

    name: str = ""
    members: dict[str, Any] = {}
    error: CallError | None = None
    is_last: bool = False


class Block(NamedTuple):
    """One block of a PUT frame, its body a view of the received bytes.

    Attributes:
        shard: index of the shard.
        records: how many are in it.
        body: the block's body, as it is stored.
        crc: CRC32C of the body.
        flags: of the block.
        tail: for a block that is sent again: where to begin looking for it; else 0.
    """

    shard: int
    records: int
    body: memoryview
    crc: int
    flags: int
    tail: int


class Received(NamedTuple):
    """One frame as it was received.

    Attributes:
        kind: `HELLO` to `CONTROL_ANSWER`.
        request: number of the frame, or of the one it answers.
        blocks: how many it is about.
        payload: what follows the header.
    """

    kind: int
    request: int
    blocks: int
    payload: bytes


def own_hello(folder_id: str, *, producer: int = 0, is_guarded: bool = False) -> Hello:
    """This process's first words."""
    return Hello(
        protocol=PROTOCOL,
        block=BLOCK_FORMAT,
        folder_id=folder_id,
        version=library_version(),
        pid=os.getpid(),
        producer=producer,
        is_guarded=is_guarded,
    )


@functools.cache
def library_version() -> str:
    """Version of the installed library; for messages only."""
    from importlib import metadata  # 10 ms that only a process that connects pays

    try:
        return metadata.version("kflow-streams")
    except metadata.PackageNotFoundError:
        return "unknown"


def check_hello(own: Hello, other: Hello) -> None:
    """Refuse a peer that speaks nothing we speak.

    Raises:
        UsageError: no protocol version or no block format in common; names both sides.
    """
    overlap = max(own.protocol[0], other.protocol[0]) <= min(own.protocol[1], other.protocol[1])
    if overlap and own.block == other.block:
        return
    raise UsageError(
        f"kflow {own.version} (protocol {own.protocol[0]}-{own.protocol[1]}, blocks {own.block}) cannot talk to "
        f"process {other.pid} with kflow {other.version} (protocol {other.protocol[0]}-{other.protocol[1]}, blocks "
        f"{other.block}): run both from the same version"
    )


def frame(kind: int, request: int, payload: bytes, count: int = 0) -> bytes:
    """One whole frame."""
    return FRAME.pack(len(payload), request, kind, count) + payload


def put_one(
    request: int,
    stream_id: int,
    generation: int,
    seen: int,
    shard: int,
    records: int,
    body: bytes,
    crc: int,
    flags: int,
) -> bytes:
    """A whole PUT frame of one block: one pack instead of four."""
    size = len(body)
    length = _ONE.size - FRAME.size + size
    return _ONE.pack(length, request, PUT, 1, stream_id, generation, seen, shard, records, size, crc, flags) + body


def answer_one(request: int, first_counter: int, arrival_ms: int, tail: int) -> bytes:
    """The whole answer to a frame of one block that was stored."""
    return _ANSWER_ONE.pack(ANSWER.size, request, ANSWERED, 1, first_counter, arrival_ms, tail, OK)


def put_many(
    request: int,
    stream_id: int,
    generation: int,
    seen: int,
    blocks: Sequence[tuple[int, int, bytes, int, int]],
    tails: Sequence[int] | None = None,
) -> tuple[list[Buffer], int]:
    """The buffers of a PUT frame, or with `tails` of a RESEND frame, and their length together.

    Args:
        request: number of the frame.
        stream_id: id of the stream.
        generation: of the map by which the blocks were routed.
        seen: last frame whose answer was read.
        blocks: (shard, records, body, CRC, flags) of each.
        tails: of each block's shard, as known before it was first sent.
    """
    if tails is None:
        kind = PUT
        heads = [BLOCK.pack(shard, records, len(body), crc, flags) for shard, records, body, crc, flags in blocks]
    else:
        kind = RESEND
        heads = [
            RESENT.pack(shard, records, len(body), crc, flags, tail)
            for (shard, records, body, crc, flags), tail in zip(blocks, tails, strict=True)
        ]
    bodies: list[Buffer] = [block[2] for block in blocks]
    head = PUT_HEAD.pack(stream_id, generation, seen) + b"".join(heads)
    length = len(head) + sum(map(len, bodies))
    return [FRAME.pack(length, request, kind, len(blocks)) + head, *bodies], FRAME.size + length


def json_frame(kind: int, request: int, value: object) -> bytes:
    """One whole frame that carries JSON."""
    return frame(kind, request, msgspec.json.encode(value))


def packed_frame(kind: int, request: int, value: object) -> bytes:
    """One whole frame that carries MessagePack."""
    return frame(kind, request, msgspec.msgpack.encode(value))


def blocks_of(payload: memoryview, count: int, *, resent: bool) -> tuple[int, int, int, list[Block]]:
    """Take a PUT or RESEND frame apart.

    Returns:
        Stream id, map generation, last frame seen, blocks.

    Raises:
        ValueError: lengths do not add up.
    """
    head = RESENT if resent else BLOCK
    at = PUT_HEAD.size + count * head.size
    if len(payload) < at:
        raise ValueError("frame is shorter than its own headers")
    stream_id, generation, seen = PUT_HEAD.unpack_from(payload)
    blocks: list[Block] = []
    heads = head.iter_unpack(payload[PUT_HEAD.size : at])
    if resent:
        for shard, records, length, crc, flags, tail in heads:
            blocks.append(Block(shard, records, payload[at : at + length], crc, flags, tail))
            at += length
    else:
        for shard, records, length, crc, flags in heads:
            blocks.append(Block(shard, records, payload[at : at + length], crc, flags, 0))
            at += length
    if at != len(payload):
        raise ValueError("lengths of the blocks do not add up to the frame's")
    return stream_id, generation, seen, blocks


def error_as_json(error: Exception) -> dict[str, str]:
    """An error as it travels."""
    return {"type": type(error).__name__, "message": str(error)}


def error_from_json(value: dict[str, str]) -> KflowError:
    """The same error on the other side; `InternalError` for a class this library does not have."""
    found = getattr(errors, value["type"], None)
    if isinstance(found, type) and issubclass(found, KflowError):
        return found(value["message"])
    return InternalError(f"{value['type']}: {value['message']}")


class Link:
    """One blocking connection to the node. Belongs to one thread at a time."""

    __slots__ = ("_buffer", "_device", "_fd", "_inode", "_socket", "hello")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._fd = connected.fileno()
        self._device, self._inode = _identity(self._fd)
        self._buffer = b""
        self.hello: Hello | None = None

    def is_intact(self) -> bool:
        """Whether the descriptor is still this socket: user code may have closed it, and its number be a file now."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return found.st_ino == self._inode and found.st_dev == self._device

    def is_alive(self) -> bool:
        """Whether the peer has neither closed the connection nor said something that nobody asked for."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return not self._buffer
        except OSError:
            return False
        return False

    def exchange_one(self, message: bytes) -> tuple[int, int, int, int, int] | None:
        """Send the frame of one block, with nothing else under way, and take its answer if it is as it should be.

        Returns:
            Request, first counter, arrival, tail and status; None where something else came: `receive` has it.

        Raises:
            TimeoutError, OSError: as `send` and `receive` do.
        """
        try:
            if self._socket.send(message, _SEND_FLAGS) != len(message):
                raise ConnectionResetError("the node's connection took half a message")
            answer = self._socket.recv(_ANSWER_BYTES)
        except BlockingIOError as error:
            raise TimeoutError("the node is silent") from error
        if len(answer) == _ANSWER_ONE.size:
            _, request, kind, _, first_counter, arrival_ms, tail, status = _ANSWER_ONE.unpack(answer)
            if kind == ANSWERED and status == OK:
                return request, first_counter, arrival_ms, tail, status
        if not answer:
            raise ConnectionResetError("the node closed the connection")
        self._buffer = answer
        return None

    def send(self, buffers: Sequence[Buffer], total: int) -> None:
        """Send all of `buffers`, `total` bytes together.

        Raises:
            TimeoutError: the node took nothing for as long as `connect` was told.
            OSError: the connection is lost.
        """
        try:
            if total <= _JOINED_BYTES:
                sent = self._socket.send(buffers[0] if len(buffers) == 1 else b"".join(buffers), _SEND_FLAGS)
            else:
                sent = self._socket.sendmsg(buffers, (), _SEND_FLAGS)
            if sent != total:
                rest = memoryview(b"".join(buffers))
                while sent != total:
                    sent += self._socket.send(rest[sent:], _SEND_FLAGS)
        except BlockingIOError as error:
            raise TimeoutError("the node takes no more") from error

    def receive(self, *, wait: bool = True) -> Received | None:
        """The next frame.

        Args:
            wait: whether to wait for it.

        Returns:
            None where not waiting and no whole frame is there.

        Raises:
            TimeoutError: nothing came for as long as `connect` was told.
            OSError: the connection is lost.
        """
        buffer = self._buffer
        size = _ANSWER_BYTES  # a small buffer is cheaper to make, and most answers fit
        while True:
            have = len(buffer)
            if have >= FRAME.size:
                length, request, kind, blocks = FRAME.unpack_from(buffer)
                end = FRAME.size + length
                if have >= end:
                    self._buffer = buffer[end:] if have > end else b""
                    return Received(kind, request, blocks, buffer[FRAME.size : end])
                size = min(max(end - have, _ANSWER_BYTES), 1 << 20)
            try:
                more = self._socket.recv(size) if wait else self._socket.recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError as error:
                self._buffer = buffer
                if not wait:
                    return None
                raise TimeoutError("the node is silent") from error
            if not more:
                raise ConnectionResetError("the node closed the connection")
            buffer = buffer + more if buffer else more

    def ask(self, request: int, op: str, arguments: dict[str, Any]) -> Any:
        """One control request, with nothing else under way on this connection.

        Raises:
            KflowError: what the node answered.
            TimeoutError: no answer came in time.
            OSError: the connection is lost.
        """
        message = json_frame(CONTROL, request, {"op": op, **arguments})
        self.send((message,), len(message))
        received = self.receive()
        if received is None or received.kind != CONTROL_ANSWER or received.request != request:
            raise ConnectionResetError("the node answered something else than what was asked")
        answer = msgspec.json.decode(received.payload)
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"]

    def call(self, request: int, call: Call) -> CallAnswer:
        """One call of an AWS operation, with nothing else under way on this connection.

        Raises:
            KflowError: the node is too old for it, or serves no such service.
            TimeoutError: no answer came in time.
            OSError: the connection is lost.
        """
        message = packed_frame(CALL, request, call)
        self.send((message,), len(message))
        received = self.receive()
        if received is not None and received.kind == CONTROL_ANSWER and received.request == request:
            raise error_from_json(msgspec.json.decode(received.payload)["error"])
        if received is None or received.kind != CALL_ANSWER or received.request != request:
            raise ConnectionResetError("the node answered something else than what was asked")
        return msgspec.msgpack.decode(received.payload, type=CallAnswer)

    def event(self, request: int) -> CallEvent:
        """The next event of a call whose answer goes on.

        Raises:
            TimeoutError: none came in time; ask again.
            OSError: the connection is lost.
        """
        received = self.receive()
        if received is None or received.kind != CALL_EVENT or received.request != request:
            raise ConnectionResetError("the node sent something else than an event")
        return msgspec.msgpack.decode(received.payload, type=CallEvent)

    def set_patience(self, seconds: float) -> None:
        """How long the node may be silent from now on."""
        _set_patience(self._socket, seconds)

    def __del__(self) -> None:
        self.close()  # a socket that is merely dropped would close its number, whoever has it by now

    def close(self) -> None:
        """Close the connection, unless its descriptor is somebody else's by now."""
        if self.is_intact():
            self._socket.close()
        else:
            self._socket.detach()


def connect(path: Path, hello: Hello, *, timeout_s: float = 10.0) -> Link:
    """Connect to the node and exchange hellos.

    Args:
        path: the node's socket.
        hello: this side's first words.
        timeout_s: how long the node may be silent, now and later on this connection, seconds.

    Raises:
        NoNode: nobody listens.
        UsageError: the node is of a version that does not fit.
        StorageError: the node serves another folder than `hello` says.
        OSError: the connection was lost, or the node did not answer in time (`TimeoutError`).
    """
    link = Link(_connected(path, timeout_s))
    try:
        message = json_frame(HELLO, 0, hello)
        link.send((message,), len(message))
        received = link.receive()
        if received is None or received.kind != HELLO:
            raise ConnectionResetError("the node did not say hello")
        link.hello = msgspec.json.decode(received.payload, type=Hello)
        check_hello(hello, link.hello)
        if hello.folder_id and hello.folder_id != link.hello.folder_id:
            raise StorageError(f"the node at {path} serves another data folder: was this one replaced?")
    except BaseException:
        link.close()
        raise
    return link


def call(folder_path: Path, op: str, timeout_s: float = 10.0, **arguments: Any) -> Any:
    """Ask the node of a data folder to do something, and wait for its answer.

    Args:
        folder_path: the data folder.
        op: name of the operation.
        timeout_s: how long the node may be silent, seconds.
        arguments: what the operation takes; JSON values.

    Returns:
        What the node answered; a JSON value.

    Raises:
        NoNode: none runs on this folder.
        KflowError: what the node refused with, as the class it was there.
        StorageError: it did not answer.
    """
    silent = f"the node of {folder_path} did not answer within {timeout_s:g} s"
    try:
        link = connect(folder.socket_path(folder_path), own_hello(""), timeout_s=timeout_s)
    except TimeoutError as error:
        raise StorageError(silent) from error
    except OSError as error:
        raise NoNode(f"the node of {folder_path} went away: {error}") from error
    try:
        return link.ask(1, op, arguments)
    except TimeoutError as error:
        raise StorageError(silent) from error
    except OSError as error:
        raise StorageError(f"the node of {folder_path} went away before it answered {op!r}: {error}") from error
    finally:
        link.close()


def _connected(path: Path, timeout_s: float) -> socket.socket:
    try:
        os.stat(path)  # a producer without a node asks before each put: 2 us, where making a socket takes 12
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoNode(f"no node listens at {path}") from error
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _set_patience(new, timeout_s)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        if hasattr(socket, "SO_NOSIGPIPE"):
            new.setsockopt(socket.SOL_SOCKET, socket.SO_NOSIGPIPE, 1)
        new.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        new.close()
        raise NoNode(f"no node listens at {path}") from error
    except BlockingIOError as error:
        new.close()
        raise TimeoutError(f"the node at {path} accepts no connection") from error
    except BaseException:
        new.close()
        raise
    return new


def _set_patience(on: socket.socket, seconds: float) -> None:
    """The kernel's own timeouts: one of Python's would cost a poll() before each call."""
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    on.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    on.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
