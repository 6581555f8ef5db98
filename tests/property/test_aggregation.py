"""Aggregated payloads: there and back, and broken in every way; protobuf's own parser is the judge."""

import hashlib
from bisect import bisect_left

import google.protobuf.message
from aws_kinesis_agg.deaggregator import messages_pb2  # it puts its folder on the path first
from hypothesis import given
from hypothesis import strategies as some

from kflow.events.aggregation import MAGIC, Aggregate, UserRecord, effective_hash_key, split
from kflow.producing.aggregating import gather, where
from kflow.producing.pipeline import Entries

END = (1 << 128) - 1

keys = some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
rows = some.tuples(some.binary(max_size=300), keys, some.none() | some.integers(0, (1 << 128) - 1))


@given(some.lists(rows, min_size=1, max_size=40), some.integers(21, 4000))
def test_what_fits_comes_out_in_order_and_never_takes_more_than_the_limit(records, limit):
    aggregate = Aggregate(limit)
    taken = [row for row in records if aggregate.add(*row)]
    payload = aggregate.payload()

    assert len(payload) == aggregate.size <= limit
    assert aggregate.count == len(taken)
    if taken:
        expected = [UserRecord(data, key, None if hash_key is None else str(hash_key)) for data, key, hash_key in taken]
        assert split(payload) == expected


def text(value):
    """What protobuf for Python leaves as bytes, where it is no UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="replace")


@given(some.lists(rows, max_size=3), some.lists(some.tuples(some.integers(0), some.integers(0, 255)), max_size=3))
def test_a_message_is_read_where_protobuf_reads_it(records, changes):
    aggregate = Aggregate(1 << 20)
    for data, _, hash_key in records:
        aggregate.add(data, "ab", hash_key)
    message = bytearray(aggregate.payload()[4:-16] or b"\x0a\x01a")
    for at, value in changes:
        message[at % len(message)] = value

    assert split(MAGIC + message + hashlib.md5(message).digest()) == judged(bytes(message))


def judged(message):
    judge = messages_pb2.AggregatedRecord()
    try:
        judge.ParseFromString(message)
    except google.protobuf.message.DecodeError:
        return None
    if not judge.IsInitialized():  # Java's parser, which AWS's consumers use, looks by itself
        return None
    expected = []
    for record in judge.records:
        has_hash_key = record.HasField("explicit_hash_key_index")
        in_bounds = record.partition_key_index < len(judge.partition_key_table)
        if not in_bounds or (has_hash_key and record.explicit_hash_key_index >= len(judge.explicit_hash_key_table)):
            break
        hash_key = text(judge.explicit_hash_key_table[record.explicit_hash_key_index]) if has_hash_key else None
        key = text(judge.partition_key_table[record.partition_key_index])
        expected.append(UserRecord(record.data, key, hash_key))
    return expected


@given(some.binary(max_size=200))
def test_garbage_behind_the_magic_bytes_is_one_record(garbage):
    assert split(MAGIC + garbage) is None
    split(MAGIC + garbage + hashlib.md5(garbage).digest())


@given(
    some.lists(rows, min_size=1, max_size=60), some.lists(some.integers(0, END), max_size=5), some.integers(40, 2000)
)
def test_every_user_record_is_put_once_in_its_own_shard_and_in_order(records, cuts, limit):
    ends = sorted({*cuts, END})
    datas, hash_keys = [row[0] for row in records], [row[2] for row in records]
    put, members = gather(ends, Entries([row[1] for row in records], datas, hash_keys), limit)
    found = {}
    for data, key, hash_key, indexes in zip(put.datas, put.keys, put.hash_keys, members, strict=True):
        users = split(data) if len(indexes) > 1 else None
        if users is None:
            users = split(data) if data != records[indexes[0]][0] else [UserRecord(data, key, text_of(hash_key))]
        assert len(data) <= max(limit, len(records[indexes[0]][0]))
        shards = {bisect_left(ends, effective_hash_key(user)) for user in users}
        assert shards == {bisect_left(ends, where(key, hash_key))}
        found.setdefault(shards.pop(), []).extend(indexes)
        assert users == [UserRecord(records[at][0], records[at][1], text_of(records[at][2])) for at in indexes]

    assert sorted(index for indexes in found.values() for index in indexes) == list(range(len(records)))
    assert all(indexes == sorted(indexes) for indexes in found.values())


def text_of(hash_key):
    return None if hash_key is None else str(hash_key)
