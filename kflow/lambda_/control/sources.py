"""Where a zip comes from: the request itself, or an object of the data folder.

Source: recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kflow.broker.objects import Objects
from kflow.errors import AwsError
from kflow.lambda_.control.encoded import Encoded
from kflow.lambda_.control.unzip import UNPACKED_BYTES, EmptyZip, TooLargeUnpacked
from kflow.lambda_.errors import InvalidParameterValue, RequestTooLarge

ZIP_BYTES: Final = 52_428_800
"""Of a zip in a request. Source: documented: Lambda quotas."""
REQUEST_BYTES: Final = 70_167_211

Read = Callable[[], bytes]


def source(given: Any, operation: str, objects: Callable[[], Objects]) -> Read:
    """What reads the zip that an input gives, in a thread.

    Args:
        given: a structure with `ZipFile`, `S3Bucket`, `S3Key` and so on.
        operation: whose input it is, for the text.
        objects: of the data folder.

    Raises:
        InvalidParameterValue: none is given, or two are.
        RequestTooLarge: it is too large for a request.
    """
    if getattr(given, "ImageUri", None):
        raise InvalidParameterValue("ImageUri is not supported here: kflow runs zip packages only; upload a zip.")
    if given.S3ObjectStorageMode == "REFERENCE":
        raise InvalidParameterValue(
            "S3ObjectStorageMode REFERENCE is not supported here: the object is copied; leave it out."
        )
    content, bucket, key = given.ZipFile, given.S3Bucket, given.S3Key
    if content is not None:
        if bucket or key:
            raise InvalidParameterValue("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        if isinstance(content, Encoded):
            read, size = content.decoded, content.size
        else:
            read, size = (lambda: bytes(content)), len(content)
        if not size:
            raise EmptyZip
        if size > ZIP_BYTES + 2:  # as it is known before it is decoded
            raise RequestTooLarge(f"Request must be smaller than {REQUEST_BYTES} bytes for the {operation} operation")
        return read
    if not bucket or not key:
        raise InvalidParameterValue("Please provide a source for function code.")
    if given.S3ObjectVersion not in {None, "null"}:
        raise _of_s3("NoSuchVersion", "The specified version does not exist.")
    return lambda: _object(objects(), bucket, key)


def _object(objects: Objects, bucket: str, key: str) -> bytes:
    try:
        if objects.head(bucket, key).size > UNPACKED_BYTES:
            raise TooLargeUnpacked
        return objects.get(bucket, key)[1]
    except AwsError as error:
        if isinstance(error, InvalidParameterValue):
            raise
        raise _of_s3(error.code, str(error)) from error


def _of_s3(code: str, text: str) -> InvalidParameterValue:
    return InvalidParameterValue(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {text}")
