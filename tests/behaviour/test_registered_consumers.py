"""Handlers that read as a registered consumer (enhanced fan-out): who is registered, and what their events say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import eventually
from tests.project import Project, project

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
ARN = re.compile(r"arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/(\w+):\d{10}")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def is_active(client: Any) -> bool:
    summary = client.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    return bool(summary["StreamStatus"] == "ACTIVE")


def handler(shop: Project, decorator: str, name: str = "bill") -> None:
    shop.handler(
        f"""
        from kflow import Batch, on_stream
        @on_stream({decorator})
        def {name}(event, context):
            for record in event["Records"]:
                note(what="{name}", arn=record["eventSourceARN"], region=record["awsRegion"])
        """,
        f"{name}.py",
    )


def arns(shop: Project, name: str = "bill") -> set[str]:
    return {note["arn"] for note in shop.seen(what=name)}


def test_events_come_from_the_consumer_and_it_is_the_same_one_after_a_restart(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "2")
    handler(shop, '"orders", consumer="fast"')
    shop.run("put", "orders", "1", "2", "--key", "a")
    shop.run("run", "--drain", "--timeout", "50")
    (first,) = arns(shop)
    found = ARN.fullmatch(first)
    assert found is not None
    assert found[1] == "fast"

    shop.run("put", "orders", "3", "--key", "a")
    shop.run("run", "--drain", "--timeout", "50")

    assert arns(shop) == {first}
    assert len(shop.seen(what="bill")) == 3  # each record once


def test_a_consumers_arn_stands_for_stream_and_consumer(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    handler(shop, '"arn:aws:kinesis:eu-west-1:999999999999:stream/orders/consumer/fast:1600000000"')
    shop.run("put", "orders", "1", "--key", "a")
    shop.run("run", "--drain", "--timeout", "50")
    (here,) = arns(shop)
    assert ARN.fullmatch(here)


def test_a_plain_handler_beside_it_has_the_streams_arn(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    handler(shop, '"orders", consumer="fast"')
    handler(shop, '"orders"', "audit")
    shop.run("put", "orders", "1", "--key", "a")
    shop.run("run", "--drain", "--timeout", "50")
    (fast,) = arns(shop)
    assert ARN.fullmatch(fast)
    assert arns(shop, "audit") == {"arn:aws:kinesis:us-east-1:123456789012:stream/orders"}


def test_check_and_status_show_it(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    handler(shop, '"orders", consumer="fast"')
    assert "consumer fast" in shop.run("check").stdout
    shop.start()
    (shown,) = shop.json("status")["handlers"]
    assert ARN.fullmatch(shown["consumer_arn"])
    assert "orders/* (fast)" in shop.run("status").stdout


def test_aws_clients_find_the_consumer_of_a_handler(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    handler(shop, '"orders", consumer="fast"')
    shop.start()
    with closing(shop.client("kinesis")) as client:
        (consumer,) = client.list_stream_consumers(StreamARN=STREAM_ARN)["Consumers"]
    assert consumer["ConsumerName"] == "fast"
    assert consumer["ConsumerStatus"] == "ACTIVE"
    assert consumer["ConsumerARN"] == shop.json("status")["handlers"][0]["consumer_arn"]


def test_a_stream_that_is_made_anew_has_the_consumer_of_its_handler_again(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    handler(shop, '"orders", consumer="fast"')
    shop.start()
    with closing(shop.client("kinesis")) as client:
        before = client.list_stream_consumers(StreamARN=STREAM_ARN)["Consumers"]
        client.delete_stream(StreamName="orders", EnforceConsumerDeletion=True)
        eventually(lambda: client.list_streams()["StreamNames"] == [], what="the stream to go")
        client.create_stream(StreamName="orders", ShardCount=1)
        eventually(lambda: is_active(client), what="the stream")
        after = client.list_stream_consumers(StreamARN=STREAM_ARN)["Consumers"]
        client.put_record(StreamName="orders", Data=b"1", PartitionKey="k")
    assert [each["ConsumerARN"] for each in after] == [each["ConsumerARN"] for each in before]
    shop.wait_for(lambda: arns(shop) == {after[0]["ConsumerARN"]}, "the record")


def test_the_batch_form_reads_it_as_the_stream(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", consumer="fast")
        def bill(batch: Batch):
            note(what="batch", stream=batch.stream, n=len(batch))
    """)
    shop.run("put", "orders", "1", "--key", "a")
    shop.run("run", "--drain", "--timeout", "50")
    assert [(note["stream"], note["n"]) for note in shop.seen(what="batch")] == [("orders", 1)]
