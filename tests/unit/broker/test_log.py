"""The log as its one writer sees it."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import sqlite3
import threading
import weakref
from pathlib import Path

import msgspec
import pytest

from kflow.broker import catalogue, ctl, streammap
from kflow.broker.ctl import Ctl
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.clock import ManualClock
from kflow.errors import (
    DataFolderBusy,
    InvalidArgument,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    StaleMap,
    StorageError,
    StorageFull,
    ValidationFailed,
)
from tests.storing import FaultyFiles, Store, everything, held, open_descriptors, read_all

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def words(store: Store, shard: int = 0) -> memoryview:
    return Ctl.open(os.fspath(store.folder.shard_dir(store.stream, shard)), store.files, write=True).words


def test_a_stream_has_its_map_on_disk(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    found = json.loads((store.folder.stream_dir(store.stream) / "map.json").read_text())
    open_shard = {"parents": [], "created_s": 1_700_000_000, "closed": None}
    assert re.fullmatch("[0-9a-f]{8}", found.pop("crc"))
    assert found == {
        "name": "orders",
        "id": f"{store.stream.id:016x}",
        "created_s": 1_700_000_000,
        "generation": 1,
        "deleted": False,
        "retention_hours": 24,
        "max_record_bytes": 1048576,
        "mode": "PROVISIONED",
        "shards": [
            {"index": 0, "start": "0" * 32, "end": "7" + "f" * 31, **open_shard},
            {"index": 1, "start": "8" + "0" * 31, "end": "f" * 32, **open_shard},
        ],
    }


def test_a_stream_is_made_although_the_catalogue_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    live_maps, looks = store.folder.live_maps, iter(range(9))

    def looked() -> list[StreamMap]:
        if next(looks):
            raise StorageError("cannot list the streams: too many open files")
        return live_maps()

    monkeypatch.setattr(store.folder, "live_maps", looked)
    assert store.log.create_stream("other", 1).name == "other"


def test_a_stream_that_exists_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ResourceInUse, match=r"Stream orders under account 123456789012 already exists."):
        store.log.create_stream("orders", 3)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("a b", 1), ValidationFailed, r"'a b' at 'streamName' .*pattern: \[a-zA-Z0-9_.-\]\+"),
        (("", 1), ValidationFailed, "'' at 'streamName'"),
        (("x" * 129, 1), ValidationFailed, "length less than or equal to 128"),
        (("../up", 1), ValidationFailed, "pattern"),
        (("s", 0), ValidationFailed, "'0' at 'shardCount' .*value greater than or equal to 1"),
        (("s", 1001), LimitExceeded, "1001 shards are more than the 1000"),
    ],
)
def test_streams_that_aws_refuses_are_refused(tmp_path: Path, arguments, error, text: str) -> None:
    store = Store(tmp_path)
    with pytest.raises(error, match=text):
        store.log.create_stream(*arguments)
    assert [found.name for found in store.folder.maps()] == ["orders"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retention_hours": 23}, InvalidArgument, r"Minimum allowed .* is 24 hours. .*\(23 hours\) is too short."),
        ({"retention_hours": 8761}, InvalidArgument, "Maximum allowed retention period is 8760 hours"),
        ({"max_record_bytes": 1 << 19}, ValidationFailed, "'512' at 'maxRecordSizeInKiB' .*than or equal to 1024"),
        ({"max_record_bytes": 11 << 20}, ValidationFailed, "'11264' at 'maxRecordSizeInKiB' .*or equal to 10240"),
    ],
)
def test_settings_of_a_stream_have_aws_ranges(tmp_path: Path, options, error, text: str) -> None:
    with pytest.raises(error, match=text):
        Store(tmp_path).log.create_stream("s", 1, **options)


def test_a_thousand_shards_take_a_thousand_records_with_256_open(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=1000, fsync="interval")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= 1024
    parts = [store.encoder.encode_one(b"%d" % n, "k", (2**128 // 1000) * n + 5) for n in range(1000)]
    answers = store.log.append(store.stream, parts)
    assert answers == [(1, 1_700_000_000_000)] * 1000
    assert len(open_descriptors(tmp_path, [".seg"])) == 256
    assert len(store.log.fds()) == 256
    store.log.sync()
    assert [words(store, shard)[ctl.DURABLE] for shard in (0, 500, 999)] == [90, 92, 92]
    store.log.append(store.stream, parts)
    assert store.datas(0) == [b"0", b"0"]
    assert store.datas(999) == [b"999", b"999"]


def test_records_of_ten_mebibytes_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    large = store.log.create_stream("large", 1, max_record_bytes=10 << 20)
    encoder = Encoder(large)
    data = os.urandom((10 << 20) - 1)
    store.log.append(large, encoder.encode_many(["k", "k", "k"], [b"before", data, b"after"]))
    assert [data for _, data in read_all(store.folder, large)] == [b"before", data, b"after"]


def test_a_stream_made_again_never_repeats_a_sequence_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen = {store.stream.created_s}
    for _ in range(3):
        seen.add(store.log.reset_stream("orders").created_s)
    store.log.delete_stream("orders")
    seen.add(Log(DataFolder.open(tmp_path), clock=store.clock).create_stream("orders", 1).created_s)
    assert seen == {1_700_000_000 + number for number in range(5)}


def test_deleting_removes_the_files_and_the_stream(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    store.log.delete_stream("orders")
    assert store.folder.maps() == []
    assert [path.name for path in (tmp_path / "streams").iterdir()] == [".last-created"]
    assert list((tmp_path / "trash").iterdir()) == []
    assert open_descriptors(tmp_path, [".seg"]) == []
    with pytest.raises(ResourceNotFound):
        store.put(b"2")
    with pytest.raises(ResourceNotFound):
        store.log.delete_stream("orders")


def test_a_stream_is_deleted_though_a_thread_lets_go_of_a_shard_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"x")
    used = [store.log.shard(store.stream, 0)]
    store.log._shards.clear()  # evicted: who uses it has the last reference

    class Shards(weakref.WeakValueDictionary):
        def __iter__(self):
            keys = list(super().__iter__())
            used.clear()
            return iter(keys)

    store.log._alive = Shards(store.log._alive)
    store.log.delete_stream("orders")
    assert used == []
    assert store.folder.maps() == []


def test_deleting_can_leave_the_files_for_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    store.log.delete_stream("orders", unlink=False)
    assert store.folder.maps() == []
    assert len(list((tmp_path / "trash").iterdir())) == 1
    store.log.empty_trash()
    assert list((tmp_path / "trash").iterdir()) == []


def test_resetting_keeps_shards_and_settings_and_drops_records(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=3, retention_hours=48)
    store.put(b"1")
    made = store.log.reset_stream("orders")
    assert (len(made.shards), made.retention_hours, made.name) == (3, 48, "orders")
    assert made.id != store.stream.id
    assert store.folder.map("orders") == made
    assert read_all(store.folder, made) == []


@pytest.mark.parametrize("call", ["replace", "fsync", "pwrite"])
def test_a_stream_that_cannot_be_written_leaves_nothing(tmp_path: Path, call: str) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    files.errors[call] = errno.ENOSPC
    with pytest.raises(StorageFull, match="disk is full"):
        store.log.create_stream("more", 2)
    files.errors.clear()
    assert [found.name for found in store.folder.maps()] == ["orders"]
    assert len(list((tmp_path / "streams").glob("*.*"))) == 2  # orders and .last-created
    store.log.create_stream("more", 2)


def test_what_a_crash_left_is_removed_at_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    files = FaultyFiles()
    other = Log(DataFolder.open(tmp_path, files=files), clock=store.clock)
    gone = other.create_stream("gone", 1)
    files.errors["rename"] = errno.EIO  # dies between the mark and the move
    with pytest.raises(StorageError):
        other.delete_stream("gone")
    older = other.create_stream("twice", 1)
    with pytest.raises(StorageError):
        other.reset_stream("twice")
    (tmp_path / "streams/half.0000000000000001/0").mkdir(parents=True)
    (tmp_path / "trash/older").mkdir()
    (tmp_path / "trash/torn.kept").mkdir()
    store.reopen()
    store.log.recover_all()
    names = sorted(path.name for path in (tmp_path / "streams").iterdir())
    assert names == sorted([".last-created", store.stream.folder_name, store.folder.map("twice").folder_name])
    assert gone.folder_name not in names
    assert older.folder_name not in names
    assert [path.name for path in (tmp_path / "trash").iterdir()] == ["torn.kept"]
    assert store.datas() == [b"1"]


def test_starting_recovers_only_the_shards_that_need_it(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=4)
    store.put(b"1")
    words(store, 3)[ctl.DIRTY] = 1
    store.reopen()
    store.log.recover_all()
    assert words(store, 3)[ctl.DIRTY] == 0
    assert list(store.log._shards) == [(store.stream.id, 3)]


def test_a_failed_part_fails_later_parts_of_its_shard_and_no_others(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, shards=2, files=files)
    low, high = (store.encoder.encode_one(b"x", "k", hash_key) for hash_key in (0, 2**128 - 1))
    store.log.append(store.stream, [low, high])
    files.short = 5
    answers = store.log.append_each(store.stream, [low, high, low])
    assert isinstance(answers[0], StorageFull)
    assert answers[1] == (2, 1_700_000_000_000)
    assert answers[2] is answers[0]
    files.short = 5
    with pytest.raises(StorageFull):
        store.log.append(store.stream, [low])
    assert store.log.append(store.stream, [low]) == [(2, 1_700_000_000_000)]


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ResourceNotFound, match="Could not find shard shardId-000000000001 in stream orders"):
        store.log.shard(store.stream, 1)


def test_a_block_sent_again_is_found_from_the_tail_its_producer_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kflow.limits.SEGMENT_BYTES", 400)
    store = Store(tmp_path)
    part = store.encoder.encode_one(bytes(100), "k")
    tails = []
    for frame in range(10):
        tails.append(store.log.shard(store.stream, 0).tail)
        store.log.append(store.stream, [part, part], 99, frame)
    find = store.log.find
    assert find(store.stream, 0, 99, 4, 0, tails[4]) == (9, 1_700_000_000_000)
    assert find(store.stream, 0, 99, 4, 1, tails[4]) == (10, 1_700_000_000_000)
    assert find(store.stream, 0, 99, 9, 1, 0) == (20, 1_700_000_000_000)
    assert find(store.stream, 0, 99, 3, 1, tails[4]) is None
    assert find(store.stream, 0, 98, 4, 0, tails[4]) is None
    assert find(store.stream, 0, 99, 10, 0, store.log.shard(store.stream, 0).tail) is None
    with pytest.raises(StorageError, match="no valid block at offset 3"):
        find(store.stream, 0, 99, 4, 0, 3)


def test_the_catalogue_is_made_anew_from_the_maps(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    (tmp_path / "catalogue.db").write_bytes(b"this is no database, but it is long enough to be looked at" * 30)
    store.log.create_stream("billing", 1)
    with sqlite3.connect(tmp_path / "catalogue.db") as database:
        assert database.execute("SELECT name, open_shards, mode FROM streams").fetchall() == [
            ("billing", 1, "PROVISIONED"),
            ("orders", 2, "PROVISIONED"),
        ]
        shards = database.execute("SELECT shard_id, starting_hash_key FROM shards WHERE stream = 'orders'")
        assert shards.fetchall() == [
            ("shardId-000000000000", "0"),
            ("shardId-000000000001", "170141183460469231731687303715884105728"),
        ]
    database.close()


def test_the_catalogue_is_found_whatever_its_folder_is_called(tmp_path: Path) -> None:
    store = Store(tmp_path / "what?#100%41")
    maps = store.folder.live_maps()
    assert catalogue.difference(store.folder.path, maps) == ""
    assert catalogue.recall(store.folder.path, store.stream.id) == store.stream


def test_the_catalogue_goes_the_way_of_all_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    before = (tmp_path / "catalogue.db").read_bytes()
    files.errors, files.only = {"replace": errno.ENOSPC}, "catalogue.db"
    with sqlite3.connect(tmp_path / "catalogue.db") as reader:
        store.log.create_stream("billing", 1)
        assert "catalogue not written error=[Errno 28]" in caplog.text
        assert (tmp_path / "catalogue.db").read_bytes() == before
        files.errors = {}
        store.log.create_stream("other", 1)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    reader.close()
    assert catalogue.difference(tmp_path, store.folder.maps()) == ""
    assert not list(tmp_path.glob("catalogue.db?*"))


def test_a_catalogue_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    (tmp_path / "catalogue.db").unlink()
    (tmp_path / "catalogue.db").mkdir()
    store.log.create_stream("billing", 1)
    assert "catalogue not written" in caplog.text
    assert store.folder.map("billing").name == "billing"


def test_syncing_covers_what_was_appended_and_stores_the_durable_tail(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, shards=3, files=files, fsync="interval")
    assert store.log.sync_due() == []
    for number in range(20):
        store.put(b"x", key=str(number))
    tasks = store.log.sync_due()
    assert len(tasks) == 3
    assert store.log.sync_due() == []  # one task a shard at a time
    for task in tasks:
        task()
    assert [words(store, shard)[ctl.DURABLE] for shard in range(3)] == [words(store, s)[ctl.TAIL] for s in range(3)]
    assert store.log.sync_due() == []


def test_syncs_that_wait_keep_no_shard_open(tmp_path: Path) -> None:
    files = FaultyFiles()
    folder = DataFolder.open(tmp_path / "data", create=True, fsync="interval", files=files)
    store = Log(folder, open_shards=2)
    stream = store.create_stream("orders", 20)
    keys = [str(number) for number in range(200)]
    tasks = []
    for part in Encoder(stream).encode_many(keys, [b"x"] * 200):
        store.append(stream, [part])
        tasks += store.sync_due()
    segments = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert len([each for each in segments if each.startswith(str(tmp_path)) and each.endswith(".seg")]) <= 3
    while tasks:
        for task in tasks:
            task()
        tasks = store.sync_due()
    assert all(
        Ctl.open(os.fspath(folder.shard_dir(stream, shard)), files, write=False).words[ctl.DURABLE]
        == Ctl.open(os.fspath(folder.shard_dir(stream, shard)), files, write=False).words[ctl.TAIL]
        for shard in range(20)
    )
    store.close()


def test_what_is_committed_while_a_sync_runs_is_synced_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="interval")
    store.put(b"1")
    (task,) = store.log.sync_due()
    store.put(b"2")
    assert store.log.sync_due() == []
    task()
    assert words(store)[ctl.DURABLE] == words(store)[ctl.TAIL]


def test_with_the_policy_none_nothing_is_synced(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.errors = {"fdatasync": errno.EIO, "fsync": errno.EIO}
    files.errors.pop("fsync")  # making the folder syncs its FORMAT
    store = Store(tmp_path, files=files)
    files.errors["fsync"] = errno.EIO
    store.put(b"1")
    store.log.create_stream("more", 1)
    store.log.sync()
    assert store.log.sync_due() == []


def test_writing_appends_under_the_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with writing(store.folder) as log:
        log.append(store.stream, [store.encoder.encode_one(b"1", "k")])
        with pytest.raises(DataFolderBusy):
            store.folder.writer_lock().acquire(0)
    held(store.folder.writer_lock()).release()
    assert store.datas() == [b"1"]


def test_writing_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = held(store.folder.writer_lock())
    with pytest.raises(DataFolderBusy), writing(store.folder, 0):
        pass
    lock.release()
    with writing(store.folder, 0):
        pass


def test_writing_gives_the_lock_back_when_the_block_raises(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="user"), writing(store.folder):
        raise RuntimeError("user")
    with writing(store.folder, 0):
        pass


def test_writing_trusts_no_map_that_has_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.encoder.encode_one(b"1", "k")
    path = store.folder.stream_dir(store.stream) / "map.json"
    path.write_bytes(streammap.encode(msgspec.structs.replace(store.stream, generation=2)))
    with writing(store.folder) as log, pytest.raises(StaleMap, match="the shards of stream orders have changed"):
        log.append(store.stream, [part])
    Log(DataFolder.open(tmp_path)).delete_stream("orders")
    with writing(store.folder) as log, pytest.raises(ResourceNotFound):
        log.append(store.stream, [part])


def test_writing_opens_a_shard_anew_whose_page_was_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.encoder.encode_one(b"1", "k")
    with writing(store.folder) as log:
        log.append(store.stream, [part])
    (store.shard_path / "ctl").unlink()
    other = Log(DataFolder.open(tmp_path))
    other.append(store.stream, [part])
    with writing(store.folder) as log:
        log.append(store.stream, [part])
    assert store.datas() == [b"1", b"1", b"1"]
    (store.shard_path / "ctl").unlink()
    with writing(store.folder) as log:
        log.append(store.stream, [part])
    assert len(store.datas()) == 4


def test_writing_notices_another_folder_in_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    with writing(store.folder):
        pass
    os.rename(tmp_path / "data", tmp_path / "old")
    with pytest.raises(StorageError, match=r"was removed|cannot open the lock file"), writing(store.folder):
        pass
    Store(tmp_path / "data")
    with pytest.raises(StorageError, match="was replaced"), writing(store.folder):
        pass
    with writing(DataFolder.open(tmp_path / "data"), 0):
        pass


def test_writing_survives_user_code_that_closes_everything(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            folder = DataFolder.open(tmp_path)
            parts = [store.encoder.encode_one(b"x", str(number)) for number in range(8)]
            for round_ in range(5):
                with writing(folder) as log:
                    log.append(store.stream, parts)
                os.closerange(3, 256)
                # The numbers are taken by files of the user, which must stay open and untouched.
                users = [os.open(tmp_path / f"user-{round_}-{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
                with writing(folder) as log:
                    log.append(store.stream, parts)
                for fd in users:
                    os.write(fd, b"mine")
                assert [os.fstat(fd).st_size for fd in users] == [4] * 20
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(read_all(store.folder, store.stream)) == 80
    assert {path.read_bytes() for path in tmp_path.glob("user-*")} == {b"mine"}


def test_a_forked_child_writes_with_descriptors_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.encoder.encode_one(b"parent", "k")
    with writing(store.folder) as log:
        log.append(store.stream, [part])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert open_descriptors(tmp_path, [".seg", "writer.lock"]) == []
            with writing(store.folder) as log:
                log.append(store.stream, [store.encoder.encode_one(b"child", "k")])
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    with writing(store.folder) as log:
        log.append(store.stream, [part])
    assert store.datas() == [b"parent", b"child", b"parent"]


def test_threads_take_turns(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.encoder.encode_one(b"x", "k")

    def put() -> None:
        for _ in range(50):
            with writing(store.folder) as log:
                log.append(store.stream, [part])

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(everything(store.reader())) == 200
    assert store.reader().next_counter == 201


def test_the_clock_of_a_log_is_the_one_it_was_given(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path, create=True)
    log = Log(folder, clock=ManualClock(epoch_ms=5_000))
    stream = log.create_stream("s", 1)
    assert stream.created_s == 5
    assert log.append(stream, [Encoder(stream).encode_one(b"", "k")]) == [(1, 5_000)]
    log.close()
