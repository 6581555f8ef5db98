"""What Lambda refuses, in AWS's names and words.

Source: recorded, but for those marked chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kflow.errors import AwsError


class LambdaError(AwsError):
    """Base of them.

    Attributes:
        members: what the answer says besides the text, by name.
    """

    code = "InvalidParameterValueException"
    http_status = 400
    sender_fault = True
    members: Mapping[str, str] = MappingProxyType({})


class InvalidParameterValue(LambdaError):
    """A value that is well-formed and still not acceptable."""


class ResourceNotFound(LambdaError):
    """There is no such function, version, alias, layer or mapping."""

    code = "ResourceNotFoundException"
    http_status = 404


class ResourceConflict(LambdaError):
    """It exists already, or is in no state for this."""

    code = "ResourceConflictException"
    http_status = 409


class ResourceInUse(LambdaError):
    """It is being changed, or something else uses it."""

    code = "ResourceInUseException"


class PreconditionFailed(LambdaError):
    """The RevisionId that the caller goes by is not the latest one."""

    code = "PreconditionFailedException"
    http_status = 412

    def __init__(self, what: str = "") -> None:
        super().__init__(
            what
            or "The RevisionId provided does not match the latest RevisionId. "
            "Call the GetFunction/GetAlias API to retrieve the latest RevisionId"
        )


class RequestTooLarge(LambdaError):
    """The payload is larger than an invocation takes."""

    code = "RequestEntityTooLargeException"
    http_status = 413


class InvalidRequestContent(LambdaError):
    """The payload is no JSON."""

    code = "InvalidRequestContentException"


class TooManyRequests(LambdaError):
    """The function may not run now: it runs as often as it may already.

    Attributes:
        members: with the `Reason`.
    """

    code = "TooManyRequestsException"
    http_status = 429

    def __init__(self, reason: str = "ReservedFunctionConcurrentInvocationLimitExceeded") -> None:
        super().__init__("Rate Exceeded.")
        self.reason = reason
        self.members = {"Reason": reason}


class PolicyLengthExceeded(LambdaError):
    """A policy is longer than 20 KB."""

    code = "PolicyLengthExceededException"


class ProvisionedConcurrencyNotFound(LambdaError):
    """The version or alias has none."""

    code = "ProvisionedConcurrencyConfigNotFoundException"
    http_status = 404
