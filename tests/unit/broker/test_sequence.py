"""Sequence numbers and shard ids."""

from __future__ import annotations

import pytest

from kflow.broker import sequence


def test_a_number_holds_creation_shard_counter_and_arrival() -> None:
    number = sequence.number(1_700_000_000, 3, 7, 1_700_000_123_456)
    assert number == 49646437577175378652512468275258999061140685617511792690
    assert sequence.parse(number) == (1_700_000_000, 7, 1_700_000_123, 3)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (
            "49590338271490256608559692538361571095921575989136588898",
            sequence.Parsed(created_s=1542776258, counter=1734642199, arrival_s=1545084650, shard_index=6),
        ),
        (
            "49546986683135544286507457936321625675700192471156785154",
            sequence.Parsed(created_s=1421279230, counter=469, arrival_s=1421279386, shard_index=0),
        ),
    ],
)
def test_numbers_of_aws_come_apart_and_together_again(text: str, parsed: sequence.Parsed) -> None:
    assert sequence.parse(int(text)) == parsed
    assert sequence.number(parsed.created_s, parsed.shard_index, parsed.counter, parsed.arrival_s * 1000) == int(text)


def test_the_first_numbers_of_neighbouring_shards_differ_as_on_aws() -> None:
    first = [sequence.number(1_700_000_000, shard, 0, 1_700_000_000_000) for shard in (0, 1)]
    assert first[1] - first[0] == 22300745198530623141535718272648361505980432


def test_records_of_a_block_are_a_step_apart() -> None:
    assert sequence.number(5, 2, 9, 1000) - sequence.number(5, 2, 8, 1000) == sequence.STEP


@pytest.mark.parametrize(
    "number",
    [
        0,
        1,
        sequence.number(1_700_000_000, 3, 7, 1) + 1,  # version 3
        sequence.number(1_700_000_000, 3, 7, 1) ^ 1 << 184,  # another first digit
        sequence.number(1_700_000_000, 3, 7, 1) | 1 << 72,  # a flag
        sequence.number(1_700_000_000, 3, 7, 1) ^ 1 << 144,  # nibble and index differ
        sequence.number(16_025_175_000, 3, 7, 1),  # created too late
        sequence.number(1_700_000_000, 3, 1 << 63, 1),  # counter of 64 bits
        49545115243490985018280067714973144582180062593244200961,  # version 1
    ],
)
def test_what_is_no_number_of_version_2_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="is not a sequence number"):
        sequence.parse(number)


def test_shard_ids_have_twelve_digits() -> None:
    assert sequence.shard_id(12) == "shardId-000000000012"


@pytest.mark.parametrize("text", ["shardId-000000000007", "shardId-7", "x-7", "-7", "7", "0007"])
def test_shard_ids_are_read_as_leniently_as_aws_does(text: str) -> None:
    assert sequence.shard_index(text) == 7


@pytest.mark.parametrize("text", ["", "shardId-", "2147483648", "2.14E4", "ABKLFD8", "a-b-7", "shardId-٣"])
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no shard"):
        sequence.shard_index(text)
