"""Peers of the web server that are many, slow, broken, gone or hostile; real sockets, the loop stepped by hand."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import ssl
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.runtime.loop import Loop
from kflow.web.certificate import keep_certificate
from kflow.web.frames import PREFACE
from kflow.web.options import Tls, WebOptions
from kflow.web.server import Server
from tests.webbing import answers, echo

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


class Site:
    """A server on a loop that runs in this thread, and clients of it."""

    def __init__(self, answer: Callable[[Any], object] = echo, options: WebOptions | None = None) -> None:
        self.loop = Loop()
        self.exchanges: list[Any] = []
        self.answer = answer
        self.server = Server(self.loop, self._handle, options=options or WebOptions(sweep_s=0.02))
        self.port = self.server.listen("127.0.0.1", 0)
        self.clients: list[socket.socket] = []

    def _handle(self, exchange: Any) -> None:
        self.exchanges.append(exchange)
        self.answer(exchange)

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setblocking(False)
        self.clients.append(client)
        if data:
            client.sendall(data)
        return client

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Rounds of the loop until `condition` holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what or condition
            self.loop.round(0.01)

    def read(self, client: socket.socket, *, to_end: bool = False) -> bytes:
        """What a client receives: one whole answer, or everything up to the end."""
        data = bytearray()
        ended: list[bool] = []

        def done() -> bool:
            try:
                while piece := client.recv(1 << 20):
                    data.extend(piece)
                ended.append(True)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                ended.append(True)
            if ended or to_end:
                return bool(ended)
            try:
                return bool(answers(bytes(data)))
            except (AssertionError, ValueError):
                return False

        self.until(done, "an answer")
        return bytes(data)

    def ask(self, client: socket.socket, data: bytes) -> list[tuple[int, bytes]]:
        client.sendall(data)
        return answers(self.read(client))

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*args: Any, **kwargs: Any) -> Site:
        made.append(Site(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_thousand_idle_connections_harm_nobody_and_take_little_memory(site):
    here = site(options=WebOptions())
    count = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    warm = [here.connect(GET % 0) for _ in range(10)]
    here.until(lambda: len(here.exchanges) == 10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            here.connect()
        here.until(lambda: here.server.connection_count == count + 10)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / count < 2500
    assert [status for status, _ in answers(here.read(warm[0]))] == [200]
    assert here.ask(warm[0], GET % 1) == [(200, b"GET /1 ")]


def test_garbage_on_one_connection_does_not_touch_another_in_the_middle_of_a_request(site):
    here = site()
    good = here.connect(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
    for data in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        PREFACE + b"\xff" * 50,
        b"\x16\x03\x01",
        b"POST / HTTP/1.1\r\n\r\n",
    ):
        bad = here.connect(data)
        here.read(bad, to_end=True)
    assert here.ask(good, b"def") == [(200, b"POST /a abcdef")]


def test_a_peer_that_resets_is_reported(site):
    here = site(answer=lambda exchange: None)
    client = here.connect(GET % 1)
    here.until(lambda: here.exchanges)
    closed: list[int] = []
    here.exchanges[0].on_close = lambda: closed.append(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    here.until(lambda: closed)
    assert here.server.connection_count == 0


def test_a_stream_whose_reader_is_gone_is_reported_by_writing(site):
    here = site(answer=lambda exchange: None)
    client = here.connect(GET % 1)
    here.until(lambda: here.exchanges)
    stream = here.exchanges[0].stream(200, ())
    closed: list[int] = []
    stream.on_close = lambda: closed.append(1)
    client.close()
    stream.write(b"x")
    stream.write(b"y")
    here.until(lambda: closed)
    assert stream.is_closed


def long_answer(exchange: Any) -> None:
    exchange.respond(200, (), b"x" * 20_000_000)


def test_a_slow_reader_holds_up_itself_alone(site):
    here = site(answer=lambda exchange: (long_answer if exchange.target == "/1" else echo)(exchange))
    slow = here.connect(GET % 1 + GET % 2)
    here.until(lambda: here.exchanges)
    quick = here.connect()
    for number in range(3, 20):
        assert here.ask(quick, GET % number) == [(200, b"GET /%d " % number)]
    assert "/2" not in [exchange.target for exchange in here.exchanges]
    received = bytearray()

    def has_both() -> bool:
        with contextlib.suppress(BlockingIOError):
            received.extend(slow.recv(1 << 20))
        return received.endswith(b"GET /2 ")

    here.until(has_both)
    assert len(received) > 20_000_000


def test_a_reader_that_never_reads_is_closed(site):
    here = site(answer=long_answer, options=WebOptions(sweep_s=0.02, write_s=0.1))
    here.connect(GET % 1)
    here.until(lambda: here.exchanges)
    here.until(lambda: here.server.connection_count == 0, "the connection is closed")


def test_of_many_that_never_read_those_are_closed_that_have_taken_nothing_for_longest(site):
    here = site(answer=long_answer, options=WebOptions(sweep_s=60, unsent_bytes=50_000_000))
    first = here.connect(GET % 1)
    here.until(lambda: len(here.exchanges) == 1)
    for number in range(2, 12):
        here.connect(GET % number)
        here.until(lambda number=number: len(here.exchanges) == number)
    here.until(lambda: here.server.connection_count == 2, "what two have waiting fits, and what three have does not")
    assert here.server._hub.backlog.total < 50_000_000
    assert not here.read(first, to_end=True).endswith(b"x" * 20_000_000)
    for client in here.clients:
        client.close()
    here.until(lambda: here.server.connection_count == 0)
    assert here.server._hub.backlog.total == 0


def test_who_reads_on_is_not_closed_for_those_who_do_not(site):
    here = site(answer=long_answer, options=WebOptions(sweep_s=60, unsent_bytes=50_000_000))
    reader = here.connect(GET % 1)
    here.until(lambda: len(here.exchanges) == 1)
    received = 0

    def reads_up_to(count: int) -> bool:
        nonlocal received
        with contextlib.suppress(BlockingIOError):
            received += len(reader.recv(1 << 18))
        return received > count

    for number in range(2, 10):
        here.connect(GET % number)
        here.until(lambda number=number: len(here.exchanges) == number)
        here.until(lambda number=number: reads_up_to(2_000_000 * number))
    here.until(lambda: reads_up_to(20_000_000))


@pytest.mark.parametrize("speaks", ["http2", "tls"])
def test_answers_that_wait_above_the_socket_count_too(site, speaks, tmp_path):
    tls = Tls(folder=tmp_path / "tls") if speaks == "tls" else None
    here = site(answer=long_answer, options=WebOptions(sweep_s=60, unsent_bytes=50_000_000, tls=tls))
    if speaks == "tls":
        for number in range(1, 4):
            shake(here, here.connect(), tmp_path / "tls" / "localhost.pem").send(GET % number)
    else:
        head = b"\0\0\x06\x01\x05"  # HEADERS, whole
        frames = b"".join(head + stream.to_bytes(4, "big") + b"\x82\x86\x84\x41\x01h" for stream in (1, 3, 5))
        here.connect(PREFACE + b"\0\0\0\4\0\0\0\0\0" + frames)
    here.until(lambda: len(here.exchanges) == 3)
    here.until(lambda: here.server.connection_count == (2 if speaks == "tls" else 0))
    assert here.server._hub.backlog.total < 50_000_000
    for client in here.clients:
        client.close()
    here.until(lambda: here.server.connection_count == 0)
    assert here.server._hub.backlog.total == 0


def test_slow_senders_are_refused_and_others_served(site):
    here = site(options=WebOptions(sweep_s=0.02, request_s=0.2))
    slow = [
        here.connect(b"GET / HTTP/1.1\r\nHo"),
        here.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"),
        here.connect(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
    ]
    for client in slow:
        assert answers(here.read(client))[0][0] == 408
    assert here.ask(here.connect(), GET % 1) == [(200, b"GET /1 ")]


def test_idle_connections_are_closed_and_then_nothing_is_left_to_do(site):
    here = site(options=WebOptions(sweep_s=0.02, idle_s=0.1))
    client = here.connect(GET % 1)
    assert here.read(client, to_end=True).endswith(b"GET /1 ")
    client.close()
    here.until(lambda: here.server.connection_count == 0)
    here.until(lambda: here.server._sweeper is None, "no timer is left")


def test_a_body_above_the_limit_is_answered_while_it_is_still_sent(site):
    here = site(options=WebOptions(body_bytes=1_000_000))
    client = here.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n")
    left = memoryview(b"x" * 5_000_000)
    answer = b""
    deadline = time.monotonic() + 20
    while left:
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            left = left[client.send(left[:65536]) :]
        with contextlib.suppress(BlockingIOError):
            answer += client.recv(65536)
        here.loop.round(0.001)
    assert answers(answer or here.read(client)) == [(413, b"")]
    assert here.exchanges == []


def test_a_body_at_the_limit_is_served(site):
    here = site(answer=lambda exchange: exchange.respond(200, (), b"%d" % len(exchange.body)))
    limit = 16 * 1024 * 1024
    client = here.connect(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % limit)
    left = memoryview(b"x" * limit)
    deadline = time.monotonic() + 20
    while left:
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            left = left[client.send(left[: 1 << 20]) :]
        here.loop.round(0.001)
    assert answers(here.read(client)) == [(200, b"16777216")]


def test_at_the_limit_of_connections_newcomers_wait_for_a_place(site):
    here = site(answer=lambda exchange: None, options=WebOptions(connections=3, sweep_s=60))
    busy = [here.connect(GET % number) for number in range(3)]
    here.until(lambda: len(here.exchanges) == 3)
    waiting = here.connect(GET % 9)
    for _ in range(20):
        here.loop.round(0.001)
    assert len(here.exchanges) == 3
    here.exchanges[0].on_close = lambda: None  # its handler wants to know
    busy[0].close()
    here.until(lambda: len(here.exchanges) == 4)
    here.exchanges[3].respond(200, (), b"welcome")
    assert answers(here.read(waiting)) == [(200, b"welcome")]


def test_at_the_limit_room_is_made_long_before_the_next_sweep(site):
    here = site(options=WebOptions(connections=3, sweep_s=3600))
    for number in range(3):
        here.connect(GET % number)
    here.until(lambda: len(here.exchanges) == 3)
    assert here.ask(here.connect(), GET % 9) == [(200, b"GET /9 ")]


def test_at_the_limit_a_connection_that_rests_makes_room(site):
    here = site(options=WebOptions(connections=3, sweep_s=0.02))
    resting = [here.connect(GET % number) for number in range(3)]
    here.until(lambda: len(here.exchanges) == 3)
    newcomer = here.connect()
    assert here.ask(newcomer, GET % 9) == [(200, b"GET /9 ")]
    assert here.server.connection_count == 3
    here.read(resting[0], to_end=True)


def test_without_descriptors_the_server_looks_away_and_comes_back(site, caplog):
    here = site()
    client = here.connect(GET % 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[socket.socket] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                spare.append(socket.socket())
        here.until(lambda: "cannot accept a connection" in caplog.text)
        rounds = 0
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            here.loop.round(0.05)
            rounds += 1
        assert rounds < 100, "the loop spins"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in spare:
            one.close()
    assert answers(here.read(client)) == [(200, b"GET /1 ")]


def test_closing_answers_what_is_under_way_and_accepts_nothing_more(site):
    here = site(answer=lambda exchange: None)
    resting, busy = here.connect(), here.connect(GET % 1)
    here.until(lambda: here.exchanges and here.server.connection_count == 2)
    done: list[int] = []
    here.server.close(30, lambda: done.append(1))
    here.read(resting, to_end=True)
    with pytest.raises(ConnectionRefusedError):
        here.connect()
    assert done == []
    here.exchanges[0].respond(200, (), b"the last")
    data = here.read(busy, to_end=True)
    assert answers(data) == [(200, b"the last")]
    assert b"connection: close\r\n" in data
    busy.close()
    here.until(lambda: done)
    assert here.server.connection_count == 0


def test_closing_does_not_wait_longer_than_its_grace(site):
    here = site(answer=lambda exchange: None)
    client = here.connect(GET % 1)
    here.until(lambda: here.exchanges)
    closed: list[int] = []
    here.exchanges[0].on_close = lambda: closed.append(1)
    done: list[int] = []
    here.server.close(0.05, lambda: done.append(1))
    here.until(lambda: done)
    assert closed == [1]
    assert here.read(client, to_end=True) == b""


def test_closing_without_connections_is_done_at_once(site):
    here = site()
    done: list[int] = []
    here.server.close(30, lambda: done.append(1))
    assert done == [1]


def test_a_port_that_is_taken_is_an_error(site):
    here = site()
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the number says it
        here.server.listen("127.0.0.1", here.port)
    assert caught.value.errno == errno.EADDRINUSE


def test_one_port_speaks_http_1_and_2_in_plain_text_and_over_tls(site, tmp_path):
    here = site(options=WebOptions(tls=Tls(folder=tmp_path / "tls")))
    assert here.ask(here.connect(), GET % 1) == [(200, b"GET /1 ")]
    second = here.connect(PREFACE + b"\0\0\0\4\0\0\0\0\0")
    received = bytearray()

    def has_settings() -> bool:
        with contextlib.suppress(BlockingIOError):
            received.extend(second.recv(65536))
        return len(received) > 9

    here.until(has_settings)
    assert received[3] == 4
    secured = shake(here, here.connect(), tmp_path / "tls" / "localhost.pem")
    secured.send(GET % 3)
    found = bytearray()

    def has_answer() -> bool:
        with contextlib.suppress(ssl.SSLWantReadError):
            found.extend(secured.recv(65536))
        return found.endswith(b"GET /3 ")

    here.until(has_answer)
    assert here.exchanges[-1].is_secure


def shake(here: Site, client: socket.socket, certificate: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(keep_certificate(certificate.parent)))
    secured = context.wrap_socket(client, server_hostname="localhost", do_handshake_on_connect=False)
    here.clients.append(secured)

    def shaken() -> bool:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    here.until(shaken)
    return secured


def test_one_request_of_a_connection_is_served_in_a_round_so_that_others_come_to_their_turn(site):
    here = site()
    greedy, modest = here.connect(), here.connect()
    here.until(lambda: here.server.connection_count == 2)
    greedy.sendall(b"".join(GET % 1 for _ in range(200)))
    modest.sendall(GET % 2)
    here.until(lambda: any(exchange.target == "/2" for exchange in here.exchanges))
    assert [exchange.target for exchange in here.exchanges].index("/2") < 10
    here.until(lambda: len(here.exchanges) == 201)
