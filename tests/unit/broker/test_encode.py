"""Encoding, routing, and what is refused; blocks read back."""

from __future__ import annotations

import enum

import pytest
from crc32c import crc32c

from kflow.broker.block import HASH_KEYS, WIDE_KEYS, Block, well_formed
from kflow.broker.encode import Encoder, Part
from kflow.broker.hashkeys import HASH_KEY_END, digest, even_ranges
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.errors import InvalidArgument, UsageError, ValidationFailed


def stream(shards: int, *, record_bytes: int = 1 << 20) -> StreamMap:
    return StreamMap(
        name="orders",
        id=7,
        created_s=1_700_000_000,
        max_record_bytes=record_bytes,
        shards=tuple(
            ShardInfo(index=index, start=start, end=end, created_s=1_700_000_000)
            for index, (start, end) in enumerate(even_ranges(shards))
        ),
    )


def block(part: Part) -> Block:
    assert well_formed(part.body, part.count, part.flags)
    assert crc32c(part.body) == part.crc
    return Block(0, 64 + len(part.body), 1, 1, part.count, part.flags, part.body)


def test_records_of_one_shard_become_one_part() -> None:
    (part,) = Encoder(stream(1)).encode_many(["a", "b", "a"], [b"1", b"", b"333"])
    assert (part.shard, part.indexes, part.count, part.flags) == (0, None, 3, 0)
    assert block(part).columns() == ([b"1", b"", b"333"], ["a", "b", "a"])
    lengths, key_lengths, lanes = b"\1\0\0\0\0\0\0\0\3\0\0\0", b"\1\1\1", b"\xd9\0\x37\3\xd9\0"
    assert part.body == lengths + key_lengths + lanes + b"aba" + b"1333"


def test_lanes_are_the_md5_modulo_2520() -> None:
    (part,) = Encoder(stream(1)).encode_many(["a", "b"], [b"", b""])
    assert block(part).lanes() == (217, int.from_bytes(digest("b"), "big") % 2520)


def test_each_record_goes_to_the_shard_that_owns_its_hash_key() -> None:
    encoder = Encoder(stream(4))
    keys = [f"key-{number}" for number in range(200)]
    parts = encoder.encode_many(keys, [key.encode() for key in keys])
    assert [part.shard for part in parts] == [0, 1, 2, 3]
    for part in parts:
        datas, found = block(part).columns()
        assert found == [keys[index] for index in part.indexes or ()]
        assert datas == [key.encode() for key in found]
        assert all(int.from_bytes(digest(key), "big") >> 126 == part.shard for key in found)
        assert all(encoder.shard_of(key) == part.shard for key in found)


def test_keys_seen_before_are_encoded_alike() -> None:
    encoder = Encoder(stream(4))
    keys = [f"key-{number}" for number in range(50)]
    first = encoder.encode_many(keys, [b"x"] * 50)
    assert encoder.encode_many(keys, [b"x"] * 50) == first


def test_the_memory_for_keys_is_bounded() -> None:
    encoder = Encoder(stream(2))
    for begin in range(0, 250_000, 50_000):
        encoder.encode_many([str(number) for number in range(begin, begin + 50_000)], [b""] * 50_000)
    assert len(encoder._entries) <= 150_000


def test_one_record_is_encoded_as_many_would_be() -> None:
    encoder = Encoder(stream(4))
    (many,) = encoder.encode_many(["key"], [b"data"])
    assert encoder.encode_one(b"data", "key")._replace(indexes=many.indexes) == many
    assert encoder.encode_one(b"data", "other").body == encoder.encode_many(["other"], [b"data"])[0].body
    assert encoder.encode_one(b"data", "other").indexes is None


def test_an_explicit_hash_key_routes_and_is_kept() -> None:
    encoder = Encoder(stream(2))
    parts = encoder.encode_many(["a", "b", "a"], [b"1", b"2", b"3"], [HASH_KEY_END, None, 0])
    found = {part.shard: block(part) for part in parts}
    assert found[1].columns() == ([b"1", b"2"], ["a", "b"])
    assert found[1].hash_keys() == [HASH_KEY_END, None]
    assert found[1].flags == HASH_KEYS
    assert found[0].hash_keys() == [0]
    assert found[0].lanes() == (217,)
    assert encoder.encode_one(b"1", "a", 0).shard == 0


