"""Handlers written with Powertools for AWS Lambda run here as they are: data classes, and its batch processors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project
from tests.sqsing import BEGIN_MS, World

_HEAD = """
    import os
    os.environ["POWERTOOLS_SERVICE_NAME"] = "shop"
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
    from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent, event_source
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from kflow import on_stream
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def drain(shop: Project, count: int) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    (shop.folder / "numbers.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1, count + 1)))
    shop.run("put", "orders", "--file", "numbers.jsonl", "--key", "k")
    shop.run("run", "--drain", "--timeout", "50")


def test_its_data_classes_read_the_event_and_its_logger_the_context(shop: Project) -> None:
    shop.handler(
        _HEAD
        + """
    logger = Logger()

    @on_stream("orders")
    @event_source(data_class=KinesisStreamEvent)
    def bill(event: KinesisStreamEvent, context: LambdaContext):
        for record in event.records:
            note(n=record.kinesis.data_as_json()["n"], name=record.event_name, key=record.kinesis.partition_key)

    @on_stream("orders")
    @logger.inject_lambda_context
    def ship(event, context: LambdaContext):
        logger.info("shipped")
    """
    )

    drain(shop, 2)

    assert [(note["n"], note["name"], note["key"]) for note in shop.seen()] == [
        (1, "aws:kinesis:record", "k"),
        (2, "aws:kinesis:record", "k"),
    ]
    log = (shop.data_dir / "logs" / "ship.log").read_text()
    assert '"message":"shipped"' in log
    assert '"function_name":"ship"' in log
    assert '"function_memory_size":"128"' in log


def test_its_batch_processor_reports_the_record_that_failed_and_those_before_it_are_done(shop: Project) -> None:
    shop.handler(
        _HEAD
        + """
    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)

    def one(record):
        n = record.kinesis.data_as_json()["n"]
        note(n=n)
        if n == 3:
            raise ValueError("three")

    @on_stream("orders", report_batch_item_failures=True, maximum_retry_attempts=1)
    def bill(event, context: LambdaContext):
        return process_partial_response(event=event, record_handler=one, processor=processor, context=context)
    """
    )

    drain(shop, 4)

    assert [note["n"] for note in shop.seen()] == [1, 2, 3, 4, 3, 4, 3, 4]
    (parked,) = shop.json("parked", "list")
    assert (parked["function"], parked["records"]) == ("bill", 2)


_QUEUES = """
    import json
    from aws_lambda_powertools.utilities.batch import (
        BatchProcessor, EventType, SqsFifoPartialProcessor, batch_processor, process_partial_response
    )
    from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from kflow import on_queue
"""


def work_off(shop: Project, name: str, *bodies: str, group: str | None = None) -> None:
    world = World(shop.data_dir)
    world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
    url = world.create(name, VisibilityTimeout="1")
    for body in bodies:
        world.send(url, body, group)
    world.stop()
    shop.run("run", "--drain", "--timeout", "50")


def test_its_data_classes_read_the_event_of_a_queue(shop: Project) -> None:
    shop.handler(
        _QUEUES
        + """
    @on_queue("jobs", timeout=1)
    @event_source(data_class=SQSEvent)
    def work(event: SQSEvent, context: LambdaContext):
        for record in event.records:
            note(
                n=record.json_body["n"],
                count=record.attributes.approximate_receive_count,
                sent=int(record.attributes.sent_timestamp) > 1_700_000_000_000,
                queue=record.queue_url,
                region=record.aws_region,
            )
    """
    )

    work_off(shop, "jobs", '{"n": 1}')

    (note,) = shop.seen()
    assert {name: note[name] for name in ("n", "count", "sent", "queue", "region")} == {
        "n": 1,
        "count": "1",
        "sent": True,
        "queue": "https://sqs.us-east-1.amazonaws.com/123456789012/jobs",
        "region": "us-east-1",
    }


def test_its_batch_processor_leaves_the_message_that_failed_and_no_other_in_the_queue(shop: Project) -> None:
    shop.handler(
        _QUEUES
        + """
    processor = BatchProcessor(event_type=EventType.SQS)

    def one(record: SQSRecord):
        count = int(record.attributes.approximate_receive_count)
        note(body=record.body, count=count)
        if record.body == "b" and count == 1:
            raise ValueError("b")

    @on_queue("jobs", report_batch_item_failures=True, timeout=1)
    def work(event, context: LambdaContext):
        return process_partial_response(event=event, record_handler=one, processor=processor, context=context)
    """
    )

    work_off(shop, "jobs", "a", "b", "c")

    assert sorted((note["body"], note["count"]) for note in shop.seen()) == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]


def test_its_processor_for_fifo_queues_keeps_their_order(shop: Project) -> None:
    shop.handler(
        _QUEUES
        + """
    processor = SqsFifoPartialProcessor()

    def one(record: SQSRecord):
        count = int(record.attributes.approximate_receive_count)
        attributes = record.attributes
        note(
            body=record.body,
            group=attributes.message_group_id,
            numbered=len(attributes.sequence_number) == 20 and attributes.message_deduplication_id.isdigit(),
        )
        if record.body == "b" and count == 1:
            raise ValueError("b")

    @on_queue("turns.fifo", report_batch_item_failures=True, timeout=1)
    @batch_processor(record_handler=one, processor=processor)
    def work(event, context: LambdaContext):
        return processor.response()
    """
    )

    work_off(shop, "turns.fifo", "a", "b", "c", group="g")

    assert [(note["body"], note["group"]) for note in shop.seen()] == [("a", "g"), ("b", "g"), ("b", "g"), ("c", "g")]
    assert all(note["numbered"] for note in shop.seen())
