"""The ledger of a record queue: what it keeps, finds and forgets."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from kflow.broker import tablefile
from kflow.broker.files import FILES
from kflow.broker.recordqueues import Ledger, Row, ledger_path
from kflow.errors import Damaged, StorageError, StorageFull
from kflow.records import Position


def row(counter: int, *, shard: int = 0, visible_ms: int = 100, arrival_ms: int = 50, receives: int = 1, dead: int = 0):
    return Row(shard, counter, 0, counter - 1, arrival_ms, receives, 60, visible_ms, 7, dead)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "q.db")


@pytest.fixture
def ledger(path: str):
    opened = Ledger(path, fsync="none", create=True)
    yield opened
    opened.close()


def test_what_a_turn_kept_is_there_when_the_ledger_is_opened_again(path: str) -> None:
    ledger = Ledger(path, fsync="always", create=True)
    with ledger.turn():
        ledger.move(0, Position(640, 2))
        ledger.move(0, Position(700, 0))
        ledger.add([row(1), row(2), row(3)])
        ledger.change([row(2, receives=5)])
        ledger.drop(row(3))
    ledger.close()
    again = Ledger(path, fsync="none")
    assert again.cursors() == {0: Position(700, 0)}
    assert again.find(0, 2) == row(2, receives=5)
    assert again.find(0, 3) is None
    assert again.count == 2
    again.close()


def test_a_turn_that_raises_keeps_nothing(ledger: Ledger) -> None:
    with pytest.raises(StorageError, match="UNIQUE"), ledger.turn():
        ledger.add([row(1), row(1)])
    assert (ledger.find(0, 1), ledger.count) == (None, 0)
    with ledger.turn():
        ledger.add([row(1)])
    assert ledger.count == 1


def test_visible_rows_come_the_longest_waiting_first(ledger: Ledger) -> None:
    with ledger.turn():
        ledger.add(
            [row(1, visible_ms=300), row(2, visible_ms=200), row(3, visible_ms=100, dead=1), row(4, visible_ms=150)]
        )
    assert [each.counter for each in ledger.visible(250, 10, dead=False)] == [4, 2]
    assert [each.counter for each in ledger.visible(250, 1, dead=False)] == [4]
    assert [each.counter for each in ledger.visible(250, 10, dead=True)] == [3]
    assert ledger.next_visible_ms(250) == 300
    assert ledger.next_visible_ms(300) is None
    assert ledger.in_flight(150) == 2


def test_rows_received_too_often_are_buried_when_their_time_is_over(ledger: Ledger) -> None:
    with ledger.turn():
        ledger.add([row(1, visible_ms=100, receives=3), row(2, visible_ms=101, receives=3), row(3, visible_ms=100)])
        ledger.bury(0, 100, 3)
    assert [ledger.find(0, counter).dead for counter in (1, 2, 3)] == [1, 0, 0]


def test_rows_of_records_that_arrived_too_early_expire(ledger: Ledger) -> None:
    with ledger.turn():
        ledger.add([row(1, arrival_ms=10), row(2, arrival_ms=20), row(1, shard=5, arrival_ms=5, dead=1)])
        ledger.expire(20)
    assert ledger.count == 1
    assert ledger.find(0, 2) is not None


def test_a_ledger_that_is_lost_is_not_made_up(path: str) -> None:
    with pytest.raises(StorageError, match="cannot open the ledger"):
        Ledger(path, fsync="none")
    assert not Path(path).exists()


def test_what_is_no_ledger_is_damage_and_says_what_to_do(path: str) -> None:
    Path(path).write_bytes(b"x" * 8192)
    with pytest.raises(Damaged, match="delete the queue and create it again"):
        Ledger(path, fsync="none")


def test_a_ledger_of_which_nothing_is_left_is_damage_too(path: str) -> None:
    for _ in range(2):
        Path(path).touch()
        with pytest.raises(Damaged, match=r"is empty; .*delete the queue and create it again"):
            Ledger(path, fsync="none")


def test_a_ledger_of_another_version_is_refused(path: str) -> None:
    Ledger(path, fsync="none", create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StorageError, match="another version of kflow"):
        Ledger(path, fsync="none")


def test_a_full_disk_refuses_the_turn_and_keeps_what_was(ledger: Ledger) -> None:
    with ledger.turn():
        ledger.add([row(1)])
    (pages,) = ledger._sql.execute("PRAGMA page_count").fetchone()
    ledger._sql.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StorageFull, match="free some space"), ledger.turn():
        ledger.add([row(counter) for counter in range(2, 5000)])
    assert ledger.count == 1
    assert ledger.find(0, 1) == row(1)


def test_a_ledger_is_removed_with_all_its_files(tmp_path: Path, path: str) -> None:
    folder = os.fspath(tmp_path)
    Ledger(path, fsync="none", create=True).close()
    for name in ("q.db-wal", "other.db-wal", "q.json"):
        (tmp_path / name).write_bytes(b"")
    assert ledger_path(folder, "q") == path
    tablefile.remove(path, FILES)
    assert sorted(os.listdir(folder)) == ["other.db-wal", "q.json"]
