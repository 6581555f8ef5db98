"""Many clients make, change and delete the same few streams and queues at once, over HTTP: each gets AWS's own answer.

What is left when they are done is whole: all agree on it, before and after a kill.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deadline import eventually
from tests.older import expected, unpack
from tests.served import ACCOUNT, Served, served

CLIENTS = 8
CALLS = 600
STREAMS = ("s0", "s1", "s2")
REFUSALS = frozenset(
    {
        "InvalidArgumentException",
        "LimitExceededException",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "ValidationException",
    }
)
SCOPE = "test/20260101/us-east-1/kinesis/aws4_request"
HEADERS = {
    "Content-Type": "application/x-amz-json-1.1",
    "Authorization": f"AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host, Signature=0",
    "X-Amz-Date": "20260101T000000Z",
}

Draw = Callable[[random.Random, str, str], dict[str, Any]]

PUTS: list[dict[str, str]] = [{"PartitionKey": str(number), "Data": "aGk="} for number in range(20)]

OPERATIONS: dict[str, tuple[int, Draw]] = {
    "CreateStream": (6, lambda draw, name, _: {"StreamName": name, "ShardCount": draw.randint(1, 3)}),
    "DeleteStream": (3, lambda draw, name, _: {"StreamName": name, "EnforceConsumerDeletion": draw.random() < 0.8}),
    "SplitShard": (
        2,
        lambda draw, name, _: {
            "StreamName": name,
            "ShardToSplit": "0",
            "NewStartingHashKey": str(draw.randint(2, 10**30)),
        },
    ),
    "MergeShards": (2, lambda _, name, __: {"StreamName": name, "ShardToMerge": "0", "AdjacentShardToMerge": "1"}),
    "UpdateShardCount": (
        2,
        lambda draw, name, _: {
            "StreamName": name,
            "TargetShardCount": draw.randint(1, 4),
            "ScalingType": "UNIFORM_SCALING",
        },
    ),
    "AddTagsToStream": (1, lambda draw, name, _: {"StreamName": name, "Tags": {"a": str(draw.random())}}),
    "IncreaseStreamRetentionPeriod": (
        1,
        lambda draw, name, _: {"StreamName": name, "RetentionPeriodHours": draw.randint(24, 99)},
    ),
    "UpdateMaxRecordSize": (
        1,
        lambda draw, _, arn: {"StreamARN": arn, "MaxRecordSizeInKiB": draw.randint(1024, 2048)},
    ),
    "UpdateStreamMode": (
        2,
        lambda draw, _, arn: {
            "StreamARN": arn,
            "StreamModeDetails": {"StreamMode": draw.choice(["ON_DEMAND", "ON_DEMAND", "PROVISIONED"])},
        },
    ),
    "RegisterStreamConsumer": (1, lambda draw, _, arn: {"StreamARN": arn, "ConsumerName": draw.choice("abc")}),
    "DeregisterStreamConsumer": (1, lambda draw, _, arn: {"StreamARN": arn, "ConsumerName": draw.choice("abc")}),
    "CreateQueue": (
        2,
        lambda draw, name, arn: {
            "QueueName": name,
            "StreamConfigurationList": [
                {"StreamARN": arn, "StartingPosition": {"Type": draw.choice(["LATEST", "TRIM_HORIZON"])}}
            ],
        },
    ),
    "DescribeStream": (1, lambda _, name, __: {"StreamName": name}),
    "ListShards": (1, lambda _, name, __: {"StreamName": name, "ShardFilter": {"Type": "AT_TRIM_HORIZON"}}),
    "ListStreams": (1, lambda *_: {}),
    "PutRecords": (4, lambda _, name, __: {"StreamName": name, "Records": PUTS}),
    # Of what ListQueues names:
    "ReceiveQueueRecords": (1, lambda *_: {"WaitTimeSeconds": 1}),
    "DeleteQueue": (2, lambda *_: {}),
}


class Client:
    """One connection; raw, for speed."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def __call__(self, operation: str, **members: Any) -> tuple[int, dict[str, Any]]:
        headers = {**HEADERS, "X-Amz-Target": f"Kinesis_20131202.{operation}"}
        self._connection.request("POST", "/", json.dumps(members), headers)
        response = self._connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else {}


class Hostile:
    """Calls what it draws.

    Attributes:
        counts: of answers, by operation and code.
        strange: answers that none of these operations may have.
    """

    def __init__(self, url: str, seed: int) -> None:
        self._client = Client(url)
        self._draw = random.Random(seed)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.strange: list[object] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with closing(self._client):
            self._work()

    def _work(self) -> None:
        names = list(OPERATIONS)
        weights = [OPERATIONS[name][0] for name in names]
        for operation in self._draw.choices(names, weights, k=CALLS):
            try:
                self._call(operation)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.strange.append((operation, repr(error)))
                return

    def _call(self, operation: str) -> None:
        name = self._draw.choice(STREAMS)
        arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}"
        members = OPERATIONS[operation][1](self._draw, name, arn)
        if operation in ("ReceiveQueueRecords", "DeleteQueue"):
            queues = self._client("ListQueues")[1]["QueueSummaries"]
            if not queues:
                return
            members["QueueARN"] = self._draw.choice(queues)["QueueARN"]
        status, answer = self._client(operation, **members)
        code = "" if status == 200 else answer["__type"]
        self.counts[operation, code] += 1
        if status != 200 and (status, code in REFUSALS) != (400, True):
            self.strange.append((operation, members, status, answer))
        if operation == "PutRecords" and status == 200:
            failed = [each for each in answer["Records"] if "SequenceNumber" not in each]
            self.strange += failed


