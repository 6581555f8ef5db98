"""A blocking connection to the node of a data folder, for producers, clients and tools."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kflow.broker import folder
from kflow.broker.handshake import Hello, check_hello, own_hello
from kflow.broker.wire import (
    ANSWER_ONE,
    ANSWERED,
    CALL,
    CALL_ANSWER,
    CALL_EVENT,
    CONTROL,
    CONTROL_ANSWER,
    FRAME,
    HELLO,
    OK,
    Buffer,
    Received,
    json_frame,
    packed_frame,
)
from kflow.broker.wirecalls import Call, CallAnswer, CallEvent, error_from_json
from kflow.errors import NoNode, StorageError

_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
"""User code may have given SIGPIPE its default action: a node that went away must not kill the producer."""
_JOINED_BYTES = 4096
"""Below this one copy costs less than the kernel's walk over several buffers."""
_ANSWER_BYTES = 4096


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
        if len(answer) == ANSWER_ONE.size:
            _, request, kind, _, first_counter, arrival_ms, tail, status = ANSWER_ONE.unpack(answer)
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
