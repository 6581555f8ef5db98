"""One socket, played by an object: what is received, what is sent, how it is closed."""

from __future__ import annotations

import errno
import logging
from typing import Any

from kflow.web.connection import Connection
from kflow.web.exchange import LOW_BYTES
from kflow.web.frames import PREFACE
from kflow.web.options import HIGH_BYTES, WebOptions, connection_limit
from tests.webbing import Desk, MemorySocket, answers, echo

READ = 1
WRITE = 2
GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


class Peer(Desk):
    """A connection of a desk, and the other end of its socket."""

    def __init__(self, options: WebOptions | None = None, answer: Any = None) -> None:
        super().__init__(options, answer)
        self.socket = MemorySocket()
        self.closed: list[Connection] = []
        self.connection = Connection(
            self.hub,
            self.socket,  # type: ignore[arg-type]
            bytearray(HIGH_BYTES),
            None,
            self.closed.append,
        )

    @property
    def mask(self) -> int:
        return self.loop.watched[77][0] if 77 in self.loop.watched else 0

    def ready(self, mask: int) -> None:
        assert mask & self.mask, "the loop would not call for this"
        self.loop.watched[77][1](mask)

    def send(self, *pieces: bytes | OSError) -> None:
        self.socket.incoming += pieces
        self.ready(READ)

    def later(self, seconds: float) -> None:
        self.loop.now += seconds
        self.hub.now = self.loop.now
        if self.connection.is_open:
            self.connection.sweep(self.hub.now)


def test_a_request_costs_one_receive_and_one_send():
    peer = Peer(answer=echo)
    for number in range(3):
        peer.send(GET % number)
    assert peer.socket.calls == ["recv", "send"] * 3
    assert answers(bytes(peer.socket.sent)) == [(200, b"GET /0 "), (200, b"GET /1 "), (200, b"GET /2 ")]
    assert peer.mask == READ


def test_pieces_of_an_answer_within_one_callback_are_sent_together():
    def pieces(exchange: Any) -> None:
        stream = exchange.stream(200, ())
        for _ in range(10):
            stream.write(b"x")
        stream.end()

    peer = Peer(answer=pieces)
    peer.send(GET % 1)
    assert peer.socket.calls == ["recv", "send"]


def test_pieces_of_an_answer_that_come_later_are_sent_at_once():
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    stream.write(b"x")
    assert peer.socket.calls == ["recv", "send", "send"]


def test_http_2_is_told_by_its_preface_in_pieces():
    peer = Peer(answer=echo)
    peer.send(PREFACE[:3])
    peer.send(PREFACE[3:10])
    peer.send(PREFACE[10:] + b"\0\0\0\4\0\0\0\0\0")
    assert bytes(peer.socket.sent[3:4]) == b"\4"
    assert peer.connection.is_open


def test_a_method_that_begins_like_a_preface_is_http_1():
    peer = Peer(answer=echo)
    peer.send(b"P")
    peer.send(b"UT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert answers(bytes(peer.socket.sent)) == [(200, b"PUT / ")]


def test_tls_at_a_port_without_a_certificate_is_closed_with_a_hint(caplog):
    peer = Peer(answer=echo)
    with caplog.at_level(logging.INFO):
        peer.send(b"\x16\x03\x01\x02\x00")
    assert "see --tls" in caplog.text
    assert peer.socket.calls[-1] == "shutdown"
    peer.send(b"")
    assert peer.closed == [peer.connection]


def test_what_the_kernel_does_not_take_is_sent_when_it_does():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * 100_000))
    peer.socket.room = 1000
    peer.send(GET % 1)
    assert (peer.mask, peer.connection.buffered > LOW_BYTES) == (READ | WRITE, True)
    peer.socket.room = 50_000
    peer.ready(WRITE)
    peer.socket.room = None
    peer.ready(WRITE)
    assert (peer.mask, peer.connection.buffered) == (READ, 0)
    assert answers(bytes(peer.socket.sent)) == [(200, b"x" * 100_000)]


def test_a_long_answer_is_sent_in_bits():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * 3_000_000))
    peer.send(GET % 1)
    rounds = 1
    while peer.mask & WRITE:
        peer.ready(WRITE)
        rounds += 1
    assert rounds == 12
    assert answers(bytes(peer.socket.sent)) == [(200, b"x" * 3_000_000)]


def test_a_stream_is_told_when_it_has_drained():
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    drains: list[int] = []
    stream.on_drain = lambda: drains.append(stream.buffered)
    peer.socket.room = 0
    stream.write(b"x" * 100_000)
    peer.socket.room = 20_000
    peer.ready(WRITE)
    assert drains == []
    peer.socket.room = 30_000
    peer.ready(WRITE)
    assert drains == [stream.buffered] == [50_009]


def test_a_stream_that_filled_up_within_a_callback_is_told_too():
    drains: list[int] = []

    def fill(exchange: Any) -> None:
        stream = exchange.stream(200, ())
        stream.on_drain = lambda: drains.append(stream.buffered)
        while stream.buffered <= LOW_BYTES:
            stream.write(b"x" * 10_000)

    peer = Peer(answer=fill)
    peer.send(GET % 1)
    assert drains == [0]


