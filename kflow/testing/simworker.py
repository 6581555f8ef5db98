"""A simulated worker: it hosts the engine of the lanes it was granted as a real one does, a step at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from kflow.broker.checkpoints import Slot, SlotFile, SlotState
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedBatch, ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.broker.windows import WindowStore
from kflow.interfaces import BatchResult, Invocation, Outcome
from kflow.lambda_.lanes import SharedSource
from kflow.lambda_.mapping import Death, EventSourceMapping, StepKind
from kflow.lambda_.mapping import Grant as EngineGrant
from kflow.lambda_.shapes import RecordShape
from kflow.runtime import messages
from kflow.testing.ledger import Consumer

if TYPE_CHECKING:
    from kflow.testing.world import World


class Slots:
    """Slots that tell the ledger what is durable."""

    def __init__(self, world: World, inner: SlotFile, function: str) -> None:
        self._world = world
        self._inner = inner
        self._function = function

    def load(self, shard: int, lane: int = 0) -> Slot:
        """As of `SlotFile`."""
        return self._inner.load(shard, lane)

    def before(self, shard: int, lane: int = 0) -> Slot | None:
        """As of `SlotFile`."""
        return self._inner.before(shard, lane)

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        """As of `SlotFile`."""
        self._inner.store(shard, lane, slot)
        self._world.stored(self._world.ledger.consumers[self._function, shard, lane], slot)


class Parking:
    """A parked store that tells the ledger what it was given."""

    def __init__(self, world: World, inner: ParkedStore, consumer: Consumer) -> None:
        self._world = world
        self._inner = inner
        self._consumer = consumer

    def park(self, entry: ParkedBatch) -> int:
        """As of `ParkedStore`."""
        self._world.ledger.park(self._consumer, entry)
        number = self._inner.park(entry)
        self._world.ledger.parked(self._consumer, entry)
        return number

    def find(self, function: str, stream_id: int, shard: int, from_counter: int) -> ParkedBatch | None:
        """As of `ParkedStore`."""
        entry = self._inner.find(function, stream_id, shard, from_counter)
        if entry is not None:
            self._world.ledger.parked(self._consumer, entry)
        return entry


class Held:
    """A lane that the worker holds.

    Attributes:
        grant: what came with it.
        engine: of it.
        looked: the engine was asked whether it has a batch, and has one.
        settled: a batch was settled under this grant.
    """

    def __init__(self, grant: messages.LaneGrant, engine: EventSourceMapping) -> None:
        self.grant = grant
        self.engine = engine
        self.looked = False
        self.settled = False


class SimWorker:
    """A worker process.

    Attributes:
        id: the node's number for it.
        pid: of the process.
        inbox: messages of the node that it has not read.
        outbox: messages to the node that the node has not read.
        consumer: whose invocation runs, while one does.
        alive: the process is there.
        until_ms: monotonic time before which it does nothing: it waits for the storage.
        play: has the world give it a turn.
    """

    def __init__(
        self, world: World, number: int, function: str, streams: Iterable[StreamMap], epoch: int, *, clean: bool
    ) -> None:
        self.id = number
        self.function = function
        self.pid = world.new_pid()
        self.files = world.process()
        self.inbox: deque[Any] = deque()
        self.outbox: deque[Any] = deque()
        self.consumer: Consumer | None = None
        self.alive = True
        self.stopped = False
        self.until_ms = 0
        self.play = partial(world.turn, self)
        self._world = world
        self._epoch = epoch
        self._clean = clean
        self._maps = list(streams)
        self._folder: DataFolder | None = None
        self._slots: SlotFile | None = None
        self._parked: ParkedStore | None = None
        self._readers: dict[int, SharedSource] = {}
        self._engines: dict[tuple[int, int], EventSourceMapping] = {}
        self._held: list[Held] = []
        self._grant: messages.Grant | None = None
        self._running: Held | None = None

    @property
    def can_run(self) -> bool:
        """Whether it has something to do now."""
        if not self.alive or self.consumer is not None:
            return False
        if self._held:
            return self.until_ms <= self._world.clock.monotonic_ms or bool(self.inbox)
        return bool(self.inbox)

    @property
    def due_ms(self) -> int | None:
        """When it goes on by itself, where it waits for the storage."""
        return self.until_ms if self.alive and self._held and self.consumer is None else None

    def turn(self) -> None:
        """Do one thing: read a message, or one step of an engine."""
        if not self._held:
            self._read(self.inbox.popleft())
            return
        retired = {(each.lease, each.generation) for each in self.inbox if isinstance(each, messages.Retire)}
        if retired and self._give_back(retired):
            return
        held = next((held for held in self._held if not held.looked), None)
        if held is not None:
            self._look(held)
        elif self.until_ms <= self._world.clock.monotonic_ms:
            self._step(self._held[0])
        else:
            self._take_in()

    # ------------------------------------------------------------------ messages

    def _read(self, message: Any) -> None:
        if isinstance(message, messages.Grant):
            self._grant = message
            self._held = [Held(lane, self._engine(message, lane)) for lane in message.lanes]
            for held in self._held:
                self._resume(message, held)
        elif isinstance(message, messages.Map):
            self._maps[message.trigger] = self._world.decode(message.text)
        elif isinstance(message, messages.Stop):
            self.stopped = True
            self._world.exited(self)

    def _take_in(self) -> None:
        """While an outcome is held only messages are looked at."""
        kept = [message for message in self.inbox if not isinstance(message, messages.Retire)]
        self.inbox = deque(kept)

    def _resume(self, grant: messages.Grant, held: Held) -> None:
        lane, consumer = held.grant, self._consumer(grant.shard, held.grant.lane)
        death = None if lane.death is None else Death(lane.death.worker_pid, lane.death.request_id, lane.death.error)
        slot = self._open_slots().load(grant.shard, lane.lane)
        self._world.stored(consumer, slot)  # what the last holder stored just before it died
        self._world.ledger.died(
            consumer,
            counted=death is not None
            and slot.state is SlotState.RUNNING
            and (slot.epoch, slot.worker_pid) == (self._epoch, death.worker_pid)
            and death.request_id in (None, slot.request_id),
        )
        held.engine.resume(
            EngineGrant(
                epoch=self._epoch,
                worker_pid=self.pid,
                since_completion_ms=lane.since_completion_ms,
                death=death,
                window_over=grant.window_over,
                window_due=lane.window_due,
                alone=lane.alone,
                previous_epoch_clean=self._clean,
                last_error=lane.last_error,
            )
        )

    def _give_back(self, retired: set[tuple[int, int]]) -> bool:
        """Return lanes that are not in the middle of something. Retires of others stay in the inbox, or are void."""
        given = [held for held in self._held if (held.grant.lease, held.grant.generation) in retired]
        self.inbox = deque(message for message in self.inbox if not isinstance(message, messages.Retire))
        for held in given:
            step = held.engine.look(self._world.clock.now()) if self.until_ms else None
            if self.until_ms and (step is None or step.kind is StepKind.HOLD):
                continue
            self._return(held, "retired" if held.looked else "unread", None, held.engine)
        return bool(given)

    # ------------------------------------------------------------------ engines

    def _look(self, held: Held) -> None:
        step = held.engine.look(self._world.clock.now())
        if step is None:
            held.looked = True
            if all(each.looked for each in self._held):
                self._leave_to_others()
        elif step.kind is not StepKind.AGAIN:
            self._after(held, step)
        else:
            self._told(held, step)

    def _leave_to_others(self) -> None:
        """Of the lanes that have a batch, one is run here, and as many as there are places for go elsewhere."""
        spare = 0 if self._grant is None else self._grant.spare
        for held in self._held[1 : 1 + spare]:
            self._return(held, "lane", 0, held.engine)

    def _step(self, held: Held) -> None:
        self.until_ms = 0
        self._running = held
        try:
            step = held.engine.step(self._world.clock.now())
        finally:
            self._running = None
        if step.kind is StepKind.AGAIN:
            self._told(held, step)
            if len(self._held) > 1 and held.settled:  # one batch each, in turn
                self._held.append(self._held.pop(0))
        else:
            self._after(held, step)

    def _after(self, held: Held, step: Any) -> None:
        self._told(held, step)
        if step.kind is StepKind.HOLD:
            self.until_ms = self._world.clock.monotonic_ms + (step.due_in_ms or 0)
            self.outbox.append(messages.Alive(held.grant.generation, step.detail, held.grant.lease))
            return
        reason = "idle" if step.kind is StepKind.IDLE else step.reason
        due = None if step.kind is StepKind.IDLE else step.due_in_ms
        self._return(held, reason, due, held.engine, step)

    def _told(self, held: Held, step: Any) -> None:
        for outcome in step.outcomes:
            held.settled = held.settled or outcome.succeeded > 0 or outcome.result is not BatchResult.FAILED

    def _return(self, held: Held, reason: str, due: int | None, engine: EventSourceMapping, step: Any = None) -> None:
        self._held.remove(held)
        slot = self._open_slots().load(self._grant.shard if self._grant else 0, held.grant.lane)
        self.outbox.append(
            messages.Returned(
                lease=held.grant.lease,
                generation=held.grant.generation,
                reason=reason,
                due_ms=due,
                read_offset=0 if step is None else step.read_offset,
                want_counter=0 if step is None else step.want_counter,
                settled=held.settled,
                last_error=engine.last_error,
                detail="" if step is None else step.detail,
                settled_offset=slot.checkpoint.offset,
                damaged_at=-1 if step is None else step.damaged_at,
            )
        )

    # ------------------------------------------------------------------ what is opened

    def _consumer(self, shard: int, lane: int) -> Consumer:
        return self._world.ledger.consumers[self.function, shard, lane]

    def _open_folder(self) -> DataFolder:
        if self._folder is None:
            self._folder = DataFolder.open(self._world.path, files=self.files)
        return self._folder

    def _open_slots(self) -> SlotFile:
        if self._slots is None:
            folder, stream = self._open_folder(), self._maps[0]
            self._slots = SlotFile.open(folder.path, self.function, stream.id, stream=stream.name, files=folder.files)
        return self._slots

    def _open_parked(self) -> ParkedStore:
        if self._parked is None:
            folder = self._open_folder()
            self._parked = ParkedStore(folder.path, folder.files, folder.fsync)
        return self._parked

    def _engine(self, grant: messages.Grant, lane: messages.LaneGrant) -> EventSourceMapping:
        key = (grant.shard, lane.lane)
        found = self._engines.get(key)
        if found is not None:
            return found
        folder, stream = self._open_folder(), self._maps[grant.trigger]
        source = self._readers.get(grant.shard)
        if source is None:
            source = self._readers[grant.shard] = SharedSource(ShardReader(folder, stream, grant.shard))
        slots = self._open_slots()
        options = self._world.options.mapping
        consumer = self._consumer(grant.shard, lane.lane)
        created_s = next(info.created_s for info in stream.shards if info.index == grant.shard)
        engine = EventSourceMapping(
            options=options,
            function=self.function,
            stream=stream.name,
            stream_id=stream.id,
            shard=grant.shard,
            lane=lane.lane,
            source=source,
            slots=Slots(self._world, slots, self.function),
            invoker=Function(self._world, self, consumer),
            parking=Parking(self._world, self._open_parked(), consumer),
            windows=WindowStore(folder.path, folder.files, folder.fsync),
            shape=RecordShape(created_s, grant.shard),
            floor=None if options.parallelization_factor == 1 else lambda: slots.least(grant.shard),
        )
        self._engines[key] = engine
        return engine

    def announce(self, request_id: bytes, timeout_ms: int) -> None:
        """Tell the node that an invocation begins."""
        held = self._running
        if held is not None:
            self.outbox.append(messages.Running(held.grant.generation, request_id, timeout_ms, lease=held.grant.lease))


class Function:
    """The function, as the engine of one lane invokes it."""

    def __init__(self, world: World, worker: SimWorker, consumer: Consumer) -> None:
        self._world = world
        self._worker = worker
        self._consumer = consumer

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run it once; others go on meanwhile."""
        return self._world.functions.invoke(self._worker, self._consumer, invocation)
