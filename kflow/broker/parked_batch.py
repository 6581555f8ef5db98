"""What is kept of records that were given up, and its bytes: one line with a CRC32C, then JSON."""

from __future__ import annotations

import enum
import re

import msgspec
from crc32c import crc32c

from kflow.interfaces import FunctionError
from kflow.records import Position

_FIRST_LINE = re.compile(rb"kflow-parked 1 ([0-9a-f]{8})\n")


class ParkCondition(enum.StrEnum):
    """Why records were given up. Source: recorded: `condition` of Lambda's failure documents."""

    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"


class ParkedRecord(msgspec.Struct, frozen=True):
    """One record, as it was put, with what names it in the stream."""

    data: bytes
    partition_key: str
    sequence_number: int
    arrival_ms: int
    shard_id: str


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The mapping that gave records up, as its failure document names it.

    Attributes:
        function_arn: with the qualifier that the mapping names, if any.
        stream_arn: of the stream, also where the mapping reads it as a consumer.
        mapping: UUID of the mapping.
        source_arn: event source ARN of the events, where it is a consumer's; empty: it is the stream's.
        version: of the function: `$LATEST`, or a number as text.
        role: of the function, as its events name it; empty: that of a function which names none.
        destination: where the document goes, as `on_failure` names it; empty: nowhere.
    """

    function_arn: str
    stream_arn: str
    mapping: str
    source_arn: str = ""
    version: str = "$LATEST"
    role: str = ""
    destination: str = ""


class ParkedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What was given up, together: at least one record, of one shard.

    Attributes:
        function: name of the function.
        stream: name of the stream.
        stream_id: its id.
        shard: index of the shard.
        shard_id: `shardId-` and twelve digits.
        first_counter: counter of the first record.
        last_counter: counter of the last record.
        start: before the first record.
        end: past the last record.
        records: the records themselves: they stay here when the stream has forgotten them.
        error: the last failure; None where the records were never handed to the function.
        attempts: how often they were handed to it as this batch, redrives included.
        condition: why.
        parked_ms: when, milliseconds since the epoch.
        parked_before: records that this consumer had parked in this shard before: tells a file that an interrupted
            settling left from one of an earlier pass over the same records.
        origin: the mapping; None in entries of versions that did not keep it.
        trouble: why its document could not be sent, the last time that was tried; empty: it was not, or could.
        number: 1, 2, 3 ... in this data folder; given by `park`.
        claimed_by: epoch of the node that redrives it now; 0 where none does. Comes from the name of the file.
        is_unsent: whether its document is still to be sent to its destination. Comes from the name of the file.
    """

    function: str
    stream: str
    stream_id: int
    shard: int
    shard_id: str
    first_counter: int
    last_counter: int
    start: Position
    end: Position
    records: tuple[ParkedRecord, ...]
    error: FunctionError | None
    attempts: int
    condition: ParkCondition
    parked_ms: int
    parked_before: int = 0
    origin: Origin | None = None
    trouble: str = ""
    number: int = 0
    claimed_by: int = 0
    is_unsent: bool = False

    @property
    def destination(self) -> str:
        """Where its document goes, as `on_failure` names it; empty: nowhere."""
        return "" if self.origin is None else self.origin.destination


class _StoredRecord(msgspec.Struct, array_like=True):
    """A record in the file. The number is decimal text, as on the wire: it is too large for an integer of JSON."""

    data: bytes
    partition_key: str
    sequence_number: str
    arrival_ms: int
    shard_id: str


class _Stored(msgspec.Struct):
    """What a file holds: the batch without its records, and the records."""

    batch: ParkedBatch
    records: list[_StoredRecord]


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_decode = msgspec.json.Decoder(_Stored).decode


def encode(batch: ParkedBatch) -> bytes:
    """The content of a file."""
    records = [
        _StoredRecord(each.data, each.partition_key, str(each.sequence_number), each.arrival_ms, each.shard_id)
        for each in batch.records
    ]
    content = msgspec.json.encode(_Stored(msgspec.structs.replace(batch, records=()), records))
    return b"kflow-parked 1 %08x\n" % crc32c(content) + content


def decode(content: bytes) -> ParkedBatch | None:
    """What a file holds; None where its content does not have its checksum."""
    line = _FIRST_LINE.match(content)
    if line is None or int(line[1], 16) != crc32c(content[line.end() :]):
        return None
    stored = _decode(content[line.end() :])
    records = tuple(
        ParkedRecord(each.data, each.partition_key, int(each.sequence_number), each.arrival_ms, each.shard_id)
        for each in stored.records
    )
    return msgspec.structs.replace(stored.batch, records=records)
