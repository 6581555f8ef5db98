"""`fsync = "always"`: an answer, and what a reader sees, is durable; also where a sync fails, and without a node."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kflow
from kflow import limits
from kflow.broker import ctl, wire
from kflow.broker.ctl import Ctl
from kflow.broker.encode import Part
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.writing import writing
from kflow.errors import NotDurable, PutFailed, StorageError
from tests.deadline import eventually
from tests.faults.test_ingest import LARGE, Speaker, TestNode
from tests.storing import FaultyFiles, Store, everything


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestNode]:
    made = TestNode(tmp_path / "data", fsync="always")
    yield made
    made.files.gate.set()
    made.ingest.close()
    made.loop.close()
    made.log.close()
    for speaker in made.speakers:
        speaker.socket.close()


def stick(node: TestNode) -> None:
    """From now on syncs do not return."""
    node.files.gate.clear()
    node.files.syncs_stick = True


def let_go(node: TestNode) -> None:
    node.files.gate.set()


def rounds(node: TestNode, count: int = 20) -> None:
    for _ in range(count):
        node.round()


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_nothing_is_answered_granted_or_read_before_it_is_durable(node: TestNode, data: bytes) -> None:
    speaker = Speaker(node)
    stick(node)
    speaker.put(1, node.part(data))
    eventually(lambda: node.round() or node.files.syncs)
    rounds(node)
    shard = node.log.shard(node.stream, 0)
    assert shard.tail > 0
    assert (shard.readable_end, shard.readable_counter, node.appended, node.datas()) == (0, 1, [], [])
    assert speaker._taken() is None

    let_go(node)
    eventually(lambda: node.round() or node.appended)
    assert speaker.statuses() == [wire.OK]
    assert (shard.readable_end, shard.readable_counter) == (shard.tail, 2)
    assert node.datas() == [data]


def test_those_who_put_while_a_sync_runs_share_the_next_one(node: TestNode) -> None:
    speakers = [Speaker(node, producer=number) for number in range(1, 10)]
    stick(node)
    speakers[0].put(1, node.part(b"first"))
    eventually(lambda: node.round() or node.files.syncs)
    for speaker in speakers[1:]:
        speaker.put(1, node.part(b"gathers"))
    eventually(lambda: node.round() or node.log.shard(node.stream, 0).next_counter == 10)
    let_go(node)

    assert [speaker.statuses() for speaker in speakers] == [[wire.OK]] * 9
    assert node.files.syncs == 2


def test_a_group_waits_a_moment_for_those_who_have_put_with_it(node: TestNode) -> None:
    speakers = [Speaker(node, producer=number) for number in range(1, 10)]
    stick(node)
    for number, speaker in enumerate(speakers):
        speaker.put(1, node.part(b"together"))
        if not number:
            eventually(lambda: node.round() or node.files.syncs)
    eventually(lambda: node.round() or node.log.shard(node.stream, 0).next_counter == 10)
    let_go(node)
    assert [speaker.statuses() for speaker in speakers] == [[wire.OK]] * 9
    assert node.files.syncs == 2
    for speaker in speakers[:4]:  # half of the eight that were answered together
        speaker.put(2, node.part(b"again"), seen=1)
    assert [speaker.statuses() for speaker in speakers[:4]] == [[wire.OK]] * 4
    assert node.files.syncs == 3
    speakers[0].put(3, node.part(b"alone"), seen=2)  # nobody comes: after 1 ms it goes on alone
    assert speakers[0].statuses() == [wire.OK]
    assert node.files.syncs == 4


def test_answers_of_one_connection_keep_their_order_over_shards(node: TestNode) -> None:
    speaker = Speaker(node)
    stick(node)
    speaker.put(1, node.part(b"slow"))
    eventually(lambda: node.round() or node.files.syncs)
    node.files.syncs_stick = False
    speaker.put(2, node.part(b"durable at once", shard=1))
    eventually(lambda: node.round() or node.datas(1))
    assert speaker._taken() is None

    let_go(node)
    assert [speaker.answer()[0] for _ in range(2)] == [1, 2]


def test_a_block_of_many_parts_is_answered_when_its_last_shard_is_durable(node: TestNode) -> None:
    speaker = Speaker(node)
    speaker.put(1, node.part(b"one"), node.part(b"two", shard=1), node.part(b"three"))
    assert speaker.statuses() == [wire.OK] * 3
    assert node.datas() == [b"one", b"three"]
    assert node.datas(1) == [b"two"]
    assert set(node.appended) == {0, 1}


def test_a_failed_sync_leaves_in_doubt_who_waited_and_refuses_who_comes_later(node: TestNode) -> None:
    told: list[str] = []
    assert node.ingest.commits is not None
    node.ingest.commits._failed = told.append
    speaker, other = Speaker(node), Speaker(node, producer=8)
    node.files.errors["fdatasync"] = errno.EIO
    speaker.put(1, node.part(b"in doubt"), node.part(b"behind it"))  # one sync: it begins when a round is over
    _, statuses, errors = speaker.answer()
    assert [status for *_, status in statuses] == [wire.REFUSED] * 2
    assert [error["type"] for error in errors] == ["NotDurable"] * 2
    assert len(told) == 1
    assert "cannot sync shard 0 of stream orders" in told[0]

    node.files.errors.clear()
    speaker.put(2, node.part(b"unseen"))
    other.put(1, node.part(b"refused"), node.part(b"elsewhere", shard=1))
    assert speaker.statuses() == [wire.REFUSED]
    _, statuses, errors = other.answer()
    assert [status for *_, status in statuses] == [wire.REFUSED, wire.OK]
    assert errors[0]["type"] == "StorageError"
    assert node.datas() == []
    assert node.datas(1) == [b"elsewhere"]


def test_a_sync_that_cannot_be_begun_poisons_nothing(node: TestNode) -> None:
    speaker = Speaker(node)
    real_open = node.files.open

    def failing(path, flags, mode=0o777):
        if str(path).endswith("ctl") and threading.current_thread() is not threading.main_thread():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real_open(path, flags, mode)

    node.files.open = failing
    speaker.put(1, node.part(b"in doubt"))
    assert speaker.answer()[2][0]["type"] == "NotDurable"
    node.files.open = real_open
    speaker.put(2, node.part(b"fine"), seen=1)
    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [b"in doubt", b"fine"]


def test_closing_makes_durable_and_answers_what_was_appended(node: TestNode) -> None:
    speaker = Speaker(node)
    stick(node)
    speaker.put(1, node.part(b"one"))
    eventually(lambda: node.round() or node.files.syncs)
    speaker.put(2, node.part(b"two"))
    eventually(lambda: node.round() or node.log.shard(node.stream, 0).next_counter == 3)
    threading.Timer(0.05, lambda: let_go(node)).start()
    node.ingest.close()

    assert speaker.statuses() == [wire.OK]
    assert speaker.statuses() == [wire.OK]
    assert node.datas() == [b"one", b"two"]


def test_a_stream_that_is_deleted_under_a_sync_is_a_stale_map(node: TestNode) -> None:
    speaker = Speaker(node)
    stick(node)
    speaker.put(1, node.part(b"one"))
    eventually(lambda: node.round() or node.files.syncs)
    speaker.put(2, node.part(b"two"))
    eventually(lambda: node.round() or node.log.shard(node.stream, 0).next_counter == 3)
    node.log.delete_stream("orders")
    let_go(node)
    assert speaker.statuses() == [wire.STALE]
    assert speaker.statuses() == [wire.STALE]


def test_a_resent_block_is_found_only_once_it_is_durable(node: TestNode) -> None:
    first = Speaker(node)
    stick(node)
    first.put(1, node.part(b"once"))
    eventually(lambda: node.round() or node.files.syncs)
    again = Speaker(node)
    again.put(1, node.part(b"once"), tails=[0])
    rounds(node)
    assert again._taken() is None
    let_go(node)
    assert again.statuses() == [wire.OK]
    assert node.datas() == [b"once"]


# ------------------------------------------------------------------------------------------------ without a node


def test_every_segment_and_its_name_is_synced_across_rolls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 700)
    synced: list[str] = []

    class Watched(FaultyFiles):
        def fdatasync(self, fd):
            synced.append(os.readlink(f"/proc/self/fd/{fd}")[-24:])
            super().fdatasync(fd)

        def fsync(self, fd):
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            super().fsync(fd)

    store = Store(tmp_path, fsync="always", files=Watched())
    synced.clear()
    for number in range(5):
        store.put(bytes([number]) * 200)
    store.log.sync()
    assert synced == [f"{0:020d}.seg", f"{544:020d}.seg", f"{1088:020d}.seg", "0"]
    store.put(b"no new name")
    store.log.sync()
    assert synced[4:] == [f"{1088:020d}.seg"]
    assert store.reader().tail == store.log.shard(store.stream, 0).tail


def test_a_put_without_a_node_is_durable_when_it_returns(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, fsync="always", files=files)
    with writing(store.folder) as log:
        log.append(store.stream, store.encoder.encode_many(["k"], [b"one"]))
        assert store.datas() == []
    assert store.datas() == [b"one"]
    files.errors["fdatasync"] = errno.EIO
    with pytest.raises(NotDurable, match="cannot sync shard 0 of stream orders"), writing(store.folder) as log:
        log.append(store.stream, store.encoder.encode_many(["k"], [b"in doubt"]))
    assert store.datas() == [b"one"]
    files.errors.clear()
    with pytest.raises(StorageError, match="a sync of its files failed"), writing(store.folder) as log:
        log.append(store.stream, store.encoder.encode_many(["k"], [b"refused"]))
    store.reopen()  # opening it writes anew what is in doubt
    store.put(b"two")
    store.log.sync()
    assert store.datas() == [b"one", b"in doubt", b"two"]


def test_an_error_of_the_block_itself_is_the_one_that_is_told(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, fsync="always", files=files)
    files.errors["fdatasync"] = errno.EIO
    (part,) = store.encoder.encode_many(["k"], [b"in doubt"])
    with pytest.raises(StorageError, match="damaged part"), writing(store.folder) as log:
        _append_and_fail(log, store, part)
    assert store.datas() == []


def _append_and_fail(log: Log, store: Store, part: Part) -> None:
    log.append(store.stream, [part])
    raise StorageError("damaged part")


def test_a_failed_sync_makes_a_put_unknown_and_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "data", fsync="always")
    store.log.close()
    monkeypatch.setenv("KFLOW_DATA_DIR", str(tmp_path / "data"))
    assert kflow.put("orders", b"one", partition_key="k").sequence_number
    failing = [True]

    def fail(self: object, fd: int) -> None:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)

    monkeypatch.setattr("kflow.broker.files.Files.fdatasync", fail)
    with pytest.raises(PutFailed) as caught:
        kflow.put_many("orders", [(b"two", "k"), (b"three", "k")])
    assert [(entry.status, entry.code) for entry in caught.value.failed] == [("unknown", "NotDurable")] * 2
    failing.clear()
    with pytest.raises(PutFailed) as caught:
        kflow.put_many("orders", [(b"four", "k")])
    assert [entry.status for entry in caught.value.failed] == ["refused"]


def test_threads_that_put_without_a_node_share_syncs_and_lose_nothing(tmp_path: Path) -> None:
    class Counting(FaultyFiles):
        count = 0

        def fdatasync(self, fd):
            Counting.count += 1
            eventually(lambda: len(entered) >= 4 or done.is_set(), seconds=5)
            super().fdatasync(fd)

    entered: list[int] = []
    done = threading.Event()
    store = Store(tmp_path, fsync="always", files=Counting())
    before = Counting.count

    def put(number: int) -> None:
        with writing(store.folder, 30) as log:
            log.append(store.stream, store.encoder.encode_many(["k"], [b"%d" % number]))
        entered.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    begun = threading.Timer(0.2, done.set)
    begun.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun.join()
    assert sorted(store.datas()) == [b"%d" % number for number in range(8)]
    assert Counting.count - before < 8


def test_a_folder_that_is_kept_with_always_from_now_on_is_made_durable_before_it_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="none", shards=3)
    store.put(b"one")
    store.log.close()
    folder = DataFolder.open(tmp_path, fsync="always")
    log = Log(folder, clock=store.clock)
    log.recover_all()
    assert everything(ShardReader(folder, store.stream, 0)) + everything(ShardReader(folder, store.stream, 1)) + (
        everything(ShardReader(folder, store.stream, 2))
    ) == [b"one"]
    for index in range(3):
        shard = log.shard(store.stream, index)
        assert (shard.readable_end, shard.readable_counter) == (shard.tail, shard.next_counter)
    log.close()


def test_a_durable_tail_of_a_page_from_an_older_version_gets_its_counter(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="interval")
    store.put(b"one", b"two")
    store.log.sync()
    words = Ctl.open(os.fspath(store.shard_path), store.files, write=True).words
    words[ctl.DURABLE_COUNTER] = 0
    store.log.close()
    folder = DataFolder.open(tmp_path, fsync="always")
    log = Log(folder)
    log.recover_all()
    assert words[ctl.DURABLE_COUNTER] == 3
    log.close()
