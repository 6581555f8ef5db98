from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from kflow.broker.files import Files
from kflow.broker.parked import Origin, ParkCondition, ParkedBatch, ParkedRecord, ParkedStore
from kflow.errors import Damaged, StorageError, StorageFull, UsageError
from kflow.interfaces import FunctionError
from kflow.records import Position

NUMBER = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898


def batch(first: int = 1, last: int | None = None, **changes: object) -> ParkedBatch:
    last = first if last is None else last
    records = tuple(
        ParkedRecord(b"\x00\xff%d" % counter, "clé", NUMBER + counter, 1_700_000_000_123, "shardId-000000000003")
        for counter in range(first, last + 1)
    )
    entry = ParkedBatch(
        function="bill",
        stream="orders",
        stream_id=77,
        shard=3,
        shard_id="shardId-000000000003",
        first_counter=first,
        last_counter=last,
        start=Position(0, 0),
        end=Position(2**50, 7),
        records=records,
        error=FunctionError(type="ValueError", message="no", trace=("a", "b"), request_id="r", file="app.py:3"),
        attempts=3,
        condition=ParkCondition.RETRY_ATTEMPTS_EXHAUSTED,
        parked_ms=1_700_000_001_000,
        parked_before=5,
    )
    return msgspec.structs.replace(entry, **changes)


def store(folder: Path, files: Files | None = None) -> ParkedStore:
    return ParkedStore(folder, files or Files(), "none")


def parked_files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "parked" / "bill"))


def test_what_is_parked_is_read_back_whole(tmp_path: Path) -> None:
    entry = batch(8, 9)
    assert store(tmp_path).park(entry) == 1
    assert store(tmp_path).show(1) == msgspec.structs.replace(entry, number=1)


def test_numbers_are_given_in_order_and_never_twice(tmp_path: Path) -> None:
    parked = store(tmp_path)
    assert [parked.park(batch(first)) for first in (5, 3, 9)] == [1, 2, 3]
    parked.drop(3)
    assert store(tmp_path).park(batch(11)) == 4
    assert [entry.number for entry in parked.list()] == [1, 2, 4]
    assert parked.count() == 3


def test_the_name_says_which_records_it_holds(tmp_path: Path) -> None:
    store(tmp_path).park(batch(8, 9))
    assert parked_files(tmp_path) == [
        "000000000000004d.3.00000000000000000008-00000000000000000009.1.parked",
    ]


def test_the_same_records_of_a_consumer_are_kept_once_under_their_number(tmp_path: Path) -> None:
    parked = store(tmp_path)
    parked.park(batch(1))
    parked.park(batch(2))
    assert parked.park(batch(1, attempts=9)) == 1
    assert parked.count() == 2
    assert parked.show(1).attempts == 9
    assert parked.park(batch(1, function="archive")) == 3


def test_find_gives_the_first_at_or_after_a_counter_of_that_shard_alone(tmp_path: Path) -> None:
    parked = store(tmp_path)
    for first in (30, 10, 20):
        parked.park(batch(first))
    parked.park(batch(15, shard=4))
    parked.park(batch(15, stream_id=78))
    parked.park(batch(15, function="archive"))
    found = [parked.find("bill", 77, 3, counter) for counter in (1, 10, 11, 31)]
    assert [None if entry is None else entry.first_counter for entry in found] == [10, 10, 20, None]
    assert store(tmp_path).find("nobody", 77, 3, 0) is None


def test_claimed_records_are_still_parked_for_their_consumer(tmp_path: Path) -> None:
    parked = store(tmp_path)
    parked.park(batch(10))
    parked.claim(1, epoch=4)
    found = parked.find("bill", 77, 3, 10)
    assert found is not None
    assert found.claimed_by == 4


def test_a_claim_excludes_a_second_one_until_it_is_given_back(tmp_path: Path) -> None:
    parked = store(tmp_path)
    parked.park(batch(10))
    assert parked.claim(1, epoch=4).claimed_by == 4
    with pytest.raises(UsageError, match="1 is being redriven already"):
        store(tmp_path).claim(1, epoch=4)
    parked.unclaim(1)
    assert parked.claim(1, epoch=5).number == 1


def test_a_redrive_that_failed_returns_with_its_attempts_added(tmp_path: Path) -> None:
    parked = store(tmp_path)
    parked.park(batch(10))
    parked.claim(1, epoch=4)
    parked.failed_again(1, FunctionError(type="KeyError", message="x"), attempts=2)
    entry = parked.show(1)
    assert (entry.attempts, entry.claimed_by) == (5, 0)
    assert entry.error == FunctionError(type="KeyError", message="x")


