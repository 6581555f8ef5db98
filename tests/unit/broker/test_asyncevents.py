"""The file of asynchronous invocations: what is due, and that a turn is kept as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.asyncevents import TELLING, Add, Again, Clear, Drop, Event, EventFile, Over, Wanted
from kflow.errors import Damaged, StorageError

BILL = "arn:aws:lambda:us-east-1:123456789012:function:bill"
SHIP = "arn:aws:lambda:us-east-1:123456789012:function:ship"


def event(payload: bytes, function: str = BILL) -> Event:
    return Event(0, function, "live", b"\1" * 16, 1000, 0, 0, b"", payload)


def opened(folder: Path) -> EventFile:
    return EventFile(str(folder / "events.db"), "none")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[EventFile]:
    with contextlib.closing(opened(tmp_path)) as made:
        yield made


def payloads(file: EventFile, lane: str = BILL, *, now_ms: int = 1000, most: int = 10) -> list[bytes]:
    found = file.take([], {lane: Wanted(most, ())}, now_ms)[lane]
    return [each.payload for each in found.events]


def test_events_are_found_in_the_order_in_which_they_came(file: EventFile) -> None:
    found = file.take([Add(event(b"1")), Add(event(b"2")), Add(event(b"3", SHIP))], {BILL: Wanted(1, ())}, 1000)

    assert found[BILL].events == [Event(1, BILL, "live", b"\1" * 16, 1000, 0, 0, b"", b"1")]
    assert found[BILL].next_ms == 1000
    assert payloads(file) == [b"1", b"2"]
    assert payloads(file, SHIP) == [b"3"]
    assert sorted(file.lanes()) == [BILL, SHIP]
    assert file.count == 3


def test_what_is_busy_is_not_found_and_what_is_later_is_known_of(file: EventFile) -> None:
    file.take([Add(event(b"1")), Add(event(b"2")), Add(event(b"3"))], {}, 1000)
    file.take([Again(2, 61_000, 1, 0, b"why")], {}, 1000)

    found = file.take([], {BILL: Wanted(5, {1})}, 1000)[BILL]
    assert [each.number for each in found.events] == [3]
    assert found.next_ms == 61_000

    found = file.take([], {BILL: Wanted(5, {1, 3})}, 61_000)[BILL]
    assert found.events == [Event(2, BILL, "live", b"\1" * 16, 1000, 1, 0, b"why", b"2")]
    assert found.next_ms is None


def test_what_is_over_is_told_of_and_then_dropped(file: EventFile) -> None:
    file.take([Add(event(b"1"))], {}, 1000)

    found = file.take([Over(1, 3, b"note")], {BILL: Wanted(5, ()), TELLING: Wanted(5, ())}, 2000)
    assert found[BILL].events == []
    assert found[TELLING].events == [Event(1, BILL, "live", b"\1" * 16, 1000, 3, 0, b"note", b"1")]

    assert file.take([Drop(1)], {TELLING: Wanted(5, ())}, 2000)[TELLING] == ([], None)
    assert file.count == 0
    file.take([Drop(1), Again(1, 0, 0, 0, b""), Over(1, 1, b"")], {}, 2000)
    assert file.lanes() == []


def test_what_was_taken_in_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.take([Add(event(b"1")), Add(event(b"2"))], {}, 1000)
    file.take([Drop(1)], {}, 1000)
    file.close()

    again = opened(tmp_path)
    assert again.count == 1
    assert payloads(again) == [b"2"]
    again.take([Add(event(b"3"))], {}, 1000)
    assert [each.number for each in again.take([], {BILL: Wanted(5, ())}, 1000)[BILL].events] == [2, 3]
    again.take([Clear()], {}, 1000)
    assert again.count == 0
    again.close()


def test_a_file_that_is_none_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"this is no database, and longer than a page header is" * 100)
    with pytest.raises(Damaged, match="remove it"):
        opened(tmp_path)
    assert (tmp_path / "events.db").read_bytes().startswith(b"this is no")


def test_where_what_is_due_cannot_be_looked_at_nothing_is_changed(
    file: EventFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(file, "_find", failing)
        with pytest.raises(StorageError, match="disk I/O error"):
            file.take([Add(event(b"1"))], {BILL: Wanted(1, ())}, 1000)
    assert file.count == 0
    assert payloads(file) == []
