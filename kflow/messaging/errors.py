"""What SNS refuses, in AWS's names and words. Recorded, but for texts that are marked chosen where they are raised."""

from __future__ import annotations

from kflow.errors import AwsError


class SnsError(AwsError):
    """Base of them."""

    code = "InvalidParameter"
    http_status = 400
    sender_fault = True


class InvalidParameter(SnsError):
    """A value that is not acceptable: `Invalid parameter: TopicArn Reason: ...`."""

    def __init__(self, what: str, reason: str = "") -> None:
        super().__init__(f"Invalid parameter: {what} Reason: {reason}" if reason else f"Invalid parameter: {what}")


class NotFound(SnsError):
    """A topic or a subscription that does not exist."""

    code = "NotFound"
    http_status = 404


class ResourceNotFound(SnsError):
    """The same, for the operations on tags."""

    code = "ResourceNotFound"
    http_status = 404

    def __init__(self) -> None:
        super().__init__("Resource does not exist")


class TagLimitExceeded(SnsError):
    """More than fifty tags."""

    code = "TagLimitExceeded"

    def __init__(self) -> None:
        super().__init__("Could not complete request: tag quota of per resource exceeded")


class EmptyBatchRequest(SnsError):
    """A batch of nothing."""

    code = "EmptyBatchRequest"

    def __init__(self) -> None:
        super().__init__("The batch request doesn't contain any entries.")


class TooManyEntriesInBatchRequest(SnsError):
    """More than ten entries."""

    code = "TooManyEntriesInBatchRequest"

    def __init__(self) -> None:
        super().__init__("The batch request contains more entries than permissible.")


class BatchEntryIdsNotDistinct(SnsError):
    """Two entries have the same id."""

    code = "BatchEntryIdsNotDistinct"

    def __init__(self) -> None:
        super().__init__("Two or more batch entries in the request have the same Id.")


class BatchRequestTooLong(SnsError):
    """The messages of a batch are too long together."""

    code = "BatchRequestTooLong"

    def __init__(self) -> None:
        super().__init__("The length of all the messages put together is more than the limit.")


class InvalidBatchEntryId(SnsError):
    """An entry's id is none."""

    code = "InvalidBatchEntryId"

    def __init__(self) -> None:
        super().__init__("The Id of a batch entry in a batch request doesn't abide by the specification.")


class InternalError(AwsError):
    """It may work when it is tried again."""

    code = "InternalError"
    http_status = 500
