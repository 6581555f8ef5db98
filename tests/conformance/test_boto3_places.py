"""Two accounts and two regions side by side: streams of one name that know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.botoing import ACCOUNT, LIVES, Desk, desk, refusal

SHARD = "shardId-000000000000"
PLACES = [(account, region) for account in ("111111111111", "222222222222") for region in ("us-east-1", "eu-west-1")]


class World(NamedTuple):
    """An endpoint with the same things in four places; the ARNs that were made up, by place."""

    desk: Desk
    consumers: dict[tuple[str, str], str]
    queues: dict[tuple[str, str], str]

    def client(self, place: tuple[str, str]) -> Any:
        return self.desk.client(account=place[0], region=place[1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with desk(tmp_path_factory.mktemp("desk")) as it:
        made = World(it, {}, {})
        for number, (account, region) in enumerate(PLACES):
            place = (account, region)
            client = made.client(place)
            mode = {"StreamMode": "ON_DEMAND"}
            client.create_stream(StreamName="orders", StreamModeDetails=mode, Tags={"place": f"{account} {region}"})
            client.create_stream(StreamName=f"only-{number}", ShardCount=number + 1)
            client.put_record(
                StreamName="orders", Data=f"{account} {region}".encode(), PartitionKey="k", ExplicitHashKey="0"
            )
            arn = it.arn("orders", region, account)
            consumer = client.register_stream_consumer(StreamARN=arn, ConsumerName="fast")["Consumer"]
            made.consumers[place] = consumer["ConsumerARN"]
            configuration = [{"StreamARN": arn, "StartingPosition": {"Type": "TRIM_HORIZON"}}]
            queue = client.create_queue(QueueName="jobs", StreamConfigurationList=configuration)["QueueDescription"]
            made.queues[place] = queue["QueueARN"]
            if number == 0:
                client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
        yield made


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, world: World) -> World:
    world.desk.reach(request.param)
    return world


@pytest.fixture(params=PLACES, ids=" ".join)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    return (request.param[0], request.param[1])


def test_each_place_has_its_own_streams(living: World, place: tuple[str, str]) -> None:
    client, number = living.client(place), PLACES.index(place)
    account, region = place
    assert client.list_streams()["StreamNames"] == [f"only-{number}", "orders"]
    assert living.desk.summary("orders", client)["StreamARN"] == f"arn:aws:kinesis:{region}:{account}:stream/orders"
    tags = client.list_tags_for_stream(StreamName="orders")["Tags"]
    assert tags == [{"Key": "place", "Value": f"{account} {region}"}]
    limits = client.describe_limits()
    assert (limits["OpenShardCount"], limits["OnDemandStreamCount"]) == (4 + number + 1, 1)
    status = client.describe_account_settings()["MinimumThroughputBillingCommitment"]["Status"]
    assert status == ("ENABLED" if number == 0 else "DISABLED")


def test_records_stay_in_their_place(living: World, place: tuple[str, str]) -> None:
    client = living.client(place)
    start = client.get_shard_iterator(StreamName="orders", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    records = client.get_records(ShardIterator=start["ShardIterator"])["Records"]
    assert [record["Data"] for record in records] == [" ".join(place).encode()]
    wrong = [f"only-{n}" for n in range(4) if n != PLACES.index(place)]
    for name in wrong:
        assert refusal(client.put_record, StreamName=name, Data=b"", PartitionKey="k") == (
            "ResourceNotFoundException",
            f"Stream {name} under account {place[0]} not found.",
            400,
        )


def test_consumers_and_queues_stay_in_their_place(living: World, place: tuple[str, str]) -> None:
    client = living.client(place)
    account, region = place
    arn = living.desk.arn("orders", region, account)
    found = client.list_stream_consumers(StreamARN=arn)["Consumers"]
    assert [each["ConsumerARN"] for each in found] == [living.consumers[place]]
    assert living.consumers[place].startswith(f"{arn}/consumer/fast:")
    assert [each["QueueARN"] for each in client.list_queues()["QueueSummaries"]] == [living.queues[place]]
    assert living.queues[place].startswith(f"arn:aws:kinesis:{region}:{account}:queue/")
    handed = client.receive_queue_records(QueueARN=living.queues[place], VisibilityTimeoutSeconds=0)["QueueRecords"]
    assert [record["Data"] for record in handed] in ([" ".join(place).encode()], [])


def test_an_arn_names_its_own_place_whoever_calls(living: World, place: tuple[str, str]) -> None:
    account, region = place
    client = living.desk.client()
    summary = client.describe_stream_summary(StreamARN=living.desk.arn("orders", region, account))
    assert summary["StreamDescriptionSummary"]["StreamARN"] == living.desk.arn("orders", region, account)
    start = client.get_shard_iterator(
        StreamARN=living.desk.arn("orders", region, account), ShardId=SHARD, ShardIteratorType="TRIM_HORIZON"
    )
    records = client.get_records(ShardIterator=start["ShardIterator"])["Records"]
    assert [record["Data"] for record in records] == [" ".join(place).encode()]


def test_a_stream_of_another_region_is_not_found_by_its_name(living: World) -> None:
    client = living.desk.client(account="111111111111", region="ap-south-1")
    assert client.list_streams()["StreamNames"] == []
    assert refusal(client.describe_stream, StreamName="orders") == (
        "ResourceNotFoundException",
        "Stream orders under account 111111111111 not found.",
        400,
    )
    wrong = living.desk.arn("orders", "ap-south-1", "111111111111")
    assert refusal(client.describe_stream, StreamARN=wrong).code == "ResourceNotFoundException"


@pytest.mark.parametrize("access_key", ["test", "AKIAIOSFODNN7EXAMPLE", "12345678901", "1234567890123"])
def test_a_key_that_is_no_account_stands_for_the_account_of_the_settings(living: World, access_key: str) -> None:
    client = living.desk.client(account=access_key)
    text = refusal(client.describe_stream, StreamName="none").message
    assert text == f"Stream none under account {ACCOUNT} not found."
