"""The protocol of Lambda, API Gateway and Kinesis Video Streams: paths, headers, and bodies of JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kflow.aws import texts
from kflow.aws.coerce import Coercion
from kflow.aws.errors import SerializationFailed
from kflow.aws.eventstream import Vocabulary
from kflow.aws.failures import status_of
from kflow.aws.formats import Response
from kflow.aws.json_input import plain
from kflow.aws.json_output import JsonOutput, encode
from kflow.aws.rest import Rest
from kflow.aws.shapes import Member, Operation, Shape, Structure
from kflow.aws.structs import FLOATS
from kflow.aws.vocabulary import vocabulary
from kflow.errors import AwsError


class _Reader(Coercion):
    """As in the other JSON protocols, and timestamps may be texts."""

    def __init__(self) -> None:
        super().__init__(is_text=True)

    def value(self, shape: Shape, value: Any) -> Any:
        """Any value but null."""
        if shape.kind == "timestamp" and isinstance(value, str):
            return texts.read_time(value)
        return super().value(shape, value)


class _Writer(JsonOutput):
    """As in the other JSON protocols, and a timestamp is what its shape says."""

    def _prepare(self, shape: Shape) -> Callable[[Any], Any] | None:
        if shape.kind == "timestamp" and (form := shape.traits.get("timestampFormat", texts.UNIX)) != texts.UNIX:
            return lambda value: texts.write_time(value, form)
        if shape.kind in FLOATS:
            return _number
        return super()._prepare(shape)


class RestJson(Rest):
    """REST with JSON."""

    name = "rest-json"
    content_type = b"application/json"

    def __init__(self) -> None:
        super().__init__()
        self._reader = _Reader()
        self._writers: dict[str, _Writer] = {}

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """The code is in a header, the text in the body."""
        shape = None if operation is None else operation.model.error(error.code)
        named = {} if shape is None else {member.wire_name: member.name for member in shape.members.values()}
        key = next((name for name in ("message", "Message", "errorMessage") if name in named), "message")
        body = {key: str(error)}
        if "Type" in named:  # documented: Lambda, errors: `User` or `Service`
            body["Type"] = "User" if error.sender_fault else "Service"
        headers = [
            *self.own_headers(request_id),
            (b"x-amzn-ErrorType", error.code.encode()),
            (b"Content-Type", self.content_type),
        ]
        return Response(status_of(operation, error), headers, encode(body))

    def words(self, operation: Operation) -> Vocabulary:
        """Events are JSON too; nothing comes before the first."""
        return vocabulary(operation, self._writer(operation).bytes_of, encode, content_type="application/json")

    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """See `Rest`."""
        return self._reader.value(shape, _json(body))

    def read_members(self, shape: Structure, body: bytes) -> Mapping[str, Any]:
        """See `Rest`."""
        if not body:
            return {}
        given = plain(body)
        found = {}
        for name, member in shape.members.items():
            value = None if member.location else given.get(member.wire_name)
            if value is not None:
                found[name] = self._reader.value(member.shape, value)
        return found

    def write_payload(self, member: Member, value: Any) -> bytes:
        """See `Rest`."""
        shape = member.shape
        if isinstance(shape, Structure) and not shape.is_document:
            return self._writer(shape).bytes_of(shape, value)
        return encode(value)

    def write_members(self, operation: Operation, shape: Structure, values: Mapping[str, Any]) -> bytes:
        """See `Rest`."""
        return self._writer(operation).bytes_of(shape, values)

    def _writer(self, of: Operation | Shape) -> _Writer:
        """One a model, for names of shapes are unique within it."""
        service = of.model.service
        found = self._writers.get(service)
        if found is None:
            found = self._writers[service] = _Writer()
        return found


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationFailed("the body is no JSON") from error


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else texts.write_float(value)
