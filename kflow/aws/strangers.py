"""Refusals of services that are not here, in words that the callers' SDKs can read: each protocol has its own form."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

import msgspec

from kflow.web.exchange import Exchange, Headers

STATUS: Final = 501
CODE: Final = "NotImplemented"
_S3: Final = frozenset({"s3", "s3express", "s3-outposts", "s3-object-lambda"})
_REST_XML: Final = frozenset({"cloudfront", "route53"})
"""By the names that requests are signed for. Source: documented: the models in botocore; others speak JSON."""
_XML: Final = (b"Content-Type", b"text/xml")


def refusal(exchange: Exchange, signing_name: str, text: str, request_id: str) -> tuple[Headers, bytes]:
    """Headers and body of the answer to a request of a service that is not here.

    Args:
        exchange: the request.
        signing_name: of the service, as the request is signed for it.
        text: what is wrong, and what to do.
        request_id: of this request.
    """
    content_type = exchange.headers.get("content-type", "")
    if "x-amz-target" in exchange.headers:
        body = msgspec.json.encode({"__type": f"{CODE}Exception", "message": text})
        return [(b"Content-Type", content_type.encode("latin-1") or b"application/x-amz-json-1.1")], body
    error = f"<Code>{CODE}</Code><Message>{escape(text)}</Message>"
    if signing_name in _S3:
        return [_XML], f"<Error>{error}<RequestId>{request_id}</RequestId></Error>".encode()
    if signing_name == "ec2":
        errors = f"<Errors><Error>{error}</Error></Errors>"
        return [_XML], f"<Response>{errors}<RequestID>{request_id}</RequestID></Response>".encode()
    if signing_name in _REST_XML or content_type.startswith("application/x-www-form-urlencoded"):
        inner = f"<Error><Type>Sender</Type>{error}</Error><RequestId>{request_id}</RequestId>"
        return [_XML], f"<ErrorResponse>{inner}</ErrorResponse>".encode()
    headers = [(b"Content-Type", b"application/json"), (b"x-amzn-ErrorType", f"{CODE}Exception".encode())]
    return headers, msgspec.json.encode({"message": text})
