"""Records by real boto3: a consumer that follows shards through splits and merges, restarts, large calls, limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import eventually
from tests.served import Served, served

MIB = 1 << 20


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def create(client: Any, shards: int = 1, **options: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=shards, **options)
    client.get_waiter("stream_exists").wait(StreamName="orders", WaiterConfig={"Delay": 1})


def is_active(client: Any) -> bool:
    summary = client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    return bool(summary["StreamStatus"] == "ACTIVE")


class Consumer:
    """Reads a stream as the Kinesis client library does: children once all their parents are read to the end."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.found: list[bytes] = []
        self.ended: set[str] = set()
        shards = client.list_shards(StreamName="orders", ShardFilter={"Type": "AT_TRIM_HORIZON"})["Shards"]
        self.tokens = {shard["ShardId"]: self.begin(shard["ShardId"]) for shard in shards}

    def begin(self, shard: str) -> str:
        answer = self.client.get_shard_iterator(StreamName="orders", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        return str(answer["ShardIterator"])

    def read(self) -> None:
        """One page of every shard."""
        for shard, token in list(self.tokens.items()):
            answer = self.client.get_records(ShardIterator=token, Limit=7)
            self.found += [record["Data"] for record in answer["Records"]]
            following = answer.get("NextShardIterator")
            assert (following is None) == bool(answer.get("ChildShards"))
            if following is not None:
                self.tokens[shard] = following
                continue
            del self.tokens[shard]
            self.ended.add(shard)
            for child in answer["ChildShards"]:
                if self.ended.issuperset(child["ParentShards"]):
                    self.tokens[child["ShardId"]] = self.begin(child["ShardId"])


def test_a_consumer_sees_every_record_once_and_each_keys_in_order_through_splits_and_merges(endpoint: Served) -> None:
    client = endpoint.client()
    create(client, shards=2)
    consumer = Consumer(client)
    put: list[bytes] = []

    def produce(count: int) -> None:
        for _ in range(count):
            records = [{"Data": b"%s-%06d" % (key.encode(), len(put)), "PartitionKey": key} for key in "abcdefghij"]
            answer = client.put_records(StreamName="orders", Records=records)
            assert answer["FailedRecordCount"] == 0
            put.extend(record["Data"] for record in records)
            consumer.read()

    produce(10)
    client.split_shard(StreamName="orders", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126))
    produce(10)
    eventually(lambda: is_active(client), what="the split")
    client.merge_shards(
        StreamName="orders", ShardToMerge="shardId-000000000003", AdjacentShardToMerge="shardId-000000000001"
    )
    produce(10)
    eventually(lambda: is_active(client), what="the merge")
    produce(10)

    def all_read() -> bool:
        consumer.read()
        return len(consumer.found) >= len(put)

    eventually(all_read, what="all records to be read")
    assert sorted(consumer.found) == sorted(put)
    for key in b"abcdefghij":
        assert [data for data in consumer.found if data[0] == key] == [data for data in put if data[0] == key]
    assert consumer.ended == {"shardId-000000000000", "shardId-000000000001", "shardId-000000000003"}


def test_tokens_and_numbers_go_on_after_a_kill(endpoint: Served) -> None:
    client = endpoint.client()
    create(client)
    numbers = [
        client.put_record(StreamName="orders", Data=b"%d" % number, PartitionKey="k")["SequenceNumber"]
        for number in range(5)
    ]
    token = client.get_shard_iterator(StreamName="orders", ShardId="0", ShardIteratorType="TRIM_HORIZON")
    first = client.get_records(ShardIterator=token["ShardIterator"], Limit=2)
    endpoint.kill()
    endpoint.start()
    client = endpoint.client()
    last = client.put_record(StreamName="orders", Data=b"5", PartitionKey="k")["SequenceNumber"]
    assert int(last) > int(numbers[-1])
    after = client.get_records(ShardIterator=first["NextShardIterator"])
    assert [record["Data"] for record in after["Records"]] == [b"2", b"3", b"4", b"5"]
    assert [record["SequenceNumber"] for record in after["Records"]] == [*numbers[2:], last]
    at = client.get_shard_iterator(
        StreamName="orders",
        ShardId="0",
        ShardIteratorType="AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=numbers[3],
    )
    found = client.get_records(ShardIterator=at["ShardIterator"])["Records"]
    assert [record["Data"] for record in found] == [b"4", b"5"]


def test_calls_and_records_of_ten_mebibytes_go_through_and_no_larger_ones(endpoint: Served) -> None:
    client = endpoint.client()
    create(client, MaxRecordSizeInKiB=10240)
    key = "k"
    records = [{"Data": bytes([number]) * (MIB - 1), "PartitionKey": key} for number in range(10)]
    assert client.put_records(StreamName="orders", Records=records)["FailedRecordCount"] == 0
    with pytest.raises(client.exceptions.InvalidArgumentException, match="Records size exceeds 10 MB limit"):
        client.put_records(StreamName="orders", Records=[*records, {"Data": b"", "PartitionKey": key}])
    client.put_record(StreamName="orders", Data=b"x" * (10 * MIB - 1), PartitionKey=key)
    token = client.get_shard_iterator(StreamName="orders", ShardId="0", ShardIteratorType="TRIM_HORIZON")
    first = client.get_records(ShardIterator=token["ShardIterator"])
    second = client.get_records(ShardIterator=first["NextShardIterator"])
    assert [record["Data"] for record in first["Records"]] == [record["Data"] for record in records]
    assert [len(record["Data"]) for record in second["Records"]] == [10 * MIB - 1]


def test_limits_of_shards_are_enforced_where_that_is_asked_for(tmp_path: Path) -> None:
    with served(tmp_path, KFLOW_ENFORCE_LIMITS="true") as endpoint:
        client = endpoint.client()
        create(client)
        records = [{"Data": b"x" * 1024, "PartitionKey": "k"}] * 500
        answers = [client.put_records(StreamName="orders", Records=records) for _ in range(4)]
        failed = [record for answer in answers for record in answer["Records"] if "ErrorCode" in record]
        assert {record["ErrorCode"] for record in failed} == {"ProvisionedThroughputExceededException"}
        assert sum(answer["FailedRecordCount"] for answer in answers) == len(failed)
        token = client.get_shard_iterator(StreamName="orders", ShardId="0", ShardIteratorType="TRIM_HORIZON")

        def poll() -> bool:
            client.get_records(ShardIterator=token["ShardIterator"], Limit=1)
            return False

        with pytest.raises(client.exceptions.ProvisionedThroughputExceededException, match="Rate exceeded for Shard"):
            eventually(poll, what="a refusal")


def test_errors_are_boto3s_own_classes(endpoint: Served) -> None:
    client = endpoint.client()
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Stream orders under account"):
        client.put_record(StreamName="orders", Data=b"", PartitionKey="k")
    create(client)
    with pytest.raises(client.exceptions.InvalidArgumentException, match=r"Invalid ShardIterator\."):
        client.get_records(ShardIterator="AAAA")
    with pytest.raises(client.exceptions.ValidationException, match="'shardIteratorType' failed"):
        client.get_shard_iterator(StreamName="orders", ShardId="0", ShardIteratorType="NOW")
    with pytest.raises(client.exceptions.DryRunOperationException):
        client.put_record(StreamName="orders", Data=b"", PartitionKey="k", DryRun=True)
