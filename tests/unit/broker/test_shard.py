"""The writer's side of a shard: commit, roll, refuse, recover from a failed append."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from crc32c import crc32c

from kflow import limits
from kflow.broker import ctl
from kflow.broker.ctl import Ctl
from kflow.errors import StorageError, StorageFull
from tests.storing import FaultyFiles, Store, everything


def words(store: Store) -> memoryview:
    return Ctl.open(os.fspath(store.shard_path), store.files, write=True).words


def test_an_append_is_numbered_and_can_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (part,) = store.encoder.encode_many(["a", "b"], [b"1", b"2"])
    shard = store.log.shard(store.stream, 0)
    assert shard.append(part.body, 2, part.crc) == (1, 1_700_000_000_000)
    store.clock.advance(5)
    assert shard.append(part.body, 2, part.crc) == (3, 1_700_000_000_005)
    assert (shard.next_counter, shard.tail) == (5, 2 * (64 + len(part.body)))
    assert store.datas() == [b"1", b"2", b"1", b"2"]


def test_a_block_on_disk_has_the_bytes_that_the_format_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.encoder.encode_one(b"data", "key")
    store.log.shard(store.stream, 0).append(part.body, 1, part.crc, 0, 0x1122, 33, 44)
    raw = (store.shard_path / store.segments()[0]).read_bytes()
    salt = raw[16:24]
    seed = crc32c(salt + struct.pack("<QI", store.stream.id, 0))
    assert raw[:8] == b"kflowsg1"
    assert struct.unpack("<IHBBIIIIQQQQH6x", raw[64:128]) == (
        crc32c(raw[68:128], seed),
        0x6B66,
        1,
        0,
        len(part.body),
        1,
        part.crc,
        33,
        1,
        1_700_000_000_000,
        0,
        0x1122,
        44,
    )
    assert raw[128:] == part.body


def test_arrivals_never_go_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    store.clock.epoch_ms -= 30_000
    store.put(b"2")
    assert not caplog.records
    store.clock.epoch_ms -= 60_000
    store.put(b"3")
    store.put(b"4")
    assert [block.arrival_ms for block in store.reader().read(0)] == [1_700_000_000_000] * 4
    assert [record.getMessage() for record in caplog.records] == [
        (
            "the clock stands 90 s behind the last arrival: arrivals stand still until it has caught up, "
            "shard=shard 0 of stream orders"
        )
    ]
    store.clock.epoch_ms += 3_600_000
    store.put(b"5")
    assert store.reader().last_arrival_ms == 1_700_000_000_000 + 3_510_000


def test_segments_roll_at_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)
    store = Store(tmp_path)
    for number in range(10):
        store.put(bytes([number]) * 200)
    assert store.segments() == [f"{272 * 3 * segment:020d}.seg" for segment in range(4)]
    assert store.datas() == [bytes([number]) * 200 for number in range(10)]
    store.put(bytes(5000))  # larger than a segment: one of its own
    assert store.segments()[-1] == f"{272 * 10:020d}.seg"


def test_segments_roll_at_a_24th_of_the_retention(tmp_path: Path) -> None:
    store = Store(tmp_path, retention_hours=48)
    store.put(b"1")
    store.clock.advance(2 * 3_600_000)
    store.put(b"2")
    assert len(store.segments()) == 1
    store.clock.advance(1)
    store.put(b"3")
    assert len(store.segments()) == 2
    assert store.datas() == [b"1", b"2", b"3"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_stores_nothing_and_the_next_one_works(tmp_path: Path, code: int) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(b"1")
    files.errors["pwritev"] = code
    with pytest.raises(StorageError, match="cannot append to shard 0 of stream orders"):
        store.put(b"2")
    assert words(store)[ctl.DIRTY] == 1
    assert store.datas() == [b"1"]
    files.errors.clear()
    store.put(b"3")
    assert words(store)[ctl.DIRTY] == 0
    assert store.datas() == [b"1", b"3"]


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 70])
def test_a_short_write_is_a_full_disk_and_is_cut_off(tmp_path: Path, length: int) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(b"1")
    files.short = length
    with pytest.raises(StorageFull, match="the disk is full"):
        store.put(b"2")
    assert store.datas() == [b"1"]
    store.put(b"3")
    assert store.datas() == [b"1", b"3"]
    store.reopen()
    assert store.datas() == [b"1", b"3"]


def test_a_failure_while_rolling_leaves_the_old_segment_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 300)
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(bytes(200))
    files.errors["replace"] = errno.ENOSPC
    with pytest.raises(StorageFull):
        store.put(bytes(200))
    assert not list(store.shard_path.glob("*.tmp"))
    files.errors.clear()
    files.errors["pwritev"] = errno.EIO  # the new segment is made, and its first block fails
    with pytest.raises(StorageError):
        store.put(bytes(200))
    files.errors.clear()
    store.put(b"after")
    assert store.datas() == [bytes(200), b"after"]


def test_puts_are_refused_below_64_mib_free(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(b"1")
    files.free = 63 << 20
    store.put(b"2")  # looked at within this second
    store.clock.advance(1000)
    with pytest.raises(StorageFull, match=r"only 6[23] MiB are free below .*puts are refused below 64 MiB"):
        store.put(b"3")
    with pytest.raises(StorageFull):
        store.put(b"3")
    files.free = 65 << 20
    store.put(b"4")
    assert store.datas() == [b"1", b"2", b"4"]


def test_a_segment_that_was_removed_is_noticed_within_a_second(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    os.unlink(store.shard_path / store.segments()[0])
    store.clock.advance(1000)
    with pytest.raises(StorageError, match="was removed"):
        store.put(b"2")


def test_a_kill_in_mid_append_leaves_what_was_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    found = words(store)
    found[ctl.DIRTY] = 1
    with (store.shard_path / store.segments()[0]).open("ab") as file:
        file.write(b"half a block")
    store.reopen()
    assert store.datas() == [b"1"]
    store.put(b"2")
    assert store.datas() == [b"1", b"2"]


def test_a_kill_while_rolling_leaves_no_segment_past_the_tail(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    found = words(store)
    tail = found[ctl.TAIL]
    for base in (tail, tail + 500):
        (store.shard_path / f"{base:020d}.seg").write_bytes(b"garbage")
        (store.shard_path / f"{base:020d}.idx").write_bytes(b"garbage")
    found[ctl.SEGMENT] = tail
    found[ctl.DIRTY] = 1
    store.reopen()
    store.put(b"2")
    assert store.segments() == [f"{0:020d}.seg"]
    assert not list(store.shard_path.glob("*.idx"))
    assert store.datas() == [b"1", b"2"]


def test_a_kill_in_the_first_append_of_all_leaves_an_empty_shard(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.shard_path / f"{0:020d}.seg").write_bytes(b"garbage")
    words(store)[ctl.DIRTY] = 1
    store.reopen()
    assert store.datas() == []
    store.put(b"1")
    assert store.datas() == [b"1"]


def test_committed_bytes_that_are_gone_are_not_papered_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    os.truncate(store.shard_path / store.segments()[0], 100)
    words(store)[ctl.DIRTY] = 1
    store.reopen()
    with pytest.raises(StorageError, match="bytes before the tail"):
        store.put(b"2")


def test_a_closed_shard_takes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    words(store)[ctl.CLOSED] = 1
    with pytest.raises(StorageError, match="is closed and takes no more records"):
        store.put(b"2")
    assert store.reader().closed


def test_an_index_that_cannot_be_written_costs_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(bytes(300_000))
    files.only = ".idx"
    files.errors["open"] = errno.EIO
    store.put(b"1")
    assert "index not written" in caplog.text
    files.errors.clear()
    assert everything(store.reader())[1] == b"1"
