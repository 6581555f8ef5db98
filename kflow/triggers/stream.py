"""`@on_stream`: a function that consumes a Kinesis stream through an event source mapping.

The decorator checks what it can where the mistake stands, attaches a frozen declaration, and returns the same function.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Never, TypeVar

import msgspec

from kflow import arn
from kflow.declarations import (
    Declared,
    HandlerForm,
    MappingOptions,
    StartingPosition,
    StreamTrigger,
)
from kflow.errors import UsageError
from kflow.loading.places import Place, caller, function_place, name_of
from kflow.triggers import options
from kflow.triggers.declaring import attach, checked_signature, function_options

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_ARN = re.compile(r"arn:aws[-a-z0-9]*:kinesis:[-a-z0-9]*:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}")


def on_stream(
    stream: str,
    *,
    batch_size: int = 100,
    maximum_batching_window_in_seconds: int = 0,
    parallelization_factor: int = 1,
    starting_position: Literal["LATEST", "TRIM_HORIZON"] | StartingPosition | datetime = "TRIM_HORIZON",
    maximum_retry_attempts: int = -1,
    maximum_record_age_in_seconds: int = -1,
    bisect_batch_on_function_error: bool = False,
    report_batch_item_failures: bool | None = None,
    tumbling_window_in_seconds: int = 0,
    filters: Sequence[Mapping[str, Any] | str] = (),
    on_failure: str | None = None,
    consumer: str | None = None,
    enabled: bool = True,
    function_name: str | None = None,
    timeout: int | None = None,
    memory_size: int | None = None,
    environment: Mapping[str, str] | None = None,
    **unknown: Never,
) -> Callable[[F], F]:
    """Run the function for the records of a stream. Delivery is at least once, in order within a shard.

    A batch that fails is retried and blocks its shard (with a `parallelization_factor`, its lane of the shard)
    meanwhile, as on AWS. With a finite `maximum_retry_attempts` or `maximum_record_age_in_seconds`, what is spent is
    parked locally, unless `on_failure="drop"`; AWS drops it, but for the document that it sends to `on_failure`.

    Args:
        stream: a logical stream name (1 to 128 letters, digits, `_`, `.` and `-`), a stream's ARN, or a registered
            consumer's, which stands for both the stream and `consumer`.
        batch_size: records an invocation gets at most, 1 to 10000; an event has 6 MiB at most, base64 and all.
        maximum_batching_window_in_seconds: how long to gather a fuller batch, 0 (what is there goes at once) to 300.
        parallelization_factor: how many batches of one shard run at once, 1 to 10: in order per partition key.
        starting_position: where to begin when there is no checkpoint: `TRIM_HORIZON`, `LATEST`, or an aware datetime
            that is not in the future (AT_TIMESTAMP).
        maximum_retry_attempts: -1 (until the records expire), or 0 to 10000: attempts after the first one.
        maximum_record_age_in_seconds: -1 (no limit), or 60 to 604800; looked at before each attempt, for each record.
        bisect_batch_on_function_error: split a failed batch in two and try the halves; a split costs no retry.
        report_batch_item_failures: let the handler's response name the records that failed. The record form always
            does; for the others None means False.
        tumbling_window_in_seconds: gather a state over windows of arrival time, 1 to 900; 0 for none. For the event and
            the batch form, and with a `parallelization_factor` of 1. Every response has a `state`, a JSON object (the
            batch form returns `Batch.state` by itself); above 1 MiB it ends the window early.
        filters: at most 5 patterns in the EventBridge grammar (10 after a quota increase) of 4096 characters each, as
            dicts or JSON text; a record passes where any of them matches, for example
            `{"data": {"type": ["order"]}}`. What does not pass is settled; so is a payload that is not JSON, where a
            pattern asks for `data`.
        on_failure: None parks what is spent (chosen: nothing is lost on this machine); `drop` keeps nothing, as AWS
            does without a destination. `sqs:NAME`, `sns:NAME`, `s3:BUCKET` and ARNs of these park it, too, and send
            AWS's failure document there; what is named without an ARN is made at the start where it is missing. No FIFO
            queues and topics.
        consumer: name or ARN of a registered consumer (enhanced fan-out), which is registered at the start where it is
            missing; None for none. The event's `eventSourceARN` is the consumer's ARN then. Locally every function
            reads the log itself, so nothing else differs.
        enabled: whether the mapping is active.
        function_name: name on Lambda, 1 to 64 letters, digits, `-` and `_`; None is the Python name.
        timeout: seconds an invocation may take, 1 to 900; None leaves it to the settings, then to Lambda's 3.
        memory_size: megabytes, 128 to 10240; None leaves it to the settings, then to Lambda's 128.
        environment: variables the handler sees, besides those of the settings: 4096 bytes in all, none of Lambda's own.
        unknown: refused, with the nearest option.

    Raises:
        UsageError: an option is unknown, of the wrong type or out of range, excluded by another one, or not built yet;
            the function's signature fits no form. Names file and line.

    Source: documented: AWS Lambda API Reference, CreateEventSourceMapping, CreateFunction; Lambda Developer Guide,
    event filtering, tumbling windows.
    """
    place, frame = caller(2)
    if unknown:
        raise options.unknown(place, "@on_stream", unknown, _OPTIONS)
    position, position_ms = _starting_position(place, starting_position)
    mapping = MappingOptions(
        batch_size=options.whole(place, "batch_size", batch_size, 1, 10_000),
        maximum_batching_window_in_seconds=options.whole(
            place, "maximum_batching_window_in_seconds", maximum_batching_window_in_seconds, 0, 300
        ),
        starting_position=position,
        starting_position_ms=position_ms,
        maximum_retry_attempts=options.whole(
            place, "maximum_retry_attempts", maximum_retry_attempts, 0, 10_000, also=-1
        ),
        maximum_record_age_in_seconds=options.whole(
            place, "maximum_record_age_in_seconds", maximum_record_age_in_seconds, 60, 604_800, also=-1
        ),
        bisect_batch_on_function_error=options.flag(
            place, "bisect_batch_on_function_error", bisect_batch_on_function_error
        ),
        parallelization_factor=options.whole(place, "parallelization_factor", parallelization_factor, 1, 10),
        tumbling_window_in_seconds=options.whole(
            place, "tumbling_window_in_seconds", tumbling_window_in_seconds, 0, 900
        ),
        filters=options.filters(place, filters),
        on_failure=_on_failure(place, on_failure),
    )
    if mapping.tumbling_window_in_seconds and mapping.parallelization_factor > 1:
        raise UsageError(
            f"{place}: tumbling_window_in_seconds needs parallelization_factor=1: the state of a window is kept per "
            "shard, and lanes would each have their own"
        )
    if report_batch_item_failures is not None:
        options.flag(place, "report_batch_item_failures", report_batch_item_failures)
    function = function_options(
        place, function_name=function_name, timeout=timeout, memory_size=memory_size, environment=environment
    )
    name = _stream(place, stream)
    consumer_name = _consumer(place, name, consumer)
    options.flag(place, "enabled", enabled)
    around = frame.f_locals

    def decorate(decorated: F) -> F:
        reports = report_batch_item_failures
        signature = checked_signature(decorated, place, "@on_stream", around)
        if signature is not None and signature.form is HandlerForm.RECORD:
            reports = _record_form_reports(decorated, reports)
            if mapping.tumbling_window_in_seconds:
                raise UsageError(
                    f"{function_place(decorated)}: {name_of(decorated)} takes one record at a time, and has no state "
                    "to return: with tumbling_window_in_seconds take a `Batch` and use its `state`, or an event"
                )
        declaration = Declared(
            StreamTrigger(
                stream=name,
                options=msgspec.structs.replace(mapping, report_batch_item_failures=bool(reports)),
                enabled=enabled,
                file=place.file,
                line=place.line,
                consumer=consumer_name,
            ),
            function,
        )
        attach(decorated, signature, declaration, place, "@on_stream")
        return decorated

    return decorate


_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(on_stream).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
)


def _on_failure(place: Place, value: object) -> str | None:
    """None, `drop`, or a destination as it is named."""
    if value is None or value == "drop":
        return None if value is None else "drop"
    if not isinstance(value, str):
        raise UsageError(
            f'{place}: on_failure must be None, "drop", "sqs:NAME", "sns:NAME", "s3:BUCKET" or an ARN, not {value!r}'
        )
    from kflow.lambda_.destinations import parse  # seldom needed, and not light

    try:
        parse(value)
    except UsageError as error:
        raise UsageError(f"{place}: on_failure: {error}") from None
    return value


def _stream(place: Place, stream: object) -> str:
    if callable(stream):
        raise UsageError(f'{place}: @on_stream needs the name of a stream: @on_stream("orders")')
    if not isinstance(stream, str):
        raise UsageError(f"{place}: the stream must be a name or an ARN, not {stream!r}")
    if stream.startswith("arn:"):
        if not _ARN.fullmatch(stream) and arn.consumer_name(stream) is None:
            raise UsageError(
                f"{place}: {stream!r} is not the ARN of a Kinesis stream: "
                "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, or the name alone"
            )
    elif not _NAME.fullmatch(stream):
        raise UsageError(
            f"{place}: a stream's name is 1 to 128 of the letters a-z and A-Z, digits, _, . and -, not {stream!r}"
        )
    return stream


def _consumer(place: Place, stream: str, value: object) -> str | None:
    """The name of the registered consumer, out of its name or its ARN, which may stand in place of the stream's."""
    by_stream = arn.consumer_name(stream)
    if value is None:
        return by_stream
    if not isinstance(value, str):
        raise UsageError(f"{place}: consumer must be a consumer's name or ARN, not {value!r}")
    name = arn.consumer_name(value)
    if name is None and not _NAME.fullmatch(value):
        raise UsageError(
            f"{place}: a consumer's name is 1 to 128 of the letters a-z and A-Z, digits, _, . and -, not {value!r}; "
            "its ARN is arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/NAME:SECONDS"
        )
    if name is not None and arn.stream_name(value) != arn.stream_name(stream):
        raise UsageError(
            f"{place}: consumer {value!r} is of the stream {arn.stream_name(value)}, not of {arn.stream_name(stream)}"
        )
    if by_stream not in (None, name or value):
        raise UsageError(f"{place}: the ARN is of the consumer {by_stream}, consumer={value!r} is another: say it once")
    return name or value


def _starting_position(place: Place, value: object) -> tuple[StartingPosition, int | None]:
    wanted = 'starting_position must be "TRIM_HORIZON", "LATEST" or an aware datetime'
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise UsageError(f"{place}: {wanted}: this one has no time zone, add tzinfo=datetime.UTC")
        epoch_ms = round(value.timestamp() * 1000)
        if epoch_ms > time.time_ns() // 1_000_000:
            raise UsageError(f"{place}: starting_position must not be in the future, as {value.isoformat()} is")
        return StartingPosition.AT_TIMESTAMP, epoch_ms
    if value == StartingPosition.AT_TIMESTAMP:
        raise UsageError(f"{place}: {wanted}: for AT_TIMESTAMP give the datetime itself")
    try:
        return StartingPosition(str(value)), None
    except ValueError:
        raise UsageError(f"{place}: {wanted}, not {value!r}") from None


def _record_form_reports(function: Callable[..., Any], reports: bool | None) -> bool:
    if reports is False:
        raise UsageError(
            f"{function_place(function)}: {name_of(function)} takes one record at a time, which always reports the one "
            "that failed: remove report_batch_item_failures=False, or take a `Batch`"
        )
    return True
