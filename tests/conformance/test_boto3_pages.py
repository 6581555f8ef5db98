"""Lists in pages: boto3's paginators, and tokens by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.botoing import Desk, operations, refusal

REGIONS = ("ap-south-1", "ap-south-2", "eu-north-1")
"""Each test that counts streams has a region of its own."""


def pages(client: Any, operation: str, size: int, **given: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    found = client.get_paginator(operation).paginate(**given, PaginationConfig={"PageSize": size})
    return [dict(page) for page in found]


def test_streams_are_listed_by_name_in_pages(it: Desk) -> None:
    client = it.client(region=REGIONS[0])
    names = [f"s{n}" for n in (3, 1, 4, 0, 2)]
    for name in names:
        it.stream(name=name, client=client)
    found = pages(client, "list_streams", 2)
    assert [page["StreamNames"] for page in found] == [["s0", "s1"], ["s2", "s3"], ["s4"]]
    assert [page["HasMoreStreams"] for page in found] == [True, True, False]
    assert ["NextToken" in page for page in found] == [True, True, False]
    assert [each["StreamName"] for page in found for each in page["StreamSummaries"]] == sorted(names)
    by_name = client.list_streams(ExclusiveStartStreamName="s1x", Limit=2)
    assert (by_name["StreamNames"], by_name["HasMoreStreams"]) == (["s2", "s3"], True)
    assert client.list_streams(ExclusiveStartStreamName="z")["StreamNames"] == []


def test_a_paginator_goes_on_where_it_stopped(it: Desk) -> None:
    client = it.client()
    name = it.stream(5)
    first = client.get_paginator("list_shards").paginate(
        StreamName=name, PaginationConfig={"PageSize": 2, "MaxItems": 2}
    )
    result = first.build_full_result()
    assert [shard["ShardId"][-1] for shard in result["Shards"]] == ["0", "1"]
    rest = client.list_shards(NextToken=first.resume_token and _service_token(first.resume_token))
    assert [shard["ShardId"][-1] for shard in rest["Shards"]] == ["2", "3", "4"]


def _service_token(token: str) -> str:
    """What the service said, in the token that boto3 makes of it."""
    from botocore.paginate import TokenDecoder

    return str(TokenDecoder().decode(token)["NextToken"])


def test_a_hundred_streams_are_a_page_whatever_is_asked_for(it: Desk) -> None:
    client = it.client(region=REGIONS[1])
    names = [f"s{n:03}" for n in range(101)]
    for name in names:
        client.create_stream(StreamName=name, ShardCount=1)
    for limit in ({}, {"Limit": 10_000}):
        page = client.list_streams(**limit)
        assert (page["StreamNames"], page["HasMoreStreams"]) == (names[:100], True)
    assert client.list_streams(NextToken=page["NextToken"])["StreamNames"] == ["s100"]
    assert client.describe_limits()["OpenShardCount"] == 101


def test_shards_are_described_in_pages_of_a_hundred_at_most(it: Desk) -> None:
    client = it.client()
    name = it.stream(103)
    described = client.describe_stream(StreamName=name)["StreamDescription"]
    assert (len(described["Shards"]), described["HasMoreShards"]) == (100, True)
    again = client.describe_stream(StreamName=name, Limit=10_000)["StreamDescription"]
    assert (len(again["Shards"]), again["HasMoreShards"]) == (100, True)
    found = pages(client, "describe_stream", 40, StreamName=name)
    assert [len(page["StreamDescription"]["Shards"]) for page in found] == [40, 40, 23]
    last = client.describe_stream(StreamName=name, ExclusiveStartShardId="101")["StreamDescription"]
    assert ([shard["ShardId"] for shard in last["Shards"]], last["HasMoreShards"]) == (["shardId-000000000102"], False)


def test_shards_are_listed_in_pages_that_keep_the_filter(it: Desk) -> None:
    client = it.client()
    name = it.stream(2)
    client.update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    latest = client.list_shards(StreamName=name, ShardFilter={"Type": "AT_LATEST"}, MaxResults=3)
    assert [shard["ShardId"][-1] for shard in latest["Shards"]] == ["2", "3", "4"]
    rest = client.list_shards(NextToken=latest["NextToken"])
    assert [shard["ShardId"][-1] for shard in rest["Shards"]] == ["5"]
    after = client.list_shards(StreamName=name, ExclusiveStartShardId="shardId-000000000003", MaxResults=10_000)
    assert [shard["ShardId"][-1] for shard in after["Shards"]] == ["4", "5"]
    assert "NextToken" not in after


def test_the_paginator_of_shards_ends_as_on_aws_where_there_is_a_second_page(it: Desk) -> None:
    client = it.client()
    name = it.stream(4)
    assert [len(page["Shards"]) for page in pages(client, "list_shards", 4, StreamName=name)] == [4]
    # boto3 repeats the name beside the token, which the service refuses.
    with pytest.raises(client.exceptions.InvalidArgumentException) as refused:
        pages(client, "list_shards", 3, StreamName=name)
    text = "NextToken and StreamName cannot be provided together."
    assert refused.value.response["Error"]["Message"] == text


def test_consumers_are_listed_in_pages(it: Desk) -> None:
    client = it.client()
    name = it.stream()
    for n in range(5):
        it.consumer(name, f"c{n}")
    found = pages(client, "list_stream_consumers", 2, StreamARN=it.arn(name))
    assert [[each["ConsumerName"] for each in page["Consumers"]] for page in found] == [
        ["c0", "c1"],
        ["c2", "c3"],
        ["c4"],
    ]


def test_queues_are_listed_in_pages_that_keep_the_filter(it: Desk) -> None:
    client = it.client()
    one, two = it.on_demand(), it.on_demand()
    names = sorted(it.name("queue") for _ in range(3))
    for name in names:
        it.queue(one, name)
    it.queue(two)
    wanted = [{"StreamARN": it.arn(one)}]
    found = pages(client, "list_queues", 2, StreamFilter=wanted)
    assert [[each["QueueName"] for each in page["QueueSummaries"]] for page in found] == [names[:2], names[2:]]
    summary = found[0]["QueueSummaries"][0]
    created = it.summary(one)["StreamCreationTimestamp"]
    assert summary["Streams"] == [{"StreamARN": it.arn(one), "StreamCreationTimestamp": created}]
    assert len(client.list_queues(MaxResults=1)["QueueSummaries"]) == 1


def test_channels_are_a_list_without_pages(it: Desk) -> None:
    assert [page["ChannelSummaries"] for page in pages(it.client(), "list_channels", 5)] == [[]]


def test_tags_are_listed_by_key_in_pages(it: Desk) -> None:
    client = it.client()
    name = it.stream(Tags={key: key.upper() for key in "cab"})
    first = client.list_tags_for_stream(StreamName=name, Limit=2)
    assert (first["Tags"], first["HasMoreTags"]) == ([{"Key": "a", "Value": "A"}, {"Key": "b", "Value": "B"}], True)
    rest = client.list_tags_for_stream(StreamName=name, ExclusiveStartTagKey="b")
    assert (rest["Tags"], rest["HasMoreTags"]) == ([{"Key": "c", "Value": "C"}], False)


@pytest.mark.parametrize("flip", [0, 7, 20, -1])
def test_a_token_with_another_character_is_refused(it: Desk, flip: int) -> None:
    client = it.client()
    token = client.list_shards(StreamName=it.stream(2), MaxResults=1)["NextToken"].rstrip("=")
    wrong = list(token)
    wrong[flip] = "A" if wrong[flip] != "A" else "B"
    assert refusal(client.list_shards, NextToken="".join(wrong)).code == "InvalidArgumentException"


def test_every_paginator_of_boto3_is_tried_here(it: Desk) -> None:
    client = it.client()
    from botocore import xform_name

    known = {name for name in operations() if client.can_paginate(xform_name(name))}
    assert known == {
        "DescribeStream",
        "ListChannels",
        "ListQueues",
        "ListShards",
        "ListStreamConsumers",
        "ListStreams",
    }
