"""The one exception tree.

Every error that kflow raises on purpose descends from `KflowError`. Engines raise them; the command line prints them
and chooses the exit code; the wire (where there is one) prints `AwsError`s in AWS's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class KflowError(Exception):
    """Base of every error kflow raises on purpose; its text says what to do."""


class UsageError(KflowError):
    """The author's or the operator's mistake. The text names the fix; the command line exits with 2."""


class HandlerError(KflowError):
    """User code raised, timed out or died."""


class DecodeFailed(HandlerError):
    """A record's data does not decode to the `T` of `Record[T]`; the text names the record and what is wrong."""


class PluginError(KflowError):
    """A plugin failed; the text names the plugin and the hook."""


class InternalError(KflowError):
    """A broken promise inside kflow: please report it."""


class StorageError(KflowError):
    """The data folder cannot do what was asked: unreadable, read-only, of another layout."""


class DataFolderBusy(StorageError):
    """Another process holds the lock of the data folder; the text names it."""


class NoNode(StorageError):
    """No node runs on the data folder, so nobody can be asked."""


class StorageFull(StorageError):
    """The disk that holds the data folder has no room for this write; nothing of it was stored."""


class StaleMap(StorageError):
    """The stream's shards have changed since its map was read; nothing was stored. Read the map and route again."""


class NotDurable(StorageError):
    """Records are stored, and a sync of them failed: whether they survive a loss of power, nobody knows."""


class Damaged(StorageError):
    """Stored bytes fail their checksum. Names the file and the offset.

    Attributes:
        offset: logical offset in the shard of the block that fails; None where what fails is no block.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class FailedEntry:
    """One entry of a `put` that was not acknowledged.

    Attributes:
        index: position in the call's list of records.
        status: `refused` (certainly not stored) or `unknown` (may be stored; a retry may store it twice).
        code: AWS's error code where there is one, else the class of the error.
        message: what happened.
    """

    index: int
    status: str
    code: str
    message: str


class PutFailed(KflowError):
    """Some records of a `put` were not acknowledged.

    Attributes:
        failed: one `FailedEntry` a record that was not acknowledged, in the order of the call.
    """

    def __init__(self, message: str, failed: Sequence[FailedEntry] = ()) -> None:
        super().__init__(message)
        self.failed: tuple[FailedEntry, ...] = tuple(failed)


class AwsError(KflowError):
    """An error that AWS has a name for.

    Attributes:
        code: AWS's error code, as on the wire.
        query_code: the code that the query protocol had, for services that spoke it once; empty: the same.
        http_status: status of the HTTP answer.
        sender_fault: whether the caller can mend it.
    """

    code = "InternalFailure"
    query_code = ""
    http_status = 500
    sender_fault = False


class _ClientFault(AwsError):
    http_status = 400
    sender_fault = True


class ResourceNotFound(_ClientFault):
    """A stream or shard that does not exist."""

    code = "ResourceNotFoundException"


class ResourceInUse(_ClientFault):
    """The resource exists already, or is not in a state that allows the operation."""

    code = "ResourceInUseException"


class InvalidArgument(_ClientFault):
    """A value that is well-formed and still not acceptable."""

    code = "InvalidArgumentException"


class ValidationFailed(_ClientFault):
    """A value that breaks a constraint of the service model."""

    code = "ValidationException"


class LimitExceeded(_ClientFault):
    """More than a quota allows."""

    code = "LimitExceededException"


class ExpiredIterator(_ClientFault):
    """A shard iterator older than five minutes."""

    code = "ExpiredIteratorException"


class ProvisionedThroughputExceeded(_ClientFault):
    """More than the shard takes at once; retry later."""

    code = "ProvisionedThroughputExceededException"


class Throttling(_ClientFault):
    """More requests, or more records in flight, than a queue takes; retry later."""

    code = "ThrottlingException"


class ExpiredNextToken(_ClientFault):
    """A token of a page that is older than five minutes."""

    code = "ExpiredNextTokenException"


class DryRunOperation(_ClientFault):
    """The call would have succeeded; `DryRun` was asked for, so nothing was done."""

    code = "DryRunOperationException"
