"""One exchange with an upstream, blocking: for threads, which may wait where the loop may not.

A line is one connection that its thread keeps for the next request to the same place. Only threads import this: what
it stands on takes tens of milliseconds.
"""

from __future__ import annotations

import http.client
import select
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from kflow.runtime.forwarding.asking import (
    PIECE_BYTES,
    Answer,
    Failed,
    Patience,
    Request,
    Ticket,
    too_late,
    unreachable,
)

_AGAIN: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Doing these twice is as doing them once: documented: RFC 9110 9.2.2."""


class Line:
    """A connection, kept between requests. Belongs to one thread."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._url = ""

    def ask(self, request: Request, ticket: Ticket) -> Answer:
        """Send a request, and wait until the answer begins. Its pieces must be read to their end, or the line closed.

        Raises:
            Failed: there is no answer.
        """
        kept = self._kept(request.url)
        if kept is not None:
            try:
                return self._ask(kept, request, ticket)
            except Failed as error:
                # the upstream may have closed it in this moment, as it closes whatever rests
                if error.status != 502 or request.method not in _AGAIN or ticket.is_cancelled:
                    raise
        return self._ask(self._connected(request.url), request, ticket)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _kept(self, url: str) -> http.client.HTTPConnection | None:
        connection = self._connection
        if connection is None or connection.sock is None or self._url != url or _is_ended(connection.sock):
            self.close()
            return None
        return connection

    def _connected(self, url: str) -> http.client.HTTPConnection:
        connection = _connection(url, self._patience.connect_s)
        try:
            connection.connect()
        except TimeoutError as error:
            raise Failed(
                504, "UpstreamTimeout", f"{url} took no connection within {self._patience.connect_s:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(url, error) from error
        connection.sock.settimeout(self._patience.silence_s)
        self._connection, self._url = connection, url
        return connection

    def _ask(self, connection: http.client.HTTPConnection, request: Request, ticket: Ticket) -> Answer:
        parts = urlsplit(request.url)
        ticket.hold(connection.sock)
        try:
            connection.putrequest(
                request.method, parts.path + request.target, skip_host=True, skip_accept_encoding=True
            )
            connection.putheader("Host", parts.netloc)
            for name, value in request.headers:
                connection.putheader(name, value)
            if request.body or request.method not in {"GET", "HEAD", "DELETE", "OPTIONS"}:
                connection.putheader("Content-Length", str(len(request.body)))
            self._send(connection, request.body)
            response = connection.getresponse()
        except TimeoutError as error:
            self.close()
            raise too_late(request.url, self._patience.silence_s) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise unreachable(request.url, str(error) or type(error).__name__) from error
        return Answer(response.status, response.getheaders(), self._pieces(request, response, ticket))

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> None:
        """All of it; where the upstream has heard enough before its end, its answer says why."""
        try:
            connection.endheaders(body or None)
        except (BrokenPipeError, ConnectionResetError):
            if not body or connection.sock is None:
                raise

    def _pieces(self, request: Request, response: http.client.HTTPResponse, ticket: Ticket) -> Iterator[bytes]:
        is_whole = False
        try:
            while piece := response.read1(PIECE_BYTES):
                yield piece
            if response.length:
                raise unreachable(request.url, f"{response.length} bytes of its answer are missing")
            is_whole = True
        except TimeoutError as error:
            raise too_late(request.url, self._patience.silence_s) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unreachable(request.url, str(error) or type(error).__name__) from error
        finally:
            ticket.hold(None)
            if not is_whole or response.will_close:
                self.close()
            response.close()  # or its connection would not be free for the next: `read1` leaves it open at its end


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """Not connected yet. With https by the machine's proxy, where it has one for that host, as SDKs do."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "the settings were checked"
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    from urllib.request import getproxies, proxy_bypass

    proxy = urlsplit(getproxies().get("https", ""))
    if not proxy.hostname or proxy_bypass(parts.hostname):
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s)
    tunnel = http.client.HTTPSConnection(proxy.hostname, proxy.port or 80, timeout=timeout_s)
    tunnel.set_tunnel(parts.hostname, parts.port or 443)
    return tunnel


def _is_ended(connection: socket.socket) -> bool:
    """Whether the peer has closed it, or sent what nobody asked for."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
