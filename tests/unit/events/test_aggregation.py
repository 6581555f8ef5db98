"""Aggregated payloads, with AWS's own Python library as a second opinion."""

import hashlib
import logging

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from kflow.events.aggregation import MAGIC, Aggregate, UserRecord, effective_hash_key, split


def payload(message):
    return MAGIC + message + hashlib.md5(message).digest()


def test_the_bytes_of_an_aggregate():
    aggregate = Aggregate(1000)
    assert aggregate.add(b"one", "a", None)
    assert aggregate.add(b"two", "b", 7)
    assert aggregate.add(b"three", "a", 7)

    message = bytes.fromhex(
        "0a0161"  # partition key a
        "0a0162"  # b
        "120137"  # explicit hash key 7
        "1a0708001a036f6e65"
        "1a09080110001a0374776f"
        "1a0b080010001a057468726565"
    )
    assert aggregate.payload() == payload(message)
    assert aggregate.size == len(aggregate.payload())
    assert aggregate.count == 3


def test_what_was_gathered_comes_out_again():
    aggregate = Aggregate(1 << 20)
    assert aggregate.add(b"", "grün", None)
    assert aggregate.add(b"x" * 200, "k" * 256, (1 << 128) - 1)

    assert split(aggregate.payload()) == [
        UserRecord(b"", "grün", None),
        UserRecord(b"x" * 200, "k" * 256, "340282366920938463463374607431768211455"),
    ]


def test_a_record_that_does_not_fit_changes_nothing():
    aggregate = Aggregate(60)
    assert aggregate.add(b"12345", "a", None)
    before = aggregate.payload()

    assert not aggregate.add(b"x" * 30, "b", 5)
    assert aggregate.payload() == before
    assert aggregate.add(b"6", "b", None)
    assert split(aggregate.payload()) == [UserRecord(b"12345", "a", None), UserRecord(b"6", "b", None)]


def test_aws_own_library_packs_what_we_unpack():
    packer = RecordAggregator()
    for key, data, hash_key in (("a", "one", None), ("b", "two", "12"), ("a", "three", "12")):
        assert packer.add_user_record(key, data, hash_key) is None
    _, _, packed = packer.clear_and_get().get_contents()

    found = split(packed)
    assert [(record.partition_key, record.data) for record in found] == [("a", b"one"), ("b", b"two"), ("a", b"three")]
    assert [record.explicit_hash_key for record in found][1:] == ["12", "12"]


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"plain",
        MAGIC,
        MAGIC + bytes(16),  # no message at all
        MAGIC + b"\x0a\x01a" + bytes(16),  # another digest
        payload(b"\x0a\x05a"),  # a key that is cut off
        payload(b"\x1a\x05\x1a\x03one"),  # a record without its key
        payload(b"\x1a\x02\x08\x00"),  # a record without data
        payload(b"\x1a\x05\x08\x00\x1a\x05o"),  # data that are cut off
        payload(b"\x1a\x04\x08\x00\x1a\x05ooooo"),  # data that reach out of their record
        payload(b"\x1a\x09\x08\x00\x1a\x01o\x22\x02\x12\x00"),  # a tag without its key
        payload(b"\x0f"),  # no such kind of field
        payload(b"\x00\x00"),  # no such field
        payload(b"\x2c"),  # the end of a group that never began
        payload(b"\x2b\x34"),  # a group that ends as another
        payload(b"\x2b" * 200 + b"\x2c" * 200),  # groups too deep
        payload(b"\x28" + b"\x80" * 11 + b"\x00"),  # a number too long
        payload(b"\x28\x80"),  # a number that is cut off
        payload(b"\x29\x00"),  # eight bytes that are cut off
    ],
)  # fmt: skip
def test_what_is_no_aggregate_stays_one_record(whole):
    assert split(whole) is None


def test_fields_that_nobody_knows_are_passed_over():
    message = (
        b"\x28\x05"  # a number
        b"\x31" + bytes(8) + b"\x3d" + bytes(4) + b"\x42\x01x"  # eight bytes, four bytes, a text
        b"\x4b\x08\x01\x4c"  # a group
        b"\x0a\x01a"
        b"\x1a\x0c\x08\x00\x1a\x01o\x22\x03\x0a\x01t\x28\x01"
    )

    assert split(payload(message)) == [UserRecord(b"o", "a", None)]


def test_records_behind_one_that_names_no_key_are_lost_as_with_aws_consumers(caplog):
    message = b"\x0a\x01a\x1a\x05\x08\x00\x1a\x01x\x1a\x05\x08\x01\x1a\x01y\x1a\x05\x08\x00\x1a\x01z"
    with caplog.at_level(logging.WARNING):
        found = split(payload(message))

    assert found == [UserRecord(b"x", "a", None)]
    assert caplog.messages == ["an aggregated record names a key it does not hold: kept=1 lost=2"]


def test_where_a_user_record_belongs():
    assert effective_hash_key(UserRecord(b"", "a", "17")) == 17
    assert effective_hash_key(UserRecord(b"", "a", None)) == 0x0CC175B9C0F1B6A831C399E269772661
    assert effective_hash_key(UserRecord(b"", "a", "x")) == 0x0CC175B9C0F1B6A831C399E269772661
