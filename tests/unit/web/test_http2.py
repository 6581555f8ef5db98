"""HTTP/2 over a wire in memory; the peer is `h2` as a client, or frames by hand."""

from __future__ import annotations

import logging
import struct
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from kflow.web.exchange import LOW_BYTES
from kflow.web.frames import FRAMES, PREFACE
from kflow.web.http2 import CREDIT, Http2
from kflow.web.options import HIGH_BYTES, UNREAD_BYTES, WebOptions
from tests.webbing import Desk, MemoryWire, echo

Fields = list[tuple[str, str]]


def fields(method: str = "POST", path: str = "/", *more: tuple[str, str]) -> Fields:
    return [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path), *more]


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Peer(Desk):
    """One client of a desk.

    Attributes:
        window: what it grants for each answer and for all of them; None: 65,535, renewed as it reads.
    """

    def __init__(self, options: WebOptions | None = None, answer: Any = None, *, reads: bool = True) -> None:
        super().__init__(options, answer)
        self.wire = MemoryWire()
        self.speaker = self.wire.speaker = Http2(self.wire, self.hub)
        self.client = H2Connection(
            H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.reads = reads
        self.events: list[Event] = []
        self.client.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Bytes go both ways until nobody has any."""
        for _ in range(10_000):
            data = self.client.data_to_send()
            if data:
                self.speaker.receive(data)
            self.loop.round()
            answer = self.wire.take()
            if answer:
                for event in self.client.receive_data(answer):
                    self.events.append(event)
                    if isinstance(event, DataReceived) and self.reads:
                        self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif not data and not any(timer.due <= self.loop.now for timer in self.loop.timers):
                return
        raise AssertionError("no end")

    def request(self, headers: Fields, body: bytes | None = None, *, ends: bool = True) -> int:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers, end_stream=ends and body is None)
        if body is not None:
            for at in range(0, max(1, len(body)), 16384):
                piece = body[at : at + 16384]
                while self.client.local_flow_control_window(stream_id) < len(piece):
                    self.flush()
                self.client.send_data(stream_id, piece, end_stream=ends and at + 16384 >= len(body))
        self.flush()
        return stream_id

    def status(self, stream_id: int) -> str | None:
        for event in self.events:
            if isinstance(event, ResponseReceived) and event.stream_id == stream_id:
                return dict(event.headers)[b":status"].decode()
        return None

    def body(self, stream_id: int) -> bytes:
        return b"".join(
            event.data for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream_id
        )

    def has_ended(self, stream_id: int) -> bool:
        return any(isinstance(event, StreamEnded) and event.stream_id == stream_id for event in self.events)

    def resets(self, stream_id: int) -> list[int]:
        return [
            int(event.error_code)
            for event in self.events
            if isinstance(event, StreamReset) and event.stream_id == stream_id
        ]

    def goodbyes(self) -> list[int]:
        return [int(event.error_code or 0) for event in self.events if isinstance(event, ConnectionTerminated)]


def test_a_request_is_handed_over_and_answered():
    peer = Peer()
    stream_id = peer.request(fields("POST", "/a?b", ("x-y", "z"), ("content-length", "5")), b"hello")
    (exchange,) = peer.exchanges
    assert (exchange.method, exchange.target, exchange.body, exchange.version) == ("POST", "/a?b", b"hello", "2")
    assert exchange.headers == {"host": "h", "x-y": "z", "content-length": "5"}
    exchange.respond(201, [(b"X-A", b"b")], b"done")
    peer.flush()
    answer = next(event for event in peer.events if isinstance(event, ResponseReceived))
    assert answer.headers == [
        (b":status", b"201"),
        (b"x-a", b"b"),
        (b"content-length", b"4"),
        (b"date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
    ]
    assert (peer.body(stream_id), peer.has_ended(stream_id)) == (b"done", True)
    assert peer.speaker.is_idle
    assert peer.hub.held == 0


def test_many_requests_are_under_way_at_once_and_answered_in_any_order():
    peer = Peer()
    streams = [peer.request(fields("GET", f"/{number}")) for number in range(20)]
    for exchange in reversed(peer.exchanges):
        exchange.respond(200, (), exchange.target.encode())
    peer.flush()
    assert [peer.body(stream_id) for stream_id in streams] == [b"/%d" % number for number in range(20)]


def test_one_request_of_a_connection_is_handed_over_in_a_round():
    peer = Peer(answer=echo)
    for number in range(5):
        peer.client.send_headers(2 * number + 1, fields("GET", f"/{number}"), end_stream=True)
    peer.speaker.receive(peer.client.data_to_send())
    served = [len(peer.exchanges)]
    while peer.loop.round():
        served.append(len(peer.exchanges))
    assert served == [1, 2, 3, 4, 5]


def test_a_long_body_is_received_as_its_window_is_renewed():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"%d" % len(exchange.body)))
    stream_id = peer.request(fields(), b"x" * 10_000_000)
    assert peer.body(stream_id) == b"10000000"
    assert peer.hub.held == 0


def test_a_long_answer_waits_for_the_window_of_its_peer():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * 200_000), reads=False)
    first = peer.request(fields())
    assert len(peer.body(first)) == 65_535
    second = peer.request(fields())
    assert peer.body(second) == b""
    peer.client.increment_flow_control_window(1_000_000)
    peer.flush()
    assert (len(peer.body(first)), len(peer.body(second))) == (65_535, 65_535)
    peer.client.increment_flow_control_window(1_000_000, stream_id=second)
    peer.flush()
    assert (len(peer.body(second)), peer.has_ended(second), peer.has_ended(first)) == (200_000, True, False)
    peer.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 500_000})
    peer.flush()
    assert (len(peer.body(first)), peer.has_ended(first)) == (200_000, True)


def test_answers_take_turns():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * 60_000), reads=False)
    for _ in range(3):
        peer.request(fields())
    assert [len(peer.body(stream_id)) for stream_id in (1, 3, 5)] == [60_000, 5_535, 0]
    peer.events.clear()
    peer.client.increment_flow_control_window(1_000_000)
    peer.flush()
    assert [event.stream_id for event in peer.events if isinstance(event, DataReceived)] == [3, 5, 3, 5, 3, 5, 3, 5]


def test_no_more_is_framed_than_the_kernel_takes():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * 5_000_000))
    peer.client.increment_flow_control_window(10_000_000)
    peer.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10_000_000})
    peer.flush()
    peer.wire.blocked = True
    stream_id = peer.request(fields())
    peer.loop.settle()
    assert HIGH_BYTES <= peer.wire.buffered <= HIGH_BYTES + 20_000
    while not peer.has_ended(stream_id):
        peer.wire.unblock()
        peer.flush()
    assert len(peer.body(stream_id)) == 5_000_000


def test_an_answer_may_come_piece_by_piece():
    peer = Peer()
    stream_id = peer.request(fields())
    stream = peer.exchanges[0].stream(200, ())
    peer.flush()
    assert (peer.status(stream_id), peer.speaker.is_open_ended) == ("200", True)
    stream.write(b"one")
    stream.write(b"")
    stream.write(b"two")
    peer.flush()
    assert (peer.body(stream_id), peer.has_ended(stream_id)) == (b"onetwo", False)
    stream.end()
    stream.end()
    stream.write(b"late")
    peer.flush()
    assert (peer.body(stream_id), peer.has_ended(stream_id)) == (b"onetwo", True)
    assert peer.speaker.is_idle


def test_an_answer_piece_by_piece_may_say_its_length():
    peer = Peer()
    stream_id = peer.request(fields())
    stream = peer.exchanges[0].stream(200, (), 6)
    stream.write(b"one")
    stream.write(b"two")
    stream.end()
    peer.flush()
    (head,) = [event for event in peer.events if isinstance(event, ResponseReceived)]
    assert (b"content-length", b"6") in [(bytes(name), bytes(value)) for name, value in head.headers]
    assert (peer.body(stream_id), peer.has_ended(stream_id)) == (b"onetwo", True)


def test_a_stream_that_is_broken_off_is_reset():
    peer = Peer()
    stream_id = peer.request(fields())
    stream = peer.exchanges[0].stream(200, (), 6)
    closed: list[str] = []
    stream.on_close = lambda: closed.append("stream")
    stream.write(b"one")
    peer.flush()
    stream.abort()
    stream.abort()
    peer.flush()
    assert (len(peer.resets(stream_id)), closed, stream.is_closed) == (1, ["stream"], True)


def test_a_stream_counts_what_the_window_holds_back_and_says_when_it_has_drained():
    peer = Peer(reads=False)
    stream_id = peer.request(fields())
    stream = peer.exchanges[0].stream(200, ())
    drains: list[int] = []
    stream.on_drain = lambda: drains.append(stream.buffered)
    stream.write(b"x" * 200_000)
    peer.flush()
    assert (stream.buffered, drains) == (200_000 - 65_535, [])
    for _ in range(2):
        peer.client.increment_flow_control_window(60_000)
        peer.client.increment_flow_control_window(60_000, stream_id=stream_id)
        peer.flush()
    assert drains == [14_465]
    assert drains[0] <= LOW_BYTES


def test_small_writes_share_frames():
    peer = Peer(reads=False)
    stream_id = peer.request(fields())
    stream = peer.exchanges[0].stream(200, ())
    stream.write(b"x" * 65_535)
    for _ in range(1000):
        stream.write(b"tiny")
    peer.flush()
    frames = sum(isinstance(event, DataReceived) for event in peer.events)
    peer.client.increment_flow_control_window(60_000)
    peer.client.increment_flow_control_window(60_000, stream_id=stream_id)
    peer.flush()
    assert sum(isinstance(event, DataReceived) for event in peer.events) == frames + 1
    assert len(peer.body(stream_id)) == 65_535 + 4000


def test_head_and_empty_answers_have_no_data():
    peer = Peer(answer=lambda exchange: exchange.respond(204 if exchange.target == "/204" else 200, (), b"body"))
    streams = [peer.request(fields("HEAD", "/")), peer.request(fields("GET", "/204"))]
    assert [peer.status(stream_id) for stream_id in streams] == ["200", "204"]
    assert all(peer.has_ended(stream_id) for stream_id in streams)
    assert not any(isinstance(event, DataReceived) and event.data for event in peer.events)
    lengths = [
        dict(event.headers).get(b"content-length") for event in peer.events if isinstance(event, ResponseReceived)
    ]
    assert lengths == [b"4", None]


def test_trailers_are_dropped():
    peer = Peer(answer=echo)
    peer.client.send_headers(1, fields())
    peer.client.send_data(1, b"abc")
    peer.client.send_headers(1, [("x-checksum", "1")], end_stream=True)
    peer.flush()
    assert peer.body(1) == b"POST / abc"
    assert "x-checksum" not in peer.exchanges[0].headers


def test_a_peer_that_waits_to_send_its_body_is_told_to():
    peer = Peer(answer=echo)
    stream_id = peer.request(fields("PUT", "/", ("expect", "100-continue"), ("content-length", "3")), ends=False)
    assert any(isinstance(event, InformationalResponseReceived) for event in peer.events)
    peer.client.send_data(stream_id, b"abc", end_stream=True)
    peer.flush()
    assert peer.body(stream_id) == b"PUT / abc"


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "GET"), (":scheme", "http"), (":authority", "h")],
        [(":method", "GET"), (":path", "/"), (":authority", "h")],
        [(":scheme", "http"), (":path", "/"), (":authority", "h")],
        [(":method", "GET"), (":scheme", "http"), (":path", "relative")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/a b")],
        [(":method", "CONNECT"), (":authority", "h"), (":scheme", "http"), (":path", "/")],
        fields("GET", "/", (":status", "200")),
        fields("GET", "/", ("a", "b"), (":path", "/")),
        fields("GET", "/", ("Upper", "b")),
        fields("GET", "/", ("a b", "c")),
        fields("GET", "/", ("a", "b\nc: d")),
        fields("GET", "/", ("connection", "close")),
        fields("GET", "/", ("transfer-encoding", "chunked")),
        fields("GET", "/", ("te", "gzip")),
        fields("GET", "/", ("host", "other")),
    ],
)
def test_a_malformed_request_costs_its_stream_only(headers):
    peer = Peer(answer=echo)
    before = peer.request(fields("POST", "/"), b"begun", ends=False)
    bad = peer.request(headers)
    peer.client.send_data(before, b"!", end_stream=True)
    peer.flush()
    assert peer.status(bad) == "400"
    assert peer.body(before) == b"POST / begun!"
    assert len(peer.exchanges) == 1
    assert set(peer.speaker._streams) == set()


def test_cookies_and_lists_are_joined_as_in_http_1():
    peer = Peer()
    peer.request(fields("GET", "/", ("cookie", "a=1"), ("cookie", "b=2"), ("accept", "x"), ("accept", "y")))
    assert peer.exchanges[0].headers == {"host": "h", "cookie": "a=1; b=2", "accept": "x, y"}


def test_a_body_above_the_limit_is_dropped_and_then_refused_without_a_body():
    peer = Peer(WebOptions(body_bytes=10), answer=echo)
    announced = peer.request(fields("POST", "/", ("content-length", "11")), ends=False)
    sent = peer.request(fields("POST", "/"), b"x" * 20, ends=False)
    assert ([peer.status(announced), peer.status(sent)], peer.hub.held) == ([None, None], 0)
    peer.client.send_data(announced, b"x" * 11, end_stream=True)
    peer.client.send_data(sent, b"x" * 15, end_stream=True)
    after = peer.request(fields("POST", "/"), b"x" * 10)
    assert [peer.status(announced), peer.status(sent)] == ["413", "413"]
    assert peer.body(announced) + peer.body(sent) == b""
    assert peer.body(after) == b"POST / " + b"x" * 10
    assert (peer.speaker.is_idle, peer.hub.held, len(peer.exchanges)) == (True, 0, 1)


def test_some_targets_take_larger_bodies():
    options = WebOptions(
        body_bytes=10,
        large_bytes=20,
        large_targets=("/large",),
        large_refusal=lambda *asked: ((), b" ".join(map(str.encode, asked))),
    )
    peer = Peer(options, answer=echo)
    taken = [
        peer.request(fields("POST", "/large"), b"x" * 20),
        peer.request(fields("POST", "/large", ("content-length", "20")), b"x" * 20),
    ]
    refused = [peer.request(fields("POST", "/large"), b"x" * 21), peer.request(fields("POST", "/l"), b"x" * 11)]
    assert [peer.status(each) for each in taken] == ["200", "200"]
    assert [peer.status(each) for each in refused] == ["413", "413"]
    assert [peer.body(each) for each in refused] == [b"POST /large", b""]


def test_a_body_that_is_far_too_long_or_waits_to_be_sent_is_refused_at_once():
    peer = Peer(WebOptions(body_bytes=10), answer=echo)
    huge = peer.request(fields("POST", "/", ("content-length", "41")), ends=False)
    waiting = peer.request(fields("POST", "/", ("content-length", "11"), ("expect", "100-continue")), ends=False)
    assert [peer.status(huge), peer.status(waiting)] == ["413", "413"]
    peer.client.send_data(huge, b"x" * 41, end_stream=True)
    peer.flush()
    assert peer.resets(huge) == []
    peer.client.reset_stream(waiting)
    peer.flush()
    assert peer.speaker.is_idle


def test_a_peer_that_sends_on_and_on_is_reset():
    peer = Peer(WebOptions(body_bytes=10), answer=echo)
    stream_id = peer.request(fields("POST", "/"), b"x" * 20, ends=False)
    peer.client.send_data(stream_id, b"x" * 21)
    peer.flush()
    assert peer.resets(stream_id) == [0]
    assert peer.speaker.is_idle


def test_too_many_headers_are_refused():
    peer = Peer(WebOptions(header_count=5), answer=echo)
    stream_id = peer.request(fields("GET", "/", *[(f"x-{number}", "y") for number in range(6)]))
    assert peer.status(stream_id) == "431"


def test_all_requests_together_may_hold_so_much_and_no_more():
    peer = Peer(WebOptions(held_bytes=100), answer=echo)
    first = peer.request(fields(), b"x" * 60, ends=False)
    second = peer.request(fields(), b"x" * 60, ends=False)
    assert (peer.status(first), peer.status(second), peer.hub.held) == (None, "503", 60)
    peer.client.reset_stream(first)
    peer.flush()
    assert peer.hub.held == 0


def test_streams_above_the_limit_are_refused_and_the_others_go_on():
    peer = Peer(WebOptions(streams=3))
    peer.client.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    peer.client.remote_settings.acknowledge()
    streams = [peer.request(fields("GET", f"/{number}")) for number in range(5)]
    assert [peer.resets(stream_id) for stream_id in streams] == [[], [], [], [7], [7]]
    for exchange in peer.exchanges:
        exchange.respond(200, (), b"ok")
    peer.flush()
    assert [peer.body(stream_id) for stream_id in streams] == [b"ok", b"ok", b"ok", b"", b""]


def test_a_reset_is_reported_to_whoever_answers():
    peer = Peer()
    waiting = peer.request(fields())
    streaming = peer.request(fields())
    closed: list[str] = []
    peer.exchanges[0].on_close = lambda: closed.append("exchange")
    stream = peer.exchanges[1].stream(200, ())
    stream.on_close = lambda: closed.append("stream")
    for stream_id in (waiting, streaming):
        peer.client.reset_stream(stream_id)
    peer.flush()
    assert closed == ["exchange", "stream"]
    peer.exchanges[0].respond(200, (), b"nobody reads this")
    stream.write(b"nor this")
    stream.end()
    peer.flush()
    peer.request(fields())
    assert len(peer.exchanges) == 3


def test_a_peer_that_goes_away_ends_all_its_streams():
    peer = Peer()
    for _ in range(3):
        peer.request(fields())
    peer.request(fields(), b"x" * 10, ends=False)
    closed: list[str] = []
    for exchange in peer.exchanges:
        exchange.on_close = lambda: closed.append("closed")
    peer.speaker.lost()
    assert (closed, peer.hub.held) == (["closed"] * 3, 0)
    assert all(exchange.is_closed for exchange in peer.exchanges)


def test_the_end_of_a_peers_bytes_is_its_end():
    peer = Peer()
    peer.request(fields())
    peer.speaker.ended()
    assert peer.wire.is_aborted
    assert peer.exchanges[0].is_closed


def test_stopping_says_goodbye_and_answers_what_is_under_way():
    peer = Peer()
    first = peer.request(fields())
    peer.speaker.stop()
    peer.speaker.stop()
    answer = peer.wire.take()
    assert answer == frame(7, struct.pack(">II", first, 0))
    late = 3
    peer.client.send_headers(late, fields(), end_stream=True)
    peer.flush()
    assert peer.resets(late) == [7]
    peer.exchanges[0].respond(200, (), b"the last")
    peer.flush()
    assert (peer.body(first), peer.wire.is_finished) == (b"the last", False)
    peer.speaker.ended()
    assert peer.wire.is_aborted


def test_stopping_closes_a_connection_that_rests():
    peer = Peer()
    peer.speaker.stop()
    assert peer.wire.is_finished
    assert peer.wire.take() == frame(7, struct.pack(">II", 0, 0))


def test_a_peer_that_says_goodbye_gets_its_answers_and_closes_when_it_has_read_them():
    peer = Peer()
    stream_id = peer.request(fields())
    peer.speaker.receive(frame(7, struct.pack(">II", 0, 0)))
    assert not peer.wire.is_finished
    peer.exchanges[0].respond(200, (), b"still")
    peer.flush()
    assert peer.body(stream_id) == b"still"
    assert not peer.wire.is_finished  # Node.js would forget what it has not read
    peer.speaker.ended()
    assert peer.wire.is_aborted


@pytest.mark.parametrize("says_goodbye", ["peer", "server"])
def test_a_peer_that_does_not_close_after_a_goodbye_is_closed(says_goodbye):
    peer = Peer(WebOptions(sweep_s=5, linger_s=5))
    peer.request(fields())
    if says_goodbye == "peer":
        peer.speaker.receive(frame(7, struct.pack(">II", 0, 0)))
    else:
        peer.speaker.stop()
    peer.exchanges[0].respond(200, (), b"the last")
    peer.wire.take()
    peer.sweep(peer.speaker, 10)
    assert not peer.wire.is_aborted
    peer.sweep(peer.speaker, 1)
    assert peer.wire.is_aborted


def test_pings_are_answered():
    peer = Peer()
    peer.client.ping(b"12345678")
    peer.flush()
    assert [event.ping_data for event in peer.events if isinstance(event, PingAckReceived)] == [b"12345678"]


@pytest.mark.parametrize(
    "useless",
    [frame(6, b"12345678"), frame(4), frame(2, b"\0\0\0\0\1", stream=5), frame(0xEE), frame(8, b"\0\0\0\1")],
    ids=["ping", "settings", "priority", "unknown", "window"],
)
def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(useless, caplog):
    peer = Peer()
    peer.request(fields())
    with caplog.at_level(logging.INFO):
        for _ in range(CREDIT // 100 + 1):
            peer.speaker.receive(useless * 100)
            peer.loop.settle()
    assert peer.wire.is_finished
    assert frame(7, struct.pack(">II", 1, 11)) in peer.wire.take()
    assert peer.exchanges[0].is_closed
    assert "frames that bring nothing" in caplog.text


def test_a_flood_of_resets_ends_the_connection():
    peer = Peer()
    for number in range(CREDIT + 2):
        if peer.wire.is_finished:
            break
        peer.client.send_headers(2 * number + 1, fields(), end_stream=True)
        peer.client.reset_stream(2 * number + 1)
        peer.speaker.receive(peer.client.data_to_send())
        peer.wire.take()
        peer.loop.settle()
    assert peer.wire.is_finished
    assert len(peer.exchanges) == 0


def test_a_few_frames_are_worked_through_in_a_round():
    peer = Peer()
    peer.speaker.receive(frame(6, b"12345678") * (FRAMES * 3))
    acks = [peer.wire.take().count(b"12345678")]
    while peer.loop.round():
        acks.append(peer.wire.take().count(b"12345678"))
    assert acks == [FRAMES, FRAMES, FRAMES]


def test_a_peer_that_sends_quicker_than_its_frames_are_worked_through_is_not_read():
    peer = Peer()
    peer.speaker.receive(frame(2, b"\0\0\0\0\1", stream=5) * 900)
    peer.speaker.receive(frame(0, b"x" * 16384, stream=1) * 5)
    assert len(peer.speaker._rest) > UNREAD_BYTES
    assert peer.wire.is_paused


def test_what_is_no_http_2_ends_the_connection(caplog):
    for garbage in (
        b"\xff" * 100,
        frame(0, b"x", stream=1),
        frame(9, b"x", stream=1),
        frame(1, b"\xff" * 40, flags=5, stream=1),
    ):
        peer = Peer()
        peer.speaker.receive(garbage)
        peer.loop.settle()
        assert peer.wire.is_finished, garbage
        assert frame(7)[3:4] in peer.wire.take()


def test_a_wrong_preface_ends_the_connection():
    wire = MemoryWire()
    desk = Desk()
    speaker = Http2(wire, desk.hub)
    speaker.receive(b"PRI * HTTP/2.0\r\n\r\n")
    assert not wire.is_finished
    speaker.receive(b"XX\r\n\r\n" + b"y" * 20)
    assert wire.is_finished


def test_a_frame_too_long_is_refused_by_its_header_alone():
    peer = Peer()
    peer.speaker.receive(struct.pack(">I", 16385)[1:] + struct.pack(">BBI", 0, 0, 1))
    assert peer.wire.is_finished
    assert peer.wire.take().endswith(frame(7, struct.pack(">II", 0, 6)))


def test_a_bomb_of_headers_ends_the_connection():
    peer = Peer(WebOptions(header_bytes=4096))
    block = peer.client.encoder.encode([*fields(), ("x", "y" * 3000)])
    repeated = bytes([0x80 | 62]) * 2  # the entry just added, again and again
    peer.speaker.receive(frame(1, block + repeated, flags=5, stream=1))
    peer.loop.settle()
    assert peer.wire.is_finished
    assert peer.exchanges == []


def test_endless_continuations_end_the_connection():
    peer = Peer()
    peer.speaker.receive(frame(1, b"\x82", flags=1, stream=1))
    for _ in range(100):
        if not peer.wire.is_finished:
            peer.speaker.receive(frame(9, b"\x82", stream=1))
            peer.loop.settle()
    assert peer.wire.is_finished


def test_a_request_that_comes_too_slowly_is_reset_and_the_others_go_on():
    peer = Peer(WebOptions(request_s=10))
    slow = peer.request(fields(), b"x", ends=False)
    waiting = peer.request(fields())
    peer.sweep(peer.speaker, 11)
    peer.flush()
    assert peer.resets(slow) == [8]
    peer.exchanges[0].respond(200, (), b"ok")
    peer.flush()
    assert peer.body(waiting) == b"ok"


def test_a_complete_answer_that_nobody_takes_is_reset_and_a_going_on_one_is_not():
    peer = Peer(WebOptions(write_s=100), reads=False)
    first, second = peer.request(fields()), peer.request(fields())
    peer.exchanges[0].respond(200, (), b"x" * 100_000)
    stream = peer.exchanges[1].stream(200, ())
    stream.write(b"x" * 100_000)
    peer.flush()
    peer.sweep(peer.speaker, 101)
    peer.flush()
    assert (peer.resets(first), peer.resets(second)) == ([8], [])


def test_a_connection_that_rests_too_long_says_goodbye():
    peer = Peer(WebOptions(idle_s=75), answer=echo)
    peer.request(fields())
    peer.sweep(peer.speaker, 75)
    assert not peer.wire.is_finished
    peer.sweep(peer.speaker, 1)
    peer.flush()
    assert (peer.goodbyes(), peer.wire.is_finished) == ([0], True)


def test_a_handler_that_breaks_costs_its_stream_only(caplog):
    def broken(exchange: Any) -> None:
        if exchange.target == "/late":
            exchange.stream(200, ()).write(b"half")
        if exchange.target != "/":
            raise ZeroDivisionError
        exchange.respond(200, ())

    peer = Peer(answer=broken)
    early, late, good = (peer.request(fields("GET", path)) for path in ("/early", "/late", "/"))
    assert [peer.status(stream_id) for stream_id in (early, late, good)] == ["500", "200", "200"]
    assert peer.resets(late) == [2]
    assert "a handler failed" in caplog.text


def test_a_preface_in_pieces_is_one():
    wire = MemoryWire()
    desk = Desk(answer=echo)
    speaker = Http2(wire, desk.hub)
    client = H2Connection()
    client.initiate_connection()
    client.send_headers(1, fields(), end_stream=True)
    for byte in client.data_to_send():
        speaker.receive(bytes([byte]))
    desk.loop.settle()
    assert len(desk.exchanges) == 1
    assert len(PREFACE) == 24
