"""The query protocol of the services that speak nothing else, STS and SNS, and of CloudWatch, which spoke it first."""

from __future__ import annotations

from typing import Final

from kflow.aws.formats import Response
from kflow.aws.query import Query
from kflow.aws.shapes import Operation
from kflow.errors import AwsError, ValidationFailed
from kflow.web.exchange import Exchange

SERVICES: Final = {"sts": "2011-06-15", "sns": "2010-03-31", "cloudwatch": "2010-08-01"}
"""Version of the API by service."""
_UNSUBSCRIBE: Final = "Action=Unsubscribe&SubscriptionArn="
"""The link that each notification holds, for people who click on it."""


def service_of(exchange: Exchange) -> str:
    """The service that a request is meant for which nobody signed; empty: none of these."""
    query = exchange.target.partition("?")[2]
    for service, version in SERVICES.items():
        mark = f"Version={version}"
        if mark in query or mark.encode() in exchange.body:
            return service
    return "sns" if query.startswith(_UNSUBSCRIBE) else ""


class Forms(Query):
    """Stateless; belongs to the loop."""

    def error(self, operation: Operation | None, error: AwsError, request_id: str) -> Response:
        """As all query protocols have it; what breaks a constraint of the model is a `ValidationError` here.

        Source: recorded: answers of STS and SNS.
        """
        if isinstance(error, ValidationFailed) or error.query_code == _Invalid.code:
            error = _Invalid(str(error))
        return super().error(operation, error, request_id)


class _Invalid(AwsError):
    code = "ValidationError"
    http_status = 400
    sender_fault = True
