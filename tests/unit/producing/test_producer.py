"""`Producer` into local data, without a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.writing import writing
from kflow.errors import PutFailed, ResourceNotFound, UsageError, ValidationFailed
from kflow.producing import Producer, runtime
from tests.deadline import eventually
from tests.storing import everything

NEVER = 60_000
"""A linger that no test waits for."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 2)
    with runtime(made.path):
        yield made


def datas(folder: DataFolder) -> list[bytes]:
    stream = folder.map("orders")
    return [data for shard in stream.shards for data in everything(ShardReader(folder, stream, shard.index))]


def test_leaving_the_block_stores_everything_in_order(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        for number in range(1234):
            producer.put(str(number), "k")
        assert len(datas(folder)) == 1000

    assert datas(folder) == [str(number).encode() for number in range(1234)]


def test_what_lingers_is_sent_by_itself(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=1) as producer:
        producer.put("one", "k")
        eventually(lambda: datas(folder) == [b"one"])
        producer.put("two", "k")
        eventually(lambda: datas(folder) == [b"one", b"two"])


def test_without_linger_each_record_is_sent_at_once(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=0) as producer:
        producer.put("one", "k")
        assert datas(folder) == [b"one"]


def test_a_mebibyte_is_sent_at_once(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        producer.put(bytes(600_000), "k")
        assert datas(folder) == []
        producer.put(bytes(600_000), "k")
        assert len(datas(folder)) == 2


def test_explicit_hash_keys_may_be_mixed_in(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        producer.put("by key", "k")
        producer.put("first", "k", 0)
        producer.put("last", "k", explicit_hash_key=2**128 - 1)
    stream = folder.map("orders")

    assert b"first" in everything(ShardReader(folder, stream, 0))
    assert b"last" in everything(ShardReader(folder, stream, 1))


@pytest.mark.parametrize(
    ("data", "key", "error"),
    [(b"x", "", ValidationFailed), (b"x", "k" * 257, ValidationFailed), (bytes(1_048_577), "k", ValidationFailed)],
)
def test_a_record_that_is_not_acceptable_is_not_taken_and_the_others_are(
    folder: DataFolder, data: bytes, key: str, error: type[Exception]
) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        producer.put("before", "k")
        with pytest.raises(error):
            producer.put(data, key)
        producer.put("after", "k")

    assert datas(folder) == [b"before", b"after"]


def test_a_partition_key_must_be_text(folder: DataFolder) -> None:
    with Producer("orders") as producer, pytest.raises(UsageError, match="partition key must be a str"):
        producer.put("x", 5)  # type: ignore[arg-type]


def test_flush_raises_what_failed_counted_by_puts_and_close_does_not_raise_it_again(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        producer.put("stored", "k")
        producer.flush()
        with writing(folder) as log:
            log.delete_stream("orders")
        producer.put("lost", "k")
        with pytest.raises((PutFailed, ResourceNotFound)):
            producer.flush()


def test_an_unknown_stream_is_said_when_the_producer_is_made(folder: DataFolder) -> None:
    with pytest.raises(ResourceNotFound, match="Did you mean orders"):
        Producer("order")


def test_linger_has_a_range(folder: DataFolder) -> None:
    with pytest.raises(UsageError, match="from 0 to 60000 milliseconds, not -1"):
        Producer("orders", linger_ms=-1)


def test_a_closed_producer_takes_nothing_and_may_be_closed_again(folder: DataFolder) -> None:
    producer = Producer("orders")
    producer.close()
    producer.close()

    with pytest.raises(UsageError, match="closed"):
        producer.put("x", "k")


def test_a_stream_made_anew_is_found_in_the_middle(folder: DataFolder) -> None:
    with Producer("orders", linger_ms=NEVER) as producer:
        producer.put("old", "k")
        producer.flush()
        with writing(folder) as log:
            log.delete_stream("orders")
            log.create_stream("orders", 1)
        for number in range(700):
            producer.put(str(number), "k")

    assert datas(folder) == [str(number).encode() for number in range(700)]
