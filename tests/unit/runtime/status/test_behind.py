"""What the lanes of a shard have not settled, against a count of every record."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kflow.broker.reader import ShardReader
from kflow.errors import Damaged
from kflow.records import BEGIN_COUNTER, Position
from kflow.runtime.status.behind import Behind, Budget, Checkpoint, of_lanes
from tests.storing import Store


def keyed(store: Store, count: int, seed: int = 1) -> list[tuple[int, int, Position]]:
    """Put records of many keys in blocks of all sizes; MD5 modulo 2520, counter and position of each."""
    chance = random.Random(seed)
    left = count
    while left:
        some = min(left, chance.choice((1, 2, 7, 50)))
        keys = [f"key {chance.randrange(40)}" for _ in range(some)]
        store.log.append(store.stream, store.encoder.encode_many(keys, [b"data"] * some))
        store.clock.advance(1_000)
        left -= some
    reader, offset = store.reader(), 0
    found: list[tuple[int, int, Position]] = []
    while blocks := reader.read(offset):
        for block in blocks:
            found += [
                (value, block.first_counter + index, Position(block.offset, index))
                for index, value in enumerate(block.lanes())
            ]
        offset = blocks[-1].end
    return found


def stand(records: list[tuple[int, int, Position]], settled: list[int]) -> list[Checkpoint]:
    """Checkpoints before the records of these numbers."""
    return [Checkpoint(records[each][2], records[each][1]) for each in settled]


def test_one_lane_is_behind_by_what_the_shard_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.clock.epoch_ms
    store.put(b"1", b"2")
    store.clock.advance(5_000)
    store.put(b"3")
    reader = store.reader()
    assert of_lanes(reader, [Checkpoint(Position(0, 1), BEGIN_COUNTER + 1)], Budget()) == [Behind(2, True, first)]
    (block,) = reader.read(0, 1)
    behind = [Checkpoint(Position(block.end, 0), BEGIN_COUNTER + 2)]
    assert of_lanes(reader, behind, Budget()) == [Behind(1, True, first + 5_000)]
    done = [Checkpoint(Position(reader.tail, 0), reader.next_counter)]
    assert of_lanes(reader, done, Budget()) == [Behind(0, True, 0)]


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_lanes_are_counted_record_by_record(tmp_path: Path, factor: int) -> None:
    store = Store(tmp_path)
    records = keyed(store, 500)
    chance = random.Random(factor)
    for _ in range(5):
        checkpoints = stand(records, [chance.randrange(200) for _ in range(factor)])
        found = of_lanes(store.reader(), checkpoints, Budget())
        for lane, backlog in enumerate(found):
            mine = [
                (counter, at)
                for value, counter, at in records
                if value % factor == lane and counter >= checkpoints[lane].counter
            ]
            assert backlog.records == len(mine)
            assert backlog.exact
            assert (backlog.oldest_ms > 0) == bool(mine)
            if mine:
                (block,) = store.reader().read(mine[0][1].offset, 1)
                assert backlog.oldest_ms == block.arrival_ms


def test_lanes_that_have_settled_all_cost_no_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keyed(store, 20)
    reader = store.reader()
    budget = Budget()
    before = budget.left
    done = [Checkpoint(Position(reader.tail, 0), reader.next_counter)] * 3
    assert of_lanes(reader, done, budget) == [Behind(0, True, 0)] * 3
    assert budget.left == before


@pytest.mark.parametrize("total_bytes", [0, 1, 2_000, 6_000])
def test_past_the_budget_the_shares_add_up(tmp_path: Path, total_bytes: int) -> None:
    store = Store(tmp_path)
    records = keyed(store, 500)
    checkpoints = stand(records, [0, 0, 0])
    budget = Budget(total_bytes)
    found = of_lanes(store.reader(), checkpoints, budget)
    assert sum(each.records for each in found) == 500
    assert not any(each.exact for each in found)
    assert all(each.records > 100 for each in found)
    assert budget.left <= 0


class Broken:
    """A shard that is damaged at an offset."""

    tail = 1_000
    next_counter = BEGIN_COUNTER + 10

    def read(self, offset: int, max_bytes: int = 0) -> list:
        raise Damaged("broken", 64)

    def issued(self, first: int, stop: int) -> int:
        return max(0, stop - first)

    def clamp(self, position: Position) -> Position:
        return position


@pytest.mark.parametrize("factor", [1, 2])
def test_damage_on_the_way_is_said(factor: int) -> None:
    found = of_lanes(Broken(), [Checkpoint(Position(0, 0), BEGIN_COUNTER)] * factor, Budget())
    assert [each.damaged_at for each in found] == [64] * factor
    assert sum(each.records for each in found) == 10


def test_what_power_loss_left_out_is_not_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"1")

    class Skipping(ShardReader):
        @property
        def next_counter(self) -> int:
            return 2**40

        def issued(self, first: int, stop: int) -> int:
            return 1 if first == BEGIN_COUNTER else 0

    reader = Skipping(store.folder, store.stream, 0)
    settled = [Checkpoint(Position(reader.tail, 0), BEGIN_COUNTER + 1)]
    assert of_lanes(reader, settled, Budget()) == [Behind(0, True, 0)]
