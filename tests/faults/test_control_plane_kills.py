"""The control plane is killed at every file call it makes: what was acknowledged happens, what was begun ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kflow.broker import inspection
from kflow.broker.repair import repair
from tests.controlling import ARN, Desk
from tests.deadline import eventually
from tests.mortal import Killed, MortalFiles
from tests.served import Served, served

KEY = "alias/aws/kinesis"


Look = Callable[[Desk], Any]


def shards(desk: Desk) -> int:
    return int(summary(desk)["OpenShardCount"])


def summary(desk: Desk) -> dict[str, Any]:
    return dict(desk.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"])


def names(desk: Desk) -> list[str]:
    return list(desk.call("ListStreams")["StreamNames"])


def consumers(desk: Desk) -> list[tuple[str, str]]:
    found = desk.call("ListStreamConsumers", StreamARN=ARN)["Consumers"]
    return [(each["ConsumerName"], each["ConsumerStatus"]) for each in found]


def tags(desk: Desk) -> list[dict[str, str]]:
    return list(desk.call("ListTagsForStream", StreamName="orders")["Tags"])


CASES: list[tuple[str, dict[str, Any], Look, Any, Any]] = [
    ("CreateStream", {"StreamName": "other", "ShardCount": 2}, names, ["orders"], ["orders", "other"]),
    ("DeleteStream", {"StreamName": "orders"}, names, ["orders"], []),
    ("SplitShard", {"StreamName": "orders", "ShardToSplit": "0", "NewStartingHashKey": "5"}, shards, 2, 3),
    ("MergeShards", {"StreamName": "orders", "ShardToMerge": "0", "AdjacentShardToMerge": "1"}, shards, 2, 1),
    (
        "UpdateShardCount",
        {"StreamName": "orders", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING"},
        shards,
        2,
        3,
    ),
    (
        "IncreaseStreamRetentionPeriod",
        {"StreamName": "orders", "RetentionPeriodHours": 48},
        lambda desk: summary(desk)["RetentionPeriodHours"],
        24,
        48,
    ),
    (
        "UpdateMaxRecordSize",
        {"StreamARN": ARN, "MaxRecordSizeInKiB": 2048},
        lambda desk: summary(desk)["MaxRecordSizeInKiB"],
        1024,
        2048,
    ),
    (
        "UpdateStreamMode",
        {"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}},
        lambda desk: summary(desk)["StreamModeDetails"]["StreamMode"],
        "PROVISIONED",
        "ON_DEMAND",
    ),
    ("AddTagsToStream", {"StreamName": "orders", "Tags": {"a": "b"}}, tags, [], [{"Key": "a", "Value": "b"}]),
    (
        "RegisterStreamConsumer",
        {"StreamARN": ARN, "ConsumerName": "fast"},
        consumers,
        [],
        [("fast", "ACTIVE")],
    ),
    (
        "StartStreamEncryption",
        {"StreamName": "orders", "EncryptionType": "KMS", "KeyId": KEY},
        lambda desk: summary(desk).get("KeyId"),
        None,
        KEY,
    ),
    (
        "UpdateAccountSettings",
        {"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}},
        lambda desk: desk.call("DescribeAccountSettings")["MinimumThroughputBillingCommitment"]["Status"],
        "DISABLED",
        "ENABLED",
    ),
]


Prepare = Callable[[Desk], None]

QUEUE_START = {"StreamConfigurationList": [{"StreamARN": ARN, "StartingPosition": {"Type": "TRIM_HORIZON"}}]}


def on_demand(desk: Desk) -> None:
    desk.call("UpdateAccountSettings", MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    desk.call("UpdateStreamMode", StreamARN=ARN, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    desk.settle()


def with_queue(desk: Desk) -> None:
    on_demand(desk)
    desk.call("CreateQueue", QueueName="jobs", **QUEUE_START)
    desk.settle()


def with_consumer(desk: Desk) -> None:
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast", Tags={"a": "b"})
    desk.settle()


def with_settings(desk: Desk) -> None:
    desk.call("AddTagsToStream", StreamName="orders", Tags={"a": "b"})
    desk.call("IncreaseStreamRetentionPeriod", StreamName="orders", RetentionPeriodHours=48)
    desk.settle()
    desk.call("StartStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=KEY)
    desk.settle()
    desk.call("PutResourcePolicy", ResourceARN=ARN, Policy=POLICY)
    desk.call("EnableEnhancedMonitoring", StreamName="orders", ShardLevelMetrics=["IncomingBytes"])
    desk.settle()


def queues(desk: Desk) -> list[tuple[str, str]]:
    return [(each["QueueName"], each["QueueStatus"]) for each in desk.call("ListQueues")["QueueSummaries"]]


def visibility(desk: Desk) -> int:
    queue = desk.call("DescribeQueue", QueueARN=queue_arn(desk))["QueueDescription"]
    return int(queue["QueueAttributes"]["VisibilityTimeoutSeconds"])


def queue_arn(desk: Desk) -> str:
    return str(desk.call("ListQueues")["QueueSummaries"][0]["QueueARN"])


def queue_tags(desk: Desk) -> list[dict[str, str]]:
    return list(desk.call("ListTagsForResource", ResourceARN=queue_arn(desk))["Tags"])


def consumer_tags(desk: Desk) -> list[dict[str, str]]:
    arn = desk.call("ListStreamConsumers", StreamARN=ARN)["Consumers"][0]["ConsumerARN"]
    return list(desk.call("ListTagsForResource", ResourceARN=arn)["Tags"])


def policy(desk: Desk) -> str:
    return str(desk.call("GetResourcePolicy", ResourceARN=ARN)["Policy"])


def metrics(desk: Desk) -> list[str]:
    return list(summary(desk)["EnhancedMonitoring"][0]["ShardLevelMetrics"])


POLICY = '{"Version":"2012-10-17","Statement":[]}'
AB, CD = {"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}
ORDERS = {"StreamName": "orders"}

# What an input says of a queue or a consumer is made once that is there.
Given = dict[str, Any] | Callable[[Desk], dict[str, Any]]

PREPARED: list[tuple[str, Prepare, Given, Look, Any, Any]] = [
    ("CreateQueue", on_demand, {"QueueName": "jobs", **QUEUE_START}, queues, [], [("jobs", "ACTIVE")]),
    (
        "UpdateQueue",
        with_queue,
        lambda desk: {"QueueARN": queue_arn(desk), "QueueAttributes": {"VisibilityTimeoutSeconds": 7}},
        visibility,
        30,
        7,
    ),
    ("DeleteQueue", with_queue, lambda desk: {"QueueARN": queue_arn(desk)}, queues, [("jobs", "ACTIVE")], []),
    ("TagResource", with_queue, lambda d: {"ResourceARN": queue_arn(d), "Tags": {"a": "b"}}, queue_tags, [], [AB]),
    (
        "DeregisterStreamConsumer",
        with_consumer,
        {"StreamARN": ARN, "ConsumerName": "fast"},
        consumers,
        [("fast", "ACTIVE")],
        [],
    ),
    (
        "UntagResource",
        with_consumer,
        lambda desk: {
            "ResourceARN": desk.call("ListStreamConsumers", StreamARN=ARN)["Consumers"][0]["ConsumerARN"],
            "TagKeys": ["a"],
        },
        consumer_tags,
        [AB],
        [],
    ),
    ("RemoveTagsFromStream", with_settings, {**ORDERS, "TagKeys": ["a"]}, tags, [AB], []),
    ("TagResource", with_settings, {"ResourceARN": ARN, "Tags": {"c": "d"}}, tags, [AB], [AB, CD]),
    (
        "DecreaseStreamRetentionPeriod",
        with_settings,
        {**ORDERS, "RetentionPeriodHours": 24},
        lambda desk: summary(desk)["RetentionPeriodHours"],
        48,
        24,
    ),
    (
        "StopStreamEncryption",
        with_settings,
        {**ORDERS, "EncryptionType": "KMS", "KeyId": KEY},
        lambda desk: summary(desk)["EncryptionType"],
        "KMS",
        "NONE",
    ),
    ("DeleteResourcePolicy", with_settings, {"ResourceARN": ARN}, policy, POLICY, "{}"),
    (
        "DisableEnhancedMonitoring",
        with_settings,
        {**ORDERS, "ShardLevelMetrics": ["ALL"]},
        metrics,
        ["IncomingBytes"],
        [],
    ),
    (
        "UpdateStreamWarmThroughput",
        on_demand,
        {**ORDERS, "WarmThroughputMiBps": 9},
        lambda desk: summary(desk)["WarmThroughput"]["TargetMiBps"],
        2,
        9,
    ),
    (
        "UpdateStreamRecordDistributionStrategy",
        on_demand,
        {"StreamARN": ARN, "RecordDistributionStrategy": "AUTO"},
        lambda desk: summary(desk)["RecordDistributionStrategy"],
        "USER_PARTITION_KEY",
        "AUTO",
    ),
]


@pytest.mark.parametrize(("operation", "given", "look", "before", "after"), CASES, ids=[case[0] for case in CASES])
def test_a_kill_at_any_file_call_loses_nothing_that_was_acknowledged(
    tmp_path: Path, operation: str, given: dict[str, Any], look: Look, before: Any, after: Any
) -> None:
    kill_everywhere(tmp_path, lambda desk: None, operation, given, look, before, after)


@pytest.mark.parametrize(
    ("operation", "prepare", "given", "look", "before", "after"),
    PREPARED,
    ids=[f"{case[0]} {case[1].__name__}" for case in PREPARED],
)
def test_a_kill_at_any_file_call_leaves_the_old_or_the_new(
    tmp_path: Path, operation: str, prepare: Prepare, given: Given, look: Look, before: Any, after: Any
) -> None:
    kill_everywhere(tmp_path, prepare, operation, given, look, before, after)


def kill_everywhere(
    tmp_path: Path, prepare: Prepare, operation: str, given: Given, look: Look, before: Any, after: Any
) -> None:
    for calls in itertools.count():
        files = MortalFiles()
        desk = Desk(tmp_path / str(calls), files=files)
        desk.stream(ShardCount=2)
        prepare(desk)
        assert look(desk) == before
        members = given(desk) if callable(given) else given
        files.left = calls
        answers: list[Any] = []
        died = False
        try:
            answers = desk.begin(operation, **members)
            desk.host.work()
            desk.settle()
        except Killed:
            died = True
        acknowledged = bool(answers) and not isinstance(answers[0], Exception)
        files.left = None
        desk.restart()
        desk.settle()
        found = look(desk)
        assert found in ((after,) if acknowledged else (before, after)), (calls, found)
        if names(desk):
            assert desk.status(names(desk)[0]) == "ACTIVE"
        assert list(inspection.faults(desk.folder)) == []
        if not died:
            assert acknowledged
            break
        if found == before:
            desk.call(operation, **members)
            desk.settle()
            assert look(desk) == after
    assert calls >= 2


def test_kills_in_a_row_while_a_stream_goes_leave_nothing_of_it(tmp_path: Path) -> None:
    files = MortalFiles()
    desk = Desk(tmp_path, files=files)
    desk.stream(ShardCount=2)
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")
    desk.call("DeleteStream", StreamName="orders", EnforceConsumerDeletion=True)
    for _ in range(60):
        files.left = 1
        try:
            desk.restart()
            desk.settle()
        except Killed:
            continue
        break
    files.left = None
    desk.restart()
    desk.settle()
    assert names(desk) == []
    assert list((tmp_path / "streams").glob("orders*")) == []


def test_a_stream_that_was_creating_when_the_clock_was_set_back_is_active(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.call("CreateStream", StreamName="orders", ShardCount=1)
    desk.clock.epoch_ms -= 3_600_000
    desk.restart()
    assert desk.status() == "ACTIVE"


def test_a_split_that_was_under_way_when_the_clock_was_set_back_ends(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.stream()
    desk.call("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="5")
    desk.clock.epoch_ms -= 3_600_000
    desk.restart()
    assert desk.status() == "UPDATING"
    desk.settle()
    assert (desk.status(), shards(desk)) == ("ACTIVE", 2)


@pytest.mark.parametrize("wrong", ["file", "twin", "both", "missing", "no copy"])
def test_what_is_kept_and_damaged_is_found_and_mended(tmp_path: Path, wrong: str) -> None:
    desk = Desk(tmp_path)
    stream = desk.stream(Tags={"a": "b"})
    path = desk.folder.stream_dir(stream.map) / "attributes.json"
    twin = path.with_name("attributes.json.twin")
    for each in {"file": (path,), "twin": (twin,), "both": (path, twin)}.get(wrong, ()):
        each.write_bytes(each.read_bytes().replace(b'"b"', b'"c"'))
    {"missing": path.unlink, "no copy": twin.unlink}.get(wrong, lambda: None)()

    (fault,) = inspection.faults(desk.folder)
    assert (fault.kind, fault.is_harmless) == (inspection.Kind.KEPT, wrong in ("twin", "no copy"))
    repair(desk.log, fault)

    assert list(inspection.faults(desk.folder)) == []
    desk.restart()
    assert tags(desk) == ([] if wrong == "both" else [{"Key": "a", "Value": "b"}])


def test_a_start_makes_whole_what_is_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stream = desk.stream(Tags={"a": "b"})
    path = desk.folder.stream_dir(stream.map) / "attributes.json"
    path.unlink()
    desk.restart()
    assert path.read_bytes() == path.with_name("attributes.json.twin").read_bytes()
    assert tags(desk) == [{"Key": "a", "Value": "b"}]


# ---------------------------------------------------------------------- with real processes


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, KFLOW_TRANSITION_MS="300") as made:
        yield made


def state(client: Any) -> tuple[str, int]:
    found = client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    return found["StreamStatus"], found["OpenShardCount"]


def test_what_was_asked_of_a_killed_process_is_done_by_the_next_one(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=2, Tags={"a": "b"})
    endpoint.kill()
    endpoint.start()
    kinesis = endpoint.client()
    eventually(lambda: state(kinesis) == ("ACTIVE", 2), what="the stream to be active")

    kinesis.split_shard(StreamName="orders", ShardToSplit="0", NewStartingHashKey="5")
    endpoint.kill()
    endpoint.start()
    kinesis = endpoint.client()
    eventually(lambda: state(kinesis) == ("ACTIVE", 3), what="the split to be done")

    arn = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]
    made = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="fast")["Consumer"]
    kinesis.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)
    endpoint.kill()
    endpoint.start()
    kinesis = endpoint.client()
    assert made["ConsumerCreationTimestamp"] > datetime(2020, 1, 1, tzinfo=UTC)
    eventually(lambda: kinesis.list_streams()["StreamNames"] == [], what="the stream to be gone")
