"""Scenarios on the engine alone, in virtual time: one engine a lane, over one shard in memory.

This module is what a node is to its leases: it grants them, wakes them when something is stored or what they wait for
is due, reports deaths, and drops engines between grants where asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from kflow.broker import sequence
from kflow.broker.block import HEADER_BYTES, Block
from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.encode import Encoder
from kflow.broker.parked import ParkedBatch
from kflow.clock import ManualClock
from kflow.declarations import MappingOptions, StartingPosition
from kflow.interfaces import BatchResult, FunctionError, Invocation, Outcome
from kflow.lambda_.documents import document
from kflow.lambda_.grants import Step, StepKind
from kflow.lambda_.mapping import Death, EventSourceMapping, Grant
from kflow.lambda_.shapes import RecordShape
from kflow.records import BEGIN_COUNTER, Position
from tests.scenarios import script
from tests.scenarios.form import BASE_S, Document, Observed, Put, Scenario, Seen
from tests.stepping import STREAM, Killed, MemoryParking, MemoryShard, MemoryWindows

FUNCTION = "bill"
LIMIT = 20_000
"""Steps after which a scenario has no end."""


def lane_of(key: str, factor: int) -> int:
    """The lane of a partition key."""
    return int(md5(key.encode(), usedforsecurity=False).hexdigest(), 16) % 2520 % factor


def run(scenario: Scenario, *, dropping: bool = False) -> Observed:
    """Run a scenario.

    Args:
        scenario: to run.
        dropping: drop each engine after each grant, as a runtime does whose workers come and go.
    """
    return _Run(scenario, dropping=dropping).run()


class _Slots:
    """Slots of all lanes, in memory."""

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.previous: dict[int, Slot] = {}

    def load(self, shard: int, lane: int = 0) -> Slot:
        return self.slots[lane]

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        return self.previous.get(lane)

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        self.previous[lane] = self.slots[lane]
        self.slots[lane] = slot

    def least(self) -> tuple[Position, int]:
        return min((slot.checkpoint, slot.checkpoint_counter) for slot in self.slots.values())


@dataclass
class _Lease:
    """One lane, as the node knows it.

    Attributes:
        ready: whether it may be granted now.
        due_ms: virtual time at which it is granted again; None: when something is stored.
        want_counter: granted as soon as the shard's next counter is this; 0 for never.
        idle: whether it has read everything.
        read_offset: how far it has read.
        reason: of its last wait.
        completed_ms: when its last batch ended.
    """

    lane: int
    engine: EventSourceMapping
    completed_ms: int
    ready: bool = True
    due_ms: int | None = None
    want_counter: int = 0
    idle: bool = False
    read_offset: int = 0
    reason: str = ""
    grant: dict[str, Any] = field(default_factory=dict)


class _Run:
    def __init__(self, scenario: Scenario, *, dropping: bool) -> None:
        self.scenario = scenario
        self.dropping = dropping
        self.clock = ManualClock(epoch_ms=BASE_S * 1000)
        self.shard = MemoryShard(self.clock)
        self.encoder = Encoder(STREAM)
        self.slots = _Slots()
        self.windows = MemoryWindows()
        self.parking = MemoryParking()
        self.names: dict[int, str] = {}
        self.datas = {name: data for put in scenario.puts for name, data in zip(put.names, put.datas, strict=True)}
        self.invocations: list[tuple[int, Seen]] = []
        self.attempts: list[int] = []
        self.results: list[str] = []
        self.waits: list[str] = []
        self.fired: dict[int, int] = {}
        self.epoch, self.pid = 1, 4711
        self.leases: list[_Lease] = []
        self.lane = 0
        self.until_ms = scenario.until_ms
        self.options = _options(scenario)

    # ------------------------------------------------------------------ the run

    def run(self) -> Observed:
        scenario = self.scenario
        later = [put for put in scenario.put if put.at_ms > scenario.start_ms]
        for put in scenario.put:
            if put.at_ms <= scenario.start_ms:
                self._put(put)
        self._go_to(scenario.start_ms)
        self.shard.expire(scenario.forget)
        self.shard.closed = scenario.closes
        for lane in range(scenario.factor):
            self.slots.slots[lane] = self._initial()
        self._start()
        self._until_settled(later)
        if scenario.then:
            self.leases = []
            for put in scenario.then:
                self._put(put)
            self.shard.expire(scenario.forget_then)
            self.epoch += 1
            self._start()
            self.until_ms = None
            self._until_settled([])
        return self._observed()

    def _until_settled(self, later: list[Put]) -> None:
        """Run until nothing is left to do, or the scenario's end."""
        for _ in range(LIMIT):
            ready = [lease for lease in self.leases if lease.ready]
            if ready:
                for lease in ready:
                    self._hold(lease)
                continue
            moments = [put.at_ms for put in later[:1]]
            moments += [lease.due_ms for lease in self.leases if lease.due_ms is not None and self._waited_for(lease)]
            if not moments or (self.until_ms is not None and min(moments) > self.until_ms):
                return
            self._go_to(min(moments))
            if later and later[0].at_ms <= self._now_ms:
                self._put(later.pop(0))
            for lease in self.leases:
                self._wake(lease)
        raise AssertionError(f"{self.scenario.name}: no end after {LIMIT} steps")

    def _waited_for(self, lease: _Lease) -> bool:
        """An open tumbling window is waited for only until the time that the scenario names."""
        return lease.reason != "tumbling" or self.until_ms is not None

    def _wake(self, lease: _Lease) -> None:
        more = self.shard.tail > lease.read_offset if lease.idle else False
        full = bool(lease.want_counter) and self.shard.next_counter >= lease.want_counter
        due = lease.due_ms is not None and lease.due_ms <= self._now_ms
        if more or full or due:
            lease.grant["window_due"] = due and lease.reason == "window"
            lease.ready = True

    def _start(self) -> None:
        now_ms = self.clock.monotonic_ms
        self.leases = [_Lease(lane, self._engine(lane), now_ms) for lane in range(self.scenario.factor)]

    def _hold(self, lease: _Lease) -> None:
        """One grant, to its end."""
        if self.dropping:
            lease.engine = self._engine(lease.lane)
        changes, lease.grant = lease.grant, {}
        since_ms = self.clock.monotonic_ms - lease.completed_ms
        lease.engine.resume(Grant(self.epoch, self.pid, since_completion_ms=since_ms, **changes))
        self.lane = lease.lane
        for _ in range(LIMIT):
            try:
                step = lease.engine.step(self.clock.now())
            except Killed as killed:
                self._gone(lease, killed)
                return
            self._told(lease, step)
            if step.kind is not StepKind.AGAIN:
                lease.ready = False
                lease.idle = step.kind is StepKind.IDLE
                lease.reason, lease.want_counter = step.reason, step.want_counter
                lease.due_ms = None if step.due_in_ms is None else self._now_ms + step.due_in_ms
                lease.read_offset = step.read_offset
                assert step.kind is not StepKind.HOLD, step
                return
        raise AssertionError(f"{self.scenario.name}: no end after {LIMIT} steps of one grant")

    def _told(self, lease: _Lease, step: Step) -> None:
        for outcome in step.outcomes:
            self.results.append(outcome.result.value)
            if outcome.result not in (BatchResult.EXPIRED, BatchResult.LOST):
                lease.completed_ms = self.clock.monotonic_ms
        if step.reason == "backoff" and step.outcomes:
            self.waits.append(f"{step.reason} {step.due_in_ms}")

    def _gone(self, lease: _Lease, killed: Killed) -> None:
        """The process died in the handler: what its parent reports, or a node that comes back."""
        act = killed.args[0]
        lease.engine = self._engine(lease.lane)
        if act.action == "stops":
            self.epoch += 1
            self.pid += 1
            lease.grant = {"previous_epoch_clean": act.value == "clean"}
        else:
            request_id = self.slots.slots[lease.lane].request_id if act.action == "sleeps" else None
            lease.grant = {"death": Death(self.pid, request_id, _death(act))}
            self.pid += 1

    # ------------------------------------------------------------------ the function

    def invoke(self, invocation: Invocation) -> Outcome:
        """As an `Invoker`."""
        records, window = invocation.records, invocation.window
        names = tuple(self.names[record.sequence_number] for record in records)
        seen = Seen(records=names)
        if window is not None:
            times = (window.start_s - BASE_S, window.end_s - BASE_S)
            early, state = window.is_terminated_early, dict(window.state)
            seen = Seen(records=names, window=times, state=state, final=window.is_final, early=early)
        call = script.Call(
            datas=[script.text_of(record.data) for record in records],
            numbers=[str(record.sequence_number) for record in records],
            state=seen.state,
            final=seen.final,
        )
        assert [self.datas[name] for name in names] == [record.data for record in records]
        before = len(self.invocations)
        index, act = script.decide(self.scenario.handler, call, lambda rule: self.fired.get(rule, 0), before)
        self.fired[index] = self.fired.get(index, 0) + 1
        self.invocations.append((self.lane, seen))
        self.attempts.append(invocation.attempt)
        if act.action == "raises":
            return Outcome(error=FunctionError(type="RuntimeError", message=act.value))
        if act.action == "returns":
            return Outcome(act.value)
        raise Killed(act)

    # ------------------------------------------------------------------ parts

    @property
    def _now_ms(self) -> int:
        """Virtual time since the scenario's beginning."""
        return self.clock.epoch_ms - BASE_S * 1000

    def _go_to(self, at_ms: int) -> None:
        self.clock.advance(at_ms - self._now_ms)

    def _put(self, put: Put) -> None:
        if not self.leases:
            self._go_to(max(put.at_ms, self._now_ms) if self.invocations else put.at_ms)
        names = iter(put.names)
        for part in self.encoder.encode_many(list(put.keys), list(put.datas)):
            end = self.shard.tail + HEADER_BYTES + len(part.body)
            first, arrival_ms = self.shard.next_counter, self.clock.epoch_ms
            self.shard.blocks.append(Block(self.shard.tail, end, first, arrival_ms, part.count, part.flags, part.body))
            self.shard.next_counter += part.count
            self.shard.tail = end
            for counter in range(first, first + part.count):
                self.names[sequence.number(STREAM.created_s, 0, counter, arrival_ms)] = next(names)

    def _initial(self) -> Slot:
        """The slot of a mapping that has just been made: what the node does before it is ready."""
        position = self.scenario.options.get("starting_position", "TRIM_HORIZON")
        shard = self.shard
        if position == "LATEST":
            return _at(Position(shard.tail, 0), shard.next_counter)
        if isinstance(position, (int, float)):
            since_ms = BASE_S * 1000 + round(position * 1000)
            for block in shard.blocks:
                if block.arrival_ms >= since_ms:
                    return _at(Position(block.offset, 0), block.first_counter)
            return _at(Position(shard.tail, 0), shard.next_counter)
        return _at(Position(shard.blocks[0].offset, 0), shard.blocks[0].first_counter) if shard.horizon else Slot()

    def _engine(self, lane: int) -> EventSourceMapping:
        return EventSourceMapping(
            options=self.options,
            function=FUNCTION,
            stream=STREAM.name,
            stream_id=STREAM.id,
            shard=0,
            source=self.shard,
            slots=self.slots,
            invoker=self,
            parking=self.parking,
            shape=RecordShape(STREAM.created_s, 0),
            lane=lane,
            windows=self.windows,
            floor=self.slots.least if self.scenario.factor > 1 else None,
        )

    def _observed(self) -> Observed:
        slots = self.slots.slots.values()
        lanes: dict[int, list[Seen]] = {lane: [] for lane in range(self.scenario.factor)}
        for lane, seen in self.invocations:
            lanes[lane].append(seen)
        several = self.scenario.factor > 1
        return Observed(
            invocations=[seen for _, seen in self.invocations],
            lanes=lanes,
            documents=[self._document(entry) for entry in self.parking.entries],
            settled=min(slot.checkpoint_counter for slot in slots) - BEGIN_COUNTER,
            totals={
                name: sum(getattr(slot, name) for slot in slots) for name in ("succeeded", "parked", "dropped", "lost")
            },
            blocked=any(slot.state is SlotState.FAILED for slot in slots),
            is_timed=True,
            attempts=None if several else self.attempts,
            results=None if several else self.results,
            waits=None if several else self.waits,
        )

    def _document(self, entry: Any) -> Document:
        names = tuple(self.names[record.sequence_number] for record in entry.records)
        return document_of(entry, names)


