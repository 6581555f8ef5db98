"""Hostile peers of `kflow serve`, by sockets: whatever they do, others are served, and memory comes to rest."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deadline import eventually
from tests.served import Served, served

TARGET = "Kinesis_20131202."
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("hostile"), "--tls", "--allow-reset", KFLOW_HTTP_IDLE_SECONDS="3600") as made:
        made.url = made.url.replace("https:", "http:")
        made.client().create_stream(StreamName="orders", ShardCount=1)
        yield made


@pytest.fixture
def tidy(endpoint: Served) -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end; and the endpoint serves others all along."""
    opened: list[socket.socket] = []
    yield opened
    serves(endpoint)
    for each in opened:
        each.close()
    serves(endpoint)


def serves(endpoint: Served) -> None:
    """Somebody with good manners is served."""
    with connect(endpoint) as client:
        client.sendall(request("ListStreams", b"{}"))
        status, _, body = read(client)
        assert status == 200
        assert "orders" in json.loads(body)["StreamNames"]


def connect(endpoint: Served, opened: list[socket.socket] | None = None) -> socket.socket:
    client = socket.create_connection(endpoint.address, timeout=30)
    if opened is not None:
        opened.append(client)
    return client


def request(name: str, body: bytes, **headers: str) -> bytes:
    given = {"Host": "localhost", "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET + name}
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    if "Transfer-Encoding" not in given:
        given["Content-Length"] = str(len(body))
    head = "".join(f"{key}: {value}\r\n" for key, value in given.items() if value)
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body


def read(client: socket.socket, rest: bytearray | None = None) -> tuple[int, bytes, bytes]:
    """One whole answer with a length: status, head, body."""
    data = bytearray() if rest is None else rest
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = client.recv(1 << 16)
        assert piece, f"the connection ended within a head: {bytes(data)!r}"
        data += piece
    head = bytes(data[:end])
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    size = end + 4 + (int(length[1]) if length else 0)
    while len(data) < size:
        piece = client.recv(1 << 16)
        assert piece, "the connection ended within a body"
        data += piece
    body = bytes(data[end + 4 : size])
    del data[:size]
    return int(head.split(b" ", 2)[1]), head, body


def read_to_end(client: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(1 << 16):
            data += piece
    return bytes(data)


def steady(endpoint: Served, attack: Any, *, times: int = 6, spare: int = 12 * MIB) -> None:
    """Do it again and again: memory comes to rest."""
    for _ in range(times):
        attack()
    serves(endpoint)
    before = endpoint.rss
    for _ in range(times):
        attack()
    serves(endpoint)
    assert endpoint.rss - before < spare


# ---------------------------------------------------------------------------------------------------- many


def test_more_idle_connections_than_descriptors_and_newcomers_are_still_served(tmp_path):
    with served(tmp_path, descriptors=600) as made:
        made.client().create_stream(StreamName="orders", ShardCount=1)
        idle = [connect(made) for _ in range(500)]
        try:
            serves(made)
            client = made.client()
            client.put_record(StreamName="orders", Data=b"x", PartitionKey="k")
            size = made.rss
            for each in idle:
                each.close()
            idle.clear()
            for _ in range(2):
                idle += [connect(made) for _ in range(300)]
                serves(made)
                for each in idle:
                    each.close()
                idle.clear()
            assert made.rss - size < 12 * MIB
        finally:
            for each in idle:
                each.close()


def test_slow_senders_hold_up_nobody(endpoint, tidy):
    whole = request("PutRecord", b'{"StreamName":"orders","Data":"eA==","PartitionKey":"k"}')
    slow = [connect(endpoint, tidy) for _ in range(100)]
    for at in range(len(whole)):
        for client in slow:
            client.sendall(whole[at : at + 1])
        if at % 50 == 0:
            serves(endpoint)
    assert {read(client)[0] for client in slow} == {200}


def test_connections_that_never_end_what_they_began_leave_nothing(endpoint, tidy):
    beginnings = (
        b"", b"P", PREFACE[:10], PREFACE, b"\x16\x03\x01\x02\x00", b"POST / HTTP/1.1\r\nHost: h\r\nX-A: ",
        request("PutRecord", b"x" * 1000)[:-1],
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
        PREFACE + frame(4, 0, 0) + frame(1, 0, 1, b"\x83\x86\x84"),
    )  # fmt: skip

    def attack() -> None:
        clients = [connect(endpoint) for _ in range(10) for _ in beginnings]
        for number, client in enumerate(clients):
            client.sendall(beginnings[number % len(beginnings)])
        serves(endpoint)
        for number, client in enumerate(clients):
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            client.close()

    steady(endpoint, attack)


def test_readers_who_read_nothing_do_not_fill_the_memory(endpoint, tidy):
    client = endpoint.client()
    client.create_stream(StreamName="large", ShardCount=1)
    for _ in range(9):
        client.put_record(StreamName="large", Data=b"x" * 1_000_000, PartitionKey="k")
    where = client.get_shard_iterator(StreamName="large", ShardId="0", ShardIteratorType="TRIM_HORIZON")
    asked = request("GetRecords", json.dumps({"ShardIterator": where["ShardIterator"]}).encode())

    for _ in range(3):
        for _ in range(60):
            connect(endpoint, tidy).sendall(asked * 3)
        for _ in range(3):
            serves(endpoint)
        assert endpoint.rss < 750 * MIB, "60 x 12 MiB and more, where each may keep what nobody reads"
        for each in tidy:
            each.close()
        tidy.clear()


# ---------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_at_the_limit_is_read_and_one_byte_more_is_refused_without_a_body(endpoint, tidy, chunked):
    limit = 16 * MIB
    for size, wanted in ((limit, 200), (limit + 1, 413)):
        client = connect(endpoint, tidy)
        body = b"{}" + b" " * (size - 2)
        if chunked:
            pieces = [body[at : at + 100_000] for at in range(0, size, 100_000)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            data = request("ListStreams", body, **{"Transfer-Encoding": "chunked"})
        else:
            data = request("ListStreams", body)
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        status, _, answer = read(client)
        assert (status, answer == b"") == (wanted, wanted == 413)


def test_records_and_calls_at_their_limits(endpoint):
    client = endpoint.client()
    client.create_stream(StreamName="sizes", ShardCount=1)
    key = "k"
    client.put_record(StreamName="sizes", Data=b"x" * (MIB - 1), PartitionKey=key)
    with pytest.raises(client.exceptions.ClientError) as too_long:
        client.put_record(StreamName="sizes", Data=b"x" * (MIB + 1), PartitionKey=key)
    assert too_long.value.response["Error"]["Code"] == "ValidationException"
    entries = [{"Data": b"x" * (MIB - 1), "PartitionKey": key}] * 10
    assert client.put_records(StreamName="sizes", Records=entries)["FailedRecordCount"] == 0
    with pytest.raises(client.exceptions.InvalidArgumentException):
        client.put_records(StreamName="sizes", Records=[*entries, {"Data": b"", "PartitionKey": key}])


def test_values_of_megabytes_are_refused_shortly(endpoint, tidy):
    for body in (
        json.dumps({"StreamName": "x" * 15_000_000}).encode(),
        json.dumps({"StreamARN": "arn:aws" * 2_000_000}).encode(),
        b'{"Records":[' + b"[]," * 5_000_000 + b"[]]}",
        b"[" * 15_000_000,
        b'{"a":' * 3_000_000,
        b'{"StreamName":"orders","Data":"' + b"=" * 15_000_000 + b'","PartitionKey":"k"}',
        b'{"Limit":' + b"9" * 15_000_000 + b"}",
    ):
        client = connect(endpoint, tidy)
        client.sendall(request("PutRecords", body))
        status, _, answer = read(client)
        assert status == 400
        assert len(answer) < 200_000
        serves(endpoint)


# ---------------------------------------------------------------------------------------------------- manners


def test_who_has_closed_his_half_is_still_answered(endpoint, tidy):
    client = connect(endpoint, tidy)
    client.sendall(request("ListStreams", b"{}") * 3)
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client).count(b"HTTP/1.1 200 OK") == 3


def test_who_closes_his_half_within_a_body_is_let_go(endpoint, tidy):
    client = connect(endpoint, tidy)
    client.sendall(request("ListStreams", b"{" + b" " * 100)[:-50])
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b""


def test_hundreds_of_requests_in_one_piece_are_answered_in_their_order(endpoint, tidy):
    client = connect(endpoint, tidy)
    calls = [request("DescribeStreamSummary", json.dumps({"StreamName": f"none-{at}"}).encode()) for at in range(400)]
    client.sendall(b"".join(calls))
    rest = bytearray()
    for at in range(400):
        status, _, body = read(client, rest)
        assert (status, f"Stream none-{at} under" in body.decode()) == (400, True)


def test_garbage_in_the_middle_of_a_connection_costs_that_connection_alone(endpoint, tidy):
    for garbage in (b"\0" * 50, b"GET\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"z" * 40, PREFACE, b"POST / HTTP/7\r\n\r\n"):
        good, bad = connect(endpoint, tidy), connect(endpoint, tidy)
        good.sendall(request("ListStreams", b"{}")[:-1])
        bad.sendall(request("ListStreams", b"{}") + garbage)
        data = read_to_end(bad)
        assert data.startswith(b"HTTP/1.1 200 OK")
        assert re.search(rb"HTTP/1\.1 (400|505) ", data)
        good.sendall(b"}")
        assert read(good)[0] == 200


def test_two_lengths_or_a_length_and_chunks_are_refused(endpoint, tidy):
    """Else a proxy in front might see another request than the endpoint does."""
    for lines in (
        "Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: +2", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: xchunked",
        "Content-Length : 2", "Content-Length: 2, 2, 3",
    ):  # fmt: skip
        client = connect(endpoint, tidy)
        client.sendall(f"POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{{}}".encode())
        data = read_to_end(client)
        assert re.match(rb"HTTP/1\.1 (400|501) ", data), (lines, data)


# ---------------------------------------------------------------------------------------------------- HTTP/2 and TLS


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


HEADERS = b"\x83\x86\x84\x41\x09localhost"  # POST http / localhost
RAPID = b"".join(frame(1, 4, at, HEADERS) + frame(3, 0, at, b"\0\0\0\x08") for at in range(1, 20_000, 2))
FLOODS = {
    "pings": frame(6, 0, 0, b"12345678") * 50_000,
    "settings": frame(4, 0, 0, b"\0\4\0\0\1\0") * 50_000,
    "resets": RAPID,
    "continuations": frame(1, 0, 1, HEADERS) + frame(9, 0, 1, b"\0\1a\1b" * 1000) * 400,
    "empty continuations": frame(1, 0, 1, HEADERS) + frame(9, 0, 1) * 100_000,
    "windows": frame(8, 0, 0, b"\0\0\0\1") * 50_000,
    "empty data": frame(1, 4, 1, HEADERS) + frame(0, 0, 1) * 100_000,
    "padding": frame(1, 4, 1, HEADERS) + frame(0, 8, 1, b"\xff" + b"\0" * 255) * 20_000,
    "priorities": frame(2, 0, 1, b"\0\0\0\0\1") * 50_000,
    "unknown frames": frame(77, 0, 0, b"x" * 10) * 50_000,
    "header bomb": frame(1, 0x25, 1, b"\0\0\0\0\x10" + b"\x40\1a\x7f\x81\x1e" + b"x" * 4000 + b"\xbe" * 10_000),
    "streams": b"".join(frame(1, 4, at, HEADERS) for at in range(1, 40_000, 2)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_is_cut_off_or_borne_and_leaves_nothing(endpoint, tidy, flood):
    def attack() -> None:
        client = connect(endpoint)
        client.settimeout(0.2)
        data = memoryview(PREFACE + frame(4, 0, 0) + FLOODS[flood])
        with contextlib.suppress(ConnectionError):
            while data:
                try:
                    data = data[client.send(data[: 1 << 16]) :]
                except TimeoutError:
                    serves(endpoint)
        serves(endpoint)
        client.close()

    steady(endpoint, attack, times=2)


def test_after_a_flood_its_peer_is_told_to_calm_down(endpoint, tidy):
    client = connect(endpoint, tidy)
    with contextlib.suppress(ConnectionError):
        client.sendall(PREFACE + frame(4, 0, 0) + frame(6, 0, 0, b"12345678") * 3000)
    data = read_to_end(client)
    assert b"\x07\0\0\0\0\0" in data, "GOAWAY"
    assert (11).to_bytes(4, "big") in data[-16:], "ENHANCE_YOUR_CALM"


def test_broken_tls_costs_its_connection_alone(endpoint, tidy):
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    shaking = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    good = hello.read()

    def attack() -> None:
        for data in (
            b"\x16" + b"\xff" * 100, good[:50], good[:5] + b"\0" * (len(good) - 5), good + b"\x17\x03\x03\x00\x05hello",
            good + b"\x15\x03\x03\x00\x02\x02\x28", good[:-1] + b"\xff" + good, b"\x16\x03\x01\x00\x00" * 1000,
        ):  # fmt: skip
            client = connect(endpoint)
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            read_to_end(client)
            client.close()

    steady(endpoint, attack, times=20)


def test_garbage_within_tls_is_refused_within_tls(endpoint, tidy):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(connect(endpoint)) as client:
        client.sendall(b"\0\1\2" * 100)
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


# ---------------------------------------------------------------------------------------------------- browsers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example:4566",
        "",
        "localhost evil",
        "[::2]",
    ],
)
@pytest.mark.parametrize("what", ["call", "page", "reset"])
def test_a_name_that_was_bound_anew_to_this_machine_is_refused(endpoint, tidy, host, what):
    client = connect(endpoint, tidy)
    if what == "call":
        client.sendall(request("ListStreams", b"{}").replace(b"Host: localhost", b"Host: " + host.encode()))
    else:
        line = b"GET /_kflow/" if what == "page" else b"POST /_kflow/reset"
        client.sendall(line + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    status, _, body = read(client)
    assert status in {400, 403}
    assert b"orders" not in body


def test_the_name_in_a_target_counts_as_the_host(endpoint, tidy):
    client = connect(endpoint, tidy)
    client.sendall(request("ListStreams", b"{}").replace(b"POST / ", b"POST http://evil.example/ "))
    status, _, body = read(client)
    assert (status, b"orders" in body) == (403, False)


def test_http_2_has_its_name_in_authority(endpoint, tidy):
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import ResponseReceived

    for authority, wanted in (("localhost", b"200"), ("evil.example", b"403")):
        client = connect(endpoint, tidy)
        peer = H2Connection(H2Configuration(client_side=True))
        peer.initiate_connection()
        fields = {":method": "POST", ":scheme": "http", ":path": "/", ":authority": authority}
        fields |= {"content-type": "application/x-amz-json-1.1", "x-amz-target": TARGET + "ListStreams"}
        peer.send_headers(1, list(fields.items()))
        peer.send_data(1, b"{}", end_stream=True)
        client.sendall(peer.data_to_send())

        def status(client: socket.socket = client, peer: H2Connection = peer) -> bytes | None:
            for event in peer.receive_data(client.recv(1 << 16)):
                if isinstance(event, ResponseReceived):
                    return {bytes(_raw(name)): bytes(_raw(value)) for name, value in event.headers}[b":status"]
            return None

        assert eventually(status) == wanted


def _raw(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://evil.example#localhost",
        "file://",
        "localhost",
    ],
)
def test_a_page_of_another_site_changes_nothing(endpoint, tidy, origin):
    data = base64.b64encode(b"x").decode()
    body = json.dumps({"StreamName": "orders", "Data": data, "PartitionKey": "k"}).encode()
    for sent in (
        request("PutRecord", body, Origin=origin),
        request("PutRecord", body, Origin=origin, **{"Content-Type": "text/plain"}),
        b"POST /_kflow/reset HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\nContent-Length: 0\r\n\r\n" % origin.encode(),
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        % origin.encode(),
    ):
        client = connect(endpoint, tidy)
        client.sendall(sent)
        status, head, _ = read(client)
        assert status == 403
        assert b"access-control-allow-origin" not in head.lower()
    client = connect(endpoint, tidy)
    client.sendall(b"GET /_kflow/ HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\n\r\n" % origin.encode())
    assert b"access-control-allow-origin" not in read(client)[1].lower(), "it may ask, and not read the answer"


def test_a_page_of_this_machine_is_asked_and_served_as_by_aws(endpoint, tidy):
    client = connect(endpoint, tidy)
    client.sendall(
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://127.0.0.1:3000\r\n"
        b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-amz-target,content-type\r\n\r\n"
    )
    status, head, body = read(client)
    assert (status, body) == (200, b"")
    lines = {line.lower() for line in head.split(b"\r\n")}
    assert {
        b"access-control-allow-origin: *",
        b"access-control-max-age: 172800",
        b"access-control-allow-headers: x-amz-target,content-type",
        b"access-control-allow-methods: post",
        b"content-length: 0",
    } <= lines
    assert not any(line.startswith((b"x-amz-id-2", b"content-type")) for line in lines)
    client.sendall(request("ListStreams", b"{}", Origin="https://localhost"))
    status, head, _ = read(client)
    assert status == 200
    assert b"access-control-allow-origin: *" in head.lower()
    assert b"access-control-expose-headers: x-amzn-requestid," in head.lower()


def test_headers_cannot_be_split_by_what_is_echoed(endpoint, tidy):
    client = connect(endpoint, tidy)
    client.sendall(
        b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        b"Access-Control-Request-Headers: a\rSet-Cookie: b\r\n\r\n"
    )
    status, head, _ = read(client)
    assert status == 400 or b"\rSet-Cookie" not in head
