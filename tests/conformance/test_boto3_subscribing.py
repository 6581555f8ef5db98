"""SubscribeToShard by boto3: pushed records, places to begin at, takeover, and resharding while subscribed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.botoing import ACCOUNT, LIVES, Desk
from tests.deadline import eventually

SHARD = "shardId-000000000000"
HALF = str(1 << 127)


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, it: Desk) -> Desk:
    it.reach(request.param)
    return it


@contextlib.contextmanager
def subscribed(it: Desk, consumer: str, shard: str = SHARD, kind: str = "LATEST", **at: Any) -> Iterator[Any]:
    """The events of a subscription, over a connection of its own."""
    with contextlib.closing(it.new_client()) as client:
        position = {"Type": kind, **at}
        answer = client.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition=position)
        with contextlib.closing(answer["EventStream"]) as events:
            yield (event["SubscribeToShardEvent"] for event in events)


def records(events: Iterator[Any], count: int) -> list[dict[str, Any]]:
    """The next records, as many as are wanted."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += next(events)["Records"]
    return found


def put(it: Desk, name: str, *datas: bytes, **more: Any) -> list[str]:
    client = it.client()
    return [
        str(client.put_record(StreamName=name, Data=data, PartitionKey="k", **more)["SequenceNumber"]) for data in datas
    ]


def test_records_are_pushed_as_they_are_put_and_as_they_are_read(living: Desk) -> None:
    name = living.stream()
    put(living, name, b"before")
    with subscribed(living, living.consumer(name)) as events:
        for n in range(5):  # each one only after the one before has come
            (number,) = put(living, name, b"%d" % n)
            (record,) = records(events, 1)
            assert (record["Data"], record["PartitionKey"], record["SequenceNumber"]) == (b"%d" % n, "k", number)
    living.client().start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/a")
    with subscribed(living, living.consumer(name, "second"), kind="TRIM_HORIZON") as events:
        pushed = records(events, 6)
    assert pushed == living.read(name)


