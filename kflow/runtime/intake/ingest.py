"""The node's side of the socket: producers' blocks in, numbers out; control requests passed on.

Everything here runs on the node's loop. A readable connection costs one receive and, where answers are ready, one send;
what a receive brought is worked through in slices, so that one producer never delays a lease. Nothing ever blocks:
answers that the kernel does not take wait in the connection's outbox, and a connection with too much unanswered is not
read until it has caught up: so a producer is slowed down by its own backlog, never by refusal.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from kflow.broker import handshake, wirecalls
from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.errors import ResourceNotFound, StorageError, UsageError
from kflow.runtime.intake.appender import Appender
from kflow.runtime.intake.backlog import Backlog
from kflow.runtime.intake.blocks import OnAppend
from kflow.runtime.intake.commits import Commits
from kflow.runtime.intake.connection import Connection, OnCall, OnControl
from kflow.runtime.loop import Loop

__all__ = ["Connection", "Ingest"]

log = logging.getLogger(__name__)

WATCH_S = 2.0
"""The socket's path is looked at this often: whoever cleaned it away gets a new one."""


def _no_services(connection: Connection, request: int, call: wirecalls.Call) -> None:
    del connection, request
    raise UsageError(f"this runtime serves no {call.service}")


class Ingest:
    """Listens for producers and tools, appends what they send, answers.

    Args:
        store: the log; its writer lock is held by the caller for as long as this object is open.
        loop: hosts the connections.
        on_append: called after each append, with `fsync = "always"` after each sync, with the stream's map, the
            shard's index, its readable end and the counter that goes with it, before the answer is sent: so a waiting
            lease is granted first.
        on_control: called for each control request with the connection, the request's number and the request; returns
            the answer, or None to answer later by `Connection.answer`; raises `KflowError` to refuse.
        hello: what the node says first.
        on_call: called for each call of an AWS operation; answers by `Connection.answer_call`, now or later; raises
            `KflowError` to refuse.
        failed: told of a sync that failed, for people; it is logged in any case.
    """

    def __init__(
        self,
        store: Log,
        *,
        loop: Loop,
        on_append: OnAppend,
        on_control: OnControl,
        hello: handshake.Hello,
        on_call: OnCall = _no_services,
        failed: Callable[[str], None] = lambda text: None,  # noqa: ARG005  # `sync` has logged it
    ) -> None:
        self.loop = loop
        self.appender = Appender(store, loop)
        self.commits = Commits(store, loop, on_append, failed) if store.folder.fsync == "always" else None
        self.backlog = Backlog()
        self.hello = hello
        self.on_append = on_append
        self.on_control = on_control
        self.on_call = on_call
        self.connections: set[Connection] = set()
        self.producers: dict[int, Connection] = {}
        self.store = store
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
            found = self._maps[stream_id] = self.store.folder.map_by_id(stream_id)
        except ResourceNotFound:
            return None
        return found

    def forget(self, stream_id: int) -> None:
        """To be called whenever a stream's map was published, marked deleted or removed."""
        self._maps.pop(stream_id, None)
        self.appender.forget(stream_id)
        if self.commits is not None:
            self.commits.forget(stream_id)

    def learn(self, stream: StreamMap) -> None:
        """A stream's map was published: this one. So the loop need not read it from the disk."""
        self.forget(stream.id)
        self._maps[stream.id] = stream

    def retire(self, stream_id: int, then: Callable[[], None]) -> None:
        """Append nothing more to a stream; call `then` once no append to it is under way: now, or later on the loop.

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
        if self.commits is not None:
            self.commits.close()
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
            try:
                self.store.folder.recheck()
            except StorageError as error:  # what lies there now is another runtime's
                log.error("socket is not bound again path=%s: %s", self._path, error)  # noqa: TRY400  # nothing to trace
                return
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
