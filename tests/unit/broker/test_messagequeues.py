"""One queue's file: what is kept of messages, and what a kill or a full disk leaves."""

from __future__ import annotations

import os
import sqlite3

import pytest

from kflow.broker.files import FILES
from kflow.broker.messagequeues import ASIDE_MS, Counts, MessageStore, NeverMade, New, Recent
from kflow.broker.tablefile import remove
from kflow.errors import Damaged, StorageError, StorageFull


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "jobs.db")


@pytest.fixture
def store(path):
    made = MessageStore(path, fsync="none", create=b"{}")
    yield made
    made.close()


def new(body, visible_ms=0, **more):
    return New(body.encode().ljust(16), body, b"more", 0, more.pop("aged_ms", 0), visible_ms, **more)


def add(store, *messages):
    with store.turn():
        return store.add(messages)


def test_messages_come_back_as_they_were_added(store):
    assert add(store, new("a"), new("b", receives=3, first_ms=7)) == [1, 2]
    first, second = store.visible(0, 10)
    assert (first.id, first.body, first.more) == (b"a".ljust(16), "a", b"more")
    assert second.state == (2, None, 0, 0, 0, 3, 7, 0)
    assert store.find(2) == second.state
    assert store.read(1) == first
    assert store.find(3) is store.read(3) is None


def test_a_turn_that_fails_did_not_happen(store):
    add(store, new("a"))

    def fail():
        with store.turn():
            store.add([new("b")])
            store.remove([1])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.count == 1
    assert [each.body for each in store.visible(0, 10)] == ["a"]
    (number,) = add(store, new("c"))
    assert number > 2  # nobody knows who was told of 2


def test_a_number_is_never_given_twice(path):
    store = MessageStore(path, fsync="none", create=b"{}")
    (first,) = add(store, new("a"))
    with store.turn():
        store.remove([first])
    store.close()
    store = MessageStore(path, fsync="none")
    (second,) = add(store, new("a"))
    store.close()
    assert second > first


def test_a_second_message_of_one_origin_is_not_added(store):
    assert add(store, new("a", origin=b"x")) == [1]
    assert add(store, new("a", origin=b"x", group="g"), new("b")) == [0, 3]
    assert store.count == 2
    assert store.ready(0, 10) == []
    with store.turn():
        store.remove([1])
    assert add(store, new("a", origin=b"x")) == [4]


def test_what_is_hidden_is_counted_by_what_it_waits_for(store):
    add(store, new("visible"), new("delayed", 50), new("flying"), new("aside"))
    states = [store.find(number) for number in (3, 4)]
    with store.turn():
        store.hide([
            states[0]._replace(visible_ms=60, receives=1, first_ms=1, received_ms=1),
            states[1]._replace(visible_ms=ASIDE_MS),
        ])  # fmt: skip
    assert store.counts(10) == Counts(1, 1, 1)
    assert store.next_ms(10, ordered=False) == 50
    assert store.next_ms(55, ordered=False) == 60
    assert store.next_ms(60, ordered=False) is None
    with store.turn():
        store.bring_back()
    assert store.counts(10) == Counts(2, 1, 1)


def test_a_group_is_ready_when_its_oldest_message_is(store):
    add(store, new("a1", group="a"), new("a2", group="a"), new("b1", 5, group="b"))
    assert store.ready(0, 10) == [1]
    assert [each.body for each in store.oldest_of(1, 0, 10)] == ["a1", "a2"]
    assert [each.body for each in store.oldest_of(1, 1, 10)] == ["a2"]
    with store.turn():
        store.hide([store.find(1)._replace(visible_ms=8)])
        store.regroup([1], 0, served=True)
    assert store.ready(5, 10) == [2]
    assert store.next_ms(5, ordered=True) == 8
    assert store.ready(8, 10) == [2, 1]
    with store.turn():
        store.remove([1, 2])
        store.regroup([1], 8)
    assert store.ready(8, 10) == [2]
    assert add(store, new("a3", group="a")) == [4]
    assert len(store.ready(8, 10)) == 2


def test_a_group_of_which_all_is_set_aside_is_not_ready(store):
    add(store, new("a1", group="a"))
    with store.turn():
        store.hide([store.find(1)._replace(visible_ms=ASIDE_MS)])
        store.regroup([1], 5)
    assert store.ready(5, 10) == []
    assert store.next_ms(5, ordered=True) is None
    add(store, new("a2", group="a"))
    assert store.ready(5, 10) == [1]
    assert [each.body for each in store.oldest_of(1, 0, 10)] == ["a2"]


def test_what_is_too_old_goes_with_its_group(store):
    add(store, new("a1", group="a"), new("b1", group="b", aged_ms=10), new("a2", group="a", aged_ms=10))
    with store.turn():
        assert store.expire(5, 20)
        assert not store.expire(5, 20)
    assert store.count == 2
    assert [each.body for grouped in store.ready(20, 10) for each in store.oldest_of(grouped, 0, 9)] == ["a2", "b1"]


