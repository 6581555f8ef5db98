"""How a handler is called: one `Call` for every form, sync or async, used by workers here and by Lambda alike.

A `Call` is made once and called for each invocation. Event form: the event and the context by position. Batch form: a
`Batch`. Record form: one record after the other; the first failure ends the batch. If records before it succeeded its
sequence number is returned as the batch item failure; if it is the first of the batch its exception is raised, so that
bisection can isolate it and Lambda's error metric sees it. What queues hold: `queue_forms`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import length_hint
from typing import Any

from msgspec.structs import force_setattr

from kflow.arn import queue_name, stream_name
from kflow.declarations import Handler, HandlerForm, QueueTrigger, StreamTrigger, declared
from kflow.errors import UsageError
from kflow.events.windows import window_members
from kflow.interfaces import Invocation
from kflow.lambda_.binding import Bind, EventLoop, Typed, Wait, awaiting, binder, typed
from kflow.lambda_.queue_forms import message_call, messages_call, with_failures
from kflow.loading.places import name_of
from kflow.loading.signature import Signature, is_coroutine_function, read_signature
from kflow.records import Batch, Record

Call = Callable[[Invocation, Any], Any]
"""Calls a handler with an invocation's records and the context; returns what Lambda would get as the response."""

Response = dict[str, Any]
_Each = Callable[[Iterator[Record[Any]], Any], None]


def adapt(function: Callable[..., Any], handler: Handler) -> Call:
    """The `Call` of a handler.

    Args:
        function: the handler's function.
        handler: its declaration; says for which streams and queues partial batch responses count.

    Raises:
        UsageError: its signature fits no form, or JSON cannot be decoded to its type.
    """
    reports = _reports((*handler.triggers, *handler.queues))
    return make_call(function, read_signature(function), name=handler.name, reports=reports, root=handler.root)


def make_call(
    function: Callable[..., Any],
    signature: Signature,
    *,
    name: str,
    reports: dict[str, bool],
    default: bool = False,
    root: str = "",
) -> Call:
    """The `Call` of a function.

    Args:
        function: the function.
        signature: its signature.
        name: name of the function, for its log.
        reports: name of the stream or queue to whether its mapping takes partial batch responses.
        default: the same for those that are not in `reports`.
        root: import root; decides whose frames a logged traceback begins with.
    """
    wait: Wait | None = EventLoop().run if signature.is_async else None
    if wait is not None and not is_coroutine_function(function):
        function, wait = awaiting(function, wait), None
    if signature.form is HandlerForm.EVENT:
        return _event_call(function, wait)
    value = typed(function, signature)
    bind = binder(function, signature.context)
    log = logging.getLogger(f"kflow.function.{name}")
    if signature.form is HandlerForm.MESSAGE:
        return message_call(bind, value, wait, log, root)
    if signature.form is HandlerForm.MESSAGES:
        return messages_call(bind, value, wait, log, lambda queue: reports.get(queue, default))
    if signature.form is HandlerForm.RECORD:
        each = _each(bind, value) if wait is None else _each_async(bind, value, wait)
        return _record_call(each, log, root)
    return _batch_call(bind, value, wait, log, lambda stream: reports.get(stream, default))


def _event_call(function: Callable[..., Any], wait: Wait | None) -> Call:
    if wait is None:

        def call(invocation: Invocation, context: Any) -> Any:
            return function(_event(invocation), context)

        return call

    def call_async(invocation: Invocation, context: Any) -> Any:
        return wait(function(_event(invocation), context))

    return call_async


def _event(invocation: Invocation) -> dict[str, Any]:
    """Lambda's event: `Records` first, as it is sent."""
    window = invocation.window
    records = {"Records": invocation.records}
    return records if window is None else {**records, **window_members(window, invocation.shard_id)}


def _batch_call(
    bind: Bind,
    value: Typed | None,
    wait: Wait | None,
    log: logging.Logger,
    takes_failures: Callable[[str], bool],
) -> Call:
    def batch_call(invocation: Invocation, context: Any) -> Any:
        records: Sequence[Record[Any]] = invocation.records
        may_report = takes_failures(invocation.stream)
        undecoded: Record[Any] | None = None
        if value is not None:
            records, undecoded = _decoded(records, value, log, may_fail=may_report)
        window = invocation.window
        batch: Batch[Any] = Batch(records, invocation.stream, invocation.shard_id, window=window)
        response = bind(context)(batch)
        if wait is not None:
            response = wait(response)
        if window is not None:
            response = _with_state(response, batch.state)
        failures = batch.response()
        if failures is None and undecoded is None:
            return response
        if not may_report:
            raise UsageError(
                "batch.failed() needs report_batch_item_failures=True in the decorator: without it AWS ignores which "
                "records failed, and takes the whole batch as done"
            )
        items: list[Any] = list(failures["batchItemFailures"]) if failures else []
        if undecoded is not None:
            items.append({"itemIdentifier": str(undecoded.sequence_number)})
        return with_failures(response, items)

    return batch_call


