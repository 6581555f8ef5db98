"""Upstreams that are slow, silent or gone: each hurts whoever calls it, for as long as is said, and nobody else."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.runtime.forwarding import crews
from kflow.runtime.forwarding.asking import Failed, Patience, Request, Ticket
from kflow.runtime.forwarding.crews import Crew
from kflow.runtime.forwarding.moto import Moto, child_environment
from kflow.runtime.forwarding.upstream import Line
from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.upstreams import Asked, deaf, respond, upstream

SHORT = Patience(connect_s=0.2, silence_s=0.2)


def get(url: str, target: str = "/", method: str = "GET", body: bytes = b"") -> Request:
    return Request(url, method, target, [("x-mine", "1")], body)


def read(line: Line, request: Request) -> tuple[int, bytes]:
    answer = line.ask(request, Ticket())
    return answer.status, b"".join(answer.pieces)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(SHORT)
    yield made
    made.close()


def test_an_upstream_that_says_nothing_is_given_up(line: Line) -> None:
    with deaf() as nobody, pytest.raises(Failed, match=r"said nothing for 0\.2 s") as failed:
        line.ask(get(f"http://127.0.0.1:{nobody.getsockname()[1]}"), Ticket())
    assert (failed.value.status, failed.value.code) == (504, "UpstreamTimeout")


def test_an_upstream_that_falls_silent_within_its_answer_is_given_up(line: Line) -> None:
    gate = threading.Event()

    def stall(asked: Asked, handler: Any) -> None:
        del asked
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"half")
        gate.wait(30)
        handler.close_connection = True

    with upstream(stall) as behind:
        pieces = line.ask(get(behind.url), Ticket()).pieces
        assert next(pieces) == b"half"
        with pytest.raises(Failed, match="said nothing") as failed:
            next(pieces)
        gate.set()
    assert failed.value.status == 504


def test_what_speaks_no_http_is_a_bad_gateway(line: Line) -> None:
    with deaf() as other:

        def babble() -> None:
            with contextlib.suppress(OSError):
                connection, _ = other.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 mail ready\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        with pytest.raises(Failed, match="cannot be reached, or breaks off") as failed:
            line.ask(get(f"http://127.0.0.1:{other.getsockname()[1]}"), Ticket())
    assert failed.value.status == 502


def test_a_name_that_leads_nowhere_is_a_bad_gateway(line: Line) -> None:
    with pytest.raises(Failed) as failed:
        line.ask(get("http://nowhere.invalid:80"), Ticket())
    assert failed.value.status in {502, 504}


def test_who_waits_is_woken_when_the_caller_goes_away() -> None:
    line, ticket = Line(Patience()), Ticket()
    failed: list[Failed] = []

    def ask(url: str) -> None:
        try:
            line.ask(get(url), ticket)
        except Failed as error:
            failed.append(error)

    with deaf() as nobody:
        thread = threading.Thread(target=ask, args=(f"http://127.0.0.1:{nobody.getsockname()[1]}",))
        thread.start()
        connection, _ = nobody.accept()
        with connection:
            assert connection.recv(4) == b"GET "
            ticket.cancel()
            thread.join(30)
    assert len(failed) == 1


def test_a_caller_that_is_gone_already_asks_nothing_of_the_upstream() -> None:
    line, ticket = Line(SHORT), Ticket()
    ticket.cancel()
    with upstream(lambda asked, handler: respond(handler, 200)) as behind, pytest.raises(Failed):
        line.ask(get(behind.url), ticket)


def test_a_connection_that_the_upstream_closed_is_replaced(line: Line) -> None:
    def close(asked: Asked, handler: Any) -> None:
        respond(handler, 200, asked.body)
        handler.close_connection = True  # and does not say so

    with upstream(close) as behind:
        for method in ("GET", "POST", "POST"):
            assert read(line, get(behind.url, method=method, body=b"x" if method == "POST" else b"")) == (
                200,
                b"x" if method == "POST" else b"",
            )
            kept = line._connection
            assert kept is not None
            assert kept.sock is not None
            eventually(lambda kept=kept: kept.sock.recv(1, socket.MSG_PEEK) == b"", what="the end to arrive")
        assert len({asked.peer for asked in behind.asked}) == 3


def test_an_answer_that_comes_before_the_body_has_gone_is_told(line: Line) -> None:
    def refuse(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while connection.recv(1 << 16):
                    pass

    with deaf() as server:
        threading.Thread(target=refuse, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert read(line, get(url, method="PUT", body=b"x" * (8 << 20))) == (403, b"no")


def test_a_path_of_the_url_stands_before_that_of_the_request(line: Line) -> None:
    with upstream(lambda asked, handler: respond(handler, 200, asked.target.encode())) as behind:
        assert read(line, get(f"{behind.url}/base", "/b/k?x=1")) == (200, b"/base/b/k?x=1")
        assert behind.asked[0].headers == {"host": behind.url.removeprefix("http://"), "x-mine": "1"}


# threads


def test_a_lane_has_as_many_threads_as_it_has_work_and_no_more_than_it_may() -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)

    def job(kept: object) -> None:
        del kept
        begun.release()
        gate.wait(30)

    crew: Crew[object] = Crew("test", object, lambda _: None)
    for _ in range(crews.THREADS + 3):
        assert crew.submit(job)
    for _ in range(crews.THREADS):
        assert begun.acquire(timeout=30)
    assert crew.threads == crews.THREADS
    gate.set()
    for _ in range(3):
        assert begun.acquire(timeout=30)
    crew.close()
    eventually(lambda: crew.threads == 0, what="the threads to end")


def test_a_lane_that_is_full_takes_no_more() -> None:
    gate = threading.Event()
    crew: Crew[object] = Crew("test", object, lambda _: None)
    taken = 0
    while crew.submit(lambda _: gate.wait(30)):
        taken += 1
    assert crews.WAITING <= taken <= crews.WAITING + crews.THREADS
    crew.close()
    gate.set()
    eventually(lambda: crew.threads == 0, what="the threads to end")


def test_threads_with_nothing_to_do_end_and_let_go_of_what_they_kept() -> None:
    dropped: list[str] = []
    crew: Crew[str] = Crew("test", lambda: "kept", dropped.append, idle_s=0.01)
    done = threading.Event()
    crew.submit(lambda kept: done.set() if kept == "kept" else None)
    assert done.wait(30)
    eventually(lambda: dropped == ["kept"] and crew.threads == 0, what="the thread to end")
    done.clear()
    crew.submit(lambda _: done.set())
    assert done.wait(30)
    crew.close()


def test_a_job_that_fails_is_the_last_of_nobody(caplog: pytest.LogCaptureFixture) -> None:
    crew: Crew[object] = Crew("test", object, lambda _: None)
    done = threading.Event()
    crew.submit(lambda _: 1 / 0)
    crew.submit(lambda _: done.set())
    assert done.wait(30)
    eventually(lambda: "work failed crew=test" in caplog.text, what="the failure to be logged")
    crew.close()


# a child in moto's place

CHILD = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
sys.stdin.buffer.raw.read(1)
"""


