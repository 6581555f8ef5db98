"""What the control page does not say any more: after power loss, after copying, after a failed sync."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from kflow import limits
from kflow.broker import ctl, damage, recovery
from kflow.broker.ctl import Ctl
from kflow.broker.folder import DataFolder
from kflow.broker.recovery import GAP
from kflow.errors import StorageError
from kflow.records import Position
from tests.storing import FaultyFiles, Store, everything


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)


def words(store: Store) -> memoryview:
    return Ctl.open(os.fspath(store.shard_path), store.files, write=True).words


def reboot(store: Store) -> None:
    """As if the machine had been started anew since the page was written."""
    words(store)[ctl.BOOT] += 1
    store.reopen()


def lost(store: Store) -> list[tuple[int, int, int, int, int, str]]:
    """The shard's list of lost ranges."""
    found = damage.read(os.fspath(store.shard_path), store.files)
    return [(each.start, each.end, each.first_counter, each.next_counter, each.records, each.reason) for each in found]


def filled(store: Store, count: int = 9) -> list[bytes]:
    datas = [bytes([number]) * 200 for number in range(count)]
    for data in datas:
        store.put(data)
    return datas


@pytest.mark.usefixtures("small_segments")
def test_after_a_reboot_everything_that_reached_the_disk_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    datas = filled(store)
    reboot(store)
    store.log.recover_all()
    assert store.datas() == datas
    assert store.reader().tail == 272 * 9
    store.put(b"after")
    assert store.datas() == [*datas, b"after"]


@pytest.mark.usefixtures("small_segments")
def test_offsets_and_counters_go_on_far_above_everything_issued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    last = filled(store) and store.put(b"x")[-1]
    tail = store.reader().tail
    reboot(store)
    (number,) = store.put(b"after")
    assert number > last
    assert number >> 80 & (1 << 63) - 1 == 11 + GAP
    (block,) = store.reader().read(tail)
    assert block.offset == tail + GAP
    reader = store.reader()
    assert reader.seek_counter(11) == reader.seek_counter(11 + GAP) == Position(tail + GAP, 0)
    assert reader.seek_time(store.clock.epoch_ms + 1) == Position(reader.tail, 0)
    reboot(store)
    (again,) = store.put(b"again")
    assert again >> 80 & (1 << 63) - 1 == 12 + 2 * GAP
    assert [data for data in store.datas() if len(data) < 10] == [b"x", b"after", b"again"]


def test_a_reader_waits_at_the_tail_until_something_is_appended_above_the_gap(tmp_path: Path) -> None:
    store = Store(tmp_path)
    filled(store, 2)
    tail = store.reader().tail
    reboot(store)
    store.log.recover_all()
    reader = store.reader()
    assert reader.tail == tail
    assert reader.read(tail) == []
    store.put(b"after")
    assert everything(reader, tail) == [b"after"]


