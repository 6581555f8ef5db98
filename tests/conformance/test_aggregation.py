"""Aggregated records between kflow and AWS's own library, `aws_kinesis_agg`, both ways through the endpoint."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import iter_deaggregate_records

import kflow
from tests.project import Project, project
from tests.served import Served, served

USERS = [(f"key-{number % 7}", b"%d " % number + bytes(range(number % 50))) for number in range(1_000)]


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """With this process's SDK set up for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put_aggregated(client: Any, stream: str) -> int:
    """Put `USERS` as AWS's library packs them, as many as fit into 4,000 bytes; returns how many records that made."""
    aggregator = RecordAggregator(4_000)
    full = [aggregator.add_user_record(key, data) for key, data in USERS]
    packed = [record for record in (*full, aggregator.clear_and_get()) if record is not None]
    rows = []
    for record in packed:
        key, hash_key, data = record.get_contents()
        assert hash_key is None
        rows.append({"PartitionKey": key, "Data": data})
    answer = client.put_records(StreamName=stream, Records=rows)
    assert answer["FailedRecordCount"] == 0
    return len(rows)


def records(client: Any, stream: str) -> list[dict[str, Any]]:
    """All records of a stream, shard by shard."""
    found: list[dict[str, Any]] = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        token = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found += client.get_records(ShardIterator=token)["Records"]
    return found


def test_what_awss_library_packed_is_taken_apart_record_by_record(endpoint: Served) -> None:
    client = endpoint.client()
    client.create_stream(StreamName="orders", ShardCount=1)
    count = put_aggregated(client, "orders")
    client.put_record(StreamName="orders", PartitionKey="plain", Data=b"not aggregated")

    raw = records(client, "orders")
    found = kflow.deaggregate(raw)
    assert 5 < count == len(raw) - 1 < 100
    assert [(row["PartitionKey"], row["Data"]) for row in found] == [*USERS, ("plain", b"not aggregated")]
    theirs = list(iter_deaggregate_records(raw, data_format="Boto3"))
    assert [row.get("SubSequenceNumber") for row in found[:-1]] == [
        row["kinesis"]["subSequenceNumber"] for row in theirs[:-1]
    ]
    assert [row["SequenceNumber"] for row in found] == [row["kinesis"]["sequenceNumber"] for row in theirs]
    client.close()


def test_what_a_producer_packed_is_taken_apart_by_awss_library(endpoint: Served) -> None:
    client = endpoint.client()
    client.create_stream(StreamName="orders", ShardCount=3)
    with kflow.Producer("orders", aggregate=True, linger_ms=60_000, target=endpoint.url) as producer:
        for key, data in USERS:
            producer.put(data, key)

    raw = records(client, "orders")
    theirs = [row["kinesis"] for row in iter_deaggregate_records(raw, data_format="Boto3")]
    assert len(raw) < 100
    for key in {key for key, _ in USERS}:
        assert [base64.b64decode(row["data"]) for row in theirs if row["partitionKey"] == key] == [
            data for each, data in USERS if each == key
        ]
    assert len(theirs) == len(USERS)
    client.close()


def test_a_handler_uses_either_library(shop: Project) -> None:
    shop.handler("""
        import base64
        import kflow
        from aws_kinesis_agg.deaggregator import deaggregate_records

        @kflow.on_stream("orders", batch_size=1000)
        def ours(event, context):
            note(by="ours", rows=[row(record) for record in kflow.deaggregate(event)])

        @kflow.on_stream("orders", batch_size=1000)
        def theirs(event, context):
            note(by="theirs", rows=[row(record) for record in deaggregate_records(event["Records"])])

        def row(record):
            kinesis = record["kinesis"]
            data = base64.b64decode(kinesis["data"]).decode("latin-1")
            return [kinesis["partitionKey"], data, kinesis["sequenceNumber"], kinesis["subSequenceNumber"]]
    """)
    shop.run("streams", "create", "orders")
    process = shop.start()
    url = shop.url
    client = client_of(url)
    put_aggregated(client, "orders")
    client.close()

    def all_seen() -> Any:
        rows = {by: [row for note in shop.seen(by=by) for row in note["rows"]] for by in ("ours", "theirs")}
        return rows if min(map(len, rows.values())) >= len(USERS) else None

    rows = shop.wait_for(all_seen, "both handlers to see all records")
    assert shop.stop(process) == 130
    assert [(key, data.encode("latin-1")) for key, data, _, _ in rows["ours"]] == USERS
    assert rows["ours"] == rows["theirs"]


def client_of(url: str) -> Any:
    """A boto3 client that reads no configuration of this machine."""
    import boto3

    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    return session.client("kinesis", endpoint_url=url)
