"""Calls of AWS operations by this machine's own clients, over the node's socket: no HTTP, no base64.

CALL --> the services --+--> CALL_ANSWER
+--> CALL_ANSWER that goes on, CALL_EVENT ... the last CALL_EVENT
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from kflow.aws.calls import Context, EventStream, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.local import LocalOutput
from kflow.aws.shapes import Operation
from kflow.broker import wirecalls
from kflow.errors import AwsError, KflowError, UsageError
from kflow.runtime.intake.connection import Connection

log = logging.getLogger(__name__)


class Calling:
    """Belongs to the loop's thread.

    Args:
        dispatcher: calls the operations.
        home: the place of callers that name none.
    """

    def __init__(self, dispatcher: Dispatcher, home: Place) -> None:
        self._dispatcher = dispatcher
        self._home = home

    def call(self, connection: Connection, request: int, call: wirecalls.Call) -> None:
        """Answer one call, now or later; it is abandoned where its connection goes first.

        Raises:
            UsageError: there is no such service, or the connection has a call of this number under way.
        """
        if not self._dispatcher.knows(call.service):
            known = ", ".join(sorted({*self._dispatcher.models, *self._dispatcher.deferred}))
            raise UsageError(f"this runtime serves no {call.service}, only {known}")
        if request in connection.calls:
            raise UsageError(f"call {request} of this connection is under way: give each a number of its own")
        place = Place(call.account or self._home.account, call.region or self._home.region)
        context = Context(place=place, request_id=str(uuid.uuid4()))

        def done(result: dict[str, Any] | KflowError) -> None:
            connection.calls.pop(request, None)
            connection.answer_call(request, _answer(result, context.request_id))

        def events(operation: Operation) -> EventStream:
            connection.answer_call(request, wirecalls.CallAnswer(request_id=context.request_id, goes_on=True))
            return EventFrames(connection, request, operation)

        # Known to the connection before it runs: an answer may find the connection lost.
        connection.calls[request] = lambda: None
        started = self._dispatcher.invoke(context, call.service, call.operation, call.parameters, done, events=events)
        if started is not None and not started.is_closed:
            connection.calls[request] = started.abandon


class EventFrames:
    """The events of one call as frames; `kflow.aws.calls.EventStream` says what its methods promise."""

    def __init__(self, connection: Connection, request: int, operation: Operation) -> None:
        self.on_close: Callable[[], object] | None = None
        self._connection = connection
        self._request = request
        self._operation = operation
        self._output = LocalOutput()
        self._has_ended = False
        connection.calls[request] = self._gone

    @property
    def on_drain(self) -> Callable[[], object] | None:
        """Called when the peer has taken what was buffered. One stream a connection has it."""
        return self._connection.on_drain

    @on_drain.setter
    def on_drain(self, call: Callable[[], object] | None) -> None:
        self._connection.on_drain = None if self.is_closed else call

    @property
    def buffered(self) -> int:
        """Bytes the peer has not taken yet."""
        return self._connection.buffered

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._has_ended or self._connection.closed

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        """Send one event."""
        if not self.is_closed:
            read = self._output.event(self._operation, event, members)
            self._connection.send_event(self._request, wirecalls.CallEvent(name=event, members=read))

    def fail(self, error: KflowError) -> None:
        """End with an error."""
        self._end(wirecalls.CallEvent(error=_error(error), is_last=True))

    def end(self) -> None:
        """End without an error."""
        self._end(wirecalls.CallEvent(is_last=True))

    def _end(self, last: wirecalls.CallEvent) -> None:
        if not self.is_closed:
            self._connection.send_event(self._request, last)
        if not self._has_ended:
            self._has_ended = True
            self._connection.on_drain = None
            self._connection.calls.pop(self._request, None)

    def _gone(self) -> None:
        if self.on_close is not None:
            self.on_close()


def _answer(result: dict[str, Any] | KflowError, request_id: str) -> wirecalls.CallAnswer:
    if isinstance(result, KflowError):
        return wirecalls.CallAnswer(error=_error(result), request_id=request_id)
    return wirecalls.CallAnswer(output=result, request_id=request_id)


def _error(error: KflowError) -> wirecalls.CallError:
    if isinstance(error, AwsError):
        return wirecalls.CallError(code=error.code, message=str(error), status=error.http_status)
    log.error("a call failed error=%r", error)
    return wirecalls.CallError(code="InternalFailure", message=str(error), status=500)
