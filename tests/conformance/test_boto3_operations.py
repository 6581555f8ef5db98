"""Every operation of the newest botocore model, called by boto3 and answered as the model says (see `tests.botoing`).

Channels are the exception: there are none, which is what their operations say.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.botoing import ACCOUNT, REGION, Desk, operations, refusal

SHARD = "shardId-000000000000"
CHANNELS = frozenset({"CreateChannel", "DescribeChannel", "UpdateChannel", "DeleteChannel"})
HALF = str(1 << 127)


def test_every_operation_but_those_on_channels_succeeds(it: Desk) -> None:
    client = it.client()
    for part in (streams, settings, shards, records, consumers, resources, queues, accounts):
        part(client, it)
    assert set(operations()) - it.witness.answered == CHANNELS


def streams(client: Any, it: Desk) -> None:
    assert client.create_stream(StreamName="story", ShardCount=2, Tags={"team": "blue"})["ResponseMetadata"]
    client.create_stream(StreamName="story-on-demand", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    found = client.describe_stream(StreamName="story")["StreamDescription"]
    assert found["StreamARN"] == f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/story"
    assert found["StreamStatus"] == "ACTIVE"
    assert [shard["HashKeyRange"] for shard in found["Shards"]] == [
        {"StartingHashKey": "0", "EndingHashKey": str((1 << 127) - 1)},
        {"StartingHashKey": HALF, "EndingHashKey": str((1 << 128) - 1)},
    ]
    summary = client.describe_stream_summary(StreamName="story-on-demand")["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["RecordDistributionStrategy"]) == (4, "USER_PARTITION_KEY")
    assert client.list_streams()["StreamNames"] == ["story", "story-on-demand"]
    limits = client.describe_limits()
    del limits["ResponseMetadata"]
    assert limits == {
        "ShardLimit": 20000,
        "OpenShardCount": 6,
        "OnDemandStreamCount": 1,
        "OnDemandStreamCountLimit": 50,
        "ChannelCount": 0,
        "ChannelCountLimit": 50,
    }


def settings(client: Any, it: Desk) -> None:
    arn = it.arn("story")
    client.increase_stream_retention_period(StreamName="story", RetentionPeriodHours=48)
    assert it.summary("story")["RetentionPeriodHours"] == 48
    client.decrease_stream_retention_period(StreamARN=arn, RetentionPeriodHours=24)
    assert it.summary("story")["RetentionPeriodHours"] == 24
    client.start_stream_encryption(StreamName="story", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert (it.summary("story")["EncryptionType"], it.summary("story")["KeyId"]) == ("KMS", "alias/aws/kinesis")
    client.stop_stream_encryption(StreamName="story", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert (it.summary("story")["EncryptionType"], it.summary("story").get("KeyId")) == ("NONE", None)
    metrics = client.enable_enhanced_monitoring(StreamName="story", ShardLevelMetrics=["OutgoingBytes"])
    assert (metrics["CurrentShardLevelMetrics"], metrics["DesiredShardLevelMetrics"]) == ([], ["OutgoingBytes"])
    metrics = client.disable_enhanced_monitoring(StreamARN=arn, ShardLevelMetrics=["ALL"])
    assert (metrics["CurrentShardLevelMetrics"], metrics["DesiredShardLevelMetrics"]) == (["OutgoingBytes"], [])
    assert (metrics["StreamName"], metrics["StreamARN"]) == ("story", arn)
    client.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=2048)
    assert it.summary("story")["MaxRecordSizeInKiB"] == 2048
    mode = {"StreamMode": "ON_DEMAND"}
    client.update_stream_mode(StreamARN=arn, StreamModeDetails=mode)
    assert it.summary("story")["StreamModeDetails"] == mode
    client.update_stream_record_distribution_strategy(StreamARN=arn, RecordDistributionStrategy="AUTO")
    assert it.summary("story")["RecordDistributionStrategy"] == "AUTO"


def shards(client: Any, it: Desk) -> None:
    client.create_stream(StreamName="cut", ShardCount=1)
    client.split_shard(StreamName="cut", ShardToSplit=SHARD, NewStartingHashKey=HALF)
    client.merge_shards(StreamARN=it.arn("cut"), ShardToMerge="1", AdjacentShardToMerge="shardId-000000000002")
    scaled = client.update_shard_count(StreamName="cut", TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    assert (scaled["CurrentShardCount"], scaled["TargetShardCount"]) == (1, 2)
    listed = client.list_shards(StreamName="cut")["Shards"]
    assert [(shard["ShardId"][-1], shard.get("ParentShardId", "")[-1:]) for shard in listed] == [
        ("0", ""),
        ("1", "0"),
        ("2", "0"),
        ("3", "1"),
        ("4", "3"),
        ("5", "3"),
    ]
    assert listed[3]["AdjacentParentShardId"] == "shardId-000000000002"
    assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in listed] == [True] * 4 + [False] * 2


def records(client: Any, it: Desk) -> None:
    client.create_stream(StreamName="log", ShardCount=1)
    one = client.put_record(StreamName="log", Data=b"\x00\xff", PartitionKey="k")
    many = client.put_records(StreamARN=it.arn("log"), Records=[{"Data": b"", "PartitionKey": "\U0001f600"}] * 2)
    assert many["FailedRecordCount"] == 0
    assert set(one) == {"ShardId", "SequenceNumber", "ResponseMetadata"}
    numbers = [int(each["SequenceNumber"]) for each in [one, *many["Records"]]]
    assert numbers == sorted(set(numbers))
    iterator = client.get_shard_iterator(StreamName="log", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    page = client.get_records(ShardIterator=iterator["ShardIterator"])
    assert [(each["Data"], each["PartitionKey"], int(each["SequenceNumber"])) for each in page["Records"]] == [
        (b"\x00\xff", "k", numbers[0]),
        (b"", "\U0001f600", numbers[1]),
        (b"", "\U0001f600", numbers[2]),
    ]
    assert page["MillisBehindLatest"] == 0


def consumers(client: Any, it: Desk) -> None:
    made = client.register_stream_consumer(StreamARN=it.arn("log"), ConsumerName="fast", Tags={"a": "b"})["Consumer"]
    assert made["ConsumerStatus"] == "CREATING"
    arn = made["ConsumerARN"]
    found = client.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]
    assert (found["ConsumerName"], found["ConsumerStatus"], found["StreamARN"]) == ("fast", "ACTIVE", it.arn("log"))
    assert [each["ConsumerARN"] for each in client.list_stream_consumers(StreamARN=it.arn("log"))["Consumers"]] == [arn]
    start = {"Type": "TRIM_HORIZON"}
    other = it.new_client()
    events = other.subscribe_to_shard(ConsumerARN=arn, ShardId=SHARD, StartingPosition=start)["EventStream"]
    with contextlib.closing(other), contextlib.closing(events):
        event = next(iter(events))["SubscribeToShardEvent"]
    assert [record["Data"] for record in event["Records"]] == [b"\x00\xff", b"", b""]
    client.deregister_stream_consumer(ConsumerARN=arn)
    assert client.list_stream_consumers(StreamARN=it.arn("log"))["Consumers"] == []


def resources(client: Any, it: Desk) -> None:
    arn = it.arn("log")
    client.add_tags_to_stream(StreamName="log", Tags={"one": "1", "two": ""})
    client.tag_resource(ResourceARN=arn, Tags={"three": "3"})
    client.remove_tags_from_stream(StreamName="log", TagKeys=["one", "unknown"])
    client.untag_resource(ResourceARN=arn, TagKeys=["two"])
    assert client.list_tags_for_stream(StreamName="log")["Tags"] == [{"Key": "three", "Value": "3"}]
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "three", "Value": "3"}]
    assert client.get_resource_policy(ResourceARN=arn)["Policy"] == "{}"
    client.put_resource_policy(ResourceARN=arn, Policy='{"Version": "2012-10-17"}')
    assert client.get_resource_policy(ResourceARN=arn)["Policy"] == '{"Version": "2012-10-17"}'
    client.delete_resource_policy(ResourceARN=arn)
    assert client.get_resource_policy(ResourceARN=arn)["Policy"] == "{}"


def queues(client: Any, it: Desk) -> None:
    client.create_stream(StreamName="work", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}
    made = client.create_queue(
        QueueName="jobs",
        StreamConfigurationList=[{"StreamARN": it.arn("work"), "StartingPosition": {"Type": "TRIM_HORIZON"}}],
        QueueAttributes={"VisibilityTimeoutSeconds": 600, "DeadLetterConfiguration": letters},
    )["QueueDescription"]
    arn = made["QueueARN"]
    assert made["QueueStatus"] == "CREATING"
    assert client.describe_queue(QueueARN=arn)["QueueDescription"]["QueueStatus"] == "ACTIVE"
    assert [each["QueueName"] for each in client.list_queues()["QueueSummaries"]] == ["jobs"]
    client.put_records(StreamName="work", Records=[{"Data": b"%d" % n, "PartitionKey": str(n)} for n in range(2)])
    got: dict[bytes, str] = {}
    while len(got) < 2:
        page = client.receive_queue_records(QueueARN=arn, WaitTimeSeconds=20)["QueueRecords"]
        got |= {each["Data"]: each["ReceiptHandle"] for each in page}
    done = client.acknowledge_queue_records(QueueARN=arn, Entries=[{"ReceiptHandle": got[b"0"]}])
    assert (done["Successful"], done["Failed"]) == ([{"ReceiptHandle": got[b"0"]}], [])
    hidden = [{"ReceiptHandle": got[b"1"], "VisibilityTimeoutSeconds": 0}]
    assert client.update_queue_records_visibility(QueueARN=arn, Entries=hidden)["Failed"] == []
    for verb in ("hide", "restore", "acknowledge"):
        (dead,) = client.receive_dead_letter_queue_records(QueueARN=arn, WaitTimeSeconds=20)["QueueRecords"]
        entry = {"ReceiptHandle": dead["ReceiptHandle"]}
        if verb == "hide":
            again = [{**entry, "VisibilityTimeoutSeconds": 0}]
            assert client.update_dead_letter_queue_records_visibility(QueueARN=arn, Entries=again)["Failed"] == []
        elif verb == "restore":
            assert client.restore_dead_letter_queue_records(QueueARN=arn, Entries=[entry])["Failed"] == []
            (back,) = client.receive_queue_records(QueueARN=arn, WaitTimeSeconds=20)["QueueRecords"]
            again = [{"ReceiptHandle": back["ReceiptHandle"], "VisibilityTimeoutSeconds": 0}]
            assert (back["Data"], back["ReceiveCount"]) == (b"1", 1)
            client.update_queue_records_visibility(QueueARN=arn, Entries=again)
        else:
            assert client.acknowledge_dead_letter_queue_records(QueueARN=arn, Entries=[entry])["Failed"] == []
    changed = client.update_queue(QueueARN=arn, QueueAttributes={"VisibilityTimeoutSeconds": 1})["QueueDescription"]
    assert changed["QueueAttributes"] == {"VisibilityTimeoutSeconds": 1, "DeadLetterConfiguration": letters}
    client.delete_queue(QueueARN=arn)
    assert client.list_queues()["QueueSummaries"] == []
    client.delete_stream(StreamName="work")
    assert "work" not in client.list_streams()["StreamNames"]


def accounts(client: Any, it: Desk) -> None:
    name = "MinimumThroughputBillingCommitment"
    assert client.describe_account_settings()[name] == {"Status": "DISABLED"}
    enabled = client.update_account_settings(**{name: {"Status": "ENABLED"}})[name]
    assert enabled["Status"] == "ENABLED"
    assert (enabled["EarliestAllowedEndAt"] - enabled["StartedAt"]).total_seconds() == 86_400
    warm = client.update_stream_warm_throughput(StreamName="story-on-demand", WarmThroughputMiBps=100)
    assert warm["WarmThroughput"] == {"TargetMiBps": 100, "CurrentMiBps": 4}
    assert it.summary("story-on-demand")["WarmThroughput"] == {"TargetMiBps": 100, "CurrentMiBps": 100}
    assert client.list_channels()["ChannelSummaries"] == []


ARN = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:channel/none"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/none"


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("describe_channel", {"ChannelARN": ARN}),
        ("update_channel", {"ChannelARN": ARN}),
        ("delete_channel", {"ChannelARN": ARN}),
    ],
)
def test_there_are_no_channels(it: Desk, operation: str, given: dict[str, str]) -> None:
    text = f"Channel none under account {ACCOUNT} not found."
    assert refusal(getattr(it.client(), operation), **given) == ("ResourceNotFoundException", text, 400)


def test_no_channel_is_made_and_the_error_says_what_does_it_here(it: Desk) -> None:
    code, text, status = refusal(
        it.client().create_channel,
        ChannelName="c",
        ServiceExecutionRoleARN=ROLE,
        StreamConfigurationList=[{"StreamARN": it.arn("none"), "RecordConfiguration": {"RecordFormatType": "JSON"}}],
    )
    assert (code, status) == ("ValidationException", 400)
    assert text.startswith("kflow has no channels, so c is not created")