def test_every_starting_position_begins_where_it_says(living: Desk) -> None:
    name = living.stream()
    numbers = put(living, name, b"0", b"1", b"2")
    arrived = living.read(name)[0]["ApproximateArrivalTimestamp"]
    starts: list[tuple[bytes, dict[str, Any]]] = [
        (b"012", {"kind": "TRIM_HORIZON"}),
        (b"12", {"kind": "AT_SEQUENCE_NUMBER", "SequenceNumber": numbers[1]}),
        (b"2", {"kind": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": numbers[1]}),
        (b"012", {"kind": "AT_TIMESTAMP", "Timestamp": arrived}),
    ]
    for n, (wanted, start) in enumerate(starts):
        with subscribed(living, living.consumer(name, f"c{n}"), **start) as events:
            assert b"".join(record["Data"] for record in records(events, len(wanted))) == wanted


@pytest.mark.parametrize("kind", ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"])
def test_the_continuation_number_is_a_place_to_go_on_at(living: Desk, kind: str) -> None:
    name = living.stream()
    put(living, name, b"0", b"1")
    with subscribed(living, living.consumer(name), kind="TRIM_HORIZON") as events:
        event = next(events)
        assert [record["Data"] for record in event["Records"]] == [b"0", b"1"]
    put(living, name, b"2")
    at = event["ContinuationSequenceNumber"]
    with subscribed(living, living.consumer(name, "again"), kind=kind, SequenceNumber=at) as events:
        found = records(events, 2 if kind == "AT_SEQUENCE_NUMBER" else 1)
    assert [record["Data"] for record in found] == ([b"1", b"2"] if kind == "AT_SEQUENCE_NUMBER" else [b"2"])


def test_a_record_without_a_key_is_pushed_without_one(living: Desk) -> None:
    name = living.on_demand(RecordDistributionStrategy="AUTO")
    shard = living.client().put_record(StreamName=name, Data=b"x")["ShardId"]
    with subscribed(living, living.consumer(name), shard, "TRIM_HORIZON") as events:
        (record,) = records(events, 1)
    assert "PartitionKey" not in record


def test_a_record_of_ten_mebibytes_is_pushed_whole(it: Desk) -> None:
    name = it.stream(MaxRecordSizeInKiB=10240)
    data = bytes(range(256)) * 40_959
    with subscribed(it, it.consumer(name)) as events:
        put(it, name, data, b"next")
        assert [record["Data"] for record in records(events, 2)] == [data, b"next"]


def test_the_lineage_is_followed_through_resharding_without_a_gap(living: Desk) -> None:
    name = living.stream()
    client = living.client()
    consumer = living.consumer(name)
    order = iter(range(1000))

    def some() -> None:
        for _ in range(5):
            put(living, name, b"%d" % next(order), ExplicitHashKey="0")

    some()
    with subscribed(living, consumer, SHARD, "TRIM_HORIZON") as events:
        first = records(events, 1)
        client.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey=HALF)
        some()
        rest = list(events)
    found = first + [record for event in rest for record in event["Records"]]
    assert "ContinuationSequenceNumber" not in rest[-1]
    assert all(event["ContinuationSequenceNumber"] for event in rest[:-1])
    assert [child["ShardId"][-1] for child in rest[-1]["ChildShards"]] == ["1", "2"]
    with subscribed(living, consumer, "shardId-000000000001", "TRIM_HORIZON") as events:
        found += records(events, 5)
        client.merge_shards(StreamName=name, ShardToMerge="1", AdjacentShardToMerge="2")
        some()
        rest = list(events)
    found += [record for event in rest for record in event["Records"]]
    (child,) = rest[-1]["ChildShards"]
    assert (child["ShardId"][-1], [parent[-1] for parent in child["ParentShards"]]) == ("3", ["1", "2"])
    with subscribed(living, consumer, child["ShardId"], "TRIM_HORIZON") as events:
        found += records(events, 5)
    assert [int(record["Data"]) for record in found] == list(range(15))


def test_a_scaling_ends_all_subscriptions_with_their_children(living: Desk) -> None:
    name = living.stream(2)
    consumer = living.consumer(name)
    with (
        subscribed(living, consumer, SHARD) as first,
        subscribed(living, consumer, "shardId-000000000001") as second,
    ):
        living.client().update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        ends = [list(events)[-1] for events in (first, second)]
    assert [[child["ShardId"][-1] for child in end["ChildShards"]] for end in ends] == [["2", "3"], ["4", "5"]]


def test_a_second_call_is_refused_for_five_seconds_and_then_takes_over(it: Desk) -> None:
    name = it.stream()
    consumer = it.consumer(name)
    text = f"Another active subscription exists for this consumer: {ACCOUNT}:{name}:{SHARD}:fast"
    with subscribed(it, consumer) as first, contextlib.ExitStack() as stack:
        refusals: list[dict[str, Any]] = []

        def second() -> Any:
            try:
                return stack.enter_context(subscribed(it, consumer))
            except ClientError as error:
                refusals.append(dict(error.response["Error"]))
                return None

        assert second() is None
        put(it, name, b"to the first")
        assert [record["Data"] for record in records(first, 1)] == [b"to the first"]
        taken = eventually(second, seconds=60, what="the takeover")
        assert all(each == {"Code": "ResourceInUseException", "Message": text} for each in refusals)
        with pytest.raises(EventStreamError) as ended:
            list(first)
        assert ended.value.response["Error"] == {"Code": "ResourceInUseException", "Message": text}
        put(it, name, b"to the second")
        assert [record["Data"] for record in records(taken, 1)] == [b"to the second"]


def test_another_shard_and_another_consumer_are_other_subscriptions(living: Desk) -> None:
    name = living.stream(2)
    fast, slow = living.consumer(name), living.consumer(name, "slow")
    with (
        subscribed(living, fast, SHARD) as one,
        subscribed(living, fast, "shardId-000000000001") as two,
        subscribed(living, slow, SHARD) as three,
    ):
        put(living, name, b"low", ExplicitHashKey="0")
        put(living, name, b"high", ExplicitHashKey=HALF)
        found = [[record["Data"] for record in records(events, 1)] for events in (one, two, three)]
    assert found == [[b"low"], [b"high"], [b"low"]]


def test_a_client_that_left_may_come_back_after_the_five_seconds(it: Desk) -> None:
    name = it.stream()
    consumer = it.consumer(name)
    with subscribed(it, consumer):
        pass

    codes: set[str] = set()

    def again() -> bool:
        try:
            with subscribed(it, consumer) as events:
                put(it, name, b"x")
                return [record["Data"] for record in records(events, 1)] == [b"x"]
        except ClientError as error:
            codes.add(error.response["Error"]["Code"])
            return False

    eventually(again, seconds=60, what="the next subscription")
    assert codes == {"ResourceInUseException"}