def test_a_peer_that_breaks_off_is_cleaned_up():
    for end in (OSError(errno.ECONNRESET, "reset"), b""):
        peer = Peer()
        peer.send(GET % 1)
        closed: list[int] = []
        peer.exchanges[0].on_close = lambda closed=closed: closed.append(1)
        peer.send(end)
        assert closed == [1]
        assert peer.closed == [peer.connection]
        assert peer.socket.calls[-1] == "close"
        assert peer.loop.watched == {}


def test_who_writes_to_a_peer_that_is_gone_hears_of_it_in_the_next_round():
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    closed: list[int] = []
    stream.on_close = lambda: closed.append(1)
    peer.socket.broken = BrokenPipeError()
    stream.write(b"x")
    stream.write(b"y")
    assert closed == []
    peer.loop.settle()
    assert (closed, peer.closed) == ([1], [peer.connection])


def test_the_last_answer_is_not_lost_by_what_its_peer_still_sends():
    peer = Peer(WebOptions(body_bytes=10, linger_s=5), answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
    assert answers(bytes(peer.socket.sent)) == [(413, b"")]
    assert peer.socket.calls[-1] == "shutdown"
    for _ in range(4):
        peer.send(b"x" * 200_000)
    assert peer.closed == []
    peer.send(b"")
    assert peer.closed == [peer.connection]


def test_a_peer_that_does_not_close_is_not_waited_for_long():
    peer = Peer(WebOptions(linger_s=5), answer=echo)
    peer.send(b"GET / HTTP/1.0\r\n\r\n")
    peer.later(5)
    assert peer.closed == []
    peer.send(b"x")
    peer.later(1)
    assert peer.closed == [peer.connection]


def test_a_server_that_stops_waits_for_a_peers_goodbye_for_a_moment_only():
    peer = Peer(WebOptions(linger_s=5))
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    peer.hub.is_stopping = True
    peer.connection.stop()
    assert "shutdown" not in peer.socket.calls
    stream.end()
    assert peer.socket.calls[-1] == "shutdown"
    peer.send(b"x")
    peer.loop.now += 0.2
    peer.loop.round()
    assert peer.closed == []
    peer.loop.now += 0.1
    peer.loop.round()
    assert peer.closed == [peer.connection]


def test_a_server_that_stops_while_it_waits_for_a_goodbye_waits_no_longer():
    peer = Peer(WebOptions(linger_s=5), answer=echo)
    peer.send(b"GET / HTTP/1.0\r\n\r\n")
    peer.hub.is_stopping = True
    peer.connection.stop()
    assert peer.closed == []
    peer.loop.now += 0.3
    peer.loop.round()
    assert peer.closed == [peer.connection]


def test_a_peer_that_reads_nothing_is_closed():
    peer = Peer(WebOptions(write_s=100), answer=lambda exchange: exchange.respond(200, (), b"x" * 100_000))
    peer.socket.room = 10
    peer.send(GET % 1)
    peer.later(90)
    peer.socket.room = 10
    peer.ready(WRITE)
    peer.later(90)
    assert peer.closed == []
    peer.later(11)
    assert peer.closed == [peer.connection]


def test_the_reader_of_an_answer_that_goes_on_may_take_its_time():
    peer = Peer(WebOptions(write_s=100))
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    peer.socket.room = 0
    stream.write(b"x")
    peer.later(1000)
    assert peer.closed == []
    stream.end()
    peer.later(1000)
    assert peer.closed == [peer.connection]


def test_a_connection_that_says_nothing_is_closed():
    peer = Peer(WebOptions(idle_s=75, linger_s=5))
    peer.later(75)
    assert "shutdown" not in peer.socket.calls
    peer.later(1)
    assert peer.socket.calls == ["shutdown"]
    peer.later(6)
    assert peer.closed == [peer.connection]


def test_a_connection_that_sends_too_much_too_soon_is_not_watched():
    peer = Peer()
    peer.send(GET % 1)
    peer.send(GET % 2 * 5000)
    assert peer.mask == 0
    peer.exchanges[0].respond(200, ())
    peer.loop.round()
    assert peer.mask == 0
    peer.answer = echo
    peer.exchanges[1].respond(200, ())
    peer.loop.settle()
    assert peer.mask == READ
    assert len(peer.exchanges) == 5001


def test_stopping_closes_at_once_what_rests_and_later_what_works():
    resting, busy = Peer(answer=echo), Peer()
    resting.send(GET % 1)
    busy.send(GET % 1)
    for peer in (resting, busy):
        peer.hub.is_stopping = True
        peer.connection.stop()
    assert (len(resting.closed), len(busy.closed)) == (1, 0)
    busy.exchanges[0].respond(200, (), b"the last")
    assert answers(bytes(busy.socket.sent)) == [(200, b"the last")]
    assert busy.socket.calls[-1] == "shutdown"


def test_the_limit_of_connections_leaves_descriptors_to_others():
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connection_limit(WebOptions()) < soft
    assert connection_limit(WebOptions(connections=5)) == 5
