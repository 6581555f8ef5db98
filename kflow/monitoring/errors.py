"""What CloudWatch and CloudWatch Logs refuse, in AWS's names and words.

Source: documented: the models' errors; texts recorded but where they are marked chosen.
"""

from __future__ import annotations

from kflow.errors import AwsError


class _Refused(AwsError):
    http_status = 400
    sender_fault = True


class InvalidParameter(_Refused):
    """A value that CloudWatch Logs does not take."""

    code = "InvalidParameterException"


class NoGroup(_Refused):
    """A log group that does not exist."""

    code = "ResourceNotFoundException"

    def __init__(self) -> None:
        super().__init__("The specified log group does not exist.")


class NoStream(_Refused):
    """A log stream that does not exist."""

    code = "ResourceNotFoundException"

    def __init__(self) -> None:
        super().__init__("The specified log stream does not exist.")


class NoResource(_Refused):
    """An ARN of nothing, for the operations on tags."""

    code = "ResourceNotFoundException"

    def __init__(self) -> None:
        super().__init__("The specified resource does not exist.")


class AlreadyExists(_Refused):
    """A log group or a log stream of that name is there."""

    code = "ResourceAlreadyExistsException"

    def __init__(self, what: str) -> None:
        super().__init__(f"The specified {what} already exists")


class InvalidParameterValue(_Refused):
    """A value that CloudWatch does not take."""

    code = "InvalidParameterValueException"


class InvalidParameterCombination(_Refused):
    """Values that CloudWatch does not take together."""

    code = "InvalidParameterCombinationException"


class MissingParameter(_Refused):
    """A value that CloudWatch needs."""

    code = "MissingRequiredParameterException"


class InvalidQuery(_Refused):
    """A query of metrics that is none. Source: recorded: SDKs that speak the query protocol."""

    code = "ValidationException"
    query_code = "ValidationError"


class InvalidNextToken(_Refused):
    """A token that nobody gave out."""

    code = "InvalidNextToken"
