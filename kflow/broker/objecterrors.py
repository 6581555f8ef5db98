"""What S3 refuses, in AWS's names and words, as far as whoever keeps objects finds it out.

Source: documented: Amazon S3 API Reference, error responses.
"""

from __future__ import annotations

from kflow.errors import AwsError


class S3Error(AwsError):
    """Base of them."""

    http_status = 400
    sender_fault = True


class NoSuchBucket(S3Error):
    """There is no such bucket."""

    code = "NoSuchBucket"
    http_status = 404

    def __init__(self) -> None:
        super().__init__("The specified bucket does not exist")


class NoSuchKey(S3Error):
    """There is no object under this key."""

    code = "NoSuchKey"
    http_status = 404

    def __init__(self) -> None:
        super().__init__("The specified key does not exist.")


class InvalidBucketName(S3Error):
    """A name that no bucket can have."""

    code = "InvalidBucketName"

    def __init__(self) -> None:
        super().__init__("The specified bucket is not valid.")


class BucketAlreadyOwnedByYou(S3Error):
    """There is a bucket of that name."""

    code = "BucketAlreadyOwnedByYou"
    http_status = 409

    def __init__(self) -> None:
        super().__init__("Your previous request to create the named bucket succeeded and you already own it.")


class BucketNotEmpty(S3Error):
    """Only an empty bucket can be deleted."""

    code = "BucketNotEmpty"
    http_status = 409

    def __init__(self) -> None:
        super().__init__("The bucket you tried to delete is not empty")


class KeyTooLong(S3Error):
    """A key of more than 1,024 bytes."""

    code = "KeyTooLongError"

    def __init__(self) -> None:
        super().__init__("Your key is too long")


class InvalidKey(S3Error):
    """A key that is empty, or no UTF-8 can hold."""

    code = "InvalidURI"

    def __init__(self) -> None:
        super().__init__("Couldn't parse the specified URI.")


class InvalidRange(S3Error):
    """A range that begins behind the end of the object."""

    code = "InvalidRange"
    http_status = 416

    def __init__(self) -> None:
        super().__init__("The requested range is not satisfiable")
