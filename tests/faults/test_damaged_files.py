"""Every byte of all that is kept is flipped: noticed, repaired, and nothing acknowledged is gone without a word."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from crc32c import crc32c

from kflow import limits
from kflow.broker import catalogue, damage, inspection, mapmending, salvage, streammap
from kflow.broker import segment as segments
from kflow.broker.checkpoints import Slot, SlotFile, slots_path
from kflow.broker.ctl import CLOSED, Ctl
from kflow.broker.files import FILES
from kflow.broker.folder import DataFolder
from kflow.broker.inspection import Fault, Kind
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.repair import repair
from kflow.broker.sequence import parse
from kflow.broker.windows import WindowStore, windows_path
from kflow.errors import Damaged, StorageError
from kflow.records import Position
from tests.damaging import flip, flips, overwrite
from tests.parking import parked
from tests.storing import Store, everything

BLOCK = 64 + 8 + 10


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 4 * BLOCK)
    monkeypatch.setattr(inspection, "_PAUSE_S", 0)


pytestmark = pytest.mark.usefixtures("small_segments")


def filled(path: Path, count: int = 10, shards: int = 1) -> tuple[Store, list[bytes]]:
    """Blocks of one record each, four a segment."""
    store = Store(path, shards=shards)
    datas = [b"record %03d" % number for number in range(count)]
    for data in datas:
        store.put(data)
        store.clock.advance(1)
    return store, datas


def found(store: Store) -> list[Fault]:
    return list(inspection.faults(DataFolder.open(store.folder.path)))


def repaired(store: Store) -> list[str]:
    """Repair until nothing is damaged; what was said."""
    said: list[str] = []
    for _ in range(6):
        due = sorted(found(store))
        if not due:
            store.reopen()
            return said
        store.log.close()
        log = Log(DataFolder.open(store.folder.path), clock=store.clock)
        said += [repair(log, fault) for fault in due]
        log.close()
    raise AssertionError(f"no end: {due}")


def counters(numbers: Sequence[int]) -> list[int]:
    return [parse(number).counter for number in numbers]


def test_a_sound_folder_has_no_faults(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, shards=2)
    assert found(store) == []
    assert repaired(store) == []


def test_any_flipped_byte_of_a_control_page_costs_no_record_and_repeats_no_number(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    page = store.shard_path / "ctl"
    kept = {each.name: each.read_bytes() for each in store.shard_path.iterdir()}
    rng = random.Random(1)
    for at in range(25 * 8):  # the rest of the page holds nothing
        flip(page, at, rng.randrange(1, 256))
        store.reopen()
        store.log.recover_all()
        assert store.datas() == datas, at
        (counter,) = counters(store.put(b"later"))
        assert counter >= 11, at
        reader = store.reader()
        assert everything(reader) == [*datas, b"later"], at
        assert reader.next_counter == counter + 1
        assert reader.issued(1, counter) == 10, at
        for each in store.shard_path.iterdir():
            if each.name not in kept:
                each.unlink()
        for name, content in kept.items():
            (store.shard_path / name).touch()
            overwrite(store.shard_path / name, content)
        seen = page.stat()  # it may have been made anew
        Ctl.open(str(store.shard_path), FILES, write=True).words[2:4] = memoryview(
            struct.pack("=2Q", seen.st_dev, seen.st_ino)
        ).cast("Q")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_flipped_byte_in_every_word_of_a_page_is_found_without_a_writer(tmp_path: Path, number: int) -> None:
    store, datas = filled(tmp_path)
    words = Ctl.open(str(store.shard_path), FILES, write=True).words
    words[(6, 7, 10)[number]] ^= 0x0100  # tail, counter, segment
    (fault,) = found(store)
    assert (fault.kind, fault.path) == (Kind.PAGE, str(store.shard_path / "ctl"))
    assert "made anew" in repaired(store)[0]
    assert store.datas() == datas


def test_any_flipped_byte_of_a_map_is_noticed_and_put_back(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, shards=2)
    path = store.folder.stream_dir(store.stream) / "map.json"
    everything_before = [store.datas(0), store.datas(1)]
    for at in flips(path, seed=2):
        if path.read_bytes().rstrip(b"\n") == streammap.encode(store.stream).rstrip(b"\n"):
            continue  # the line end
        with pytest.raises(Damaged, match="kflow doctor --repair"):
            DataFolder.open(tmp_path).map("orders")
        with pytest.raises(Damaged):
            Log(DataFolder.open(tmp_path)).recover_all()
        if at % 40 == 0:
            fault, *rest = found(store)
            assert (fault.kind, fault.path, rest) == (Kind.MAP, str(path), [])
            assert repaired(store) == ["put back from its copy of generation 1"]
            assert DataFolder.open(tmp_path).map("orders") == store.stream
            assert [store.datas(0), store.datas(1)] == everything_before


def test_a_map_that_is_gone_is_no_leftover(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    (store.folder.stream_dir(store.stream) / "map.json").unlink()
    Log(DataFolder.open(tmp_path)).recover_all()
    (fault, *_) = found(store)
    assert (fault.kind, fault.text) == (Kind.MAP, "the map of the stream is missing")
    repaired(store)
    assert store.datas() == datas


def test_a_map_without_its_copy_comes_from_the_catalogue(tmp_path: Path) -> None:
    store, datas = filled(tmp_path)
    path = store.folder.stream_dir(store.stream)
    changed = msgspec.structs.replace(store.stream, retention_hours=48, generation=2)
    streammap.store(path / "map.json", changed, FILES, sync=False)
    Log(DataFolder.open(tmp_path)).recover_all()
    flip(path / "map.json", 30)
    flip(path / "map.json.twin", 30)
    assert mapmending.found(store.folder, store.stream.folder_name) == (changed, "the catalogue, generation 2")
    assert repaired(store)[0] == "put back from the catalogue, generation 2"
    assert DataFolder.open(tmp_path).map("orders") == changed
    assert store.datas() == datas


def test_a_map_of_which_nothing_is_left_is_made_from_the_shards(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, shards=2)
    before = [store.datas(0), store.datas(1)]
    path = store.folder.stream_dir(store.stream)
    flip(path / "map.json", 30)
    (path / "map.json.twin").unlink()
    (tmp_path / "catalogue.db").write_bytes(b"nothing")
    (fault,) = found(store)
    assert "hash keys divided evenly" in fault.remedy
    repaired(store)
    made = DataFolder.open(tmp_path).map("orders")
    assert (made.id, made.is_whole, made.retention_hours) == (store.stream.id, True, 8760)
    assert [store.datas(0), store.datas(1)] == before


def test_a_map_that_nothing_tells_is_left_alone(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    path = store.folder.stream_dir(store.stream)
    Ctl.open(str(store.shard_path), FILES, write=True).words[CLOSED] = 1
    flip(path / "map.json", 30)
    (path / "map.json.twin").unlink()
    (tmp_path / "catalogue.db").unlink()
    (fault,) = found(store)
    assert fault.remedy == ""
    with pytest.raises(StorageError, match="restore it from a copy of yours"):
        repair(store.log, fault)


def test_a_copy_of_a_map_that_is_damaged_is_written_anew(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    twin = store.folder.stream_dir(store.stream) / "map.json.twin"
    flip(twin, 20)
    (fault,) = found(store)
    assert fault.is_harmless
    assert repaired(store) == ["the copy is written anew"]
    assert twin.read_bytes() == streammap.encode(store.stream)


def test_any_flipped_byte_of_a_segment_is_found_where_it_is(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 7)
    for number, name in enumerate(store.segments()):
        for at in flips(store.shard_path / name, seed=3):
            (fault,) = found(store)
            offset = 4 * number * BLOCK + max(0, at - 64) // BLOCK * BLOCK
            assert (fault.kind, fault.shard, fault.number) == (Kind.SEGMENT, 0, offset), at


def test_what_is_damaged_is_listed_by_a_repair_and_nothing_else(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 12)
    names = store.segments()
    flip(store.shard_path / names[0], 70)  # the header of block 0
    flip(store.shard_path / names[1], 64 + BLOCK + 75)  # the body of block 5
    flip(store.shard_path / names[2], 20)  # a segment's header
    flip(store.shard_path / names[2], 64 + 3 * BLOCK + 5)  # the last block
    assert len(found(store)) == 3
    said = repaired(store)
    assert "mended, nothing is lost" in said
    assert store.datas() == [*datas[1:5], *datas[6:11]]
    entries = damage.read(str(store.shard_path), FILES)
    assert [(entry.first_counter, entry.records, entry.reason) for entry in entries] == [
        (1, 1, "damage"),
        (6, 1, "damage"),
        (12, 1, "damage"),
    ]
    assert [(stream.name, shard, entry) for stream, shard, entry in inspection.losses(store.folder)] == [
        ("orders", 0, entry) for entry in entries
    ]
    assert counters(store.put(b"later")) == [13]


def test_a_missing_segment_is_found_and_listed(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 12)
    (store.shard_path / store.segments()[1]).unlink()
    (fault,) = found(store)
    assert fault.text == f"bytes {4 * BLOCK} to {8 * BLOCK} are missing"
    repaired(store)
    assert store.datas() == datas[:4] + datas[8:]
    (entry,) = damage.read(str(store.shard_path), FILES)
    assert (entry.first_counter, entry.next_counter, entry.records) == (5, 9, 4)


def test_a_list_of_damage_that_is_lost_is_made_from_the_gaps(tmp_path: Path) -> None:
    store, datas = filled(tmp_path, 6)
    words = Ctl.open(str(store.shard_path), FILES, write=True).words
    words[1] = 1  # another boot: it goes on far above
    store.reopen()
    store.put(b"later")
    flip(store.shard_path / store.segments()[0], 64 + 75)
    repaired(store)
    before = damage.read(str(store.shard_path), FILES)
    assert [entry.reason for entry in before] == ["damage", "power loss"]
    for name in ("damage.json", "damage.json.twin"):
        flip(store.shard_path / name, 40)
    with pytest.raises(Damaged, match="kflow doctor --repair"):
        store.reader().issued(1, 5)
    repaired(store)
    after = damage.read(str(store.shard_path), FILES)
    assert [entry[:5] if isinstance(entry, tuple) else msgspec.structs.astuple(entry)[:4] for entry in after] == [
        msgspec.structs.astuple(entry)[:4] for entry in before
    ]
    assert store.datas() == [*datas[1:], b"later"]
    assert store.reader().issued(1, store.reader().next_counter) == 7


def test_dead_points_of_an_index_are_found_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 64 << 20)
    store = Store(tmp_path)
    for number in range(12):
        store.put(bytes([number]) * 100_000)
    index = store.shard_path / f"{0:020d}.idx"
    assert index.stat().st_size == 3 * 32
    for at in flips(index, seed=4):
        if at % 32 >= 28:
            assert found(store) == []  # zeros that say nothing
            continue
        (fault,) = found(store)
        assert (fault.kind, fault.is_harmless) == (Kind.INDEX, True)
        assert store.reader().seek_counter(9).index == 0
    flip(index, 40)
    assert repaired(store) == ["made anew, 3 points"]
    opened = segments.open_segment(str(store.shard_path), FILES, 0, stream_id=store.stream.id, shard=0)
    assert len(segments.points(opened, FILES)) == 3
    os.close(opened.fd)


def slot_file(store: Store, *, factor: int = 2) -> SlotFile:
    return SlotFile.open(
        store.folder.path, "bill", store.stream.id, files=FILES, stream="orders", create_for=[0, 1], factor=factor
    )


def test_any_flipped_byte_of_a_slot_file_leaves_every_position_or_the_one_before(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, shards=2)
    slots = slot_file(store)
    keys = slots.keys()
    older = {key: Slot(checkpoint=Position(7, 0), checkpoint_counter=3) for key in keys}
    newer = {key: Slot(checkpoint=Position(82, 0), checkpoint_counter=4) for key in keys}
    for each in (older, newer):
        for key, slot in each.items():
            slots.store(*key, slot)
    slots.close()
    path = Path(slots_path(tmp_path, "bill", store.stream.id))
    for at in flips(path, seed=5, count=600):
        faults = found(store)
        if at < 512:
            assert all(fault.text == "its header is damaged" for fault in faults)
            assert faults or at >= 80
            continue
        (fault,) = faults
        assert fault.is_harmless
        opened = slot_file(store)
        for key in keys:
            assert opened.load(*key) in (newer[key], older[key]), at
        opened.close()
    flip(path, 30)
    assert repaired(store) == ["written anew"]
    opened = slot_file(store)
    assert opened.factor == 2
    assert [opened.load(*key) for key in keys] == [newer[key] for key in keys]
    opened.close()


def test_a_position_without_a_sound_copy_restarts_at_the_beginning_and_the_others_stay(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, shards=2)
    slots = slot_file(store)
    keys = slots.keys()
    kept = Slot(checkpoint=Position(82, 0), checkpoint_counter=4)
    for key in keys:
        slots.store(*key, kept)
    slots.close()
    path = Path(slots_path(tmp_path, "bill", store.stream.id))
    number = keys.index((1, 0))
    flip(path, 512 + 512 * number + 100)
    flip(path, 512 + 512 * number + 256 + 100)
    with pytest.raises(Damaged):
        slot_file(store).load(1, 0)
    (fault,) = found(store)
    assert (fault.kind, fault.stream, fault.number) == (Kind.SLOTS, "bill", store.stream.id)
    assert fault.remedy == "restart bill at the beginning of shard 1: records come again"
    assert repaired(store) == ["bill restarts at the beginning of shard 1"]
    opened = slot_file(store)
    assert opened.keys() == keys
    for key in keys:
        slot = opened.load(*key)
        assert (slot.checkpoint, slot.checkpoint_counter) == (
            (Position(0, 0), 1) if key == (1, 0) else (kept.checkpoint, kept.checkpoint_counter)
        )
    opened.close()


def windowed(store: Store, *states: bytes) -> Path:
    """A consumer with an open window that has had these states, each with one record; the file of the last one."""
    slots = slot_file(store, factor=1)
    kept = WindowStore(store.folder.path, FILES)
    for number, state in enumerate(states, 1):
        kept.put("bill", store.stream.id, 0, number, state)
        at = Position(BLOCK * number, 0)
        slot = Slot(
            checkpoint=at,
            checkpoint_counter=1 + number,
            start=at,
            end=at,
            window_start_s=1_700_000_000,
            state_number=number,
            state_crc=crc32c(state),
            state_bytes=len(state),
            stack=(1,),
        )
        slots.store(0, 0, slot)
    slots.close()
    return Path(windows_path(store.folder.path, "bill", store.stream.id)) / "0" / str(len(states))


def test_any_flipped_byte_of_a_windows_state_is_found_and_the_window_goes_back_to_the_state_before(
    tmp_path: Path,
) -> None:
    store, _ = filled(tmp_path)
    path = windowed(store, b'{"n":1}', b'{"n":2}')
    assert found(store) == []
    for at in flips(path, seed=6, count=7):
        assert [fault.kind for fault in found(store)] == [Kind.WINDOW], at
    flip(path, 5)
    (fault,) = found(store)
    assert (fault.path, fault.stream, fault.shard) == (str(path), "bill", 0)
    assert fault.text == f"the state of an open window of bill in {store.stream.name}, shard 0, is damaged or gone"
    assert repaired(store) == ["went back to the state before"]
    slots = slot_file(store, factor=1)
    slot = slots.load(0)
    assert (slot.checkpoint, slot.checkpoint_counter, slot.stack) == (Position(BLOCK, 0), 2, ())
    assert (slot.window_start_s, slot.state_number) == (1_700_000_000, 1)
    slots.close()


@pytest.mark.parametrize("states", [(b'{"n":1}', b'{"n":2}'), (b'{"n":1}',)], ids=["both", "the only one"])
def test_a_window_without_any_state_left_begins_with_a_fresh_one_where_it_stood(
    tmp_path: Path, states: tuple[bytes, ...]
) -> None:
    store, _ = filled(tmp_path)
    path = windowed(store, *states)
    for each in path.parent.iterdir():
        each.unlink()
    assert repaired(store) == ["the window begins with a fresh state"]
    slots = slot_file(store, factor=1)
    slot = slots.load(0)
    assert (slot.window_start_s, slot.state_bytes) == (1_700_000_000, 0)
    assert slot.checkpoint_counter == 1 + len(states)
    slots.close()


def test_any_flipped_byte_of_a_parked_file_is_noticed_and_the_others_stay(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    batches = ParkedStore(tmp_path, FILES, "none")
    assert [batches.park(parked(number)) for number in (1, 2, 3)] == [1, 2, 3]
    (path,) = (tmp_path / "parked" / "bill").glob("*.2.parked")
    for _ in flips(path, seed=6):
        assert [each.number for each in batches.list()] == [1, 3]
        (fault,) = found(store)
        assert (fault.kind, fault.number, fault.path) == (Kind.PARKED, 2, str(path))
    flip(path, 50)
    content = path.read_bytes()
    (said,) = repaired(store)
    aside = Path(said.removeprefix("set aside as "))
    assert aside.read_bytes() == content
    assert batches.count() == 2
    assert batches.park(parked(4)) == 4


def test_a_catalogue_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1, shards=3)
    path = tmp_path / "catalogue.db"
    noticed = 0
    for _ in flips(path, seed=7, count=400):
        faults = found(store)
        noticed += len(faults)
        assert [fault.kind for fault in faults] in ([], [Kind.CATALOGUE])
        recalled = catalogue.recall(tmp_path, store.stream.id)
        if not faults:
            assert recalled == store.stream
    assert noticed > 5
    path.write_bytes(bytes(path.stat().st_size))
    assert repaired(store) == ["made anew"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name, open_shards FROM streams").fetchall() == [("orders", 3)]
    connection.close()
    assert catalogue.recall(tmp_path, store.stream.id) == store.stream


def test_seeded_damage_in_many_places_at_once_ends_repaired(tmp_path: Path) -> None:
    for seed in range(8):
        store, datas = filled(tmp_path / str(seed), 14)
        rng_places = [
            (each, at)
            for each in sorted(store.shard_path.iterdir())
            if each.suffix == ".seg"
            for at in range(seed, each.stat().st_size, 97)
        ]
        for path, at in rng_places:
            flip(path, at)
        flip(store.folder.stream_dir(store.stream) / "map.json", seed + 5)
        repaired(store)
        entries = damage.read(str(store.shard_path), FILES)
        kept = store.datas()
        gone = {counter for entry in entries for counter in range(entry.first_counter, entry.next_counter)}
        assert kept == [data for counter, data in enumerate(datas, 1) if counter not in gone]
        assert store.reader().issued(1, 15) == 14
        assert counters(store.put(b"later")) == [15]
        assert store.datas() == [*kept, b"later"]
        assert salvage.start_of(b"", 5) == 5
