"""`kflow.client("kinesis")` reaches every operation, by a node and without one, and both give what boto3 gives."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

import kflow
from kflow.broker.folder import DataFolder
from kflow.producing import runtime
from tests.deadline import eventually
from tests.served import ACCOUNT, Served, served

ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
SHARD_0 = "shardId-000000000000"

_numbers = itertools.count()
_opened: list[Any] = []


def opened() -> Any:
    """A client that is closed after the test: who keeps an error keeps its frames, and with them a connection."""
    _opened.append(kflow.client("kinesis"))
    return _opened[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    for each in _opened:
        each.close()
    _opened.clear()


@contextmanager
def by_node(folder: Path, *arguments: str) -> Iterator[Any]:
    with served(folder, *arguments) as node, runtime(node.data_dir):
        found = kflow.client("kinesis")
        yield found
        found.close()


@contextmanager
def alone(folder: Path) -> Iterator[Any]:
    with runtime(DataFolder.open(folder / ".kflow", create=True, fsync="none").path):
        found = kflow.client("kinesis")
        yield found
        found.close()


@pytest.fixture(scope="module", params=["node", "alone"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client with a node, and one without."""
    folder = tmp_path_factory.mktemp("client")
    with by_node(folder) if request.param == "node" else alone(folder) as found:
        yield found


@pytest.fixture
def client(made: Any) -> Iterator[Any]:
    """The same, without a stream."""
    yield made
    for queue in made.list_queues()["QueueSummaries"]:
        made.delete_queue(QueueARN=queue["QueueARN"])
    for name in made.list_streams()["StreamNames"]:
        made.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    assert made.list_streams()["StreamNames"] == []


