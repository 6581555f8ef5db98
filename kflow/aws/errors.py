"""What the wire itself refuses: errors that belong to no service, in AWS's names and words.

Their HTTP forms are the protocols' business. Source: recorded: kinesalite's test-suite against AWS, 2014-2020.
"""

from __future__ import annotations

from kflow.errors import AwsError


class _Refused(AwsError):
    http_status = 400
    sender_fault = True


class SerializationFailed(_Refused):
    """The body cannot be read as what the operation takes. An empty text: it cannot be read at all."""

    code = "SerializationException"


class UnknownOperation(_Refused):
    """No service here has an operation of this name."""

    code = "UnknownOperationException"


class AccessRefused(_Refused):
    """The caller may not do that, or nobody can tell what it wants."""

    code = "AccessDeniedException"
    http_status = 403


class InternalFailure(AwsError):
    """A bug of ours, of which nothing is shown to the caller, or a disk that fails, of which all is."""

    code = "InternalFailure"


class NotSpoken(AwsError):
    """The operation exists on AWS, and kflow has none of it."""

    code = "NotImplementedException"
    http_status = 501
    sender_fault = True
