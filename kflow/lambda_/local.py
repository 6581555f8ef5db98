"""One call in this process: call, marshal as Lambda does, and put every failure into Lambda's words."""

from __future__ import annotations

import decimal
import json
import time
from typing import Any

from kflow.declarations import Handler
from kflow.interfaces import Invocation, Outcome
from kflow.lambda_ import payloads
from kflow.lambda_.context import LambdaContext
from kflow.lambda_.forms import Call, ItemFailures


def run_call(call: Call, handler: Handler, invocation: Invocation, context: LambdaContext) -> Outcome:
    """Call the handler once.

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
    try:
        text = json.dumps(response, default=_default, ensure_ascii=False)
        size = len(text.encode())
    except Exception as error:  # noqa: BLE001  (a value's own methods run here: as on Lambda, all is a marshal error)
        return Outcome(error=payloads.not_json(error, context.aws_request_id), duration_us=duration_us)
    if size > payloads.RESPONSE_BYTES:
        return Outcome(error=payloads.too_large(), duration_us=duration_us)
    cause = None
    if isinstance(response, ItemFailures):
        cause = payloads.from_exception(response.cause, context.aws_request_id, handler)
    return Outcome(json.loads(text), None, duration_us, cause=cause)


def _default(value: Any) -> float:
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
