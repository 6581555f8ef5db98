"""What goes into a block comes out of it; sequence numbers and hash ranges keep their laws."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kflow.broker import sequence
from kflow.broker.block import KMS, Block, well_formed
from kflow.broker.encode import Encoder
from kflow.broker.hashkeys import HASH_KEY_END, digest, even_ranges
from kflow.broker.streammap import ShardInfo, StreamMap, decode, encode

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
RECORDS = st.lists(
    st.tuples(KEYS, st.binary(max_size=300), st.one_of(st.none(), st.integers(0, HASH_KEY_END))),
    min_size=1,
    max_size=60,
)


def stream(shards: int) -> StreamMap:
    return StreamMap(
        name="s",
        id=1,
        created_s=1_700_000_000,
        shards=tuple(
            ShardInfo(index=index, start=start, end=end, created_s=1_700_000_000)
            for index, (start, end) in enumerate(even_ranges(shards))
        ),
    )


@given(records=RECORDS, shards=st.integers(1, 9))
def test_records_come_out_of_blocks_as_they_went_in(records, shards: int) -> None:
    keys, datas, hash_keys = (list(column) for column in zip(*records, strict=True))
    encoder = Encoder(stream(shards))
    parts = encoder.encode_many(keys, datas, hash_keys)
    seen: list[int] = []
    for part in parts:
        assert well_formed(memoryview(part.body), part.count, part.flags)
        block = Block(0, 0, 1, 1, part.count, part.flags, part.body)
        indexes = list(range(len(records)) if part.indexes is None else part.indexes)
        seen += indexes
        assert block.columns() == ([datas[index] for index in indexes], [keys[index] for index in indexes])
        assert block.hash_keys() == [hash_keys[index] for index in indexes]
        assert list(block.lanes()) == [int.from_bytes(digest(keys[index]), "big") % 2520 for index in indexes]
        for position, index in enumerate(indexes):
            assert (block.key(position), block.data(position)) == (keys[index], datas[index])
            hashed = hash_keys[index]
            hashed = int.from_bytes(digest(keys[index]), "big") if hashed is None else hashed
            assert even_ranges(shards)[part.shard][0] <= hashed <= even_ranges(shards)[part.shard][1]
    assert sorted(seen) == list(range(len(records)))
    placed = encoder.placed(len(records), parts, [(1, 1_700_000_000_000)] * len(parts))
    assert len({place.sequence_number for place in placed}) == len(records)


@given(
    created_s=st.integers(0, 16_025_174_999),
    shard=st.integers(0, 2**31 - 1),
    counter=st.integers(0, 2**63 - 1),
    arrival_ms=st.integers(0, 2**36 * 1000 - 1),
)
def test_sequence_numbers_come_apart_as_they_were_made(created_s, shard, counter, arrival_ms) -> None:
    number = sequence.number(created_s, shard, counter, arrival_ms)
    assert sequence.parse(number) == (created_s, counter, arrival_ms // 1000, shard)
    if counter < 2**63 - 1:
        assert sequence.number(created_s, shard, counter + 1, 0) > number


@given(st.integers(1, 1000))
def test_even_ranges_cover_every_hash_key_once(count: int) -> None:
    ranges = even_ranges(count)
    assert (ranges[0][0], ranges[-1][1], len(ranges)) == (0, HASH_KEY_END, count)
    assert all(first[1] + 1 == second[0] for first, second in itertools.pairwise(ranges))


@given(st.integers(1, 50), st.integers(1, 2**64 - 1), st.booleans(), st.one_of(st.none(), st.integers(0, 2**186)))
def test_a_map_survives_its_file(shards: int, stream_id: int, deleted: bool, closed: int | None) -> None:
    found = StreamMap(
        name="s",
        id=stream_id,
        created_s=5,
        deleted=deleted,
        shards=(
            *stream(shards).shards,
            ShardInfo(index=shards, start=0, end=1, parents=(0, 1), created_s=6, closed=closed),
        ),
    )
    assert decode(encode(found)) == found


@given(st.integers(0, 300), st.integers(0, 255), st.binary(max_size=300))
def test_a_body_of_one_record_is_checked_the_same_whether_it_is_encrypted_or_not(size, key_size, rest):
    for length in (size, len(rest) - 2 - key_size):
        body = (length % (1 << 32)).to_bytes(4, "little") + bytes((key_size,)) + rest
        for cut in (body, body[:4], body[: 7 + size + key_size]):
            assert well_formed(cut, 1, 0) == well_formed(cut, 1, KMS)