def document_of(entry: ParkedBatch, names: tuple[str, ...]) -> Document:
    """What the failure document of a parked batch says."""
    made: Mapping[str, Any] = document(entry, region="us-east-1", account="123456789012")
    request, batch, response = made["requestContext"], made["KinesisBatchInfo"], made.get("responseContext")
    assert (batch["batchSize"], batch["startSequenceNumber"], batch["endSequenceNumber"]) == (
        len(names),
        str(entry.records[0].sequence_number),
        str(entry.records[-1].sequence_number),
    )
    return Document(
        condition=request["condition"],
        attempts=request["approximateInvokeCount"],
        records=names,
        response="none" if response is None else response["functionError"] or "null",
    )


def _at(position: Position, counter: int) -> Slot:
    return Slot(checkpoint=position, checkpoint_counter=counter, start=position, end=position)


def _options(scenario: Scenario) -> MappingOptions:
    options = dict(scenario.options)
    position = options.pop("starting_position", "TRIM_HORIZON")
    if isinstance(position, (int, float)):
        position = StartingPosition.AT_TIMESTAMP
    filters = tuple(options.pop("filters", ()))
    return MappingOptions(starting_position=StartingPosition(position), filters=filters, **options)


def _death(act: script.Act) -> FunctionError:
    if act.action == "sleeps":
        return FunctionError(type="Sandbox.Timedout", message="Task timed out")
    return FunctionError(type="Runtime.ExitError", message=f"Runtime exited with error: exit status {act.value}")
