"""A disk without room: puts fail and say so, all else goes on, and so do puts once there is room again."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kflow
from kflow import limits
from kflow.broker.checkpoints import Slot, SlotFile
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.clock import ManualClock
from kflow.errors import PutFailed, StorageFull
from kflow.records import Position
from kflow.testing.memory import MemoryFiles
from tests.project import Project, project
from tests.storing import everything
from tests.unit.broker.test_parked import batch

HANDLER = """
    from kflow import Record, on_stream
    @on_stream("orders", maximum_retry_attempts=0, bisect_batch_on_function_error=True)
    def bill(record: Record) -> None:
        assert not record.data.startswith(b"bad")
        note(what="record", data=record.data[:8].decode())
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, fsync="always")


def put(name: str) -> bool:
    """Put a record of 50 KB that begins with a name; whether it was taken."""
    try:
        kflow.put("orders", name.ljust(50_000), partition_key="k")
    except PutFailed as error:
        said, statuses = str(error), [entry.status for entry in error.failed]
    else:
        return True
    assert "the disk is full" in said
    assert statuses == ["refused"]
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process is changed by prlimit")
def test_a_node_whose_disk_is_full_refuses_puts_until_there_is_room(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for the node's segments, at 200 KB: the system refuses longer files of that process."""
    shop.handler(HANDLER)
    process = shop.start()
    monkeypatch.setenv("KFLOW_DATA_DIR", str(shop.data_dir))
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, most))
    try:
        names = [f"{number:08d}" for number in range(8)]
        taken = [name for name in ["bad-----", *names] if put(name)]
        assert taken == ["bad-----", *names[:2]]

        shop.wait_for(lambda: len(shop.seen(what="record")) == 2, "the handler to go on")
        shop.wait_for(lambda: len(shop.json("parked", "list")) == 1, "the bad record to be parked")
        shop.run("streams", "create", "other", "--shards", "2")
        shop.run("put", "other", "a small one", "--key", "k")
        assert not put("refused-")
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))

    assert [name for name in names if put(name)] == names
    shop.wait_for(lambda: len(shop.seen(what="record")) >= 10, "the handler to see the rest")
    assert [note["data"] for note in shop.seen(what="record")] == [*names[:2], *names]
    assert shop.stop(process) == 130


def test_below_the_reserve_checkpoints_parked_records_and_streams_go_on_and_puts_come_back() -> None:
    files, clock = MemoryFiles(), ManualClock()
    log = Log(DataFolder.open("/data", create=True, fsync="always", files=files), clock=clock)
    stream = log.create_stream("orders", 1)
    encoder = Encoder(stream)
    log.append(stream, encoder.encode_many(["k"], [b"before"]))
    log.sync()

    files.disk.capacity_bytes = files.disk.used_bytes + limits.FREE_BYTES - 4096
    clock.advance(1000)
    for _ in range(2):
        with pytest.raises(StorageFull, match=r"only 63 MiB are free .*puts are refused below 64 MiB"):
            log.append(stream, encoder.encode_many(["k"], [b"refused"]))
    slots = SlotFile.open("/data", "bill", stream.id, files=files, create_for=[0])
    slots.store(0, 0, Slot(checkpoint=Position(10, 0), checkpoint_counter=2))
    assert slots.load(0).checkpoint_counter == 2
    assert log.create_stream("other", 2).name == "other"
    log.delete_stream("other")
    assert everything(ShardReader(log.folder, stream, 0)) == [b"before"]

    files.disk.capacity_bytes += 8192
    log.append(stream, encoder.encode_many(["k"], [b"after"]))
    log.sync()
    assert everything(ShardReader(log.folder, stream, 0)) == [b"before", b"after"]


@pytest.mark.parametrize("fsync", ["none", "interval", "always"])
def test_a_disk_that_is_full_to_the_last_byte_loses_nothing_and_takes_up_again(
    fsync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 5000)
    monkeypatch.setattr(limits, "FREE_BYTES", 0)
    files, clock = MemoryFiles(), ManualClock()
    log = Log(DataFolder.open("/data", create=True, fsync=fsync, files=files), clock=clock)
    stream = log.create_stream("orders", 1)
    encoder = Encoder(stream)
    stored: list[bytes] = []
    said: list[tuple[bool, bool]] = []
    for number in range(60):
        room = 0 if number % 10 < 3 else 1 << 30
        if number % 10 == 0:  # some of the next block still fits
            room = number * 7
        files.disk.capacity_bytes = files.disk.used_bytes + room
        data = b"%08d" % number + bytes(600)
        try:
            log.append(stream, encoder.encode_many(["k"], [data]))
        except StorageFull as error:
            said.append((room < 1 << 30, "the disk is full" in str(error)))
        else:
            stored.append(data)
    assert set(said) == {(True, True)}
    assert len(stored) >= 42
    files.disk.capacity_bytes = 1 << 40
    log.sync()
    assert everything(ShardReader(log.folder, stream, 0)) == stored
    assert [path for path in files.listdir(str(log.folder.shard_dir(stream, 0))) if path.endswith(".tmp")] == []


def test_parking_on_a_full_disk_keeps_nothing_by_halves() -> None:
    """The lease waits and tries again: the worker's engine is told `StorageError`."""
    files = MemoryFiles()
    folder = DataFolder.open("/data", create=True, files=files)
    parked = ParkedStore(folder.path, files=files, fsync="interval")
    files.disk.capacity_bytes = files.disk.used_bytes + 100
    with pytest.raises(StorageFull):
        parked.park(batch())
    files.disk.capacity_bytes = 1 << 40
    number = parked.park(batch())
    assert [(entry.number, entry.function) for entry in parked.list()] == [(number, "bill")]


NOISY = """
    import logging, sys
    from kflow import on_stream
    @on_stream("orders", maximum_retry_attempts=0)
    def bill(event, context):
        print("a line")
        print("another", file=sys.stderr)
        logging.error("a third")
        sys.stdout.buffer.write(b"and bytes\\n")
        note(n=len(event["Records"]))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_what_a_handler_prints_never_fails_it_and_what_is_lost_of_it_is_said(shop: Project) -> None:
    shop.handler(NOISY)
    shop.run("streams", "create", "orders")
    path = shop.data_dir / "logs" / "bill.log"
    path.symlink_to("/dev/full")
    shop.start()
    shop.run("put", "orders", '{"n": 1}')
    shop.wait_for(lambda: shop.json("status")["handlers"][0]["processed"] == 1, "the record to be processed")
    path.unlink()
    puts = 1

    def is_there_again() -> bool:  # a worker looks for its log now and then
        nonlocal puts
        puts += 1
        shop.run("put", "orders", '{"n": 2}')
        shop.wait_for(lambda: shop.json("status")["handlers"][0]["processed"] == puts, "the record to be processed")
        return path.exists()

    shop.wait_for(is_there_again, "the log to be there again")

    assert len(shop.seen()) == puts
    assert "bytes of this log were lost: No space left on device" in path.read_text()
    assert "a third" in path.read_text()
    assert "Traceback" not in shop.output()