def test_claims_of_other_epochs_go_back_at_the_start_of_a_node(tmp_path: Path) -> None:
    parked = store(tmp_path)
    for first in (1, 2, 3):
        parked.park(batch(first))
    parked.claim(1, epoch=4)
    parked.claim(2, epoch=5)
    leftover = tmp_path / "parked" / "bill" / "half.parked.12.tmp"
    leftover.write_bytes(b"x")
    assert store(tmp_path).release_claims(5) == 1
    assert [(entry.number, entry.claimed_by) for entry in parked.list()] == [(1, 0), (2, 5), (3, 0)]
    assert not leftover.exists()
    assert store(tmp_path / "new").release_claims(5) == 0


@pytest.mark.parametrize("act", ["show", "drop", "unclaim"])
def test_a_number_that_is_not_there_is_the_callers_mistake(tmp_path: Path, act: str) -> None:
    parked = store(tmp_path)
    parked.park(batch(1))
    with pytest.raises(UsageError, match="no parked batch 7"):
        getattr(parked, act)(7)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    parked = store(tmp_path)
    assert (list(parked.list()), parked.count()) == ([], 0)


def test_damage_is_seen_and_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parked = store(tmp_path)
    parked.park(batch(1))
    parked.park(batch(2))
    path = tmp_path / "parked" / "bill" / parked_files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="does not have its checksum"):
        parked.show(1)
    assert [entry.number for entry in parked.list()] == [2]
    assert "parked batch is damaged number=1" in caplog.text
    assert parked.find("bill", 77, 3, 1).number == 2  # type: ignore[union-attr]
    assert parked.park(batch(1)) == 1
    assert parked.show(1).first_counter == 1


class Full(Files):
    """A disk that is full for files larger than that of the numbers."""

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:  # type: ignore[override]
        if len(data) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(fd, data, offset)


def test_a_full_disk_keeps_nothing_and_gives_no_number_twice(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="park records of bill"):
        store(tmp_path, Full()).park(batch(1))
    assert store(tmp_path).count() == 0
    assert parked_files(tmp_path) == []
    assert store(tmp_path).park(batch(1)) == 2


def test_parking_from_many_sides_at_once_gives_each_its_number(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda first: store(tmp_path).park(batch(first)), range(1, 21)))
    assert sorted(numbers) == list(range(1, 21))
    assert store(tmp_path).count() == 20


def test_a_lost_count_of_numbers_is_found_again_from_the_names(tmp_path: Path) -> None:
    parked = store(tmp_path)
    parked.park(batch(1))
    parked.park(batch(2))
    (tmp_path / "parked" / "last_number").unlink()
    assert parked.park(batch(3)) == 3


class Listing(Files):
    """Counts how often a folder is listed."""

    def __init__(self) -> None:
        self.lists = 0

    def listdir(self, path: str | os.PathLike[str], /) -> list[str]:
        self.lists += 1
        return super().listdir(path)


def test_who_parks_lists_the_folder_once_and_knows_what_others_have_parked(tmp_path: Path) -> None:
    files = Listing()
    one, two = store(tmp_path, files), store(tmp_path, files)
    one.park(batch(1))
    two.park(batch(2))
    lists = files.lists
    for first in range(3, 103):
        assert (one, two)[first % 2].park(batch(first)) == first
    assert (one.park(batch(4)), two.park(batch(3))) == (4, 3)
    assert one.show(102).first_counter == 102
    assert files.lists == lists
    for first in range(103, 203):  # more than are noted
        one.park(batch(first))
    assert (two.park(batch(110)), two.park(batch(203))) == (110, 203)
    assert lists < files.lists < lists + 5


