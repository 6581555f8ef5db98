"""Rules between the decorators of one function. Part of `import kflow`, so it needs nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from kflow.arn import queue_name, stream_name
from kflow.declarations import Declared, FunctionOptions, HandlerForm, QueueTrigger, StreamTrigger
from kflow.errors import UsageError
from kflow.loading.places import Place, function_place, name_of

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Source: documented: AWS Lambda API Reference, CreateFunction."""


def check_marks(marks: tuple[Declared, ...], name: str) -> FunctionOptions:
    """The function options of all triggers of a function as one; what one trigger leaves open the others may say.

    Raises:
        UsageError: two triggers say different things, or read the same stream or queue; names both lines.
    """
    merged: dict[str, Any] = {}
    said: dict[str, Place] = {}
    sources: dict[tuple[bool, str], Place] = {}
    for mark in marks:
        trigger = mark.trigger
        here = Place(trigger.file, trigger.line)
        is_queue = isinstance(trigger, QueueTrigger)
        source = queue_name(trigger.queue) if isinstance(trigger, QueueTrigger) else stream_name(trigger.stream)
        if (is_queue, source) in sources:
            why = "a queue's messages go to one of them" if is_queue else "a function has one checkpoint a stream"
            raise UsageError(
                f"{here}: {name} consumes {source} already, by the decorator at {sources[is_queue, source]}: "
                f"remove one of them ({why})"
            )
        sources[is_queue, source] = here
        for option in FunctionOptions.__struct_fields__:
            value = getattr(mark.function_options, option)
            if value is None:
                continue
            if option in merged and merged[option] != value:
                raise UsageError(
                    f"{here}: {option}={value!r}, but {option}={merged[option]!r} at {said[option]}: "
                    f"{name} is one function and has one {option}, say it once"
                )
            merged[option] = value
            said.setdefault(option, here)
    return FunctionOptions(**merged)


def check_form(
    function: Callable[..., Any], form: HandlerForm, triggers: Iterable[StreamTrigger | QueueTrigger]
) -> None:
    """Whether a handler's form takes what its triggers bring.

    Raises:
        UsageError: it takes records of streams and is to get messages of a queue, or the other way round.
    """
    for trigger in triggers:
        is_queue = isinstance(trigger, QueueTrigger)
        if form.is_of_streams if is_queue else form.is_of_queues:
            wrong = "records of a stream" if is_queue else "messages of a queue"
            right = "`Message`, `Message[T]`, `Messages`" if is_queue else "`Record`, `Record[T]`, `Batch`"
            decorator = "@on_queue" if is_queue else "@on_stream"
            raise UsageError(
                f"{function_place(function)}: {name_of(function)} takes {wrong}, and {decorator} at "
                f"{Place(trigger.file, trigger.line)} brings others: take {right}, or an event"
            )
