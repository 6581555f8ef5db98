"""The protocol of S3, Route 53 and CloudFront: paths, headers, and bodies of XML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kflow.aws import xml
from kflow.aws.errors import SerializationFailed
from kflow.aws.eventstream import Vocabulary
from kflow.aws.failures import status_of
from kflow.aws.formats import Response
from kflow.aws.query import code_and_message
from kflow.aws.rest import Rest
from kflow.aws.shapes import Member, Operation, Shape, Structure
from kflow.aws.vocabulary import vocabulary
from kflow.errors import AwsError


class RestXml(Rest):
    """REST with XML."""

    name = "rest-xml"
    content_type = b"application/xml"

    def own_headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """S3's clients look for the id under this name."""
        return [(b"x-amz-request-id", request_id.encode())]

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """`<Error>` of S3, `<ErrorResponse>` of all others."""
        named = f"<RequestId>{xml.escape(request_id)}</RequestId>"
        pieces: Iterable[str]
        if operation is None or operation.model.signing_name == "s3":
            pieces = xml.element("Error", (code_and_message(error), named))
        else:
            kind = "Sender" if error.sender_fault else "Receiver"
            inside = f"<Error><Type>{kind}</Type>{code_and_message(error)}</Error>"
            pieces = xml.element("ErrorResponse", (inside, named))
        headers = [*self.own_headers(request_id), (b"Content-Type", self.content_type)]
        return Response(status_of(operation, error), headers, _document(pieces))

    def words(self, operation: Operation) -> Vocabulary:
        """Events are XML too; nothing comes before the first."""
        return vocabulary(operation, _root, _failure, content_type="text/xml")

    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """See `Rest`."""
        if not isinstance(shape, Structure):
            raise SerializationFailed("the body is no structure")
        return xml.read_structure(shape, xml.parse(body))

    def read_members(self, shape: Structure, body: bytes) -> Mapping[str, Any]:
        """See `Rest`."""
        return xml.read_structure(shape, xml.parse(body)) if body else {}

    def write_payload(self, member: Member, value: Any) -> bytes:
        """See `Rest`."""
        shape = member.shape
        assert isinstance(shape, Structure)
        name = member.location_name or shape.name
        return _document(xml.structure(name, shape, value, xml.namespace_of(member)))

    def write_members(self, operation: Operation, shape: Structure, values: Mapping[str, Any]) -> bytes:
        """See `Rest`."""
        attributes = xml.namespace({"xmlNamespace": operation.input_reference.get("xmlNamespace")})
        return _document(xml.structure(shape.traits.get("locationName") or shape.name, shape, values, attributes))


def _root(shape: Structure, value: Mapping[str, Any]) -> bytes:
    return "".join(xml.structure(shape.name, shape, value)).encode(errors="replace")


def _failure(members: Mapping[str, Any]) -> bytes:
    return f"<Error><Message>{xml.escape(members['message'])}</Message></Error>".encode(errors="replace")


def _document(pieces: Iterable[str]) -> bytes:
    return xml.DECLARATION + "".join(pieces).encode(errors="replace")
