"""Refusals of services that are not here, in words that the callers' SDKs can read: each protocol has its own form."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol
from xml.sax.saxutils import escape

import msgspec

from kflow.aws import cbor
from kflow.web.exchange import Exchange, Headers

STATUS: Final = 501
CODE: Final = "NotImplemented"
_S3: Final = frozenset({"s3", "s3express", "s3-outposts", "s3-object-lambda"})
_REST_XML: Final = frozenset({"cloudfront", "route53"})
"""By the names that requests are signed for. Source: documented: the models in botocore; others speak JSON."""
_XML: Final = (b"Content-Type", b"text/xml")


class Signee(Protocol):
    """A service, as far as its signatures go: a `Model`, or what is known of a stranger."""

    @property
    def signing_name(self) -> str:
        """In credential scopes."""
        ...

    @property
    def protocol(self) -> str:
        """As models say."""
        ...


class _Stranger(NamedTuple):
    signing_name: str
    protocol: str


def signee(exchange: Exchange, signing_name: str) -> Signee:
    """Whose request it is, by what its protocol looks like.

    Args:
        exchange: the request.
        signing_name: of the service; empty where it is not signed.
    """
    if "x-amz-target" in exchange.headers:
        protocol = "json"
    elif signing_name in _REST_XML or signing_name in _S3:
        protocol = "rest-xml"
    else:
        is_form = exchange.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        protocol = "query" if is_form else "rest-json"
    return _Stranger(signing_name, protocol)


def refusal(
    exchange: Exchange, signing_name: str, text: str, request_id: str, code: str = CODE
) -> tuple[Headers, bytes]:
    """Headers and body of the answer to a request of a service that is not here.

    Args:
        exchange: the request.
        signing_name: of the service, as the request is signed for it.
        text: what is wrong, and what to do.
        request_id: of this request.
        code: of the error; JSON's have `Exception` behind it.
    """
    content_type = exchange.headers.get("content-type", "")
    if exchange.headers.get("smithy-protocol") == "rpc-v2-cbor":
        headers = [(b"Content-Type", b"application/cbor"), (b"smithy-protocol", b"rpc-v2-cbor")]
        return headers, cbor.encode({"__type": f"{code}Exception", "message": text})
    if "x-amz-target" in exchange.headers:
        body = msgspec.json.encode({"__type": f"{code}Exception", "message": text})
        return [(b"Content-Type", content_type.encode("latin-1") or b"application/x-amz-json-1.1")], body
    error = f"<Code>{code}</Code><Message>{escape(text)}</Message>"
    if signing_name in _S3:
        return [_XML], f"<Error>{error}<RequestId>{request_id}</RequestId></Error>".encode()
    if signing_name == "ec2":
        errors = f"<Errors><Error>{error}</Error></Errors>"
        return [_XML], f"<Response>{errors}<RequestID>{request_id}</RequestID></Response>".encode()
    if signing_name in _REST_XML or content_type.startswith("application/x-www-form-urlencoded"):
        inner = f"<Error><Type>Sender</Type>{error}</Error><RequestId>{request_id}</RequestId>"
        return [_XML], f"<ErrorResponse>{inner}</ErrorResponse>".encode()
    headers = [(b"Content-Type", b"application/json"), (b"x-amzn-ErrorType", f"{code}Exception".encode())]
    return headers, msgspec.json.encode({"message": text})
