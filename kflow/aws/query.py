"""The query protocols: a form comes in, XML goes out. `query` of SNS, STS and IAM; `ec2` is a dialect of it.

    Action=Publish&Version=2010-03-31&MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.DataType=String

Source: documented: Smithy, AWS query protocol and EC2 query protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_plus

from kflow.aws import texts, xml
from kflow.aws.calls import Output
from kflow.aws.errors import SerializationFailed
from kflow.aws.eventstream import Vocabulary
from kflow.aws.failures import status_of
from kflow.aws.formats import Response
from kflow.aws.inflating import body_of
from kflow.aws.shapes import ListOf, MapOf, Member, Model, Operation, Shape, Structure
from kflow.errors import AwsError, InternalError
from kflow.web.exchange import Exchange

_FORM: Final = "application/x-www-form-urlencoded"
_XML: Final = ((b"Content-Type", b"text/xml"),)
_DEEPEST: Final = 64
"""Dots in a name; no model goes so deep."""

Tree = dict[str | None, Any]
"""Of a form's names, cut at dots; the text of a name is under None, which no name is."""


class _Refused(AwsError):
    http_status = 400
    sender_fault = True


class InvalidAction(_Refused):
    """The service has no such operation."""

    code = "InvalidAction"


class MalformedInput(_Refused):
    """The form does not hold what the operation takes."""

    code = "MalformedInput"


class Query:
    """The query protocol. Stateless; belongs to the loop.

    Attributes:
        name: as models call it.
    """

    name = "query"

    def route(self, models: Sequence[Model], exchange: Exchange) -> Operation | None:
        """By `Action`, and `Version` where several services have the action."""
        form = form_of(exchange)
        action = form.get("Action")
        if not action:
            return None
        version = form.get("Version")
        near = [model for model in models if version in (None, model.api_version)]
        for model in near or models:
            operation = model.operation(action)
            if operation is not None:
                return operation
        if near:
            raise InvalidAction(f"Could not find operation {action} for version {version or near[0].api_version}")
        return None

    def parse(self, operation: Operation, exchange: Exchange) -> Mapping[str, Any]:
        """The input out of the form. What the model does not know is passed over."""
        if operation.input is None:
            return {}
        tree: Tree = {}
        for name, value in form_of(exchange).items():
            node = tree
            for part in name.split(".", _DEEPEST):
                node = node.setdefault(part, {})
            node[None] = value
        try:
            return self._structure(operation.input, tree)
        except SerializationFailed as error:
            raise MalformedInput(str(error)) from error
        except RecursionError as error:
            raise MalformedInput("the input goes too deep") from error

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """`<PublishResponse><PublishResult>...</PublishResult><ResponseMetadata>...`."""
        shape = operation.output
        inside = [] if shape is None else xml.members_of(shape, output or {})
        wrapper = operation.output_reference.get("resultWrapper")
        result = xml.element(wrapper, inside) if wrapper else inside
        metadata = f"<ResponseMetadata><RequestId>{xml.escape(request_id)}</RequestId></ResponseMetadata>"
        return self._answer(operation, (*result, metadata))

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """`<ErrorResponse><Error><Type>...`."""
        kind = "Sender" if error.sender_fault else "Receiver"
        named = f"<RequestId>{xml.escape(request_id)}</RequestId>"
        inside = f"<Error><Type>{kind}</Type>{code_and_message(error, operation)}</Error>{named}"
        attributes = "" if operation is None else xml.namespace(operation.model.metadata)
        return Response(
            status_of(operation, error), _XML, _document(xml.element("ErrorResponse", (inside,), attributes))
        )

    def vocabulary(self, operation: Operation) -> Vocabulary:
        """There are no events in these protocols."""
        raise InternalError(f"{operation} cannot have events: its protocol is {self.name}")

    def _answer(self, operation: Operation, inside: Iterable[str]) -> Response:
        attributes = xml.namespace(operation.model.metadata)
        body = _document(xml.element(f"{operation.name}Response", inside, attributes))
        return Response(operation.http_status, _XML, body)

    def _structure(self, shape: Structure, tree: Tree) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, member in shape.members.items():
            value = self._member(member, tree)
            if value is not None:
                found[name] = value
        return found

    def _name(self, member: Member) -> str:
        return member.wire_name

    def _member(self, member: Member, tree: Tree) -> Any:
        """A member's value; None: the form has none."""
        shape = member.shape
        name = self._name(member)
        node = tree.get(name)
        if member.trait("flattened"):
            if isinstance(shape, ListOf):
                inner = shape.element.location_name
                node = tree.get(inner, node) if inner else node
                return None if node is None else self._list(shape, node)
            if isinstance(shape, MapOf):
                return None if node is None else self._map(shape, node)
        return None if node is None else self._value(shape, node)

    def _value(self, shape: Shape, node: Tree) -> Any:
        if isinstance(shape, Structure):
            return self._structure(shape, node)
        if isinstance(shape, ListOf):
            inner = shape.element.location_name or "member"
            return self._list(shape, node.get(inner) or node.get("member") or {})
        if isinstance(shape, MapOf):
            return self._map(shape, node.get("entry") or {})
        return texts.read(shape, node.get(None, ""))

    def _list(self, shape: ListOf, node: Tree) -> list[Any]:
        return [self._value(shape.element.shape, child) for child in _numbered(node)]

    def _map(self, shape: MapOf, node: Tree) -> dict[str, Any]:
        key, value = shape.key, shape.value
        found: dict[str, Any] = {}
        for child in _numbered(node):
            name = child.get(key.location_name or "key")
            part = child.get(value.location_name or "value")
            if name is None or part is None:
                raise SerializationFailed("an entry of a map has no key, or no value")
            found[name.get(None, "")] = self._value(value.shape, part)
        return found


