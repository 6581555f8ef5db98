"""Whatever bytes arrive, however they are split: requests are read the same, and garbage harms only its sender."""

from __future__ import annotations

import itertools
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from hypothesis import given
from hypothesis import strategies as st

from kflow.web.connection import Connection
from kflow.web.frames import FRAME_BYTES, PREFACE, Prefix
from kflow.web.heads import HeadReader, Refused, RequestHead
from kflow.web.http1 import Http1
from kflow.web.http2 import Http2
from kflow.web.options import HIGH_BYTES, WebOptions
from tests.webbing import Desk, MemorySocket, MemoryWire, answers, echo

bodies = st.binary(max_size=200)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request as bytes, and the body that its handler is to see."""
    body = draw(bodies)
    extra = draw(st.sampled_from([b"", b"X-Y: z\r\n", b"Expect: 100-continue\r\n", b"Accept: a\r\naccept: b\r\n"]))
    before = draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
    if draw(st.booleans()):
        head = b"%bPOST /p HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n" % (before, extra, len(body))
        return head + body, body
    head = b"%bPOST /p HTTP/1.1\r\nhost: h\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (before, extra)
    encoded = b""
    left = body
    while left:
        count = draw(st.integers(1, len(left)))
        encoded += b"%x%b\r\n%b\r\n" % (count, draw(st.sampled_from([b"", b";a=b", b" "])), left[:count])
        left = left[count:]
    return head + encoded + b"0\r\n" + draw(st.sampled_from([b"", b"Trailer: t\r\n"])) + b"\r\n", body


requests_lines = st.one_of(
    st.sampled_from(
        (
            b"POST / HTTP/1.1|GET /a?b=%20#c HTTP/1.1|PUT * HTTP/1.1|GET  / HTTP/1.1|GET / HTTP/1.0|GET / HTTP/1.1 |"
            b"get / HTTP/1.1|GET http://h/ HTTP/1.1|CONNECT h:1 HTTP/1.1||GET /"
        ).split(b"|")
    ),
    st.builds(
        b"%b %b %b".__mod__,
        st.tuples(
            st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PRI", b"CONNECT"]),
            st.text(st.characters(codec="latin-1"), min_size=1, max_size=8).map(
                lambda text: b"/" + text.encode("latin-1")
            ),
            st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]),
        ),
    ),
)
fields = st.one_of(
    st.sampled_from(
        (
            b"Host: h|host:h|Host: h2|Content-Length: 3|content-length: 03|Content-Length: +3|Content-Length: 3,3|"
            b"Content-Length: 3 |Content-Length : 3|Content-Length: 99999999999999999999|Transfer-Encoding: chunked|"
            b"Connection: keep-alive|Connection: Keep-Alive|connection: close|Connection: upgrade|Upgrade: h2c|"
            b"Expect: 100-continue|Proxy-Connection: close| folded: x|a: b\nContent-Length: 9|a: b\rc|a:|a: |: a|a|"
            b"a\x00: b|a: b\x00|a:  b"
        ).split(b"|")
    ),
    st.builds(
        b"%b:%b%b".__mod__, st.tuples(st.binary(max_size=4), st.sampled_from([b"", b" ", b"\t"]), st.binary(max_size=6))
    ),
    st.builds(
        b"%b:%b%b".__mod__,
        st.tuples(
            st.from_regex(rb"[A-Za-z0-9-]{1,6}", fullmatch=True),
            st.sampled_from([b"", b" ", b"  "]),
            st.from_regex(rb"[ -~]{1,9}", fullmatch=True),
        ),
    ),
)


@given(st.lists(st.tuples(requests_lines, st.lists(fields, max_size=5), st.booleans()), min_size=1, max_size=3))
def test_what_is_read_without_the_parser_is_read_as_the_parser_reads_it(heads):
    reader = HeadReader(4)
    for line, lines, has_host in heads:
        head = b"".join(each + b"\r\n" for each in (line, *([b"Host: h"] if has_host else []), *lines)) + b"\r\n"
        plain = reader.plain(head)
        if plain is not None:
            assert plain == parsed(head)
            assert reader.plain(head) == plain  # now that its lines are known
            assert reader.read(head) == plain


def parsed(head: bytes) -> RequestHead | Refused:
    try:
        return HeadReader(4).exact(head)
    except Refused as error:
        return error


def test_a_head_as_sdks_send_it_needs_no_parser():
    head = b"POST / HTTP/1.1\r\nHost: localhost:4566\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\n"
    headers = {"host": "localhost:4566", "connection": "keep-alive", "content-length": "12"}
    assert HeadReader(4).plain(head) == RequestHead("POST", "/", headers, "1.1", True, 12, False)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


cuts = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.lists(requests(), min_size=1, max_size=5), cuts)
def test_requests_are_read_the_same_however_they_are_split(made, cuts):
    desk = Desk(answer=echo)
    wire = MemoryWire()
    speaker = wire.speaker = Http1(wire, desk.hub)
    for piece in pieces_of(b"".join(data for data, _ in made), cuts):
        speaker.receive(piece)
        desk.loop.round()
    desk.loop.settle()
    assert [exchange.body for exchange in desk.exchanges] == [body for _, body in made]
    assert answers(wire.take()) == [(200, b"POST /p " + body) for _, body in made]
    assert not wire.is_finished
    assert (desk.hub.held, speaker._rest, speaker.is_idle) == (0, None, True)


near_misses = st.builds(
    lambda data, at, byte: data[: at % len(data)] + byte + data[at % len(data) + 1 :],
    requests().map(lambda made: made[0]),
    st.integers(0, 10_000),
    st.binary(max_size=3),
)
garbage = st.one_of(
    st.binary(max_size=300),
    near_misses,
    st.lists(
        st.sampled_from([b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\n", b":", b"Host: h", b"0", b"\0", b"\xff", PREFACE])
    ).map(b"".join),
)


@given(st.lists(garbage, max_size=4), cuts, st.booleans())
def test_garbage_is_refused_or_waited_for_and_leaves_nothing_behind(made, cuts, ends):
    desk = Desk(WebOptions(header_bytes=500, body_bytes=1000), answer=echo)
    peer = MemorySocket()
    closed: list[Connection] = []
    connection = Connection(desk.hub, peer, bytearray(HIGH_BYTES), None, closed.append)  # type: ignore[arg-type]
    for piece in pieces_of(b"".join(made), cuts):
        if not connection.is_open:
            break
        peer.incoming.append(piece)
        desk.loop.watched[77][1](1)
        desk.loop.settle()
    sent = bytes(peer.sent)
    if sent.startswith(b"HTTP/1.1"):
        assert {status for status, _ in answers(sent)} <= {200, 400, 408, 413, 417, 431, 501, 503, 505}
    if ends and connection.is_open and 77 in desk.loop.watched:
        peer.incoming.append(b"")
        desk.loop.watched[77][1](1)
        desk.loop.settle()
    for _ in range(4):
        desk.loop.now += 1000
        desk.hub.now = desk.loop.now
        if connection.is_open:
            connection.sweep(desk.hub.now)
        desk.loop.settle()
    assert closed == [connection]
    assert (desk.hub.held, desk.loop.watched) == (0, {})


def client() -> H2Connection:
    made = H2Connection(
        H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    made.initiate_connection()
    return made


@given(st.lists(bodies, min_size=1, max_size=6), cuts, st.integers(0, 100))
def test_frames_are_read_the_same_however_they_are_split(made, cuts, padding):
    desk = Desk(answer=lambda exchange: exchange.respond(200, (), exchange.body * 300))
    wire = MemoryWire()
    speaker = wire.speaker = Http2(wire, desk.hub)
    peer = client()
    peer.increment_flow_control_window(10_000_000)
    for number, body in enumerate(made):
        stream_id = 2 * number + 1
        peer.send_headers(stream_id, [(":method", "POST"), (":scheme", "http"), (":path", "/")], end_stream=not body)
        if body:
            peer.send_data(stream_id, body, end_stream=True, pad_length=padding or None)
        peer.increment_flow_control_window(1_000_000, stream_id=stream_id)
    for piece in pieces_of(peer.data_to_send(), cuts):
        speaker.receive(piece)
        desk.loop.round()
    desk.loop.settle()
    events: list[Any] = peer.receive_data(wire.take())
    for number, body in enumerate(made):
        received = [
            event.data for event in events if isinstance(event, DataReceived) and event.stream_id == 2 * number + 1
        ]
        assert b"".join(received) == body * 300
    assert sum(isinstance(event, StreamEnded) for event in events) == len(made)
    assert (desk.hub.held, speaker.is_idle) == (0, True)


frames = st.builds(
    lambda kind, flags, stream_id, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload
    ),
    st.integers(0, 12),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1]),
    st.one_of(
        st.binary(max_size=40), st.sampled_from([b"\x82\x86\x84", b"\x82\x86\x84\x41\x01h", b"\0\0\0\1", b"12345678"])
    ),
)


likely = st.builds(
    lambda kind, ends, stream_id, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, 4 | ends]) + stream_id.to_bytes(4, "big") + payload
    ),
    st.sampled_from([0, 0, 1, 3, 8, 9]),
    st.integers(0, 1),
    st.sampled_from([1, 3, 5, 7]),
    st.sampled_from([b"\x83\x86\x84", b"\x82\x86\x84\x00\x01A\x01b", b"\0\0\0\1", b"x" * 9, b"x" * 30, b"x" * 100]),
)
narrow = WebOptions(body_bytes=20, held_bytes=60, streams=3, header_count=2)


@given(
    st.lists(st.one_of(frames, likely, likely, st.binary(max_size=30)), max_size=20),
    cuts,
    st.sampled_from([WebOptions(), narrow]),
    st.booleans(),
)
def test_any_frames_at_all_are_survived(made, cuts, options, answers_at_once):
    desk = Desk(options, answer=echo if answers_at_once else None)
    wire = MemoryWire()
    speaker = wire.speaker = Http2(wire, desk.hub)
    opening = client()
    opening.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/")])
    for piece in pieces_of(opening.data_to_send() + b"".join(made), cuts):
        if not wire.is_finished and not wire.is_aborted:
            speaker.receive(piece)
            desk.loop.settle()
    for exchange in desk.exchanges[::2] if not answers_at_once else ():
        exchange.respond(200, (), exchange.body)
    desk.sweep(speaker, 1000)
    desk.sweep(speaker, 1000)
    desk.loop.settle()
    speaker.lost()
    assert desk.hub.held == 0
    assert not speaker._streams


@given(st.binary(max_size=400))
def test_frames_are_counted_as_they_lie(data):
    prefix = Prefix(data)
    assert 0 <= prefix.size <= len(data)
    assert prefix.idle <= prefix.count
    at = 0
    for _ in range(prefix.count):
        length = int.from_bytes(data[at : at + 3], "big")
        assert length <= FRAME_BYTES
        at += 9 + length
    assert at == prefix.size
