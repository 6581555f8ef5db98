"""Damaged blocks and headers: mended where that is possible, else listed, and never more than what is damaged."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from crc32c import crc32c

from kflow import limits
from kflow.broker import damage, inspection, salvage
from kflow.broker import segment as segments
from kflow.broker.ctl import DURABLE, POISONED, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.quarantine import past_damage, quarantine
from kflow.broker.reader import ShardReader
from kflow.errors import Damaged
from kflow.records import Position
from tests.storing import Store, everything

BLOCK = 64 + 8 + 10  # a header, the columns of one record with a key of one byte, its data


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 4 * BLOCK)


def damaged(path: Path, at: int, value: int | None = None) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] = raw[at] ^ 0x41 if value is None else value
    path.write_bytes(raw)


def filled(tmp_path: Path, count: int = 10) -> tuple[Store, list[bytes]]:
    """Blocks of one record each, four a segment."""
    store = Store(tmp_path)
    datas = [b"record %03d" % number for number in range(count)]
    for data in datas:
        store.put(data)
        store.clock.advance(1)
    assert store.reader().tail == count * BLOCK
    return store, datas


def read_on(store: Store, limit: int = 100) -> tuple[list[bytes], list[LostRange]]:
    """Read everything as a consumer with a node does; what was delivered, and what was listed on the way."""
    reader = store.reader()
    found: list[bytes] = []
    lost: list[LostRange] = []
    offset = 0
    for _ in range(limit):
        try:
            blocks = reader.read(offset)
        except Damaged as error:
            entry = quarantine(store.log, store.stream, 0, error.offset or 0, at_ms=7)
            lost += [entry] if entry is not None else []
            continue
        if not blocks:
            return found, lost
        for block in blocks:
            found += block.columns()[0]
        offset = blocks[-1].end
    raise AssertionError("no end")


def segment_of(store: Store, number: int) -> Path:
    return store.shard_path / store.segments()[number]


def test_the_start_of_a_checksum_is_found_backwards() -> None:
    for start in (0, 1, 0xDEADBEEF):
        assert salvage.start_of(b"what it covers", crc32c(b"what it covers", start)) == start


def test_a_block_that_passes_now_is_not_listed(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 3)
    assert quarantine(store.log, store.stream, 0, BLOCK) is None
    assert not (store.shard_path / "damage.json").exists()
    assert store.datas() == datas


@pytest.mark.usefixtures("small_segments")
def test_a_damaged_body_costs_its_block_alone(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    damaged(segment_of(store, 1), 64 + BLOCK + 70)
    found, lost = read_on(store)
    assert found == datas[:5] + datas[6:]
    assert lost == [LostRange(5 * BLOCK, 6 * BLOCK, 6, 7, 1, "damage", 7)]


@pytest.mark.usefixtures("small_segments")
def test_a_damaged_block_header_costs_what_lies_before_the_next_sound_one(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    damaged(segment_of(store, 1), 64 + BLOCK + 30)
    damaged(segment_of(store, 1), 64 + 2 * BLOCK + 30)
    found, lost = read_on(store)
    assert found == datas[:5] + datas[7:]
    assert lost == [LostRange(5 * BLOCK, 7 * BLOCK, 6, 8, 2, "damage", 7)]


@pytest.mark.usefixtures("small_segments")
def test_damage_at_the_end_of_a_segment_ends_with_the_segment(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    damaged(segment_of(store, 0), 64 + 3 * BLOCK + 4)
    found, lost = read_on(store)
    assert found == datas[:3] + datas[4:]
    assert lost == [LostRange(3 * BLOCK, 4 * BLOCK, 4, 5, 1, "damage", 7)]


def test_damage_up_to_the_tail_is_a_gap_that_readers_pass(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 3)
    damaged(segment_of(store, 0), 64 + 2 * BLOCK)
    found, lost = read_on(store)
    assert found == datas[:2]
    assert lost == [LostRange(2 * BLOCK, 3 * BLOCK, 3, 4, 1, "damage", 7)]
    (empty,) = store.reader().read(2 * BLOCK)
    assert (empty.offset, empty.end, empty.count, empty.first_counter) == (3 * BLOCK, 3 * BLOCK, 0, 4)
    store.put(b"later", b"still")
    assert everything(store.reader()) == [*datas[:2], b"later", b"still"]


def test_what_is_listed_is_listed_once(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 3)
    damaged(segment_of(store, 0), 64)
    assert quarantine(store.log, store.stream, 0, 0, at_ms=7) is not None
    assert quarantine(store.log, store.stream, 0, 0, at_ms=8) is None
    assert len(damage.read(str(store.shard_path), FILES)) == 1


@pytest.mark.usefixtures("small_segments")
def test_a_lost_segment_file_is_a_named_range(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    segment_of(store, 0).unlink()
    found, lost = read_on(store)
    assert (found, lost) == (datas[4:], [])  # a gap for readers already
    entry = quarantine(store.log, store.stream, 0, 0, at_ms=7)
    assert entry is not None
    assert (entry.start, entry.end, entry.next_counter) == (0, 4 * BLOCK, 5)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_segment_whose_header_is_zeroed_is_mended_from_its_blocks(tmp_path: Path, number: int) -> None:
    store, datas = filled(tmp_path)
    path = segment_of(store, number)
    path.write_bytes(bytes(64) + path.read_bytes()[64:])
    found, lost = read_on(store)
    assert (found, lost) == (datas, [])
    store.reopen()
    store.put(b"later")
    assert everything(store.reader()) == [*datas, b"later"]
    for counter in range(1, 11):
        assert store.reader().seek_counter(counter) == Position((counter - 1) * BLOCK, 0)


@pytest.mark.usefixtures("small_segments")
def test_a_segment_that_lost_its_header_and_its_first_block_keeps_the_others(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    path = segment_of(store, 1)
    path.write_bytes(bytes(64 + BLOCK) + path.read_bytes()[64 + BLOCK :])
    found, lost = read_on(store)
    assert found == datas[:4] + datas[5:]
    assert [(entry.start, entry.end, entry.records) for entry in lost] == [(4 * BLOCK, 5 * BLOCK, 1)]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_segment_of_zeros_is_lost_as_a_whole(tmp_path: Path, number: int) -> None:
    store, datas = filled(tmp_path)
    path = segment_of(store, number)
    path.write_bytes(bytes(path.stat().st_size))
    found, lost = read_on(store)
    gone = range(4 * number, min(10, 4 * number + 4))
    assert found == [data for at, data in enumerate(datas) if at not in gone]
    assert [(entry.start, entry.end) for entry in lost] == [(gone.start * BLOCK, gone.stop * BLOCK)]
    reader = store.reader()
    for counter in range(1, 11):
        if counter - 1 not in gone:
            assert reader.seek_counter(counter) == Position((counter - 1) * BLOCK, 0)


@pytest.mark.usefixtures("small_segments")
def test_a_segment_of_another_shard_is_never_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=2)
    other = store.folder.shard_dir(store.stream, 1)
    datas = [b"record %03d" % number for number in range(8)]
    for data in datas:
        store.put(data)
    found = next(index for index in (0, 1) if store.reader(index).tail)
    mine, foreign = store.folder.shard_dir(store.stream, found), store.folder.shard_dir(store.stream, 1 - found)
    assert {mine, foreign} == {store.shard_path, other}
    stranger = foreign / f"{0:020d}.seg"
    stranger.write_bytes((mine / f"{0:020d}.seg").read_bytes())
    before = stranger.read_bytes()
    assert not salvage.mend_header(
        os.fspath(foreign), FILES, 0, stream_id=store.stream.id, shard=1 - found, first_counter=1, sync=False
    )
    assert stranger.read_bytes() == before


def test_an_image_of_a_block_in_a_payload_is_outvoted(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 3)
    path = segment_of(store, 0)
    at = store.reader().tail + 64 + 8  # where the next block's data will lie
    raw = path.read_bytes()[64:128]
    forged = raw[:40] + at.to_bytes(8, "little") + raw[48:]
    store.put(forged)
    opened = segments.open_segment(str(store.shard_path), FILES, 0, stream_id=store.stream.id, shard=0)
    seed = opened.seed
    path.write_bytes(bytes(64 + 64) + path.read_bytes()[128:])
    assert salvage.mend_header(
        str(store.shard_path), FILES, 0, stream_id=store.stream.id, shard=0, first_counter=1, sync=True
    )
    again = segments.open_segment(str(store.shard_path), FILES, 0, stream_id=store.stream.id, shard=0)
    assert again.seed == seed
    os.close(opened.fd)
    os.close(again.fd)


def test_seeking_passes_what_is_listed(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 5)
    damaged(segment_of(store, 0), 64 + 2 * BLOCK + 8)
    with pytest.raises(Damaged) as caught:
        store.reader().seek_counter(5)
    assert caught.value.offset == 2 * BLOCK
    quarantine(store.log, store.stream, 0, 2 * BLOCK)
    reader = store.reader()
    assert reader.seek_counter(2) == Position(BLOCK, 0)
    assert reader.seek_counter(3) == reader.seek_counter(4) == Position(3 * BLOCK, 0)
    assert reader.issued(1, 6) == 5


def test_the_tail_is_quarantined_while_others_append(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 3)
    later = [b"later  %03d" % number for number in range(400)]
    begun = threading.Event()

    def append() -> None:
        for number, data in enumerate(later):
            store.put(data)
            if number == 20:
                begun.set()

    damaged(segment_of(store, 0), 64 + 2 * BLOCK + 8)
    thread = threading.Thread(target=append)
    thread.start()
    assert begun.wait(30)
    entry = quarantine(store.log, store.stream, 0, 2 * BLOCK, at_ms=7)
    faults = list(inspection.faults(store.folder))
    thread.join(30)
    assert entry == LostRange(2 * BLOCK, 3 * BLOCK, 3, 4, 1, "damage", 7)
    assert faults == []
    assert store.datas() == [*datas[:2], *later]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("gone", [4, 6, 7, 9])
def test_what_is_written_anew_after_a_failed_sync_keeps_what_is_listed_where_it_is(tmp_path: Path, gone: int) -> None:
    store, datas = filled(tmp_path)
    words = Ctl.open(str(store.shard_path), FILES, write=True).words
    words[DURABLE], words[POISONED] = 4 * BLOCK, 1
    damaged(segment_of(store, gone // 4), 64 + gone % 4 * BLOCK + 70)
    store.reopen()
    with pytest.raises(Damaged) as caught:
        store.put(b"later")
    assert caught.value.offset == gone * BLOCK
    assert quarantine(store.log, store.stream, 0, gone * BLOCK, at_ms=7) is not None
    store.put(b"later")
    assert not words[POISONED]
    assert store.datas() == [*datas[:gone], *datas[gone + 1 :], b"later"]


@pytest.mark.usefixtures("small_segments")
def test_a_segment_without_a_header_expires_with_the_one_behind_it(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 12)
    path = segment_of(store, 1)
    path.write_bytes(bytes(path.stat().st_size))
    read_on(store)
    store.clock.advance(24 * 3_600_000)
    store.put(b"young")
    for _ in range(3):
        store.clock.advance(3_600_000)
        store.log.retain(store.clock.now())
    assert len(store.segments()) == 1
    assert store.datas() == [b"young"]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("number", [0, 1])
def test_any_flipped_byte_of_a_segment_costs_at_most_its_block(tmp_path: Path, number: int) -> None:
    store, datas = filled(tmp_path, 7)
    path = segment_of(store, number)
    sound = path.read_bytes()
    for at in range(len(sound)):
        damaged(path, at)
        found, lost = read_on(store)
        if at < 64:
            assert (found, lost) == (datas, []), at
        else:
            gone = 4 * number + (at - 64) // BLOCK
            assert found == datas[:gone] + datas[gone + 1 :], at
            assert [(entry.first_counter, entry.records) for entry in lost] == [(gone + 1, 1)], at
        path.write_bytes(sound)
        for name in ("damage.json", "damage.json.twin"):
            (store.shard_path / name).unlink(missing_ok=True)


def test_a_reader_that_knows_of_damage_still_reads_again_from_a_fresh_descriptor(tmp_path: Path) -> None:
    class Torn(Files):
        torn = 0

        def pread(self, fd: int, length: int, offset: int) -> bytes:
            found = os.pread(fd, length, offset)
            if self.torn and length > 64:
                self.torn -= 1
                return found[:-1] + bytes([found[-1] ^ 1])
            return found

    store, datas = filled(tmp_path, 3)
    damaged(segment_of(store, 0), 70)
    quarantine(store.log, store.stream, 0, 0, at_ms=7)
    files = Torn()
    reader = ShardReader(DataFolder.open(tmp_path, files=files), store.stream, 0)
    assert everything(reader) == datas[1:]
    files.torn = 1
    assert [block.columns()[0] for block in reader.read(2 * BLOCK)] == [[datas[2]]]
    files.torn = 3
    with pytest.raises(Damaged, match="kflow doctor --repair"):
        reader.read(2 * BLOCK)


def test_what_the_writer_reads_for_itself_goes_on_past_damage(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 4)
    damaged(segment_of(store, 0), 70)
    damaged(segment_of(store, 0), 64 + BLOCK + 70)
    assert past_damage(store.folder, store.stream, 0, store.datas) == datas[2:]
    (store.shard_path / "damage.json").unlink()
    (store.shard_path / "damage.json.twin").unlink()

    def never() -> None:
        raise Damaged("somewhere else")

    with pytest.raises(Damaged, match="somewhere else"):
        past_damage(store.folder, store.stream, 0, never)
