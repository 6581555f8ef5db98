"""What SQS refuses, in AWS's names and words.

Each has two names: that of the model, and the one that the older query protocol used, which SDKs show to this day.
Source: recorded, but for those marked chosen.
"""

from __future__ import annotations

from kflow.errors import AwsError


class SqsError(AwsError):
    """Base of them."""

    code = "InvalidParameterValueException"
    query_code = "InvalidParameterValue"
    http_status = 400
    sender_fault = True


class InvalidParameterValue(SqsError):
    """A value that is not acceptable. Not in the model, and what AWS answers."""


class MissingParameter(SqsError):
    """Something that must be given is not."""

    code = "MissingRequiredParameterException"
    query_code = "MissingParameter"

    def __init__(self, name: str) -> None:
        super().__init__(f"The request must contain the parameter {name}.")


class QueueDoesNotExist(SqsError):
    """There is no such queue."""

    code = "QueueDoesNotExist"
    query_code = "AWS.SimpleQueueService.NonExistentQueue"

    def __init__(self) -> None:
        super().__init__("The specified queue does not exist.")


class QueueNameExists(SqsError):
    """There is a queue of that name, and it is another one."""

    code = "QueueNameExists"
    query_code = "QueueAlreadyExists"

    def __init__(self, attribute: str) -> None:
        super().__init__(f"A queue already exists with the same name and a different value for attribute {attribute}")


class PurgeQueueInProgress(SqsError):
    """The queue was purged less than a minute ago."""

    code = "PurgeQueueInProgress"
    query_code = "AWS.SimpleQueueService.PurgeQueueInProgress"
    http_status = 403

    def __init__(self, queue: str) -> None:
        super().__init__(f"Only one PurgeQueue operation on {queue} is allowed every 60 seconds.")


class EmptyBatchRequest(SqsError):
    """A batch of nothing. Chosen: the text."""

    code = "EmptyBatchRequest"
    query_code = "AWS.SimpleQueueService.EmptyBatchRequest"

    def __init__(self, entry: str) -> None:
        super().__init__(f"There should be at least one {entry} in the request.")


class TooManyEntriesInBatchRequest(SqsError):
    """More than ten entries."""

    code = "TooManyEntriesInBatchRequest"
    query_code = "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"

    def __init__(self, count: int, most: int) -> None:
        super().__init__(f"Maximum number of entries per request are {most}. You have sent {count}.")


class BatchEntryIdsNotDistinct(SqsError):
    """Two entries have the same id. Chosen: the text."""

    code = "BatchEntryIdsNotDistinct"
    query_code = "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"

    def __init__(self, entry: str) -> None:
        super().__init__(f"Id {entry} repeated.")


class BatchRequestTooLong(SqsError):
    """The messages of a batch are too long together."""

    code = "BatchRequestTooLong"
    query_code = "AWS.SimpleQueueService.BatchRequestTooLong"

    def __init__(self, count: int, most: int) -> None:
        super().__init__(f"Batch requests cannot be longer than {most} bytes. You have sent {count} bytes.")


class InvalidBatchEntryId(SqsError):
    """An entry's id is none."""

    code = "InvalidBatchEntryId"
    query_code = "AWS.SimpleQueueService.InvalidBatchEntryId"

    def __init__(self) -> None:
        super().__init__(
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
            "It can be at most 80 letters long."
        )


class UnsupportedOperation(SqsError):
    """AWS does not do that either."""

    code = "UnsupportedOperation"
    query_code = "AWS.SimpleQueueService.UnsupportedOperation"


class ReceiptHandleIsInvalid(SqsError):
    """A text that no receive of this queue gave."""

    code = "ReceiptHandleIsInvalid"
    query_code = "ReceiptHandleIsInvalid"

    def __init__(self, handle: str) -> None:
        super().__init__(f'The input receipt handle "{handle}" is not a valid receipt handle.')


class InvalidAttributeName(SqsError):
    """There is no attribute of that name, or not on this queue."""

    code = "InvalidAttributeName"
    query_code = "InvalidAttributeName"


class InvalidAttributeValue(SqsError):
    """An attribute cannot have that value."""

    code = "InvalidAttributeValue"
    query_code = "InvalidAttributeValue"


class InvalidMessageContents(SqsError):
    """A message holds characters that XML 1.0 has no place for. Chosen: the text."""

    code = "InvalidMessageContents"
    query_code = "InvalidMessageContents"

    def __init__(self) -> None:
        super().__init__(
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
            "#xE000 to #xFFFD | #x10000 to #x10FFFF"
        )


class OverLimit(SqsError):
    """Too many messages are in flight. Chosen: the status and the text."""

    code = "OverLimit"
    query_code = "OverLimit"
    http_status = 403


class ResourceNotFound(SqsError):
    """Something that an ARN or a handle names is not there."""

    code = "ResourceNotFoundException"
    query_code = "ResourceNotFoundException"
    http_status = 404


class InvalidAddress(SqsError):
    """A queue URL that names nothing."""

    code = "InvalidAddress"
    query_code = "InvalidAddress"


def invalid(value: object, parameter: str, reason: str) -> InvalidParameterValue:
    """The usual text: `Value 11 for parameter MaxNumberOfMessages is invalid. Reason: ...`."""
    return InvalidParameterValue(f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")
