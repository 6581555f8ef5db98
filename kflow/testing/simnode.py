"""A simulated node: the real lease table and the real log, and of the rest of a node what brings them together.

It does what `kflow.runtime.node` and its supervisor do with the same calls, but for sockets, threads and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kflow.broker import resharding, reshardplan, streammap
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.interfaces import FunctionError
from kflow.runtime import messages
from kflow.runtime.consumers import beginning
from kflow.runtime.messages import DeathNote
from kflow.runtime.node.supervisor import SILENCE_S
from kflow.runtime.plan.leases import (
    Action,
    GrantLease,
    LeaseTable,
    PlaceState,
    RetireLease,
    StartWorker,
    StopWorker,
)
from kflow.runtime.starting import set_up
from kflow.testing.process import ProcessFiles
from kflow.testing.simworker import SimWorker
from kflow.testing.truth import Violation

if TYPE_CHECKING:
    from kflow.testing.putting import Put
    from kflow.testing.world import World

PRODUCER: Final = 7
_ROUNDING_S: Final = 1e-6
"""Sums of floating-point seconds are compared with differences."""
PARTS: Final = 4096
"""Parts of one put at most: each part has a frame of its own, for the log takes them one by one here."""


@dataclass(slots=True)
class Handle:
    """A worker, as the node knows it."""

    worker: SimWorker
    running: messages.Running | None = None
    deadline: float | None = None
    killed: str = ""
    asked_to_stop: bool = False
    started_at: float = 0.0
    ended: str = ""


@dataclass(slots=True)
class Waiting:
    """Blocks that are stored and not durable yet, with whoever waits for that."""

    shard: int
    end: int
    put: Put
    number: int


class SimNode:
    """A node process.

    Attributes:
        epoch: counts the nodes.
        stream: the map of the stream.
        table: the leases.
        handles: its workers.
        timer: monotonic seconds at which `on_time` is to be called, if nothing happens before.
    """

    def __init__(self, world: World, files: ProcessFiles, *, clean: bool) -> None:
        self.epoch = world.epoch
        self.handles: dict[int, Handle] = {}
        self.files = files
        self.timer: float | None = None
        self._world = world
        self._clean = clean
        self.folder = DataFolder.open(world.path, files=self.files)
        self.lock = self.folder.writer_lock()
        self.lock.acquire(0)
        self.folder.upgrade()
        self.log = Log(self.folder, clock=world.clock)
        self.log.recover_all()
        ParkedStore(self.folder.path, self.files, self.folder.fsync).release_claims(self.epoch)
        self._waiting: list[Waiting] = []
        self.table = LeaseTable(world.options.max_workers)
        now = self.now()
        started = set_up(self.log, world.handlers, world.settings, now)
        self.functions = started.functions
        self.stream: StreamMap = next(iter(started.functions.values())).maps[0]
        self.table.ends.update(started.ends)
        self._last_lease = len(started.leases)
        for lease in started.leases:
            self.table.add(lease)
        for stream_id, shard in started.closed:
            self.table.close_shard(stream_id, shard, now)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._world.clock.monotonic_ms / 1000

    # ------------------------------------------------------------------ appends

    def append(self, put: Put) -> None:
        """Append; each part is answered once that may be told."""
        for number, part in enumerate(put.parts):
            (found,) = self.log.append_each(put.stream, [part], PRODUCER, put.frame * PARTS + number)
            if isinstance(found, KflowError):
                put.failed(number, found)
                continue
            tail = self.log.shard(put.stream, part.shard).tail
            put.stored(number, found[0], tail)
            if self.folder.fsync == "always":
                self._waiting.append(Waiting(part.shard, tail, put, number))
            else:
                self.news(part.shard)
                put.acknowledged(number)

    def find(self, put: Put, number: int) -> bool:
        """Whether a part that may have been stored was, before the node that was to store it died."""
        part = put.parts[number]
        found = self.log.find(
            put.stream, part.shard, PRODUCER, put.frame * PARTS + number, 0, put.tails.get(part.shard, 0)
        )
        if found is None:
            return False
        put.found(number, found[0])
        if self.folder.fsync == "always":
            self._waiting.append(Waiting(part.shard, self.log.shard(put.stream, part.shard).tail, put, number))
        else:
            put.acknowledged(number)
        return True

    def news(self, index: int) -> None:
        """Tell the table where a shard ends now."""
        shard, now = self.log.shard(self.stream, index), self.now()
        if self.table.news(self.stream.id, index, shard.readable_end, shard.readable_counter, now):
            self._carry_out(self.table.plan(now))
            if self.timer is None or self.timer > now + SILENCE_S or self.table.is_short:  # as a node does
                self._arm()

    def sync(self) -> None:
        """Make durable what is committed; grants before answers."""
        for task in self.log.sync_due():
            task()
        if not self._waiting:
            return
        for index in sorted({waiting.shard for waiting in self._waiting}):
            self.news(index)
        ready = [each for each in self._waiting if self.log.shard(self.stream, each.shard).readable_end >= each.end]
        self._waiting = [each for each in self._waiting if each not in ready]
        for each in ready:
            each.put.acknowledged(each.number)

    @property
    def has_waiting(self) -> bool:
        """Whether answers wait for a sync."""
        return bool(self._waiting)

    # ------------------------------------------------------------------ shards

    def reshard(self, plan: reshardplan.Plan) -> None:
        """Split or merge, and bring the children to their readers."""
        change = resharding.Reshard(self.log, plan, clock=self._world.clock)
        try:
            change.prepare()
            new = change.seal()
        except KflowError:
            change.abandon()
            raise
        old, self.stream = self.stream, new
        self._world.resharded(new)
        change.finish()
        now = self.now()
        for name, plan_ in self.functions.items():
            self.functions[name] = type(plan_)(
                handler=plan_.handler,
                maps=(new,),
                timeout_s=plan_.timeout_s,
                memory_mb=plan_.memory_mb,
                environment=plan_.environment,
            )
        for handle in self.handles.values():
            handle.worker.inbox.append(messages.Map(0, streammap.encode(new)))
        known = {shard.index: shard for shard in old.shards}
        for shard in new.shards:
            if not shard.is_open and (shard.index not in known or known[shard.index].is_open):
                writer = self.log.shard(new, shard.index)
                self.table.news(new.id, shard.index, writer.readable_end, writer.readable_counter, now)
                self.table.close_shard(new.id, shard.index, now)
        born = [shard for shard in new.shards if shard.index not in known]
        for plan_ in self.functions.values():
            beginning.add_children(self.folder, plan_.handler, 0, new, born)
            begin = beginning.Begin(plan_.handler, 0, new)
            for lease in beginning.leases_of(begin, born, self.table.ends, now):
                self._last_lease += 1
                lease.id = self._last_lease
                self.table.add(lease, now)
        self.dispatch()

    # ------------------------------------------------------------------ the plan, carried out

    def dispatch(self) -> None:
        """Do what the table plans."""
        now = self.now()
        self.table.tick(now)
        self._carry_out(self.table.plan(now))
        self._arm()

    def _arm(self) -> None:
        """The one timer fires for what comes first, as seen now."""
        times = [handle.deadline for handle in self.handles.values() if handle.deadline is not None]
        planned = self.table.next_due(self.now())
        due = min([*times, *([] if planned is None else [planned])], default=None)
        if due is not None and (self.timer is None or due < self.timer):
            self.timer = due

    def on_time(self) -> None:
        """Time has passed: kill who is overdue, and plan."""
        now = self.now()
        self.timer = None
        for handle in list(self.handles.values()):
            if handle.deadline is not None and handle.deadline <= now and not handle.killed:
                handle.killed = "silent" if handle.running is None else "timeout"
                handle.deadline = None
                self._world.kill(handle.worker, handle.killed)
        self.dispatch()
        self._check_timer(now)

    def _check_timer(self, now: float) -> None:
        if self.timer is not None and self.timer < now - _ROUNDING_S:
            raise Violation(f"the node spins: it is due again at once, {self.table.places}")

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        now = self.now()
        if isinstance(action, StartWorker):
            plan = self.functions[action.function]
            worker = self._world.start_worker(action.worker, action.function, plan.maps, clean=self._clean)
            self.handles[action.worker] = Handle(worker, started_at=now)
            return
        if not isinstance(action, GrantLease | RetireLease | StopWorker):
            raise TypeError(f"the simulation knows no {action}")
        handle = self.handles[action.worker]
        if isinstance(action, GrantLease):
            handle.running = None
            handle.deadline = now + SILENCE_S
            handle.worker.inbox.append(self._grant(action, now))
        elif isinstance(action, RetireLease):
            handle.worker.inbox.append(messages.Retire(action.lease, action.generation))
        else:
            handle.asked_to_stop = True
            handle.deadline = now + SILENCE_S
            handle.worker.inbox.append(messages.Stop())

    def _grant(self, action: GrantLease, now: float) -> messages.Grant:
        first = action.leases[0]
        lanes = []
        for lease in action.leases:
            death, lease.death = lease.death, None
            lanes.append(
                messages.LaneGrant(
                    lease.id,
                    lease.generation,
                    int((now - lease.settled_at) * 1000),
                    lease.lane,
                    lease.window_due,
                    lease.alone,
                    death,
                    lease.last_error,
                )
            )
        return messages.Grant(first.trigger, first.shard, tuple(lanes), action.spare)

    # ------------------------------------------------------------------ what workers say

    def hear(self, handle: Handle) -> None:
        """Read one message of a worker."""
        message = handle.worker.outbox.popleft()
        now = self.now()
        if isinstance(message, messages.Running):
            handle.running = message
            handle.deadline = now + message.deadline_ms / 1000
            if self.table.running(handle.worker.id, message.lease, now, handle.started_at):
                self.dispatch()
            self._arm()
        elif isinstance(message, messages.Alive):
            handle.running = None
            handle.deadline = now + SILENCE_S
        elif isinstance(message, messages.Returned):
            handle.running = None
            lease = self.table.leases.get(message.lease)
            end, counter = (0, 0) if lease is None else self.table.ends.get(lease.place_in_log, (0, 0))
            self.table.returned(handle.worker.id, message, end, counter, now)
            place = self.table.places[handle.worker.id]
            handle.deadline = now + SILENCE_S if place.leases or handle.asked_to_stop else None
            self.dispatch()

    def reported(self, handle: Handle) -> None:
        """The parent has reported the end of a worker."""
        while handle.worker.outbox:  # what it said before it died comes first
            self.hear(handle)
        now = self.now()
        expected = handle.asked_to_stop and handle.running is None
        death = None if expected else self._judge(handle)
        self.handles.pop(handle.worker.id)
        place = self.table.places.get(handle.worker.id)
        if place is not None and place.state is not PlaceState.STOPPING and not place.leases and expected:
            raise AssertionError("a worker ended that was not asked to")
        self.table.ended(handle.worker.id, death, now, died=not expected and handle.killed != "stop")
        self.dispatch()

    def _judge(self, handle: Handle) -> DeathNote | None:
        running, pid = handle.running, handle.worker.pid
        if handle.killed == "timeout" and running is not None:
            error = FunctionError(type="Sandbox.Timedout", message="timed out")
            return DeathNote(pid, running.request_id, error)
        if handle.killed:
            return None
        return DeathNote(pid, None, FunctionError(type="Runtime.ExitError", message="exited"))
