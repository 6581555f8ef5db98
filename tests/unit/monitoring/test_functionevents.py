"""Events out of functions' log files: lines, with the times and streams that the index has."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from kflow.aws.calls import Place
from kflow.broker.functionlogs import Index, index_path, log_path, older
from kflow.monitoring.functionevents import FunctionEvents, Part
from kflow.monitoring.logged import NO_ID, Bounds, Logged, first_id
from kflow.runtime.worker.logfiles import LogFile

HOME = Place("123456789012", "us-east-1")
EVER = Bounds(NO_ID, 0, 10**13)


class Log:
    """A function's log, and the hand that turns its clock."""

    def __init__(self, data_dir: Path) -> None:
        self.now = 1000.0
        self.path = log_path(data_dir, "bill")
        self.logs = FunctionEvents(data_dir, HOME, lambda: int(self.now * 1000))

    def writer(self, stream: str, *, group: str = "", **sizes: int) -> tuple[LogFile, Index]:
        file = LogFile(self.path, **sizes)
        return file, Index(self.path, file.fd, stream, lambda: self.now, group=group)

    def write(self, writer: tuple[LogFile, Index], text: str, at: float, *, is_event: bool = False) -> None:
        self.now = at
        file, index = writer
        if file.look():
            index.follow()
        length = os.write(file.fd, text.encode())
        if is_event:
            index.wrote_event(length)
        else:
            index.wrote(length, text.encode())

    def read(self, bounds: Bounds = EVER, wanted: set[str] | None = None) -> list[Logged]:
        return list(self.logs.events(Part("bill"), bounds, wanted))

    def texts(self, bounds: Bounds = EVER, wanted: set[str] | None = None) -> list[str]:
        return [each.text for each in self.read(bounds, wanted)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_each_line_is_an_event_with_its_time_and_stream(log: Log) -> None:
    one, two = log.writer("one"), log.writer("two")
    log.write(one, "START\n", 1000)
    log.write(two, "START\nhello\n", 1001)
    log.write(one, "END\nREPORT\n", 1002)

    assert [(each.ms, each.stream, each.text) for each in log.read()] == [
        (1_000_000, "one", "START\n"),
        (1_001_000, "two", "START\n"),
        (1_001_000, "two", "hello\n"),
        (1_002_000, "one", "END\n"),
        (1_002_000, "one", "REPORT\n"),
    ]
    ids = [each.id for each in log.read()]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5
    assert all(len(each) == 56 for each in ids)


def test_an_error_of_several_lines_is_one_event(log: Log) -> None:
    one = log.writer("one")
    log.write(one, "a\n", 1000)
    log.write(one, "[ERROR] x\nTraceback\n  line\n", 1000, is_event=True)
    log.write(one, "END\n", 1000)

    assert log.texts() == ["a\n", "[ERROR] x\nTraceback\n  line\n", "END\n"]


def test_times_streams_and_ids_choose_what_is_read(log: Log) -> None:
    one, two = log.writer("one"), log.writer("two")
    for number in range(5):
        log.write((one, two)[number % 2], f"{number}\n", 1000 + number)

    assert log.texts(Bounds(first_id(1_001_000), 1_001_000, 1_003_000)) == ["1\n", "2\n"]
    assert log.texts(EVER, {"two"}) == ["1\n", "3\n"]
    third = log.read()[2].id
    assert log.texts(Bounds(third, 0, 10**13)) == ["3\n", "4\n"]


def test_events_go_on_over_rotations_and_keep_their_ids(log: Log) -> None:
    one = log.writer("one", file_bytes=10)
    ids: list[str] = []
    for number in range(4):
        log.write(one, f"line {number}.....\n", 1000 + number)
        ids = ids or [each.id for each in log.read()]
    assert log.texts() == [f"line {number}.....\n" for number in range(4)]
    assert log.read()[0].id == ids[0]
    assert older(log.path, 3).exists()
    assert index_path(older(log.path, 3)).exists()


def test_a_log_that_is_rotated_while_it_is_read_has_its_own_times(log: Log) -> None:
    one = log.writer("one", file_bytes=10)
    log.write(one, "line 0.....\n", 1000)
    reading = log.logs.events(Part("bill"), EVER)
    with ExitStack() as stack:
        files = log.logs._files("bill", stack)
        log.write(one, "line 1.....\n", 2000)  # in a new file, with an index of its own
        assert list(log.logs._known(files[0], files).times) == [1_000_000]
        log.write(one, "line 2.....\n", 3000)
        assert list(log.logs._known(files[0], files).times) == [1_000_000]
    assert [each.ms for each in reading] == [1_000_000, 2_000_000, 3_000_000]


def test_what_nobody_noted_has_the_time_of_the_file_and_a_stream_of_its_own(log: Log) -> None:
    log.path.parent.mkdir()
    log.path.write_text("before there was an index\n")
    os.utime(log.path, (500, 500))

    assert [(each.ms, each.stream, each.text) for each in log.read()] == [
        (500_000, "1970/01/01/[$LATEST]" + "0" * 32, "before there was an index\n")
    ]
    log.write(log.writer("one"), "a\n", 1000)
    assert log.texts() == ["before there was an index\n", "a\n"]


def test_a_line_without_an_end_waits_for_it_for_a_moment(log: Log) -> None:
    one = log.writer("one")
    log.write(one, "whole\nhalf", 1000)
    os.utime(log.path, (1000, 1000))
    assert log.texts() == ["whole\n"]
    log.now = 1002
    assert log.texts() == ["whole\n", "half"]
    log.write(one, " a line\n", 1000.01)
    assert log.texts() == ["whole\n", "half a line\n"]


def test_a_line_that_is_too_long_is_several_events(log: Log) -> None:
    one = log.writer("one")
    log.write(one, "x" * (600 << 10) + "\nend\n", 1000)

    assert [len(each) for each in log.texts()] == [256 << 10, 256 << 10, (88 << 10) + 1, 4]
    assert len({each.id for each in log.read()}) == 4


def test_bytes_that_are_no_text_are_shown_as_what_they_are(log: Log) -> None:
    file, index = log.writer("one")
    index.wrote(os.write(file.fd, b"caf\xc3\xa9 \xff\n"))
    assert log.texts() == ["café \\xff\n"]


def test_streams_are_known_without_reading_the_log(log: Log) -> None:
    one, two = log.writer("one"), log.writer("two")
    log.writer("three")
    log.write(one, "a\n", 1000)
    log.write(two, "b\n", 1001)
    log.write(one, "c\n", 1002)

    found = log.logs.streams(Part("bill"))
    assert {name: (each.first_ms, each.last_ms) for name, each in found.items()} == {
        "one": (1_000_000, 1_002_000),
        "two": (1_001_000, 1_001_000),
        "three": (None, None),
    }
    assert log.logs.created_ms(Part("bill")) == 1_000_000
    assert log.logs.stored_bytes(Part("bill")) == 6


def test_groups_are_named_as_on_aws_and_belong_to_a_place(log: Log, tmp_path: Path) -> None:
    log.write(log.writer("one"), "a\n", 1000)
    log_path(tmp_path, "pay@999999999999.eu-west-1").touch()

    assert log.logs.groups(HOME) == {"/aws/lambda/bill": (Part("bill"),)}
    there = Place("999999999999", "eu-west-1")
    assert log.logs.groups(there) == {"/aws/lambda/pay": (Part("pay@999999999999.eu-west-1"),)}
    assert log.logs.parts(there, "/aws/lambda/pay") == (Part("pay@999999999999.eu-west-1"),)
    for name in ("/aws/lambda/pay", "/aws/lambda/../secrets", "bill"):
        assert log.logs.parts(HOME, name) == ()


def test_a_log_that_is_removed_begins_anew(log: Log) -> None:
    one = log.writer("one")
    log.write(one, "a\n", 1000)
    log.logs.remove(Part("bill"))
    assert log.logs.groups(HOME) == {}
    log.write(one, "b\n", 1001)
    assert log.texts() == ["b\n"]


def test_older_files_go_when_all_they_hold_is_expired(log: Log) -> None:
    one = log.writer("one", file_bytes=1)
    for number in range(3):
        log.write(one, f"{number}\n", 1000 + number)
    os.utime(older(log.path, 2), (1000, 1000))
    os.utime(older(log.path, 1), (1001, 1001))
    log.logs.expire(Part("bill"), 1_000_500)

    assert log.texts() == ["1\n", "2\n"]
    assert not index_path(older(log.path, 2)).exists()


def test_lines_of_another_group_are_told_from_those_of_its_own(log: Log, tmp_path: Path) -> None:
    own = log.writer("own")
    log.write(own, "a\n", 1000)
    shared = log.writer("shared", group="/app")
    log.write(shared, "b\n", 1001)
    log.write(own, "c\n", 1002)
    log.write(shared, "d\ne\n", 1003)

    app = Part("bill", "/app")
    assert log.logs.groups(HOME) == {"/aws/lambda/bill": (Part("bill"),), "/app": (app,)}
    assert log.logs.parts(HOME, "/app") == (app,)
    assert log.logs.parts(Place("123456789012", "eu-west-1"), "/app") == ()
    assert log.texts() == ["a\n", "c\n"]
    assert [each.text for each in log.logs.events(app, EVER)] == ["b\n", "d\n", "e\n"]
    assert list(log.logs.streams(app)) == ["shared"]
    assert (log.logs.created_ms(Part("bill")), log.logs.created_ms(app)) == (1_000_000, 1_000_000)
    assert (log.logs.stored_bytes(Part("bill")), log.logs.stored_bytes(app)) == (4, 6)


def test_two_functions_of_one_group_have_ids_of_their_own(log: Log, tmp_path: Path) -> None:
    for name in ("bill", "pay"):
        file = LogFile(log_path(tmp_path, name))
        index = Index(log_path(tmp_path, name), file.fd, name, lambda: log.now, group="/app")
        index.wrote(os.write(file.fd, b"START\n"))
    parts = log.logs.parts(HOME, "/app")
    assert parts == (Part("bill", "/app"), Part("pay", "/app"))
    found = [each for part in parts for each in log.logs.events(part, EVER)]
    assert [(each.ms, each.text) for each in found] == [(1_000_000, "START\n")] * 2
    assert len({each.id for each in found}) == 2
    assert log.logs.groups(HOME) == {"/app": parts}  # none of them has one of its own


def test_files_that_have_lines_of_another_group_stay(log: Log, tmp_path: Path) -> None:
    own, app = Part("bill"), Part("bill", "/app")
    log.write(log.writer("old", file_bytes=1, group="/app"), "1\n", 1000)
    log.write(log.writer("new", file_bytes=1), "2\n", 1001)
    log.write(log.writer("other", file_bytes=1, group="/app"), "3\n", 1002)
    for number, at in ((2, 1000), (1, 1001)):
        os.utime(older(log.path, number), (at, at))
    log.logs.expire(app, 2_000_000)
    assert [each.text for each in log.logs.events(app, EVER)] == ["3\n"]
    assert log.texts() == ["2\n"]
    log.write(log.writer("new"), "4\n", 1003)
    assert not log.logs.remove(app)
    assert [each.text for each in log.logs.events(app, EVER)] == ["3\n"]
    assert not log.logs.remove(own)
    assert log.texts() == ["4\n"]


def test_indices_are_kept_in_memory_as_far_as_they_are_small(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        file = LogFile(log_path(tmp_path, f"f{number}"))
        index = Index(log_path(tmp_path, f"f{number}"), file.fd, "one", lambda: log.now)
        index.wrote(os.write(file.fd, b"a\n"))
        index.close()
        file.close()

    def read() -> int:
        for number in range(20):
            assert len(list(log.logs.events(Part(f"f{number}"), EVER))) == 1
        return len(log.logs._notes)

    assert read() == 20
    monkeypatch.setattr("kflow.monitoring.functionevents._NOTES", 10)
    assert read() == 16
