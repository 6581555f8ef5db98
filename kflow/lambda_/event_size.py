"""How large an event gets: the JSON of its records, base64 and all, against the limit of an invocation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kflow.limits import PARTITION_KEY_CHARACTERS

EVENT_BYTES: Final = 6 * 1024 * 1024
"""Largest event of a synchronous invocation. Source: documented: Lambda quotas, invocation payload."""

ENVELOPE_BYTES: Final = len('{"Records":[]}')

PADDING_BYTES: Final = 4
"""Of base64, and the comma after a record: what a bound by the payload's length alone must add."""


ESCAPE_BYTES: Final = 5
"""What JSON adds to a byte of a key at most: a control character is written as six."""

KEY_ESCAPES_BYTES: Final = ESCAPE_BYTES * PARTITION_KEY_CHARACTERS
"""The same for a whole key."""


def record_bytes(*, stream: str, function: str, region_characters: int = 14) -> int:
    """Length of the JSON of one event record with an empty payload and an empty partition key, in bytes.

    An upper bound within a few bytes of AWS's own text: sequence numbers have 56 digits today, an arrival time at most
    14 characters, and `region_characters` is the longest of AWS's common regions.

    Args:
        stream: name of the stream.
        function: name of the function; its role's ARN is in each record.
        region_characters: length of the region's name.
    """
    shape = (
        '{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"","sequenceNumber":"","data":"",'
        '"approximateArrivalTimestamp":},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-:",'
        '"eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::123456789012:role/","awsRegion":"",'
        '"eventSourceARN":"arn:aws:kinesis::123456789012:stream/"}'
    )
    digits, shard, arrival = 56, 12, 14
    names = len(stream.encode()) + len(function.encode())
    return len(shape) + 2 * digits + shard + arrival + 2 * region_characters + names


def escapes(keys: Sequence[str]) -> int:
    """What JSON's escapes add to partition keys, in bytes: exactly for those that can be printed, else at most.

    10 ns a key, where measuring takes 150.
    """
    text = "".join(keys)
    if not text.isprintable():
        return ESCAPE_BYTES * len(text)
    return text.count('"') + text.count("\\")


def event_sizes(datas: Sequence[bytes], keys: Sequence[str], record_bytes: int) -> list[int]:
    """Length of the JSON of each event record, in bytes.

    Args:
        datas: payloads.
        keys: partition keys, one a payload.
        record_bytes: from `record_bytes`.
    """
    encode = msgspec.json.encode
    return [
        (len(data) + 2) // 3 * 4 + len(encode(key)) - 2 + 1 + record_bytes
        for data, key in zip(datas, keys, strict=True)
    ]
