"""What the REST protocols share: values in paths, queries and headers, both ways. Their bodies are JSON or XML.

Source: documented: Smithy, HTTP binding traits.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_plus

import pybase64

from kflow.aws import texts
from kflow.aws.calls import Output
from kflow.aws.errors import SerializationFailed
from kflow.aws.eventstream import Vocabulary
from kflow.aws.formats import Response
from kflow.aws.routes import Routes
from kflow.aws.shapes import ListOf, MapOf, Member, Model, Operation, Scalar, Shape, Structure
from kflow.errors import AwsError
from kflow.web.exchange import Exchange

_LINE_ENDS = re.compile(r"[\r\n\0]+")
_IN_LIST = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)')
_QUOTED_AGAIN = re.compile(r"\\(.)")
_TYPES: Final = {"blob": b"application/octet-stream", "string": b"text/plain"}


class Rest(ABC):
    """A REST protocol. Keeps the routes of each model; belongs to the loop.

    Attributes:
        name: as models call it.
        content_type: of bodies that are structures.
    """

    name: str
    content_type: bytes

    def __init__(self) -> None:
        self._routes: dict[str, Routes] = {}
        self._vocabularies: dict[tuple[str, str], Vocabulary] = {}

    def route(self, models: Sequence[Model], exchange: Exchange) -> Operation | None:
        """By method, path and query."""
        path, query = _target(exchange)
        for model in models:
            found = self._of(model).find(exchange.method, path, query, exchange.headers)
            if found is not None:
                return found.operation
        return None

    def parse(self, operation: Operation, exchange: Exchange) -> Mapping[str, Any]:
        """The input out of path, query, headers and body."""
        shape = operation.input
        if shape is None:
            return {}
        path, query = _target(exchange)
        labels = self._of(operation.model).labels(operation, path)
        found: dict[str, Any] = {}
        value: Any
        for name, member in shape.members.items():
            match member.location:
                case "uri":
                    label = labels.get(member.wire_name)
                    value = None if label is None else texts.read(member.shape, label)
                case "querystring":
                    value = _from_query(shape, operation, member, query)
                case "header":
                    text = exchange.headers.get(member.wire_name.lower())
                    value = None if text is None else _from_header(member, text)
                case "headers":
                    value = _by_prefix(member, exchange.headers)
                case _:
                    continue
            if value is not None:
                found[name] = value
        try:
            self._add_body(shape, exchange, found)
        except RecursionError as error:
            raise SerializationFailed("the input goes too deep") from error
        return found

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """The answer of a success."""
        shape = operation.output
        headers = self.own_headers(request_id)
        if shape is None:
            return Response(operation.http_status, headers, b"")
        values = output or {}
        status = operation.http_status
        has_type = False
        for name, member in shape.members.items():
            value = values.get(name)
            if value is None or not member.location:
                continue
            if member.location == "statusCode":
                status = int(value)
            elif member.location == "headers":
                headers += [(_header(f"{member.location_name}{key}"), _header(part)) for key, part in value.items()]
            elif not isinstance(member.shape, ListOf) or value:
                headers.append((_header(member.wire_name), _header(_to_header(member, value))))
                has_type = has_type or member.wire_name.lower() == "content-type"
        content_type, body = self._body(operation, shape, values)
        if content_type and not has_type:
            headers.append((b"Content-Type", content_type))
        return Response(status, headers, body)

    def vocabulary(self, operation: Operation) -> Vocabulary:
        """How the events of its answer are written."""
        key = operation.model.service, operation.name
        made = self._vocabularies.get(key)
        if made is None:
            made = self._vocabularies[key] = self.words(operation)
        return made

    def own_headers(self, request_id: str) -> list[tuple[bytes, bytes]]:  # noqa: ARG002  # of a dialect
        """Headers of every answer, besides the door's."""
        return []

    @abstractmethod
    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """The answer of a failure."""

    @abstractmethod
    def words(self, operation: Operation) -> Vocabulary:
        """Make the vocabulary of an operation."""

    @abstractmethod
    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """A body that is one member; not empty."""

    @abstractmethod
    def read_members(self, shape: Structure, body: bytes) -> Mapping[str, Any]:
        """A body that holds the members without a location; perhaps empty."""

    @abstractmethod
    def write_payload(self, member: Member, value: Any) -> bytes:
        """A body that is one member."""

    @abstractmethod
    def write_members(self, operation: Operation, shape: Structure, values: Mapping[str, Any]) -> bytes:
        """A body that holds members without a location; `values` has no others."""

    def _of(self, model: Model) -> Routes:
        found = self._routes.get(model.service)
        if found is None:
            found = self._routes[model.service] = Routes(model)
        return found

    def _add_body(self, shape: Structure, exchange: Exchange, found: dict[str, Any]) -> None:
        if not shape.payload:
            if any(not member.location for member in shape.members.values()):
                found.update(self.read_members(shape, exchange.body))
            return
        payload = shape.members[shape.payload].shape
        if not exchange.body:
            return
        if payload.kind == "blob":
            found[shape.payload] = exchange.body
        elif payload.kind == "string":
            try:
                found[shape.payload] = exchange.body.decode()
            except UnicodeDecodeError as error:
                raise SerializationFailed("the body is no UTF-8") from error
        else:
            found[shape.payload] = self.read_payload(payload, exchange.body)

    def _body(self, operation: Operation, shape: Structure, values: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Content type and body; neither where nothing of the output travels in a body."""
        if not shape.payload:
            inside = {name: value for name, value in values.items() if not shape.members[name].location}
            if not any(not member.location for member in shape.members.values()):
                return b"", b""
            return self.content_type, self.write_members(operation, shape, inside)
        member, value = shape.members[shape.payload], values.get(shape.payload)
        if value is None:
            return b"", b""
        kind = member.shape.kind
        if kind in _TYPES:
            return _TYPES[kind], value.encode() if isinstance(value, str) else bytes(value)
        return self.content_type, self.write_payload(member, value)


def _target(exchange: Exchange) -> tuple[str, list[tuple[str, str]]]:
    path, _, query = exchange.target.partition("?")
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    return path, [(unquote_plus(name), unquote_plus(value)) for name, value in pairs]


def _from_query(shape: Structure, operation: Operation, member: Member, query: Sequence[tuple[str, str]]) -> Any:
    kind = member.shape
    if isinstance(kind, MapOf):
        # What no other member and not the template has a name for.
        others = {other.wire_name for other in shape.members.values() if other.location == "querystring"}
        others |= {pair.partition("=")[0] for pair in operation.request_uri.partition("?")[2].split("&")}
        found: dict[str, Any] = {}
        for name, value in query:
            if name in others:
                continue
            if isinstance(kind.value.shape, ListOf):
                found.setdefault(name, []).append(texts.read(kind.value.shape.element.shape, value))
            else:
                found.setdefault(name, texts.read(kind.value.shape, value))
        return found or None
    values = [value for name, value in query if name == member.wire_name]
    if not values:
        return None
    if isinstance(kind, ListOf):
        return [texts.read(kind.element.shape, value) for value in values]
    return texts.read(kind, values[0])


def _from_header(member: Member, text: str) -> Any:
    shape = member.shape
    if isinstance(shape, ListOf):
        return [texts.read(shape.element.shape, part) for part in _listed(shape.element, text)]
    if member.trait("jsonvalue"):
        try:
            return pybase64.b64decode(text, validate=True).decode()
        except ValueError as error:
            raise SerializationFailed(f"header {member.wire_name} is no base64 of a text") from error
    return texts.read(shape, text)


def _listed(element: Member, text: str) -> list[str]:
    """The parts of a header: between commas, or in quotes; dates have one comma each."""
    if element.shape.kind == "timestamp" and texts.form_of(element, texts.HTTP) == texts.HTTP:
        parts = text.split(",")
        return [",".join(parts[at : at + 2]).strip() for at in range(0, len(parts), 2)]
    found = []
    at = 0
    while at < len(text):
        part = _IN_LIST.match(text, at)
        if part is None or part.end() == at:
            raise SerializationFailed(f"'{text[:100]}' is no list")
        found.append(part[2].strip() if part[1] is None else _QUOTED_AGAIN.sub(r"\1", part[1]))
        at = part.end()
    return found


def _to_header(member: Member, value: Any) -> str:
    shape = member.shape
    if isinstance(shape, ListOf):
        parts = [_to_header(shape.element, part) for part in value if part is not None]
        if shape.element.shape.kind == "string":
            parts = [f'"{part}"' if "," in part or '"' in part else part for part in map(_quotable, parts)]
        return ",".join(parts)
    if member.trait("jsonvalue"):
        return pybase64.b64encode_as_string(value.encode())
    assert isinstance(shape, Scalar)
    return texts.write(shape, value, texts.HTTP)


def _quotable(part: str) -> str:
    return part.replace('"', '\\"') if '"' in part else part


def _by_prefix(member: Member, headers: Mapping[str, str]) -> dict[str, str] | None:
    prefix = member.location_name.lower()
    return {name[len(prefix) :]: value for name, value in headers.items() if name.startswith(prefix)} or None


def _header(text: str) -> bytes:
    """As a line that is one: what could begin another line is a space."""
    return _LINE_ENDS.sub(" ", str(text)).encode("latin-1", "replace")
