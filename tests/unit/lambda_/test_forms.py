"""How each form is called, and what becomes of its failures."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from dataclasses import dataclass
from typing import TypedDict

import msgspec
import pytest

from kflow import Batch, Record, errors, lambda_handler, loading, on_stream
from kflow.declarations import Handler, HandlerForm, declared
from kflow.errors import DecodeFailed, HandlerError, UsageError
from kflow.events.kinesis import event_records
from kflow.interfaces import Invocation
from kflow.lambda_ import forms
from kflow.loading.signature import read_signature
from kflow.records import Window

SHARD = "shardId-000000000000"


@dataclass
class Order:
    id: int
    qty: int = 1


def records(*datas: bytes) -> list[Record]:
    return [Record(data, f"key{number}", number, SHARD, 1000) for number, data in enumerate(datas, start=100)]


def invocation(*datas: bytes) -> Invocation:
    return Invocation(request_id=bytes(16), records=records(*datas), stream="orders", shard_id=SHARD)


def call(function, *datas: bytes, context=None):
    """The response of a decorated function to an invocation with these payloads."""
    marks = declared(function)
    handler = Handler(
        name=function.__name__,
        file=__file__,
        line=1,
        root="",
        module="test_forms",
        qualname=function.__name__,
        form=read_signature(function).form,
        triggers=tuple(mark.trigger for mark in marks),
    )
    return forms.adapt(function, handler)(invocation(*datas), context)


# ---------------------------------------------------------------------- the event form


def test_the_event_form_gets_the_event_and_the_context_by_position():
    @on_stream("orders")
    def bill(e, c):
        return {"keys": list(e), "records": [record.data for record in e["Records"]], "context": c}

    assert call(bill, b"a", b"b", context="ctx") == {"keys": ["Records"], "records": [b"a", b"b"], "context": "ctx"}


def test_a_coroutine_function_is_awaited():
    @on_stream("orders")
    async def bill(event, context):
        await asyncio.sleep(0)
        return len(event["Records"])

    assert call(bill, b"a", b"b") == 2


# ---------------------------------------------------------------------- the record form


def test_the_record_form_gets_one_record_at_a_time_in_order():
    seen = []

    @on_stream("orders")
    def bill(record: Record):
        seen.append((record.data, record.sequence_number))
        return "ignored"

    assert call(bill, b"a", b"b") is None
    assert seen == [(b"a", 100), (b"b", 101)]


def test_the_record_form_gets_the_context_where_it_asks():
    seen = []

    @on_stream("orders")
    def positional(record: Record, context):
        seen.append(context)

    @on_stream("orders")
    def keyword(record: Record, *, table="t", context):
        seen.append(context)

    call(positional, b"a", context=1)
    call(keyword, b"a", context=2)
    assert seen == [1, 2]


def test_a_failure_behind_others_is_returned_as_the_batch_item_failure_and_logged(caplog):
    @on_stream("orders")
    def bill(record: Record):
        if record.data == b"bad":
            raise ValueError("no such order")

    with caplog.at_level(logging.ERROR):
        response = call(bill, b"a", b"bad", b"c")
    assert response == {"batchItemFailures": [{"itemIdentifier": "101"}]}
    (entry,) = caplog.records
    assert (entry.name, entry.getMessage()) == ("kflow.function.bill", "record 101 failed")
    assert entry.exc_info is not None
    assert entry.exc_info[2].tb_frame.f_code.co_name == "bill"
    assert str(entry.exc_info[1]) == "no such order"


def test_a_failure_of_the_first_record_is_raised(caplog):
    @on_stream("orders")
    def bill(record: Record):
        raise ValueError(record.data)

    with pytest.raises(ValueError, match="bad"):
        call(bill, b"bad", b"b")
    assert caplog.records == []


def test_the_async_record_form_fails_in_the_same_way():
    @on_stream("orders")
    async def bill(record: Record):
        await asyncio.sleep(0)
        if record.data == b"bad":
            raise ValueError

    assert call(bill, b"a", b"bad") == {"batchItemFailures": [{"itemIdentifier": "101"}]}
    with pytest.raises(ValueError):  # noqa: PT011  (it has no text)
        call(bill, b"bad", b"b")


def test_an_exit_of_the_handler_is_no_failure_of_a_record():
    @on_stream("orders")
    def bill(record: Record):
        if record.data == b"bad":
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        call(bill, b"a", b"bad")


def test_a_task_cancelled_from_inside_is_a_failure_of_the_handler():
    @on_stream("orders")
    async def bill(record: Record):
        raise asyncio.CancelledError

    with pytest.raises(HandlerError, match="the handler's task was cancelled"):
        call(bill, b"a")


def test_the_event_loop_stays_open_between_invocations():
    loops = []

    @on_stream("orders")
    async def bill(event, context):
        loops.append(asyncio.get_running_loop())

    adapted = lambda_handler(bill)
    adapted({}, None)
    adapted({}, None)
    assert loops[0] is loops[1]


def test_a_coroutine_that_a_plain_wrapper_hands_on_is_awaited_too():
    seen = []

    def traced(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    def running(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return asyncio.run(function(*args, **kwargs))

        return wrapper

    @on_stream("orders")
    @traced
    async def handed_on(record: Record):
        seen.append(record.data)

    @on_stream("orders")
    @running
    async def run_by_itself(record: Record):
        seen.append(record.data)

    @on_stream("orders")
    @traced
    async def event_form(event, context):
        return len(event["Records"])

    call(handed_on, b"a", b"b")
    call(run_by_itself, b"c")
    assert seen == [b"a", b"b", b"c"]
    assert call(event_form, b"a") == 1
    assert lambda_handler(event_form)({"Records": [1, 2]}, None) == 2


# ---------------------------------------------------------------------- typed records


def test_values_are_decoded_to_the_type_of_the_annotation():
    class Click(TypedDict):
        url: str

    class Point(msgspec.Struct):
        x: int

    seen = []

    @on_stream("orders")
    def order(record: Record[Order]):
        seen.append(record.value)

    @on_stream("orders")
    def click(record: Record[Click]):
        seen.append(record.value)

    @on_stream("orders")
    def points(record: Record[list[Point]]):
        seen.append(record.value)

    @on_stream("orders")
    def text(record: Record[str]):
        seen.append(record.value)

    @on_stream("orders")
    def raw(record: Record[bytes]):
        seen.append(record.value)

    call(order, b'{"id": 1, "more": true}')
    call(click, b'{"url": "/"}')
    call(points, b'[{"x": 1}]')
    call(text, "grün".encode())
    call(raw, b"\xff")
    assert seen == [Order(1), {"url": "/"}, [Point(1)], "grün", b"\xff"]


def test_decoding_is_strict():
    @on_stream("orders")
    def bill(record: Record[Order]): ...

    assert call(bill, b'{"id": 1}', b'{"id": "2"}') == {"batchItemFailures": [{"itemIdentifier": "101"}]}


def test_what_does_not_decode_is_that_records_failure(caplog):
    seen = []

    @on_stream("orders")
    def bill(record: Record[Order]):
        seen.append(record.value.id)

    assert call(bill, b'{"id": 1}', b'{"qty": 2}', b'{"id": 3}') == {"batchItemFailures": [{"itemIdentifier": "101"}]}
    assert seen == [1]
    assert str(caplog.records[0].exc_info[1]) == (
        "record 101: data does not decode to Order: Object missing required field `id`"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"qty": 2}', "record 100: data does not decode to Order: Object missing required field `id`"),
        (b'{"id": "x"}', "record 100: data does not decode to Order: Expected `int`, got `str` - at `$.id`"),
        (b"id=1", "record 100: data does not decode to Order: JSON is malformed: invalid character (byte 0)"),
        (b"", "record 100: data does not decode to Order: Input data was truncated"),
    ],
)
def test_a_first_record_that_does_not_decode_is_raised_with_its_number(data, message):
    @on_stream("orders")
    def bill(record: Record[Order]): ...

    @on_stream("orders")
    async def later(record: Record[Order]): ...

    for handler in (bill, later):
        with pytest.raises(DecodeFailed) as caught:
            call(handler, data)
        assert str(caught.value) == message


def test_a_record_decodes_afresh_for_every_attempt():
    seen = []

    @on_stream("orders")
    def bill(record: Record[Order]):
        seen.append(record.value.qty)
        record.value.qty = 99

    adapted = lambda_handler(bill)
    once = event(b'{"id": 1}')
    adapted(once, None)
    adapted(once, None)
    assert seen == [1, 1]


def test_a_value_without_a_type_says_how_to_get_one():
    @on_stream("orders")
    def bill(record: Record):
        return record.value

    with pytest.raises(UsageError, match=r"annotate the handler's parameter with the type to decode to"):
        call(bill, b"{}")


# ---------------------------------------------------------------------- the batch form


def test_the_batch_form_gets_the_batch_and_its_place():
    @on_stream("orders")
    def bill(batch: Batch, context):
        return [batch.stream, batch.shard_id, len(batch), [record.data for record in batch], context]

    assert call(bill, b"a", b"b", context="ctx") == ["orders", SHARD, 2, [b"a", b"b"], "ctx"]


def test_failed_records_become_the_partial_batch_response():
    @on_stream("orders", report_batch_item_failures=True)
    def bill(batch: Batch):
        for record in batch:
            if record.data == b"bad":
                batch.failed(record)

    @on_stream("orders", report_batch_item_failures=True)
    async def later(batch: Batch):
        bill(batch)

    for handler in (bill, later):
        assert call(handler, b"a", b"bad", b"bad") == {
            "batchItemFailures": [{"itemIdentifier": "101"}, {"itemIdentifier": "102"}]
        }


def test_failed_adds_to_the_handlers_own_response():
    @on_stream("orders", report_batch_item_failures=True)
    def bill(batch: Batch):
        batch.failed(batch.records[1])
        return {"batchItemFailures": [{"itemIdentifier": "100"}]}

    assert call(bill, b"a", b"b") == {"batchItemFailures": [{"itemIdentifier": "100"}, {"itemIdentifier": "101"}]}


def test_failed_without_partial_responses_is_a_failure_and_not_a_loss():
    @on_stream("orders")
    def bill(batch: Batch):
        batch.failed(batch.records[0])

    with pytest.raises(UsageError, match=r"batch.failed\(\) needs report_batch_item_failures=True in the decorator"):
        call(bill, b"a")


def test_a_batch_is_handed_over_up_to_the_first_record_that_does_not_decode(caplog):
    seen = []

    @on_stream("orders", report_batch_item_failures=True)
    def bill(batch: Batch[Order]):
        seen.extend(record.value.id for record in batch)

    response = call(bill, b'{"id": 1}', b"nonsense", b'{"id": 3}')
    assert response == {"batchItemFailures": [{"itemIdentifier": "101"}]}
    assert seen == [1]
    assert caplog.messages == [
        "record 101: data does not decode to Order: JSON is malformed: invalid character (byte 4)"
    ]


def test_without_partial_responses_a_record_that_does_not_decode_fails_the_batch():
    seen = []

    @on_stream("orders")
    def bill(batch: Batch[Order]):
        seen.extend(batch)

    with pytest.raises(DecodeFailed, match="record 101: data does not decode to Order"):
        call(bill, b'{"id": 1}', b"nonsense")
    assert seen == []


# ---------------------------------------------------------------------- on Lambda


def event(*datas: bytes, stream: str = "orders") -> dict:
    made = event_records(
        datas,
        ["key"] * len(datas),
        range(100, 200),
        shard_id=SHARD,
        arrival_ms=1000,
        arn=f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}",
        region="us-east-1",
        role="role",
    )
    return json.loads(json.dumps({"Records": made}))


def test_an_event_form_handler_is_its_own_lambda_handler():
    @on_stream("orders")
    def bill(event, context): ...

    assert lambda_handler(bill) is bill


def test_an_undecorated_handler_has_a_lambda_handler_too():
    def bill(order: Record[Order]):
        if order.value.id == 2:
            raise ValueError

    assert lambda_handler(bill)(event(b'{"id": 1}', b'{"id": 2}'), None) == {
        "batchItemFailures": [{"itemIdentifier": "101"}]
    }


def test_the_adapter_hands_on_what_the_event_holds():
    @on_stream("orders")
    def bill(batch: Batch[Order], context):
        (record,) = batch
        return [batch.stream, batch.shard_id, record.partition_key, record.arrival_ms, record.value.id, context]

    adapted = lambda_handler(bill)
    assert adapted(event(b'{"id": 5}'), "ctx") == ["orders", SHARD, "key", 1000, 5, "ctx"]
    assert adapted.__name__ == "bill"
    assert declared(adapted) == ()


def test_a_stream_bound_to_another_name_keeps_the_partial_responses_of_its_trigger():
    @on_stream("orders", report_batch_item_failures=True)
    def bill(batch: Batch):
        batch.failed(batch.records[0])

    assert lambda_handler(bill)(event(b"a", stream="prod-orders"), None) == {
        "batchItemFailures": [{"itemIdentifier": "100"}]
    }


def test_an_async_event_form_handler_gets_the_whole_event():
    @on_stream("orders")
    async def bill(event, context):
        return [event, context]

    given = {"Records": [], "window": {"start": "x"}}
    assert lambda_handler(bill)(given, "ctx") == [given, "ctx"]


def test_forms_are_told_apart_after_loading(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        "from kflow import Batch, Record, on_stream\n"
        "@on_stream('s')\ndef a(event, context): ...\n"
        "@on_stream('s')\nasync def b(batch: Batch[dict]): ...\n"
        "@on_stream('s')\ndef c(record: Record): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    assert [(h.name, h.form, h.typed, h.is_async) for h in loading.load("app.py").handlers] == [
        ("a", HandlerForm.EVENT, False, False),
        ("b", HandlerForm.BATCH, True, True),
        ("c", HandlerForm.RECORD, False, False),
    ]


def test_decode_failures_are_handler_errors():
    assert issubclass(errors.DecodeFailed, errors.HandlerError)


# ---------------------------------------------------------------------- tumbling windows

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"


def windowed(*datas: bytes, state: dict | None = None, is_final: bool = False) -> Invocation:
    window = Window(
        start_s=1_607_497_440,
        end_s=1_607_497_560,
        state={} if state is None else state,
        is_final=is_final,
        source_arn=ARN,
    )
    return Invocation(request_id=bytes(16), records=records(*datas), stream="orders", shard_id=SHARD, window=window)


def adapted(function):
    """The `Call` of a function that is not decorated."""
    return forms.make_call(function, read_signature(function), name="bill", reports={}, default=True)


def test_the_event_of_a_window_has_aws_s_keys_in_aws_s_order():
    def bill(event, context):
        return list(event.items())

    given = windowed(b"a", state={"1": 282, "2": 715})
    assert adapted(bill)(given, None) == [
        ("Records", given.records),
        ("window", {"start": "2020-12-09T07:04:00Z", "end": "2020-12-09T07:06:00Z"}),
        ("state", {"1": 282, "2": 715}),
        ("shardId", SHARD),
        ("eventSourceARN", ARN),
        ("isFinalInvokeForWindow", False),
        ("isWindowTerminatedEarly", False),
    ]


def test_a_batch_has_its_window_and_returns_its_state_by_itself():
    def bill(batch: Batch):
        assert batch.window is not None
        batch.state["count"] = batch.state.get("count", 0) + len(batch)
        batch.state["final"] = batch.window.is_final

    assert adapted(bill)(windowed(b"a", b"b", state={"count": 1}), None) == {"state": {"count": 3, "final": False}}
    assert adapted(bill)(windowed(is_final=True), None) == {"state": {"count": 0, "final": True}}


def test_a_state_that_was_replaced_is_returned_and_one_that_is_returned_wins():
    def replaces(batch: Batch):
        batch.state = {"new": 1}

    def returns(batch: Batch):
        batch.state = {"ignored": 1}
        return {"state": {"mine": 2}, "batchItemFailures": []}

    assert adapted(replaces)(windowed(b"a"), None) == {"state": {"new": 1}}
    assert adapted(returns)(windowed(b"a"), None) == {"state": {"mine": 2}, "batchItemFailures": []}


def test_failed_records_and_the_state_are_one_response():
    def bill(batch: Batch):
        batch.state["seen"] = len(batch)
        batch.failed(batch.records[1])

    assert adapted(bill)(windowed(b"a", b"b"), None) == {
        "state": {"seen": 2},
        "batchItemFailures": [{"itemIdentifier": "101"}],
    }


def test_what_is_no_object_is_left_for_the_mapping_to_judge():
    def bill(batch: Batch):
        return "done"

    assert adapted(bill)(windowed(b"a"), None) == "done"


def test_without_windows_a_batch_has_no_window_and_returns_no_state():
    def bill(batch: Batch):
        assert batch.window is None
        batch.state["kept"] = "nowhere"

    assert adapted(bill)(invocation(b"a"), None) is None


def test_on_lambda_a_batch_gets_the_window_out_of_the_event():
    @on_stream("orders", tumbling_window_in_seconds=120)
    def bill(batch: Batch):
        assert batch.window is not None
        batch.state["sum"] = batch.state.get("sum", 0) + len(batch)
        return {
            "start": batch.window.start_s,
            "end": batch.window.end_s,
            "shard": batch.shard_id,
            "stream": batch.stream,
            "final": batch.window.is_final,
        }

    handler = lambda_handler(bill)
    window = {
        "window": {"start": "2020-12-09T07:04:00Z", "end": "2020-12-09T07:06:00Z"},
        "shardId": "shardId-000000000006",
        "eventSourceARN": ARN,
        "isWindowTerminatedEarly": False,
    }
    said = {"start": 1_607_497_440, "end": 1_607_497_560, "shard": "shardId-000000000006", "stream": "orders"}
    given = {**event(b"a"), **window, "state": {"sum": 4}, "isFinalInvokeForWindow": False}
    assert handler(given, None) == {**said, "final": False, "state": {"sum": 5}}
    final = {"Records": [], **window, "state": {"sum": 5}, "isFinalInvokeForWindow": True}
    assert handler(final, None) == {**said, "final": True, "state": {"sum": 5}}
