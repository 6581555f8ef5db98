"""HTTP/1.1 over a wire in memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kflow.errors import InternalError
from kflow.web.http1 import Http1
from kflow.web.options import HIGH_BYTES, UNREAD_BYTES, WebOptions
from tests.webbing import DATE, Desk, MemoryWire, answers, echo

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


class Peer(Desk):
    """One client of a desk."""

    def __init__(self, options: WebOptions | None = None, answer: Any = None) -> None:
        super().__init__(options, answer)
        self.wire = MemoryWire()
        self.speaker = self.wire.speaker = Http1(self.wire, self.hub)

    def send(self, data: bytes) -> None:
        self.speaker.receive(data)

    def statuses(self) -> list[int]:
        return [status for status, _ in answers(self.wire.take())]


def test_a_request_is_handed_over_and_answered():
    peer = Peer()
    peer.send(b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-Y: z\r\nContent-Length: 5\r\n\r\nhello")
    (exchange,) = peer.exchanges
    assert (exchange.method, exchange.target, exchange.body, exchange.version) == ("POST", "/a?b", b"hello", "1.1")
    assert exchange.headers == {"host": "h", "x-y": "z", "content-length": "5"}
    assert not exchange.is_secure
    exchange.respond(201, [(b"X-A", b"b")], b"done")
    assert peer.wire.take() == b"HTTP/1.1 201 Created\r\nX-A: b\r\ncontent-length: 4\r\n" + DATE + b"\r\ndone"


def test_a_connection_is_kept_and_holds_nothing_between_requests():
    peer = Peer(answer=echo)
    for number in range(3):
        peer.send(GET % number)
    assert answers(peer.wire.take()) == [(200, b"GET /0 "), (200, b"GET /1 "), (200, b"GET /2 ")]
    assert (peer.speaker._rest, peer.speaker._head, peer.speaker._pieces, peer.speaker.exchange) == (None,) * 4


def test_requests_sent_together_are_served_one_in_a_round_and_in_order():
    peer = Peer(answer=echo)
    peer.send(GET % 1 + GET % 2 + b"POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy" + GET % 4)
    served = [len(peer.exchanges)]
    while peer.loop.round():
        served.append(len(peer.exchanges))
    assert served[:4] == [1, 2, 3, 4]
    assert answers(peer.wire.take()) == [(200, b"GET /1 "), (200, b"GET /2 "), (200, b"POST /3 xy"), (200, b"GET /4 ")]


def test_the_next_request_waits_for_an_answer_that_comes_later():
    peer = Peer()
    peer.send(GET % 1 + GET % 2)
    peer.loop.settle()
    assert [exchange.target for exchange in peer.exchanges] == ["/1"]
    peer.exchanges[0].respond(200, (), b"one")
    peer.loop.settle()
    assert [exchange.target for exchange in peer.exchanges] == ["/1", "/2"]


def test_a_peer_that_sends_on_and_on_while_it_is_answered_is_not_read():
    peer = Peer()
    peer.send(GET % 0)
    for _ in range(UNREAD_BYTES // len(GET % 1) + 2):
        peer.send(GET % 1)
    assert peer.wire.is_paused
    peer.answer = echo
    peer.exchanges[0].respond(200, ())
    peer.loop.settle()
    assert not peer.wire.is_paused
    assert len(peer.exchanges) == UNREAD_BYTES // len(GET % 1) + 3


def test_a_peer_that_reads_no_answers_gets_no_further_ones():
    peer = Peer(answer=lambda exchange: exchange.respond(200, (), b"x" * (HIGH_BYTES + 1)))
    peer.wire.blocked = True
    peer.send(GET % 1)
    peer.send(GET % 2)
    peer.loop.settle()
    assert len(peer.exchanges) == 1
    peer.wire.unblock()
    assert len(peer.exchanges) == 2


def test_a_body_may_come_in_pieces_and_in_chunks():
    peer = Peer(answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234")
    peer.send(b"56789" + b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    peer.loop.settle()
    peer.send(b"2\r\nde\r\n0\r\n\r\n" + GET % 9)
    peer.loop.settle()
    assert answers(peer.wire.take()) == [(200, b"POST / 0123456789"), (200, b"POST / abcde"), (200, b"GET /9 ")]
    assert peer.hub.held == 0


HEAD = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("pieces", [[b"body"], [b"bo", b"dy"], [b"b", b"o", b"d", b"y" + GET % 9]])
def test_a_head_may_come_before_its_body(pieces):
    peer = Peer(answer=echo)
    peer.send(HEAD)
    assert not peer.speaker.is_idle
    for piece in pieces:
        peer.send(piece)
    if len(pieces) < 4:
        peer.send(GET % 9)
    peer.loop.settle()
    assert answers(peer.wire.take()) == [(200, b"POST /b body"), (200, b"GET /9 ")]
    assert (peer.hub.held, peer.speaker.is_idle) == (0, True)


def test_who_sends_a_head_and_no_body_is_refused_in_time_and_closed_where_it_hangs_up():
    slow, gone = Peer(WebOptions(request_s=10), answer=echo), Peer(answer=echo)
    for peer in (slow, gone):
        peer.send(HEAD)
    slow.sweep(slow.speaker, 10)
    assert not slow.wire.is_finished
    slow.sweep(slow.speaker, 1)
    assert slow.statuses() == [408]
    gone.speaker.ended()
    gone.loop.settle()
    assert gone.wire.is_finished
    assert (gone.statuses(), gone.exchanges) == ([], [])


def test_a_server_that_stops_takes_the_body_of_a_head_that_has_come():
    peer = Peer(answer=echo)
    peer.send(HEAD)
    peer.hub.is_stopping = True
    peer.speaker.stop()
    assert not peer.wire.is_finished
    peer.send(b"body")
    peer.loop.settle()
    assert b"\r\nconnection: close\r\n" in peer.wire.take()
    assert peer.wire.is_finished


def test_tiny_chunks_are_worked_through_over_several_rounds():
    peer = Peer(answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1000)
    rounds = 0
    while peer.loop.round():
        rounds += 1
    assert rounds >= 15
    peer.send(b"0\r\n\r\n" + GET % 1)
    peer.loop.settle()
    assert answers(peer.wire.take()) == [(200, b"POST / " + b"a" * 1000), (200, b"GET /1 ")]


def test_empty_lines_cost_nothing_and_mean_nothing():
    peer = Peer(answer=echo)
    peer.send(b"\r\n" * 100_000)
    assert (peer.speaker._rest, peer.speaker.is_idle) == (None, True)
    peer.send(b"\r\n\r\n" + GET % 1)
    assert answers(peer.wire.take()) == [(200, b"GET /1 ")]


def test_a_peer_that_waits_to_send_its_body_is_told_to():
    peer = Peer(answer=echo)
    peer.send(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert peer.wire.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send(b"abc")
    assert answers(peer.wire.take()) == [(200, b"PUT / abc")]


def test_a_peer_that_did_not_wait_is_not_told_to_go_on():
    peer = Peer(answer=echo)
    peer.send(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
    assert peer.wire.take().startswith(b"HTTP/1.1 200 OK\r\n")


def test_head_is_answered_with_the_length_and_no_body():
    peer = Peer(answer=echo)
    peer.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert peer.wire.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n" + DATE + b"\r\n"


def test_an_answer_without_content_has_no_length():
    peer = Peer(answer=lambda exchange: exchange.respond(204, (), b"ignored"))
    peer.send(GET % 1)
    assert peer.wire.take() == b"HTTP/1.1 204 No Content\r\n" + DATE + b"\r\n"


def test_http_1_0_is_closed_after_the_answer_unless_it_asks_otherwise():
    peer = Peer(answer=echo)
    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"\r\nconnection: keep-alive\r\n" in peer.wire.take()
    assert not peer.wire.is_finished
    peer.send(b"GET / HTTP/1.0\r\n\r\n")
    assert b"\r\nconnection: close\r\n" in peer.wire.take()
    assert peer.wire.is_finished


def test_connection_close_is_honoured():
    peer = Peer(answer=echo)
    peer.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET % 2)
    peer.loop.settle()
    assert len(peer.exchanges) == 1
    assert b"\r\nconnection: close\r\n" in peer.wire.take()
    assert peer.wire.is_finished


def test_an_answer_may_come_piece_by_piece():
    peer = Peer()
    peer.send(GET % 1 + GET % 2)
    stream = peer.exchanges[0].stream(200, [(b"X", b"y")])
    assert peer.wire.take() == b"HTTP/1.1 200 OK\r\nX: y\r\ntransfer-encoding: chunked\r\n" + DATE + b"\r\n"
    stream.write(b"hello")
    stream.write(b"")
    stream.write(b"x" * 26)
    assert peer.wire.take() == b"5\r\nhello\r\n1a\r\n" + b"x" * 26 + b"\r\n"
    assert peer.speaker.is_open_ended
    peer.loop.settle()
    assert len(peer.exchanges) == 1
    stream.end()
    stream.end()
    stream.write(b"late")
    assert peer.wire.take() == b"0\r\n\r\n"
    peer.loop.settle()
    assert len(peer.exchanges) == 2


def test_an_answer_piece_by_piece_ends_with_the_connection_for_http_1_0():
    peer = Peer()
    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    stream = peer.exchanges[0].stream(200, ())
    stream.write(b"a")
    stream.write(b"b")
    stream.end()
    assert peer.wire.take() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + DATE + b"\r\nab"
    assert peer.wire.is_finished


def test_a_stream_for_head_has_a_head_only():
    peer = Peer()
    peer.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    stream = peer.exchanges[0].stream(200, ())
    stream.write(b"dropped")
    stream.end()
    assert peer.wire.take().endswith(DATE + b"\r\n")
    assert not peer.wire.is_finished


def test_an_answer_piece_by_piece_may_say_its_length():
    peer = Peer()
    peer.send(GET % 1 + GET % 2)
    stream = peer.exchanges[0].stream(200, (), 10)
    stream.write(b"hello")
    stream.write(b"world")
    stream.end()
    assert peer.wire.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n" + DATE + b"\r\nhelloworld"
    peer.loop.settle()
    assert len(peer.exchanges) == 2


def test_an_answer_of_known_length_keeps_the_connection_for_http_1_0():
    peer = Peer()
    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    stream = peer.exchanges[0].stream(200, (), 1)
    stream.write(b"a")
    stream.end()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n"
    assert peer.wire.take() == head + DATE + b"\r\na"
    assert not peer.wire.is_finished


def test_a_stream_for_head_may_say_the_length_that_there_would_be():
    peer = Peer()
    peer.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    peer.exchanges[0].stream(200, (), 7).end()
    assert peer.wire.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n" + DATE + b"\r\n"
    assert not peer.wire.is_finished


def test_a_stream_without_a_body_says_no_length():
    peer = Peer()
    peer.send(GET % 1)
    peer.exchanges[0].stream(304, (), 7).end()
    assert b"content-length" not in peer.wire.take()


@pytest.mark.parametrize("length", [None, 10])
def test_a_stream_that_is_broken_off_ends_the_connection(length):
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, (), length)
    closed: list[str] = []
    stream.on_close = lambda: closed.append("stream")
    stream.write(b"half")
    stream.abort()
    stream.abort()
    assert peer.wire.is_aborted
    assert not peer.wire.take().endswith(b"0\r\n\r\n")
    assert (closed, stream.is_closed) == (["stream"], True)


def test_a_stream_says_what_is_buffered_and_when_it_has_drained():
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    drains: list[int] = []
    stream.on_drain = lambda: drains.append(stream.buffered)
    peer.wire.blocked = True
    stream.write(b"x" * 1000)
    assert stream.buffered == 1000 + len(b"3e8\r\n\r\n")
    peer.wire.unblock()
    assert drains == [0]


def test_a_peer_that_goes_away_ends_a_stream_once():
    peer = Peer()
    peer.send(GET % 1)
    stream = peer.exchanges[0].stream(200, ())
    closed: list[str] = []
    stream.on_close = lambda: closed.append("stream")
    peer.exchanges[0].on_close = lambda: closed.append("exchange")
    peer.speaker.lost()
    peer.speaker.lost()
    assert closed == ["stream"]
    assert (stream.is_closed, stream.buffered, peer.exchanges[0].is_closed) == (True, 0, True)
    stream.write(b"nobody reads this")
    stream.end()


def test_a_peer_that_goes_away_before_its_answer_is_reported_and_answering_does_nothing():
    peer = Peer()
    peer.send(GET % 1)
    peer.wire.take()
    closed: list[bool] = []
    exchange = peer.exchanges[0]
    exchange.on_close = lambda: closed.append(exchange.is_closed)
    peer.speaker.lost()
    exchange.respond(200, (), b"x")
    assert (closed, peer.wire.take()) == ([True], b"")


def test_a_stream_that_is_asked_for_too_late_is_closed():
    peer = Peer()
    peer.send(GET % 1)
    peer.speaker.lost()
    stream = peer.exchanges[0].stream(200, ())
    stream.write(b"x")
    stream.end()
    assert (stream.is_closed, peer.wire.take()) == (True, b"")


def test_a_half_closed_peer_gets_all_its_answers_and_is_then_closed():
    peer = Peer()
    peer.send(GET % 1 + GET % 2)
    peer.speaker.ended()
    peer.exchanges[0].respond(200, (), b"one")
    peer.loop.settle()
    assert not peer.wire.is_finished
    peer.exchanges[1].respond(200, (), b"two")
    assert answers(peer.wire.take()) == [(200, b"one"), (200, b"two")]
    assert peer.wire.is_finished


def test_a_half_closed_peer_that_nobody_waits_for_is_closed():
    peer = Peer(answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
    peer.speaker.ended()
    peer.loop.settle()
    assert peer.wire.is_finished
    assert peer.exchanges == []


def test_a_half_closed_peer_is_gone_for_a_handler_that_wants_to_know():
    peer = Peer()
    peer.send(GET % 1)
    closed: list[int] = []
    peer.exchanges[0].on_close = lambda: closed.append(1)
    peer.speaker.ended()
    assert (peer.wire.is_aborted, closed) == (True, [1])


def test_a_body_above_the_limit_is_refused_without_a_body():
    peer = Peer(WebOptions(body_bytes=10), answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789")
    assert peer.statuses() == [200]
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    assert peer.wire.take() == (
        b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close\r\n" + DATE + b"\r\n"
    )
    assert peer.wire.is_finished


def test_some_targets_take_larger_bodies():
    peer = Peer(WebOptions(body_bytes=10, large_bytes=20, large_targets=("/large",)), answer=echo)
    peer.send(b"POST /large/f HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)
    chunked = b"POST /large/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer.send(chunked + b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n")
    peer.send(chunked + b"15\r\n")
    assert peer.statuses() == [200, 200, 413]


def test_a_larger_body_than_such_a_target_takes_is_refused_in_its_words():
    options = WebOptions(
        body_bytes=10,
        large_bytes=20,
        large_targets=("/large",),
        large_refusal=lambda method, target: (((b"x-why", b"size"),), f"{method} {target}".encode()),
    )
    peer = Peer(options, answer=echo)
    peer.send(b"POST /large/f HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n")
    assert peer.wire.take() == (
        b"HTTP/1.1 413 Request Entity Too Large\r\nx-why: size\r\ncontent-length: 13\r\nconnection: close\r\n"
        + DATE
        + b"\r\nPOST /large/f"
    )


def test_a_body_in_chunks_above_the_limit_is_refused():
    peer = Peer(WebOptions(body_bytes=10), answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n3\r\n")
    assert peer.statuses() == [413]
    assert (peer.wire.is_finished, peer.hub.held) == (True, 0)


def test_a_head_above_the_limit_is_refused_before_its_end():
    peer = Peer(WebOptions(header_bytes=1000), answer=echo)
    for _ in range(11):
        peer.send(b"GET / HTTP/1.1\r\n" if not peer.speaker._rest else b"X: " + b"y" * 100 + b"\r\n")
    assert peer.statuses() == [431]


def test_a_head_above_the_limit_is_refused_at_its_end():
    peer = Peer(WebOptions(header_bytes=1000), answer=echo)
    peer.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 1000 + b"\r\n\r\n")
    assert peer.statuses() == [431]


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b"\x16\x03\x01\x02", b"\0", b"{}", b"GET / HTTP/1.1\nHost: h\n\n", b"\xff" * 30]
)
def test_garbage_is_refused_at_once(data):
    peer = Peer(answer=echo)
    peer.send(data)
    assert peer.statuses() == [400]
    assert peer.wire.is_finished


def test_all_requests_together_may_hold_so_much_and_no_more():
    peer = Peer(WebOptions(held_bytes=100), answer=echo)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200\r\n\r\n"
    peer.send(head + b"x" * 60)
    assert peer.hub.held == 60
    other = MemoryWire()
    Http1(other, peer.hub).receive(head + b"x" * 60)
    assert [status for status, _ in answers(other.take())] == [503]
    assert peer.hub.held == 60
    peer.speaker.lost()
    assert peer.hub.held == 0


def test_a_request_that_comes_too_slowly_is_refused():
    peer = Peer(WebOptions(request_s=10), answer=echo)
    peer.send(b"GET / HT")
    peer.sweep(peer.speaker, 9)
    peer.send(b"TP/1.1\r\n")
    assert not peer.wire.is_finished
    peer.sweep(peer.speaker, 2)
    assert peer.statuses() == [408]
    assert peer.wire.is_finished


def test_a_body_that_comes_too_slowly_is_refused():
    peer = Peer(WebOptions(request_s=10), answer=echo)
    peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx")
    for _ in range(4):
        peer.sweep(peer.speaker, 3)
        if not peer.wire.is_finished:
            peer.send(b"x")
    assert peer.statuses() == [408]
    assert peer.hub.held == 0


def test_a_connection_that_rests_too_long_is_closed():
    peer = Peer(WebOptions(idle_s=75), answer=echo)
    peer.send(GET % 1)
    peer.sweep(peer.speaker, 75)
    assert not peer.wire.is_finished
    peer.sweep(peer.speaker, 1)
    assert peer.wire.is_finished


def test_a_handler_may_take_its_time():
    peer = Peer()
    peer.send(GET % 1)
    peer.sweep(peer.speaker, 3600)
    assert not peer.wire.is_finished
    peer.exchanges[0].respond(200, ())
    peer.sweep(peer.speaker, 70)
    assert not peer.wire.is_finished


def test_stopping_closes_what_rests_and_marks_the_last_answers():
    resting, busy, sending = Peer(answer=echo), Peer(), Peer(answer=echo)
    busy.send(GET % 1 + GET % 2)
    sending.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
    for peer in (resting, busy, sending):
        peer.hub.is_stopping = True
        peer.speaker.stop()
    assert [peer.wire.is_finished for peer in (resting, busy, sending)] == [True, False, False]
    busy.exchanges[0].respond(200, ())
    sending.send(b"b")
    for peer in (busy, sending):
        assert b"\r\nconnection: close\r\n" in peer.wire.take()
        assert peer.wire.is_finished
        peer.loop.settle()
    assert len(busy.exchanges) == 1


def test_a_handler_that_breaks_is_logged_and_answered_500(caplog):
    def broken(exchange: Any) -> None:
        raise ZeroDivisionError

    peer = Peer(answer=broken)
    with caplog.at_level(logging.ERROR):
        peer.send(GET % 1)
        peer.send(GET % 2)
    assert peer.statuses() == [500, 500]
    assert "a handler failed method=GET target=/1" in caplog.text


def test_a_handler_that_breaks_within_a_stream_does_not_make_it_look_complete(caplog):
    def broken(exchange: Any) -> None:
        exchange.stream(200, ()).write(b"half")
        raise ZeroDivisionError

    peer = Peer(answer=broken)
    peer.send(GET % 1)
    assert peer.wire.is_aborted
    assert "a handler failed" in caplog.text


def test_a_second_answer_is_a_mistake_and_is_not_sent():
    peer = Peer(answer=echo)
    peer.send(GET % 1)
    peer.wire.take()
    with pytest.raises(InternalError, match="answered twice"):
        peer.exchanges[0].respond(200, ())
    with pytest.raises(InternalError, match="answered twice"):
        peer.exchanges[0].stream(200, ())
    assert peer.wire.take() == b""


def test_callbacks_that_break_are_logged(caplog):
    def broken() -> None:
        raise ZeroDivisionError

    peer = Peer()
    peer.send(GET % 1)
    peer.exchanges[0].on_close = broken
    peer.speaker.lost()
    assert "a callback of a handler failed" in caplog.text


def test_a_long_body_is_not_copied_behind_its_head():
    body = b"x" * 100_000
    sent: list[tuple[bytes, bytes]] = []

    class Wire(MemoryWire):
        def send(self, data: bytes, more: bytes = b"") -> None:
            sent.append((data, more))

    desk = Desk(answer=lambda exchange: exchange.respond(200, (), body))
    Http1(Wire(), desk.hub).receive(GET % 1)
    assert sent[0][1] is body
