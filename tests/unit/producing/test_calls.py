"""`put` and `put_many` into local data, without a node."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import STEP
from kflow.broker.writing import writing
from kflow.errors import (
    InvalidArgument,
    PutFailed,
    ResourceNotFound,
    StorageError,
    UsageError,
    ValidationFailed,
)
from kflow.producing import local, put, put_many, runtime
from tests.storing import FaultyFiles, everything

KEY_OF_1 = 2**128 - 1
"""A hash key that the last shard owns."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 2)
    with runtime(made.path):
        yield made


def datas(folder: DataFolder, shard: int, name: str = "orders") -> list[bytes]:
    return everything(ShardReader(folder, folder.map(name), shard))


def test_a_record_is_stored_when_put_returns(folder: DataFolder) -> None:
    placed = put("orders", {"id": 1}, partition_key="k", explicit_hash_key=0)

    assert placed.shard_id == "shardId-000000000000"
    assert datas(folder, 0) == [b'{"id":1}']


def test_numbers_of_a_call_follow_each_other_in_its_order(folder: DataFolder) -> None:
    first, second, third = put_many("orders", [(b"a", "k"), (b"b", "k"), (b"c", "k")])

    assert second.sequence_number - first.sequence_number == STEP
    assert third.sequence_number - second.sequence_number == STEP
    assert first.shard_id == second.shard_id == third.shard_id


def test_a_later_put_has_a_larger_number(folder: DataFolder) -> None:
    numbers = [put("orders", b"x", partition_key="k").sequence_number for _ in range(5)]

    assert numbers == sorted(set(numbers))


def test_an_explicit_hash_key_places_single_records_and_rows(folder: DataFolder) -> None:
    put("orders", "one", partition_key="k", explicit_hash_key=KEY_OF_1)
    put_many("orders", [("two", "k", KEY_OF_1), ("three", "k", 0), ("four", "k")])

    assert datas(folder, 1)[:2] == [b"one", b"two"]
    assert b"three" in datas(folder, 0)
    assert len(datas(folder, 0)) + len(datas(folder, 1)) == 4


def test_any_number_of_records_goes_in_one_call_and_keeps_its_order(folder: DataFolder) -> None:
    placed = put_many("orders", ((str(i), f"k{i % 5}") for i in range(4321)))

    assert len(placed) == 4321
    for shard in (0, 1):
        numbers = [int(data) for data in datas(folder, shard)]
        assert numbers == sorted(numbers)
    assert len(datas(folder, 0)) + len(datas(folder, 1)) == 4321


def test_large_records_go_in_several_blocks_and_frames(folder: DataFolder) -> None:
    placed = put_many("orders", [(bytes([i]) * 1_000_000, "k") for i in range(20)])

    assert len(placed) == 20
    stored = datas(folder, 0) or datas(folder, 1)
    assert [data[0] for data in stored] == list(range(20))


def test_a_call_may_mix_bytes_text_and_objects(folder: DataFolder) -> None:
    put_many("orders", [(b"bytes", "k"), ("text", "k"), ({"id": 1}, "k"), (bytearray(b"array"), "k")])

    assert datas(folder, 0) + datas(folder, 1) == [b"bytes", b"text", b'{"id":1}', b"array"]


def test_no_records_are_no_call(folder: DataFolder) -> None:
    assert put_many("orders", []) == []