def test_what_is_old_already_when_it_comes_goes_too(path, store):
    add(store, new("a", aged_ms=500))
    with store.turn():
        assert not store.expire(400, 400)
    add(store, new("dead letter", aged_ms=100))
    with store.turn():
        assert store.expire(400, 400)
        assert not store.expire(450, 450)
    assert [each.body for each in store.visible(0, 10)] == ["a"]

    def fail():
        with store.turn():
            store.expire(600, 600)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    store.close()
    again = MessageStore(path, fsync="none")
    with again.turn():
        assert again.expire(600, 600)
    assert again.count == 0
    again.close()


def test_turns_are_quick_as_long_as_nothing_expires_is_long_or_waits_for_the_disk(path, store):
    assert not store.is_quick(10, reads=1, most=100)  # nobody has looked what expires
    with store.turn():
        store.expire(10, 10)
    assert store.is_quick(10, reads=1, most=100)
    add(store, new("x" * 60, aged_ms=20))
    assert store.is_quick(10, reads=1, most=100)
    assert not store.is_quick(10, reads=2, most=100)
    assert not store.is_quick(21, reads=1, most=100)
    with store.turn():
        store.remove([1])
    assert store.is_quick(10, reads=2, most=100)
    for _ in range(40):
        add(store, new("x" * 65_536, aged_ms=20))
    assert not store.is_quick(10, reads=0, most=100)  # what was written is to be moved into the file
    store.tend()
    assert not store.is_quick(10, reads=0, most=100)  # the next that writes begins the log, and waits for the disk
    add(store, new("x", aged_ms=20))
    assert store.is_quick(10, reads=0, most=100)
    store.close()
    again = MessageStore(path, fsync="none")
    with again.turn():
        again.expire(10, 10)
        again.remove([99])
    assert not again.is_quick(10, reads=0, most=100)  # as above
    add(again, new("x", aged_ms=20))
    assert not again.is_quick(10, reads=1, most=100)  # nobody knows how long the kept ones are
    assert again.is_quick(10, reads=0, most=100)
    again.close()


def test_what_is_kept_beside_a_body_is_read_too(store):
    with store.turn():
        store.expire(10, 10)
        store.add([new("x" * 50, aged_ms=20)._replace(more=b"y" * 50)])
    assert store.is_quick(10, reads=1, most=100)
    assert not store.is_quick(10, reads=1, most=99)


def test_after_a_turn_that_failed_nothing_is_taken_for_quick(store):
    with store.turn():
        store.expire(10, 10)
        store.add([new("x" * 100, aged_ms=20)])

    def fail():
        with store.turn():
            store.remove([1])
            store.add([new("x", aged_ms=20)])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not store.is_quick(10, reads=0, most=100)  # nobody has looked what expires
    with store.turn():
        store.expire(10, 10)
    assert not store.is_quick(10, reads=0, most=100)  # the disk may be full: there is room once all is moved
    store.tend()
    add(store, new("x", aged_ms=20))
    assert store.is_quick(10, reads=0, most=100)
    assert not store.is_quick(10, reads=1, most=100)  # the long one is still there


def test_what_expires_or_is_purged_is_moved_into_the_file_too(store, monkeypatch):
    checkpoints = []
    monkeypatch.setattr(store, "checkpoint", lambda: checkpoints.append(store.count) or True)
    add(store, *[new("x", aged_ms=20) for _ in range(240)])
    store.tend()
    assert checkpoints == []
    with store.turn():
        store.expire(21, 21)
    store.tend()
    assert checkpoints == [0]
    add(store, *[new("x", aged_ms=20) for _ in range(240)])
    with store.turn():
        store.clear()
    store.tend()
    assert checkpoints == [0, 0]


def test_while_checkpoints_fail_no_turn_is_quick_for_sqlite_tries_again_in_any(store, monkeypatch):
    with store.turn():
        store.expire(10, 10)
    works = iter([False, True])
    monkeypatch.setattr(store, "checkpoint", lambda: next(works))
    for is_quick in (False, True):
        add(store, *[new("x", aged_ms=20) for _ in range(250)])
        store.tend()
        add(store, new("x", aged_ms=20))
        assert store.is_quick(10, reads=0, most=100) is is_quick


def test_with_always_no_turn_is_quick(path):
    store = MessageStore(path, fsync="always", create=b"{}")
    with store.turn():
        store.expire(10, 10)
    assert not store.is_quick(10, reads=0, most=100)
    store.close()


def test_a_checkpoint_moves_what_was_written_into_the_file(path, store):
    before = os.path.getsize(path)
    for _ in range(40):
        add(store, new("x" * 65_536))
    assert os.path.getsize(path) == before
    store.tend()
    assert os.path.getsize(path) > 40 * 65_536


