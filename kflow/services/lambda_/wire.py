"""Lambda's REST protocol: which requests nobody signed are for it, and what its errors say besides their text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kflow.aws.calls import Output
from kflow.aws.formats import Response
from kflow.aws.json_output import encode
from kflow.aws.rest_json import RestJson
from kflow.aws.shapes import Model, Operation, Scalar, Structure
from kflow.errors import AwsError
from kflow.lambda_.control.encoded import LONG, cut
from kflow.lambda_.errors import LambdaError
from kflow.web.exchange import Exchange

_PATH: Final = re.compile(
    r"/20\d\d-\d\d-\d\d/(?:functions|event-source-mappings|layers|tags|account-settings|code-signing-configs)(?:[/?]|$)"
)


def is_lambda(exchange: Exchange) -> bool:
    """Whether a request that nobody signed is meant for Lambda: by its path."""
    return _PATH.match(exchange.target) is not None


_POSITIONS: Final = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")


def as_recorded(model: Model) -> Model:
    """The model, with the values of `StartingPosition` in the order in which AWS's refusal lists them (recorded)."""
    operation = model.operation("CreateEventSourceMapping")
    if operation is not None and operation.input is not None:
        shape = operation.input.members["StartingPosition"].shape
        if isinstance(shape, Scalar) and set(shape.enum) == set(_POSITIONS):
            shape.enum = _POSITIONS
    return model


class Wire(RestJson):
    """Keeps the routes; belongs to the loop."""

    def read_members(self, shape: Structure, body: bytes) -> Mapping[str, Any]:
        """See `Rest`. A long zip is left as it is, for a thread to decode."""
        found = cut(body) if len(body) > LONG else None
        if found is None:
            return super().read_members(shape, body)
        rest, encoded = found
        values = dict(super().read_members(shape, rest))
        holder = values if "ZipFile" in values else values.get("Code") or values.get("Content")
        if not isinstance(holder, dict) or holder.get("ZipFile") != b"":
            return super().read_members(shape, body)  # it was something else of this name
        holder["ZipFile"] = encoded
        return values

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """As all REST protocols have it; responses of functions are JSON."""
        response = super().serialise(operation, output, request_id)
        if operation.name != "Invoke":
            return response
        return response._replace(headers=[*map(_as_json, response.headers)])

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """As all REST protocols have it, with the reason of a throttle."""
        response = super().error(operation, error, request_id)
        if not isinstance(error, LambdaError) or not error.members:
            return response
        assert isinstance(response.body, bytes), "an error is short"
        body = msgspec.json.decode(response.body)
        return response._replace(body=encode({**error.members, **body}))


def _as_json(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    return (header[0], b"application/json") if header[0] == b"Content-Type" else header
