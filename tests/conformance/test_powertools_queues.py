"""Handlers of queues written with Powertools for AWS Lambda run here as they are: data classes, batch processors."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.project import Project, project
from tests.sqsing import BEGIN_MS, World

APP = """
    from aws_lambda_powertools.utilities.batch import (
        BatchProcessor, EventType, SqsFifoPartialProcessor, process_partial_response
    )
    from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source
    from kflow import on_queue

    @on_queue("events")
    @event_source(data_class=SQSEvent)
    def events(event: SQSEvent, context):
        for record in event.records:
            note(queue=record.queue_url.rpartition("/")[2], body=record.body, id=record.message_id,
                 count=record.attributes.approximate_receive_count, kind=record.message_attributes["kind"].string_value)

    standard = BatchProcessor(event_type=EventType.SQS)

    def one(record):
        count = int(record.attributes.approximate_receive_count)
        note(queue="jobs", body=record.body, count=count)
        if record.body == "b" and count == 1:
            raise ValueError("b")

    @on_queue("jobs", report_batch_item_failures=True)
    def jobs(event, context):
        return process_partial_response(event=event, record_handler=one, processor=standard, context=context)

    fifo = SqsFifoPartialProcessor(skip_group_on_error=True)

    def turn(record):
        count = int(record.attributes.approximate_receive_count)
        note(queue="turns", body=record.body, group=record.attributes.message_group_id,
             number=record.attributes.sequence_number, once=record.attributes.message_deduplication_id)
        if record.body == "a1" and count == 1:
            raise ValueError("a1")

    @on_queue("turns.fifo", report_batch_item_failures=True)
    def turns(event, context):
        return process_partial_response(event=event, record_handler=turn, processor=fifo, context=context)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """After one drain of all."""
    for made in project(tmp_path_factory.mktemp("powertools")):
        made.handler(APP)
        world = World(made.data_dir)
        world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
        kind = {"kind": {"DataType": "String", "StringValue": "mail"}}
        world.send(world.create("events"), "hello", MessageAttributes=kind)
        jobs = world.create("jobs", VisibilityTimeout="5")
        turns = world.create("turns.fifo", VisibilityTimeout="5")
        for body in "abc":
            world.send(jobs, body)
        for body in ("a0", "a1", "b0", "a2", "b1"):
            world.send(turns, body, body[0])
        world.stop()
        made.run("run", "--drain", "--timeout", "50")
        yield made


def test_its_data_classes_read_the_event(shop: Project) -> None:
    (note,) = shop.seen(queue="events")
    assert (note["body"], note["count"], note["kind"]) == ("hello", "1", "mail")


def test_its_batch_processor_reports_what_failed_and_that_alone_comes_again(shop: Project) -> None:
    seen = [(note["body"], note["count"]) for note in shop.seen(queue="jobs")]
    assert sorted(seen) == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]


def test_its_fifo_processor_keeps_a_group_in_order(shop: Project) -> None:
    seen = [note["body"] for note in shop.seen(queue="turns")]
    assert [body for body in seen if body[0] == "a"] == ["a0", "a1", "a1", "a2"]
    assert [body for body in seen if body[0] == "b"] == ["b0", "b1"]


def test_messages_of_a_fifo_queue_have_its_attributes(shop: Project) -> None:
    notes = shop.seen(queue="turns")
    assert {note["group"] for note in notes} == {"a", "b"}
    assert all(len(note["number"]) == 20 and note["once"].isdigit() for note in notes)
