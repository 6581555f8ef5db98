"""Raw requests, without an SDK: any bytes, any headers, over HTTP/1.1 and HTTP/2; the answers as they came."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cbor2
import h2.config
import h2.connection
import h2.events
import h2.settings

JSON = "application/x-amz-json-1.1"
CBOR = "application/x-amz-cbor-1.1"
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0"
)


class Milliseconds(int):
    """What stands under tag 1 of CBOR: AWS counts milliseconds there, where the RFC has seconds."""


def encode(content_type: str, value: Any) -> bytes:
    """A body."""
    return cbor2.dumps(value) if content_type == CBOR else json.dumps(value).encode()


def decode(content_type: str, body: bytes) -> Any:
    """A body. Times of CBOR become `Milliseconds`."""
    if content_type == CBOR:
        return cbor2.loads(body, semantic_decoders={1: lambda value, immutable: Milliseconds(value)})
    return json.loads(body)


def headers_of(operation: str, content_type: str = JSON, **more: str | None) -> dict[str, str]:
    """Those of an SDK; None takes one away."""
    found: dict[str, str | None] = {
        "content-type": content_type,
        "x-amz-target": f"Kinesis_20131202.{operation}",
        "x-amz-date": "20260101T000000Z",
        "authorization": AUTHORIZATION,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


class Answer(NamedTuple):
    """An answer: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body, decoded."""
        return decode(self.headers["content-type"], self.body)


class Http1:
    """A connection of HTTP/1.1."""

    name = "http1"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def send(self, headers: Mapping[str, str], body: bytes, *, method: str = "POST", path: str = "/") -> Answer:
        """A request, and its whole answer."""
        response = self._ask(headers, body, method, path)
        return Answer(response.status, _lower(response), response.read())

    def stream(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], Iterator[bytes]]:
        """A request, and its answer piece by piece."""
        response = self._ask(headers, body, "POST", "/")
        return response.status, _lower(response), iter(response.read1, b"")

    def close(self) -> None:
        """End it."""
        self.connection.close()

    def _ask(self, headers: Mapping[str, str], body: bytes, method: str, path: str) -> http.client.HTTPResponse:
        self.connection.request(method, path, body, dict(headers))
        return self.connection.getresponse()


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


class Http2:
    """A connection of HTTP/2, by the `h2` package: with prior knowledge, or chosen by ALPN.

    Attributes:
        events: all that happened and that nobody asked for yet, by stream; 0: the connection's.
    """

    name = "http2"

    def __init__(self, url: str, *, ca: str | None = None, window: int | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.authority = parts.netloc
        self.socket: socket.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        if ca is not None:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2"])
            secured = context.wrap_socket(self.socket, server_hostname=parts.hostname)
            assert secured.selected_alpn_protocol() == "h2"
            self.socket = secured
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        if window is not None:
            settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.renews = True
        self.events: dict[int, list[h2.events.Event]] = {}
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what there is."""
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def begin(self, headers: Mapping[str, str], *, method: str = "POST", path: str = "/", ends: bool = False) -> int:
        """Send the head of a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", self.authority)]
        self.h2.send_headers(stream, [*pseudo, *headers.items()], end_stream=ends)
        self.events[stream] = []
        self.flush()
        return stream

    def give(self, stream: int, body: bytes, *, piece: int = 16_384, padding: int | None = None) -> None:
        """Send a body as the windows allow, in pieces."""
        left = memoryview(body)
        pad = 0 if padding is None else padding + 1
        while left:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size) - pad
            size = min(piece, len(left), room)
            if size <= 0:
                self.receive()
                continue
            self.h2.send_data(stream, bytes(left[:size]), end_stream=size == len(left), pad_length=padding)
            left = left[size:]
            self.flush()

    def ask(self, headers: Mapping[str, str], body: bytes) -> int:
        """Send a request; returns its stream."""
        stream = self.begin(headers, ends=not body)
        self.give(stream, body)
        return stream

    def receive(self) -> None:
        """Wait for more, and give windows back as far as `renews` says so."""
        data = self.socket.recv(65_536)
        assert data, "the server has closed the connection"
        for event in self.h2.receive_data(data):
            stream = getattr(event, "stream_id", None) or 0
            self.events.setdefault(stream, []).append(event)
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length and self.renews:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        self.flush()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Receive until `condition` holds; a silent server is a time-out of the socket."""
        while not (found := condition()):
            self.receive()
        return found

    def has(self, stream: int, kind: type[h2.events.Event]) -> bool:
        """Whether such a thing has happened."""
        return any(isinstance(event, kind) for event in self.events.get(stream, []))

    def head(self, stream: int) -> tuple[int, dict[str, str]]:
        """Status and headers of an answer, as soon as they are there."""
        self.wait(lambda: self.has(stream, h2.events.ResponseReceived))
        (event,) = [each for each in self.events[stream] if isinstance(each, h2.events.ResponseReceived)]
        headers = dict(event.headers)
        return int(headers.pop(":status")), headers

    def body(self, stream: int) -> bytes:
        """What has come of an answer."""
        return b"".join(each.data for each in self.events[stream] if isinstance(each, h2.events.DataReceived))

    def answer(self, stream: int) -> Answer:
        """The whole answer."""
        self.wait(lambda: self.has(stream, h2.events.StreamEnded))
        return Answer(*self.head(stream), self.body(stream))

    def send(self, headers: Mapping[str, str], body: bytes, *, method: str = "POST", path: str = "/") -> Answer:
        """A request, and its whole answer."""
        stream = self.begin(headers, method=method, path=path, ends=not body)
        self.give(stream, body)
        return self.answer(stream)

    def stream(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], Iterator[bytes]]:
        """A request, and its answer piece by piece."""
        stream = self.ask(headers, body)
        return *self.head(stream), self._pieces(stream)

    def _pieces(self, stream: int) -> Iterator[bytes]:
        taken = 0
        while True:
            data = [each.data for each in self.events[stream] if isinstance(each, h2.events.DataReceived)]
            yield from data[taken:]
            taken = len(data)
            if self.has(stream, h2.events.StreamEnded):
                return
            self.receive()

    def close(self) -> None:
        """End it."""
        self.socket.close()


class Caller:
    """Calls operations over one connection, in one encoding."""

    def __init__(self, connection: Http1 | Http2, content_type: str) -> None:
        self.connection = connection
        self.content_type = content_type

    def ask(self, operation: str, **given: Any) -> Answer:
        """An operation, and its answer whatever it is."""
        return self.connection.send(headers_of(operation, self.content_type), encode(self.content_type, given))

    def call(self, operation: str, **given: Any) -> Any:
        """An operation that succeeds; None where it answers nothing."""
        answer = self.ask(operation, **given)
        assert answer.status == 200, answer
        return answer.value if answer.body else None

    def refusal(self, operation: str, **given: Any) -> Any:
        """What an operation that is refused says."""
        answer = self.ask(operation, **given)
        assert (answer.status, answer.headers["content-type"]) == (400, self.content_type)
        return answer.value

    def blob(self, data: bytes) -> Any:
        """Bytes as the encoding has them."""
        return data if self.content_type == CBOR else base64.b64encode(data).decode()
