"""Producing many user records in one record: grouped by shard, in order, and never left where a filter drops them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kflow import deaggregate
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import digest
from kflow.broker.reader import ShardReader
from kflow.broker.writing import writing
from kflow.errors import InvalidArgument, PutFailed, ResourceNotFound, StorageError, UsageError
from kflow.events.aggregation import Aggregate, UserRecord, effective_hash_key, split
from kflow.producing import Producer, runtime
from kflow.producing.aggregating import gather
from kflow.producing.aws import Shards
from kflow.producing.frames import Failure
from kflow.producing.outlets import AggregatingOutlet, gather_by_map
from kflow.producing.pipeline import Entries, Pipeline, Sources
from kflow.producing.targets import Target
from kflow.records import Placed
from tests.storing import Store, everything
from tests.unit.producing.test_routing_again import Answers, resharded

END = (1 << 128) - 1
HALVES = [(1 << 127) - 1, END]
NEVER = 60_000


def packed(*records: tuple[bytes, str, int | None]) -> bytes:
    aggregate = Aggregate(1 << 20)
    for record in records:
        assert aggregate.add(*record)
    return aggregate.payload()


def test_records_are_grouped_by_shard_and_keep_their_order():
    entries = Entries(["a", "b", "c", "d"], [b"1", b"2", b"3", b"4"], [5, END, 6, END - 1])
    put, members = gather(HALVES, entries)

    assert put.datas == [
        packed((b"1", "a", 5), (b"3", "c", 6)),
        packed((b"2", "b", END), (b"4", "d", END - 1)),
    ]
    assert put.keys == ["a", "b"]
    assert put.hash_keys == [5, END]
    assert members == [[0, 2], [1, 3]]


def test_without_an_explicit_hash_key_a_record_goes_where_its_first_user_record_belongs():
    put, _ = gather([END], Entries(["a", "b"], [b"1", b"2"]))

    assert put.hash_keys == [int.from_bytes(digest("a"), "big")]


def test_a_record_alone_goes_as_it_is():
    assert gather([END], Entries(["a"], [b"1"])) == (Entries(["a"], [b"1"], [None]), [(0,)])


def test_a_payload_that_looks_aggregated_is_wrapped_so_that_it_comes_out_whole():
    inner = packed((b"1", "a", None), (b"2", "b", None))
    put, _ = gather([END], Entries(["k"], [inner]))

    assert split(put.datas[0]) == [UserRecord(inner, "k", None)]


def test_a_full_record_makes_way_for_the_next_and_what_is_too_large_goes_between():
    entries = Entries(["a"] * 5, [b"1" * 40, b"2" * 40, b"3" * 40, b"4" * 200, b"5"])
    put, members = gather([END], entries, 125)

    assert members == [[0, 1], (2,), (3,), (4,)]
    assert [len(data) for data in put.datas] == [115, 40, 200, 1]


def test_a_hash_key_out_of_range_is_refused():
    with pytest.raises(InvalidArgument, match="ExplicitHashKey must be in the range"):
        gather([END], Entries(["a"], [b"1"], [END + 1]))


def test_stale_records_are_put_together_anew_by_the_new_shards(tmp_path: Path):
    store = Store(tmp_path)
    known = [store.stream]

    def refreshed():
        known[0] = store.folder.map("orders")
        return known[0]

    keys = [f"k{number}" for number in range(20)]
    pipeline = Pipeline(Answers(store), Sources(lambda: known[0], refreshed), gather=gather_by_map)
    pipeline.push(range(20), Entries(keys, [key.encode() for key in keys]))
    resharded(store, store.stream)
    pipeline.settle()

    assert pipeline.failures == {}
    found = []
    for shard in known[0].open_shards:
        (payload,) = everything(ShardReader(store.folder, known[0], shard.index))
        users = split(payload)
        assert users is not None
        assert all(shard.start <= effective_hash_key(user) <= shard.end for user in users)
        found.append([user.partition_key for user in users])
    assert len(found) == 2
    assert sorted(found[0] + found[1]) == sorted(keys)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 1)
    with runtime(made.path):
        yield made


def test_a_producer_that_aggregates_puts_one_record(folder: DataFolder):
    with Producer("orders", linger_ms=NEVER, aggregate=True) as producer:
        for number in range(1234):
            producer.put(str(number), f"k{number % 7}")

    (payload,) = everything(ShardReader(folder, folder.map("orders"), 0))
    row = {"Data": payload, "SequenceNumber": "1"}
    assert [record["Data"] for record in deaggregate([row])] == [str(number).encode() for number in range(1234)]


def test_a_key_that_is_no_text_is_named_as_without_aggregation(folder: DataFolder):
    producer = Producer("orders", linger_ms=NEVER, aggregate=True)
    with pytest.raises(UsageError, match="the partition key must be a str, not int"):
        producer.put("x", 5)  # type: ignore[arg-type]
    producer.put("x", "\ud800")
    with pytest.raises((PutFailed, UsageError), match="no Unicode text"):
        producer.close()


class Remote:
    """Stands for the stream at AWS: shards that change, and puts that land by hash key."""

    def __init__(self, *shards: Shards) -> None:
        self.told = list(shards)
        self.now = shards[-1]
        self.puts: list[Entries] = []
        self.failing: dict[int, Failure] = {}

    def shards(self) -> Shards:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]

    def put_all(self, entries: Entries, *, ordered: bool):
        self.puts.append(entries)
        placed = []
        for index, hash_key in enumerate(entries.hash_keys or ()):
            where = hash_key if hash_key is not None else int.from_bytes(digest(entries.keys[index]), "big")
            (shard,) = [
                shard
                for shard, end, start in zip(self.now.ids, self.now.ends, self.now.starts, strict=True)
                if start <= where <= end
            ]
            placed.append(None if index in self.failing else Placed(shard, index))
        return placed, self.failing


ONE = Shards(["shard-0"], [0], [END])
TWO = Shards(["shard-1", "shard-2"], [0, HALVES[0] + 1], HALVES)
ROWS = Entries(["a", "b", "c"], [b"1", b"2", b"3"], [0, END, 1])


@pytest.fixture
def outlet(monkeypatch: pytest.MonkeyPatch) -> Callable[[Remote], AggregatingOutlet]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # for the client that nobody calls

    def make(remote: Remote) -> AggregatingOutlet:
        made = AggregatingOutlet("orders", Target("endpoint", "http://127.0.0.1:1", "a test"))
        made._stream = remote  # type: ignore[assignment]
        return made

    return make


def test_user_records_that_landed_in_another_shard_than_theirs_are_put_again(outlet):
    remote = Remote(ONE, TWO)
    out = outlet(remote)
    out.push(range(10, 13), ROWS)

    assert [put.datas for put in remote.puts] == [
        [packed((b"1", "a", 0), (b"2", "b", END), (b"3", "c", 1))],
        [packed((b"1", "a", 0), (b"3", "c", 1)), b"2"],
    ]
    assert out.failures == {}


def test_user_records_that_moved_together_are_not_put_again(outlet):
    remote = Remote(ONE, TWO)
    outlet(remote).push(range(2), Entries(["a", "c"], [b"1", b"3"], [0, 1]))

    assert len(remote.puts) == 1


def test_a_failure_is_that_of_each_user_record_in_the_record(outlet):
    remote = Remote(TWO)
    failure = Failure("refused", ResourceNotFound("gone"))
    remote.failing = {0: failure}
    out = outlet(remote)
    out.push(range(10, 13), ROWS)

    assert out.failures == {10: failure, 12: failure}


def test_where_the_shards_cannot_be_asked_for_what_strayed_is_in_doubt(outlet):
    class Silent(Remote):
        def shards(self) -> Shards:
            if self.puts:
                raise StorageError("no answer")
            return ONE

    remote = Silent(TWO)
    out = outlet(remote)
    out.push(range(3), ROWS)

    assert {number: (failure.status, str(failure.error)) for number, failure in out.failures.items()} == dict.fromkeys(
        range(3), ("unknown", "no answer")
    )
