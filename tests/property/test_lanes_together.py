"""The lanes of one shard in one process, in any order of steps, with the process dying at any store.

Engines share a reader that remembers blocks, a file of slots, a parked store and a function, as they do in a worker.
What a death leaves is what the slots say: they are written by the real `SlotFile` on a disk in memory, and a death may
tear the write. With every invocation and every store:

- an invocation has exactly the next records of its lane after its durable checkpoint, so that each key stays in order
- a checkpoint passes a record of its lane only after the function did it, or it was parked or dropped, or it was gone
- attempts are as many as allowed, and what is parked has failed so often, seen by somebody
- the records that are settled are those that the totals count
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.broker.checkpoints import Slot, SlotFile, SlotState
from kflow.broker.parked import ParkedBatch
from kflow.broker.slots import COPY_BYTES
from kflow.clock import ManualClock
from kflow.declarations import MappingOptions
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_.lanes import SharedSource
from kflow.lambda_.mapping import Death, EventSourceMapping, Grant, Step, StepKind
from kflow.lambda_.shapes import RecordShape
from kflow.testing.memory import MemoryFiles
from tests.stepping import STREAM, Killed, MemoryParking, MemoryShard

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")
KEYS = [f"key-{number}" for number in range(12)]
FILTERS = ('{"data":{"passes":[true]}}',)

FAULTS = ["none"] * 6 + ["store fails", "dies before store", "dies in store", "dies after store"]
FAULTS += ["dies after park"] * 3
BEHAVIOURS = ["ok", "ok", "ok", "raise", "partial", "invalid", "die"]

MOVES = ["step"] * 30 + ["put"] * 4 + ["die", "expire", "factor"]


def moves(random: Random) -> Iterator[tuple[Any, ...]]:
    """What happens, one after the other, without end; evenly, for a fault must meet the one store that it is of."""
    while True:
        move = random.choice(MOVES)
        if move == "step":
            yield move, random.randrange(10), random.choice(BEHAVIOURS), random.choice(FAULTS), random.randint(1, 2)
        elif move == "put":
            yield move, random.randint(1, 12)
        elif move == "die":
            yield move, random.choice(["clean", "crash"])
        elif move == "factor":
            yield move, random.choice([1, 2, 3, 10])
        else:
            yield (move,)


class Tearing(MemoryFiles):
    """Writes that stop in the middle with their process, when told to."""

    __slots__ = ("tears",)

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        if getattr(self, "tears", False) and len(content) == COPY_BYTES:
            super().pwrite(fd, content[: COPY_BYTES // 2], offset)
            raise Killed
        return super().pwrite(fd, content, offset)


class World:
    """One shard, one function, all lanes in one process, and what is known of each record."""

    def __init__(self, *, factor: int, kept_bytes: int, **options: Any) -> None:
        self.factor = factor
        self.kept_bytes = kept_bytes
        self.given = options
        self.clock = ManualClock()
        self.shard = MemoryShard(self.clock)
        self.parking = MemoryParking()
        self.files = Tearing()
        self.files.tears = False
        self.files.mkdir("/data")
        self.epoch, self.pid = 1, 1000
        self.done: set[int] = set()
        self.gone: set[int] = set()
        self.failures: Counter[int] = Counter()
        self.parked: set[int] = set()  # since the lanes were formed
        self.behaviour = self.fault = "none"
        self.fault_at = self.stores = 0
        self.lane = 0
        self.start()

    # ------------------------------------------------------------ the process

    def start(self, *, clean: bool = True, death: tuple[int, Death] | None = None) -> None:
        """A new process: nothing but what is on the disk is known."""
        self.options = MappingOptions(parallelization_factor=self.factor, **self.given)
        self.slots = SlotFile.open(
            "/data", "bill", STREAM.id, files=self.files, create_for=[0], factor=self.factor, sync=False
        )
        self.checkpoints = [self.slots.load(0, lane).checkpoint_counter for lane in range(self.factor)]
        source = SharedSource(self.shard, kept_bytes=self.kept_bytes)
        self.engines = [self.engine(lane, source) for lane in range(self.factor)]
        for lane, engine in enumerate(self.engines):
            told = death[1] if death is not None and death[0] == lane else None
            engine.resume(Grant(self.epoch, self.pid, previous_epoch_clean=clean, death=told))

    def engine(self, lane: int, source: SharedSource) -> EventSourceMapping:
        return EventSourceMapping(
            options=self.options,
            function="bill",
            stream="orders",
            stream_id=STREAM.id,
            shard=0,
            source=source,
            slots=self,
            invoker=self,
            parking=self.parking,
            shape=RecordShape(STREAM.created_s, 0),
            lane=lane,
            floor=lambda: self.slots.least(0),
            retry_backoff_scale=0.0,
        )

    def died(self, how: str) -> None:
        """The process is gone."""
        self.files.tears = False
        slot = self.slots_on_disk().load(0, self.lane)
        death = None
        if how == "reported" and slot.state is SlotState.RUNNING:
            death = (self.lane, Death(self.pid, None, EXIT))
            self.failures.update(self.next_ones(slot.count, 0))
        self.pid += 1
        if how != "reported":
            self.epoch += 1
        self.start(clean=how != "crash", death=death)

    def slots_on_disk(self) -> SlotFile:
        return SlotFile.open("/data", "bill", STREAM.id, files=self.files)

    # ------------------------------------------------------------ what the engines call

    def load(self, shard: int, lane: int = 0) -> Slot:
        return self.slots.load(shard, lane)

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        return self.slots.before(shard, lane)

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        self.stores += 1
        fault = self.fault if self.stores == self.fault_at else ""
        if fault == "store fails":
            raise OSError(28, "No space left on device")
        if fault == "dies before store":
            raise Killed
        self.files.tears = fault == "dies in store"
        self.slots.store(shard, lane, slot)
        self.passed(lane, slot)
        if fault == "dies after store":
            raise Killed

    def passed(self, lane: int, slot: Slot) -> None:
        """A checkpoint is durable: what it passed was done, or given up, or is gone."""
        before, self.checkpoints[lane] = self.checkpoints[lane], slot.checkpoint_counter
        assert slot.checkpoint_counter >= before
        given_up = {number_of(record.data) for record in self.parked_records()}
        for counter in range(before, slot.checkpoint_counter):
            if self.is_of(counter, lane):
                assert counter in self.done | given_up | self.gone, f"record {counter} was passed and never delivered"

    def parked_records(self) -> Iterator[Any]:
        return (record for entry in self.parking.entries for record in entry.records)

    def invoke(self, invocation: Invocation) -> Outcome:
        counters = [number_of(record.data) for record in invocation.records]
        assert 1 <= len(counters) <= self.options.batch_size
        assert counters == self.next_ones(len(counters), counters[0])
        retries = self.options.maximum_retry_attempts
        assert invocation.attempt >= 1
        assert retries < 0 or invocation.attempt <= retries + 1
        reports = self.options.report_batch_item_failures
        if self.behaviour == "die":
            raise Killed
        if self.behaviour == "raise":
            self.failures.update(counters)
            return Outcome(error=EXIT)
        if self.behaviour == "invalid" and reports:
            self.failures.update(counters)
            return Outcome({"batchItemFailures": [{"itemIdentifier": "1"}]})
        if self.behaviour == "partial" and reports:
            at = len(counters) // 2
            self.done |= set(counters[:at])
            self.failures.update(counters[at:])
            number = str(invocation.records[at].sequence_number)
            return Outcome({"batchItemFailures": [{"itemIdentifier": number}]})
        self.done |= set(counters)
        return Outcome(None)

    def next_ones(self, count: int, first: int) -> list[int]:
        """The next records of the lane behind its checkpoint; what retention removed meanwhile may have been read."""
        found: list[int] = []
        counter = self.checkpoints[self.lane]
        while len(found) < count:
            assert counter < self.shard.next_counter
            if self.is_of(counter, self.lane) and (counter >= first or counter not in self.gone):
                found.append(counter)
            counter += 1
        return found

    def is_of(self, counter: int, lane: int) -> bool:
        if self.options.filters and counter % 4 == 0:
            return False
        return lane_of(key_of(counter)) % self.factor == lane

    # ------------------------------------------------------------ what happens

    def put(self, count: int) -> None:
        counters = range(self.shard.next_counter, self.shard.next_counter + count)
        self.shard.append([payload_of(counter) for counter in counters], [key_of(counter) for counter in counters])

    def expire(self) -> None:
        if len(self.shard.blocks) > 1:
            block = self.shard.blocks[0]
            self.gone |= set(range(block.first_counter, block.first_counter + block.count))
            self.shard.expire(1)

    def change(self, factor: int) -> None:
        """Stop, and start with another number of lanes."""
        self.factor = factor
        self.parked.clear()
        self.lane = 0
        self.pid += 1
        self.epoch += 1
        self.start()

    def step(self, lane: int, behaviour: str, fault: str, fault_at: int) -> Step | None:
        """One step of one lane; None where the process died of it."""
        self.lane = lane % self.factor
        self.behaviour, self.fault, self.fault_at, self.stores = behaviour, fault, fault_at, 0
        self.parking.park = self.park  # type: ignore[method-assign]
        engine = self.engines[self.lane]
        try:
            step = engine.step(self.clock.now())
        except Killed:
            self.died("reported" if fault_at == 1 else "crash")
            return None
        finally:
            self.fault = "none"
            self.files.tears = False
        if step.due_in_ms:
            self.clock.advance(step.due_in_ms)
        if step.kind in (StepKind.IDLE, StepKind.WAIT):
            engine.resume(Grant(self.epoch, self.pid, alone=step.reason == "suspect"))
        return step

    def park(self, entry: ParkedBatch) -> int:
        allowed = self.options.maximum_retry_attempts + 1
        assert entry.attempts == allowed > 0
        assert all(self.failures[number_of(record.data)] >= allowed for record in entry.records)
        counters = {number_of(record.data) for record in entry.records}
        assert not counters & self.parked, "parked already"
        self.parked |= counters
        number = MemoryParking.park(self.parking, entry)
        if self.fault == "dies after park":
            raise Killed
        return number


def key_of(counter: int) -> str:
    return KEYS[counter * 7 % len(KEYS)]


def payload_of(counter: int) -> bytes:
    return b'{"counter": %d, "passes": %s}' % (counter, b"false" if counter % 4 == 0 else b"true")


def number_of(data: bytes) -> int:
    found: int = msgspec.json.decode(data)["counter"]
    return found


def lane_of(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()) % 2520


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 150),
    factor=st.sampled_from([2, 3, 10]),
    kept_bytes=st.sampled_from([0, 700, 4 << 20]),
    batch_size=st.integers(1, 5),
    retries=st.sampled_from([-1, 0, 0, 1]),
    bisect=st.booleans(),
    reports=st.booleans(),
    filters=st.sampled_from([(), (), FILTERS]),
    drop=st.booleans(),
)
def test_lanes_in_one_process_lose_nothing_and_keep_their_order_whatever_dies(
    seed: int,
    length: int,
    factor: int,
    kept_bytes: int,
    batch_size: int,
    retries: int,
    bisect: bool,
    reports: bool,
    filters: tuple[str, ...],
    drop: bool,
) -> None:
    world = World(
        factor=factor,
        kept_bytes=kept_bytes,
        batch_size=batch_size,
        maximum_retry_attempts=retries,
        bisect_batch_on_function_error=bisect,
        report_batch_item_failures=reports,
        filters=filters,
        on_failure="drop" if drop and retries < 0 else None,
    )
    happened = list(islice(moves(Random(seed)), length))
    for name, *arguments in happened:
        getattr(world, {"die": "died", "factor": "change"}.get(name, name))(*arguments)

    idle = 0
    for turn in range(5000):  # then all goes well, until no lane has anything to do
        step = world.step(turn, "ok", "none", 0)
        idle = idle + 1 if step is not None and step.kind is StepKind.IDLE else 0
        if idle > world.factor:
            break
    else:
        raise AssertionError("never idle")

    slots = [world.slots.load(0, lane) for lane in range(world.factor)]
    assert {slot.checkpoint_counter for slot in slots} == {world.shard.next_counter}
    assert {slot.state for slot in slots} == {SlotState.IDLE}
    parked = {number_of(record.data) for record in world.parked_records()}
    wanted = {counter for counter in range(1, world.shard.next_counter) if not filters or counter % 4}
    assert wanted <= world.done | parked | world.gone
    if not any(move[0] in ("factor", "expire") for move in happened):
        assert sum(slot.succeeded for slot in slots) + sum(slot.parked for slot in slots) == len(wanted)
        assert sum(slot.parked for slot in slots) == len(parked) == len(list(world.parked_records()))
        assert sum(slot.lost for slot in slots) == 0
