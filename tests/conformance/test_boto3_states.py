"""States that pass, as boto3 sees them: what is CREATING, UPDATING and DELETING, and what that allows.

All streams are made where transitions take no time; the endpoint is then started anew with transitions of some seconds,
everything is set going at once and looked at, and looked at again when it has come to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.botoing import ACCOUNT, Desk, Refusal, desk, refusal
from tests.deadline import eventually

SHARD = "shardId-000000000000"
HALF = str(1 << 127)
UNIFORM = {"TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}
SLOW = "6000"
"""Milliseconds: longer than any of these calls takes on a loaded machine, all of them together."""

CHANGES: dict[str, Callable[[Any, str], object]] = {
    "split": lambda client, _: client.split_shard(StreamName="split", ShardToSplit="0", NewStartingHashKey=HALF),
    "merged": lambda client, _: client.merge_shards(StreamName="merged", ShardToMerge="0", AdjacentShardToMerge="1"),
    "scaled": lambda client, _: client.update_shard_count(StreamName="scaled", **UNIFORM),
    "kept": lambda client, _: client.increase_stream_retention_period(StreamName="kept", RetentionPeriodHours=48),
    "sealed": lambda client, _: client.start_stream_encryption(
        StreamName="sealed", EncryptionType="KMS", KeyId="alias/mine"
    ),
    "watched": lambda client, _: client.enable_enhanced_monitoring(StreamName="watched", ShardLevelMetrics=["ALL"]),
    "large": lambda client, arn: client.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=4096),
    "freed": lambda client, arn: client.update_stream_mode(
        StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"}
    ),
    "warm": lambda client, _: client.update_stream_warm_throughput(StreamName="warm", WarmThroughputMiBps=64),
}


class Seen:
    """What was seen while everything was under way, and afterwards.

    Attributes:
        during: by what it was asked of.
        refused: likewise.
        after: summaries at rest.
    """

    def __init__(self, it: Desk) -> None:
        self.it = it
        self.during: dict[str, Any] = {}
        self.refused: dict[str, Refusal] = {}
        client = it.client()
        self._begin(client)
        self._settle(client)

    def _begin(self, client: Any) -> None:
        it, during, refused = self.it, self.during, self.refused
        for name, change in CHANGES.items():
            change(client, it.arn(name))
            during[name] = it.summary(name)
        during["shards"] = client.describe_stream(StreamName="split")["StreamDescription"]["Shards"]
        during["put"] = client.put_record(StreamName="split", Data=b"x", PartitionKey="k")
        refused["split twice"] = refusal(
            client.split_shard, StreamName="split", ShardToSplit="0", NewStartingHashKey=HALF
        )

        made = client.register_stream_consumer(StreamARN=it.arn("read"), ConsumerName="new")["Consumer"]
        during["consumer"] = client.describe_stream_consumer(ConsumerARN=made["ConsumerARN"])["ConsumerDescription"]
        refused["subscribe"] = refusal(
            client.subscribe_to_shard,
            ConsumerARN=made["ConsumerARN"],
            ShardId=SHARD,
            StartingPosition={"Type": "LATEST"},
        )
        old = client.describe_stream_consumer(StreamARN=it.arn("read"), ConsumerName="old")["ConsumerDescription"]
        client.deregister_stream_consumer(ConsumerARN=old["ConsumerARN"])
        during["old"] = client.describe_stream_consumer(ConsumerARN=old["ConsumerARN"])["ConsumerDescription"]
        for n in range(4):
            client.register_stream_consumer(StreamARN=it.arn("read"), ConsumerName=f"more-{n}")
        refused["register"] = refusal(client.register_stream_consumer, StreamARN=it.arn("read"), ConsumerName="sixth")

        configuration = [{"StreamARN": it.arn("queued")}]
        queue = client.create_queue(QueueName="new", StreamConfigurationList=configuration)["QueueDescription"]
        during["queue"] = client.describe_queue(QueueARN=queue["QueueARN"])["QueueDescription"]
        refused["receive"] = refusal(client.receive_queue_records, QueueARN=queue["QueueARN"], WaitTimeSeconds=1)
        by_name = {each["QueueName"]: each["QueueARN"] for each in client.list_queues()["QueueSummaries"]}
        client.update_queue(QueueARN=by_name["changed"], QueueAttributes={"VisibilityTimeoutSeconds": 5})
        client.delete_queue(QueueARN=by_name["going"])
        during["queues"] = {each["QueueName"]: each["QueueStatus"] for each in client.list_queues()["QueueSummaries"]}

        client.delete_stream(StreamName="going")
        during["going"] = client.describe_stream(StreamName="going")["StreamDescription"]
        during["tags"] = client.list_tags_for_stream(StreamName="going")["Tags"]
        refused["create again"] = refusal(client.create_stream, StreamName="going", ShardCount=1)
        refused["delete twice"] = refusal(client.delete_stream, StreamName="going")
        refused["put to what goes"] = refusal(client.put_record, StreamName="going", Data=b"", PartitionKey="k")

        client.create_stream(StreamName="new", ShardCount=2, Tags={"a": "b"})
        during["new"] = client.describe_stream(StreamName="new")["StreamDescription"]
        during["new shards"] = client.list_shards(StreamName="new")["Shards"]
        during["new tags"] = client.list_tags_for_stream(StreamName="new")["Tags"]
        refused["put"] = refusal(client.put_record, StreamName="new", Data=b"", PartitionKey="k")
        refused["puts"] = refusal(client.put_records, StreamName="new", Records=[{"Data": b"", "PartitionKey": "k"}])
        refused["iterate"] = refusal(
            client.get_shard_iterator, StreamName="new", ShardId=SHARD, ShardIteratorType="LATEST"
        )
        refused["split"] = refusal(client.split_shard, StreamName="new", ShardToSplit="0", NewStartingHashKey="5")
        refused["merge"] = refusal(client.merge_shards, StreamName="new", ShardToMerge="0", AdjacentShardToMerge="1")
        refused["tag"] = refusal(client.add_tags_to_stream, StreamName="new", Tags={"c": "d"})
        for n in range(4):
            client.create_stream(StreamName=f"new-{n}", ShardCount=1)
        refused["create"] = refusal(client.create_stream, StreamName="new-4", ShardCount=1)
        during["listed"] = {
            each["StreamName"]: each["StreamStatus"] for each in client.list_streams()["StreamSummaries"]
        }

    def _settle(self, client: Any) -> None:
        def rest() -> Any:
            found = {each["StreamName"]: each["StreamStatus"] for each in client.list_streams()["StreamSummaries"]}
            return set(found.values()) == {"ACTIVE"} and found

        listed = eventually(rest, seconds=60, what="all streams to be ACTIVE")
        self.after = {name: self.it.summary(name) for name in listed}

        def queues() -> Any:
            found = {each["QueueName"]: each["QueueStatus"] for each in client.list_queues()["QueueSummaries"]}
            return found if found == {"changed": "ACTIVE", "new": "ACTIVE"} else None

        self.queues = eventually(queues, seconds=60, what="the queues")

        def consumers() -> Any:
            found = client.list_stream_consumers(StreamARN=self.it.arn("read"))["Consumers"]
            names = {each["ConsumerName"]: each["ConsumerStatus"] for each in found}
            return "old" not in names and set(names.values()) == {"ACTIVE"} and names

        self.consumers = eventually(consumers, seconds=60, what="the consumers")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("desk")
    with desk(folder) as it:
        client = it.client()
        client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
        for name in CHANGES.keys() - {"warm"} | {"read"}:
            it.stream(2 if name == "merged" else 1, name=name)
        it.stream(name="going", Tags={"a": "b"})
        it.consumer("read", "old")
        it.on_demand(name="warm")
        it.on_demand(name="queued")
        it.queue("queued", "changed")
        it.queue("queued", "going")
        it.place.stop()
    with desk(folder, KFLOW_TRANSITION_MS=SLOW) as it:
        yield Seen(it)


def in_state(name: str, state: str) -> Refusal:
    return Refusal(
        "ResourceInUseException", f"Stream {name} under account {ACCOUNT} not ACTIVE, instead in state {state}"
    )


NOT_FOUND = Refusal("ResourceNotFoundException", f"Stream new under account {ACCOUNT} not found.")


def test_a_stream_that_is_being_made_has_no_shards_and_takes_nothing(seen: Seen) -> None:
    found = dict(seen.during["new"])
    del found["StreamCreationTimestamp"]
    assert found == {
        "StreamName": "new",
        "StreamARN": seen.it.arn("new"),
        "StreamStatus": "CREATING",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "Shards": [],
        "HasMoreShards": False,
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }
    assert seen.during["new shards"] == []
    assert seen.during["new tags"] == [{"Key": "a", "Value": "b"}]
    assert seen.refused["put"] == seen.refused["puts"] == NOT_FOUND
    assert seen.refused["iterate"] == Refusal(
        "ResourceNotFoundException", f"Shard {SHARD} in stream new under account {ACCOUNT} does not exist"
    )
    for what in ("split", "merge", "tag"):
        assert seen.refused[what] == in_state("new", "CREATING")
    assert (seen.after["new"]["StreamStatus"], seen.after["new"]["OpenShardCount"]) == ("ACTIVE", 2)


def test_no_more_than_five_streams_are_made_at_a_time(seen: Seen) -> None:
    text = (
        "This request would have exceed the limit on the number  of streams that can simultaneously be in CREATING or "
        f"DELETING for the account {ACCOUNT}. Limit: 5."
    )
    assert seen.refused["create"] == Refusal("LimitExceededException", text)
    assert "new-3" in seen.after
    assert "new-4" not in seen.after


def test_a_stream_that_goes_keeps_its_name_until_it_is_gone(seen: Seen) -> None:
    assert (seen.during["going"]["StreamStatus"], seen.during["going"]["Shards"]) == ("DELETING", [])
    assert seen.during["tags"] == []
    text = f"Stream going under account {ACCOUNT} already exists."
    assert seen.refused["create again"] == Refusal("ResourceInUseException", text)
    assert seen.refused["delete twice"].code == "ResourceInUseException"
    assert seen.refused["put to what goes"].code == "ResourceNotFoundException"
    assert "going" not in seen.after


@pytest.mark.parametrize("name", CHANGES)
def test_a_stream_that_is_changed_is_updating_and_then_active(seen: Seen, name: str) -> None:
    assert seen.during[name]["StreamStatus"] == "UPDATING"
    assert seen.during["listed"][name] == "UPDATING"
    assert seen.after[name]["StreamStatus"] == "ACTIVE"


def test_shards_stay_until_the_change_is_made(seen: Seen) -> None:
    assert [shard["ShardId"] for shard in seen.during["shards"]] == [SHARD]
    assert "EndingSequenceNumber" not in seen.during["shards"][0]["SequenceNumberRange"]
    assert seen.during["put"]["ShardId"] == SHARD
    assert [seen.during[name]["OpenShardCount"] for name in ("split", "merged", "scaled")] == [1, 2, 1]
    assert [seen.after[name]["OpenShardCount"] for name in ("split", "merged", "scaled")] == [2, 1, 2]
    assert [each["Data"] for each in seen.it.read("split")] == [b"x"]


def test_a_stream_that_is_updating_is_not_changed_a_second_time(seen: Seen) -> None:
    assert seen.refused["split twice"] == in_state("split", "UPDATING")


def test_settings_have_changed_when_the_stream_is_active(seen: Seen) -> None:
    assert seen.after["kept"]["RetentionPeriodHours"] == 48
    assert (seen.after["sealed"]["EncryptionType"], seen.after["sealed"]["KeyId"]) == ("KMS", "alias/mine")
    assert len(seen.after["watched"]["EnhancedMonitoring"][0]["ShardLevelMetrics"]) == 7
    assert seen.after["large"]["MaxRecordSizeInKiB"] == 4096
    assert seen.after["freed"]["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert seen.during["warm"]["WarmThroughput"] == {"TargetMiBps": 64, "CurrentMiBps": 4}
    assert seen.after["warm"]["WarmThroughput"] == {"TargetMiBps": 64, "CurrentMiBps": 64}


def test_a_consumer_that_is_being_made_cannot_be_used_yet(seen: Seen) -> None:
    made = seen.during["consumer"]
    assert made["ConsumerStatus"] == "CREATING"
    second = round(made["ConsumerCreationTimestamp"].timestamp())
    text = (
        f"Consumer new with creation timestamp {second} under stream: read , account {ACCOUNT} is not in ACTIVE status."
    )
    assert seen.refused["subscribe"] == Refusal("ResourceInUseException", text)
    assert seen.refused["register"].code == "LimitExceededException"
    assert seen.during["old"]["ConsumerStatus"] == "DELETING"
    assert sorted(seen.consumers) == ["more-0", "more-1", "more-2", "more-3", "new"]


def test_queues_come_change_and_go(seen: Seen) -> None:
    assert seen.during["queue"]["QueueStatus"] == "CREATING"
    assert seen.refused["receive"].code == "ResourceNotFoundException"
    assert seen.during["queues"] == {"changed": "UPDATING", "going": "DELETING", "new": "CREATING"}
    assert seen.queues == {"changed": "ACTIVE", "new": "ACTIVE"}


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path, KFLOW_TRANSITION_MS="500") as it:
        yield it


def test_waiters_wait_for_streams_that_come_and_go(usual: Desk) -> None:
    client = usual.client()
    patience = {"Delay": 1, "MaxAttempts": 60}
    began = time.monotonic()
    client.create_stream(StreamName="s", ShardCount=1)
    client.get_waiter("stream_exists").wait(StreamName="s", WaiterConfig=patience)
    assert usual.status("s") == "ACTIVE"
    assert time.monotonic() - began >= 0.5  # it cannot have been before
    client.delete_stream(StreamName="s")
    client.get_waiter("stream_not_exists").wait(StreamName="s", WaiterConfig=patience)
    assert client.list_streams()["StreamNames"] == []


def test_where_transitions_take_no_time_each_answer_is_the_end_of_one(it: Desk) -> None:
    client = it.client()
    for _ in range(3):  # also for a stream of the same name
        client.create_stream(StreamName="s", ShardCount=1)
        client.put_record(StreamName="s", Data=b"x", PartitionKey="k")
        client.split_shard(StreamName="s", ShardToSplit="0", NewStartingHashKey=HALF)
        client.merge_shards(StreamName="s", ShardToMerge="1", AdjacentShardToMerge="2")
        client.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=48)
        client.update_shard_count(StreamName="s", **UNIFORM)
        assert (it.summary("s")["StreamStatus"], it.summary("s")["OpenShardCount"]) == ("ACTIVE", 2)
        assert [each["Data"] for each in it.read("s")] == [b"x"]
        arn = client.register_stream_consumer(StreamARN=it.arn("s"), ConsumerName="c")["Consumer"]["ConsumerARN"]
        client.deregister_stream_consumer(ConsumerARN=arn)
        client.delete_stream(StreamName="s")
        assert client.list_streams()["StreamNames"] == []
