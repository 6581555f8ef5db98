from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kflow.broker.checkpoints import Slot, SlotFile, SlotState, slots_path
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
    assert (slot.error_type, slot.error_message) == ("E" * 32, "é" * 16)


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
