"""Rules between the decorators of one function. Part of `import kflow`, so it needs nothing heavy."""

from __future__ import annotations

import re
from typing import Any

from kflow.arn import stream_name
from kflow.declarations import Declared, FunctionOptions
from kflow.errors import UsageError
from kflow.loading.places import Place

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Source: documented: AWS Lambda API Reference, CreateFunction."""


def check_marks(marks: tuple[Declared, ...], name: str) -> FunctionOptions:
    """The function options of all triggers of a function as one; what one trigger leaves open the others may say.

    Raises:
        UsageError: two triggers say different things, or read the same stream; names both lines.
    """
    merged: dict[str, Any] = {}
    said: dict[str, Place] = {}
    streams: dict[str, Place] = {}
    for mark in marks:
        here = Place(mark.trigger.file, mark.trigger.line)
        stream = stream_name(mark.trigger.stream)
        if stream in streams:
            raise UsageError(
                f"{here}: {name} consumes {stream} already, by the decorator at {streams[stream]}: remove one of them "
                "(a function has one checkpoint a stream)"
            )
        streams[stream] = here
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