def _decoded(
    records: Sequence[Record[Any]], value: Typed, log: logging.Logger, *, may_fail: bool
) -> tuple[Sequence[Record[Any]], Record[Any] | None]:
    """The records up to the first that does not decode, with their values set, and that one.

    Where it is the first of the batch, or partial batch responses are off, it raises instead.
    """
    decode = value.decode
    rest = iter(records)
    try:
        for record in rest:
            force_setattr(record, "decoded", decode(record.data))
    except Exception as error:  # of msgspec, Pydantic, or a model's own __post_init__
        index = len(records) - length_hint(rest) - 1
        failure = value.failed(records[index], error)
        if index == 0 or not may_fail:
            raise failure from error
        log.error("%s", failure)  # noqa: TRY400  (the trace would be kflow's own)
        return records[:index], records[index]
    return records, None


def _with_state(response: Any, state: Any) -> Any:
    """The handler's own response with the window's state. What is no object stays: the mapping judges it."""
    if response is None:
        return {"state": state}
    if isinstance(response, dict) and "state" not in response:
        return {**response, "state": state}
    return response


class ItemFailures(dict[str, Any]):
    """A partial batch response that remembers, for people, what failed: AWS sees a plain object.

    Attributes:
        cause: what the handler raised for the record.
    """

    def __init__(self, record: Record[Any], cause: Exception) -> None:
        super().__init__(batchItemFailures=[{"itemIdentifier": str(record.sequence_number)}])
        self.cause = cause


def _record_call(each: _Each, log: logging.Logger, root: str) -> Call:
    def record_call(invocation: Invocation, context: Any) -> Response | None:
        records: Sequence[Record[Any]] = invocation.records
        rest = iter(records)
        try:
            each(rest, context)
        except Exception as error:
            # The iterator knows how far it came: counting along would cost every record.
            index = len(records) - length_hint(rest) - 1
            if index <= 0:  # below 0: it failed before it took any
                raise
            record = records[index]
            # Needed for a failure alone, and no part of a light `import kflow`.
            from kflow.loading.tracebacks import trimmed

            trace = trimmed(error.__traceback__, root)
            log.exception("record %s failed", record.sequence_number, exc_info=(type(error), error, trace))
            return ItemFailures(record, error)
        return None

    return record_call


def _each(bind: Bind, value: Typed | None) -> _Each:
    if value is None:

        def each(records: Iterator[Record[Any]], context: Any) -> None:
            call = bind(context)
            for record in records:
                call(record)

        return each
    decode = value.decode

    def each_decoded(records: Iterator[Record[Any]], context: Any) -> None:
        call = bind(context)
        for record in records:
            try:
                decoded = decode(record.data)
            except Exception as error:
                raise value.failed(record, error) from error
            force_setattr(record, "decoded", decoded)
            call(record)

    return each_decoded


def _each_async(bind: Bind, value: Typed | None, wait: Wait) -> _Each:
    async def one_by_one(records: Iterator[Record[Any]], context: Any) -> None:
        call = bind(context)
        for record in records:
            if value is not None:
                try:
                    decoded = value.decode(record.data)
                except Exception as error:
                    raise value.failed(record, error) from error
                force_setattr(record, "decoded", decoded)
            await call(record)

    def each(records: Iterator[Record[Any]], context: Any) -> None:
        wait(one_by_one(records, context))

    return each


def lambda_handler(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """The `(event, context)` callable of a handler, for AWS Lambda's `handler` setting.

    A synchronous event-form handler is returned itself; any other form gets the adapter that local workers use too.

    Args:
        function: a handler, decorated or not.

    Raises:
        UsageError: its signature fits no form.
    """
    signature = read_signature(function)
    if signature.form is HandlerForm.EVENT:
        if not signature.is_async:
            return function
        whole = awaiting(function, EventLoop().run)

        def handler(event: Any, context: Any) -> Any:
            return whole(event, context)

    elif signature.form.is_of_queues:
        call = _call_on_lambda(function, signature)

        def handler(event: Any, context: Any) -> Any:
            # Needed only where events are.
            from kflow.events.sqs import messages_from_event

            messages = messages_from_event(event)
            queue = messages[0].queue if messages else ""
            return call(Invocation(request_id=b"", records=messages, stream=queue, shard_id=""), context)

    else:
        call = _call_on_lambda(function, signature)

        def handler(event: Any, context: Any) -> Any:
            # base64 in C, needed only where events are.
            from kflow.events.kinesis import records_from_event, shard_of, source_arn, window_of

            invocation = Invocation(
                request_id=b"",
                records=records_from_event(event),
                stream=stream_name(source_arn(event)),
                shard_id=shard_of(event),
                window=window_of(event),
            )
            return call(invocation, context)

    # Not functools.wraps: it would copy the declaration, and the module would hold the handler twice.
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        if hasattr(function, attribute):
            setattr(handler, attribute, getattr(function, attribute))
    return handler


def _call_on_lambda(function: Callable[..., Any], signature: Signature) -> Call:
    marks = declared(function)
    reports = _reports([mark.trigger for mark in marks])
    # On AWS a stage may bind a logical name to a stream of another name: what all triggers say holds for it.
    default = bool(reports) and all(reports.values())
    names = [mark.function_options.function_name for mark in marks if mark.function_options.function_name]
    return make_call(
        function, signature, name=names[0] if names else name_of(function), reports=reports, default=default
    )


def _reports(triggers: Iterable[StreamTrigger | QueueTrigger]) -> dict[str, bool]:
    """By the name of what is read. A form that asks for it takes streams alone, or queues alone."""
    return {
        queue_name(each.queue) if isinstance(each, QueueTrigger) else stream_name(each.stream): (
            each.options.report_batch_item_failures
        )
        for each in triggers
    }
