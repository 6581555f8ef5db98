"""From an operation's name to the service's method, and from what the method returns to an answer.

A call is answered once: at once, in slices of a generator with others served between them, or later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple

from kflow.aws.calls import LATER, Call, Context, EventStream, Method, Output, Service
from kflow.aws.coerce import Coercion
from kflow.aws.dict_input import DictInput
from kflow.aws.errors import InternalFailure, NotSpoken, UnknownOperation
from kflow.aws.json_input import JsonInput
from kflow.aws.local import Lenient, LocalOutput
from kflow.aws.shapes import Model, Operation
from kflow.errors import AwsError, KflowError
from kflow.web.exchange import Timer

logger = logging.getLogger(__name__)

_BINARY = Coercion(is_text=False)
_LOCAL = Lenient()

CallLater = Callable[[float, Callable[[], object]], Timer]
"""Call once, so many seconds from now, on the loop."""

Before = Callable[[str, str, Context], AwsError | float | None]
"""Asked before each call, with service, operation and context: an error refuses it, seconds hold it back."""


class Deferred(NamedTuple):
    """A service that is made when it is first called, and until then costs nothing.

    Attributes:
        signing_name: in the credential scope.
        target_prefix: of the `X-Amz-Target` header, without the dot; empty where the service speaks no JSON.
        json_version: `1.0` or `1.1`; empty as above.
        make: makes it, and its model; on the loop.
    """

    signing_name: str
    target_prefix: str
    json_version: str
    make: Callable[[], tuple[Service, Model]]


Done = Callable[[dict[str, Any] | KflowError], object]

Open = Callable[[Operation], EventStream]
"""Told that a call was accepted, and events follow: returns where they go."""


class Bound:
    """An operation and who performs it.

    Attributes:
        service: name of the service.
        operation: of the model.
        method: the service's; None: kflow has none.
    """

    __slots__ = ("_binary_input", "_json_input", "_local_input", "method", "operation", "service")

    def __init__(self, service: str, operation: Operation, method: Method | None) -> None:
        self.service = service
        self.operation = operation
        self.method = method
        self._json_input: JsonInput | None = None
        self._binary_input: DictInput | None = None
        self._local_input: DictInput | None = None

    @property
    def json_input(self) -> JsonInput:
        """Reads JSON."""
        if self._json_input is None:
            self._json_input = JsonInput(self.operation)
        return self._json_input

    @property
    def binary_input(self) -> DictInput:
        """Reads what CBOR holds."""
        if self._binary_input is None:
            self._binary_input = DictInput(self.operation, _BINARY)
        return self._binary_input

    @property
    def local_input(self) -> DictInput:
        """Reads what boto3 takes, and what other protocols have parsed."""
        if self._local_input is None:
            self._local_input = DictInput(self.operation, _LOCAL)
        return self._local_input


class Dispatcher:
    """All services of an endpoint. Belongs to the loop's thread.

    Attributes:
        models: by service name.
        deferred: services that nobody has called yet, by name.
        call_later: of the loop.
    """

    def __init__(
        self,
        services: Iterable[Service],
        models: Mapping[str, Model],
        *,
        call_later: CallLater,
        before: Before | None = None,
        deferred: Mapping[str, Deferred] | None = None,
    ) -> None:
        self.deferred = dict(deferred or {})
        self._services = {service.service_name: service for service in services}
        self.models = {name: models[name] for name in self._services}
        self.call_later = call_later
        self._before = before
        self._bound: dict[tuple[str, str], Bound] = {}
        self._local_output = LocalOutput()

    def bound(self, service: str, operation: str) -> Bound | None:
        """An operation by service and name; None: there is none of that name."""
        found = self._bound.get((service, operation))
        if found is None and self.knows(service):
            self._make(service)
            known = self.models[service].operation(operation)
            if known is not None:
                method = getattr(self._services[service], known.method_name, None)
                found = self._bound[service, operation] = Bound(service, known, method)
        return found

    def knows(self, service: str) -> bool:
        """Whether there is a service of that name."""
        return service in self.models or service in self.deferred

    def _make(self, service: str) -> None:
        """Make a service that is called for the first time."""
        if service not in self.models:
            self._services[service], self.models[service] = self.deferred[service].make()
            del self.deferred[service]

    def run(self, bound: Bound, call: Call, given: Any) -> None:
        """Have a call performed, after what must be asked before. Raises nothing."""
        if self._before is not None:
            verdict = self._before(bound.service, bound.operation.name, call.context)
            if isinstance(verdict, AwsError):
                call.refuse(verdict)
                return
            if verdict is not None:
                self.call_later(verdict, lambda: self._perform(bound, call, given))
                return
        self._perform(bound, call, given)

    def invoke(
        self,
        context: Context,
        service: str,
        operation: str,
        parameters: Mapping[str, Any],
        done: Done,
        *,
        events: Open | None = None,
    ) -> LocalCall | None:
        """Perform a call that comes from this process.

        Args:
            context: who calls.
            service: its name, for example `kinesis`.
            operation: as on the wire, for example `PutRecord`.
            parameters: as boto3 takes them: blobs are bytes or str, timestamps datetimes or seconds since the epoch.
            done: called once, on the loop, perhaps before this returns: with the output as boto3 gives it (blobs are
                bytes, timestamps are datetimes in UTC; no `ResponseMetadata`), or with the error.
            events: called instead of `done` where the answer goes on; None: such operations are refused.

        Returns:
            The call, for whoever may lose interest in its answer; None where it was refused already.
        """
        bound = self.bound(service, operation)
        if bound is None:
            done(UnknownOperation(f"{service} has no operation {operation}"))
            return None
        try:
            given = bound.local_input.quick(parameters) or bound.local_input.exact(parameters)
        except AwsError as error:
            done(error)
            return None
        call = LocalCall(context, bound.operation, self._local_output, done, events)
        self.run(bound, call, given)
        return call

    def _perform(self, bound: Bound, call: Call, given: Any) -> None:
        if call.is_closed:
            return
        if bound.method is None:
            call.refuse(NotSpoken(f"kflow does not perform {bound.service}.{bound.operation.name}; call AWS for it"))
            return
        try:
            answer = bound.method(call, given)
        except KflowError as error:
            call.refuse(error)
        except Exception as error:  # noqa: BLE001 # whatever a method raises, others must be served
            call.refuse(_broken(bound, error))
        else:
            if answer is LATER:
                return
            if type(answer) is dict:
                call.answer(answer)
            elif isinstance(answer, Generator):
                self._slice(bound, call, answer)
            else:
                call.answer(answer)  # type: ignore[arg-type] # what is neither is an output

    def _slice(self, bound: Bound, call: Call, work: Generator[None, None, Output]) -> None:
        """One slice, and the next in a later round of the loop."""
        try:
            if call.is_closed:
                work.close()
                return
            next(work)
        except StopIteration as end:
            call.answer(end.value)
        except KflowError as error:
            call.refuse(error)
        except Exception as error:  # noqa: BLE001 # as above
            failure = _broken(bound, error)
            if not call.is_closed:
                call.refuse(failure)
        else:
            self.call_later(0, lambda: self._slice(bound, call, work))


def _broken(bound: Bound, error: Exception) -> InternalFailure:
    logger.error("a method broke operation=%s.%s", bound.service, bound.operation.name, exc_info=error)
    return InternalFailure()


class LocalCall:
    """A call from this process, or from one that speaks to it without HTTP."""

    __slots__ = ("_done", "_events", "_is_abandoned", "_operation", "_output", "context", "is_closed", "on_close")

    def __init__(
        self, context: Context, operation: Operation, output: LocalOutput, done: Done, events: Open | None
    ) -> None:
        self.context = context
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None
        self._operation = operation
        self._output = output
        self._done = done
        self._events = events
        self._is_abandoned = False

    def abandon(self) -> None:
        """Nobody waits for the answer any more. Does nothing where it was given."""
        if not self.is_closed:
            self.is_closed = self._is_abandoned = True
            if self.on_close is not None:
                self.on_close()

    def answer(self, output: Output, then: Callable[[], object] | None = None) -> None:
        """See `kflow.aws.calls.Call`."""
        if then is not None:
            then()  # it is made at once
        if self._ends():
            try:
                result = self._output.read(self._operation, output)
            except Exception:
                logger.exception("an output is none of %s", self._operation.name)
                self._done(InternalFailure())
            else:
                self._done(result)

    def refuse(self, error: KflowError) -> None:
        """See `kflow.aws.calls.Call`."""
        if self._ends():
            self._done(error)

    def stream(self, output: Output = None) -> EventStream:
        """See `kflow.aws.calls.Call`. There are no headers here."""
        del output
        if self._events is None:
            raise NotSpoken(f"the events of {self._operation.name} come over HTTP only")
        self._ends()
        return self._events(self._operation)

    def _ends(self) -> bool:
        if self.is_closed:
            if not self._is_abandoned:
                logger.error("a call was answered twice operation=%s", self._operation.name)
            return False
        self.is_closed = True
        return True
