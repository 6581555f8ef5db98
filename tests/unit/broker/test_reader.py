"""Reading a shard: blocks, seeking, gaps, damage."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kflow import limits
from kflow.broker import ctl, segment
from kflow.broker.ctl import Ctl
from kflow.errors import Damaged, StorageError
from kflow.records import Position
from tests.storing import FaultyFiles, Store, everything


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_an_empty_shard_has_nothing_to_read(tmp_path: Path) -> None:
    reader = Store(tmp_path).reader()
    assert (reader.tail, reader.horizon, reader.next_counter, reader.last_arrival_ms) == (0, 0, 1, 0)
    assert not reader.closed
    assert reader.read(0) == []
    assert reader.seek_counter(1) == reader.seek_time(0) == Position(0, 0)
    assert reader.fds() == []


def test_blocks_say_where_they_lie(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1", b"2")
    store.clock.advance(7)
    store.put(b"3")
    first, second = store.reader().read(0)
    assert (first.offset, first.end, first.first_counter, first.arrival_ms, first.count) == (0, 82, 1, 1700000000000, 2)
    assert (second.offset, second.first_counter, second.arrival_ms, second.count) == (82, 3, 1_700_000_000_007, 1)
    assert second.end == store.reader().tail


def test_a_reader_sees_what_is_appended_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    reader = store.reader()
    store.put(b"1")
    assert everything(reader) == [b"1"]
    tail = reader.tail
    store.put(b"2")
    assert everything(reader, tail) == [b"2"]
    assert reader.next_counter == 3


def test_a_read_stops_near_its_bytes_but_never_short_of_a_block(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        store.put(bytes([number]) * 1000)
    reader = store.reader()
    assert [block.count for block in reader.read(0, 2500)] == [1, 1]
    assert [block.data(0) for block in reader.read(0, 10)] == [bytes(1000)]
    assert [block.data(0) for block in reader.read(0, 100)] == [bytes(1000)]


@pytest.mark.usefixtures("small_segments")
def test_reading_goes_on_over_segments(tmp_path: Path) -> None:
    store = Store(tmp_path)
    datas = [bytes([number]) * 200 for number in range(20)]
    for data in datas:
        store.put(data)
    assert len(store.segments()) == 7
    reader = store.reader()
    assert everything(reader) == datas
    assert everything(reader, 272 * 2) == datas[2:]  # back to an earlier segment
    (fd,) = reader.fds()
    assert os.fstat(fd[0]).st_ino == fd[2]
    reader.close()
    assert reader.fds() == []
    assert everything(reader) == datas


def test_an_offset_where_no_block_begins_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    store.put(b"2")
    with pytest.raises(Damaged, match="the block header at offset 3 fails its checksum"):
        store.reader().read(3)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("size", [200, 30])
def test_every_counter_is_found(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path)
    for _ in range(8):
        store.put(*[bytes(size)] * 3)
    reader = store.reader()
    blocks = []
    offset = 0
    while found := reader.read(offset):
        blocks += found
        offset = found[-1].end
    for block in blocks:
        for index in range(3):
            assert reader.seek_counter(block.first_counter + index) == Position(block.offset, index)
    assert reader.seek_counter(0) == Position(0, 0)
    assert reader.seek_counter(25) == reader.seek_counter(10**9) == Position(reader.tail, 0)


@pytest.mark.usefixtures("small_segments")
def test_every_time_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    begins = []
    for number in range(12):
        begins.append(store.reader().tail)
        store.put(bytes(200))
        if number % 2:
            store.clock.advance(100)
    reader = store.reader()
    start = 1_700_000_000_000
    for pair in range(6):
        assert reader.seek_time(start + 100 * pair) == Position(begins[2 * pair], 0)
        assert reader.seek_time(start + 100 * pair - 99) == Position(begins[2 * pair], 0)
    assert reader.seek_time(0) == Position(0, 0)
    assert reader.seek_time(start + 501) == Position(reader.tail, 0)


def fill(store: Store, count: int = 40) -> list[int]:
    """Blocks of 100 KiB, so that the index has points; their offsets."""
    offsets = []
    for _ in range(count):
        offsets.append(store.log.shard(store.stream, 0).tail)
        store.put(bytes(100_000))
        store.clock.advance(10)
    return offsets


def test_seeking_begins_at_the_last_point_of_the_index(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    offsets = fill(store)
    opened = segment.open_segment(os.fspath(store.shard_path), files, 0, stream_id=store.stream.id, shard=0)
    assert [point.offset for point in segment.points(opened, files)] == offsets[3::3]
    os.close(opened.fd)
    reads: list[int] = []
    counted = files.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        reads.append(offset)
        return counted(fd, length, offset)

    files.pread = counting  # type: ignore[method-assign]
    assert store.reader().seek_counter(38) == Position(offsets[37], 0)
    assert store.reader().seek_time(1_700_000_000_370) == Position(offsets[37], 0)
    assert [offset for offset in reads if 8192 < offset < offsets[33]] == []


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"\0" * 320, b"lies" * 80])
def test_an_index_that_lies_is_only_slower(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    offsets = fill(store)
    (index,) = store.shard_path.glob("*.idx")
    index.write_bytes(content)
    assert store.reader().seek_counter(38) == Position(offsets[37], 0)
    store.put(b"after")
    store.reopen()
    fill(store, 4)
    assert store.reader().seek_counter(41).index == 0


def test_a_point_of_the_index_past_the_tail_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    offsets = fill(store)
    opened = segment.open_segment(os.fspath(store.shard_path), store.files, 0, stream_id=store.stream.id, shard=0)
    segment.add_point(opened, store.files, segment.Point(10**12, 5, 5))
    os.close(opened.fd)
    assert store.reader().seek_counter(38) == Position(offsets[37], 0)


@pytest.mark.parametrize("at", [64, 70, 90, 128, 130])
def test_damage_is_named_and_nothing_is_returned(tmp_path: Path, at: int) -> None:
    store = Store(tmp_path)
    store.put(b"data")
    store.put(b"more")
    flip(store.shard_path / store.segments()[0], at)
    with pytest.raises(Damaged, match=r"00\.seg: the block( header)? at offset 0 fails its checksum"):
        store.reader().read(0)


def test_a_block_cut_short_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(bytes(1000))
    path = store.shard_path / store.segments()[0]
    os.truncate(path, 600)
    with pytest.raises(Damaged, match="cut short"):
        store.reader().read(0)
    os.truncate(path, 64)
    with pytest.raises(Damaged, match="no segment holds offset 0"):
        store.reader().read(0)
    os.truncate(path, 20)
    with pytest.raises(Damaged, match="header is cut short"):
        store.reader().read(0)


def test_a_segment_of_another_shard_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    for number in range(20):
        store.put(b"x", key=str(number))
    name = store.segments()[0]
    os.replace(store.folder.shard_dir(store.stream, 1) / name, store.shard_path / name)
    with pytest.raises(Damaged, match="belongs to another shard"):
        store.reader(0).read(0)


def test_damage_that_passes_on_a_fresh_descriptor_is_none(tmp_path: Path) -> None:
    class Once(FaultyFiles):
        torn = 0

        def pread(self, fd, length, offset):
            raw = os.pread(fd, length, offset)
            if self.torn and length > 64:
                self.torn -= 1
                return raw[:70] + bytes([raw[70] ^ 1]) + raw[71:]
            return raw

    files = Once()
    store = Store(tmp_path, files=files)
    store.put(b"data")
    reader = store.reader()
    files.torn = 1
    assert everything(reader) == [b"data"]
    files.torn = 2
    with pytest.raises(Damaged):
        reader.read(0)


def test_an_error_of_the_disk_is_said_plainly(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files)
    store.put(b"data")
    reader = store.reader()
    files.errors["pread"] = errno.EIO
    with pytest.raises(StorageError, match="cannot read shard 0 of stream orders"):
        reader.read(0)
    with pytest.raises(StorageError, match="cannot read shard 0 of stream orders"):
        reader.seek_counter(1)


@pytest.mark.usefixtures("small_segments")
def test_positions_below_the_horizon_move_up_to_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(9):
        store.put(bytes([number]) * 200)
    reader = store.reader()
    assert len(everything(reader)) == 9  # the descriptor of a segment that goes away stays good
    words = Ctl.open(os.fspath(store.shard_path), store.files, write=True).words
    words[ctl.HORIZON] = 272 * 3
    for suffix in ("seg", "idx"):
        (store.shard_path / f"{0:020d}.{suffix}").unlink(missing_ok=True)
    assert reader.horizon == 816
    assert reader.clamp(Position(5, 1)) == Position(816, 0)
    assert reader.clamp(Position(816, 4)) == Position(816, 4)
    assert everything(reader, 0)[0] == bytes([3]) * 200
    assert reader.seek_counter(1) == reader.seek_time(0) == Position(816, 0)


def test_a_reader_of_a_stream_that_is_gone_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.log.delete_stream("orders")
    with pytest.raises(StorageError, match="cannot open shard 0 of stream orders"):
        store.reader()


def test_readers_leave_no_descriptor_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        everything(store.reader())
    assert len(os.listdir("/proc/self/fd")) == before
