"""AWS's sequence numbers (version 2) and shard ids. Integers inside; decimal text only on the wire.

A number is 47 hexadecimal digits: `2`, shard creation second (9), low nibble of the shard index (1), counter (16),
flags (2, zero), arrival second (9), shard index (8), version `2` (1). Numbers of a shard rise with the counter; two
records that follow each other within one block differ by `STEP`.

Source: recorded: decoded from numbers of real streams of 2014 to 2026.
"""

from __future__ import annotations

from typing import Final, NamedTuple

STEP: Final = 1 << 80
CLOSING_COUNTER: Final = 0x7FFF_FFFF_FFFF_FFFF
"""The counter of a closed shard's ending sequence number."""

_CREATED_LIMIT: Final = 16_025_175_000
_INDEX_MAX: Final = 0x7FFF_FFFF


class Parsed(NamedTuple):
    """What a sequence number says.

    Attributes:
        created_s: the shard's creation, seconds since the epoch.
        counter: the record's counter in its shard.
        arrival_s: arrival, seconds since the epoch.
        shard_index: index of the shard in its stream.
    """

    created_s: int
    counter: int
    arrival_s: int
    shard_index: int


def number(created_s: int, shard_index: int, counter: int, arrival_ms: int) -> int:
    """The sequence number of a record.

    Args:
        created_s: the shard's creation, seconds since the epoch.
        shard_index: 0 to 2**31 - 1.
        counter: 0 to 2**63 - 1; 0 is the shard's own starting number.
        arrival_ms: milliseconds since the epoch.
    """
    return (
        2 << 184
        | created_s << 148
        | (shard_index & 15) << 144
        | counter << 80
        | arrival_ms // 1000 << 36
        | shard_index << 4
        | 2
    )


def ahead(counter: int, arrival_ms: int) -> int:
    """What counter and arrival add to a shard's number without them: for whoever makes many of one shard."""
    return (counter << 80) + (arrival_ms // 1000 << 36)


def parse(value: int) -> Parsed:
    """Take a sequence number apart.

    Raises:
        ValueError: no version 2 number has this form.
    """
    created_s = value >> 148 & 0xF_FFFF_FFFF
    nibble = value >> 144 & 15
    counter = value >> 80 & 0xFFFF_FFFF_FFFF_FFFF
    flags = value >> 72 & 0xFF
    shard_index = value >> 4 & 0xFFFF_FFFF
    well_formed = (
        value >> 184 == 2  # the constant first digit
        and value & 15 == 2  # the version
        and flags == 0
        and counter <= CLOSING_COUNTER
        and shard_index <= _INDEX_MAX
        and shard_index & 15 == nibble
        and created_s < _CREATED_LIMIT
    )
    if not well_formed:
        raise ValueError(f"{value} is not a sequence number")
    return Parsed(created_s, counter, value >> 36 & 0xF_FFFF_FFFF, shard_index)


def shard_id(index: int) -> str:
    """`shardId-` and twelve digits."""
    return f"shardId-{index:012d}"


def shard_index(text: str) -> int:
    """The index that a shard id names, as lenient as AWS: the part after the first `-`, or all of it, as digits.

    Raises:
        ValueError: not digits, or above 2**31 - 1.
    Source: recorded: kinesalite's tests against AWS.
    """
    digits = text.split("-", 1)[-1]
    if not (digits.isascii() and digits.isdigit()) or int(digits) > _INDEX_MAX:
        raise ValueError(f"{text!r} names no shard")
    return int(digits)
