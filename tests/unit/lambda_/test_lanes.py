"""Which record is of which lane, and one read for the lanes of a process."""

from __future__ import annotations

import hashlib

import pytest

from kflow.clock import ManualClock
from kflow.lambda_.lanes import SharedSource, partition
from kflow.lambda_.picked import Picked
from kflow.lambda_.selection import Selection
from kflow.lambda_.shapes import EventShape, RecordShape
from tests.stepping import STREAM, MemoryShard

KEYS = [f"key-{number}" for number in range(50)]


def shard_of(blocks: int = 1, size: int = 10) -> MemoryShard:
    shard = MemoryShard(ManualClock())
    for block in range(blocks):
        shard.append([b"%d" % block * size] * len(KEYS), KEYS)
    return shard


def lane_of(key: str, factor: int) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()) % 2520 % factor


@pytest.mark.parametrize("factor", range(1, 11))
def test_a_lane_is_the_md5_of_the_key_modulo_the_factor(factor: int) -> None:
    (block,) = shard_of().blocks
    parts = partition(block, factor)
    assert len(parts) == factor
    for lane, part in enumerate(parts):
        assert part == [index for index, key in enumerate(KEYS) if lane_of(key, factor) == lane]
        # 2520 is a multiple of every factor: the whole number says the same.
        assert all(int(hashlib.md5(KEYS[index].encode()).hexdigest(), 16) % factor == lane for index in part)


def test_lanes_of_a_shared_source_read_a_block_once() -> None:
    shard = shard_of(blocks=3)
    source = SharedSource(shard)
    first = source.read(0)
    assert [block.first_counter for block in first] == [1, 51, 101]
    assert source.read(0)[0] is first[0]
    assert source.read(first[1].offset)[0] is first[1]
    assert shard.reads == 1
    assert partition(first[0], 4) is partition(first[0], 4)
    assert first[0].columns() is first[0].columns()
    assert first[0].columns() == shard.blocks[0].columns()


def test_a_shared_source_remembers_no_more_than_it_may() -> None:
    shard = shard_of(blocks=8, size=1000)  # 50 kB each
    source = SharedSource(shard, kept_bytes=120_000)
    at = 0
    for _ in range(8):
        at = source.read(at, 1)[0].end
    assert shard.reads == 8
    source.read(shard.blocks[7].offset, 1)
    source.read(shard.blocks[6].offset, 1)
    assert shard.reads == 8
    source.read(shard.blocks[3].offset, 1)
    assert shard.reads == 9


def test_one_read_is_remembered_whatever_its_size() -> None:
    shard = shard_of(blocks=4, size=1000)
    source = SharedSource(shard, kept_bytes=10)
    source.read(0)
    source.read(shard.blocks[3].offset)
    assert shard.reads == 1


def test_what_retention_removed_is_not_remembered() -> None:
    shard = shard_of(blocks=3)
    source = SharedSource(shard)
    source.read(0)
    shard.expire(2)
    assert source.read(0)[0].first_counter == 101
    assert (source.tail, source.horizon, source.next_counter, source.closed) == (
        shard.tail,
        shard.horizon,
        shard.next_counter,
        False,
    )
    assert source.issued(1, 101) == 100


def test_records_of_a_lane_keep_their_own_sequence_numbers() -> None:
    shape = RecordShape(STREAM.created_s, 0)
    (block,) = shard_of().blocks
    whole = shape.build(block, 0, block.count)
    for lane in range(3):
        part = Selection(shape, factor=3, lane=lane).of(block)
        assert isinstance(part, Picked)
        assert shape.build(part, 0, part.count) == [whole[index] for index in part.places]
        assert shape.build(part, 1, 3) == [whole[index] for index in part.places[1:3]]


def test_a_block_without_records_of_the_lane_gives_nothing_and_one_full_of_them_itself() -> None:
    shape = RecordShape(STREAM.created_s, 0)
    shard = MemoryShard(ManualClock())
    block = shard.append([b"a", b"b"], "k")
    mine = lane_of("k", 5)
    assert Selection(shape, factor=5, lane=mine).of(block) is block
    assert Selection(shape, factor=5, lane=(mine + 1) % 5).of(block) is None


def test_lanes_read_by_one_process_are_built_together_and_hand_out_the_same() -> None:
    shard = shard_of(blocks=2)
    shape = RecordShape(STREAM.created_s, 0)
    together, apart = SharedSource(shard), SharedSource(shard)
    together.readers = 4
    for one, other in zip(together.read(0), apart.read(0), strict=True):
        for lane in range(4):
            selection = Selection(shape, factor=4, lane=lane)
            built, plain = selection.of(one), selection.of(other)
            assert isinstance(built, Picked)
            assert isinstance(plain, Picked)
            assert built.built == shape.build(plain, 0, plain.count)
            assert plain.built is None
            assert list(built.places) == list(plain.places)
            assert built.columns() == plain.columns()
            assert (built.data(1), built.key(1), built.weight) == (plain.data(1), plain.key(1), plain.weight)
            # A lane that begins again is given them again.
            again = selection.of(one)
            assert isinstance(again, Picked)
            assert again.built == built.built


def test_records_that_a_handler_may_change_are_built_for_each_lane_by_itself() -> None:
    shard = shard_of()
    shape = EventShape(STREAM.created_s, 0, arn="arn", region="eu-west-1", role="role")
    source = SharedSource(shard)
    source.readers = 4
    (block,) = source.read(0)
    part = Selection(shape, factor=4, lane=1).of(block)
    assert isinstance(part, Picked)
    assert part.built is None


def test_a_lane_gets_what_is_remembered_a_slice_at_a_time() -> None:
    shard = shard_of(blocks=8, size=1000)  # 50 kB each
    source = SharedSource(shard)
    assert [len(source.read(offset)) for offset in (0, shard.blocks[2].offset, shard.blocks[7].offset)] == [2, 2, 1]
    assert shard.reads == 1
