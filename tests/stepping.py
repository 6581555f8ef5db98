"""An engine to step by hand: a shard, slots, a function and a parked store, all in memory, on a `ManualClock`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from kflow.broker.block import HEADER_BYTES, Block
from kflow.broker.checkpoints import Slot
from kflow.broker.encode import Encoder
from kflow.broker.parked import ParkedBatch
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.clock import ManualClock
from kflow.declarations import MappingOptions
from kflow.interfaces import BatchOutcome, FunctionError, Invocation, Outcome
from kflow.lambda_.batching import Floor
from kflow.lambda_.mapping import Death, EventSourceMapping, Grant, Step, StepKind
from kflow.lambda_.shapes import RecordShape, Shape
from kflow.lambda_.sources import Source

STREAM = StreamMap(
    name="orders",
    id=7,
    created_s=1_600_000_000,
    max_record_bytes=10 << 20,
    shards=(ShardInfo(index=0, start=0, end=2**128 - 1, created_s=1_600_000_000),),
)
PID = 4711


class MemoryShard:
    """A shard that holds its blocks in a list."""

    def __init__(self, clock: ManualClock) -> None:
        self.blocks: list[Block] = []
        self.tail = 0
        self.horizon = 0
        self.next_counter = 1
        self.closed = False
        self.skipped: list[range] = []
        self.reads = 0
        self.broken: Exception | None = None
        self._clock = clock
        self._encoder = Encoder(STREAM)

    def append(self, datas: Sequence[bytes], keys: str | Sequence[str] = "k") -> Block:
        """One block, or more where the payloads are large; returns the last."""
        of_each = [keys] * len(datas) if isinstance(keys, str) else list(keys)
        for part in self._encoder.encode_many(of_each, list(datas)):
            end = self.tail + HEADER_BYTES + len(part.body)
            arrival_ms = self._clock.epoch_ms
            block = Block(self.tail, end, self.next_counter, arrival_ms, part.count, part.flags, part.body)
            self.blocks.append(block)
            self.next_counter += part.count
            self.tail = end
        return self.blocks[-1]

    def expire(self, blocks: int) -> None:
        """Remove the oldest blocks."""
        for block in self.blocks[:blocks]:
            self.horizon = block.end
        del self.blocks[:blocks]

    def issued(self, first: int, stop: int) -> int:
        """As `ShardReader.issued`."""
        return sum(not any(counter in gap for gap in self.skipped) for counter in range(first, stop))

    def read(self, offset: int, max_bytes: int = 1 << 20) -> list[Block]:
        """As `ShardReader.read`."""
        if self.broken is not None:
            raise self.broken
        self.reads += 1
        offset = max(offset, self.horizon)
        found: list[Block] = []
        size = 0
        for block in self.blocks:
            if block.offset < offset:
                continue
            size += block.end - block.offset
            if found and size > max_bytes:
                break
            found.append(block)
        return found


class MemorySlots:
    """One slot; can refuse stores. `stored` is every state that was ever durable."""

    def __init__(self, slot: Slot | None = None) -> None:
        self.slot = slot or Slot()
        self.previous: Slot | None = None
        self.stored: list[Slot] = []
        self.refuse: Callable[[Slot], bool] = lambda slot: False
        self.unreadable = False

    def load(self, shard: int, lane: int = 0) -> Slot:
        if self.unreadable:
            raise OSError(5, "Input/output error")
        return self.slot

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        if self.refuse(slot):
            raise OSError(28, "No space left on device")
        self.previous = self.slot
        self.slot = slot
        self.stored.append(slot)

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        return self.previous


class MemoryWindows:
    """States of windows by number; can refuse them."""

    def __init__(self) -> None:
        self.states: dict[int, bytes] = {}
        self.refuse = False

    def put(self, function: str, stream_id: int, shard: int, number: int, state: bytes) -> None:
        if self.refuse:
            raise OSError(28, "No space left on device")
        self.states[number] = state

    def get(self, function: str, stream_id: int, shard: int, number: int) -> bytes | None:
        return self.states.get(number)

    def prune(self, function: str, stream_id: int, shard: int, keep: Iterable[int]) -> None:
        kept = set(keep)
        self.states = {number: state for number, state in self.states.items() if number in kept}


class MemoryParking:
    """Parked batches in a list; can refuse them."""

    def __init__(self) -> None:
        self.entries: list[ParkedBatch] = []
        self.refuse = False

    def park(self, entry: ParkedBatch) -> int:
        if self.refuse:
            raise OSError(28, "No space left on device")
        number = len(self.entries) + 1
        self.entries.append(msgspec.structs.replace(entry, number=number))
        return number

    def find(self, function: str, stream_id: int, shard: int, from_counter: int) -> ParkedBatch | None:
        found = [entry for entry in self.entries if entry.first_counter >= from_counter]
        return min(found, key=lambda entry: (entry.first_counter, -entry.number)) if found else None


class Raised(Exception):
    """What a handler of these tests raises, as its function error."""

    def __init__(self, message: str = "no") -> None:
        super().__init__(message)
        self.error = FunctionError(type="ValueError", message=message)


class Killed(BaseException):
    """The process dies inside the handler."""


Handler = Callable[[list[bytes]], Any]


class MemoryFunction:
    """Runs a handler on the payloads; notes what it was given."""

    def __init__(self, handler: Handler, clock: ManualClock) -> None:
        self.handler = handler
        self.invocations: list[Invocation] = []
        self.seen: list[list[bytes]] = []
        self.takes_ms = 0
        self._clock = clock

    def invoke(self, invocation: Invocation) -> Outcome:
        datas = [_data(record) for record in invocation.records]
        self.invocations.append(invocation)
        self.seen.append(datas)
        try:
            response = self.handler(datas)
        except Raised as raised:
            return Outcome(error=raised.error, duration_us=self.takes_ms * 1000)
        finally:
            self._clock.advance(self.takes_ms)
        return Outcome(response, duration_us=self.takes_ms * 1000)


def _data(record: Any) -> bytes:
    return record["data"] if isinstance(record, dict) else record.data


class Rig:
    """One lease with everything around it."""

    def __init__(
        self,
        handler: Handler = lambda datas: None,
        *,
        shape: Shape | None = None,
        lane: int = 0,
        beside: Rig | None = None,
        source: Source | None = None,
        floor: Floor | None = None,
        **options: Any,
    ) -> None:
        """Make it.

        Args:
            handler: what the function does.
            shape: how records are shown; `Record`s where it is not given.
            lane: which lane of the shard.
            beside: a rig of another lane of the same shard, whose clock, shard, parking and function are shared.
            source: what the engine reads; the shard where it is not given.
            floor: the least checkpoint of the lanes.
            options: of the mapping.
        """
        self.clock = ManualClock() if beside is None else beside.clock
        self.shard = MemoryShard(self.clock) if beside is None else beside.shard
        self.slots = MemorySlots()
        self.windows = MemoryWindows()
        self.parking = MemoryParking() if beside is None else beside.parking
        self.function = MemoryFunction(handler, self.clock) if beside is None else beside.function
        self.lane = lane
        self.source = source
        self.floor = floor
        self.shape = shape or RecordShape(STREAM.created_s, 0)
        self.options = MappingOptions(**options)
        self.scale = 1.0
        self.outcomes: list[BatchOutcome] = []
        self.epoch = 1
        self.pid = PID
        self.drop()

    def drop(self) -> None:
        """The process is gone: only what is durable stays."""
        self.engine = EventSourceMapping(
            options=self.options,
            function="bill",
            stream="orders",
            stream_id=STREAM.id,
            shard=0,
            source=self.source or self.shard,
            slots=self.slots,
            invoker=self.function,
            parking=self.parking,
            shape=self.shape,
            lane=self.lane,
            floor=self.floor,
            windows=self.windows,
            retry_backoff_scale=self.scale,
        )

    def put(self, *datas: bytes, key: str = "k") -> Block:
        """One block."""
        return self.shard.append(datas, key)

    def put_keyed(self, *records: tuple[str, bytes]) -> Block:
        """One block of records with keys of their own."""
        return self.shard.append([data for _, data in records], [key for key, _ in records])

    def grant(self, **changes: Any) -> None:
        """Hand the lease out."""
        self.engine.resume(Grant(self.epoch, self.pid, **changes))

    def restart(self, *, clean: bool = True, death: Death | None = None, **changes: Any) -> None:
        """A new node, a new worker."""
        self.epoch += 1
        self.pid += 1
        self.drop()
        self.grant(previous_epoch_clean=clean, death=death, **changes)

    def died(self, error: FunctionError, *, timed_out: bool = False, **changes: Any) -> None:
        """The worker died and its parent reported it; a new one gets the lease."""
        death = Death(self.pid, self.slots.slot.request_id if timed_out else None, error)
        self.pid += 1
        self.drop()
        self.grant(death=death, **changes)

    def step(self) -> Step:
        step = self.engine.step(self.clock.now())
        self.outcomes += step.outcomes
        return step

    def run(self, limit: int = 1000) -> Step:
        """Step until the lease is to be returned, or held."""
        for _ in range(limit):
            step = self.step()
            if step.kind is not StepKind.AGAIN:
                return step
        raise AssertionError(f"no end after {limit} steps")

    def run_waits(self, limit: int = 1000, *, until: str = "") -> Step:
        """Run until all is settled, or what is to be waited for has the reason `until`; what else is, is waited for."""
        self.grant()
        for _ in range(limit):
            step = self.run()
            if step.kind is StepKind.IDLE or (until and step.reason == until):
                return step
            assert step.due_in_ms is not None
            self.clock.advance(step.due_in_ms)
            if step.kind is StepKind.WAIT:
                self.grant()
        raise AssertionError(f"no end after {limit} waits")

    @property
    def results(self) -> list[str]:
        return [outcome.result.value for outcome in self.outcomes]

    @property
    def slot(self) -> Slot:
        return self.slots.slot


def payloads(count: int) -> list[bytes]:
    """`b"1"`, `b"2"` ..."""
    return [b"%d" % number for number in range(1, count + 1)]


def fails_on(*poison: bytes) -> Handler:
    """A handler that raises where one of its records is poison."""

    def handler(datas: list[bytes]) -> None:
        for data in datas:
            if data in poison:
                raise Raised(f"{data.decode()} is poison")

    return handler
