"""The engine over the real log, slots and parked store: what the in-memory ones of the other tests stand for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from kflow.broker.checkpoints import SlotFile, SlotState
from kflow.broker.encode import Encoder
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.clock import ManualClock
from kflow.declarations import MappingOptions
from kflow.lambda_.mapping import EventSourceMapping, Grant, StepKind
from kflow.lambda_.shapes import RecordShape
from tests.stepping import Handler, MemoryFunction, fails_on, payloads


class FullFor(Files):
    """A disk without room for slots while `full`."""

    def __init__(self) -> None:
        self.full = False

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:  # type: ignore[override]
        if self.full and len(data) == 256:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(fd, data, offset)


class World:
    def __init__(self, path: Path, handler: Handler, **options: Any) -> None:
        self.folder = DataFolder.open(path, create=True, fsync="none")
        self.files = FullFor()
        self.clock = ManualClock()
        self.function = MemoryFunction(handler, self.clock)
        self.options = MappingOptions(**options)
        with writing(self.folder) as log:
            self.stream: StreamMap = log.create_stream("orders", 1)
        self.encoder = Encoder(self.stream)
        self.parked = ParkedStore(path, self.files, "none")
        self.slots: SlotFile
        self.restart()

    def put(self, *datas: bytes) -> None:
        with writing(self.folder) as log:
            log.append(self.stream, self.encoder.encode_many(["clé"] * len(datas), datas))

    def restart(self) -> None:
        self.slots = SlotFile.open(
            self.folder.path, "bill", self.stream.id, files=self.files, create_for=[0], sync=False
        )
        self.engine = EventSourceMapping(
            options=self.options,
            function="bill",
            stream="orders",
            stream_id=self.stream.id,
            shard=0,
            source=ShardReader(self.folder, self.stream, 0),
            slots=self.slots,
            invoker=self.function,
            parking=self.parked,
            shape=RecordShape(self.stream.shards[0].created_s, 0),
        )
        self.engine.resume(Grant(1, os.getpid()))

    def run(self) -> StepKind:
        while (step := self.engine.step(self.clock.now())).kind is StepKind.AGAIN:
            pass
        return step.kind


def test_a_poison_record_is_isolated_and_parked_with_its_key_and_number(tmp_path: Path) -> None:
    world = World(
        tmp_path, fails_on(b"77"), batch_size=128, bisect_batch_on_function_error=True, maximum_retry_attempts=0
    )
    for start in range(0, 128, 32):
        world.put(*payloads(128)[start : start + 32])
    assert world.run() is StepKind.IDLE
    assert len(world.function.seen) == 15
    (entry,) = world.parked.list()
    (record,) = entry.records
    assert (record.data, record.partition_key, record.shard_id) == (b"77", "clé", "shardId-000000000000")
    assert record.sequence_number >> 80 & 0xFFFF == entry.first_counter == 77
    assert entry.error is not None
    assert entry.error.message == "77 is poison"


def test_every_step_may_be_in_another_process(tmp_path: Path) -> None:
    world = World(
        tmp_path, fails_on(b"3", b"8"), batch_size=5, bisect_batch_on_function_error=True, maximum_retry_attempts=0
    )
    world.put(*payloads(4))
    world.put(*payloads(11)[4:])
    while world.engine.step(world.clock.now()).kind is StepKind.AGAIN:
        world.restart()
    good = [data for seen in world.function.seen for data in seen if not {b"3", b"8"} & set(seen)]
    assert good == [data for data in payloads(11) if data not in (b"3", b"8")]
    assert [record.data for entry in world.parked.list() for record in entry.records] == [b"3", b"8"]
    slot = world.slots.load(0)
    assert (slot.state, slot.succeeded, slot.parked, slot.checkpoint_counter) == (SlotState.IDLE, 9, 2, 12)


def test_a_full_disk_waits_before_the_handler_and_holds_after_it(tmp_path: Path) -> None:
    world = World(tmp_path, lambda datas: None)
    world.put(b"1")
    world.files.full = True
    assert world.run() is StepKind.WAIT
    assert world.function.seen == []
    world.files.full = False

    def fill(datas: list[bytes]) -> None:
        world.files.full = True

    world.function.handler = fill
    world.engine.resume(Grant(1, os.getpid()))
    assert world.run() is StepKind.HOLD
    assert world.run() is StepKind.HOLD
    world.files.full = False
    assert world.run() is StepKind.IDLE
    assert world.function.seen == [[b"1"]]
    world.put(b"2")
    world.function.handler = lambda datas: None
    world.engine.resume(Grant(1, os.getpid()))
    assert world.run() is StepKind.IDLE
    assert world.function.seen == [[b"1"], [b"2"]]
