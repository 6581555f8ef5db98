"""Kinesis queues by boto3, in each life of the endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from tests.botoing import LIVES, Desk

STALE = "ResourceNotFoundException"
IA = "InvalidArgumentException"


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, it: Desk) -> Desk:
    it.reach(request.param)
    return it


def received(client: Any, queue: str, count: int = 1, *, dead: bool = False, **more: Any) -> list[dict[str, Any]]:
    """So many records of a queue, however many calls that takes."""
    call = client.receive_dead_letter_queue_records if dead else client.receive_queue_records
    found: list[dict[str, Any]] = []
    while len(found) < count:
        page = call(QueueARN=queue, WaitTimeSeconds=20, **more)["QueueRecords"]
        assert page, f"only {len(found)} of {count}"
        found += page
    return found


def handles(records: list[dict[str, Any]], **more: int) -> list[dict[str, Any]]:
    return [{"ReceiptHandle": record["ReceiptHandle"], **more} for record in records]


def test_records_are_delivered_until_they_are_acknowledged(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    queue = living.queue(name)
    client.put_records(StreamName=name, Records=[{"Data": b"%d" % n, "PartitionKey": f"k{n}"} for n in range(12)])
    first = received(client, queue, 12)
    assert {record["Data"]: record["PartitionKey"] for record in first} == {b"%d" % n: f"k{n}" for n in range(12)}
    assert {record["ReceiveCount"] for record in first} == {1}
    assert len({record["RecordId"] for record in first}) == 12
    by_shard = [record for n in range(4) for record in living.read(name, shard=f"shardId-{n:012d}")]
    arrivals = {record["Data"]: record["ApproximateArrivalTimestamp"] for record in by_shard}
    assert {record["Data"]: record["ApproximateArrivalTimestamp"] for record in first} == arrivals
    done = client.acknowledge_queue_records(QueueARN=queue, Entries=handles(first[:10]))
    assert (len(done["Successful"]), done["Failed"]) == (10, [])
    client.update_queue_records_visibility(QueueARN=queue, Entries=handles(first[10:], VisibilityTimeoutSeconds=0))
    again = received(client, queue, 2)
    assert {record["RecordId"] for record in again} == {record["RecordId"] for record in first[10:]}
    assert {record["ReceiveCount"] for record in again} == {2}
    assert {record["FirstReceiveTimestamp"] for record in again} <= {
        record["FirstReceiveTimestamp"] for record in first[10:]
    }
    client.acknowledge_queue_records(QueueARN=queue, Entries=handles(again))
    assert client.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []


def test_entries_that_fail_are_named_and_the_others_succeed(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    queue = living.queue(name)
    client.put_records(
        StreamName=name, Records=[{"Data": b"1", "PartitionKey": "a"}, {"Data": b"2", "PartitionKey": "b"}]
    )
    first, second = received(client, queue, 2)
    client.update_queue_records_visibility(QueueARN=queue, Entries=handles([first], VisibilityTimeoutSeconds=0))
    (newer,) = received(client, queue)
    assert newer["ReceiptHandle"] != first["ReceiptHandle"]
    entries = [*handles([first, second]), {"ReceiptHandle": "made up"}]
    done = client.acknowledge_queue_records(QueueARN=queue, Entries=entries)
    assert done["Successful"] == handles([second])
    assert {each["ReceiptHandle"]: each["ErrorCode"] for each in done["Failed"]} == {
        first["ReceiptHandle"]: STALE,
        "made up": IA,
    }
    other = living.queue(living.on_demand())
    foreign = client.acknowledge_queue_records(QueueARN=other, Entries=handles([newer]))
    assert [each["ErrorCode"] for each in foreign["Failed"]] == [IA]
    assert client.acknowledge_queue_records(QueueARN=queue, Entries=handles([newer]))["Failed"] == []


def test_what_is_received_too_often_is_a_dead_letter_until_it_is_restored(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    letters = {"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}}
    queue = living.queue(name, QueueAttributes=letters)
    client.put_record(StreamName=name, Data=b"bad", PartitionKey="k")
    for count in (1, 2):
        (record,) = received(client, queue, VisibilityTimeoutSeconds=0)
        assert record["ReceiveCount"] == count
    assert client.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    (dead,) = received(client, queue, dead=True)
    assert (dead["Data"], dead["RecordId"]) == (b"bad", record["RecordId"])
    wrong = client.acknowledge_queue_records(QueueARN=queue, Entries=handles([dead]))
    assert [each["ErrorCode"] for each in wrong["Failed"]] == [IA]
    client.restore_dead_letter_queue_records(QueueARN=queue, Entries=handles([dead]))
    (back,) = received(client, queue)
    assert (back["Data"], back["ReceiveCount"]) == (b"bad", 1)
    client.acknowledge_queue_records(QueueARN=queue, Entries=handles([back]))


def test_without_dead_letters_a_record_comes_for_ever(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    queue = living.queue(name, QueueAttributes={"DeadLetterConfiguration": {"TargetType": "NONE"}})
    client.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    counts = [received(client, queue, VisibilityTimeoutSeconds=0)[0]["ReceiveCount"] for _ in range(10)]
    assert counts == list(range(1, 11))


def test_a_queue_begins_where_it_was_told_to(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    client.put_record(StreamName=name, Data=b"before", PartitionKey="k")
    latest = [{"StreamARN": living.arn(name)}]
    queue = living.queue(name, StreamConfigurationList=latest)
    described = client.describe_queue(QueueARN=queue)["QueueDescription"]
    assert described["StreamConfigurationList"][0]["StartingPosition"]["Type"] == "LATEST"
    assert described["QueueAttributes"] == {
        "VisibilityTimeoutSeconds": 30,
        "DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 6},
    }
    at = [{"StreamARN": living.arn(name), "StartingPosition": {"Type": "AT_TIMESTAMP", "Timestamp": 1}}]
    whole = living.queue(name, StreamConfigurationList=at)
    client.put_record(StreamName=name, Data=b"after", PartitionKey="k")
    assert [record["Data"] for record in received(client, queue)] == [b"after"]
    assert {record["Data"] for record in received(client, whole, 2)} == {b"before", b"after"}