def test_a_block_without_explicit_hash_keys_says_so() -> None:
    (part,) = Encoder(stream(1)).encode_many(["a", "b"], [b"", b""], [None, None])
    assert part.flags == 0
    assert block(part).hash_keys() == [None, None]


def test_keys_beyond_ascii_keep_their_text() -> None:
    keys = ["ä", "日本", "a", "\U0001f600" * 100]
    (part,) = Encoder(stream(1)).encode_many(keys, [b"1", b"2", b"3", b"4"], [5, None, 6, None])
    assert part.flags == WIDE_KEYS | HASH_KEYS
    found = block(part)
    assert found.columns() == ([b"1", b"2", b"3", b"4"], keys)
    assert [found.key(index) for index in range(4)] == keys
    assert [found.data(index) for index in range(4)] == [b"1", b"2", b"3", b"4"]
    assert found.lanes()[2] == 217
    assert found.hash_keys() == [5, None, 6, None]


def test_a_key_of_256_characters_is_wide() -> None:
    (part,) = Encoder(stream(1)).encode_many(["k" * 256, "a"], [b"1", b"2"])
    assert part.flags == WIDE_KEYS
    assert block(part).columns() == ([b"1", b"2"], ["k" * 256, "a"])


def test_a_body_above_a_mebibyte_becomes_several_parts_in_order() -> None:
    datas = [bytes([number]) * 400_000 for number in range(7)]
    parts = Encoder(stream(1)).encode_many(["k"] * 7, datas)
    assert [part.count for part in parts] == [2, 2, 2, 1]
    assert [list(part.indexes or ()) for part in parts] == [[0, 1], [2, 3], [4, 5], [6]]
    assert [data for part in parts for data in block(part).columns()[0]] == datas
    assert all(len(part.body) <= 1 << 20 for part in parts)


def test_one_large_record_has_a_part_of_its_own() -> None:
    encoder = Encoder(stream(1, record_bytes=10 << 20))
    parts = encoder.encode_many(["k", "k", "k"], [b"1", bytes(9 << 20), b"3"])
    assert [part.count for part in parts] == [1, 1, 1]
    assert encoder.encode_one(bytes(9 << 20), "k").count == 1


def test_several_parts_carry_their_explicit_hash_keys() -> None:
    parts = Encoder(stream(1)).encode_many(["k"] * 3, [bytes(600_000)] * 3, [1, None, 3])
    assert [block(part).hash_keys() for part in parts] == [[1], [None], [3]]


def test_places_are_in_the_order_of_the_call() -> None:
    encoder = Encoder(stream(2))
    keys = ["a", "b", "c", "d", "e", "f"]
    parts = encoder.encode_many(keys, [b""] * 6)
    placed = encoder.placed(6, parts, [(10, 1_700_000_001_000), (20, 1_700_000_002_000)])
    assert [place.shard_id for place in placed] == [
        f"shardId-00000000000{int.from_bytes(digest(key), 'big') >> 127}" for key in keys
    ]
    shard_0 = [place.sequence_number >> 80 & 0xFFFF for place in placed if place.shard_id.endswith("0")]
    shard_1 = [place.sequence_number >> 80 & 0xFFFF for place in placed if place.shard_id.endswith("1")]
    assert shard_0 == list(range(10, 10 + len(shard_0)))
    assert shard_1 == list(range(20, 20 + len(shard_1)))


def test_closed_shards_get_nothing() -> None:
    first, second = stream(2).shards
    closed = ShardInfo(index=0, start=0, end=HASH_KEY_END, created_s=1, closed=5)
    children = (
        ShardInfo(index=1, start=first.start, end=first.end, created_s=2, parents=(0,)),
        ShardInfo(index=2, start=second.start, end=second.end, created_s=2, parents=(0,)),
    )
    encoder = Encoder(StreamMap(name="s", id=1, created_s=1, shards=(closed, *children)))
    parts = encoder.encode_many([f"k{number}" for number in range(20)], [b""] * 20)
    assert [part.shard for part in parts] == [1, 2]
    with pytest.raises(InvalidArgument, match="has no open shard"):
        Encoder(StreamMap(name="s", id=1, created_s=1, shards=(closed,)))


