"""Retention: two looks an hour apart, clock steps, what readers see."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from kflow import limits
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.errors import StorageError
from kflow.testing.memory import MemoryFiles
from tests.storing import FaultyFiles, Store, everything

HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Segments of three blocks, nine blocks, one an hour."""
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)
    store = Store(tmp_path, retention_hours=240)
    for number in range(9):
        store.put(bytes([number]) * 200)
        store.clock.advance(HOUR)
    return store


def retain(store: Store) -> int:
    return store.log.retain(store.clock.now())


def test_records_expire_at_the_second_look_an_hour_after_the_first(store: Store) -> None:
    store.clock.advance(240 * HOUR - 9 * HOUR + 3 * HOUR)
    assert retain(store) == 0  # the first three are just too old
    store.clock.advance(HOUR // 2)
    assert retain(store) == 0
    assert len(store.datas()) == 9
    store.clock.advance(HOUR // 2)
    assert retain(store) == 272 * 3
    assert store.datas() == [bytes([number]) * 200 for number in range(3, 9)]
    assert store.segments() == [f"{816:020d}.seg", f"{1632:020d}.seg"]
    assert store.reader().horizon == 816


def test_with_always_nothing_expires_past_the_end_of_what_may_be_read(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, fsync="always", files=files)
    store.put(b"durable")
    store.log.sync()
    durable = store.reader().tail
    store.put(b"not durable")
    files.errors["fdatasync"] = errno.EIO
    with pytest.raises(StorageError):
        store.log.sync()
    files.errors.clear()
    store.clock.advance(1000 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    assert retain(store) == durable
    assert store.reader().horizon == store.reader().tail == durable
    assert retain(store) == 0
    store.reopen()
    store.log.recover_all()
    assert store.datas() == [b"not durable"]  # it was written anew, and expires in its turn


def test_with_always_no_segment_goes_before_the_page_is_durable_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page of before came back without it, and recovery took everything for never acknowledged."""
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)
    files = MemoryFiles()
    store = Store(Path("/data"), fsync="always", files=files, retention_hours=240)
    for number in range(9):
        store.put(bytes([number]) * 200)
        store.clock.advance(HOUR)
    store.log.sync()
    store.clock.advance(240 * HOUR - 9 * HOUR + 3 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    assert retain(store) == 272 * 3
    image = files.crash_image(Random(0), survives=0)
    image.unlink(store.shard_path / f"{0:020d}.seg")  # of what was not synced, only this has reached the disk
    found = DataFolder.open("/data", files=image)
    Log(found, clock=store.clock).recover_all(threads=1)
    assert everything(ShardReader(found, store.stream, 0)) == [bytes([number]) * 200 for number in range(3, 9)]


def test_with_always_a_page_that_cannot_be_synced_keeps_the_segments_until_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)
    files = FaultyFiles()
    store = Store(tmp_path, fsync="always", files=files, retention_hours=240)
    for number in range(9):
        store.put(bytes([number]) * 200)
    store.log.sync()
    store.clock.advance(1000 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    files.errors["fsync"] = errno.EIO
    with pytest.raises(StorageError):
        retain(store)
    files.errors.clear()
    assert retain(store) == 0
    assert len(store.segments()) == 3
    store.reopen()
    store.log.recover_all()
    assert retain(store) == 0
    assert len(store.segments()) == 1


def test_nothing_expires_before_its_time(store: Store) -> None:
    for _ in range(231):
        assert retain(store) == 0
        store.clock.advance(HOUR)
    assert len(store.datas()) == 9


def test_an_idle_shard_expires_to_its_end_and_keeps_the_segment_it_appends_to(store: Store) -> None:
    store.clock.advance(1000 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    assert retain(store) == 272 * 9
    assert store.datas() == []
    assert store.segments() == [f"{1632:020d}.seg"]
    assert store.reader().horizon == store.reader().tail == 272 * 9
    store.put(b"new")
    assert store.datas() == [b"new"]
    assert retain(store) == 0
    assert store.datas() == [b"new"]
    assert store.segments() == [f"{272 * 9:020d}.seg"]  # the old one went when the new one began


def test_a_clock_that_jumps_ahead_loses_nothing(store: Store) -> None:
    retain(store)
    store.clock.epoch_ms += 10_000 * HOUR
    for _ in range(3):
        assert retain(store) == 0  # noted
        store.clock.advance(HOUR // 3)
    store.clock.epoch_ms -= 10_000 * HOUR
    for _ in range(5):
        assert retain(store) == 0
        store.clock.advance(HOUR)
    assert len(store.datas()) == 9


def test_a_step_between_the_looks_begins_them_anew(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.clock.advance(1000 * HOUR)
    assert retain(store) == 0
    store.clock.advance(HOUR)
    store.clock.epoch_ms += 61_000
    assert retain(store) == 0
    assert "the clock was stepped by 61 s" in caplog.text
    store.clock.advance(HOUR)
    store.clock.epoch_ms += 59_000  # a clock may be corrected a little
    assert retain(store) == 272 * 9


def test_records_that_are_young_again_after_a_correction_stay(store: Store) -> None:
    store.clock.advance(240 * HOUR - 7 * HOUR + 30_000)
    assert retain(store) == 0
    store.clock.advance(HOUR)
    store.clock.epoch_ms -= HOUR + 59_000  # slowly, in many small steps
    store.log._retention._drift_ms = store.clock.epoch_ms - store.clock.monotonic_ms
    assert retain(store) == 0
    assert len(store.datas()) == 9


def test_a_restart_begins_the_looks_anew(store: Store) -> None:
    store.clock.advance(1000 * HOUR)
    retain(store)
    store.reopen()
    store.clock.advance(HOUR)
    assert retain(store) == 0
    store.clock.advance(HOUR)
    assert retain(store) == 272 * 9


def test_the_horizon_outlives_a_restart(store: Store) -> None:
    store.clock.advance(1000 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    retain(store)
    store.reopen()
    assert store.datas() == []
    assert store.reader().horizon == 272 * 9


def test_each_stream_has_its_own_retention(store: Store) -> None:
    short = store.log.create_stream("short", 2, retention_hours=24)
    for shard in (0, 2**128 - 1):
        store.log.append(short, [store.encoder.encode_one(b"x", "k", shard)._replace(shard=shard and 1)])
    store.clock.advance(30 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    assert retain(store) == 2 * len(store.encoder.encode_one(b"x", "k", 0).body) + 128
    assert len(store.datas()) == 9


def test_a_shard_that_cannot_be_looked_at_is_reported_and_the_others_are(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, shards=2)
    for number in range(8):
        store.put(b"x", key=str(number))
    store.clock.advance(25 * HOUR)
    retain(store)
    store.clock.advance(HOUR)
    files.errors["open"] = errno.EIO
    files.only = "0/ctl"
    with pytest.raises(StorageError, match="cannot expire records of shard 0 of stream orders"):
        retain(store)
    files.errors.clear()
    assert (store.datas(0) != [], store.datas(1)) == (True, [])
    assert retain(store) > 0
    assert store.datas(0) == []