def refusal(call: Any, **arguments: Any) -> tuple[str, str, int]:
    """Code, message and status of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def read(client: Any, shard: str = SHARD_0, stream: str = "orders") -> list[dict[str, Any]]:
    """All records of a shard."""
    token = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    found: list[dict[str, Any]] = client.get_records(ShardIterator=token["ShardIterator"])["Records"]
    return found


def summary(client: Any, **named: str) -> dict[str, Any]:
    """DescribeStreamSummary."""
    found: dict[str, Any] = client.describe_stream_summary(**(named or {"StreamName": "orders"}))
    return found["StreamDescriptionSummary"]


# ---------------------------------------------------------------------- operations


def test_the_settings_of_a_stream_change_and_stay(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=1, Tags={"team": "a"}, MaxRecordSizeInKiB=2048)
    client.add_tags_to_stream(StreamName="orders", Tags={"cost": "b"})
    client.untag_resource(ResourceARN=ARN, TagKeys=["team"])
    client.increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=48)
    client.put_resource_policy(ResourceARN=ARN, Policy='{"Version": "2012-10-17"}')
    changed = client.enable_enhanced_monitoring(StreamName="orders", ShardLevelMetrics=["IncomingBytes"])

    assert changed["DesiredShardLevelMetrics"] == ["IncomingBytes"]
    again = opened()
    assert again.list_tags_for_stream(StreamName="orders")["Tags"] == [{"Key": "cost", "Value": "b"}]
    assert again.get_resource_policy(ResourceARN=ARN)["Policy"] == '{"Version": "2012-10-17"}'
    found = summary(again)
    assert (found["RetentionPeriodHours"], found["MaxRecordSizeInKiB"], found["OpenShardCount"]) == (48, 2048, 1)
    assert found["StreamStatus"] == "ACTIVE"


def test_shards_are_split_merged_and_scaled(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=1)
    client.put_record(StreamName="orders", Data=b"before", PartitionKey="k")
    client.split_shard(StreamName="orders", ShardToSplit=SHARD_0, NewStartingHashKey=str(2**127))
    placed = client.put_record(StreamARN=ARN, Data=b"upper", PartitionKey="k", ExplicitHashKey=str(2**127))
    client.merge_shards(StreamName="orders", ShardToMerge="shardId-1", AdjacentShardToMerge="shardId-2")
    answer = client.update_shard_count(StreamName="orders", TargetShardCount=2, ScalingType="UNIFORM_SCALING")

    assert placed["ShardId"] == "shardId-000000000002"
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (1, 2)
    assert summary(client)["OpenShardCount"] == 2
    assert [record["Data"] for record in read(client)] == [b"before"]
    assert refusal(client.merge_shards, StreamName="orders", ShardToMerge="0", AdjacentShardToMerge="9")[0] == (
        "ResourceNotFoundException"
    )


def test_a_stream_that_is_made_anew_is_put_to_and_read_anew(client: Any) -> None:
    for round_ in (b"one", b"two"):
        client.create_stream(StreamName="orders", ShardCount=1)
        client.put_record(StreamName="orders", Data=round_, PartitionKey="k")
        assert [record["Data"] for record in read(client)] == [round_]
        client.delete_stream(StreamName="orders")
        code, text, status = refusal(client.put_record, StreamName="orders", Data=b"x", PartitionKey="k")
        assert (code, status) == ("ResourceNotFoundException", 400)
        assert text == f"Stream orders under account {ACCOUNT} not found."


def test_records_of_an_encrypted_stream_say_so_on_all_ways(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=1)
    plain = client.put_record(StreamName="orders", Data=b"plain", PartitionKey="k")
    client.start_stream_encryption(StreamName="orders", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    one = client.put_record(StreamName="orders", Data=b"one", PartitionKey="k")
    many = client.put_records(StreamName="orders", Records=[{"Data": b"many", "PartitionKey": "k"}])

    assert ("EncryptionType" in plain, one["EncryptionType"], many["EncryptionType"]) == (False, "KMS", "KMS")
    assert [record.get("EncryptionType") for record in read(client)] == [None, "KMS", "KMS"]


def test_keys_may_be_left_out_where_the_stream_distributes_records_itself(client: Any) -> None:
    client.create_stream(
        StreamName="orders", StreamModeDetails={"StreamMode": "ON_DEMAND"}, RecordDistributionStrategy="AUTO"
    )
    answer = client.put_records(StreamName="orders", Records=[{"Data": b"x"}] * 8)

    assert answer["FailedRecordCount"] == 0
    assert {record["ShardId"] for record in answer["Records"]} == {f"shardId-{n:012d}" for n in range(4)}
    assert "PartitionKey" not in read(client)[0]


def test_a_dry_run_and_an_order_are_heeded(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=1)
    record = {"StreamName": "orders", "Data": b"x", "PartitionKey": "k"}
    first = client.put_record(**record)

    assert refusal(client.put_record, **record, DryRun=True)[0] == "DryRunOperationException"
    assert refusal(client.put_record, **record, SequenceNumberForOrdering="7")[0] == "InvalidArgumentException"
    client.put_record(**record, SequenceNumberForOrdering=first["SequenceNumber"])
    assert len(read(client)) == 2


def test_a_queue_delivers_what_was_put_and_takes_acknowledgements(client: Any) -> None:
    client.create_stream(StreamName="orders", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    made = client.create_queue(
        QueueName="work",
        StreamConfigurationList=[{"StreamARN": ARN, "StartingPosition": {"Type": "TRIM_HORIZON"}}],
    )
    queue = made["QueueDescription"]["QueueARN"]
    assert client.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    client.put_record(StreamName="orders", Data=b"job", PartitionKey="k")

    (record,) = client.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert (record["Data"], record["PartitionKey"], record["ReceiveCount"]) == (b"job", "k", 1)
    entries = [{"ReceiptHandle": record["ReceiptHandle"]}]
    assert client.acknowledge_queue_records(QueueARN=queue, Entries=entries)["Failed"] == []
    assert refusal(client.delete_stream, StreamName="orders")[0] == "ResourceInUseException"
    client.delete_queue(QueueARN=queue)
    client.delete_stream(StreamName="orders")
    assert client.list_streams()["StreamNames"] == []


# ---------------------------------------------------------------------- SubscribeToShard


def consumer(client: Any) -> str:
    """ARN of a new stream's consumer that is ACTIVE."""
    client.create_stream(StreamName="orders", ShardCount=1)
    # Its ARN tells seconds apart, and no more: each test has a name of its own.
    name = f"fast-{next(_numbers)}"
    made: str = client.register_stream_consumer(StreamARN=ARN, ConsumerName=name)["Consumer"]["ConsumerARN"]
    eventually(lambda: status(client, made) == "ACTIVE", what="the consumer to be ACTIVE")
    return made