def test_what_is_parked_anew_after_it_was_dropped_gets_a_number_of_its_own(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    one.park(batch(1))
    two.drop(1)
    assert one.park(batch(1)) == 2
    two.claim(2, epoch=9)
    assert one.park(batch(1)) == 3


@pytest.mark.parametrize("noted", [b"", b"7", b"7\n", b"7\nseven bill/x\n6\n\xff\n", b"what\n1 bill/x\n"])
def test_whatever_is_noted_no_number_is_given_twice(tmp_path: Path, noted: bytes) -> None:
    store(tmp_path).park(batch(1))
    (tmp_path / "parked" / "last_number").write_bytes(noted)
    assert store(tmp_path).park(batch(2)) == (8 if noted.startswith(b"7") else 2)
    assert store(tmp_path).park(batch(1)) == 1


# ---------------------------------------------------------------------- destinations

ORIGIN = Origin(
    function_arn="arn:aws:lambda:us-east-1:123456789012:function:bill",
    stream_arn="arn:aws:kinesis:us-east-1:123456789012:stream/orders",
    mapping="8b1a9953-0000-5000-8000-000000000000",
    destination="sqs:dead",
)


def test_what_has_a_destination_is_unsent_until_it_is_sent(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert made.park(batch(1, origin=ORIGIN)) == 1
    assert made.park(batch(2)) == 2
    assert store(tmp_path).unsent() == [1]
    entry = made.show(1)
    assert entry.is_unsent
    assert (entry.destination, entry.origin) == ("sqs:dead", ORIGIN)
    assert (made.show(2).destination, made.show(2).is_unsent) == ("", False)
    made.sent(entry)
    assert store(tmp_path).unsent() == []
    assert made.show(1) == msgspec.structs.replace(entry, is_unsent=False)
    made.sent(entry)
    assert made.show(1) == msgspec.structs.replace(entry, is_unsent=False)


def test_why_it_is_not_sent_is_kept(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.park(batch(1, origin=ORIGIN))
    made.not_sent(1, "QueueDoesNotExist: gone")
    assert made.show(1).trouble == "QueueDoesNotExist: gone"
    assert made.unsent() == [1]


def test_parking_again_sends_again(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.park(batch(1, origin=ORIGIN))
    before = made.show(1)
    made.sent(before)
    assert made.park(batch(1, origin=ORIGIN, parked_ms=1_700_000_002_000)) == 1
    assert made.unsent() == [1]
    made.sent(before)
    assert made.unsent() == [1]
    assert len(parked_files(tmp_path)) == 1
    assert made.park(batch(1)) == 1
    assert (made.unsent(), made.count()) == ([], 1)


def test_a_redrive_keeps_whether_it_was_sent(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.park(batch(1, origin=ORIGIN))
    claimed = made.claim(1, 7)
    assert (claimed.is_unsent, claimed.claimed_by) == (True, 7)
    assert made.unsent() == [1]
    made.sent(claimed)
    assert (made.unsent(), made.show(1).claimed_by) == ([], 7)
    made.failed_again(1, None)
    assert (made.unsent(), made.show(1).claimed_by) == ([], 0)
    with pytest.raises(UsageError, match="there is no parked batch 9"):
        made.sent(msgspec.structs.replace(claimed, number=9))


def test_claims_of_a_dead_node_are_given_back_unsent(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.park(batch(1, origin=ORIGIN))
    made.claim(1, 7)
    assert made.release_claims(8) == 1
    assert (made.unsent(), made.show(1).claimed_by) == ([1], 0)


class Refusing(Files):
    """The disk refuses to open, list or remove what has this name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, path, flags, mode=0o777):
        self._look(path)
        return os.open(path, flags, mode)

    def listdir(self, path):
        self._look(path)
        return os.listdir(path)

    def unlink(self, path):
        self._look(path)
        os.unlink(path)

    def _look(self, path) -> None:
        if os.fspath(path).endswith(self.name):
            raise OSError(errno.EIO, "Input/output error", os.fspath(path))


def test_a_batch_is_found_though_the_last_numbers_cannot_be_read(tmp_path: Path) -> None:
    store(tmp_path).park(batch(8, 9))
    assert store(tmp_path, Refusing("last_number")).show(1).last_counter == 9


def test_a_half_written_file_that_cannot_be_removed_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    store(tmp_path).park(batch())
    (tmp_path / "parked" / "bill" / "half.tmp").write_bytes(b"half")
    assert store(tmp_path, Refusing(".tmp")).release_claims(2) == 0


def test_a_folder_that_could_not_be_listed_is_listed_the_next_time(tmp_path: Path) -> None:
    store(tmp_path).park(batch(8, 9))
    files = Refusing("parked/bill")
    parked = store(tmp_path, files)
    with pytest.raises(StorageError, match="Input/output error"):
        parked.park(batch(8, 9))
    files.name = "nothing"
    assert parked.park(batch(8, 9)) == 1


def test_what_was_parked_of_a_stream_that_is_gone_is_dropped_though_it_is_damaged(tmp_path: Path) -> None:
    parked = store(tmp_path)
    for stream_id in (77, 78, 77):
        parked.park(batch(first=parked.count() + 1, stream_id=stream_id))
    damaged = next((tmp_path / "parked" / "bill").glob("*.3.parked"))
    damaged.write_bytes(b"torn")
    parked.claim(1, 5)
    parked.drop_all(77)
    assert [entry.number for entry in parked.list()] == [2]
    assert parked.count() == 1
