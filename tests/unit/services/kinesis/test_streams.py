"""Streams through the service: each state as it is seen from outside, each refusal in AWS's words."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Place
from kflow.broker.attributes import Pending
from kflow.broker.folder import DataFolder
from tests.controlling import ACCOUNT, ARN, Desk
from tests.storing import FaultyFiles

ON_DEMAND = {"StreamMode": "ON_DEMAND"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def described(desk: Desk, **more: Any) -> dict[str, Any]:
    return dict(desk.call("DescribeStream", StreamName="orders", **more)["StreamDescription"])


def summary(desk: Desk) -> dict[str, Any]:
    return dict(desk.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"])


def test_the_id_of_a_stream_is_taken_by_every_operation_and_means_nothing(desk: Desk) -> None:
    desk.stream()
    id_ = "abcdefghij0123456789-abc"
    assert described(desk, StreamId=id_) == described(desk)
    assert desk.call("ListShards", StreamName="orders", StreamId=id_) == desk.call("ListShards", StreamName="orders")
    assert desk.call("GetResourcePolicy", ResourceARN=ARN, StreamId=id_) == {"Policy": "{}"}
    assert desk.refusal("DescribeStream", StreamId=id_)[0] == "InvalidArgumentException"


def test_large_regions_have_more_shards(desk: Desk) -> None:
    for region, shards in (("us-east-1", 20_000), ("us-west-2", 20_000), ("eu-west-1", 20_000), ("eu-north-1", 1000)):
        desk.place = Place(ACCOUNT, region)
        assert desk.call("DescribeLimits")["ShardLimit"] == shards
    refused = desk.refusal("CreateStream", StreamName="orders", ShardCount=1001)
    assert refused[0] == "LimitExceededException"
    assert "in eu-north-1. Current shard count for the account: 0. Limit: 1000." in refused[1]


# ---------------------------------------------------------------------- create


def test_a_new_stream_is_creating_without_shards_and_then_active_with_them(desk: Desk) -> None:
    assert not desk.call("CreateStream", StreamName="orders", ShardCount=3)

    assert described(desk) == {
        "StreamName": "orders",
        "StreamARN": ARN,
        "StreamStatus": "CREATING",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "StreamCreationTimestamp": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "Shards": [],
        "HasMoreShards": False,
    }
    desk.host.advance(499)
    assert desk.status() == "CREATING"
    desk.host.advance(1)
    found = described(desk)
    assert found["StreamStatus"] == "ACTIVE"
    assert [shard["HashKeyRange"] for shard in found["Shards"]] == [
        {"StartingHashKey": "0", "EndingHashKey": "113427455640312821154458202477256070484"},
        {
            "StartingHashKey": "113427455640312821154458202477256070485",
            "EndingHashKey": "226854911280625642308916404954512140969",
        },
        {
            "StartingHashKey": "226854911280625642308916404954512140970",
            "EndingHashKey": "340282366920938463463374607431768211455",
        },
    ]
    assert found["Shards"][1] == {
        "ShardId": "shardId-000000000001",
        "HashKeyRange": found["Shards"][1]["HashKeyRange"],
        "SequenceNumberRange": {"StartingSequenceNumber": "49646437577130777162115407028967465143858078037781250066"},
    }


def test_a_name_is_taken_in_every_state(desk: Desk) -> None:
    taken = ("ResourceInUseException", f"Stream orders under account {ACCOUNT} already exists.")
    first = desk.begin("CreateStream", StreamName="orders", ShardCount=1)
    assert desk.refusal("CreateStream", StreamName="orders", ShardCount=1) == taken
    assert first == [{}]
    assert desk.refusal("CreateStream", StreamName="orders", ShardCount=1) == taken
    desk.settle()
    assert desk.refusal("CreateStream", StreamName="orders", ShardCount=1) == taken
    desk.call("DeleteStream", StreamName="orders")
    assert desk.refusal("CreateStream", StreamName="orders", ShardCount=1) == taken
    desk.settle()
    desk.call("CreateStream", StreamName="orders", ShardCount=1)


def test_a_name_is_free_in_another_region_and_in_another_account(desk: Desk) -> None:
    desk.stream()
    for place in (Place(ACCOUNT, "eu-west-1"), Place("111122223333", "us-east-1")):
        desk.place = place
        assert desk.call("ListStreams")["StreamNames"] == []
        desk.stream(ShardCount=2)
        found = summary(desk)
        assert found["OpenShardCount"] == 2
        assert found["StreamARN"] == f"arn:aws:kinesis:{place.region}:{place.account}:stream/orders"
    desk.restart()
    assert sorted(stream.place for stream in desk.registry.everywhere()) == [
        ("111122223333", "us-east-1"),
        ("123456789012", "eu-west-1"),
        ("123456789012", "us-east-1"),
    ]
    assert [each.name for each in DataFolder.open(desk.path).maps()] == ["orders"]
    assert len(DataFolder.open(desk.path).map("orders").shards) == 1


def test_an_arn_leads_to_its_own_region_and_its_refusal_names_the_stream(desk: Desk) -> None:
    desk.place = Place(ACCOUNT, "eu-west-1")
    desk.stream()
    desk.place = Place(ACCOUNT, "us-east-1")
    arn = f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/orders"
    found = desk.call("DescribeStreamSummary", StreamARN=arn)["StreamDescriptionSummary"]
    assert found["StreamARN"] == arn
    assert desk.refusal("DescribeStreamSummary", StreamARN=ARN) == (
        "ResourceNotFoundException",
        "Stream orders under account 123456789012 not found.",
    )


def test_a_stream_is_named_by_name_or_by_arn_and_by_both_where_they_agree(desk: Desk) -> None:
    desk.stream()
    desk.call("DescribeStream", StreamARN=ARN, StreamName="orders")
    assert desk.refusal("DescribeStream", StreamARN=ARN, StreamName="other") == (
        "InvalidArgumentException",
        f"StreamARN {ARN} and StreamName other do not name the same stream.",
    )
    assert desk.refusal("DescribeStream") == (
        "InvalidArgumentException",
        "Neither StreamName nor StreamARN was provided.",
    )
    assert desk.refusal("DescribeStream", StreamARN=f"{ARN}/consumer/fast:1")[0] == "InvalidArgumentException"


def test_an_on_demand_stream_begins_with_four_shards_and_takes_no_count(desk: Desk) -> None:
    desk.stream(StreamModeDetails=ON_DEMAND)
    found = summary(desk)
    assert (found["OpenShardCount"], found["RecordDistributionStrategy"]) == (4, "USER_PARTITION_KEY")
    assert "WarmThroughput" not in found
    refused = desk.refusal("CreateStream", StreamName="other", ShardCount=1, StreamModeDetails=ON_DEMAND)
    assert refused == ("InvalidArgumentException", "ShardCount is only for streams in PROVISIONED mode.")


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        (
            {},
            "ValidationException",
            (
                "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: "
                "Member must not be null"
            ),
        ),
        (
            {"ShardCount": 1, "WarmThroughputMiBps": 4},
            "InvalidArgumentException",
            "WarmThroughputMiBps is only for streams in ON_DEMAND mode.",
        ),
        (
            {"ShardCount": 1, "RecordDistributionStrategy": "AUTO"},
            "InvalidArgumentException",
            "RecordDistributionStrategy AUTO is only for streams in ON_DEMAND mode.",
        ),
        (
            {"StreamModeDetails": ON_DEMAND, "WarmThroughputMiBps": 4},
            "InvalidArgumentException",
            (
                "WarmThroughputMiBps needs MinimumThroughputBillingCommitment, which account 123456789012 has not "
                "enabled in us-east-1: call UpdateAccountSettings."
            ),
        ),
        (
            {"ShardCount": 1, "Tags": {"aws:x": "y"}},
            "InvalidArgumentException",
            "Tag keys that begin with aws: are reserved: aws:x",
        ),
        (
            {"ShardCount": 20_001},
            "LimitExceededException",
            (
                "This request would exceed the shard limit for the account 123456789012 in us-east-1. Current shard "
                "count for the account: 0. Limit: 20000. Number of additional shards that would have resulted from "
                "this request: 20001. Refer to the AWS Service Limits page "
                "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to "
                "request higher limits."
            ),
        ),
        (
            {"ShardCount": 1001},
            "LimitExceededException",
            "stream orders: 1001 shards are more than the 1000 that kflow keeps",
        ),
    ],
)
def test_what_a_new_stream_may_not_have_is_refused(desk: Desk, given: dict[str, Any], code: str, text: str) -> None:
    assert desk.refusal("CreateStream", StreamName="orders", **given) == (code, text)
    assert desk.call("ListStreams")["StreamNames"] == []
    desk.call("CreateStream", StreamName="orders", ShardCount=1)  # the name is not taken


def test_five_streams_are_made_at_a_time(desk: Desk) -> None:
    answers = [desk.begin("CreateStream", StreamName=f"s{number}", ShardCount=1) for number in range(6)]
    desk.host.work()
    assert [answer == [{}] for answer in answers] == [True] * 5 + [False]
    assert str(answers[5][0]) == (
        "This request would have exceed the limit on the number  of streams that can simultaneously be in CREATING or "
        "DELETING for the account 123456789012. Limit: 5."
    )
    assert desk.refusal("CreateStream", StreamName="s6", ShardCount=1)[0] == "LimitExceededException"
    desk.place = Place(ACCOUNT, "eu-west-1")
    desk.call("CreateStream", StreamName="s6", ShardCount=1)
    desk.place = Place(ACCOUNT, "us-east-1")
    desk.settle()
    desk.call("CreateStream", StreamName="s6", ShardCount=1)


def test_an_account_has_fifty_on_demand_streams(desk: Desk) -> None:
    for number in range(50):
        desk.stream(f"s{number:02}", StreamModeDetails=ON_DEMAND)
    assert desk.refusal("CreateStream", StreamName="one", StreamModeDetails=ON_DEMAND) == (
        "LimitExceededException",
        (
            "This request would exceed the limit on the number of On-Demand streams for the account 123456789012 in "
            "us-east-1. Current On-Demand streams count: 50. Limit: 50."
        ),
    )
    assert desk.call("DescribeLimits") == {
        "ShardLimit": 20_000,
        "OpenShardCount": 200,
        "OnDemandStreamCount": 50,
        "OnDemandStreamCountLimit": 50,
        "ChannelCount": 0,
        "ChannelCountLimit": 50,
    }


def test_a_stream_that_cannot_be_written_is_not_there_and_its_name_is_free(tmp_path: Path) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    files.errors, files.only = {"replace": errno.ENOSPC}, "map.json"
    assert desk.refusal("CreateStream", StreamName="orders", ShardCount=1)[0] == "StorageFull"
    files.errors = {}
    desk.call("CreateStream", StreamName="orders", ShardCount=1)


# ---------------------------------------------------------------------- delete


def test_a_deleted_stream_is_deleting_without_shards_and_then_gone(desk: Desk) -> None:
    desk.stream(Tags={"a": "b"})
    assert not desk.call("DeleteStream", StreamName="orders")
    found = described(desk)
    assert (found["StreamStatus"], found["Shards"]) == ("DELETING", [])
    assert desk.call("ListTagsForStream", StreamName="orders")["Tags"] == []
    assert desk.refusal("DeleteStream", StreamName="orders")[0] == "ResourceInUseException"
    desk.settle()
    assert desk.refusal("DescribeStream", StreamName="orders")[0] == "ResourceNotFoundException"
    assert desk.call("ListStreams")["StreamNames"] == []


def test_a_stream_with_consumers_is_deleted_only_with_them(desk: Desk) -> None:
    desk.stream()
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")
    assert desk.refusal("DeleteStream", StreamName="orders") == (
        "ResourceInUseException",
        (
            "Stream orders under account 123456789012 has registered consumers: fast. Deregister them, or set "
            "EnforceConsumerDeletion."
        ),
    )
    desk.call("DeleteStream", StreamName="orders", EnforceConsumerDeletion=True)


def test_a_stream_with_queues_is_never_deleted(desk: Desk) -> None:
    stream = desk.stream()
    desk.registry.queues_on = lambda stream_id: 2 if stream_id == stream.id else 0
    assert summary(desk)["QueueCount"] == 2
    assert desk.refusal("DeleteStream", StreamName="orders", EnforceConsumerDeletion=True) == (
        "ResourceInUseException",
        "Stream orders under account 123456789012 has 2 queues: delete them with DeleteQueue first.",
    )


def test_a_stream_that_is_being_made_cannot_be_deleted(desk: Desk) -> None:
    desk.call("CreateStream", StreamName="orders", ShardCount=1)
    assert desk.refusal("DeleteStream", StreamName="orders") == (
        "ResourceInUseException",
        "Stream orders under account 123456789012 not ACTIVE, instead in state CREATING",
    )


def test_a_deletion_takes_the_place_of_a_split_under_way(desk: Desk) -> None:
    desk.stream()
    desk.call("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="10")
    desk.call("DeleteStream", StreamName="orders")
    desk.settle()
    assert desk.host.did == ["create_stream", "delete_stream"]
    assert desk.refusal("DescribeStream", StreamName="orders")[0] == "ResourceNotFoundException"


def test_a_deletion_that_was_acknowledged_is_tried_until_the_disk_lets_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    desk.stream()
    desk.call("DeleteStream", StreamName="orders")
    files.errors, files.only = {"replace": errno.ENOSPC}, "map.json"
    desk.settle()
    assert desk.status() == "DELETING"
    assert desk.host.notices[0].startswith("error: stream orders: cannot delete as was asked for: ")
    desk.host.advance(1_000)
    assert (desk.status(), len(desk.host.notices)) == ("DELETING", 2)
    files.errors = {}
    desk.host.advance(1_999)
    assert desk.status() == "DELETING"
    desk.host.advance(1)
    assert desk.refusal("DescribeStream", StreamName="orders")[0] == "ResourceNotFoundException"
    assert len(desk.host.notices) == 2


@pytest.mark.parametrize("only", ["map.json", "attributes.json"])
def test_a_split_that_was_acknowledged_is_done_once_the_disk_lets_it(tmp_path: Path, only: str) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    desk.stream()
    desk.call("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="10")
    files.errors, files.only = {"replace": errno.ENOSPC}, only
    desk.settle()
    assert desk.status() == "UPDATING"
    files.errors = {}
    desk.host.advance(1_000)
    assert (desk.status(), summary(desk)["OpenShardCount"], len(desk.host.notices)) == ("ACTIVE", 2, 1)


def test_a_change_that_cannot_be_made_at_once_is_refused_and_has_not_happened(tmp_path: Path) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files, transition_ms=0)
    desk.stream()
    files.errors, files.only = {"replace": errno.ENOSPC}, "map.json"
    assert desk.refusal("DeleteStream", StreamName="orders")[0] == "StorageFull"
    files.errors = {}
    desk.host.advance(60_000)
    assert (desk.status(), desk.host.did) == ("ACTIVE", ["create_stream", "delete_stream"])


def test_what_goes_while_it_is_changed_is_not_found_and_nothing_broke(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.stream()
    desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")
    first = desk.begin("DeleteStream", StreamName="orders", EnforceConsumerDeletion=True)
    desk.host.step()  # it is DELETING for certain
    work = desk.host.errands.popleft()
    second = desk.begin("DeregisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")
    result = work[0]()  # its folder goes first, and nobody knows that yet
    desk.host.work()
    work[1](result)
    desk.host.work()
    assert first == [{}]
    (error,) = second
    assert (type(error).__name__, str(error)) == (
        "ResourceNotFound",
        "Stream orders under account 123456789012 not found.",
    )
    assert desk.host.notices == []


def test_settings_of_a_stream_that_went_meanwhile_are_of_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.stream()
    first = desk.begin("UpdateMaxRecordSize", StreamARN=ARN, MaxRecordSizeInKiB=2048)
    second = desk.begin("DeleteStream", StreamName="orders")
    for _ in range(2):  # both are kept, and the deletion overtakes
        desk.host.step()
    desk.host.errands.rotate(-1)
    desk.host.work()
    assert second == [{}]
    (error,) = first
    assert str(error) == "Stream orders under account 123456789012 not found."


def test_nothing_for_on_demand_streams_only_slips_in_while_a_stream_becomes_provisioned(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.stream(StreamModeDetails=ON_DEMAND)
    desk.begin("UpdateStreamMode", StreamARN=ARN, StreamModeDetails={"StreamMode": "PROVISIONED"})
    queue = desk.begin("CreateQueue", QueueName="jobs", StreamConfigurationList=[{"StreamARN": ARN}])
    auto = desk.begin("UpdateStreamRecordDistributionStrategy", StreamARN=ARN, RecordDistributionStrategy="AUTO")
    again = desk.begin("UpdateStreamMode", StreamARN=ARN, StreamModeDetails={"StreamMode": "PROVISIONED"})
    desk.host.work()
    answers = [type(answer).__name__ for (answer,) in (queue, auto, again)]
    assert answers == ["ValidationFailed", "InvalidArgument", "ResourceInUse"]
    assert summary(desk)["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}


def test_a_pending_change_of_a_shard_that_is_not_there_stops_no_start(desk: Desk) -> None:
    stream = desk.stream()
    pending = Pending(kind="split", due_ms=desk.host.now_ms(), arguments={"shard": "shardId-000000000007", "at": "10"})
    desk.registry.change(stream, lambda _: None, pending=pending)
    desk.host.work()
    desk.restart()
    desk.settle()
    assert desk.status() == "ACTIVE"
    assert desk.host.notices == [
        (
            "error: stream orders: cannot split as was asked for: "
            "Could not find shard shardId-000000000007 in stream orders under account 123456789012."
        )
    ]


# ---------------------------------------------------------------------- listed


def test_streams_are_listed_by_name_a_page_of_a_hundred_at_a_time(desk: Desk) -> None:
    for number in range(101):
        desk.log.create_stream(f"s{number:03}", 1)
    desk.restart()
    first = desk.call("ListStreams", Limit=10_000)
    assert first["StreamNames"] == [f"s{number:03}" for number in range(100)]
    assert first["HasMoreStreams"] is True
    assert first["StreamSummaries"][7] == {
        "StreamName": "s007",
        "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s007",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "StreamCreationTimestamp": datetime(2023, 11, 14, 22, 13, 27, tzinfo=UTC),
    }
    rest = desk.call("ListStreams", NextToken=first["NextToken"])
    assert (rest["StreamNames"], rest["HasMoreStreams"]) == (["s100"], False)
    assert "NextToken" not in rest
    after = desk.call("ListStreams", ExclusiveStartStreamName="s0985", Limit=1)
    assert after["StreamNames"] == ["s099"]


def test_a_token_of_streams_lives_five_minutes_and_nobody_makes_one_up(desk: Desk) -> None:
    desk.stream("a")
    desk.stream("b")
    token = desk.call("ListStreams", Limit=1)["NextToken"]
    assert desk.refusal("ListStreams", NextToken="b") == (
        "InvalidArgumentException",
        "NextToken is invalid: give one of the last five minutes as it was returned.",
    )
    assert desk.refusal("ListStreams", NextToken=token, ExclusiveStartStreamName="a") == (
        "InvalidArgumentException",
        "NextToken and ExclusiveStartStreamName cannot be provided together.",
    )
    desk.restart()
    desk.host.advance(300_000)
    assert desk.call("ListStreams", NextToken=token)["StreamNames"] == ["b"]
    desk.host.advance(1)
    assert desk.refusal("ListStreams", NextToken=token)[0] == "ExpiredNextTokenException"


def test_shards_are_described_a_hundred_at_a_time(desk: Desk) -> None:
    desk.stream(ShardCount=101)
    first = described(desk)
    assert (len(first["Shards"]), first["HasMoreShards"]) == (100, True)
    rest = described(desk, ExclusiveStartShardId=first["Shards"][-1]["ShardId"])
    assert [shard["ShardId"] for shard in rest["Shards"]] == ["shardId-000000000100"]
    assert rest["HasMoreShards"] is False
    assert len(described(desk, Limit=10_000)["Shards"]) == 100
    assert [shard["ShardId"] for shard in described(desk, Limit=1, ExclusiveStartShardId="7")["Shards"]] == [
        "shardId-000000000008"
    ]


# ---------------------------------------------------------------------- shards


def test_a_split_is_seen_when_its_time_is_over_and_not_before(desk: Desk) -> None:
    desk.stream()
    assert not desk.call("SplitShard", StreamName="orders", ShardToSplit="x-0", NewStartingHashKey="2")
    assert (desk.status(), len(described(desk)["Shards"])) == ("UPDATING", 1)
    desk.settle()
    found = described(desk)
    assert found["StreamStatus"] == "ACTIVE"
    parent, lower, upper = found["Shards"]
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    assert (lower["ParentShardId"], lower["HashKeyRange"]) == (
        "shardId-000000000000",
        {"StartingHashKey": "0", "EndingHashKey": "1"},
    )
    assert upper["HashKeyRange"]["StartingHashKey"] == "2"
    assert "AdjacentParentShardId" not in upper
    assert "EndingSequenceNumber" not in upper["SequenceNumberRange"]


def test_a_merge_has_two_parents(desk: Desk) -> None:
    desk.stream(ShardCount=2)
    desk.call(
        "MergeShards", StreamARN=ARN, ShardToMerge="shardId-000000000000", AdjacentShardToMerge="shardId-000000000001"
    )
    desk.settle()
    child = described(desk)["Shards"][2]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == ("shardId-000000000000", "shardId-000000000001")
    assert child["HashKeyRange"]["EndingHashKey"] == "340282366920938463463374607431768211455"


def test_a_scaling_answers_what_there_is_and_what_will_be(desk: Desk) -> None:
    desk.stream(ShardCount=2)
    answer = desk.call("UpdateShardCount", StreamName="orders", TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    assert answer == {"StreamName": "orders", "CurrentShardCount": 2, "TargetShardCount": 4, "StreamARN": ARN}
    desk.settle()
    assert summary(desk)["OpenShardCount"] == 4


def test_ten_scalings_a_day_are_enough(desk: Desk) -> None:
    desk.stream(ShardCount=2)
    for number in range(10):
        desk.call(
            "UpdateShardCount", StreamName="orders", TargetShardCount=3 - number % 2, ScalingType="UNIFORM_SCALING"
        )
        desk.settle()
    desk.restart()
    refused = desk.refusal("UpdateShardCount", StreamName="orders", TargetShardCount=3, ScalingType="UNIFORM_SCALING")
    assert refused == (
        "LimitExceededException",
        "UpdateShardCount can be called 10 times in 24 hours for a stream: orders under account 123456789012.",
    )
    desk.host.advance(86_400_000)
    desk.call("UpdateShardCount", StreamName="orders", TargetShardCount=3, ScalingType="UNIFORM_SCALING")


@pytest.mark.parametrize(
    ("operation", "given", "code", "text"),
    [
        (
            "SplitShard",
            {"StreamName": "nothing", "ShardToSplit": "2.14E4", "NewStartingHashKey": "5"},
            "ResourceNotFoundException",
            "Could not find shard 2.14E4 in stream nothing under account 123456789012.",
        ),
        (
            "SplitShard",
            {"StreamName": "nothing", "ShardToSplit": "0", "NewStartingHashKey": "5"},
            "ResourceNotFoundException",
            "Stream nothing under account 123456789012 not found.",
        ),
        (
            "SplitShard",
            {"StreamName": "orders", "ShardToSplit": "7", "NewStartingHashKey": "5"},
            "ResourceNotFoundException",
            "Could not find shard shardId-000000000007 in stream orders under account 123456789012.",
        ),
        (
            "SplitShard",
            {"StreamName": "orders", "ShardToSplit": "0", "NewStartingHashKey": "1"},
            "InvalidArgumentException",
            (
                "NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000000 in stream orders under "
                "account 123456789012 is not both greater than one plus the shard's StartingHashKey 0 and less than "
                "the shard's EndingHashKey 170141183460469231731687303715884105727."
            ),
        ),
        (
            "MergeShards",
            {"StreamName": "orders", "ShardToMerge": "1", "AdjacentShardToMerge": "0"},
            "InvalidArgumentException",
            (
                "Shards shardId-000000000001 and shardId-000000000000 in stream orders under account 123456789012 are "
                "not an adjacent pair of shards eligible for merging"
            ),
        ),
        (
            "UpdateShardCount",
            {"StreamName": "orders", "TargetShardCount": 5, "ScalingType": "UNIFORM_SCALING"},
            "LimitExceededException",
            (
                "UpdateShardCount cannot scale up over double your current open shard count. Current open shard "
                "count: 2 Target shard count: 5"
            ),
        ),
    ],
)
def test_changes_of_shards_are_refused_in_the_order_and_words_of_aws(
    desk: Desk, operation: str, given: dict[str, Any], code: str, text: str
) -> None:
    desk.stream(ShardCount=2)
    assert desk.refusal(operation, **given) == (code, text)
    assert desk.status() == "ACTIVE"


def test_a_stream_that_is_not_active_changes_no_shards(desk: Desk) -> None:
    desk.call("CreateStream", StreamName="orders", ShardCount=1)
    split = {"StreamName": "orders", "ShardToSplit": "0", "NewStartingHashKey": "5"}
    where = "Stream orders under account 123456789012 not ACTIVE, instead in state"
    assert desk.refusal("SplitShard", **split) == ("ResourceInUseException", f"{where} CREATING")
    desk.settle()
    desk.call("SplitShard", **split)
    assert desk.refusal("SplitShard", **split) == ("ResourceInUseException", f"{where} UPDATING")


def test_an_on_demand_stream_has_its_shards_changed_by_nobody(desk: Desk) -> None:
    desk.stream(StreamModeDetails=ON_DEMAND)
    assert desk.refusal("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="5") == (
        "ValidationException",
        "Request is invalid. Stream orders under account 123456789012 is in On-Demand mode.",
    )


def test_where_transitions_take_no_time_they_are_over_when_the_answer_comes(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.call("CreateStream", StreamName="orders", ShardCount=1)
    assert desk.status() == "ACTIVE"
    desk.call("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="5")
    assert (desk.status(), summary(desk)["OpenShardCount"]) == ("ACTIVE", 2)
    desk.call("DeleteStream", StreamName="orders")
    assert desk.refusal("DescribeStream", StreamName="orders")[0] == "ResourceNotFoundException"


# ---------------------------------------------------------------------- settings


def test_retention_grows_and_shrinks_and_equal_values_succeed_both_ways(desk: Desk) -> None:
    desk.stream()
    for operation, hours in (
        ("IncreaseStreamRetentionPeriod", 24),
        ("DecreaseStreamRetentionPeriod", 24),
        ("IncreaseStreamRetentionPeriod", 8760),
        ("DecreaseStreamRetentionPeriod", 48),
    ):
        assert not desk.call(operation, StreamName="orders", RetentionPeriodHours=hours)
        assert desk.status() == "UPDATING"
        assert described(desk)["RetentionPeriodHours"] == hours
        desk.settle()
        assert desk.status() == "ACTIVE"
    desk.restart()
    assert described(desk)["RetentionPeriodHours"] == 48
    assert desk.folder.map("orders").retention_hours == 48


@pytest.mark.parametrize(
    ("operation", "hours", "text"),
    [
        (
            "IncreaseStreamRetentionPeriod",
            23,
            "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.",
        ),
        (
            "DecreaseStreamRetentionPeriod",
            8761,
            "Maximum allowed retention period is 8760 hours. Requested retention period (8761 hours) is too long.",
        ),
        (
            "IncreaseStreamRetentionPeriod",
            47,
            (
                "Requested retention period (47 hours) for stream orders can not be shorter than existing retention "
                "period (48 hours). Use DecreaseRetentionPeriod API."
            ),
        ),
        (
            "DecreaseStreamRetentionPeriod",
            49,
            (
                "Requested retention period (49 hours) for stream orders can not be longer than existing retention "
                "period (48 hours). Use IncreaseRetentionPeriod API."
            ),
        ),
    ],
)
def test_retention_is_refused_in_the_words_of_aws(desk: Desk, operation: str, hours: int, text: str) -> None:
    desk.stream()
    desk.call("IncreaseStreamRetentionPeriod", StreamName="orders", RetentionPeriodHours=48)
    desk.settle()
    assert desk.refusal(operation, StreamName="orders", RetentionPeriodHours=hours) == (
        "InvalidArgumentException",
        text,
    )


def test_what_has_expired_is_noted_when_the_retention_grows(desk: Desk) -> None:
    desk.stream()
    desk.call("IncreaseStreamRetentionPeriod", StreamName="orders", RetentionPeriodHours=36)
    desk.settle()
    assert desk.folder.map("orders").expired_ms == 0  # nothing is as old yet
    desk.host.advance(100 * 3_600_000)
    horizon_ms = desk.clock.epoch_ms - 36 * 3_600_000
    desk.call("IncreaseStreamRetentionPeriod", StreamName="orders", RetentionPeriodHours=8760)
    desk.restart()
    assert desk.folder.map("orders").trim_ms(desk.clock.epoch_ms) == horizon_ms
    desk.settle()
    desk.call("DecreaseStreamRetentionPeriod", StreamName="orders", RetentionPeriodHours=48)
    desk.host.work()
    assert desk.folder.map("orders").trim_ms(desk.clock.epoch_ms) == horizon_ms


def test_larger_records_are_a_setting_of_the_map(desk: Desk) -> None:
    desk.stream()
    desk.call("UpdateMaxRecordSize", StreamARN=ARN, MaxRecordSizeInKiB=10_240)
    assert summary(desk)["MaxRecordSizeInKiB"] == 10_240
    assert desk.folder.map("orders").max_record_bytes == 10_240 * 1024
    assert desk.folder.map("orders").generation == 2
    assert desk.refusal("UpdateMaxRecordSize", MaxRecordSizeInKiB=2048)[0] == "InvalidArgumentException"


def test_the_mode_changes_twice_a_day_and_the_shards_stay(desk: Desk) -> None:
    desk.stream(ShardCount=2)
    for mode in ("ON_DEMAND", "PROVISIONED"):
        desk.call("UpdateStreamMode", StreamARN=ARN, StreamModeDetails={"StreamMode": mode})
        assert desk.status() == "UPDATING"
        desk.settle()
        found = summary(desk)
        assert (found["StreamModeDetails"], found["OpenShardCount"]) == ({"StreamMode": mode}, 2)
    assert desk.refusal("UpdateStreamMode", StreamARN=ARN, StreamModeDetails=ON_DEMAND) == (
        "LimitExceededException",
        "Stream orders under account 123456789012 can change its mode 2 times in 24 hours.",
    )
    assert desk.refusal("UpdateStreamMode", StreamARN=ARN, StreamModeDetails={"StreamMode": "PROVISIONED"}) == (
        "ValidationException",
        "Request is invalid. Stream orders under account 123456789012 is in Provisioned mode already.",
    )


def test_a_stream_is_updating_until_its_change_is_done_however_slow_the_disk_is(desk: Desk) -> None:
    desk.stream()
    answers = desk.begin("UpdateStreamMode", StreamARN=ARN, StreamModeDetails=ON_DEMAND)
    assert desk.host.step()  # that it is under way is kept, and its map is not written yet
    desk.clock.advance(60_000)
    (described,) = desk.begin("DescribeStreamSummary", StreamName="orders")
    assert described["StreamDescriptionSummary"]["StreamStatus"] == "UPDATING"
    (refused,) = desk.begin("UpdateShardCount", StreamName="orders", TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    assert refused.code == "ResourceInUseException"
    assert not answers
    desk.host.work()
    assert answers == [{}]
    assert desk.status() == "ACTIVE"


def test_a_stream_with_queues_or_auto_distribution_stays_on_demand(desk: Desk) -> None:
    stream = desk.stream(StreamModeDetails=ON_DEMAND, RecordDistributionStrategy="AUTO")
    provisioned = {"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "PROVISIONED"}}
    assert desk.refusal("UpdateStreamMode", **provisioned)[0] == "InvalidArgumentException"
    desk.call("UpdateStreamRecordDistributionStrategy", StreamARN=ARN, RecordDistributionStrategy="USER_PARTITION_KEY")
    desk.registry.queues_on = lambda stream_id: int(stream_id == stream.id)
    assert desk.refusal("UpdateStreamMode", **provisioned)[0] == "ResourceInUseException"


def test_distribution_changes_at_once_and_only_on_demand(desk: Desk) -> None:
    stream = desk.stream(StreamModeDetails=ON_DEMAND)
    auto = {"StreamARN": ARN, "RecordDistributionStrategy": "AUTO"}
    desk.call("UpdateStreamRecordDistributionStrategy", **auto)
    assert stream.is_auto
    assert desk.status() == "ACTIVE"
    assert summary(desk)["RecordDistributionStrategy"] == "AUTO"
    desk.stream("other")
    other = ARN.replace("orders", "other")
    refused = desk.refusal("UpdateStreamRecordDistributionStrategy", **{**auto, "StreamARN": other})
    assert refused[0] == "InvalidArgumentException"


def test_warm_throughput_needs_the_commitment_and_is_reached_after_a_while(desk: Desk) -> None:
    desk.stream(StreamModeDetails=ON_DEMAND)
    warm = {"StreamName": "orders", "WarmThroughputMiBps": 100}
    assert desk.refusal("UpdateStreamWarmThroughput", **warm)[0] == "InvalidArgumentException"
    desk.call("UpdateAccountSettings", MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    assert summary(desk)["WarmThroughput"] == {"TargetMiBps": 4, "CurrentMiBps": 4}
    assert desk.call("UpdateStreamWarmThroughput", **warm) == {
        "StreamARN": ARN,
        "StreamName": "orders",
        "WarmThroughput": {"TargetMiBps": 100, "CurrentMiBps": 4},
    }
    assert summary(desk)["WarmThroughput"] == {"TargetMiBps": 100, "CurrentMiBps": 4}
    desk.settle()
    assert summary(desk)["WarmThroughput"] == {"TargetMiBps": 100, "CurrentMiBps": 100}
    too_much = desk.refusal("UpdateStreamWarmThroughput", StreamName="orders", WarmThroughputMiBps=10_241)
    assert too_much == ("InvalidArgumentException", "WarmThroughputMiBps 10241 is above the limit of 10240.")


def test_a_change_that_cannot_be_kept_did_not_happen(tmp_path: Path) -> None:
    files = FaultyFiles()
    desk = Desk(tmp_path, files=files)
    desk.stream()
    files.errors, files.only = {"replace": errno.ENOSPC}, "attributes.json"
    assert desk.refusal("AddTagsToStream", StreamName="orders", Tags={"a": "b"})[0] == "StorageFull"
    refused = desk.refusal("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="5")
    assert refused[0] == "StorageFull"
    assert desk.status() == "ACTIVE"
    files.errors = {}
    assert desk.call("ListTagsForStream", StreamName="orders")["Tags"] == []
    desk.settle()
    assert summary(desk)["OpenShardCount"] == 1


def test_the_shards_of_the_whole_account_are_counted_before_the_hash_key_is_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kflow.kinesis.quotas.SHARDS_LARGE", 5)
    desk.stream("others", ShardCount=3)
    desk.stream(ShardCount=2)
    for at in ("0", "5"):
        code, text = desk.refusal("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey=at)
        assert code == "LimitExceededException"
        assert "Current shard count for the account: 5. Limit: 5." in text
    missing = desk.refusal("SplitShard", StreamName="orders", ShardToSplit="7", NewStartingHashKey="0")
    assert missing[0] == "ResourceNotFoundException"


def test_a_rate_names_the_stream_however_it_was_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path, enforce_limits=True)
    desk.stream()
    limited = ("LimitExceededException", f"Rate exceeded for stream orders under account {ACCOUNT}.")
    for operation, members, rate in (
        ("DescribeStreamSummary", {"StreamARN": ARN}, 20),
        ("ListStreamConsumers", {"StreamARN": ARN}, 5),
        ("ListShards", {"StreamARN": ARN}, 1000),
    ):
        for _ in range(rate):
            desk.call(operation, **members)
        assert desk.refusal(operation, **members) == limited
    desk.stream("others")
    desk.call("ListShards", StreamName="others")  # its rate is of each stream


def test_calls_of_the_control_plane_are_limited_where_limits_are_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, enforce_limits=True)
    desk.stream()
    for _ in range(10):
        desk.call("DescribeStream", StreamName="orders")
    limited = ("LimitExceededException", "Rate exceeded for stream orders under account 123456789012.")
    assert desk.refusal("DescribeStream", StreamName="orders") == limited
    desk.host.advance(100)
    desk.call("DescribeStream", StreamName="orders")
    assert desk.refusal("DescribeStream", StreamName="orders") == limited
    desk.call("DescribeLimits")
    assert desk.refusal("DescribeLimits") == (
        "LimitExceededException",
        "Rate exceeded for account 123456789012.",
    )
