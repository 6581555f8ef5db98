"""Which parameters each operation takes; checked as botocore checks them, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kflow.client.faults import raise_invalid
from kflow.errors import InvalidArgument

_NAMED = ("StreamName", "StreamARN", "StreamId")
TAKES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "PutRecord": (("Data",), (*_NAMED, "PartitionKey", "ExplicitHashKey", "SequenceNumberForOrdering")),
    "PutRecords": (("Records",), _NAMED),
    "GetShardIterator": (("ShardId", "ShardIteratorType"), (*_NAMED, "StartingSequenceNumber", "Timestamp")),
    "GetRecords": (("ShardIterator",), ("Limit", "StreamARN", "StreamId")),
    "ListShards": (
        (),
        (*_NAMED, "NextToken", "ExclusiveStartShardId", "MaxResults", "StreamCreationTimestamp", "ShardFilter"),
    ),
    "DescribeStream": ((), (*_NAMED, "Limit", "ExclusiveStartShardId")),
    "DescribeStreamSummary": ((), _NAMED),
    "ListStreams": ((), ("Limit", "ExclusiveStartStreamName", "NextToken")),
    "CreateStream": (("StreamName",), ("ShardCount", "StreamModeDetails", "MaxRecordSizeInKiB")),
    "DeleteStream": ((), (*_NAMED, "EnforceConsumerDeletion")),
}
"""Operation: required and optional parameters. Source: the service model; those left out are not built."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "Records": (list, tuple),
    "Limit": (int,),
    "MaxResults": (int,),
    "ShardCount": (int,),
    "MaxRecordSizeInKiB": (int,),
    "EnforceConsumerDeletion": (bool,),
    "StreamModeDetails": (dict,),
    "ShardFilter": (dict,),
}
_UNCHECKED = frozenset({"Data", "Timestamp", "StreamCreationTimestamp"})


def check(operation: str, given: Mapping[str, Any]) -> None:
    """Refuse missing, unknown and mistyped parameters.

    Raises:
        ParamValidationError: botocore's, with its text.
    """
    required, optional = TAKES[operation]
    problems = [f'Missing required parameter in input: "{name}"' for name in required if name not in given]
    for name, value in given.items():
        if name not in required and name not in optional:
            known = ", ".join((*required, *optional))
            problems.append(f'Unknown parameter in input: "{name}", must be one of: {known}')
        elif name not in _UNCHECKED:
            kinds = _TYPES.get(name, (str,))
            if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
                wanted = ", ".join(str(kind) for kind in kinds)
                problems.append(
                    f"Invalid type for parameter {name}, value: {value}, type: {type(value)}, valid types: {wanted}"
                )
    if problems:
        raise_invalid(problems)


def check_record(index: int, record: object) -> None:
    """Refuse an entry of PutRecords that is none."""
    path = f"Records[{index}]"
    if not isinstance(record, dict):
        raise_invalid(
            [f"Invalid type for parameter {path}, value: {record}, type: {type(record)}, valid types: {dict}"]
        )
    problems = [] if "Data" in record else [f'Missing required parameter in {path}: "Data"']
    known = ("Data", "ExplicitHashKey", "PartitionKey")
    problems += [
        f'Unknown parameter in {path}: "{name}", must be one of: {", ".join(known)}'
        for name in record
        if name not in known
    ]
    if problems:
        raise_invalid(problems)


def blob(value: Any, path: str) -> bytes:
    """A `Data` parameter as bytes: bytes, bytearray, text, or a file-like object."""
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes | bytearray):
        kinds = f"{bytes}, {bytearray}, file-like object"
        raise_invalid([f"Invalid type for parameter {path}, value: {value}, type: {type(value)}, valid types: {kinds}"])
    return bytes(value)


def hash_key(text: str | None) -> int | None:
    """An `ExplicitHashKey` as an integer; its range is checked where records are routed.

    Raises:
        InvalidArgument: not a decimal number.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(
            f"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        )
    return int(text)