def test_a_turn_that_cannot_be_kept_did_not_happen_and_says_why(store):
    add(store, new("a"))
    store._sql.executescript(
        "PRAGMA foreign_keys = ON; CREATE TABLE other (number REFERENCES messages DEFERRABLE INITIALLY DEFERRED)"
    )

    def fail():
        with store.turn():
            store.add([new("b")])
            store._sql.execute("INSERT INTO other VALUES (99)")  # seen when it is committed

    with pytest.raises(StorageError, match=r"cannot write the queue .*jobs.db: FOREIGN KEY"):
        fail()
    assert store.count == 1
    assert [each.body for each in store.visible(0, 10)] == ["a"]
    add(store, new("c"))
    assert store.count == 2


def test_what_was_sent_lately_is_forgotten_in_time(store):
    with store.turn():
        store.remember("k", 10, Recent(1, b"x"))
    assert store.recent("k", 9) == Recent(1, b"x")
    assert store.recent("k", 10) is None
    with store.turn():
        store.forget(10)
    assert store.recent("k", 9) is None


def test_clearing_leaves_facts_alone(store):
    add(store, new("a", group="g"))
    with store.turn():
        store.remember("k", 10, Recent(1, b"x"))
        store.clear()
    assert (store.count, store.recent("k", 0), store.ready(0, 1)) == (0, None, [])
    assert store.fact("queue") == b"{}"
    assert add(store, new("b")) == [2]


def test_a_file_is_made_once_and_opened_only_where_it_is(path, store):
    with pytest.raises(StorageError, match="cannot make the queue's file"):
        MessageStore(path, fsync="none", create=b"{}")
    with pytest.raises(StorageError, match="cannot open the queue"):
        MessageStore(path + "x", fsync="none")


def test_what_is_no_queue_is_told_apart(tmp_path):
    (tmp_path / "empty.db").touch()
    with pytest.raises(NeverMade):
        MessageStore(str(tmp_path / "empty.db"), fsync="none")
    (tmp_path / "bad.db").write_bytes(b"nix" * 1000)
    with pytest.raises(Damaged, match="delete the queue and create it again"):
        MessageStore(str(tmp_path / "bad.db"), fsync="none")
    later = sqlite3.connect(tmp_path / "later.db")
    later.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(StorageError, match="another version of kflow"):
        MessageStore(str(tmp_path / "later.db"), fsync="none")


@pytest.mark.parametrize(
    ("replaced", "text"), [(False, "was taken away under kflow"), (True, "was replaced under kflow")]
)
def test_a_file_that_is_taken_away_is_said_before_more_is_lost(path, store, replaced, text):
    add(store, new("a"))
    os.rename(path, f"{path}.away")
    if replaced:
        with open(path, "wb"):
            pass
    store._look_s = 0  # it looks once a second
    with pytest.raises(StorageError, match=text):
        add(store, new("b"))
    os.replace(f"{path}.away", path)
    store._look_s = 0
    assert add(store, new("c")) == [2]
    assert store.count == 2


def test_a_quota_is_told_as_a_full_disk(path, store, monkeypatch):
    class Quota(sqlite3.OperationalError):
        sqlite_errorname = "SQLITE_IOERR_WRITE"

    def fail():
        with store.turn():
            raise Quota("disk I/O error")

    with pytest.raises(StorageFull, match="free some space or raise the quota"):
        fail()


def test_a_full_disk_refuses_a_turn_and_keeps_the_rest(store):
    add(store, new("a"))
    (pages,) = store._one("PRAGMA page_count")
    store._one(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull, match="free some space"):
        add(store, *(new(f"{number}" + "x" * 4000) for number in range(10)))
    assert store.count == 1
    store._one("PRAGMA max_page_count = 100000")
    add(store, new("b"))
    assert [each.body for each in store.visible(0, 10)] == ["a", "b"]


@pytest.mark.parametrize(("fsync", "level"), [("none", 0), ("interval", 1), ("always", 2)])
def test_a_policy_says_when_a_turn_is_durable(path, fsync, level):
    store = MessageStore(path, fsync=fsync, create=b"{}")
    assert store._one("PRAGMA synchronous") == (level,)
    store.close()


def test_a_removed_file_leaves_nothing(path, store, tmp_path):
    add(store, new("a"))
    store.close()
    remove(path, FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_turn_that_had_no_room_has_some_once_what_was_written_before_is_moved(store, monkeypatch):
    moved = []
    monkeypatch.setattr(store, "checkpoint", lambda: moved.append(True) or True)
    add(store, new("x"))
    store._sql.execute("PRAGMA max_page_count = 16")
    store.tend()
    assert moved == []
    with pytest.raises(StorageFull):
        add(store, new("x" * 100_000))
    store.tend()
    assert moved == [True]
