"""A file as an answer: piece by piece, no faster than the peer takes it, and nothing left open."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from kflow.broker.files import Files
from kflow.clock import ManualClock
from kflow.runtime.functions.fileanswer import send
from kflow.web.exchange import LOW_BYTES
from tests.looping import SteppedLoop


class Counting(Files):
    """Knows what is open."""

    def __init__(self) -> None:
        self.opened: set[int] = set()

    def open(self, path, flags, mode=0o777):
        fd = os.open(path, flags, mode)
        self.opened.add(fd)
        return fd

    def close(self, fd):
        self.opened.remove(fd)
        os.close(fd)


class Stream:
    """A response's body."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.sent = b""
        self.buffered = 0
        self.is_closed = False
        self.is_ended = False
        self.is_aborted = False
        self.on_drain: Callable[[], object] | None = None
        self.on_close: Callable[[], object] | None = None

    def write(self, data: bytes) -> None:
        self.sent += data
        self.buffered += len(data)

    def end(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_aborted = True

    def take(self) -> None:
        """The peer has taken all."""
        self.buffered = 0
        if self.on_drain is not None:
            self.on_drain()


class Exchange:
    """A request for a file."""

    stream_made: Stream | None = None
    answered: Any = None

    def respond(self, status, headers, body=b"") -> None:
        self.answered = status

    def stream(self, status, headers, length=None) -> Stream:
        assert status == 200
        self.stream_made = Stream(length)
        return self.stream_made


@pytest.fixture
def loop():
    return SteppedLoop(ManualClock())


def sending(loop, path, files):
    exchange = Exchange()
    send(exchange, str(path), b"application/zip", loop, files)
    loop.run()
    return exchange


def test_a_file_is_sent_as_fast_as_the_peer_takes_it(loop, tmp_path):
    content = os.urandom(600_000)
    (tmp_path / "f").write_bytes(content)
    files = Counting()
    stream = sending(loop, tmp_path / "f", files).stream_made
    assert (stream.length, len(stream.sent)) == (600_000, 262_144)
    assert stream.buffered > LOW_BYTES
    for _ in range(2):
        stream.take()
        loop.run()
    assert stream.sent == content
    assert stream.is_ended
    assert files.opened == set()


def test_an_empty_file_ends_at_once(loop, tmp_path):
    (tmp_path / "f").touch()
    files = Counting()
    assert sending(loop, tmp_path / "f", files).stream_made.is_ended
    assert files.opened == set()


def test_a_file_that_is_gone_is_not_found(loop, tmp_path):
    assert sending(loop, tmp_path / "none", Counting()).answered == 404


def test_a_file_that_is_cut_off_meanwhile_breaks_the_answer_off(loop, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(600_000))
    files = Counting()
    stream = sending(loop, path, files).stream_made
    os.truncate(path, 0)
    stream.take()
    loop.run()
    assert (stream.is_aborted, stream.is_ended, files.opened) == (True, False, set())


def test_a_peer_that_goes_away_leaves_nothing_open(loop, tmp_path):
    (tmp_path / "f").write_bytes(bytes(600_000))
    files = Counting()
    stream = sending(loop, tmp_path / "f", files).stream_made
    stream.is_closed = True
    stream.on_close()
    loop.run()
    assert files.opened == set()
