"""What all handler forms are made of: the values that records are decoded to, the context, the event loop."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from kflow.errors import DecodeFailed, HandlerError, UsageError
from kflow.lambda_.decode import Decode, decoder, type_name
from kflow.loading.places import function_place, name_of
from kflow.loading.signature import Signature
from kflow.records import Message, Record

Wait = Callable[[Any], Any]
"""Runs a coroutine to its end."""
Bind = Callable[[Any], Callable[[Any], Any]]
"""From an invocation's context to what is called with the first argument alone."""


class Typed(NamedTuple):
    """How `value` is decoded: the function, which raises what it likes, and the type's name for messages."""

    decode: Decode
    name: str

    def failed(self, record: Record[Any], error: Exception) -> DecodeFailed:
        """The error for a record that does not decode."""
        return DecodeFailed(f"record {record.sequence_number}: data does not decode to {self.name}: {error}")

    def failed_message(self, message: Message[Any], error: Exception) -> DecodeFailed:
        """The error for a message that does not decode."""
        return DecodeFailed(f"message {message.message_id}: its body does not decode to {self.name}: {error}")


def typed(function: Callable[..., Any], signature: Signature) -> Typed | None:
    """How each record's data is decoded before the call; None where the annotation names no type.

    Raises:
        UsageError: JSON cannot be decoded to the type; names file and line.
    """
    if signature.value_type is msgspec.UNSET:
        return None
    try:
        return Typed(decoder(signature.value_type), type_name(signature.value_type))
    except (UsageError, NameError) as error:
        raise UsageError(f"{function_place(function)}: {name_of(function)}: {error}") from error


class EventLoop:
    """The event loop of an execution environment: kept open from one invocation to the next, made when first needed."""

    def __init__(self) -> None:
        self._loop: Any = None

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end.

        Raises:
            HandlerError: its task was cancelled from inside, which is no way out of the process.
        """
        # Heavy, and only here for handlers that need it.
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            weakref.finalize(self, self._loop.close)
        try:
            return self._loop.run_until_complete(coroutine)
        except asyncio.CancelledError as error:
            raise HandlerError("the handler's task was cancelled") from error


def awaiting(function: Callable[..., Any], wait: Wait) -> Callable[..., Any]:
    """A plain wrapper around a coroutine function: it may hand its coroutine on, or run it by itself."""

    def call(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        return wait(result) if inspect.iscoroutine(result) else result

    return call


def binder(function: Callable[..., Any], how: str) -> Bind:
    """Per invocation: the function with its context in place, so that a record costs one call and no more."""
    if how == "positional":
        return lambda context: lambda first: function(first, context)
    if how == "keyword":
        return lambda context: partial(function, context=context)
    return lambda _: function
