"""The control plane of Kinesis by boto3, while handlers run and others administrate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.deadline import eventually
from tests.project import Project
from tests.served import Served, served

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
HANDLER = """
    from kflow import Record, on_stream
    @on_stream("orders")
    def bill(record: Record) -> None:
        note(what="record", data=record.data.decode())
"""


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[tuple[Project, Served]]:
    """A project whose handlers run behind an endpoint."""
    shop = Project(folder, **settings)
    shop.handler(HANDLER)
    with served(folder, command="run") as endpoint:
        yield shop, endpoint


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def put(client: Any, data: bytes) -> None:
    client.put_record(StreamName="orders", Data=data, PartitionKey="k")


def datas(shop: Project) -> list[str]:
    return [note["data"] for note in shop.seen(what="record")]


def test_a_stream_is_deleted_under_its_handler_which_reads_the_next_one_of_that_name(tmp_path: Path) -> None:
    with running(tmp_path) as (shop, endpoint):
        kinesis = endpoint.client()
        put(kinesis, b"first")
        shop.wait_for(lambda: datas(shop) == ["first"], what="the handler to see the first record")

        kinesis.delete_stream(StreamName="orders")
        with pytest.raises(ClientError, match="Stream orders under account 123456789012 not found"):
            put(kinesis, b"lost")
        eventually(
            lambda: any("stream orders is deleted, and bill read it" in text for text in endpoint.notices()),
            what="people to be told",
        )
        kinesis.create_stream(StreamName="orders", ShardCount=2)
        put(kinesis, b"second")
        shop.wait_for(lambda: datas(shop) == ["first", "second"], what="the handler to see the second record")
        put(kinesis, b"third")
        shop.wait_for(lambda: datas(shop) == ["first", "second", "third"], what="the handler to go on")
        assert any("stream orders was created anew: bill from its beginning" in text for text in endpoint.notices())

        endpoint.stop()
        endpoint.start()
        kinesis = endpoint.client()
        put(kinesis, b"fourth")
        shop.wait_for(lambda: datas(shop)[3:] == ["fourth"], what="the next runtime to go on where this one stood")


def test_handlers_go_on_over_splits_merges_and_scalings_by_the_endpoint(tmp_path: Path) -> None:
    with running(tmp_path) as (shop, endpoint):
        kinesis = endpoint.client()
        sent: list[str] = []

        def some() -> None:
            for _ in range(10):
                sent.append(str(len(sent)))
                kinesis.put_record(StreamName="orders", Data=sent[-1].encode(), PartitionKey="k")

        some()
        kinesis.split_shard(StreamName="orders", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127))
        some()
        kinesis.update_shard_count(StreamName="orders", TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        some()
        kinesis.increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=48)
        some()
        kinesis.update_max_record_size(StreamARN=ARN, MaxRecordSizeInKiB=2048)
        some()
        shop.wait_for(lambda: len(datas(shop)) == len(sent), what="all records to be handled")
        assert datas(shop) == sent


def test_a_stream_that_a_handler_names_is_made_in_the_mode_of_the_settings(tmp_path: Path) -> None:
    with running(tmp_path) as (shop, endpoint):
        del shop
        assert (
            endpoint.client().describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["OpenShardCount"]
            == 1
        )
    other = tmp_path / "other"
    other.mkdir()
    shop = Project(other)
    with (other / "kflow.toml").open("a") as file:
        file.write('\n[streams.orders]\nmode = "ON_DEMAND"\nretention_hours = 48\n')
    shop.handler(HANDLER)
    with served(other, command="run") as endpoint:
        found = endpoint.client().describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    assert found["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert (found["OpenShardCount"], found["RetentionPeriodHours"]) == (4, 48)


def test_waiters_of_boto3_see_a_stream_come_and_go(tmp_path: Path) -> None:
    with served(tmp_path, KFLOW_TRANSITION_MS="200") as endpoint:
        kinesis = endpoint.client()
        quick = {"Delay": 1, "MaxAttempts": 30}
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(StreamName="orders", WaiterConfig=quick)
        assert kinesis.describe_stream(StreamName="orders")["StreamDescription"]["StreamStatus"] == "ACTIVE"
        kinesis.delete_stream(StreamName="orders")
        kinesis.get_waiter("stream_not_exists").wait(StreamName="orders", WaiterConfig=quick)
        assert kinesis.list_streams()["StreamNames"] == []


def test_what_is_kept_of_streams_is_the_same_after_a_restart(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=2, Tags={"team": "billing"})
    kinesis.put_resource_policy(ResourceARN=ARN, Policy='{"Version": "2012-10-17"}')
    kinesis.start_stream_encryption(StreamName="orders", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    kinesis.enable_enhanced_monitoring(StreamName="orders", ShardLevelMetrics=["IncomingBytes"])
    kinesis.register_stream_consumer(StreamARN=ARN, ConsumerName="fast", Tags={"a": "b"})
    kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    abroad = endpoint.client(region="eu-west-1")
    abroad.create_stream(StreamName="orders", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    theirs = endpoint.client(access_key="111122223333")
    theirs.create_stream(StreamName="theirs", ShardCount=1)

    def look() -> list[Any]:
        found = []
        for client in (endpoint.client(), endpoint.client(region="eu-west-1")):
            found += [
                client.describe_stream(StreamName="orders")["StreamDescription"],
                client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"],
                client.list_tags_for_stream(StreamName="orders")["Tags"],
                client.list_streams()["StreamSummaries"],
                client.describe_account_settings()["MinimumThroughputBillingCommitment"],
            ]
        client = endpoint.client()
        consumer = client.list_stream_consumers(StreamARN=ARN)["Consumers"][0]
        found += [
            consumer,
            client.list_tags_for_resource(ResourceARN=consumer["ConsumerARN"])["Tags"],
            client.get_resource_policy(ResourceARN=ARN)["Policy"],
            endpoint.client(access_key="111122223333").list_streams()["StreamNames"],
        ]
        return found

    before = look()
    endpoint.kill()
    endpoint.start()
    assert look() == before
    assert before[-1] == ["theirs"]


def test_streams_that_others_make_and_delete_are_seen_by_the_endpoint(tmp_path: Path) -> None:
    with running(tmp_path) as (shop, endpoint):
        kinesis = endpoint.client()
        shop.run("streams", "create", "other", "--shards", "3")
        found = kinesis.describe_stream_summary(StreamName="other")["StreamDescriptionSummary"]
        assert (found["StreamStatus"], found["OpenShardCount"]) == ("ACTIVE", 3)
        shop.run("streams", "split", "other", "0")
        found = kinesis.describe_stream_summary(StreamName="other")["StreamDescriptionSummary"]
        assert found["OpenShardCount"] == 4
        shop.run("streams", "delete", "other", "--yes")
        assert kinesis.list_streams()["StreamNames"] == ["orders"]
        endpoint.client(region="eu-west-1").create_stream(StreamName="abroad", ShardCount=1)
        assert [each["stream"] for each in shop.json("streams", "list")] == ["orders"]
