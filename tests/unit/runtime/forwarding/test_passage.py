"""One request on its way through, with the thread's part played by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kflow.runtime.forwarding.asking import Answer, Failed
from kflow.runtime.forwarding.passage import CREDIT, Passage

PIECE = b"x" * 65_536


class Stream:
    def __init__(self) -> None:
        self.buffered = 0
        self.written: list[bytes] = []
        self.end_of: list[str] = []
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.buffered += len(data)

    def end(self) -> None:
        self.end_of.append("end")

    def abort(self) -> None:
        self.end_of.append("abort")


class Exchange:
    target = "/"
    version = "1.1"
    is_secure = False
    body = b""

    def __init__(self, method: str = "POST") -> None:
        self.method = method
        self.headers = {"x-amz-target": "DynamoDB_20120810.ListTables"}
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self.answered: list[Any] = []
        self.made = Stream()

    def respond(self, status: int, headers: Any, body: Any = b"") -> None:
        self.answered.append((status, dict(headers), body))

    def stream(self, status: int, headers: Any, length: int | None = None) -> Stream:
        self.answered.append((status, dict(headers), length))
        return self.made


class Desk:
    """A passage whose loop is stepped by hand."""

    def __init__(self, method: str = "POST", silence_s: float = 0.0) -> None:
        self.exchange = Exchange(method)
        self.posted: deque[Callable[[], object]] = deque()
        self.ends = 0
        self.passage = Passage(self.exchange, "dynamodb", "id", [(b"Extra", b"1")], self.posted.append, silence_s)
        self.passage.on_end = self._end

    def _end(self) -> None:
        self.ends += 1

    def round(self) -> None:
        while self.posted:
            self.posted.popleft()()


def answer(*pieces: bytes, status: int = 200, **headers: str) -> Answer:
    return Answer(status, [(name.replace("_", "-"), value) for name, value in headers.items()], iter(pieces))


def test_a_short_answer_is_told_as_a_whole() -> None:
    desk = Desk()
    desk.passage.tell(answer(b"he", b"llo", content_length="5", server="s"))
    desk.round()
    assert desk.exchange.answered == [(200, {b"server": b"s", b"Extra": b"1"}, b"hello")]
    assert desk.ends == 1


def test_what_the_upstream_says_itself_is_not_said_twice() -> None:
    desk = Desk()
    desk.passage.tell(answer(content_length="0", extra="theirs"))
    desk.round()
    assert desk.exchange.answered == [(200, {b"extra": b"theirs"}, b"")]


def test_a_long_answer_goes_on_piece_by_piece_with_its_length() -> None:
    desk = Desk()
    desk.passage.tell(answer(PIECE, b"y", content_length="65537"))
    desk.round()
    assert desk.exchange.answered == [(200, {b"Extra": b"1"}, 65_537)]
    assert (desk.exchange.made.written, desk.exchange.made.end_of, desk.ends) == ([PIECE, b"y"], ["end"], 1)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_an_answer_without_a_body_keeps_the_length_it_speaks_of(method: str, status: int) -> None:
    desk = Desk(method)
    desk.passage.tell(answer(status=status, content_length="7"))
    desk.round()
    assert desk.exchange.answered == [(status, {b"Extra": b"1"}, 7)]
    assert desk.exchange.made.end_of == ["end"]


def test_an_answer_of_unknown_length_has_none() -> None:
    desk = Desk()
    desk.passage.tell(answer(b"a"))
    desk.round()
    assert desk.exchange.answered[0][2] is None


def test_the_upstream_waits_for_a_slow_caller_and_no_longer_than_it_may() -> None:
    desk = Desk()
    desk.passage.tell(answer(*[PIECE] * 10))
    desk.round()
    assert desk.exchange.made.written == [PIECE] * CREDIT
    assert (desk.exchange.made.end_of, desk.ends) == (["abort"], 1)


def test_what_a_caller_has_taken_makes_room_for_more() -> None:
    desk = Desk()
    stream = desk.exchange.made

    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            for _ in range(CREDIT):
                yield PIECE
            desk.round()
            stream.buffered = 0
            assert stream.on_drain is not None
            stream.on_drain()

    desk.passage.tell(Answer(200, [], pieces()))
    desk.round()
    assert (len(stream.written), stream.end_of) == (5 * CREDIT, ["end"])


def test_an_answer_that_breaks_off_is_broken_off() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise Failed(502, "UpstreamUnreachable", "gone")

    desk = Desk()
    desk.passage.tell(Answer(200, [], pieces()))
    desk.round()
    assert (desk.exchange.made.written, desk.exchange.made.end_of, desk.ends) == ([b"half"], ["abort"], 1)


def test_no_answer_is_an_error_in_the_callers_protocol() -> None:
    desk = Desk()
    desk.passage.fail(Failed(504, "UpstreamTimeout", "it said nothing"))
    desk.round()
    ((status, headers, body),) = desk.exchange.answered
    assert (status, body) == (504, b'{"__type":"UpstreamTimeoutException","message":"it said nothing"}')
    assert (headers[b"x-amzn-RequestId"], headers[b"Extra"], desk.ends) == (b"id", b"1", 1)


def test_a_caller_that_goes_away_ends_the_upstreams_part() -> None:
    desk = Desk(silence_s=60)
    taken: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            if number == 2:
                desk.exchange.is_closed = True
                assert desk.exchange.on_close is not None
                desk.exchange.on_close()
            yield PIECE

    desk.passage.tell(Answer(200, [], pieces()))
    desk.round()
    assert (taken, desk.passage.ticket.is_cancelled, desk.ends) == ([0, 1, 2], True, 1)


def test_nobody_is_told_who_is_gone() -> None:
    desk = Desk()
    desk.exchange.is_closed = True
    desk.passage.fail(Failed(502, "UpstreamUnreachable", "gone"))
    desk.passage.tell(answer(b"a", content_length="1"))
    desk.round()
    assert desk.exchange.answered == []
