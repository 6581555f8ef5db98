"""Faults on request and strict authentication, as boto3 meets them at `kflow serve`; and aggregated records."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import kflow
from kflow.producing import runtime
from tests.deadline import eventually
from tests.project import Project, project
from tests.served import Served, served

KEY, SECRET = "AKIDEXAMPLE", "a secret of one's own"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def refusal(call: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def status_of(call: Any) -> int:
    try:
        answer: Any = call()
    except ClientError as error:
        answer = error.response
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def test_a_rule_throttles_entries_of_put_records_and_leaves_other_calls_alone(tmp_path: Path) -> None:
    rule = "kinesis.PutRecords: 50% ProvisionedThroughputExceeded"
    with served(tmp_path, "--fault", rule) as endpoint:
        kinesis = endpoint.client()
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        records = [{"Data": b"%d" % number, "PartitionKey": "k"} for number in range(100)]
        answer = kinesis.put_records(StreamName="orders", Records=records)
        for _ in range(20):
            kinesis.put_record(StreamName="orders", Data=b"x", PartitionKey="k")

        failed = [row for row in answer["Records"] if "ErrorCode" in row]
        assert 20 < len(failed) < 80
        assert answer["FailedRecordCount"] == len(failed)
        assert {row["ErrorCode"] for row in failed} == {"ProvisionedThroughputExceededException"}
        iterator = kinesis.get_shard_iterator(
            StreamName="orders", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )
        stored = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        assert len(stored) == 120 - len(failed)


def test_the_same_seed_meets_the_same_calls(tmp_path: Path) -> None:
    def met(name: str) -> list[int]:
        folder = tmp_path / name
        folder.mkdir()
        with served(folder, "--fault", "kinesis.ListStreams: 30% InternalFailure", KFLOW_FAULT_SEED="7") as endpoint:
            kinesis = endpoint.client()
            return [status_of(kinesis.list_streams) for _ in range(20)]

    first = met("one")
    assert first == met("two")
    assert set(first) == {200, 500}


def test_sdks_try_again_what_a_fault_refused(tmp_path: Path) -> None:
    with served(tmp_path, "--fault", "kinesis.PutRecord: 50% throttle") as endpoint:
        kinesis = endpoint.client(retries=10)
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        for number in range(10):
            kinesis.put_record(StreamName="orders", Data=b"%d" % number, PartitionKey="k")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("kinesis.PutRecordz: throttle", "did you mean PutRecord?"),
        ("kinesis.PutRecords: 5x", "at character 21 there should be a rate such as 5%"),
    ],
)
def test_a_rule_that_cannot_be_meant_ends_the_start(shop: Project, rule: str, text: str) -> None:
    done = shop.run("serve", "--fault", rule, check=2)

    assert text in done.stdout + done.stderr


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "kflow.toml").write_text(f'auth = "strict"\n[access_keys]\n{KEY} = "{SECRET}"\n')
    with served(tmp_path) as made:
        yield made


def test_only_those_with_a_key_are_let_in(strict: Served) -> None:
    ours = strict.client(access_key=KEY, secret=SECRET)
    ours.create_stream(StreamName="orders", ShardCount=1)
    ours.put_record(StreamName="orders", Data=b"\0\xff" * 1000, PartitionKey="k")

    assert ours.list_streams()["StreamNames"] == ["orders"]
    assert refusal(strict.client(access_key=KEY, secret="x").list_streams) == ("InvalidSignatureException", 400)
    assert refusal(strict.client(access_key="other", secret=SECRET).list_streams) == (
        "UnrecognizedClientException",
        400,
    )
    headers = {"X-Amz-Target": "Kinesis_20131202.ListStreams", "Content-Type": "application/x-amz-json-1.1"}
    status, body = post(strict, headers, b"{}")
    assert (status, json.loads(body)["__type"]) == (400, "MissingAuthenticationTokenException")


def test_a_key_opens_every_region_it_signs_for(strict: Served) -> None:
    there = strict.client(access_key=KEY, secret=SECRET, region="eu-west-1")
    there.create_stream(StreamName="orders", ShardCount=1)

    assert strict.client(access_key=KEY, secret=SECRET).list_streams()["StreamNames"] == []
    assert there.list_streams()["StreamNames"] == ["orders"]


def post(endpoint: Served, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(endpoint.url, data=body, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """With this process's SDK set up for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with served(tmp_path) as made:
        yield made


def user_records(kinesis: Any, stream: str) -> tuple[int, list[dict[str, Any]]]:
    """How many records a stream has, and the user records in them that are in their own shard."""
    raw, found = 0, []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        rows = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        raw += len(rows)
        found += kflow.deaggregate(rows, hash_range=shard["HashKeyRange"])
    return raw, found


def test_a_producer_aggregates_through_the_endpoint_and_deaggregate_finds_each_record(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=2)
    with kflow.Producer("orders", aggregate=True, target=endpoint.url) as producer:
        for number in range(1000):
            producer.put(str(number), f"k{number % 10}")

    raw, found = user_records(kinesis, "orders")
    assert raw < 100
    assert sorted(int(row["Data"]) for row in found) == list(range(1000))
    for key in range(10):
        of_key = [int(row["Data"]) for row in found if row["PartitionKey"] == f"k{key}"]
        assert of_key == list(range(key, 1000, 10))


def test_after_a_split_user_records_are_found_in_the_shard_they_belong_to(endpoint: Served) -> None:
    kinesis = endpoint.client()
    kinesis.create_stream(StreamName="orders", ShardCount=1)
    with kflow.Producer("orders", aggregate=True, linger_ms=60_000, target=endpoint.url) as producer:
        for number in range(100):
            producer.put(str(number), f"k{number % 10}")
        producer.flush()
        kinesis.split_shard(StreamName="orders", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127))
        open_shards = {"ShardFilter": {"Type": "AT_LATEST"}}
        eventually(lambda: len(kinesis.list_shards(StreamName="orders", **open_shards)["Shards"]) == 2)
        for number in range(100, 200):
            producer.put(str(number), f"k{number % 10}")
        producer.flush()

    _, found = user_records(kinesis, "orders")
    assert {int(row["Data"]) for row in found} == set(range(200))


def test_a_handler_takes_aggregated_records_apart(shop: Project) -> None:
    shop.handler("""
        import base64
        import kflow
        @kflow.on_stream("orders")
        def bill(event, context):
            for record in kflow.deaggregate(event):
                kinesis = record["kinesis"]
                note(data=base64.b64decode(kinesis["data"]).decode(), key=kinesis["partitionKey"],
                     sub=kinesis.get("subSequenceNumber"))
    """)
    shop.run("streams", "create", "orders")
    with runtime(shop.data_dir), kflow.Producer("orders", aggregate=True, linger_ms=60_000) as producer:
        producer.put("one", "a")
        producer.put("two", "b")
    shop.run("run", "--drain", "--timeout", "50")

    assert [(note["data"], note["key"], note["sub"]) for note in shop.seen()] == [("one", "a", 0), ("two", "b", 1)]
