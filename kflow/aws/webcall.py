"""A call that came over HTTP, and how it is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Protocol

from kflow.aws.calls import Context, EventStream, Output
from kflow.aws.columns import Columns
from kflow.aws.dispatch import CallLater
from kflow.aws.errors import InternalFailure
from kflow.aws.eventstream import CONTENT_TYPE, Events, Vocabulary
from kflow.aws.formats import Format, Response
from kflow.aws.shapes import Operation, Structure
from kflow.aws.slicing import is_long
from kflow.aws.wires import Wire, error_body
from kflow.errors import AwsError, KflowError, StorageError
from kflow.web.exchange import Body, Exchange, Headers

logger = logging.getLogger(__name__)

_LONG: Final = frozenset({Columns, list})


class Writer(Protocol):
    """Turns outputs and errors into responses."""

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """A success."""
        ...

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """A failure."""
        ...

    def vocabulary(self, operation: Operation) -> Vocabulary:
        """How the events of its answer are written."""
        ...


class WireWriter:
    """Of AWS's JSON protocol, in one of its encodings.

    Attributes:
        call_later: of the loop.
        head: what all answers have.
    """

    def __init__(self, wire: Wire, call_later: CallLater) -> None:
        self.call_later = call_later
        self._write = wire.write
        self._wire = wire
        self.head: Headers = ((b"Content-Type", wire.content_type),)
        self._empty: Mapping[str, Any] = {}
        self.vocabulary = wire.vocabulary

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:  # noqa: ARG002 # as `Writer`
        """See `Writer`. Without an output shape the body is empty."""
        return Response(operation.http_status, self.head, self.body(operation, output))

    def body(self, operation: Operation, output: Output) -> bytes:
        """A success, without what is around it. Raises what a wrong output raises."""
        shape = operation.output
        return b"" if shape is None else self._write(shape, self._empty if output is None else output)

    def sliced(self, operation: Operation, output: Output) -> Generator[None, None, Response] | None:
        """The same, a slice a step; None where it is short."""
        shape = operation.output
        if output is None or shape is None or _LONG.isdisjoint(map(type, output.values())):
            return None
        for value in output.values():
            if type(value) in _LONG and is_long(value):
                return self._slices(operation, shape, output)
        return None

    def _slices(
        self, operation: Operation, shape: Structure, output: Mapping[str, Any]
    ) -> Generator[None, None, Response]:
        body = yield from self._wire.write_sliced(shape, output)
        return Response(operation.http_status, self.head, body)

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:  # noqa: ARG002 # as above
        """See `Writer`. Where a service spoke the query protocol once, its code of that time is said too.

        Source: documented: Smithy, awsQueryCompatible trait.
        """
        if operation is None or "awsQueryCompatible" not in operation.model.metadata:
            return Response(error.http_status, self.head, error_body(self._wire, error))
        kind = "Sender" if error.sender_fault else "Receiver"
        modelled = operation.model.error(error.code)
        name = error.query_code or (error.code if modelled is None else modelled.error_code)
        code = (b"x-amzn-query-error", f"{name};{kind}".encode())
        body = error_body(self._wire, error, f"com.amazonaws.{operation.model.service}#")
        return Response(error.http_status, (*self.head, code), body)


class WebCall:
    """`kflow.aws.calls.Call` over an exchange."""

    __slots__ = ("_exchange", "_head", "_is_answered", "_operation", "_writer", "context")

    def __init__(
        self, exchange: Exchange, context: Context, operation: Operation, writer: Writer | Format, head: Headers
    ) -> None:
        self.context = context
        self._exchange = exchange
        self._operation = operation
        self._writer = writer
        self._head = head
        self._is_answered = False

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_answered or self._exchange.is_closed

    @property
    def on_close(self) -> Callable[[], object] | None:
        """Called once if the peer goes away before the answer."""
        return self._exchange.on_close

    @on_close.setter
    def on_close(self, call: Callable[[], object] | None) -> None:
        self._exchange.on_close = call

    def answer(self, output: Output, then: Callable[[], object] | None = None) -> None:
        """It worked."""
        work = None
        if not self._is_answered or self._ends():
            self._is_answered = True
            work = self._serialised(output)
        if work is not None:
            self._go_on(work, then)
        elif then is not None:
            then()

    def _serialised(self, output: Output) -> Generator[None, None, Response] | None:
        """Respond; or what there is to do before, a slice a step."""
        writer = self._writer
        try:
            if isinstance(writer, WireWriter):
                work = writer.sliced(self._operation, output)
                if work is not None:
                    return work
                status, headers = self._operation.http_status, writer.head
                body: Body = writer.body(self._operation, output)
            else:
                status, headers, body = writer.serialise(self._operation, output, self.context.request_id)
        except Exception as error:  # noqa: BLE001 # whatever a method returns, the caller gets an answer
            self._fail(error)
        else:
            self._exchange.respond(status, [*self._head, *headers], body)
        return None

    def _go_on(self, work: Generator[None, None, Response], then: Callable[[], object] | None) -> None:
        """Write a slice, and the next in a round to come."""
        if not self._exchange.is_closed:
            try:
                next(work)
            except StopIteration as end:
                response: Response = end.value
                self._exchange.respond(response.status, [*self._head, *response.headers], response.body)
            except Exception as error:  # noqa: BLE001 # as above
                self._fail(error)
            else:
                assert isinstance(self._writer, WireWriter), "others write at once"
                self._writer.call_later(0, lambda: self._go_on(work, then))
                return
        if then is not None:
            then()

    def refuse(self, error: KflowError) -> None:
        """It did not work."""
        if self._ends():
            self._fail(error)

    def stream(self, output: Output = None) -> EventStream:
        """It worked, and events follow."""
        vocabulary = self._writer.vocabulary(self._operation)
        self._is_answered = True
        head = [*self._head, (b"Content-Type", CONTENT_TYPE.encode())]
        if output is not None and not isinstance(self._writer, WireWriter):
            head += self._writer.serialise(self._operation, output, self.context.request_id).headers
        return Events(self._exchange.stream(self._operation.http_status, head), vocabulary)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, AwsError):
            operation = f"{self._operation.model.service}.{self._operation.name}"
            if isinstance(error, StorageError):  # it says all, and on a full disk there are thousands
                logger.error("a call failed operation=%s: %s", operation, error)
                # SDKs go by status and code, and try again; the text says what people can do.
                error = InternalFailure(f"kflow: {error}")
            else:
                logger.error("a call failed operation=%s", operation, exc_info=error)
                error = InternalFailure()
        response = self._writer.error(self._operation, error, self.context.request_id)
        self._exchange.respond(response.status, [*self._head, *response.headers], response.body)

    def _ends(self) -> bool:
        if self._is_answered:
            logger.error("a call was answered twice operation=%s", self._operation.name)
            return False
        self._is_answered = True
        return True
