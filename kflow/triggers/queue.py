"""`@on_queue`: a function that takes the messages of an SQS queue through an event source mapping."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Never, TypeVar

import msgspec

from kflow import limits
from kflow.arn import queue_name
from kflow.declarations import Declared, HandlerForm, QueueOptions, QueueTrigger
from kflow.errors import UsageError
from kflow.loading.places import Place, caller, function_place, name_of
from kflow.triggers import options
from kflow.triggers.declaring import attach, checked_signature, function_options

F = TypeVar("F", bound=Callable[..., Any])

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|(?=.{1,80}\Z)[A-Za-z0-9_-]+\.fifo")
_FIFO: Final = ".fifo"


def on_queue(
    queue: str,
    *,
    batch_size: int = 10,
    maximum_batching_window_in_seconds: int = 0,
    report_batch_item_failures: bool | None = None,
    filters: Sequence[Mapping[str, Any] | str] = (),
    maximum_concurrency: int | None = None,
    enabled: bool = True,
    function_name: str | None = None,
    timeout: int | None = None,
    memory_size: int | None = None,
    environment: Mapping[str, str] | None = None,
    **unknown: Never,
) -> Callable[[F], F]:
    """Run the function for the messages of a queue. Delivery is at least once; a FIFO queue keeps order in a group.

    What succeeds is deleted. What fails comes again when the queue's visibility timeout is over, as on AWS, until it
    succeeds, its retention is over, or the queue's redrive policy moves it to a dead-letter queue.

    Args:
        queue: a logical name (1 to 80 letters, digits, `-` and `_`; a FIFO queue's ends in `.fifo`), or an ARN. A queue
            that is named and not there is made at the start.
        batch_size: messages an invocation gets at most: 1 to 10000, of a FIFO queue 1 to 10; above 10 needs a window.
            An event has 6 MiB at most.
        maximum_batching_window_in_seconds: how long to gather a fuller batch, 0 (what is there goes at once) to 300;
            not of a FIFO queue.
        report_batch_item_failures: let the handler's response name the messages that failed, by `messageId`; the others
            are deleted. The form `Message` always does; for the others None means False.
        filters: at most 5 patterns in the EventBridge grammar (10 after a quota increase) of 4096 characters each, as
            dicts or JSON text; a message passes where any of them matches, for example `{"body": {"type": ["order"]}}`.
            What does not pass is deleted.
        maximum_concurrency: batches that run at once, 2 to 1000; None: as many as there are places for.
        enabled: whether the mapping is active.
        function_name: name on Lambda, 1 to 64 letters, digits, `-` and `_`; None is the Python name.
        timeout: seconds an invocation may take, 1 to 900; None leaves it to the settings, then to Lambda's 3. The
            queue's visibility timeout must be as long, and should be six times as long.
        memory_size: megabytes, 128 to 10240; None leaves it to the settings, then to Lambda's 128.
        environment: variables the handler sees, besides those of the settings: 4096 bytes in all, none of Lambda's own.
        unknown: refused, with the nearest option.

    Raises:
        UsageError: an option is unknown, of the wrong type or out of range, or excluded by another one; the function's
            signature fits no form. Names file and line.

    Source: documented: AWS Lambda API Reference, CreateEventSourceMapping; Lambda Developer Guide, with-sqs.
    """
    place, frame = caller(2)
    if unknown:
        raise options.unknown(place, "@on_queue", unknown, _OPTIONS)
    name = _queue(place, queue)
    mapping = QueueOptions(
        batch_size=options.whole(place, "batch_size", batch_size, 1, 10_000),
        maximum_batching_window_in_seconds=options.whole(
            place, "maximum_batching_window_in_seconds", maximum_batching_window_in_seconds, 0, 300
        ),
        filters=options.filters(place, filters, of_messages=True),
        maximum_concurrency=(
            None
            if maximum_concurrency is None
            else options.whole(place, "maximum_concurrency", maximum_concurrency, 2, 1000)
        ),
    )
    _check_batches(place, name, mapping)
    if report_batch_item_failures is not None:
        options.flag(place, "report_batch_item_failures", report_batch_item_failures)
    function = function_options(
        place, function_name=function_name, timeout=timeout, memory_size=memory_size, environment=environment
    )
    options.flag(place, "enabled", enabled)
    around = frame.f_locals

    def decorate(decorated: F) -> F:
        reports = report_batch_item_failures
        signature = checked_signature(decorated, place, "@on_queue", around)
        if signature is not None and signature.form is HandlerForm.MESSAGE:
            if reports is False:
                raise UsageError(
                    f"{function_place(decorated)}: {name_of(decorated)} takes one message at a time, which always "
                    "reports those that failed: remove report_batch_item_failures=False, or take `Messages`"
                )
            reports = True
        declaration = Declared(
            QueueTrigger(
                queue=name,
                options=msgspec.structs.replace(mapping, report_batch_item_failures=bool(reports)),
                enabled=enabled,
                file=place.file,
                line=place.line,
            ),
            function,
        )
        attach(decorated, signature, declaration, place, "@on_queue")
        return decorated

    return decorate


_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(on_queue).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
)


def _queue(place: Place, queue: object) -> str:
    if callable(queue):
        raise UsageError(f'{place}: @on_queue needs the name of a queue: @on_queue("jobs")')
    if not isinstance(queue, str):
        raise UsageError(f"{place}: the queue must be a name or an ARN, not {queue!r}")
    if queue.startswith("arn:"):
        if queue_name(queue) == queue:
            raise UsageError(
                f"{place}: {queue!r} is not the ARN of an SQS queue: arn:aws:sqs:REGION:ACCOUNT:NAME, or the name alone"
            )
    elif not _NAME.fullmatch(queue):
        raise UsageError(
            f"{place}: a queue's name is 1 to 80 of the letters a-z and A-Z, digits, - and _, and that of a FIFO queue "
            f"ends in .fifo, not {queue!r}"
        )
    return queue


def _check_batches(place: Place, queue: str, mapping: QueueOptions) -> None:
    """Source: documented: Lambda Developer Guide, with-sqs; recorded: the rule on windows."""
    is_large = mapping.batch_size > limits.QUEUE_BATCH
    if queue.endswith(_FIFO):
        if mapping.maximum_batching_window_in_seconds:
            raise UsageError(f"{place}: a FIFO queue has no batching window: remove maximum_batching_window_in_seconds")
        if is_large:
            raise UsageError(
                f"{place}: batch_size of a FIFO queue must be a whole number from 1 to {limits.QUEUE_BATCH}"
            )
    elif is_large and not mapping.maximum_batching_window_in_seconds:
        raise UsageError(
            f"{place}: batch_size={mapping.batch_size} needs maximum_batching_window_in_seconds of 1 at least: a queue "
            "gives 10 messages at once"
        )
