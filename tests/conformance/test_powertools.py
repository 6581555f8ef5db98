"""Handlers written with Powertools for AWS Lambda run here as they are: data classes, and its batch processors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project

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
