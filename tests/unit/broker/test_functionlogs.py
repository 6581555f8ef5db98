"""The index beside a function's log: when each stretch was written, and by whom."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kflow.broker.functionlogs import (
    Index,
    Notes,
    Stretches,
    functions,
    index_path,
    log_name,
    log_path,
    shared_groups,
    stream_name,
)


class Clock:
    """Turned by hand, seconds since the epoch."""

    now = 1000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Writer:
    """A worker that writes to a log."""

    def __init__(self, path: Path, stream: str, clock: Clock, *, group: str = "") -> None:
        path.parent.mkdir(exist_ok=True)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.index = Index(path, self.fd, stream, lambda: clock.now, group=group)

    def write(self, text: str, *, is_event: bool = False) -> None:
        length = os.write(self.fd, text.encode())
        if is_event:
            self.index.wrote_event(length)
        else:
            self.index.wrote(length, text.encode())


def read(path: Path, *others: tuple[int, int]) -> Stretches:
    notes = Notes(index_path(path))
    notes.refresh()
    found = path.stat()
    return notes.of((found.st_dev, found.st_ino), others)


def noted(known: Stretches) -> list[tuple[int, int, str, int]]:
    streams = [known.writers[whose].stream for whose in known.whose]
    return list(zip(known.offsets, known.times, streams, known.events, strict=True))


def test_all_versions_of_a_function_have_one_log(tmp_path: Path) -> None:
    assert log_name("bill:3") == log_name("bill:live") == "bill"
    assert log_path(tmp_path, "bill@123456789012.eu-west-1:3").name == "bill@123456789012.eu-west-1.log"


def test_a_stream_is_named_as_on_aws() -> None:
    assert re.fullmatch(r"2023/11/14/\[\$LATEST\][0-9a-f]{32}", stream_name("$LATEST", seconds=1_700_000_000))
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[3\][0-9a-f]{32}", stream_name("3"))
    assert stream_name("3") != stream_name("3")


def test_in_a_group_that_is_not_its_own_a_stream_has_the_functions_name() -> None:
    name = stream_name("3", function="bill", seconds=1_700_000_000)
    assert re.fullmatch(r"2023/11/14/bill\[3\][0-9a-f]{32}", name)


def test_a_writer_says_which_group_is_meant_and_who_reads_finds_it(tmp_path: Path, clock: Clock) -> None:
    path = log_path(tmp_path, "bill")
    one, two = Writer(path, "one", clock), Writer(path, "two", clock, group="/app/all")
    one.write("a\n")
    two.write("b\n")
    Writer(path, "three", clock, group="/app/all")
    Writer(path, "four", clock, group="/app/other")

    assert [(each.stream, each.group) for each in read(path).writers] == [
        ("one", ""),
        ("two", "/app/all"),
        ("three", "/app/all"),
        ("four", "/app/other"),
    ]
    assert shared_groups(tmp_path) == {"bill": ["/app/all", "/app/other"]}
    assert functions(tmp_path) == ["bill"]


def test_a_writer_that_is_alone_notes_a_time_each_fifty_milliseconds(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    for moment in (1000.0, 1000.02, 1000.04, 1000.06, 1000.2):
        clock.now = moment
        writer.write("012345678\n")

    assert noted(read(path)) == [(0, 1_000_000, "one", 0), (30, 1_000_060, "one", 0), (40, 1_000_200, "one", 0)]


def test_a_line_that_is_written_in_pieces_is_not_noted_in_its_middle(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "logs" / "bill.log"
    writer = Writer(path, "one", clock)
    for text in ('{"a":', " 1}", "\n", "next\n{", "}\nlast\n", "event"):
        writer.write(text)
        clock.now += 1

    assert [offset for offset, *_ in noted(read(path))] == [0, 9, 17, 22]


def test_each_change_of_the_writer_is_noted(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    one, two = Writer(path, "one", clock), Writer(path, "two", clock)
    one.write("a\n")
    two.write("b\n")
    two.write("c\n")
    one.write("d\n")

    assert noted(read(path)) == [(0, 1_000_000, "one", 0), (2, 1_000_000, "two", 0), (6, 1_000_000, "one", 0)]


def test_what_others_write_by_the_same_descriptor_is_the_writers_own(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    writer.write("a\n")
    os.write(writer.fd, b"of a child\n")
    writer.write("b\n")

    assert [(offset, stream) for offset, _, stream, _ in noted(read(path))] == [(0, "one"), (13, "one")]


def test_an_event_of_several_lines_has_its_length_and_ends(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    writer.write("a\n")
    writer.write("[ERROR] x\ny\nz\n", is_event=True)
    writer.write("b\n")

    assert noted(read(path)) == [
        (0, 1_000_000, "one", 0),
        (2, 1_000_000, "one", 14),
        (16, 1_000_000, "one", 0),
    ]


def test_a_clock_that_goes_back_is_noted_and_times_never_fall(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    writer.write("a\n")
    clock.now = 900.0
    writer.write("b\n")
    clock.now = 1000.5
    writer.write("c\n")

    assert [ms for _, ms, _, _ in noted(read(path))] == [1_000_000, 1_000_000, 1_000_500]


def test_notes_that_come_in_the_wrong_order_are_put_right() -> None:
    known = Stretches()
    known.add(100, 50, 0, 0)
    known.add(300, 70, 0, 0)
    known.add(200, 90, 1, 0)

    assert list(known.offsets) == [100, 200, 300]
    assert list(known.times) == [50, 70, 70]
    assert list(known.whose) == [0, 1, 0]


def test_what_stood_before_the_log_was_cut_is_forgotten() -> None:
    known = Stretches()
    known.add(0, 50, 0, 0)
    known.add(40 << 20, 60, 0, 0)
    known.add(0, 70, 0, 0)

    assert (list(known.offsets), list(known.times)) == ([0], [70])


def test_an_index_is_of_the_file_that_its_writer_names(tmp_path: Path, clock: Clock) -> None:
    """A crash between the renames of the two leaves an index beside a log that it is not of."""
    path, old = tmp_path / "bill.log", tmp_path / "bill.log.1"
    writer = Writer(path, "one", clock)
    writer.write("a\n")
    index_path(path).rename(index_path(old))
    old.write_text("older\n")
    found = path.stat()

    assert noted(read(old, (found.st_dev, found.st_ino))) == []
    assert read(old, (found.st_dev, found.st_ino)).begun_ms == 0


def test_a_folder_that_was_copied_keeps_its_times(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    Writer(path, "one", clock).write("a\n")
    copy = tmp_path / "copy.log"
    copy.write_bytes(path.read_bytes())
    index_path(copy).write_bytes(index_path(path).read_bytes())

    assert noted(read(copy)) == [(0, 1_000_000, "one", 0)]


def test_what_is_no_note_is_passed_over(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    Writer(path, "one", clock).write("a\n")
    with index_path(path).open("ab") as file:
        file.write(b"\n\xff\xfe\n12\n@ x\n5 6 nobody\n-1 5 zz\n1e9 4 x\n" + b"9" * 50 + b" 1 x\nhalf a li")

    assert noted(read(path)) == [(0, 1_000_000, "one", 0)]


def test_notes_are_read_on_from_where_they_ended(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    writer.write("a\n")
    notes = Notes(index_path(path))
    notes.refresh()
    clock.now = 1001.0
    writer.write("b\n")
    notes.refresh()
    found = path.stat()
    assert len(notes.of((found.st_dev, found.st_ino), ()).offsets) == 2
    index_path(path).unlink()
    notes.refresh()
    assert len(notes.of((found.st_dev, found.st_ino), ()).offsets) == 0


def test_a_file_of_the_user_that_got_the_descriptor_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    fd = writer.index._fd
    os.close(fd)
    theirs = os.open(tmp_path / "theirs", os.O_WRONLY | os.O_CREAT, 0o644)
    if theirs != fd:
        os.dup2(theirs, fd)
    writer.write("a\n")
    clock.now = 1001.0
    writer.write("b\n")

    assert (tmp_path / "theirs").read_bytes() == b""
    assert [offset for offset, *_ in noted(read(path))] == [2]


def half_written(patch: pytest.MonkeyPatch, length: int) -> None:
    """The disk is full: so much of what is written fits."""
    write = os.write
    patch.setattr(os, "write", lambda fd, data: write(fd, data[:length]))


def test_a_torn_note_leaves_no_wrong_times(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bill.log"
    writer = Writer(path, "one", clock)
    writer.write("a" * 41)
    os.write(writer.fd, b"b" * 59)
    clock.now = 1001.0
    with monkeypatch.context() as patch:
        half_written(patch, 2)
        writer.index.wrote(59)
    clock.now = 1002.0
    writer.write("c\n")  # `41` of the torn note and this one's `100` are no `41100`
    clock.now = 1070.0
    writer.write("d\n")

    times = [(offset, ms) for offset, ms, *_ in noted(read(path))]
    assert times == [(0, 1_000_000), (100, 1_002_000), (102, 1_070_000)]


def test_who_comes_after_a_torn_note_begins_a_line_of_its_own(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "bill.log"
    Writer(path, "one", clock)
    with index_path(path).open("ab") as torn:
        torn.write(b"41")
    Writer(path, "two", clock).write("a\n")
    assert noted(read(path)) == [(0, 1_000_000, "two", 0)]


def test_a_writer_that_could_not_say_who_it_is_says_it_later(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bill.log"
    with monkeypatch.context() as patch:
        half_written(patch, 5)
        writer = Writer(path, "one", clock)
    writer.write("a\n")
    assert noted(read(path)) == [(0, 1_000_000, "one", 0)]