def status(client: Any, arn: str) -> str:
    """A consumer's state."""
    found: str = client.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"]
    return found


def subscribed(client: Any, arn: str, kind: str = "LATEST") -> Any:
    """An event stream."""
    answer = client.subscribe_to_shard(ConsumerARN=arn, ShardId=SHARD_0, StartingPosition={"Type": kind})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    return answer["EventStream"]


def test_a_subscriber_gets_what_is_put_after_it_subscribed(client: Any) -> None:
    events = subscribed(client, consumer(client))
    client.put_record(StreamName="orders", Data=b"new", PartitionKey="k")
    event = next(each for each in events if each["SubscribeToShardEvent"]["Records"])["SubscribeToShardEvent"]
    events.close()

    (record,) = event["Records"]
    assert (record["Data"], record["PartitionKey"]) == (b"new", "k")
    assert record["ApproximateArrivalTimestamp"].tzinfo is not None
    assert (event["ContinuationSequenceNumber"], event["MillisBehindLatest"]) == (record["SequenceNumber"], 0)
    assert list(events) == []


def test_a_subscription_ends_with_its_shard_and_names_the_children(client: Any) -> None:
    arn = consumer(client)
    for first in (0, 500):
        datas = (b"%d" % n for n in range(first, first + 500))
        client.put_records(StreamName="orders", Records=[{"Data": data, "PartitionKey": "k"} for data in datas])
    events = subscribed(client, arn, "TRIM_HORIZON")
    client.split_shard(StreamName="orders", ShardToSplit=SHARD_0, NewStartingHashKey=str(2**127))

    found = [each["SubscribeToShardEvent"] for each in events]
    assert [r["Data"] for each in found for r in each["Records"]] == [b"%d" % n for n in range(1000)]
    assert "ContinuationSequenceNumber" not in found[-1]
    assert [child["ShardId"][-1] for child in found[-1]["ChildShards"]] == ["1", "2"]


def test_a_subscription_ends_with_an_error_where_its_stream_goes(client: Any) -> None:
    events = subscribed(client, consumer(client))
    client.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)

    with pytest.raises(EventStreamError, match="ResourceNotFoundException"):
        list(events)
    assert refusal(
        client.subscribe_to_shard,
        ConsumerARN=f"{ARN}/consumer/fast:1",
        ShardId=SHARD_0,
        StartingPosition={"Type": "LATEST"},
    )[0] == ("ResourceNotFoundException")


# ---------------------------------------------------------------------- with a node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made, runtime(made.data_dir):
        yield made


