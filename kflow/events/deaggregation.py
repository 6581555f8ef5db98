"""`deaggregate`: the user records in what a handler or a reader got, whoever aggregated them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import pybase64

from kflow.errors import UsageError
from kflow.events.aggregation import UserRecord, effective_hash_key, split
from kflow.records import Batch, Record

log = logging.getLogger(__name__)


class DeaggregatedRecord(Record[Any], frozen=True, gc=False):
    """A user record. It shares sequence number, shard and arrival with the others of the record it came in.

    Attributes:
        sub_sequence_number: its place among them, from 0.
        explicit_hash_key: as its producer wrote it; None where the partition key decides.
    """

    sub_sequence_number: int = 0
    explicit_hash_key: int | None = None


def deaggregate(
    records: Mapping[str, Any] | Batch[Any] | Iterable[Any],
    *,
    hash_range: tuple[int, int] | Mapping[str, str] | None = None,
) -> list[Any]:
    """The user records of an event, a batch or an answer of GetRecords, in order.

    What is not aggregated stays as it is. Records have the form they came in: those of an event get `subSequenceNumber`
    and `aggregated` (and `explicitHashKey`, where there is one) in `kinesis`, as with AWS's own library; a `Record`
    becomes a `DeaggregatedRecord`, those of boto3 get `SubSequenceNumber`.

    Args:
        records: the event of a handler, a `Batch`, or a list of records in one of the three forms.
        hash_range: first and last hash key of the shard, or AWS's `HashKeyRange`. Where it is given, user records that
            belong to another shard are left out, each by itself, and the log says how many: after a resharding their
            producer has put them again. An event does not tell it.

    Raises:
        UsageError: these are no records of a Kinesis stream.
    """
    bounds = _bounds(hash_range)
    found: list[Any] = []
    number: Any
    made: Callable[[Any, _Numbered], Iterable[Any]]
    for row in _rows(records):
        if isinstance(row, Record):
            data, number, made = row.data, row.sequence_number, _of_record
        elif isinstance(row, Mapping) and "kinesis" in row:
            kinesis = row["kinesis"]
            if not kinesis["data"].startswith(_MAGIC_TEXT):
                found.append(row)
                continue
            data, number, made = pybase64.b64decode(kinesis["data"]), kinesis["sequenceNumber"], _of_event
        elif isinstance(row, Mapping) and "Data" in row:
            data, number, made = row["Data"], row.get("SequenceNumber"), _of_answer
        else:
            raise UsageError(f"{_FORMS}, and {row!r:.100} is none of them")
        users = split(data)
        if users is None:
            found.append(row)
            continue
        kept = _kept(users, bounds, number)
        found += made(row, kept)
    return found


_FORMS = "deaggregate takes the event of a Kinesis stream, a Batch, or a list of their records or of boto3's"
_MAGIC_TEXT = "84maw"
"""How the base64 of the magic bytes begins: what has other letters is not even decoded."""

_Numbered = Sequence[tuple[int, UserRecord]]


def _rows(records: Any) -> Iterable[Any]:
    if not isinstance(records, Mapping):
        return records if isinstance(records, Iterable) else (records,)
    rows = records.get("Records")
    if rows is None and "kinesis" in records:
        return (records,)
    if rows is None:
        raise UsageError(f"{_FORMS}, and a mapping with {', '.join(map(repr, records)) or 'nothing'} is none of them")
    return cast("Iterable[Any]", rows)


def _bounds(hash_range: tuple[int, int] | Mapping[str, str] | None) -> tuple[int, int] | None:
    if not isinstance(hash_range, Mapping):
        return hash_range
    return int(hash_range["StartingHashKey"]), int(hash_range["EndingHashKey"])


def _kept(users: Sequence[UserRecord], bounds: tuple[int, int] | None, number: Any) -> _Numbered:
    """The user records that belong to the shard, with their sub-sequence numbers."""
    numbered = list(enumerate(users))
    if bounds is None:
        return numbered
    first, last = bounds
    kept = [(sub, user) for sub, user in numbered if first <= effective_hash_key(user) <= last]
    if len(kept) < len(numbered):
        log.warning(
            "user records of other shards are left out sequence_number=%s left_out=%d kept=%d",
            number,
            len(numbered) - len(kept),
            len(kept),
        )
    return kept


def _of_record(row: Record[Any], users: _Numbered) -> Iterable[Any]:
    for sub, user in users:
        explicit = user.explicit_hash_key
        yield DeaggregatedRecord(
            user.data,
            user.partition_key,
            row.sequence_number,
            row.shard_id,
            row.arrival_ms,
            sub_sequence_number=sub,
            explicit_hash_key=int(explicit) if explicit is not None and explicit.isdecimal() else None,
        )


def _of_event(row: Mapping[str, Any], users: _Numbered) -> Iterable[Any]:
    for sub, user in users:
        kinesis = row["kinesis"] | {
            "partitionKey": user.partition_key,
            "data": pybase64.b64encode_as_string(user.data),
            "subSequenceNumber": sub,
            "aggregated": True,
        }
        if user.explicit_hash_key is not None:
            kinesis["explicitHashKey"] = user.explicit_hash_key
        yield {**row, "kinesis": kinesis}


def _of_answer(row: Mapping[str, Any], users: _Numbered) -> Iterable[Any]:
    for sub, user in users:
        more = {} if user.explicit_hash_key is None else {"ExplicitHashKey": user.explicit_hash_key}
        yield {**row, "PartitionKey": user.partition_key, "Data": user.data, "SubSequenceNumber": sub, **more}
