from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from crc32c import crc32c
from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotFile, SlotState, WindowFlag, slots_path
from kflow.broker.files import Files
from kflow.errors import Damaged, StorageError, StorageFull
from kflow.records import Position

FULL = Slot(
    checkpoint=Position(2**50, 9_999),
    checkpoint_counter=2**62,
    state=SlotState.FAILED,
    worker_pid=4_000_000,
    epoch=2**40,
    start=Position(2**51, 1),
    end=Position(2**52, 2),
    count=10_000,
    attempt=1_000_000,
    interruptions=7,
    request_id=bytes(range(16)),
    stack=tuple(range(1, 15)),
    membership=2**64 - 1,
    succeeded=2**60,
    delivered=2**61,
    invocations=2**59,
    failures=2**58,
    parked=2**57,
    lost=2**56,
    dropped=2**55,
    window_start_s=1_700_000_040,
    state_number=2**32 - 1,
    state_crc=2**32 - 2,
    state_bytes=1 << 20,
    window_flags=WindowFlag.FINAL | WindowFlag.EARLY,
    error_type="ZeroDivisionError",
    error_message="division by zero",
)


class Failing(Files):
    """Writes that fail, or stop short, when told to."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.short: int | None = None
        self.writes: list[tuple[int, int]] = []

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:  # type: ignore[override]
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        if self.short is not None:
            return os.pwrite(fd, data[: self.short], offset)
        self.writes.append((len(data), offset))
        return os.pwrite(fd, data, offset)


def make(folder: Path, *shards: int, files: Files | None = None, **changes: object) -> SlotFile:
    return SlotFile.open(folder, "bill", 77, files=files or Files(), stream="orders", create_for=shards, **changes)


def reopen(folder: Path) -> SlotFile:
    return SlotFile.open(folder, "bill", 77, files=Files())


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def test_everything_a_slot_holds_is_read_back_by_another_process(tmp_path: Path) -> None:
    slots = make(tmp_path, 0, 1)
    slots.store(1, 0, FULL)
    assert reopen(tmp_path).load(1) == FULL
    assert reopen(tmp_path).load(0) == Slot()


def test_the_file_lies_where_the_layout_says_and_names_its_owner(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    assert slots.path == os.path.join(tmp_path, "checkpoints", "bill", "000000000000004d.slots")
    assert b'"function":"bill","stream":"orders"' in Path(slots.path).read_bytes()[:512]
    assert os.path.getsize(slots.path) == 1024


def test_a_new_slot_begins_with_what_it_is_given_and_keeps_what_it_has(tmp_path: Path) -> None:
    def at(shard: int) -> Slot:
        return Slot(checkpoint=Position(1000 + shard, 0), checkpoint_counter=50 + shard)

    make(tmp_path, 0, initial=at)
    slots = make(tmp_path, 0, 5, 3, initial=lambda shard: Slot(checkpoint=Position(9, 9)))
    assert slots.keys() == [(0, 0), (3, 0), (5, 0)]
    assert slots.load(0).checkpoint == (1000, 0)
    assert slots.load(5).checkpoint == (9, 9)


def test_a_worker_sees_slots_that_the_node_added_after_it_opened_the_file(tmp_path: Path) -> None:
    make(tmp_path, 0)
    worker = reopen(tmp_path)
    make(tmp_path, 0, 1)
    assert worker.load(1) == Slot()
    with pytest.raises(StorageError, match="no slot for shard 2"):
        worker.load(2)


def test_a_store_is_one_write_of_256_bytes_to_the_older_copy(tmp_path: Path) -> None:
    files = Failing()
    slots = make(tmp_path, 0, 1, files=files)
    files.writes.clear()
    for succeeded in range(1, 5):
        slots.store(1, 0, Slot(succeeded=succeeded))
    assert files.writes == [(256, 1280), (256, 1024), (256, 1280), (256, 1024)]


def test_unchanged_bytes_give_the_same_object(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, FULL)
    assert slots.load(0) is FULL
    other = reopen(tmp_path)
    first = other.load(0)
    assert other.load(0) is first
    slots.store(0, 0, Slot())
    assert other.load(0) == Slot()


def test_a_damaged_newer_copy_leaves_the_one_before(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, Slot(succeeded=1))
    slots.store(0, 0, Slot(succeeded=2))
    flip(slots.path, 512 + 100)  # the second store went to copy 0
    assert reopen(tmp_path).load(0).succeeded == 1


@pytest.mark.parametrize("offset", range(0, 256, 17))
def test_a_flipped_byte_anywhere_in_the_newest_copy_is_seen(tmp_path: Path, offset: int) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, Slot(succeeded=1))
    flip(slots.path, 512 + 256 + offset)
    assert reopen(tmp_path).load(0) == Slot()


def test_both_copies_damaged_is_an_error_and_no_fresh_start(tmp_path: Path) -> None:
    slots = make(tmp_path, 0, 1)
    flip(slots.path, 1024 + 20)
    flip(slots.path, 1024 + 256 + 20)
    with pytest.raises(Damaged, match="byte 1024"):
        slots.load(1)
    with pytest.raises(Damaged, match="slot at byte 1024 is damaged"):
        reopen(tmp_path).load(1)
    with pytest.raises(Damaged, match="shard 1"):
        make(tmp_path, 0, 1)
    assert reopen(tmp_path).load(0) == Slot()


def test_a_file_of_another_function_is_not_taken(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    foreign = slots_path(tmp_path, "archive", 77)
    os.makedirs(os.path.dirname(foreign))
    Path(foreign).write_bytes(Path(slots.path).read_bytes())
    with pytest.raises(Damaged):
        SlotFile.open(tmp_path, "archive", 77, files=Files()).load(0)


def test_what_is_no_checkpoint_file_is_refused(tmp_path: Path) -> None:
    path = Path(slots_path(tmp_path, "bill", 77))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 2000)
    with pytest.raises(Damaged, match="not a checkpoint file"):
        reopen(tmp_path)


def test_a_file_that_does_not_exist_is_not_created_for_a_worker(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="open the checkpoints of bill"):
        reopen(tmp_path)
    assert not os.path.exists(slots_path(tmp_path, "bill", 77))


def test_a_store_that_fails_keeps_the_slot_and_can_be_done_again(tmp_path: Path) -> None:
    files = Failing()
    slots = make(tmp_path, 0, files=files)
    slots.store(0, 0, Slot(succeeded=1))
    files.error = errno.ENOSPC
    with pytest.raises(StorageFull, match="write the checkpoint of shard 0"):
        slots.store(0, 0, Slot(succeeded=2))
    files.error = None
    assert slots.load(0).succeeded == 1
    slots.store(0, 0, Slot(succeeded=2))
    assert reopen(tmp_path).load(0).succeeded == 2


@pytest.mark.parametrize("length", [0, 1, 4, 100, 200])
def test_a_short_write_is_an_error_and_costs_that_store_alone(tmp_path: Path, length: int) -> None:
    files = Failing()
    slots = make(tmp_path, 0, files=files)
    slots.store(0, 0, Slot(succeeded=1))
    slots.store(0, 0, Slot(succeeded=2))
    files.short = length
    with pytest.raises(StorageError):
        slots.store(0, 0, FULL)
    files.short = None
    assert reopen(tmp_path).load(0).succeeded == 2
    slots.store(0, 0, Slot(succeeded=3))
    slots.store(0, 0, Slot(succeeded=4))
    assert reopen(tmp_path).load(0).succeeded == 4


def test_an_error_text_is_cut_to_whole_characters(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, Slot(error_type="E" * 100, error_message="é" * 100))
    slot = reopen(tmp_path).load(0)
    assert (slot.error_type, slot.error_message) == ("E" * 32, "é" * 2)


def test_text_that_is_no_unicode_is_stored_with_its_faults_replaced(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, Slot(error_type="E", error_message="a\ud800b"))
    assert reopen(tmp_path).load(0).error_message == "a?b"


def test_descriptors_are_named_and_closed_only_while_they_are_ours(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    ((fd, device, inode),) = slots.fds()
    found = os.stat(slots.path)
    assert (device, inode) == (found.st_dev, found.st_ino)
    os.close(fd)
    theirs = os.open(os.devnull, os.O_RDONLY)
    try:
        if theirs == fd:
            slots.close()
            os.fstat(theirs)
    finally:
        os.close(theirs)


def test_three_interruptions_make_a_slot_suspect() -> None:
    assert [Slot(interruptions=count).suspect for count in (0, 2, 3, 9)] == [False, False, True, True]


# ---------------------------------------------------------------------- copies of version 1


def version_1(writes: int, message: bytes, *, checkpoint: int = 1000) -> bytes:
    """A copy as kflow 0.1.0 wrote it: of shard 0, failed twice, one record parked."""
    checked = struct.pack(
        "<4BQIHBx4Q7IQQ6Q16s28s64s",
        *(1, SlotState.FAILED, 2, 10, writes, 0, 0, len(message)),
        *(checkpoint, 7, checkpoint, checkpoint + 64),
        *(0, 0, 3, 3, 4711, 2, 1),
        *(9, 12345),
        *(5, 20, 6, 4, 1, 2),
        b"r" * 16,
        struct.pack("<14H", 4, 2, *[0] * 12),
        b"ValueError" + message,
    )
    seed = crc32c(b"bill\x00000000000000004d")
    return struct.pack("<I", crc32c(checked, seed)) + checked


def test_a_copy_of_version_1_is_read_with_all_it_holds(tmp_path: Path) -> None:
    path = make(tmp_path, 0).path
    with open(path, "r+b") as file:
        file.seek(512)
        file.write(version_1(8, b"m" * 54) + version_1(7, b"old", checkpoint=500))
    slots = reopen(tmp_path)
    assert slots.load(0) == Slot(
        checkpoint=Position(1000, 0),
        checkpoint_counter=7,
        state=SlotState.FAILED,
        worker_pid=4711,
        epoch=9,
        start=Position(1000, 0),
        end=Position(1064, 3),
        count=3,
        attempt=2,
        interruptions=1,
        request_id=b"r" * 16,
        stack=(4, 2),
        membership=12345,
        succeeded=5,
        delivered=20,
        invocations=6,
        failures=4,
        parked=1,
        lost=2,
        error_type="ValueError",
        error_message="m" * 54,
    )
    slots.store(0, 0, replace(slots.load(0), dropped=3))
    assert reopen(tmp_path).load(0).dropped == 3
    assert reopen(tmp_path).before(0) == replace(slots.load(0), dropped=0, error_message="m" * 54)


def test_the_copy_before_is_what_the_slot_said_before_it_was_stored_last(tmp_path: Path) -> None:
    slots = make(tmp_path, 0)
    slots.store(0, 0, Slot(succeeded=1))
    slots.store(0, 0, Slot(succeeded=2))
    assert slots.before(0) == Slot(succeeded=1)
    flip(slots.path, 512 + 256 + 20)  # the first store went to copy 1
    assert reopen(tmp_path).before(0) is None
    assert reopen(tmp_path).load(0) == Slot(succeeded=2)


# ---------------------------------------------------------------------- lanes


def test_a_shard_has_a_slot_for_each_lane(tmp_path: Path) -> None:
    slots = make(tmp_path, 0, 2, factor=3, initial=lambda shard: Slot(checkpoint_counter=10 + shard))
    assert slots.keys() == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    assert slots.load(2, 1).checkpoint_counter == 12
    slots.store(2, 1, Slot(succeeded=4))
    other = reopen(tmp_path)
    assert other.factor == 3
    assert [other.load(2, lane).succeeded for lane in range(3)] == [0, 4, 0]


def test_a_shard_that_is_added_gets_as_many_lanes_as_the_file_says(tmp_path: Path) -> None:
    make(tmp_path, 0, factor=2)
    assert make(tmp_path, 0, 1).keys() == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_least_checkpoint_of_a_shard_is_that_of_its_slowest_lane(tmp_path: Path) -> None:
    slots = make(tmp_path, 0, 1, factor=3)
    for lane, counter in enumerate((30, 10, 20)):
        slots.store(1, lane, Slot(checkpoint=Position(counter * 100, 1), checkpoint_counter=counter))
    assert slots.least(1, 3) == (Position(1000, 1), 10)
    assert slots.least(0) == (Position(0, 0), 1)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 10)])
def test_with_another_factor_the_lanes_restart_at_the_least_checkpoint_and_totals_are_kept(
    tmp_path: Path, before: int, after: int
) -> None:
    slots = make(tmp_path, 0, 1, factor=before)
    for lane in range(before):
        stored = replace(FULL, checkpoint=Position(5000 + lane, 2), checkpoint_counter=50 + lane)
        slots.store(0, lane, replace(stored, succeeded=1, delivered=2, invocations=3, failures=4))
        slots.store(0, lane, replace(slots.load(0, lane), parked=5, lost=6, dropped=7))
    changed = make(tmp_path, 0, 1, factor=after)
    assert (changed.factor, changed.keys()) == (after, [(shard, lane) for shard in (0, 1) for lane in range(after)])
    at = Position(5000, 2)
    fresh = Slot(checkpoint=at, checkpoint_counter=50, start=at, end=at)
    totals = {
        "succeeded": before,
        "delivered": 2 * before,
        "invocations": 3 * before,
        "failures": 4 * before,
        "parked": 5 * before,
        "lost": 6 * before,
        "dropped": 7 * before,
    }
    assert changed.load(0) == replace(fresh, **totals)
    assert [changed.load(0, lane) for lane in range(1, after)] == [fresh] * (after - 1)
    assert changed.load(1) == Slot()
    assert make(tmp_path, 0, 1, factor=after).load(0) == changed.load(0)


def test_a_change_of_the_factor_that_cannot_be_written_leaves_what_there_is(tmp_path: Path) -> None:
    files = Failing()
    make(tmp_path, 0, factor=2).store(0, 1, FULL)
    files.error = errno.ENOSPC
    with pytest.raises(StorageFull):
        make(tmp_path, 0, factor=4, files=files)
    assert (reopen(tmp_path).factor, reopen(tmp_path).load(0, 1)) == (2, FULL)


def test_lanes_are_not_formed_anew_where_one_of_them_is_damaged(tmp_path: Path) -> None:
    slots = make(tmp_path, 0, factor=2)
    for copy in (0, 256):
        flip(slots.path, 1024 + copy + 20)
    with pytest.raises(Damaged, match="byte 1024"):
        make(tmp_path, 0, factor=1)
    with pytest.raises(Damaged):
        slots.least(0, 2)


def test_a_file_from_before_there_were_lanes_has_one_a_shard(tmp_path: Path) -> None:
    path = make(tmp_path, 0).path
    text = b'{"function":"bill","stream":"orders","stream_id":"000000000000004d"}'
    with open(path, "r+b") as file:
        file.write((struct.pack("<8sII", b"kflowcp\x01", crc32c(text), len(text)) + text).ljust(512, b"\0"))
    assert (reopen(tmp_path).factor, reopen(tmp_path).load(0)) == (1, Slot())
    assert make(tmp_path, 0, factor=2).keys() == [(0, 0), (0, 1)]
