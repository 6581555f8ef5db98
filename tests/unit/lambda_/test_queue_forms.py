"""How handlers of queues are called, and what their failures come to."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from kflow import Message, Messages, lambda_handler, on_queue
from kflow.errors import DecodeFailed, UsageError
from kflow.events.sqs import event_record

QUEUE = "arn:aws:sqs:us-east-1:123456789012:jobs"


@dataclass
class Job:
    id: int


def event(*bodies: str, arn: str = QUEUE) -> dict[str, Any]:
    """`a1` is in the group `a`; its id is `m-a1`."""
    return {
        "Records": [
            event_record(
                message_id=f"m-{body}",
                receipt_handle="r",
                body=body,
                attributes={"ApproximateReceiveCount": "1", "MessageGroupId": body[0]},
                message_attributes={},
                md5_of_message_attributes="",
                md5_of_body="",
                arn=arn,
                region="us-east-1",
            )
            for body in bodies
        ]
    }


def failed(*ids: str) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": each} for each in ids]}


def recording(bad: str = "", seen: list[str] | None = None) -> Any:
    told = [] if seen is None else seen

    @on_queue("jobs")
    def handle(message: Message) -> None:
        told.append(message.body)
        if message.body in bad.split():
            raise ValueError(message.body)

    return lambda_handler(handle)


def test_messages_come_one_at_a_time_and_success_says_nothing():
    seen: list[str] = []
    assert recording(seen=seen)(event("a1", "a2", "b1"), None) is None
    assert seen == ["a1", "a2", "b1"]


def test_a_standard_queue_goes_on_behind_a_failure(caplog):
    seen: list[str] = []
    with caplog.at_level(logging.ERROR):
        assert recording("a1 b1", seen)(event("a1", "a2", "b1"), None) == failed("m-a1", "m-b1")
    assert seen == ["a1", "a2", "b1"]
    assert [record.getMessage() for record in caplog.records] == ["message m-a1 failed", "message m-b1 failed"]
    assert caplog.records[0].exc_info[1].args == ("a1",)


def test_a_fifo_queue_leaves_the_rest_of_the_group(caplog):
    seen: list[str] = []
    names = ("a1", "b1", "a2", "b2", "a3", "c1")
    assert recording("a2", seen)(event(*names, arn=f"{QUEUE}.fifo"), None) == failed("m-a2", "m-a3")
    assert seen == ["a1", "b1", "a2", "b2", "c1"]


def test_where_nothing_succeeded_the_first_failure_is_raised():
    with pytest.raises(ValueError, match="a1"):
        recording("a1 b1")(event("a1", "b1"), None)
    with pytest.raises(ValueError, match="a1"):
        recording("a1")(event("a1", "a2", arn=f"{QUEUE}.fifo"), None)


def test_async_handlers_run_one_message_after_the_other(caplog):
    import asyncio

    seen: list[str] = []

    @on_queue("jobs")
    async def handle(message: Message, context: Any) -> None:
        await asyncio.sleep(0)
        seen.append(f"{message.body} {context}")
        if message.body == "a1":
            raise ValueError

    assert lambda_handler(handle)(event("a1", "a2"), "c") == failed("m-a1")
    assert seen == ["a1 c", "a2 c"]


def test_values_are_decoded_and_what_does_not_decode_is_that_messages_failure(caplog):
    seen: list[Any] = []

    @on_queue("jobs")
    def handle(message: Message[Job]) -> None:
        seen.append(message.value)

    assert lambda_handler(handle)(event('{"id": 1}', "x", '{"id": 2}'), None) == failed("m-x")
    assert seen == [Job(1), Job(2)]
    with pytest.raises(DecodeFailed, match="message m-x: its body does not decode to Job"):
        lambda_handler(handle)(event("x"), None)


def test_text_and_bytes_are_the_body_itself():
    seen: list[Any] = []

    @on_queue("jobs")
    def text(message: Message[str]) -> None:
        seen.append(message.value)

    @on_queue("jobs")
    def raw(message: Message[bytes]) -> None:
        seen.append(message.value)

    lambda_handler(text)(event("ä"), None)
    lambda_handler(raw)(event("ä"), None)
    assert seen == ["ä", b"\xc3\xa4"]


def test_a_message_without_a_type_has_no_value():
    (message,) = (Message(body="a", message_id="m"),)
    with pytest.raises(UsageError, match=r"for example `job: Message\[Job\]`"):
        message.value  # noqa: B018
    assert Message(body="[1]", message_id="m").json() == [1]


# ---------------------------------------------------------------------- all at once


def batch(*bad: str, reports: bool = True, response: Any = None, seen: list[Any] | None = None) -> Any:
    @on_queue("jobs", report_batch_item_failures=reports)
    def handle(messages: Messages[int]) -> Any:
        if seen is not None:
            seen.append((messages.queue, len(messages), [each.value for each in messages]))
        for each in messages:
            if each.body in bad:
                messages.failed(each)
        return response

    return lambda_handler(handle)


def test_a_batch_is_iterated_and_says_which_failed():
    seen: list[Any] = []
    assert batch(seen=seen)(event("1", "2"), None) is None
    assert seen == [("jobs", 2, [1, 2])]
    assert batch("2", "1")(event("1", "2", "3"), None) == failed("m-1", "m-2")
    assert batch("1", response=failed("m-3"))(event("1", "2", "3"), None) == failed("m-3", "m-1")


def test_failures_need_the_option():
    with pytest.raises(UsageError, match="needs report_batch_item_failures=True"):
        batch("1", reports=False)(event("1", "2"), None)
    with pytest.raises(DecodeFailed):
        batch(reports=False)(event("1", "x"), None)


def test_what_does_not_decode_is_left_out_and_reported(caplog):
    seen: list[Any] = []
    assert batch(seen=seen)(event("1", "x", "3"), None) == failed("m-x")
    assert seen == [("jobs", 2, [1, 3])]
    with pytest.raises(DecodeFailed):
        batch()(event("x", "y"), None)


def test_of_a_fifo_queue_what_stands_behind_it_in_its_group_is_left_too(caplog):
    seen: list[Any] = []

    @on_queue("jobs.fifo", report_batch_item_failures=True)
    def handle(messages: Messages[int]) -> None:
        seen.extend(each.value for each in messages)

    found = event("1", "x", "2", arn=f"{QUEUE}.fifo")
    for record, group in zip(found["Records"], ("a", "b", "b"), strict=True):
        record["attributes"]["MessageGroupId"] = group
    assert lambda_handler(handle)(found, None) == failed("m-x", "m-2")
    assert seen == [1]


def test_the_event_form_is_the_function_itself():
    @on_queue("jobs")
    def handle(event: Any, context: Any) -> Any:
        return event

    assert lambda_handler(handle) is handle
