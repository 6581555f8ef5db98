"""What a protocol does for the door: from a request to values, from an output to a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kflow.aws.calls import Output
from kflow.aws.eventstream import Vocabulary
from kflow.aws.shapes import Model, Operation
from kflow.errors import AwsError
from kflow.web.exchange import Body, Exchange, Headers


class Response(NamedTuple):
    """What is sent; the door adds the headers that all answers have.

    Attributes:
        status: of HTTP.
        headers: with the content type.
        body: as a whole.
    """

    status: int
    headers: Headers
    body: Body


class Format(Protocol):
    """A protocol, for all services that speak it. Stateless but for what it has compiled; belongs to the loop.

    Attributes:
        name: as the models call it: `query`, `rest-json`, `rest-xml`, `ec2`; `Context.protocol` is the same.
    """

    name: str

    def route(self, models: Sequence[Model], exchange: Exchange) -> Operation | None:
        """Which operation is meant, of models that speak this protocol; None: none of theirs.

        Raises:
            AwsError: it is theirs, and they have no such operation.
        """
        ...

    def parse(self, operation: Operation, exchange: Exchange) -> Mapping[str, Any]:
        """The input's values by member name: str, int, float, bool, bytes, `Milliseconds`, lists, dicts.

        Types are right, constraints are not checked: the door does that.

        Raises:
            AwsError: the request is no input of this operation.
        """
        ...

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """The answer of a success."""
        ...

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """The answer of a failure; the operation where it is known."""
        ...

    def vocabulary(self, operation: Operation) -> Vocabulary:
        """How the events of its answer are written."""
        ...