@pytest.mark.parametrize(
    ("key", "data", "error", "text"),
    [
        ("", b"", ValidationFailed, "Value '' at 'records.2.member.partitionKey' .* greater than or equal to 1"),
        ("k" * 257, b"", ValidationFailed, "at 'records.2.member.partitionKey' .* less than or equal to 256"),
        ("ä" * 257, b"", ValidationFailed, "at 'records.2.member.partitionKey' .* less than or equal to 256"),
        ("k", bytes((1 << 20) + 1), ValidationFailed, "'records.2.member.data' .* less than or equal to 1048576"),
        ("kk", bytes((1 << 20) - 1), InvalidArgument, "Record 1 is too large: .* take 1048577 bytes"),
        ("k", "text", UsageError, "record 1: data must be bytes, not str"),
        ("k", None, UsageError, "record 1: data must be bytes, not NoneType"),
        (b"k", b"", UsageError, "record 1: the partition key must be a str, not bytes"),
        (["k"], b"", UsageError, "record 1: the partition key must be a str, not list"),
        ("\ud800", b"", UsageError, "record 1: the partition key is no Unicode text"),
    ],
)
@pytest.mark.parametrize("shards", [1, 4])
def test_what_a_record_must_not_be(key, data, error, text: str, shards: int) -> None:
    with pytest.raises(error, match=text):
        Encoder(stream(shards)).encode_many(["a", key], [b"", data])


def test_one_record_alone_is_refused_in_the_words_of_put_record() -> None:
    encoder = Encoder(stream(1))
    with pytest.raises(ValidationFailed, match="Value '' at 'partitionKey' failed"):
        encoder.encode_one(b"", "")
    encoder.encode_one(b"", "k")
    with pytest.raises(ValidationFailed, match="Value at 'data' failed"):
        encoder.encode_one(bytes((1 << 20) + 1), "k")


def test_the_largest_record_counts_data_and_key() -> None:
    (part,) = Encoder(stream(1)).encode_many(["kk"], [bytes((1 << 20) - 2)])
    assert block(part).columns()[1] == ["kk"]
    assert Encoder(stream(1)).encode_many(["ä" * 256], [b"x"])[0].count == 1


@pytest.mark.parametrize("hash_key", [-1, 1 << 128])
def test_a_hash_key_out_of_range_is_refused(hash_key: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"in the range: \[0, 2\^128-1\]. Specified value was {hash_key}"):
        Encoder(stream(2)).encode_many(["a"], [b""], [hash_key])


def test_a_hash_key_that_is_text_is_refused_with_what_it_must_be() -> None:
    with pytest.raises(UsageError, match="an explicit hash key is an int from 0 to 2\\*\\*128 - 1, not '12'"):
        Encoder(stream(2)).encode_one(b"", "a", "12")  # type: ignore[arg-type]


def test_a_call_without_records_is_refused() -> None:
    with pytest.raises(ValidationFailed, match=r"at 'records' .* greater than or equal to 1"):
        Encoder(stream(2)).encode_many([], [])
    with pytest.raises(UsageError, match="2 partition keys for 1 payloads"):
        Encoder(stream(2)).encode_many(["a", "b"], [b""])


def test_other_kinds_of_text_and_bytes_are_taken() -> None:
    class Key(enum.StrEnum):
        FIRST = "first"

    (part,) = Encoder(stream(1)).encode_many([Key.FIRST, "b"], [bytearray(b"1"), b"2"])
    assert block(part).columns() == ([b"1", b"2"], ["first", "b"])


@pytest.mark.parametrize(
    ("body", "count", "flags"),
    [
        (b"", 1, 0),
        (b"\1\0\0\0\1\0\0k1", 0, 0),
        (b"\2\0\0\0\1\0\0k1", 1, 0),  # a payload longer than the body
        (b"\1\0\0\0\2\0\0k1", 1, 0),  # a key longer than the body
        (b"\1\0\0\0\1\0\0k1x", 1, 0),  # something left over
        (b"\1\0\0\0\1\0\0k1", 1, 8),  # an unknown flag
        (b"\1\0\0\0\1\0\0k1", 1, WIDE_KEYS),
        (b"\1\0\0\0\1\0\0\1k1", 1, HASH_KEYS),  # a hash key that is not there
        (b"\1\0\0\0\1\0\0\2k1" + bytes(16), 1, HASH_KEYS),
        (b"\0\0\0\0\0\0\0", 1, HASH_KEYS),
    ],
)
def test_a_body_that_does_not_add_up_is_not_well_formed(body: bytes, count: int, flags: int) -> None:
    assert not well_formed(memoryview(body), count, flags)
