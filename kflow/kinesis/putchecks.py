"""What PutRecord and PutRecords refuse beyond the model's own constraints: all of it fails the whole call.

Source: recorded unless said otherwise: constraint texts as of December 2025, with the value left out for payloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kflow import limits
from kflow.broker.hashkeys import HASH_KEY_END
from kflow.broker.sequence import parse
from kflow.errors import InvalidArgument, ValidationFailed
from kflow.kinesis.registry import Stream

_REPORTED: Final = 10
"""So many problems are named in one error at most. Source: recorded."""
CHARACTER_BYTES: Final = 4
"""A character of a key takes no more."""


def hash_keys(given: Sequence[str | None]) -> list[int | None] | None:
    """Explicit hash keys as integers; None where no record has one. The model has made sure that they are decimal.

    Raises:
        InvalidArgument: one is above 2**128 - 1.
    """
    if given.count(None) == len(given):
        return None
    found = [None if text is None else int(text) for text in given]
    for value in found:
        if value is not None and value > HASH_KEY_END:
            raise InvalidArgument(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                f"Specified value was {value}"
            )
    return found


def check_keys(keys: Sequence[str | None], *, is_one: bool) -> None:
    """Refuse records without a partition key; AUTO distribution does without.

    Raises:
        ValidationFailed: names them.
    """
    if not all(keys):  # none is empty: the model has made sure
        raise _refused(
            [
                f"Value null at '{_path(index, 'partitionKey', is_one=is_one)}' failed to satisfy constraint: "
                "Member must not be null"
                for index, key in enumerate(keys)
                if key is None
            ]
        )


def check_sizes(stream: Stream, keys: Sequence[str], datas: Sequence[bytes], *, is_one: bool) -> int:
    """Refuse records that are too large for the stream, and calls that are too large for any.

    Returns:
        Bytes of all payloads and keys, at least.

    Raises:
        ValidationFailed: payloads alone are larger than the stream takes; names them.
        InvalidArgument: a payload and its key, or all of them, are larger together.

    Source: documented: the bounds; chosen: the text for a sum, AWS's is not known.
    """
    bound = stream.map.max_record_bytes
    lens = list(map(len, datas))
    text = "".join(keys)
    total = sum(lens) + (len(text) if text.isascii() else len(text.encode()))
    if total <= bound:
        return total
    if max(lens) > bound:
        raise _refused(
            [
                f"Value at '{_path(index, 'data', is_one=is_one)}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {bound}"
                for index, size in enumerate(lens)
                if size > bound
            ]
        )
    if max(lens) + CHARACTER_BYTES * limits.PARTITION_KEY_CHARACTERS > bound:
        for index, (size, key) in enumerate(zip(lens, keys, strict=True)):
            if size + len(key.encode()) > bound:
                which = "The record" if is_one else f"Record {index}"
                raise InvalidArgument(
                    f"{which} is too large: data and partition key take {size + len(key.encode())} bytes, "
                    f"and stream {stream.name} takes {bound} a record"
                )
    if total > limits.PUT_RECORDS_BYTES and not is_one:
        raise InvalidArgument("Records size exceeds 10 MB limit")
    return total


def check_ordering(stream: Stream, text: str, now_ms: int) -> None:
    """Refuse a SequenceNumberForOrdering that no record of Kinesis can have yet; it may be of another shard.

    Raises:
        InvalidArgument: it is none, it lies in the future, or the stream distributes records by itself.
    """
    if stream.is_auto:
        raise InvalidArgument(
            f"SequenceNumberForOrdering cannot be used with stream {stream.name} under account {stream.account}, "
            "whose record distribution strategy is AUTO."
        )
    try:
        is_fine = parse(int(text)).arrival_s <= now_ms // 1000
    except ValueError:
        is_fine = False
    if not is_fine:
        raise InvalidArgument(
            f"ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {stream.name} "
            f"under account {stream.account} is invalid."
        )


def _path(index: int, member: str, *, is_one: bool) -> str:
    return member if is_one else f"records.{index + 1}.member.{member}"


def _refused(problems: list[str]) -> ValidationFailed:
    named = problems[:_REPORTED]
    plural = "" if len(named) == 1 else "s"
    return ValidationFailed(f"{len(named)} validation error{plural} detected: {'; '.join(named)}")
