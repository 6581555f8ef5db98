"""Listens, accepts, and looks after connections: HTTP/1.1, HTTP/2 with prior knowledge and TLS on one port."""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from kflow.web.connection import PRIORITY, Connection
from kflow.web.exchange import Handler, Loop, Timer
from kflow.web.hub import Hub, Speaker
from kflow.web.options import HIGH_BYTES, WebOptions, connection_limit

log = logging.getLogger(__name__)

_BACKLOG = 1024
_LOOK_AWAY_S = 1.0
"""After the system had no descriptor for a new connection, or all places were taken by connections that just came."""
_SWEPT = 256
"""Connections looked at in one round of the loop."""


class Server:
    """Serves HTTP on the loop that hosts it; every method belongs to that loop's thread.

    Nothing blocks but `listen`'s look-up of a host name. A connection gets one request served in a round of the loop.
    Idle, it keeps one timer while there are connections, and none otherwise.

    Args:
        loop: hosts the connections.
        handler: called on the loop for each request.
        options: limits, and TLS.

    Raises:
        UsageError: the certificate cannot be read or made; the text says what to do.
    """

    def __init__(self, loop: Loop, handler: Handler, *, options: WebOptions | None = None) -> None:
        self.options = options or WebOptions()
        self._hub = Hub(loop, handler, self.options)
        self._loop = loop
        self._limit = connection_limit(self.options)
        self._scratch = bytearray(HIGH_BYTES)
        self._connections: dict[Connection, None] = {}  # in the order of their coming
        self._listeners: list[socket.socket] = []
        self._looks_away = False
        self._sweeper: Timer | None = None
        self._grace: Timer | None = None
        self._then: Callable[[], object] | None = None
        self._secure: Callable[[Connection], Speaker] | None = None
        if self.options.tls is not None:
            from kflow.web.tls import make_context, secure

            context = make_context(self.options.tls)
            self._secure = lambda connection: secure(connection, self._hub, context)

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def listen(self, host: str, port: int) -> int:
        """Accept connections from now on; may be called again, for another address.

        Args:
            host: an address or a name; of a name, its first address.
            port: 0 for any that is free.

        Returns:
            The port.

        Raises:
            OSError: it cannot be bound.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._listeners.append(listener)
        if not self._looks_away:
            self._watch(listener)
        bound: int = listener.getsockname()[1]
        return bound

    def close(self, grace_s: float = 0.0, then: Callable[[], object] | None = None) -> None:
        """Accept nothing more, answer what is under way, close every connection as soon as it has nothing to do.

        Args:
            grace_s: what is still open after so many seconds is closed as it is; 0: at once.
            then: called once, on the loop, when the last connection is gone: perhaps before this returns.
        """
        self._hub.is_stopping = True
        self._then = then
        self._stop_listening()
        if grace_s > 0:
            self._grace = self._loop.call_later(grace_s, self._abort_all)
            for connection in list(self._connections):
                connection.stop()
        else:
            self._abort_all()
        self._finish_close()

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _finish_close(self) -> None:
        if not self._hub.is_stopping or self._connections:
            return
        for timer in (self._grace, self._sweeper):
            if timer is not None:
                timer.cancel()
        then, self._then = self._then, None
        if then is not None:
            then()

    # accepting

    def _watch(self, listener: socket.socket) -> None:
        self._loop.add(listener.fileno(), lambda mask: self._accept(listener, mask), priority=PRIORITY)

    def _accept(self, listener: socket.socket, mask: int) -> None:
        del mask
        if len(self._connections) >= self._limit and not self._make_room():
            self._look_away()
            self._loop.call_later(_LOOK_AWAY_S, self._look_for_room)  # a sweep may be long in coming
            return
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in (errno.ECONNABORTED, errno.EPROTO):
                return
            # out of descriptors or memory: readiness would spin, so look away for a while
            log.warning("cannot accept a connection error=%s", error)
            self._look_away()
            self._loop.call_later(_LOOK_AWAY_S, self._look_again)
            return
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # it is gone already
            accepted.close()
            return
        if self._sweeper is None:
            self._hub.now = self._hub.clock()
            self._sweeper = self._loop.call_later(self.options.sweep_s, self._sweep)
        connection = Connection(self._hub, accepted, self._scratch, self._secure, self._gone)
        self._connections[connection] = None

    def _make_room(self) -> bool:
        """Close the oldest connection that has rested since times were last looked at, if there is one."""
        now = self._hub.now
        for connection in self._connections:
            if connection.since < now and connection.is_idle:
                connection.abort()
                return True
        return False

    def _look_away(self) -> None:
        if self._looks_away:
            return
        self._looks_away = True
        for listener in self._listeners:
            self._loop.remove(listener.fileno())

    def _look_again(self) -> None:
        if self._looks_away:
            self._looks_away = False
            for listener in self._listeners:
                self._watch(listener)

    def _look_for_room(self) -> None:
        """By now a connection may have rested long enough to make room."""
        self._hub.now = self._hub.clock()
        self._look_again()

    def _stop_listening(self) -> None:
        if not self._looks_away:
            for listener in self._listeners:
                self._loop.remove(listener.fileno())
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    # looking after

    def _gone(self, connection: Connection) -> None:
        del self._connections[connection]
        if self._looks_away and len(self._connections) < self._limit:
            self._look_again()
        self._finish_close()

    def _sweep(self) -> None:
        self._sweeper = None
        self._hub.now = self._hub.clock()
        self._sweep_some(deque(self._connections))

    def _sweep_some(self, left: deque[Connection]) -> None:
        for _ in range(min(len(left), _SWEPT)):
            connection = left.popleft()
            if connection.is_open:
                self._hub.call(partial(connection.sweep, self._hub.now))
        if left:
            self._hub.later(lambda: self._sweep_some(left))
            return
        if self._looks_away:
            self._look_again()  # by now a connection may have rested long enough to make room
        if self._connections:
            self._sweeper = self._loop.call_later(self.options.sweep_s, self._sweep)