class Ec2(Query):
    """EC2's dialect: lists have no names for their elements, and answers no wrapper."""

    name = "ec2"

    def serialise(self, operation: Operation, output: Output, request_id: str) -> Response:
        """`<DescribeRegionsResponse><requestId>...</requestId>...`."""
        shape = operation.output
        inside = [] if shape is None else xml.members_of(shape, output or {})
        return self._answer(operation, (f"<requestId>{xml.escape(request_id)}</requestId>", *inside))

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """`<Response><Errors><Error>...`."""
        inside = (
            f"<Errors><Error>{code_and_message(error)}</Error></Errors><RequestID>{xml.escape(request_id)}</RequestID>"
        )
        return Response(status_of(operation, error), _XML, _document(xml.element("Response", (inside,))))

    def _name(self, member: Member) -> str:
        name: str = member.trait("queryName") or ""
        if name:
            return name
        name = member.location_name
        return name[:1].upper() + name[1:] if name else member.name

    def _member(self, member: Member, tree: Tree) -> Any:
        node = tree.get(self._name(member))
        if node is not None and isinstance(member.shape, ListOf):
            return self._list(member.shape, node)
        return None if node is None else self._value(member.shape, node)

    def _value(self, shape: Shape, node: Tree) -> Any:
        return self._list(shape, node) if isinstance(shape, ListOf) else super()._value(shape, node)


def code_and_message(error: AwsError, operation: Operation | None = None) -> str:
    """The two elements that all errors in XML have; the code as the model writes it on the wire."""
    modelled = None if operation is None else operation.model.error(error.code)
    code = error.code if modelled is None else modelled.error_code
    return f"<Code>{xml.escape(code)}</Code><Message>{xml.escape(str(error))}</Message>"


def _document(pieces: Iterable[str]) -> bytes:
    return xml.DECLARATION + "".join(pieces).encode(errors="replace")


def _numbered(node: Tree) -> list[Tree]:
    """The children that are numbered, in the order of their numbers."""
    found = [
        (int(name), child)
        for name, child in node.items()
        if name is not None and len(name) < 10 and name.isascii() and name.isdigit()
    ]
    found.sort(key=lambda pair: pair[0])
    return [child for _, child in found]


def form_of(exchange: Exchange) -> dict[str, str]:
    """The form of a body, or of a query; of a name that comes twice, the first."""
    form: dict[str, str] = {}
    if exchange.method == "POST" and exchange.headers.get("content-type", _FORM).startswith(_FORM):
        _add(form, body_of(exchange).decode(errors="replace"))
    _add(form, exchange.target.partition("?")[2])
    return form


def _add(form: dict[str, str], text: str) -> None:
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if name:
            form.setdefault(unquote_plus(name), unquote_plus(value))