@pytest.fixture(params=["0", "30"], ids=["at once", "in a while"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, KFLOW_TRANSITION_MS=request.param) as made:
        yield made


def seen(url: str) -> dict[str, Any] | None:
    """What there is of everything; None while something is on its way."""
    with closing(Client(url)) as client:
        return everything(client)


def everything(client: Client) -> dict[str, Any] | None:
    found: dict[str, Any] = {"queues": []}
    for each in client("ListStreams")[1]["StreamSummaries"]:
        described = client("DescribeStream", StreamName=each["StreamName"])[1].get("StreamDescription")
        if described is None or described["StreamStatus"] != "ACTIVE":  # None: it went away since it was listed
            return None
        consumers = client("ListStreamConsumers", StreamARN=each["StreamARN"])[1]["Consumers"]
        if any(consumer["ConsumerStatus"] != "ACTIVE" for consumer in consumers):
            return None
        found[each["StreamName"]] = (described, consumers)
    for each in client("ListQueues")[1]["QueueSummaries"]:
        if each["QueueStatus"] != "ACTIVE":
            return None
        found["queues"].append(each)
    return found


def test_each_of_many_clients_gets_an_answer_of_aws_and_what_is_left_is_whole(endpoint: Served) -> None:
    everybody = [Hostile(endpoint.url, seed) for seed in range(CLIENTS)]
    for each in everybody:
        each.thread.join(120)
    assert [strange for each in everybody for strange in each.strange] == []
    counts = sum((each.counts for each in everybody), Counter[tuple[str, str]]())
    assert counts["CreateStream", ""] > 1
    assert counts["PutRecords", ""] > 0

    left = eventually(lambda: seen(endpoint.url), what="everything to be ACTIVE")
    assert [event for event in endpoint.events() if event.get("level") == "error"] == []
    endpoint.kill()
    endpoint.start()
    assert eventually(lambda: seen(endpoint.url), what="everything to be ACTIVE again") == left

    with closing(Client(endpoint.url)) as client:
        for name in left.keys() - {"queues"}:
            status, answer = client("PutRecords", StreamName=name, Records=PUTS)
            assert (status, answer.get("FailedRecordCount", 0)) == (200, 0)


def test_a_consumer_of_a_stream_that_was_made_anew_is_subscribed_to_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as endpoint, closing(endpoint.client()) as kinesis:
        arns: list[str] = []
        for generation in range(20):
            kinesis.create_stream(StreamName="orders", ShardCount=1)
            arn = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["StreamARN"]
            consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="fast")["Consumer"]["ConsumerARN"]
            arns.append(consumer)
            kinesis.put_record(StreamName="orders", Data=b"%d" % generation, PartitionKey="k")
            events = kinesis.subscribe_to_shard(
                ConsumerARN=consumer, ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"}
            )["EventStream"]
            records = next(each for each in events if each["SubscribeToShardEvent"]["Records"])
            assert [each["Data"] for each in records["SubscribeToShardEvent"]["Records"]] == [b"%d" % generation]
            events.close()
            kinesis.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)
            if len(set(arns)) < len(arns):
                break  # two of one second have one ARN


@pytest.mark.parametrize("same_machine", [True, False], ids=["same machine", "copied"])
def test_an_older_folder_is_served_whole_and_changed_like_any_other(tmp_path: Path, same_machine: bool) -> None:
    unpack(1, tmp_path / "was", same_machine=same_machine)
    (tmp_path / "was/data").rename(tmp_path / ".kflow")
    known = expected(1)["streams"]
    with served(tmp_path) as endpoint, closing(Client(endpoint.url)) as client:
        for _ in range(2):
            assert client("ListStreams")[1]["StreamNames"] == sorted(known)
            for name in known:
                summary = client("DescribeStreamSummary", StreamName=name)[1]["StreamDescriptionSummary"]
                found = (summary["StreamStatus"], summary["StreamModeDetails"], summary["ConsumerCount"])
                assert found == ("ACTIVE", {"StreamMode": "PROVISIONED"}, 0)
            assert client("AddTagsToStream", StreamName="orders", Tags={"a": "b"}) == (200, {})
        shards = client("ListShards", StreamName="orders")[1]["Shards"]
        open_shard = next(each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"])
        middle = str((int(open_shard["HashKeyRange"]["StartingHashKey"]) + 2**127) // 2)
        given = {"StreamName": "orders", "ShardToSplit": open_shard["ShardId"], "NewStartingHashKey": middle}
        assert client("SplitShard", **given) == (200, {})
        assert len(client("ListShards", StreamName="orders")[1]["Shards"]) == len(shards) + 2
        assert client("DeleteStream", StreamName="orders") == (200, {})
        assert client("ListStreams")[1]["StreamNames"] == sorted(known.keys() - {"orders"})
