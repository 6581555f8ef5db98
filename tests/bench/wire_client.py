"""A client that costs nothing: requests encoded beforehand, answers cut off the socket by their length."""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Any

from tests.bench.running import PATIENCE_S

_AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=AKIAKFLOWBENCH000000/20260101/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=" + 64 * "0"
)


def request(port: int, operation: str, members: dict[str, Any] | bytes) -> bytes:
    """A whole request, with the headers that an SDK sends."""
    body = members if isinstance(members, bytes) else json.dumps(members, separators=(",", ":")).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n"
        "Content-Type: application/x-amz-json-1.1\r\nUser-Agent: Boto3/1.44 md/Botocore#1.44 ua/2.0 os/linux\r\n"
        f"X-Amz-Date: 20260101T000000Z\r\nAuthorization: {_AUTHORIZATION}\r\n"
        f"amz-sdk-invocation-id: 6b1f0a3e-0000-4000-8000-000000000000\r\namz-sdk-request: attempt=1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def put_requests(port: int, stream: str, *, count: int, size: int, variants: int) -> list[bytes]:
    """Different requests that put `count` records of `size` random bytes each, with a key of its own each."""
    made = []
    for variant in range(variants):
        records = [
            {"Data": base64.b64encode(os.urandom(size)).decode(), "PartitionKey": f"user-{variant}-{number}"}
            for number in range(count)
        ]
        if count == 1:
            made.append(request(port, "PutRecord", {"StreamName": stream, **records[0]}))
        else:
            made.append(request(port, "PutRecords", {"StreamName": stream, "Records": records}))
    return made


class Connection:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def call(self, sent: bytes) -> bytes:
        """Send a request, wait for the answer's body.

        Raises:
            RuntimeError: the answer is not 200.
        """
        self.socket.sendall(sent)
        while (body := self.feed()) is None:
            pass
        return body

    def feed(self) -> bytes | None:
        """Receive once; the body where the answer is complete now."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the endpoint has closed the connection")
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = received[:end].lower()
        at = head.index(b"content-length:") + 15
        stop = head.find(b"\r\n", at)
        length = int(head[at : stop if stop > 0 else end])
        if len(received) < end + 4 + length:
            return None
        self._received = b""
        if received[9:12] != b"200":
            raise RuntimeError(f"the endpoint answered {received[:4096]!r}")
        return received[end + 4 :]

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def ask(port: int, operation: str, **members: Any) -> dict[str, Any]:
    """Call an operation over a connection of its own."""
    connection = Connection(port)
    try:
        body = connection.call(request(port, operation, members))
    finally:
        connection.close()
    return dict(json.loads(body)) if body else {}


def load(port: int, requests: Sequence[bytes], *, connections: int, count: int) -> float:
    """Send `count` requests over several connections, each always with one under way.

    Returns:
        Seconds it took.
    """
    with selectors.DefaultSelector() as selector:
        opened = [Connection(port) for _ in range(connections)]
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        begin = time.perf_counter()
        sent = done = 0
        for connection in opened[:count]:
            connection.socket.sendall(requests[sent % len(requests)])
            sent += 1
        while done < count:
            ready = selector.select(PATIENCE_S)
            if not ready:
                raise TimeoutError(f"no answer for {PATIENCE_S:g} s")
            for key, _ in ready:
                if key.data.feed() is None:
                    continue
                done += 1
                if sent < count:
                    key.data.socket.sendall(requests[sent % len(requests)])
                    sent += 1
        spent = time.perf_counter() - begin
        for connection in opened:
            connection.close()
    return spent
