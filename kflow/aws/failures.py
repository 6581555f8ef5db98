"""What an error is called on the wire, whatever the protocol: its status and its code."""

from __future__ import annotations

from kflow.aws.shapes import Operation
from kflow.errors import AwsError, ValidationFailed


def status_of(operation: Operation | None, error: AwsError) -> int:
    """The model's status of an error, else the error's own."""
    modelled = None if operation is None else operation.model.error(error.code)
    return error.http_status if modelled is None else modelled.http_status


class _InvalidParameter(AwsError):
    code = "InvalidParameterException"
    http_status = 400
    sender_fault = True


def named(operation: Operation | None, error: AwsError) -> AwsError:
    """The error as a service names it: what breaks a constraint is no `ValidationException` everywhere.

    Source: recorded: CloudWatch Logs, whose operations list an `InvalidParameterException` for it.
    """
    if operation is None or not isinstance(error, ValidationFailed):
        return error
    listed = operation.errors
    if "InvalidParameterException" in listed and "ValidationException" not in listed:
        return _InvalidParameter(str(error))
    return error
