"""`@on_queue`: what it leaves behind, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kflow import Batch, Message, Messages, Record, on_queue, on_stream
from kflow.declarations import QueueOptions, QueueTrigger, declared
from kflow.errors import UsageError


def handler(event: Any, context: Any) -> None: ...


def refusal(*arguments: Any, function: Any = handler, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        on_queue(*arguments, **options)(function)
    return str(caught.value).partition(": ")[2]


def test_the_defaults_are_those_of_aws():
    @on_queue("jobs")
    def work(event, context): ...

    (mark,) = declared(work)
    assert isinstance(mark.trigger, QueueTrigger)
    assert (mark.trigger.queue, mark.trigger.enabled) == ("jobs", True)
    assert mark.trigger.options == QueueOptions(
        batch_size=10,
        maximum_batching_window_in_seconds=0,
        report_batch_item_failures=False,
        filters=(),
        maximum_concurrency=None,
    )
    assert mark.trigger.file == __file__


def test_all_options_are_kept():
    @on_queue(
        "jobs",
        batch_size=10_000,
        maximum_batching_window_in_seconds=300,
        report_batch_item_failures=True,
        filters=[{"body": {"a": [1]}}],
        maximum_concurrency=2,
        enabled=False,
        function_name="worker",
        timeout=5,
        memory_size=256,
        environment={"STAGE": "dev"},
    )
    def work(event, context): ...

    (mark,) = declared(work)
    assert mark.trigger.options == QueueOptions(
        batch_size=10_000,
        maximum_batching_window_in_seconds=300,
        report_batch_item_failures=True,
        filters=('{"body":{"a":[1]}}',),
        maximum_concurrency=2,
    )
    assert mark.trigger.enabled is False
    assert (mark.function_options.function_name, mark.function_options.timeout) == ("worker", 5)


def test_one_message_at_a_time_implies_partial_responses():
    @on_queue("jobs")
    def work(message: Message[int]): ...

    assert declared(work)[0].trigger.options.report_batch_item_failures is True

    def one(message: Message): ...

    assert refusal("jobs", function=one, report_batch_item_failures=False).endswith(
        "one takes one message at a time, which always reports those that failed: remove "
        "report_batch_item_failures=False, or take `Messages`"
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((handler,), {}, '@on_queue needs the name of a queue: @on_queue("jobs")'),
        ((5,), {}, "the queue must be a name or an ARN, not 5"),
        (
            ("a b",),
            {},
            (
                "a queue's name is 1 to 80 of the letters a-z and A-Z, digits, - and _, and that of a FIFO queue ends "
                "in .fifo, not 'a b'"
            ),
        ),
        (
            ("arn:aws:sns:us-east-1:123456789012:jobs",),
            {},
            (
                "'arn:aws:sns:us-east-1:123456789012:jobs' is not the ARN of an SQS queue: "
                "arn:aws:sqs:REGION:ACCOUNT:NAME, or the name alone"
            ),
        ),
        (("jobs",), {"batch_size": 0}, "batch_size must be a whole number from 1 to 10000, not 0"),
        (
            ("jobs",),
            {"batch_size": 11},
            "batch_size=11 needs maximum_batching_window_in_seconds of 1 at least: a queue gives 10 messages at once",
        ),
        (
            ("jobs.fifo",),
            {"batch_size": 11},
            "batch_size of a FIFO queue must be a whole number from 1 to 10",
        ),
        (
            ("jobs.fifo",),
            {"maximum_batching_window_in_seconds": 1},
            "a FIFO queue has no batching window: remove maximum_batching_window_in_seconds",
        ),
        (("jobs",), {"maximum_concurrency": 1}, "maximum_concurrency must be a whole number from 2 to 1000, not 1"),
        (("jobs",), {"batch": 1}, "@on_queue has no option batch: did you mean batch_size?"),
        (
            ("jobs",),
            {"filters": [{"body": "a"}]},
            'filters[0]: body: must be an object or an array, not "a": write ["a"]',
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, options, message):
    assert refusal(*arguments, **options) == message


def test_eighty_characters_are_a_name_with_the_suffix():
    on_queue(f"{'x' * 75}.fifo")(handler)
    assert "not 'xxx" in refusal(f"{'x' * 76}.fifo")


def test_forms_of_streams_and_of_queues_are_told_apart():
    def record(each: Record): ...

    def batch(each: Batch): ...

    def message(each: Message): ...

    def messages(each: Messages): ...

    for function in (record, batch):
        assert "takes records of a stream, and @on_queue at " in refusal("jobs", function=function)
    for function in (message, messages):
        with pytest.raises(UsageError, match="takes messages of a queue, and @on_stream at "):
            on_stream("orders")(function)


def test_an_event_handler_may_take_both_and_each_once():
    @on_stream("jobs")
    @on_queue("jobs")
    def work(event, context): ...

    assert [type(mark.trigger).__name__ for mark in declared(work)] == ["QueueTrigger", "StreamTrigger"]
    assert "work consumes jobs already, by the decorator at" in refusal("jobs", function=work)
    assert "work consumes jobs already" in refusal("arn:aws:sqs:eu-west-1:123456789012:jobs", function=work)