def test_an_unknown_stream_is_never_created_and_the_error_says_how(folder: DataFolder) -> None:
    for call in (
        lambda: put("order", b"x", partition_key="k"),
        lambda: put_many("order", [(b"x", "k")]),
    ):
        with pytest.raises(ResourceNotFound, match=r"Did you mean orders.*kflow streams create order --shards 1"):
            call()
    assert [stream.name for stream in folder.maps()] == ["orders"]


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path) -> None:
    with runtime(tmp_path / "none"), pytest.raises(StorageError, match="there is no kflow data folder at"):
        put("orders", b"x", partition_key="k")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("records", "error", "text"),
    [
        ([(b"x", "")], ValidationFailed, "records.1.member.partitionKey"),
        ([(b"x", "k"), (b"x", "k" * 257)], ValidationFailed, "records.2.member.partitionKey"),
        ([(b"x", "k"), (bytes(1_048_577), "k")], ValidationFailed, "records.2.member.data"),
        ([(bytes(1_048_576), "k")], InvalidArgument, "take 1048577 bytes"),
        ([(b"x", 5)], UsageError, "record 0: the partition key must be a str, not int"),
        ([(b"x", "k", 2**128)], InvalidArgument, "Invalid ExplicitHashKey"),
        ([(b"x", "k"), b"no row"], UsageError, "record 1 must be"),
        ([(b"x",)], UsageError, "record 0 must be"),
        ([(object(), "k")], UsageError, "record 0: data of type object"),
    ],
)
def test_a_record_that_is_not_acceptable_refuses_the_call(
    folder: DataFolder, records: list[tuple[object, str]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        put_many("orders", records)
    assert datas(folder, 0) == datas(folder, 1) == []


def test_in_a_long_call_only_what_stands_behind_a_bad_record_is_not_tried(folder: DataFolder) -> None:
    records = [(b"x", "k") for _ in range(2500)]
    records[1700] = (b"x", "")

    with pytest.raises(PutFailed) as raised:
        put_many("orders", records)

    assert [entry.index for entry in raised.value.failed] == list(range(1000, 2500))
    assert {entry.status for entry in raised.value.failed} == {"refused"}
    assert "counting from record 1000" in raised.value.failed[0].message
    assert len(datas(folder, 0)) + len(datas(folder, 1)) == 1000


def test_a_full_disk_refuses_and_names_each_record(tmp_path: Path) -> None:
    files = FaultyFiles()
    made = DataFolder.open(tmp_path / "full", create=True, fsync="none", files=files)
    with writing(made) as log:
        log.create_stream("orders", 1)
    where = local.Home(made.path)
    where.folder = made
    local._homes[str(made.path)] = where
    with runtime(made.path):
        files.errors["pwritev"] = errno.ENOSPC
        with pytest.raises(PutFailed, match="2 of 2 records were not acknowledged by stream orders") as raised:
            put_many("orders", [(b"a", "k"), (b"b", "k")])
        with pytest.raises(PutFailed):
            put("orders", b"a", partition_key="k")
        files.errors.clear()
        put("orders", b"c", partition_key="k")

    assert [(entry.index, entry.status, entry.code) for entry in raised.value.failed] == [
        (0, "refused", "StorageFull"),
        (1, "refused", "StorageFull"),
    ]
    assert datas(made, 0) == [b"c"]


def test_a_stream_made_anew_is_found_again(folder: DataFolder) -> None:
    put("orders", b"old", partition_key="k")
    with writing(folder) as log:
        log.delete_stream("orders")
        log.create_stream("orders", 1)

    put("orders", b"one", partition_key="k")
    put_many("orders", [(b"many", "k")])
    assert datas(folder, 0) == [b"one", b"many"]


def test_a_deleted_stream_is_not_found(folder: DataFolder) -> None:
    put("orders", b"old", partition_key="k")
    with writing(folder) as log:
        log.delete_stream("orders")

    with pytest.raises(ResourceNotFound, match="kflow streams create orders"):
        put("orders", b"new", partition_key="k")
    with pytest.raises(ResourceNotFound, match="kflow streams create orders"):
        put_many("orders", [(b"new", "k")])


def test_a_data_folder_made_anew_is_found_again(folder: DataFolder) -> None:
    put("orders", b"old", partition_key="k")
    shutil.rmtree(folder.path)
    made = DataFolder.open(folder.path, create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 1)

    put("orders", b"one", partition_key="k")
    put_many("orders", [(b"many", "k")])
    assert datas(made, 0) == [b"one", b"many"]


def test_an_arn_names_its_stream(folder: DataFolder) -> None:
    put("arn:aws:kinesis:us-east-1:123456789012:stream/orders", b"x", partition_key="k", explicit_hash_key=0)

    assert datas(folder, 0) == [b"x"]
