"""The Runtime API on a port: one for each runtime process, so that whoever speaks on it is that process.

One `poll` waits for all that can happen: a request, what the process writes, its end, the moment when time is up. It is
asked only while an invocation or an initialisation runs. The pipe is looked at after the connections: what a runtime
writes before it answers is there when its answer is.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from kflow.runtime.worker.hosted.api import Answer, Api, Event, State, malformed
from kflow.runtime.worker.hosted.frames import Frames, Piece
from kflow.runtime.worker.hosted.process import Process
from kflow.runtime.worker.hosted.requests import Known, Malformed, Parser, Request

LOOK_MS: Final = 100
"""While an invocation runs, the memory of its process is looked at this often."""
_READ_BYTES: Final = 64 << 10
_CONNECTIONS: Final = 16
"""A runtime has one, and another for a moment where its start fails."""
_NO_PIDFD_MS: Final = 20
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Listener:
    """The port, before there is a process that knows it."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(_CONNECTIONS)
        self.socket.setblocking(False)

    @property
    def address(self) -> str:
        """For `AWS_LAMBDA_RUNTIME_API`."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"


class _Connection:
    __slots__ = ("closes", "out", "parser", "socket", "waits")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.parser = Parser()
        self.out = memoryview(b"")
        self.closes = False
        self.waits = False


class Server:
    """Speaks with one runtime process. Belongs to the worker's thread."""

    def __init__(self, listener: Listener, process: Process, output: Callable[[Piece], None]) -> None:
        """Take over the port.

        Args:
            listener: the port.
            process: the one process that knows it.
            output: is given what the process writes, piece by piece.
        """
        self.api = Api()
        self.status: int | None = None
        """The wait status of the process, once it has ended."""
        self._listener = listener.socket
        self._process = process
        self._output = output
        self._frames = Frames()
        self._known = Known()
        self._connections: dict[int, _Connection] = {}
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        if process.fd >= 0:
            self._poll.register(process.fd, select.POLLIN)
        self._poll.register(process.output, select.POLLIN)
        self._has_output = True
        self._look_due = 0.0

    # ------------------------------------------------------------------ what the environment waits for

    def wait_ready(self, deadline: float, look: Callable[[], bool] | None = None) -> bool:
        """Wait until the runtime asks for an invocation, or has ended or failed.

        Args:
            deadline: monotonic seconds.
            look: asked from time to time; True ends the wait.

        Returns:
            Whether that came before the deadline, and `look` did not end it.
        """
        api = self.api
        while api.state is not State.READY and api.answer is None and self.status is None:
            if not self._step(deadline, look):
                break
        return api.state is State.READY or api.answer is not None or self.status is not None

    def run(
        self,
        event: Event,
        deadline: float,
        look: Callable[[], bool] | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Answer | None:
        """Give the runtime, which is ready, an invocation, and wait for its answer.

        Args:
            event: the invocation.
            deadline: monotonic seconds.
            look: asked from time to time; True ends the wait.
            meanwhile: called when the runtime has the invocation; nothing that it writes is read before that.

        Returns:
            None: it has ended (`status` says how), or time is up, or `look` ended the wait.
        """
        api = self.api
        api.deliver(event)
        for connection in self._connections.values():
            if connection.waits:
                connection.waits = False
                self._send(connection, event.head, event.body)
                break
        if meanwhile is not None:
            meanwhile()
        while api.answer is None and self.status is None:
            if not self._step(deadline, look):
                break
        answer, api.answer = api.answer, None
        return answer

    def drain(self) -> None:
        """Take what the process has written until now."""
        while data := self._process.read():
            self._write(data)

    def close(self) -> None:
        """Close the port and the connections, and kill the process."""
        self._process.close()
        for connection in self._connections.values():
            connection.socket.close()
        self._connections.clear()
        self._listener.close()

    # ------------------------------------------------------------------ one wait

    def _step(self, deadline: float, look: Callable[[], bool] | None) -> bool:
        """Wait once, and handle what there is. False: time is up, or `look` said so."""
        now = time.monotonic()
        left = deadline - now
        if left <= 0:
            return False
        wait = left * 1000
        if look is not None:
            wait = min(wait, LOOK_MS)
            if now >= self._look_due:
                self._look_due = now + LOOK_MS / 1000
                if look():
                    return False
        if self._process.fd < 0:
            wait = min(wait, _NO_PIDFD_MS)
        found = self._poll.poll(int(wait) + 1)
        ended = self._process.fd < 0 and self._process.poll() is not None
        for fd, _ in found:
            connection = self._connections.get(fd)
            if connection is not None:
                self._serve(connection)
            elif fd == self._process.output:
                self._read_output()
            elif fd == self._process.fd:
                ended = True
            else:
                self._accept()
        if ended:
            self._end()
        return True

    def _read_output(self) -> None:
        try:
            data = os.read(self._process.output, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._write(data)
        else:  # nobody has the other end any more
            self._poll.unregister(self._process.output)
            self._has_output = False

    def _write(self, data: bytes) -> None:
        for piece in self._frames.feed(data):
            self._output(piece)

    def _end(self) -> None:
        """The process has ended: what it sent before is read first, for it may be an answer."""
        while True:
            self._accept()
            before = self.api.state, len(self._connections)
            for connection in list(self._connections.values()):
                self._serve(connection)
            if (self.api.state, len(self._connections)) == before:
                break
        self.drain()
        rest = self._frames.end()
        if rest:
            self._output(Piece(rest, is_event=False))
        self.status = self._process.poll()

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        while len(self._connections) < _CONNECTIONS:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock.fileno()] = _Connection(sock)
            self._poll.register(sock, select.POLLIN)
        if self._has_output:  # last again: what is written before an answer is found with it
            self._poll.unregister(self._process.output)
            self._poll.register(self._process.output, select.POLLIN)

    def _serve(self, connection: _Connection) -> None:
        if connection.out:
            self._send(connection)
        while True:
            try:
                data = connection.socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._drop(connection)
                return
            is_new = connection.parser.is_between
            request = self._known.request(data) if is_new else None
            if request is not None:
                self._answer(connection, request)
                return
            connection.parser.feed(data)
            self._handle(connection, data if is_new else b"")
            if connection.closes or len(data) < _READ_BYTES:
                return

    def _handle(self, connection: _Connection, new: bytes) -> None:
        """Answer what can be read; `new` is all that there is to read, where it begins with a request."""
        parser = connection.parser
        while not connection.closes:
            try:
                request = parser.next()
            except Malformed as error:
                connection.closes = True
                self._send(connection, malformed(str(error)))
                return
            if request is None:
                if parser.expects:
                    parser.expects = False
                    self._send(connection, _CONTINUE)
                return
            if new and parser.is_between:
                self._known.learn(new, request)
            new = b""
            self._answer(connection, request)

    def _answer(self, connection: _Connection, request: Request) -> None:
        connection.closes = not request.keep
        answer = self.api.handle(request)
        if answer is None:
            connection.closes = False
            connection.waits = True
        else:
            connection.waits = False
            if isinstance(answer, bytes):
                self._send(connection, answer)
            else:
                self._send(connection, answer.head, answer.body)

    def _send(self, connection: _Connection, *parts: bytes) -> None:
        """Send what fits; the rest follows when there is room."""
        had = bool(connection.out)
        whole: list[bytes | memoryview] = [connection.out, *parts] if had else [*parts]
        try:
            sent = connection.socket.sendmsg(whole)
        except BlockingIOError:
            sent = 0
        except OSError:  # the runtime is gone, or has closed it; its end, or its next request, says which
            self._drop(connection)
            return
        left = -sent
        for part in whole:
            left += len(part)
        if left:
            connection.out = connection.out[sent:] if not parts else memoryview(b"".join(whole))[sent:]
        elif had:
            connection.out = memoryview(b"")
        if bool(left) is not had:
            mask = select.POLLIN | select.POLLOUT if left else select.POLLIN
            self._poll.modify(connection.socket, mask)
        if not left and connection.closes:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.socket.fileno(), None) is None:
            return
        self._poll.unregister(connection.socket)
        connection.socket.close()
        if connection.waits and self.api.state is State.READY:
            self.api.state = State.ANSWERED  # it has to ask again
