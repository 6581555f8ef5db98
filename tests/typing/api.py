"""The public interface as a user would write it: type-checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

import kflow
from kflow import Batch, Message, Messages, Placed, Producer, Record, lambda_handler, on_queue, on_stream
from kflow.errors import FailedEntry, KflowError, PutFailed
from kflow.interfaces import BatchOutcome, RuntimeInfo
from kflow.plugins import hookimpl


@dataclass
class Order:
    id: int
    qty: int


class Click(TypedDict):
    url: str


@on_stream("orders")
def event_form(event: dict[str, Any], context: object) -> dict[str, Any] | None:
    return {
        "batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]} for record in event["Records"]]
    }


@on_stream(
    "orders",
    batch_size=10,
    maximum_batching_window_in_seconds=5,
    starting_position=datetime(2026, 1, 1, tzinfo=UTC),
    maximum_retry_attempts=2,
    maximum_record_age_in_seconds=3600,
    bisect_batch_on_function_error=True,
    function_name="bill-orders",
    timeout=30,
    memory_size=256,
    environment={"CURRENCY": "EUR"},
    parallelization_factor=10,
    filters=[{"data": {"qty": [{"numeric": [">", 0]}]}}, '{"data": {"id": [1]}}'],
    on_failure="drop",
)
def record_form(order: Record[Order]) -> None:
    assert_type(order.value, Order)
    assert_type(order.data, bytes)
    assert_type(order.sequence_number, int)
    assert_type(order.partition_key, str)
    assert_type(order.shard_id, str)
    assert_type(order.arrival_ms, int)


@on_stream("clicks", tumbling_window_in_seconds=60)
def window_form(batch: Batch[Click]) -> None:
    assert_type(batch.state, dict[str, Any])
    batch.state["clicks"] = batch.state.get("clicks", 0) + len(batch)
    if batch.window is not None and batch.window.is_final:
        assert_type(batch.window.start_s, int)
        assert_type(batch.window.end_s, int)
        assert_type(batch.window.is_terminated_early, bool)


@on_stream("clicks", starting_position="LATEST", report_batch_item_failures=True)
def batch_form(batch: Batch[Click]) -> None:
    for record in batch:
        assert_type(record, Record[Click])
        if not record.value["url"]:
            batch.failed(record)
    assert_type(len(batch), int)
    assert_type(batch.stream, str)


@on_queue(
    "jobs",
    batch_size=100,
    maximum_batching_window_in_seconds=5,
    report_batch_item_failures=True,
    filters=[{"body": {"qty": [{"numeric": [">", 0]}]}}],
    maximum_concurrency=2,
    enabled=True,
    function_name="work",
    timeout=30,
    memory_size=256,
    environment={"CURRENCY": "EUR"},
)
def messages_form(batch: Messages[Order]) -> None:
    for message in batch:
        assert_type(message, Message[Order])
        if message.value.qty < 0:
            batch.failed(message)
    assert_type(len(batch), int)
    assert_type(batch.queue, str)


@on_queue("jobs.fifo")
async def message_form(message: Message[Order], context: Any = None) -> None:
    assert_type(message.value, Order)
    assert_type(message.body, str)
    assert_type(message.message_id, str)
    assert_type(message.attributes, dict[str, str])
    assert_type(message.group, str)
    assert_type(message.receive_count, int)
    assert_type(message.sent_ms, int)


@on_stream("orders")
@on_stream("returns")
async def async_form(order: Record[Order], context: Any = None) -> None:
    """Triggers may be stacked, and every form may be a coroutine function."""


def a_decorated_function_keeps_its_type(order: Record[Order]) -> None:
    assert_type(record_form(order), None)


def produce() -> None:
    placed = kflow.put("orders", Order(1, 2), partition_key="1")
    assert_type(placed, Placed)
    assert_type(placed.sequence_number, int)
    kflow.put("orders", b"bytes", partition_key="1", explicit_hash_key=0)
    try:
        many = kflow.put_many("orders", [({"id": 1, "qty": 2}, "1"), ("text", "2")], ordered=True)
    except PutFailed as error:
        assert_type(error.failed, tuple[FailedEntry, ...])
    except KflowError:
        raise
    else:
        assert_type(many, list[Placed])
    with Producer("orders", linger_ms=5) as producer:
        producer.put(b"x", "key")
        producer.flush()
    with Producer("orders", aggregate=True) as aggregating:
        aggregating.put(b"x", "key")


def take_apart(event: dict[str, object], batch: Batch[Order]) -> None:
    kflow.deaggregate(event)
    kflow.deaggregate(batch, hash_range=(0, 2**128 - 1))


def read() -> None:
    kinesis = kflow.client("kinesis")
    kinesis.put_record(StreamName="orders", Data=b"x", PartitionKey="key")
    print(kflow.target())


def on_aws(event: dict[str, Any], context: object) -> object:
    return lambda_handler(record_form)(event, context)


@hookimpl
def runtime_started(info: RuntimeInfo) -> None:
    assert_type(info.data_dir, str)
    assert_type(info.functions, tuple[str, ...])


@hookimpl
def batch_done(outcome: BatchOutcome) -> None:
    assert_type(outcome.records, int)


def names(batches: Sequence[Batch[Any]]) -> list[str]:
    return [batch.stream for batch in batches]
