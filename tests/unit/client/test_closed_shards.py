"""What boto3's users see of shards that were split or merged: the end of a parent, its children, the lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kflow
from kflow.broker.folder import DataFolder
from kflow.broker.resharding import carry_out, merge, split
from kflow.broker.writing import writing
from kflow.producing import runtime


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 1)
    with runtime(made.path):
        yield made


def resharded(folder: DataFolder, *, merged: bool) -> None:
    with writing(folder) as log:
        new = carry_out(log, split(folder.map("orders"), 0, None, account="1", region="r"))
        if merged:
            carry_out(log, merge(new, 1, 2, account="1"))


def last_page(client: Any, shard: str) -> tuple[list[bytes], dict[str, Any]]:
    token = client.get_shard_iterator(StreamName="orders", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    answer = client.get_records(ShardIterator=token["ShardIterator"])
    return [record["Data"] for record in answer["Records"]], answer


def test_a_parent_ends_with_its_children_and_without_a_next_iterator(folder: DataFolder) -> None:
    client = kflow.client("kinesis")
    client.put_record(StreamName="orders", Data=b"one", PartitionKey="k")
    assert "NextShardIterator" in last_page(client, "shardId-000000000000")[1]
    resharded(folder, merged=False)

    datas, answer = last_page(client, "shardId-000000000000")
    assert datas == [b"one"]
    assert "NextShardIterator" not in answer
    assert [child["ShardId"] for child in answer["ChildShards"]] == ["shardId-000000000001", "shardId-000000000002"]
    assert [child["ParentShards"] for child in answer["ChildShards"]] == [["shardId-000000000000"]] * 2
    assert "NextShardIterator" in last_page(client, "shardId-000000000001")[1]


def test_after_a_merge_both_parents_name_one_child_with_both_parents(folder: DataFolder) -> None:
    client = kflow.client("kinesis")
    resharded(folder, merged=True)
    for parent in ("shardId-000000000001", "shardId-000000000002"):
        (child,) = last_page(client, parent)[1]["ChildShards"]
        assert child["ShardId"] == "shardId-000000000003"
        assert child["ParentShards"] == ["shardId-000000000001", "shardId-000000000002"]


def test_lists_say_who_came_from_whom_and_only_closed_shards_have_an_end(folder: DataFolder) -> None:
    client = kflow.client("kinesis")
    resharded(folder, merged=True)
    shards = client.list_shards(StreamName="orders")["Shards"]
    parents = [(shard.get("ParentShardId", "")[-1:], shard.get("AdjacentParentShardId", "")[-1:]) for shard in shards]
    assert parents == [("", ""), ("0", ""), ("0", ""), ("1", "2")]
    assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards] == [True, True, True, False]
    for shard in shards[1:]:
        parent = shards[int(shard["ParentShardId"][-1])]
        ends = int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
        assert int(shard["SequenceNumberRange"]["StartingSequenceNumber"]) > ends
    latest = client.list_shards(StreamName="orders", ShardFilter={"Type": "AT_LATEST"})["Shards"]
    assert [shard["ShardId"] for shard in latest] == ["shardId-000000000003"]
    assert client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["OpenShardCount"] == 1


def test_a_record_goes_to_the_child_and_comes_after_its_parents_in_number(folder: DataFolder) -> None:
    client = kflow.client("kinesis")
    before = client.put_record(StreamName="orders", Data=b"one", PartitionKey="k")
    resharded(folder, merged=False)
    after = client.put_record(StreamName="orders", Data=b"two", PartitionKey="k")
    assert after["ShardId"] != before["ShardId"]
    assert int(after["SequenceNumber"]) > int(before["SequenceNumber"])
