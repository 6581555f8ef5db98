"""One call in this process: call, marshal as Lambda does, and put every failure into Lambda's words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from kflow.declarations import Handler
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_ import marshal, payloads
from kflow.lambda_.context import LambdaContext
from kflow.lambda_.forms import Call, ItemFailures


def run_call(call: Call, handler: Handler, invocation: Invocation, context: LambdaContext) -> Outcome:
    """Call the handler once, with records.

    An `Exception` becomes an error payload. What ends a process on Lambda (`SystemExit`, `KeyboardInterrupt`, any other
    `BaseException`) passes through: the worker ends with it, and its parent tells the exit.

    Args:
        call: from `forms.adapt`.
        handler: the declaration; its root decides whose frames are shown.
        invocation: what to call it with.
        context: the invocation's context.
    """
    begin = time.perf_counter_ns()
    try:
        response = call(invocation, context)
    except Exception as error:  # noqa: BLE001  (user code: whatever it raises is this invocation's error)
        duration_us = (time.perf_counter_ns() - begin) // 1000
        return Outcome(error=payloads.from_exception(error, context.aws_request_id, handler), duration_us=duration_us)
    duration_us = (time.perf_counter_ns() - begin) // 1000
    if response is None:
        return Outcome(None, None, duration_us)
    text = _marshalled(response, context.aws_request_id)
    if isinstance(text, FunctionError):
        return Outcome(error=text, duration_us=duration_us)
    cause = None
    if isinstance(response, ItemFailures):
        cause = payloads.from_exception(response.cause, context.aws_request_id, handler)
    return Outcome(_value(text), None, duration_us, cause=cause)


def run_event(
    function: Callable[[Any, Any], Any], handler: Handler, payload: bytes, context: LambdaContext
) -> tuple[bytes, Outcome]:
    """Call the handler once, with an event as somebody sent it. What ends a process passes through, as above.

    Args:
        function: from `forms.lambda_handler`.
        handler: as above.
        payload: the event, JSON text.
        context: as above.

    Returns:
        The response as JSON text, empty where it failed; and how it went, without the response.
    """
    request_id = context.aws_request_id
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError) as error:
        return b"", Outcome(error=payloads.not_an_event(error, request_id))
    begin = time.perf_counter_ns()
    try:
        response = function(event, context)
    except Exception as error:  # noqa: BLE001  (as above)
        duration_us = (time.perf_counter_ns() - begin) // 1000
        return b"", Outcome(error=payloads.from_exception(error, request_id, handler), duration_us=duration_us)
    duration_us = (time.perf_counter_ns() - begin) // 1000
    text = _marshalled(response, request_id)
    if isinstance(text, FunctionError):
        return b"", Outcome(error=text, duration_us=duration_us)
    return text, Outcome(duration_us=duration_us)


def _marshalled(response: Any, request_id: str) -> bytes | FunctionError:
    """A response as Lambda's Python runtime writes it, or why it cannot be written."""
    try:
        text = marshal.encode(response)
    except Exception as error:  # noqa: BLE001  (a value's own methods run here: as on Lambda, all is a marshal error)
        return payloads.not_json(error, request_id)
    return payloads.too_large() if len(text) > payloads.RESPONSE_BYTES else text


def _value(text: bytes) -> Any:
    """What a response is as JSON; the text itself where it is none: it was returned as bytes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")
