"""What boto3 was told stays true: the same answers in each life of the endpoint, also to tokens of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.botoing import ACCOUNT, LIVES, Desk, desk

SHARD = "shardId-000000000000"
HALF = str(1 << 127)
OTHER = "999999999999"


class World:
    """Streams, consumers and queues of many kinds, made once, and what their making answered.

    Attributes:
        desk: the endpoint.
        numbers: sequence numbers of the records of `orders`.
        tokens: of pages and places, of the first life.
        before: what the first life said of times and names that it has made up.
    """

    def __init__(self, it: Desk) -> None:
        self.desk = it
        client = it.client()
        it.stream(name="orders", Tags={"team": "blue", "empty": ""}, MaxRecordSizeInKiB=2048)
        self.numbers = [
            client.put_record(StreamName="orders", Data=b"%d" % n, PartitionKey=f"k{n}")["SequenceNumber"]
            for n in range(5)
        ]
        client.increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=100)
        client.start_stream_encryption(StreamName="orders", EncryptionType="KMS", KeyId="alias/mine")
        client.enable_enhanced_monitoring(StreamName="orders", ShardLevelMetrics=["OutgoingBytes", "IncomingBytes"])
        client.put_resource_policy(ResourceARN=it.arn("orders"), Policy='{"Statement": []}')
        arns = [it.consumer("orders", f"c{n}") for n in range(3)]
        client.put_resource_policy(ResourceARN=arns[0], Policy='{"Id": "c0"}')
        client.tag_resource(ResourceARN=arns[0], Tags={"of": "c0"})

        it.stream(name="cut")
        client.put_record(StreamName="cut", Data=b"parent", PartitionKey="k")
        client.split_shard(StreamName="cut", ShardToSplit="0", NewStartingHashKey=HALF)
        client.put_record(StreamName="cut", Data=b"child", PartitionKey="k", ExplicitHashKey=HALF)
        client.merge_shards(StreamName="cut", ShardToMerge="1", AdjacentShardToMerge="2")

        it.on_demand(name="auto", RecordDistributionStrategy="AUTO")
        client.put_record(StreamName="auto", Data=b"no key")
        setting = {"Status": "ENABLED"}
        client.update_account_settings(MinimumThroughputBillingCommitment=setting)
        client.update_stream_warm_throughput(StreamName="auto", WarmThroughputMiBps=200)
        queue = it.queue("auto", "jobs", Tags={"of": "jobs"})
        (received,) = client.receive_queue_records(QueueARN=queue, VisibilityTimeoutSeconds=43_200)["QueueRecords"]

        for account, region in ((OTHER, "us-east-1"), ("test", "eu-west-1")):
            other = it.client(account=account, region=region)
            it.stream(2, name="orders", client=other)
            other.put_record(StreamName="orders", Data=f"{account} {region}".encode(), PartitionKey="k")
        self.tokens = {
            "iterator": it.iterator("orders", "AT_SEQUENCE_NUMBER", StartingSequenceNumber=self.numbers[3]),
            "parent": it.iterator("cut"),
            "streams": client.list_streams(Limit=1)["NextToken"],
            "shards": client.list_shards(StreamName="cut", MaxResults=2)["NextToken"],
            "consumers": client.list_stream_consumers(StreamARN=it.arn("orders"), MaxResults=2)["NextToken"],
        }
        self.before: dict[str, Any] = {
            "consumers": arns,
            "queue": queue,
            "handle": received["ReceiptHandle"],
            **{name: it.summary(name)["StreamCreationTimestamp"] for name in ("orders", "cut", "auto")},
            "shards": client.list_shards(StreamName="cut")["Shards"],
            "records": it.read("orders"),
            "account": client.describe_account_settings()["MinimumThroughputBillingCommitment"],
            "described": client.describe_stream_consumer(ConsumerARN=arns[0])["ConsumerDescription"],
            "queued": client.describe_queue(QueueARN=queue)["QueueDescription"],
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with desk(tmp_path_factory.mktemp("desk")) as it:
        yield World(it)


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, world: World) -> World:
    world.desk.reach(request.param)
    return world


def test_a_stream_is_described_with_all_its_settings(living: World) -> None:
    it = living.desk
    assert it.summary("orders") == {
        "StreamName": "orders",
        "StreamARN": it.arn("orders"),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 100,
        "StreamCreationTimestamp": living.before["orders"],
        "EnhancedMonitoring": [{"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]}],
        "EncryptionType": "KMS",
        "KeyId": "alias/mine",
        "OpenShardCount": 1,
        "ConsumerCount": 3,
        "MaxRecordSizeInKiB": 2048,
        "ChannelCount": 0,
        "QueueCount": 0,
    }


def test_an_on_demand_stream_is_described_with_what_only_it_has(living: World) -> None:
    it = living.desk
    assert it.summary("auto") == {
        "StreamName": "auto",
        "StreamARN": it.arn("auto"),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": living.before["auto"],
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "OpenShardCount": 4,
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": 1024,
        "WarmThroughput": {"TargetMiBps": 200, "CurrentMiBps": 200},
        "RecordDistributionStrategy": "AUTO",
        "ChannelCount": 0,
        "QueueCount": 1,
    }
    settings = it.client().describe_account_settings()["MinimumThroughputBillingCommitment"]
    assert settings == living.before["account"]
    assert settings["Status"] == "ENABLED"


def test_shards_keep_their_lineage_and_numbers(living: World) -> None:
    client = living.desk.client()
    listed = client.list_shards(StreamName="cut")["Shards"]
    assert listed == living.before["shards"]
    assert [shard["ShardId"][-1] for shard in listed] == ["0", "1", "2", "3"]
    assert client.describe_stream(StreamName="cut")["StreamDescription"]["Shards"] == listed
    filters = {"AT_LATEST": ["3"], "AT_TRIM_HORIZON": ["0"], "FROM_TRIM_HORIZON": ["0", "1", "2", "3"]}
    for kind, wanted in filters.items():
        found = client.list_shards(StreamName="cut", ShardFilter={"Type": kind})["Shards"]
        assert [shard["ShardId"][-1] for shard in found] == wanted


def test_records_are_read_as_they_were_put(living: World) -> None:
    records = living.desk.read("orders")[:5]
    assert records == living.before["records"][:5]
    assert [record["SequenceNumber"] for record in records] == living.numbers
    assert [record["PartitionKey"] for record in records] == ["k0", "k1", "k2", "k3", "k4"]


def test_every_new_record_comes_after_all_earlier_ones(living: World) -> None:
    before = living.desk.read("orders")
    put = living.desk.client().put_record(StreamName="orders", Data=b"new", PartitionKey="k")
    assert put["EncryptionType"] == "KMS"
    assert int(put["SequenceNumber"]) > int(before[-1]["SequenceNumber"])
    after = living.desk.read("orders")
    assert after[:-1] == before
    assert (after[-1]["SequenceNumber"], after[-1]["Data"]) == (put["SequenceNumber"], b"new")


@pytest.mark.parametrize("kind", ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"])
def test_sequence_numbers_are_places_to_begin_at(living: World, kind: str) -> None:
    found = living.desk.read("orders", kind, StartingSequenceNumber=living.numbers[2])
    assert found[0]["Data"] == (b"2" if kind == "AT_SEQUENCE_NUMBER" else b"3")


def test_times_of_arrival_are_places_to_begin_at(living: World) -> None:
    record = living.before["records"][1]
    found = living.desk.read("orders", "AT_TIMESTAMP", Timestamp=record["ApproximateArrivalTimestamp"])
    assert found[0]["ApproximateArrivalTimestamp"] >= record["ApproximateArrivalTimestamp"]
    assert record["Data"] in {each["Data"] for each in found[:2]}


def test_an_iterator_of_the_first_life_goes_on(living: World) -> None:
    client = living.desk.client()
    first = client.get_records(ShardIterator=living.tokens["iterator"], Limit=1)
    again = client.get_records(ShardIterator=f'"{living.tokens["iterator"]}"', Limit=1)
    assert [each["Data"] for each in first["Records"]] == [each["Data"] for each in again["Records"]] == [b"3"]
    assert first["NextShardIterator"] != again["NextShardIterator"]


def test_an_iterator_of_a_closed_shard_leads_to_its_children(living: World) -> None:
    client = living.desk.client()
    page = client.get_records(ShardIterator=living.tokens["parent"])
    found = list(page["Records"])
    while "NextShardIterator" in page:
        assert "ChildShards" not in page
        page = client.get_records(ShardIterator=page["NextShardIterator"])
        found += page["Records"]
    assert [each["Data"] for each in found] == [b"parent"]
    assert page["ChildShards"] == [
        {
            "ShardId": "shardId-000000000001",
            "ParentShards": [SHARD],
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str((1 << 127) - 1)},
        },
        {
            "ShardId": "shardId-000000000002",
            "ParentShards": [SHARD],
            "HashKeyRange": {"StartingHashKey": HALF, "EndingHashKey": str((1 << 128) - 1)},
        },
    ]


def test_tokens_of_pages_of_the_first_life_go_on(living: World) -> None:
    client = living.desk.client()
    assert client.list_streams(NextToken=living.tokens["streams"])["StreamNames"] == ["cut", "orders"]
    shards = client.list_shards(NextToken=living.tokens["shards"])["Shards"]
    assert [shard["ShardId"][-1] for shard in shards] == ["2", "3"]
    token = living.tokens["consumers"]
    more = client.list_stream_consumers(StreamARN=living.desk.arn("orders"), NextToken=token)["Consumers"]
    assert [each["ConsumerName"] for each in more] == ["c2"]


def test_tags_and_policies_stay_with_their_resources(living: World) -> None:
    client = living.desk.client()
    consumer, queue = living.before["consumers"][0], living.before["queue"]
    assert client.list_tags_for_stream(StreamName="orders")["Tags"] == [
        {"Key": "empty", "Value": ""},
        {"Key": "team", "Value": "blue"},
    ]
    assert client.list_tags_for_resource(ResourceARN=consumer)["Tags"] == [{"Key": "of", "Value": "c0"}]
    assert client.list_tags_for_resource(ResourceARN=queue)["Tags"] == [{"Key": "of", "Value": "jobs"}]
    assert client.get_resource_policy(ResourceARN=living.desk.arn("orders"))["Policy"] == '{"Statement": []}'
    assert client.get_resource_policy(ResourceARN=consumer)["Policy"] == '{"Id": "c0"}'


def test_consumers_keep_their_arns(living: World) -> None:
    client = living.desk.client()
    found = client.list_stream_consumers(StreamARN=living.desk.arn("orders"))["Consumers"]
    assert [each["ConsumerARN"] for each in found] == living.before["consumers"]
    described = client.describe_stream_consumer(ConsumerARN=living.before["consumers"][0])["ConsumerDescription"]
    assert described == living.before["described"]


def test_a_subscription_begins_where_the_client_was(living: World) -> None:
    client = living.desk.new_client()
    consumer = living.desk.consumer("cut", f"life-{living.desk.life}")
    start = {"Type": "TRIM_HORIZON"}
    events = client.subscribe_to_shard(ConsumerARN=consumer, ShardId=SHARD, StartingPosition=start)["EventStream"]
    found = [event["SubscribeToShardEvent"] for event in events]  # to the end of the shard
    events.close()
    client.close()
    assert [record["Data"] for event in found for record in event["Records"]] == [b"parent"]
    assert [child["ShardId"][-1] for child in found[-1]["ChildShards"]] == ["1", "2"]
    living.desk.client().deregister_stream_consumer(ConsumerARN=consumer)


def test_what_a_queue_has_given_out_stays_given_out(living: World) -> None:
    client = living.desk.client()
    queue = living.before["queue"]
    assert client.describe_queue(QueueARN=queue)["QueueDescription"] == living.before["queued"]
    assert client.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    entries = [{"ReceiptHandle": living.before["handle"], "VisibilityTimeoutSeconds": 43_200}]
    assert client.update_queue_records_visibility(QueueARN=queue, Entries=entries)["Failed"] == []


def test_accounts_and_regions_stay_apart(living: World) -> None:
    it = living.desk
    assert it.client().list_streams()["StreamNames"] == ["auto", "cut", "orders"]
    for account, region in ((OTHER, "us-east-1"), ("test", "eu-west-1")):
        other = it.client(account=account, region=region)
        assert other.list_streams()["StreamNames"] == ["orders"]
        summary = it.summary("orders", other)
        said = OTHER if account == OTHER else ACCOUNT
        assert (summary["StreamARN"], summary["OpenShardCount"]) == (it.arn("orders", region, said), 2)
        found: list[bytes] = []
        for shard in ("0", "1"):
            start = other.get_shard_iterator(StreamName="orders", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
            page = other.get_records(ShardIterator=start["ShardIterator"])
            found += [each["Data"] for each in page["Records"]]
        assert found == [f"{account} {region}".encode()]


def test_what_was_made_once_cannot_be_made_again(living: World) -> None:
    client = living.desk.client()
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.create_stream(StreamName="orders", ShardCount=1)
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.register_stream_consumer(StreamARN=living.desk.arn("orders"), ConsumerName="c0")
    configuration = [{"StreamARN": living.desk.arn("auto")}]
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.create_queue(QueueName="jobs", StreamConfigurationList=configuration)
