"""Whether messages may be sent: sizes, characters, identifiers, attributes. Pure; of long messages a thread's work.

Source: recorded, but for texts marked chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from kflow.sqs import limits
from kflow.sqs.asking import Entry
from kflow.sqs.digests import Value
from kflow.sqs.errors import (
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    EmptyBatchRequest,
    InvalidBatchEntryId,
    InvalidMessageContents,
    InvalidParameterValue,
    MissingParameter,
    TooManyEntriesInBatchRequest,
    invalid,
)
from kflow.sqs.facts import Facts

ILLEGAL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 has no place for."""
_ENTRY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_NAME: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_KIND: Final = re.compile(r"(String|Number|Binary)(\..{1,250})?", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def check_batch(ids: Sequence[str | None], entry: str) -> None:
    """Whether a batch has entries, few enough, each with an id of its own.

    Raises:
        SqsError: it does not.
    """
    if not ids:
        raise EmptyBatchRequest(entry)
    if len(ids) > limits.BATCH:
        raise TooManyEntriesInBatchRequest(len(ids), limits.BATCH)
    seen: set[str] = set()
    for each in ids:
        if each is None or not _ENTRY.fullmatch(each):
            raise InvalidBatchEntryId
        if each in seen:
            raise BatchEntryIdsNotDistinct(each)
        seen.add(each)


def check_number(value: int | None, parameter: str, least: int, most: int, reason: str) -> None:
    """Whether a number that may be left out is within bounds.

    Raises:
        InvalidParameterValue: it is not.
    """
    if value is not None and not least <= value <= most:
        raise invalid(value, parameter, reason)


def check_text(value: str, parameter: str) -> None:
    """Whether a text that is kept has no characters that cannot be shown. Chosen: the text.

    Raises:
        InvalidParameterValue: it has.
    """
    if ILLEGAL.search(value):
        raise InvalidParameterValue(f"Invalid characters found in parameter {parameter}.")


def check_identifier(value: str | None, parameter: str) -> None:
    """Whether MessageGroupId or MessageDeduplicationId is one, where it is given.

    Raises:
        InvalidParameterValue: it is not.
    """
    if value is not None and not _IDENTIFIER.fullmatch(value):
        reason = f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length."
        raise invalid(value, parameter, reason)


def check_fifo_batch(entries: Sequence[Entry], facts: Facts) -> None:
    """The two mistakes by which a whole batch fails.

    Raises:
        InvalidParameterValue: a message has no group, or nothing tells its duplicates.
    """
    if facts.is_fifo:
        for each in entries:
            if each.group is None:
                raise InvalidParameterValue(str(MissingParameter("MessageGroupId")))
        for each in entries:
            _check_duplicate(each, facts)


def check_sizes(entries: Sequence[Entry]) -> None:
    """Whether the messages of a batch are few enough bytes together, whatever the queue takes of each.

    Raises:
        BatchRequestTooLong: they are not.
    """
    total = sum(size(each) for each in entries)
    if total > limits.MESSAGE_BYTES:
        raise BatchRequestTooLong(total, limits.MESSAGE_BYTES)


def size(entry: Entry) -> int:
    """Bytes that count: of the body, and of each attribute its name, its type and its value."""
    total = len((entry.body or "").encode(errors="replace"))
    for name, (kind, value) in entry.attributes.items():
        total += len(name.encode()) + len(kind.encode())
        total += len(value if isinstance(value, bytes) else value.encode(errors="replace"))
    return total


def check_entry(entry: Entry, facts: Facts, *, is_batch: bool) -> None:
    """Whether a message may be sent to a queue.

    Raises:
        SqsError: it may not.
    """
    if not entry.body:
        raise MissingParameter("MessageBody")
    check_number(
        entry.delay_s, "DelaySeconds", 0, limits.DELAY_S, f"DelaySeconds must be >= 0 and <= {limits.DELAY_S}."
    )
    if facts.is_fifo:
        if entry.group is None:
            raise MissingParameter("MessageGroupId")
        if entry.delay_s:
            reason = "The request include parameter that is not valid for this queue type."
            raise invalid(entry.delay_s, "DelaySeconds", reason)
    elif entry.duplicate is not None:
        reason = "The request include parameter that is not valid for this queue type."
        raise invalid(entry.duplicate, "MessageDeduplicationId", reason)
    check_identifier(entry.group, "MessageGroupId")
    check_identifier(entry.duplicate, "MessageDeduplicationId")
    if facts.is_fifo:
        _check_duplicate(entry, facts)
    if ILLEGAL.search(entry.body):
        raise InvalidMessageContents
    if size(entry) > facts.max_bytes:
        what = "cannot be validated" if is_batch else "are invalid"
        text = f"One or more parameters {what}. Reason: Message must be shorter than {facts.max_bytes} bytes."
        raise InvalidParameterValue(text)


def _check_duplicate(entry: Entry, facts: Facts) -> None:
    if entry.duplicate is None and not facts.is_content_based:
        raise InvalidParameterValue(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
            "explicitly"
        )


def check_attributes(attributes: Mapping[str, Value]) -> None:
    """Whether message attributes are some.

    Raises:
        InvalidParameterValue: they are not. Chosen: the texts, but for that of an empty value.
    """
    if len(attributes) > limits.ATTRIBUTES:
        raise InvalidParameterValue(
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [{limits.ATTRIBUTES}]."
        )
    for name, value in attributes.items():
        failure = _attribute(name, value)
        if failure:
            raise InvalidParameterValue(failure)


def _attribute(name: str, attribute: Value) -> str:
    """What is wrong with an attribute; empty: nothing."""
    kind, value = attribute
    if not _NAME.fullmatch(name) or name.lower().startswith(("aws.", "amazon.")):
        return (
            f"Message (user) attribute name '{name}' is invalid. It can have 1 to 256 letters, digits, hyphens, "
            "underscores and periods, none of them at its ends or side by side, and not begin with AWS. or Amazon."
        )
    if not kind:
        return f"The message attribute '{name}' must contain non-empty message attribute type."
    if not _KIND.fullmatch(kind) or ILLEGAL.search(kind):
        return (
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type "
            "prefixes is Binary, Number, and String."
        )
    base = kind.partition(".")[0]
    if not value:
        return f"Message (user) attribute '{name}' must contain a non-empty value of type '{base}'."
    if isinstance(value, bytes) is not (base == "Binary"):
        field = "BinaryValue" if base == "Binary" else "StringValue"
        return f"The message attribute '{name}' with type '{base}' must use field '{field}'."
    if isinstance(value, str) and ILLEGAL.search(value):
        return f"Invalid binary character was found in the message body of the message attribute '{name}'."
    if base == "Number" and isinstance(value, str) and not _NUMBER.fullmatch(value):
        return f"Can't cast the value of message (user) attribute '{name}' to a number."
    return ""