class Nursery:
    """Makes children, and keeps what people are told."""

    def __init__(self, folder: Path, script: str) -> None:
        self.told: list[tuple[str, str]] = []
        path = folder / "child.py"
        path.write_text(script)
        self.moto = Moto(
            folder / "run",
            account="123456789012",
            region="us-east-1",
            notice=lambda level, text: self.told.append((level, text)),
            command=(sys.executable, str(path)),
        )

    @property
    def process(self) -> Any:
        child = self.moto._child
        assert child is not None
        return child.process


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path, CHILD)
    yield made
    made.moto.close()


def test_one_child_is_started_for_all_who_call(nursery: Nursery) -> None:
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(nursery.moto.url())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(urls), len(set(urls))) == (8, 1)
    assert nursery.told == [("info", f"moto answers at {urls[0]}; what it keeps is gone when the runtime ends")]


def test_a_child_that_dies_is_mourned_and_replaced(nursery: Nursery) -> None:
    first = nursery.moto.url()
    nursery.process.send_signal(signal.SIGKILL)
    eventually(lambda: len(nursery.told) == 2, what="its end to be noticed")
    assert nursery.told[1][0] == "warning"
    assert nursery.told[1][1].startswith("moto ended, and what it kept is gone; the next call starts it anew")
    assert nursery.moto.url() != first


def test_a_reset_starts_afresh_and_is_no_accident(nursery: Nursery) -> None:
    first = nursery.moto.url()
    pid = nursery.process.pid
    nursery.moto.reset()
    assert identify(pid) is None
    assert nursery.moto.url() != first
    assert [level for level, _ in nursery.told] == ["info", "info"]


def test_no_child_outlives_the_end(nursery: Nursery) -> None:
    nursery.moto.url()
    pid = nursery.process.pid
    nursery.moto.close()
    assert identify(pid) is None
    with pytest.raises(Failed, match="the runtime ends"):
        nursery.moto.url()


def test_a_child_that_does_not_start_says_why(tmp_path: Path) -> None:
    made = Nursery(tmp_path, "raise SystemExit('there is no flask')")
    with pytest.raises(
        Failed, match=r"moto does not start: there is no flask \(all of it is in .*moto\.log\)"
    ) as failed:
        made.moto.url()
    assert failed.value.status == 502
    made.moto.close()


def test_a_child_knows_nothing_of_real_credentials() -> None:
    made = child_environment(
        {"PATH": "/bin", "AWS_PROFILE": "prod", "AWS_ENDPOINT_URL": "http://h", "AWS_SECRET_ACCESS_KEY": "real"},
        account="111122223333",
        region="eu-west-1",
    )
    assert made == {
        "PATH": "/bin",
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "MOTO_ACCOUNT_ID": "111122223333",
    }
