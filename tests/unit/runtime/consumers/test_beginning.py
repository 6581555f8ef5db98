"""Where consumers begin: new ones, those that come back, and the children of what they had."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.broker.checkpoints import Slot
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import Reshard, split
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler, HandlerForm, MappingOptions, StartingPosition, StreamTrigger
from kflow.records import BEGIN_COUNTER, Position
from kflow.runtime.consumers import beginning
from kflow.runtime.consumers.beginning import Begin
from kflow.runtime.plan.lease import LeaseState


class Shop:
    """A folder with a stream of one shard, and a writer."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder.open(path, create=True)
        self.lock = self.folder.writer_lock()
        self.lock.acquire(5)
        self.log = Log(self.folder)
        self.stream = self.log.create_stream("orders", 1)

    def put(self, count: int) -> None:
        encoder = Encoder(self.stream)
        for number in range(count):
            self.log.append(self.stream, [encoder.encode_one(b"x", f"k{number}")])

    def split(self, shard: int) -> None:
        folder = self.folder
        plan = split(self.stream, shard, None, account=folder.account, region=folder.region)
        change = Reshard(self.log, plan)
        change.prepare()
        self.stream = change.seal()
        change.finish()

    def begin(self, **options: object) -> Begin:
        handler = Handler(
            name="bill",
            file="app.py",
            line=1,
            root=".",
            module="app",
            qualname="bill",
            form=HandlerForm.EVENT,
            triggers=(StreamTrigger(stream="orders", options=MappingOptions(**options)),),  # type: ignore[arg-type]
        )
        return Begin(handler, 0, self.stream)

    def slots(self, begin: Begin) -> dict[tuple[int, int], Slot]:
        made = beginning.make_slots(self.folder, begin)
        try:
            return {key: made.load(*key) for key in made.keys()}  # noqa: SIM118  # not a dict
        finally:
            made.close()

    def tail(self, shard: int) -> int:
        return self.log.shard(self.stream, shard).tail


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "data")


def test_each_lane_of_each_shard_has_a_slot_at_the_start(shop: Shop) -> None:
    shop.put(3)

    slots = shop.slots(shop.begin(parallelization_factor=3))

    assert list(slots) == [(0, 0), (0, 1), (0, 2)]
    assert {slot.checkpoint for slot in slots.values()} == {Position(0, 0)}


def test_a_new_consumer_from_the_tip_has_nothing_to_read_in_closed_shards_either(shop: Shop) -> None:
    shop.put(3)
    shop.split(0)

    slots = shop.slots(shop.begin(starting_position=StartingPosition.LATEST))

    assert slots[0, 0].checkpoint == Position(shop.tail(0), 0)
    assert slots[0, 0].checkpoint_counter == BEGIN_COUNTER + 3
    assert len(slots) == 3


def test_children_of_what_a_consumer_had_begin_at_their_beginning_whatever_its_starting_position(shop: Shop) -> None:
    begin = shop.begin(starting_position=StartingPosition.LATEST)
    shop.slots(begin)
    shop.split(0)
    shop.split(1)
    shop.put(20)

    slots = shop.slots(shop.begin(starting_position=StartingPosition.LATEST))

    assert {key: slot.checkpoint for key, slot in slots.items() if key[0] > 0} == {
        (shard, 0): Position(0, 0) for shard in (1, 2, 3, 4)
    }


def test_slots_of_children_are_added_beside_those_there_are_and_none_is_touched(shop: Shop) -> None:
    begin = shop.begin(parallelization_factor=2)
    made = beginning.make_slots(shop.folder, begin)
    kept = Slot(checkpoint=Position(64, 0), checkpoint_counter=9, succeeded=4)
    made.store(0, 1, kept)
    shop.split(0)

    beginning.add_children(shop.folder, begin.handler, 0, shop.stream, shop.stream.shards[1:])

    assert made.load(0, 1).succeeded == 4
    assert made.load(2, 1).checkpoint == Position(0, 0)
    made.close()


def test_leases_name_their_parents_and_sleep_where_all_is_settled(shop: Shop) -> None:
    shop.put(2)
    shop.split(0)
    begin = shop.begin(parallelization_factor=2)
    made = beginning.make_slots(shop.folder, begin)
    made.store(0, 1, Slot(checkpoint=Position(shop.tail(0), 0), checkpoint_counter=BEGIN_COUNTER + 2))
    ends = {(shop.stream.id, shard.index): (shop.tail(shard.index), 0) for shard in shop.stream.shards}

    leases = beginning.leases_of(begin, shop.stream.shards, ends, 0.0, made)

    assert [(lease.shard, lease.lane, lease.parents) for lease in leases] == [
        (0, 0, ()), (0, 1, ()), (1, 0, (0,)), (1, 1, (0,)), (2, 0, (0,)), (2, 1, (0,)),
    ]  # fmt: skip
    assert [lease.state for lease in leases] == [LeaseState.READY, *[LeaseState.NEWS] * 5]
    made.close()


def test_a_stream_map_that_grew_twice_still_leads_back_to_what_the_consumer_had(shop: Shop) -> None:
    shop.split(0)
    shop.split(2)
    stream: StreamMap = shop.stream

    assert beginning._descends(stream, 4, {0})
    assert beginning._descends(stream, 4, {2})
    assert not beginning._descends(stream, 4, {1})
    assert not beginning._descends(stream, 0, {1, 2, 3, 4})
