"""What travels in frames besides records: calls of AWS operations with what comes of them, and errors."""

from __future__ import annotations

from typing import Any

import msgspec

from kflow import errors
from kflow.errors import InternalError, KflowError


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an operation, for this machine's own clients: no HTTP, no base64.

    Attributes:
        service: for example `kinesis`.
        operation: for example `PutRecord`.
        parameters: as boto3 takes them; timestamps are datetimes, or seconds since the epoch.
        account: of the caller's place; empty for the folder's own.
        region: as `account`.
    """

    service: str
    operation: str
    parameters: dict[str, Any]
    account: str = ""
    region: str = ""


class CallError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was refused, in AWS's words.

    Attributes:
        code: for example `ResourceNotFoundException`.
        message: AWS's text.
        status: as HTTP has it.
    """

    code: str
    message: str
    status: int = 400


class CallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a call: an output as boto3 has it, less `ResponseMetadata`, or an error.

    Attributes:
        output: by member name.
        error: why it was refused; None: it was not.
        request_id: of the call.
        goes_on: whether events follow, until one says that it is the last.
    """

    output: dict[str, Any] = {}
    error: CallError | None = None
    request_id: str = ""
    goes_on: bool = False


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an answer that goes on.

    Attributes:
        name: of the member of the event stream; empty where it only ends.
        members: of the event.
        error: why the stream ends; None: it does not, or without an error.
        is_last: whether nothing follows.
    """

    name: str = ""
    members: dict[str, Any] = {}
    error: CallError | None = None
    is_last: bool = False


def error_as_json(error: Exception) -> dict[str, str]:
    """An error as it travels."""
    return {"type": type(error).__name__, "message": str(error)}


def error_from_json(value: dict[str, str]) -> KflowError:
    """The same error on the other side; `InternalError` for a class this library does not have."""
    found = getattr(errors, value["type"], None)
    if isinstance(found, type) and issubclass(found, KflowError):
        return found(value["message"])
    return InternalError(f"{value['type']}: {value['message']}")