def test_the_client_and_boto3_see_the_same(node: Served) -> None:
    ours, theirs = opened(), node.client()
    theirs.create_stream(StreamName="orders", ShardCount=2, Tags={"team": "a"})
    ours.put_records(StreamName="orders", Records=[{"Data": b"%d" % n, "PartitionKey": str(n)} for n in range(20)])
    theirs.put_record(StreamName="orders", Data=b"by http", PartitionKey="k")

    def told(call: Any, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = call(**arguments)
        del answer["ResponseMetadata"]
        return answer

    for method, arguments in (
        ("describe_stream", {"StreamName": "orders"}),
        ("describe_stream_summary", {"StreamARN": ARN}),
        ("list_streams", {}),
        ("list_shards", {"StreamName": "orders"}),
        ("list_tags_for_stream", {"StreamName": "orders"}),
        ("describe_limits", {}),
        ("describe_account_settings", {}),
        ("list_stream_consumers", {"StreamARN": ARN}),
    ):
        assert told(getattr(ours, method), **arguments) == told(getattr(theirs, method), **arguments), method
    assert read(ours) == read(theirs)
    token = ours.get_shard_iterator(StreamName="orders", ShardId=SHARD_0, ShardIteratorType="LATEST")["ShardIterator"]
    assert theirs.get_records(ShardIterator=token)["Records"] == []
    for arguments in ({"StreamName": "none"}, {"StreamName": "a b"}, {}):
        assert refusal(ours.describe_stream, **arguments) == refusal(theirs.describe_stream, **arguments)


def test_an_arn_of_another_region_is_reached(node: Served) -> None:
    ours = opened()
    node.client(region="eu-west-1").create_stream(StreamName="orders", ShardCount=1)
    arn = f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/orders"
    ours.put_record(StreamARN=arn, Data=b"x", PartitionKey="k")

    assert summary(ours, StreamARN=arn)["StreamARN"] == arn
    assert refusal(ours.describe_stream, StreamName="orders")[0] == "ResourceNotFoundException"
    token = ours.get_shard_iterator(StreamARN=arn, ShardId="0", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    assert [record["Data"] for record in ours.get_records(ShardIterator=token)["Records"]] == [b"x"]


def test_faults_that_were_asked_for_meet_the_client_too(tmp_path: Path) -> None:
    with by_node(tmp_path, "--fault", "kinesis.Put*: 100% ProvisionedThroughputExceeded") as client:
        client.create_stream(StreamName="orders", ShardCount=1)
        code, _, _ = refusal(client.put_record, StreamName="orders", Data=b"x", PartitionKey="k")
        answer = client.put_records(StreamName="orders", Records=[{"Data": b"x", "PartitionKey": "k"}] * 3)
        assert code == "ProvisionedThroughputExceededException"
        assert answer["FailedRecordCount"] == 3
        assert read(client) == []


def test_a_client_outlives_its_node_and_finds_the_next_one(node: Served) -> None:
    client = opened()
    client.create_stream(StreamName="orders", ShardCount=1)
    for signum in (signal.SIGKILL, signal.SIGTERM):
        client.put_record(StreamName="orders", Data=b"by the node", PartitionKey="k")
        assert summary(client)["StreamStatus"] == "ACTIVE"
        node.stop(signum)
        client.add_tags_to_stream(StreamName="orders", Tags={str(signum): "without a node"})
        client.put_record(StreamName="orders", Data=b"alone", PartitionKey="k")
        node.start()
    assert len(client.list_tags_for_stream(StreamName="orders")["Tags"]) == 2
    assert len(read(client)) == 4


def test_a_subscriber_whose_node_is_killed_is_told(node: Served) -> None:
    client = opened()
    events = subscribed(client, consumer(client))
    node.stop(signal.SIGKILL)

    with pytest.raises(EventStreamError, match="the node went away"):
        list(events)


def test_a_subscriber_that_goes_away_leaves_its_place(node: Served) -> None:
    client = opened()
    arn = consumer(client)
    subscribed(client, arn).close()

    def again() -> Any:
        try:
            return subscribed(client, arn)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("ResourceInUseException", "LimitExceededException")  # noqa: PT017
            return None

    eventually(again, what="the place to be free").close()


def test_a_receiver_that_goes_away_takes_no_record_with_it(node: Served) -> None:
    client = opened()
    client.create_stream(StreamName="orders", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    made = client.create_queue(QueueName="work", StreamConfigurationList=[{"StreamARN": ARN}])
    queue = made["QueueDescription"]["QueueARN"]
    child = os.fork()
    if not child:  # waits for records, and is killed
        try:
            client.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)
        finally:
            os._exit(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    client.put_record(StreamName="orders", Data=b"job", PartitionKey="k")

    (record,) = client.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert (record["Data"], record["ReceiveCount"]) == (b"job", 1)


def test_many_threads_use_one_client(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=2)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                client.put_record(StreamName="orders", Data=b"%d" % number, PartitionKey=str(number))
                client.add_tags_to_stream(StreamName="orders", Tags={str(number): "x"})
                assert summary(client)["StreamStatus"] == "ACTIVE"
        except BaseException as error:  # noqa: BLE001  # shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(read(client)) + len(read(client, "shardId-000000000001")) == 40
    assert len(client.list_tags_for_stream(StreamName="orders")["Tags"]) == 4
