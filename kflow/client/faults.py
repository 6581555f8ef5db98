"""Errors as boto3 raises them: a subclass of botocore's `ClientError` for each of AWS's codes, made when needed."""

from __future__ import annotations

import functools
import uuid
from typing import Any, NoReturn

from kflow.errors import AwsError, KflowError


def metadata(status: int = 200, request_id: str = "") -> dict[str, Any]:
    """`ResponseMetadata` of a response; a new id where the call has none."""
    request_id = request_id or str(uuid.uuid4())
    return {
        "RequestId": request_id,
        "HTTPStatusCode": status,
        "HTTPHeaders": {"x-amzn-requestid": request_id, "content-type": "application/x-amz-json-1.1"},
        "RetryAttempts": 0,
    }


@functools.cache
def client_error() -> type[Exception]:
    """Botocore's `ClientError`."""
    from botocore.exceptions import ClientError  # tenths of a second, paid by the first error only

    found: type[Exception] = ClientError
    return found


@functools.cache
def error_class(code: str) -> type[Exception]:
    """The class of a code; the same object each time, so that `except client.exceptions.X` finds it."""
    return type(code, (client_error(),), {"__module__": __name__})


def raise_as_client_error(error: KflowError, operation: str) -> NoReturn:
    """Raise what boto3 would raise.

    Args:
        error: an `AwsError` keeps its code; anything else is AWS's `InternalFailure`, with our text.
        operation: AWS's name of the operation.
    """
    code = error.code if isinstance(error, AwsError) else "InternalFailure"
    status = error.http_status if isinstance(error, AwsError) else 500
    response = {"Error": {"Message": str(error), "Code": code}, "ResponseMetadata": metadata(status)}
    raise error_class(code)(response, operation) from error


def raise_event_error(code: str, message: str, operation: str) -> NoReturn:
    """Raise what boto3 raises for an error within a stream of events."""
    from botocore.exceptions import EventStreamError

    raise EventStreamError({"Error": {"Message": message, "Code": code}}, operation)


class Exceptions:
    """`client.exceptions`: `ClientError`, and a class for each of AWS's codes."""

    @property
    def ClientError(self) -> type[Exception]:  # noqa: N802  # boto3's name
        """The base of all."""
        return client_error()

    def __getattr__(self, code: str) -> type[Exception]:
        if not code.endswith("Exception") and code != "InternalFailure":
            raise AttributeError(f"there is no error {code!r}; AWS's codes end in Exception")
        return error_class(code)
