"""A server behind the endpoint: keeps what it is asked, and answers as a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = Callable[["Asked", BaseHTTPRequestHandler], None]


class Asked(NamedTuple):
    """A request as it came; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: int


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # Python's own 5 are fewer than connect at once here, and the rest would be reset


class Upstream:
    """Listens at a port of its own.

    Attributes:
        asked: what came, in order.
        answer: answers; may be replaced.
        url: where it is.
    """

    def __init__(self, answer: Answer) -> None:
        self.asked: list[Asked] = []
        self.answer = answer
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body, self.client_address[1])
                upstream.asked.append(asked)
                upstream.answer(asked, self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815  # as its base calls them

            def handle(self) -> None:
                try:
                    super().handle()
                except (ConnectionError, ValueError):
                    self.close_connection = True  # whoever asked is gone, or a test closed it

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


def respond(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """A whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


class Shelf:
    """A little S3: what is put under a path is got there."""

    def __init__(self) -> None:
        self.things: dict[str, bytes] = {}

    def __call__(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        path = asked.target.partition("?")[0]
        if asked.method == "PUT":
            self.things[path] = asked.body
            respond(handler, 200, ETag='"etag"')
        elif path in self.things:
            respond(handler, 200, self.things[path], x_amz_meta_color="r\u00f6t")
        else:
            respond(handler, 404, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>")


@contextmanager
def upstream(answer: Answer) -> Iterator[Upstream]:
    """For fixtures."""
    made = Upstream(answer)
    try:
        yield made
    finally:
        made.close()


def deaf() -> socket.socket:
    """Takes connections, and never says anything."""
    return socket.create_server(("127.0.0.1", 0))
