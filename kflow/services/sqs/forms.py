"""The query protocol as SQS has it: a queue may be named by the path, and errors have names of their own.

    POST /123456789012/jobs        Action=SendMessage&MessageBody=hello

Source: recorded: requests and answers of the query protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kflow.aws import xml
from kflow.aws.formats import Response
from kflow.aws.query import InvalidAction, Query, form_of
from kflow.aws.shapes import Model, Operation
from kflow.errors import AwsError
from kflow.sqs.errors import QueueDoesNotExist
from kflow.web.exchange import Exchange

_MARKS: Final = ("Version=2012-11-05", "QueueUrl=")
_QUEUE: Final = re.compile(r"/[0-9]{12}/[A-Za-z0-9_.-]{1,80}/?")
_ELSEWHERE: Final = frozenset({"CreateQueue", "ListQueues"})
"""Operations that are not on a queue."""
_XML: Final = ((b"Content-Type", b"text/xml"),)


class _NoOperation(AwsError):
    """A queue's path alone."""

    code = "UnknownOperationException"
    http_status = 404
    sender_fault = True


def is_form(exchange: Exchange) -> bool:
    """Whether a request that nobody signed is meant for SQS: by a queue's path or URL, or by the version."""
    path, _, query = exchange.target.partition("?")
    if _QUEUE.fullmatch(path):
        return True
    return any(each in query or each.encode() in exchange.body for each in _MARKS)


class Forms(Query):
    """Stateless; belongs to the loop."""

    def route(self, models: Sequence[Model], exchange: Exchange) -> Operation | None:
        """By `Action`; its version may be left out."""
        action = form_of(exchange).get("Action")
        path, _, query = exchange.target.partition("?")
        is_queue = bool(_QUEUE.fullmatch(path))
        if not action:
            if is_queue and exchange.method == "GET" and not query:
                raise _NoOperation
            return None
        operation = models[0].operation(action)
        if operation is None or (is_queue and action in _ELSEWHERE):
            raise InvalidAction(f"The action {action} is not valid for this endpoint.")
        return operation

    def parse(self, operation: Operation, exchange: Exchange) -> Mapping[str, Any]:
        """The input out of the form, and the queue out of the path where the form does not name it."""
        values = super().parse(operation, exchange)
        path = exchange.target.partition("?")[0]
        if operation.input is None or "QueueUrl" not in operation.input.members or "QueueUrl" in values:
            return values
        return {**values, "QueueUrl": path} if _QUEUE.fullmatch(path) else values

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """As all query protocols have it, with an empty `Detail`, and the error's older name."""
        if isinstance(error, _NoOperation):
            return Response(404, _XML, b"<UnknownOperationException/>")
        text = str(error)
        if isinstance(error, QueueDoesNotExist):
            text = f"{text.removesuffix('.')} for this wsdl version."
        kind = "Sender" if error.sender_fault else "Receiver"
        inside = (
            f"<Error><Type>{kind}</Type><Code>{xml.escape(error.query_code or error.code)}</Code>"
            f"<Message>{xml.escape(text)}</Message><Detail/></Error><RequestId>{xml.escape(request_id)}</RequestId>"
        )
        attributes = "" if operation is None else xml.namespace(operation.model.metadata)
        document = "".join(xml.element("ErrorResponse", (inside,), attributes))
        return Response(error.http_status, _XML, xml.DECLARATION + document.encode(errors="replace"))
