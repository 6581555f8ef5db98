"""Enhanced fan-out as boto3 sees it: records are pushed over an answer that goes on, by HTTP/1.1."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cbor2
import pytest
from botocore.exceptions import ClientError, EventStreamError

from kflow.aws import cbor
from kflow.aws.frames import Decoder, Frame
from tests.deadline import eventually
from tests.served import ACCOUNT, Served, served

SHARD = "shardId-000000000000"


class Shop:
    """A stream `orders` of one shard, and consumers of it."""

    def __init__(self, place: Served) -> None:
        self.place = place
        self._opened: list[Any] = []
        self.connect()
        self.client.create_stream(StreamName="orders", ShardCount=1)
        eventually(lambda: self._stream_status() == "ACTIVE", what="the stream")
        self.arn = self.client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]

    def connect(self) -> None:
        """Have a client of the process that runs now."""
        self.client = self.place.client()
        self._opened.append(self.client)

    def close(self) -> None:
        """Close all connections."""
        for each in reversed(self._opened):
            each.close()

    def _stream_status(self) -> str:
        found: str = self.client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"][
            "StreamStatus"
        ]
        return found

    def consumer(self, name: str = "fast") -> str:
        arn: str = self.client.register_stream_consumer(StreamARN=self.arn, ConsumerName=name)["Consumer"][
            "ConsumerARN"
        ]
        eventually(
            lambda: (
                self.client.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"]
                == "ACTIVE"
            ),
            what="the consumer",
        )
        return arn

    def subscribe(self, arn: str, kind: str = "LATEST", number: str | None = None, shard: str = SHARD) -> Any:
        position = {"Type": kind, **({} if number is None else {"SequenceNumber": number})}
        client = self.place.client()  # its connection is the subscription's, and must not be used again
        self._opened.append(client)
        stream = client.subscribe_to_shard(ConsumerARN=arn, ShardId=shard, StartingPosition=position)["EventStream"]
        self._opened.append(stream)
        return stream

    def put(self, *datas: bytes) -> list[str]:
        return [
            self.client.put_record(StreamName="orders", Data=data, PartitionKey="k")["SequenceNumber"] for data in datas
        ]


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Shop]:
    with served(tmp_path) as place:
        made = Shop(place)
        yield made
        made.close()


def events(stream: Any) -> Iterator[dict[str, Any]]:
    return (event["SubscribeToShardEvent"] for event in stream)


def records(stream: Any, count: int) -> list[dict[str, Any]]:
    """The next records, as many as are wanted at least; the subscription stays."""
    found: list[dict[str, Any]] = []
    for event in events(stream):
        found += event["Records"]
        if len(found) >= count:
            break
    return found


def test_a_record_that_is_put_after_subscribing_is_pushed(it: Shop) -> None:
    it.put(b"before")
    stream = it.subscribe(it.consumer())
    numbers = it.put(b"one", b"two")
    found = records(stream, 2)
    assert [(record["Data"], record["PartitionKey"], record["SequenceNumber"]) for record in found] == [
        (b"one", "k", numbers[0]),
        (b"two", "k", numbers[1]),
    ]


def test_all_records_come_in_order_though_the_client_begins_to_read_late(it: Shop) -> None:
    stream = it.subscribe(it.consumer())
    for first in range(0, 4_000, 50):
        it.client.put_records(
            StreamName="orders",
            Records=[{"Data": b"%06d" % n + b"x" * 5_000, "PartitionKey": "k"} for n in range(first, first + 50)],
        )
    found = records(stream, 4_000)
    assert [int(record["Data"][:6]) for record in found] == list(range(4_000))


def test_two_consumers_read_at_their_own_places(it: Shop) -> None:
    numbers = it.put(b"1", b"2", b"3")
    first = it.subscribe(it.consumer("first"), "TRIM_HORIZON")
    second = it.subscribe(it.consumer("second"), "AFTER_SEQUENCE_NUMBER", numbers[1])
    assert [record["Data"] for record in records(first, 3)] == [b"1", b"2", b"3"]
    assert [record["Data"] for record in records(second, 1)] == [b"3"]


def test_a_split_ends_the_subscription_with_the_children(it: Shop) -> None:
    stream = it.subscribe(it.consumer())
    it.put(b"last")
    it.client.split_shard(StreamName="orders", ShardToSplit=SHARD, NewStartingHashKey=str(1 << 127))
    found = list(events(stream))  # to its end
    assert [record["Data"] for event in found for record in event["Records"]] == [b"last"]
    assert all(event["ContinuationSequenceNumber"] for event in found[:-1])
    assert "ContinuationSequenceNumber" not in found[-1]
    assert [(child["ShardId"], child["ParentShards"]) for child in found[-1]["ChildShards"]] == [
        ("shardId-000000000001", [SHARD]),
        ("shardId-000000000002", [SHARD]),
    ]


def test_a_stream_that_is_deleted_ends_the_subscription_with_its_error(it: Shop) -> None:
    stream = it.subscribe(it.consumer())
    it.client.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)
    with pytest.raises(EventStreamError) as caught:
        list(stream)
    assert caught.value.response["Error"] == {
        "Code": "ResourceNotFoundException",
        "Message": f"Stream orders under account {ACCOUNT} not found.",
    }


def test_a_consumer_that_is_deregistered_ends_its_subscription(it: Shop) -> None:
    arn = it.consumer()
    stream = it.subscribe(arn)
    it.client.deregister_stream_consumer(ConsumerARN=arn)
    with pytest.raises(EventStreamError) as caught:
        list(stream)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_second_call_is_refused_at_first_and_takes_over_then(it: Shop) -> None:
    arn = it.consumer()
    first = it.subscribe(arn)
    with pytest.raises(ClientError) as refused:
        it.subscribe(arn)
    text = f"Another active subscription exists for this consumer: {ACCOUNT}:orders:{SHARD}:fast"
    assert refused.value.response["Error"] == {"Code": "ResourceInUseException", "Message": text}
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400

    def taken_over() -> Any:
        try:
            return it.subscribe(arn)
        except ClientError:
            return None

    second = eventually(taken_over, seconds=30, what="the second subscription")
    with pytest.raises(EventStreamError) as ended:
        list(first)
    assert ended.value.response["Error"] == {"Code": "ResourceInUseException", "Message": text}
    it.put(b"1")
    assert [record["Data"] for record in records(second, 1)] == [b"1"]


def test_an_unknown_consumer_is_an_ordinary_error(it: Shop) -> None:
    with pytest.raises(ClientError) as caught:
        it.subscribe(f"{it.arn}/consumer/nobody:1700000000")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_after_a_kill_the_client_goes_on_where_it_was_and_misses_nothing(it: Shop) -> None:
    arn = it.consumer()
    stream = it.subscribe(arn)
    it.put(b"1", b"2")
    last = ""
    for event in events(stream):
        if event["Records"]:
            last = event["ContinuationSequenceNumber"]
        if event["Records"] and event["Records"][-1]["Data"] == b"2":
            break
    it.put(b"3")
    it.place.kill()
    it.place.start()
    it.connect()
    it.put(b"4")
    again = it.subscribe(arn, "AFTER_SEQUENCE_NUMBER", last)
    assert [record["Data"] for record in records(again, 2)] == [b"3", b"4"]


def test_a_stopped_endpoint_ends_its_subscriptions_cleanly(it: Shop) -> None:
    stream = it.subscribe(it.consumer())
    it.put(b"1")
    found = events(stream)
    assert next(found)["Records"]
    it.place.process.send_signal(signal.SIGINT)
    assert list(found) == []  # it ends, and without an error
    assert it.place.process.wait(60) == 130


def test_a_caller_that_speaks_cbor_is_sent_cbor(it: Shop) -> None:
    arn = it.consumer()
    it.put(b"1")
    url = urlsplit(it.place.url)
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    body = {"ConsumerARN": arn, "ShardId": SHARD, "StartingPosition": {"Type": "TRIM_HORIZON"}}
    headers = {
        "Content-Type": "application/x-amz-cbor-1.1",
        "X-Amz-Target": "Kinesis_20131202.SubscribeToShard",
        "X-Amz-Date": "20260101T000000Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kinesis/aws4_request, "
        "SignedHeaders=host, Signature=0",
    }
    connection.request("POST", "/", cbor2.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/vnd.amazon.eventstream"
    decoder, frames = Decoder(), list[Frame]()
    while len(frames) < 2:
        frames += decoder.feed(response.read1())
    connection.close()
    assert frames[0].headers[":event-type"] == "initial-response"
    assert cbor2.loads(frames[0].payload) == {}
    assert frames[1].headers[":event-type"] == "SubscribeToShardEvent"
    assert frames[1].headers[":content-type"] == "application/cbor"
    event = cbor.decode(frames[1].payload)  # cbor2 takes the milliseconds under tag 1 for seconds
    assert sorted(event) == ["ContinuationSequenceNumber", "MillisBehindLatest", "Records"]
    (record,) = event["Records"]
    assert record["Data"] == b"1"
    assert record["PartitionKey"] == "k"