def test_a_page_of_a_shard_that_seems_never_to_have_held_anything_is_not_believed_after_a_reboot(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    empty = (store.shard_path / "ctl").read_bytes()
    (before,) = store.put(b"never reached the disk, as its file's name and the page did not")
    (store.shard_path / store.segments()[0]).unlink()
    (store.shard_path / "ctl").write_bytes(empty)
    reboot(store)
    (after,) = store.put(b"after")
    assert after > before
    assert after >> 80 & (1 << 63) - 1 == 1 + GAP


def test_a_kill_in_the_first_append_above_the_gap_keeps_the_gap(tmp_path: Path) -> None:
    store = Store(tmp_path)
    filled(store, 1)
    reboot(store)
    store.log.recover_all()
    base = words(store)[ctl.SEGMENT]
    (store.shard_path / f"{base:020d}.seg").write_bytes(b"garbage")
    words(store)[ctl.DIRTY] = 1
    store.reopen()
    store.put(b"after")
    assert store.segments() == [f"{0:020d}.seg", f"{272 + GAP:020d}.seg"]
    assert store.datas() == [bytes(200), b"after"]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("cut", [1, 100, 207, 208, 240, 271])
def test_torn_bytes_are_cut_and_kept_aside(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    datas = filled(store, 8)
    last = store.shard_path / store.segments()[-1]
    os.truncate(last, last.stat().st_size - cut)
    torn = last.read_bytes()[64 + 272 :]
    reboot(store)
    store.log.recover_all()
    assert store.datas() == datas[:7]
    assert "torn bytes set aside" in caplog.text
    assert "records lost with the machine: shard=shard 0 of stream orders records=1 bytes=1904 to 2176" in caplog.text
    (copy,) = (tmp_path / "trash" / f"torn.{store.stream.folder_name}").iterdir()
    assert copy.read_bytes() == torn
    store.put(b"after")
    assert store.datas() == [*datas[:7], b"after"]


@pytest.mark.usefixtures("small_segments")
def test_a_hole_in_the_middle_costs_what_lies_in_it_and_nothing_behind_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    datas = filled(store)
    path = store.shard_path / store.segments()[1]
    raw = bytearray(path.read_bytes())
    raw[64 + 272 + 70] ^= 1
    path.write_bytes(raw)
    reboot(store)
    store.log.recover_all()
    assert store.datas() == datas[:4] + datas[5:]
    reader = store.reader()
    assert reader.read(reader.seek_counter(5).offset)[0].first_counter == 6
    assert reader.read(272 * 4)[0].offset == 272 * 5
    assert [each[:5] for each in lost(store)] == [
        (272 * 4, 272 * 5, 5, 6, 1),
        (272 * 9, 272 * 9 + GAP, 10, 10 + GAP, 0),
    ]


def with_a_hole(store: Store, *, durable: int) -> list[bytes]:
    """Nine records, of which the fifth did not reach the disk, and a page that knows of some that did."""
    datas = filled(store)
    path = store.shard_path / store.segments()[1]
    raw = bytearray(path.read_bytes())
    raw[64 + 272 : 64 + 2 * 272] = bytes(272)
    path.write_bytes(raw)
    words(store)[ctl.DURABLE] = 272 * durable
    words(store)[ctl.DURABLE_COUNTER] = 1 + durable
    return datas


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("fails", ["", "ftruncate", "unlink"])
def test_with_always_what_lies_behind_a_hole_is_cut_for_nothing_there_was_acknowledged(
    tmp_path: Path, fails: str
) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, fsync="always", files=files)
    datas = with_a_hole(store, durable=3)
    if fails:  # the first recovery ends in the middle, and the next one comes to the same
        reboot(store)
        files.errors[fails] = errno.EIO
        with pytest.raises(StorageError):
            store.log.shard(store.stream, 0)
        files.errors.clear()
    reboot(store)
    store.log.recover_all()
    assert store.datas() == datas[:4]
    assert store.segments() == [f"{0:020d}.seg", f"{272 * 3:020d}.seg"]
    assert [each[:2] for each in lost(store)] == [(272 * 4, words(store)[ctl.SEGMENT])]
    store.put(b"after")
    words(store)[ctl.DURABLE] = 272 * 4  # the page may come back as it was
    reboot(store)
    assert store.datas() == [*datas[:4], b"after"]


@pytest.mark.usefixtures("small_segments")
def test_with_always_what_a_handler_has_seen_is_kept_behind_a_hole(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="always")
    datas = with_a_hole(store, durable=3)
    words(store)[ctl.BOOT] += 1
    store.log.close()
    recovery.open_ctl(
        os.fspath(store.shard_path),
        store.files,
        name="shard 0",
        stream_id=store.stream.id,
        shard=0,
        closed=False,
        aside=os.fspath(tmp_path / "trash" / "torn"),
        marks=lambda: {0: (272 * 7, 8)},
        told_when_durable=True,
    )
    assert store.datas() == datas[:4] + datas[5:]


@pytest.mark.usefixtures("small_segments")
def test_with_always_a_page_that_is_gone_lets_everything_stay_behind_a_hole(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="always")
    datas = with_a_hole(store, durable=3)
    (store.shard_path / "ctl").unlink()
    store.reopen()
    store.log.recover_all()
    assert store.datas() == datas[:4] + datas[5:]


@pytest.mark.usefixtures("small_segments")
def test_with_always_a_hole_may_be_the_file_at_the_durable_tail(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="always")
    filled(store)
    (store.shard_path / store.segments()[0]).unlink()
    reboot(store)
    store.log.recover_all()
    assert store.datas() == []
    assert store.segments() == []
    assert [each[:3] + each[4:] for each in lost(store)] == [(0, words(store)[ctl.SEGMENT], 1, 9, "power loss")]
    store.put(b"after")
    words(store)[ctl.DURABLE] = 0
    reboot(store)
    assert store.datas() == [b"after"]


def test_what_had_expired_stays_away_where_power_took_more_than_that(tmp_path: Path) -> None:
    store = Store(tmp_path)
    filled(store, 4)
    words(store)[ctl.HORIZON] = 272 * 4
    os.truncate(store.shard_path / store.segments()[0], 64 + 272 * 2)
    reboot(store)
    store.log.recover_all()
    assert store.reader().horizon == store.reader().tail == 272 * 2
    store.reopen()
    store.log.recover_all()
    assert store.datas() == []
    store.put(b"after")
    assert store.datas() == [b"after"]


@pytest.mark.usefixtures("small_segments")
def test_a_segment_without_a_header_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    datas = filled(store)
    (store.shard_path / store.segments()[2]).write_bytes(bytes(500))
    reboot(store)
    store.log.recover_all()
    assert store.datas() == datas[:6]
    assert store.put(b"after")[0] >> 80 & (1 << 63) - 1 == 10 + GAP
    assert store.datas() == [*datas[:6], b"after"]


@pytest.mark.parametrize("page", [None, b"", b"x" * 4096, bytes(4096)])
def test_a_page_that_is_gone_is_made_anew(tmp_path: Path, page: bytes | None) -> None:
    store = Store(tmp_path)
    datas = filled(store, 5)
    if page is None:
        (store.shard_path / "ctl").unlink()
    else:
        (store.shard_path / "ctl").write_bytes(page)
    store.reopen()
    reader = store.reader()  # the reader has it recovered
    assert everything(reader) == datas
    store.put(b"after")
    assert store.datas() == [*datas, b"after"]


def test_a_page_of_another_shard_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    (part,) = store.encoder.encode_many(["k"], [b"x"], [0])
    store.log.append(store.stream, [part])
    (store.shard_path / "ctl").unlink()
    os.replace(store.folder.shard_dir(store.stream, 1) / "ctl", store.shard_path / "ctl")
    store.reopen()
    store.log.recover_all()
    assert (store.datas(0), store.datas(1)) == ([b"x"], [])


def test_a_copied_folder_goes_on_where_the_original_stood(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    datas = filled(store, 3)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    original, store.folder = store.folder, DataFolder.open(tmp_path / "copy")
    store.reopen()
    assert store.datas() == datas
    store.put(b"in the copy")
    assert store.datas() == [*datas, b"in the copy"]
    store.folder = original
    store.reopen()
    assert store.datas() == datas


def test_a_stale_page_does_not_hide_what_reached_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    filled(store, 2)
    stale = (store.shard_path / "ctl").read_bytes()
    datas = filled(store, 4)
    (store.shard_path / "ctl").write_bytes(stale)
    reboot(store)
    assert len(store.datas()) == 6
    assert store.datas()[2:] == datas
    assert store.put(b"x")[0] >> 80 & (1 << 63) - 1 == 7 + GAP


def test_a_read_only_folder_is_read_up_to_its_durable_tail(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, fsync="interval", files=files)
    filled(store, 2)
    store.log.sync()
    filled(store, 2)
    words(store)[ctl.BOOT] += 1
    files.errors["open"] = errno.EROFS
    files.only = "writer.lock"
    store.folder = DataFolder.open(tmp_path, files=files)
    reader = store.reader()
    assert reader.tail == 272 * 2
    assert len(everything(reader)) == 2


def poisoned(store: Store, files: FaultyFiles) -> None:
    files.errors["fdatasync"] = errno.EIO
    with pytest.raises(StorageError, match="cannot sync shard 0 of stream orders"):
        store.log.sync()
    files.errors.clear()


@pytest.mark.usefixtures("small_segments")
def test_after_a_failed_sync_nothing_more_is_taken_until_a_restart_has_rewritten_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    datas = filled(store, 4)
    store.log.sync()
    datas += filled(store, 5)
    poisoned(store, files)
    assert store.log.sync_due() == []  # never tried again as if it could succeed
    with pytest.raises(StorageError, match="a sync of its files failed, so it takes no more records"):
        store.put(b"refused")
    assert store.datas() == datas
    before = {name: (store.shard_path / name).stat().st_ino for name in store.segments()}
    reader = store.reader()
    assert len(everything(reader, 272 * 4)) == 5
    store.reopen()
    store.log.recover_all()
    assert (words(store)[ctl.POISONED], words(store)[ctl.DURABLE]) == (0, 272 * 9)
    after = {name: (store.shard_path / name).stat().st_ino for name in store.segments()}
    assert [int(name[:20]) // 272 for name in after] == [0, 3, 4, 6]
    assert [name for name in before if before[name] == after[name]] == store.segments()[:2]  # what was durable stays
    assert store.datas() == everything(reader) == datas
    store.put(b"after")
    assert store.datas() == [*datas, b"after"]
    assert store.reader().seek_counter(7) == Position(272 * 6, 0)


def test_a_rewrite_that_fails_leaves_the_shard_poisoned(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    datas = filled(store, 3)
    poisoned(store, files)
    files.errors["fsync"] = errno.EIO
    store.log.close()
    with pytest.raises(StorageError, match="cannot open shard 0 of stream orders"):
        store.put(b"x")
    assert words(store)[ctl.POISONED] == 1
    files.errors.clear()
    store.put(b"after")
    assert store.datas() == [*datas, b"after"]


def test_bytes_that_cannot_be_read_back_are_not_believed(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    filled(store, 3)
    poisoned(store, files)
    path = store.shard_path / store.segments()[0]
    raw = bytearray(path.read_bytes())
    raw[64 + 272 + 100] ^= 1
    path.write_bytes(raw)
    store.log.close()
    with pytest.raises(StorageError, match="no valid block at offset 272"):
        store.put(b"x")
    assert words(store)[ctl.POISONED] == 1
