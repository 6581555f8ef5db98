"""A stream's shards change under a running node: its parts are real, no process is started."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.broker import streammap
from kflow.broker.checkpoints import SlotFile
from kflow.broker.encode import Encoder
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import Reshard, split
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler, HandlerForm, MappingOptions, StreamTrigger
from kflow.records import Position
from kflow.runtime.consumers import beginning, children
from kflow.runtime.consumers.beginning import Begin
from kflow.runtime.loop import Loop
from kflow.runtime.messages import Channel, Map, Returned
from kflow.runtime.node.node import FunctionPlan
from kflow.runtime.node.workers import WorkerHandle
from kflow.runtime.plan.leases import LeaseState
from tests.deadline import eventually
from tests.nodes import Heard, node_of


class FullDisk(Files):
    """Refuses to open slots for writing while it is full."""

    full = False

    def open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        if self.full and str(path).endswith(".slots"):
            raise OSError(28, os.strerror(28), str(path))
        return super().open(path, flags, *more, **named)


class World:
    """A node that reads one stream of one shard by one function with two lanes."""

    def __init__(self, path: Path) -> None:
        self.files = FullDisk()
        self.folder = DataFolder.open(path, create=True, files=self.files)
        self.writer = self.folder.writer_lock()
        self.writer.acquire(5)
        self.log = Log(self.folder)
        self.stream = self.log.create_stream("orders", 1)
        self.loop = Loop()
        self.heard = Heard()
        folder = self.folder
        self.node = node_of(self.log, self.loop, self.heard)
        trigger = StreamTrigger(stream="orders", options=MappingOptions(parallelization_factor=2))
        self.handler = Handler(
            name="bill",
            file="app.py",
            line=1,
            root=".",
            module="app",
            qualname="bill",
            form=HandlerForm.EVENT,
            triggers=(trigger,),
        )
        self.node.functions["bill"] = FunctionPlan(
            handler=self.handler, maps=(self.stream,), timeout_s=3, memory_mb=128, environment={}
        )
        slots = beginning.make_slots(folder, Begin(self.handler, 0, self.stream))
        ends = {(self.stream.id, 0): (0, 1)}
        leases = beginning.leases_of(Begin(self.handler, 0, self.stream), self.stream.shards, ends, 0.0, slots)
        slots.close()
        for number, lease in enumerate(leases, 1):
            lease.id = number
        self.node.reads.add(leases, ends, [])
        self.node.feed.start()
        self.node.table.stopping = True  # nothing is to be started here
        self._worker()

    def _worker(self) -> None:
        ours, self.theirs = socket.socketpair()
        spec: Any = None
        handle = WorkerHandle(1, "bill", spec, Channel(ours, "from_worker"), 0.0)
        self.loop.add(ours.fileno(), lambda mask: None)
        self.node.supervisor.handles[1] = handle
        self.channel = Channel(self.theirs, "to_worker")

    def put(self, count: int) -> None:
        encoder = Encoder(self.stream)
        for number in range(count):
            part = encoder.encode_one(b"x", f"k{number}")
            self.log.append(self.stream, [part])
            shard = self.log.shard(self.stream, part.shard)
            self.node.on_append(self.stream, part.shard, shard.tail, shard.next_counter)

    def split(self, shard: int) -> StreamMap:
        folder, old = self.folder, self.stream
        change = Reshard(self.log, split(old, shard, None, account=folder.account, region=folder.region))
        change.prepare()
        self.stream = change.seal()
        self.node.reads.map_changed(old, self.stream)
        change.finish()
        return self.stream

    def until(self, condition: Callable[[], object]) -> None:
        def turn() -> object:
            self.loop.round(0.01)
            return condition()

        eventually(turn, seconds=30, what="the leases of the children")

    def states(self) -> list[tuple[int, int, str]]:
        return [(lease.shard, lease.lane, lease.state.value) for lease in self.node.table.leases.values()]

    def close(self) -> None:
        handle = self.node.supervisor.handles.pop(1)
        self.loop.remove(handle.channel.fileno())
        handle.channel.close()
        self.theirs.close()
        self.node.close()
        self.log.close()
        self.writer.release()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


def test_children_of_a_parent_that_was_read_may_be_read_at_once(world: World) -> None:
    world.split(0)

    world.until(lambda: len(world.node.table.leases) == 6)

    drained = LeaseState.DRAINED.value
    news = LeaseState.NEWS.value
    assert world.states() == [(0, 0, drained), (0, 1, drained), (1, 0, news), (1, 1, news), (2, 0, news), (2, 1, news)]


def test_children_wait_for_a_parent_that_was_not(world: World) -> None:
    world.put(4)
    world.split(0)

    world.until(lambda: len(world.node.table.leases) == 6)

    assert {state for shard, _, state in world.states() if shard} == {"parents"}


def test_slots_of_children_are_there_before_their_leases(world: World) -> None:
    world.put(1)
    stream = world.split(0)
    assert len(world.node.table.leases) == 2

    world.until(lambda: len(world.node.table.leases) == 6)

    slots = SlotFile.open(world.folder.path, "bill", stream.id, files=world.folder.files)
    assert slots.load(2, 1).checkpoint == Position(0, 0)
    slots.close()


def test_workers_learn_of_the_map_before_any_grant_of_a_child(world: World) -> None:
    stream = world.split(0)

    (message,) = world.channel.receive(wait=True)
    assert message == Map(0, streammap.encode(stream))
    assert world.node.functions["bill"].maps == (stream,)


def test_slots_that_cannot_be_written_hold_the_children_up_and_people_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "RETRY_S", 0.01)
    world.files.full = True
    world.split(0)
    world.until(lambda: any("wait for their checkpoints" in text for text in world.heard.texts))
    assert len(world.node.table.leases) == 2

    world.files.full = False
    world.until(lambda: len(world.node.table.leases) == 6)

    assert len([text for text in world.heard.texts if "wait for their checkpoints" in text]) == 1


def test_grandchildren_come_after_children_even_where_both_come_at_once(world: World) -> None:
    world.put(1)
    world.split(0)
    world.split(1)

    world.until(lambda: len(world.node.table.leases) == 10)

    assert [shard for shard, lane, _ in world.states() if lane == 0] == [0, 1, 2, 3, 4]
    assert {state for shard, _, state in world.states() if shard} == {"parents"}


def test_damage_is_put_to_the_writer_once_and_the_lease_goes_on_when_it_has_looked(world: World) -> None:
    world.put(3)
    table = world.node.table
    table.stopping = False
    place = table.plan(0.0)
    assert place
    table.stopping = True
    lease = table.leases[1]
    worker = world.node.supervisor.handles[1]
    worker.held = 2
    for each in (1, 2):
        generation = table.leases[each].generation
        damaged = Returned(each, generation, "damage", 60_000, 0, damaged_at=0)
        world.node.returned(worker, damaged, 1.0)
    assert lease.state is LeaseState.DUE

    world.until(lambda: lease.state is LeaseState.READY)

    assert table.leases[2].state is LeaseState.READY


def test_nothing_of_a_stream_that_goes_is_granted_any_more_and_who_holds_a_lease_returns_it(world: World) -> None:
    world.put(3)
    table = world.node.table
    table.stopping = False
    assert table.plan(0.0)
    table.stopping = True
    assert list(table.places) == [1]
    held = {(lease.id, lease.generation) for lease in table.places[1].leases.values()}

    assert world.node.reads.stream_gone(world.stream) == ["bill"]

    assert world.states() == []
    asked: set[tuple[int, int]] = set()
    while asked < held:
        asked |= {(each.lease, each.generation) for each in world.channel.receive(wait=True)}
    assert asked == held


def test_a_stream_made_anew_is_read_from_its_beginning_by_who_read_the_old_one(world: World) -> None:
    world.node.reads.stream_gone(world.stream)
    world.log.delete_stream("orders")
    new = world.stream = world.log.create_stream("orders", 2)

    assert world.node.reads.stream_born(new) == ["bill"]

    world.put(1)
    world.until(lambda: len(world.node.table.leases) == 4)
    assert {lease.stream_id for lease in world.node.table.leases.values()} == {new.id}
    (message,) = world.channel.receive(wait=True)
    assert message == Map(0, streammap.encode(new))
    slots = SlotFile.open(world.folder.path, "bill", new.id, files=world.folder.files)
    assert slots.load(0, 0).checkpoint == Position(0, 0)
    slots.close()


def test_a_stream_that_nobody_names_is_read_by_nobody(world: World) -> None:
    assert world.node.reads.stream_born(world.log.create_stream("other", 1)) == []
    assert len(world.node.table.leases) == 2
