"""Kinesis queues by boto3: each record is delivered until it is acknowledged, and what fails too often is put aside."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.deadline import eventually
from tests.served import Served, served


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def stream_arn(kinesis: Any, name: str = "orders") -> str:
    """An on-demand stream; its ARN."""
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    eventually(
        lambda: (
            kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        ),
        what="the stream to be active",
    )
    return str(kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"])


def created(kinesis: Any, stream: str, name: str = "jobs", **attributes: Any) -> str:
    """A queue that is active; its ARN."""
    made = kinesis.create_queue(
        QueueName=name, StreamConfigurationList=[{"StreamARN": stream}], QueueAttributes=attributes
    )["QueueDescription"]
    assert made["QueueStatus"] == "CREATING"
    queue = made["QueueARN"]
    eventually(
        lambda: kinesis.describe_queue(QueueARN=queue)["QueueDescription"]["QueueStatus"] == "ACTIVE",
        what="the queue to be active",
    )
    return str(queue)


def put(kinesis: Any, *datas: bytes) -> None:
    records = [{"Data": data, "PartitionKey": data.decode()} for data in datas]
    assert kinesis.put_records(StreamName="orders", Records=records)["FailedRecordCount"] == 0


def drained(kinesis: Any, queue: str, count: int) -> set[bytes]:
    """Receive and acknowledge so many records."""
    found: set[bytes] = set()
    while len(found) < count:
        records = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
        assert records, f"only {len(found)} of {count} records were delivered"
        found |= {each["Data"] for each in records}
        entries = [{"ReceiptHandle": each["ReceiptHandle"]} for each in records]
        assert kinesis.acknowledge_queue_records(QueueARN=queue, Entries=entries)["Failed"] == []
    return found


def test_every_record_is_delivered_and_acknowledged(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    datas = [b"%d" % number for number in range(120)]
    put(kinesis, *datas)
    assert drained(kinesis, queue, 120) == set(datas)
    assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []


def test_a_long_poll_is_answered_by_the_next_put(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    answers: list[Any] = []
    poller = threading.Thread(
        target=lambda: answers.append(
            endpoint.client().receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
        )
    )
    poller.start()
    put(kinesis, b"one")
    poller.join(19)
    ((record,),) = answers
    assert (record["Data"], record["PartitionKey"], record["ReceiveCount"]) == (b"one", "one", 1)
    assert record["RecordId"].isalnum()
    assert record["FirstReceiveTimestamp"] >= record["ApproximateArrivalTimestamp"]


def test_a_record_that_fails_too_often_is_put_aside_and_restored(endpoint: Served) -> None:
    kinesis = endpoint.client()
    letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}
    queue = created(kinesis, stream_arn(kinesis), VisibilityTimeoutSeconds=0, DeadLetterConfiguration=letters)
    put(kinesis, b"poison")

    for count in (1, 2):
        (record,) = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
        assert record["ReceiveCount"] == count
    assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    (letter,) = kinesis.receive_dead_letter_queue_records(QueueARN=queue, VisibilityTimeoutSeconds=60)["QueueRecords"]
    assert letter["RecordId"] == record["RecordId"]
    entries = [{"ReceiptHandle": letter["ReceiptHandle"]}]
    shown = [{**entries[0], "VisibilityTimeoutSeconds": 30}]
    assert kinesis.update_dead_letter_queue_records_visibility(QueueARN=queue, Entries=shown)["Failed"] == []
    (refused,) = kinesis.acknowledge_queue_records(QueueARN=queue, Entries=entries)["Failed"]
    assert (refused["ErrorCode"], refused["ReceiptHandle"]) == ("InvalidArgumentException", letter["ReceiptHandle"])
    assert kinesis.restore_dead_letter_queue_records(QueueARN=queue, Entries=entries)["Successful"] == entries

    (record,) = kinesis.receive_queue_records(QueueARN=queue, VisibilityTimeoutSeconds=60)["QueueRecords"]
    assert (record["Data"], record["ReceiveCount"]) == (b"poison", 1)
    entries = [{"ReceiptHandle": record["ReceiptHandle"]}]
    hidden = [{**entries[0], "VisibilityTimeoutSeconds": 0}]
    assert kinesis.update_queue_records_visibility(QueueARN=queue, Entries=hidden)["Failed"] == []
    kinesis.receive_queue_records(QueueARN=queue)
    (letter,) = kinesis.receive_dead_letter_queue_records(QueueARN=queue)["QueueRecords"]
    entries = [{"ReceiptHandle": letter["ReceiptHandle"]}]
    assert kinesis.acknowledge_dead_letter_queue_records(QueueARN=queue, Entries=entries)["Successful"] == entries


def test_queues_are_described_listed_updated_and_deleted(endpoint: Served) -> None:
    kinesis = endpoint.client()
    stream = stream_arn(kinesis)
    queue = created(kinesis, stream)
    other = created(kinesis, stream, "another")

    first = kinesis.list_queues(MaxResults=1, StreamFilter=[{"StreamARN": stream}])
    assert [each["QueueName"] for each in first["QueueSummaries"]] == ["another"]
    second = kinesis.list_queues(NextToken=first["NextToken"])
    assert [each["QueueARN"] for each in second["QueueSummaries"]] == [queue]
    updated = kinesis.update_queue(QueueARN=queue, QueueAttributes={"VisibilityTimeoutSeconds": 77})
    assert updated["QueueDescription"]["QueueAttributes"]["VisibilityTimeoutSeconds"] == 77

    summary = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    assert summary["QueueCount"] == 2
    with pytest.raises(ClientError, match="ResourceInUseException"):
        kinesis.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)
    with pytest.raises(ClientError, match="queues"):
        kinesis.update_stream_mode(StreamARN=stream, StreamModeDetails={"StreamMode": "PROVISIONED"})
    for each in (queue, other):
        kinesis.delete_queue(QueueARN=each)
    eventually(lambda: kinesis.list_queues()["QueueSummaries"] == [], what="the queues to be gone")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        kinesis.receive_queue_records(QueueARN=queue)
    kinesis.delete_stream(StreamName="orders")


def test_a_queue_begins_at_a_time_stamp(endpoint: Served) -> None:
    kinesis = endpoint.client()
    stream = stream_arn(kinesis)
    put(kinesis, b"one", b"two")
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    position = {"Type": "AT_TIMESTAMP", "Timestamp": begin}
    made = kinesis.create_queue(
        QueueName="jobs", StreamConfigurationList=[{"StreamARN": stream, "StartingPosition": position}]
    )["QueueDescription"]
    assert made["StreamConfigurationList"][0]["StartingPosition"] == {"Type": "AT_TIMESTAMP", "Timestamp": begin}
    assert drained(kinesis, made["QueueARN"], 2) == {b"one", b"two"}


def test_queues_of_two_regions_do_not_meet(endpoint: Served) -> None:
    here, there = endpoint.client(), endpoint.client(region="eu-west-1")
    queues = {client: created(client, stream_arn(client)) for client in (here, there)}
    for client, queue in queues.items():
        assert [each["QueueARN"] for each in client.list_queues()["QueueSummaries"]] == [queue]
    put(there, b"there")
    assert here.receive_queue_records(QueueARN=queues[here], WaitTimeSeconds=1)["QueueRecords"] == []
    assert drained(there, queues[there], 1) == {b"there"}
    foreign = [{"StreamARN": queues[there].rpartition("queue/")[0] + "stream/orders"}]
    with pytest.raises(ClientError, match="InvalidArgumentException"):
        here.create_queue(QueueName="more", StreamConfigurationList=foreign)


def test_queues_have_tags_and_a_policy(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    kinesis.tag_resource(ResourceARN=queue, Tags={"team": "blue", "stage": "dev"})
    kinesis.untag_resource(ResourceARN=queue, TagKeys=["stage"])
    assert kinesis.list_tags_for_resource(ResourceARN=queue)["Tags"] == [{"Key": "team", "Value": "blue"}]
    kinesis.put_resource_policy(ResourceARN=queue, Policy='{"Version": "2012-10-17"}')
    assert kinesis.get_resource_policy(ResourceARN=queue)["Policy"] == '{"Version": "2012-10-17"}'


def test_input_that_breaks_the_model_is_refused_in_its_words(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    with pytest.raises(ClientError) as caught:
        kinesis.receive_queue_records(QueueARN=queue, Limit=11, WaitTimeSeconds=21)
    assert caught.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "2 validation errors detected: Value '11' at 'limit' failed to satisfy constraint: Member must have "
        "value less than or equal to 10; Value '21' at 'waitTimeSeconds' failed to satisfy constraint: Member must "
        "have value less than or equal to 20",
    }


def test_provisioned_streams_have_no_queues(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=1)
    stream = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]
    with pytest.raises(ClientError, match="ValidationException") as caught:
        kinesis.create_queue(QueueName="jobs", StreamConfigurationList=[{"StreamARN": stream}])
    assert "is in Provisioned mode" in caught.value.response["Error"]["Message"]


def test_consumers_that_share_a_queue_share_its_records(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    received: list[bytes] = []

    def consume() -> None:
        mine = endpoint.client()
        while records := mine.receive_queue_records(QueueARN=queue, WaitTimeSeconds=2)["QueueRecords"]:
            received.extend(each["Data"] for each in records)
            entries = [{"ReceiptHandle": each["ReceiptHandle"]} for each in records]
            assert mine.acknowledge_queue_records(QueueARN=queue, Entries=entries)["Failed"] == []

    consumers = [threading.Thread(target=consume) for _ in range(4)]
    datas = [b"%d" % number for number in range(400)]
    put(kinesis, *datas)
    for each in consumers:
        each.start()
    for each in consumers:
        each.join(60)
    assert sorted(received) == sorted(datas)


def test_a_queue_goes_on_where_it_was_after_a_restart(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    put(kinesis, b"acknowledged", b"flying")
    records = []
    while len(records) < 2:
        records += kinesis.receive_queue_records(QueueARN=queue, Limit=1)["QueueRecords"]
    handles = {each["Data"]: {"ReceiptHandle": each["ReceiptHandle"]} for each in records}
    kinesis.acknowledge_queue_records(QueueARN=queue, Entries=[handles[b"acknowledged"]])
    put(kinesis, b"new")

    endpoint.stop()
    endpoint.start()

    kinesis = endpoint.client()
    assert drained(kinesis, queue, 1) == {b"new"}
    (done,) = kinesis.acknowledge_queue_records(QueueARN=queue, Entries=[handles[b"flying"]])["Successful"]
    assert done == handles[b"flying"]


def test_who_waits_is_answered_with_nothing_when_the_endpoint_stops(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis, stream_arn(kinesis))
    waiting = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=60)
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "Kinesis_20131202.ReceiveQueueRecords",
        "X-Amz-Date": "20261126T000000Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261126/us-east-1/kinesis/aws4_request, "
        "SignedHeaders=host, Signature=0",
    }
    waiting.request("POST", "/", json.dumps({"QueueARN": queue, "WaitTimeSeconds": 20}), headers)
    kinesis.describe_queue(QueueARN=queue)  # the endpoint has seen both
    endpoint.process.send_signal(signal.SIGTERM)
    response = waiting.getresponse()
    assert (response.status, response.read()) == (200, b'{"QueueRecords":[]}')
    endpoint.stop()
