"""The node: one process per data folder. Supervisor of the workers, and the only writer of the log.

It wires the parts and carries out what the lease table plans; it decides nothing about batches (the engine does, in the
worker) and never runs user code. Its loop never waits for a disk, a worker or a terminal.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kflow.broker import streammap
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome, FunctionError
from kflow.plugins.manager import PluginManager
from kflow.runtime import messages
from kflow.runtime.drain import DrainWatch
from kflow.runtime.feed import Feed, Listener, live_pair
from kflow.runtime.leases import (
    Action,
    GrantLease,
    Lease,
    LeaseTable,
    PlaceState,
    RetireLease,
    SendRedrive,
    StartWorker,
    StopWorker,
)
from kflow.runtime.loop import Loop, Timer
from kflow.runtime.messages import DeathNote, Grant, WorkerSpec
from kflow.runtime.supervisor import SILENCE_S, Supervisor, SupervisorOptions
from kflow.runtime.upkeep import Upkeep
from kflow.runtime.workers import WorkerHandle

log = logging.getLogger(__name__)

_LIVE_PER_ROUND = 64
_LIVE_BYTES = 65536
_INTERRUPTED = FunctionError(type="Interrupted", message="the runtime ended the worker; send it again")

RedriveAnswer = Callable[[dict[str, Any]], None]
OnAppend = Callable[[StreamMap, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """A function to run: its handler, the streams of its triggers, what it may use."""

    handler: Handler
    maps: tuple[StreamMap, ...]
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What the node needs from the settings, and which node of the folder it is.

    Attributes:
        epoch: counts the nodes of the folder.
        previous_epoch_clean: whether the one before ended of its own accord.
    """

    region: str
    account: str
    max_workers: int
    retry_backoff_scale: float
    epoch: int
    previous_epoch_clean: bool


class Node:
    """A running node. Everything belongs to the thread that runs the loop."""

    def __init__(
        self,
        store: Log,
        parked: ParkedStore,
        *,
        options: NodeOptions,
        workers: SupervisorOptions,
        listener: Listener,
        plugins: PluginManager,
        loop: Loop,
    ) -> None:
        self.folder = store.folder
        self.log = store
        self.parked = parked
        self.functions: dict[str, FunctionPlan] = {}
        self.options = options
        self.loop = loop
        self.table = LeaseTable(options.max_workers)
        self.feed = Feed()
        self.drain: DrainWatch | None = None
        self.code = 0
        self.reason = ""
        self.upkeep = Upkeep(store, loop, lambda text: self.notice("error", text))
        self._listener = listener
        self._plugins = plugins
        self._live, self._live_out = live_pair()
        loop.add(self._live.fileno(), self._hear_live, priority=3)
        self.supervisor = Supervisor(loop, workers, self._live_out, self)
        self._redrive_answers: dict[int, RedriveAnswer] = {}
        self._appended: list[OnAppend] = []
        self._timer: Timer | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the feed, the zygote and the timers; leases are granted from the next `dispatch` on."""
        self.feed.start()
        self.supervisor.start()
        self.upkeep.start()

    def request_stop(self, reason: str, *, kill: bool = False) -> None:
        """Stop: politely first, so that running attempts end and are stored; a second time, or with `kill`, at once."""
        self.reason = reason
        if self.table.stopping or kill:
            self.supervisor.kill_all()
        self.table.stopping = True
        self.dispatch()
        self._finish_if_done()

    def start_drain(self, ends: dict[int, int]) -> None:
        """From here on: stop as soon as every lease has settled up to its end; batching windows end at once."""
        self.drain = DrainWatch(lambda: self.request_stop("drained"), ends)
        for lease in self.table.leases.values():
            if lease.reason == "window":
                self.table.hurry(lease, time.monotonic())
        self.drain.check(self.table)
        self.dispatch()

    def close(self) -> None:
        """After the loop: end the zygote, tell the listener what is left to tell, close the sockets."""
        self.supervisor.close()
        self.upkeep.close()
        while self._hear_live(0):
            pass
        self.feed.close()
        self.loop.remove(self._live.fileno())
        self._live.close()
        self._live_out.close()

    def _finish_if_done(self) -> None:
        if self.table.stopping and not self.supervisor.handles:
            self.loop.stop()

    # ------------------------------------------------------------------ appends

    def on_append(self, stream: StreamMap, shard: int, tail: int, next_counter: int) -> None:
        """A block was committed: grant before the answer goes out."""
        now = time.monotonic()
        if self.table.news(stream.id, shard, tail, next_counter, now):
            for action in self.table.plan(now):
                self._carry_out(action, now)
            self._arm_by(now + SILENCE_S, now)
        for tell in self._appended:
            tell(stream, shard)
        self.upkeep.appended()

    def watch_appends(self, tell: OnAppend) -> None:
        """Call `tell` after each append."""
        self._appended.append(tell)

    def readable_end(self, lease: Lease) -> tuple[int, int]:
        """Where a lease's shard ends now: its tail, and the counter of its next record."""
        writer = self.log.shard(self.functions[lease.function].maps[lease.trigger], lease.shard)
        return writer.tail, writer.next_counter

    # ------------------------------------------------------------------ the plan, carried out

    def dispatch(self) -> None:
        """Do what the table plans, and arm the one timer for what comes next."""
        now = time.monotonic()
        self.table.tick(now)
        for action in self.table.plan(now):
            self._carry_out(action, now)
        self._arm(now)

    def _carry_out(self, action: Action, now: float) -> None:
        supervisor = self.supervisor
        if isinstance(action, GrantLease):
            handle = supervisor.handles[action.worker]
            handle.running = None
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, self._grant(action.lease, now))
        elif isinstance(action, StartWorker):
            supervisor.start_worker(self._spec(action), now)
        elif isinstance(action, RetireLease):
            supervisor.send(supervisor.handles[action.worker], messages.Retire(action.generation))
        elif isinstance(action, StopWorker):
            supervisor.stop_worker(supervisor.handles[action.worker], now)
        elif isinstance(action, SendRedrive):
            handle = supervisor.handles[action.worker]
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, messages.Redrive(action.number, action.trigger))

    def _grant(self, lease: Lease, now: float) -> Grant:
        death, lease.death = lease.death, None
        return Grant(
            lease=lease.id,
            generation=lease.generation,
            trigger=lease.trigger,
            shard=lease.shard,
            since_completion_ms=int((now - lease.settled_at) * 1000),
            window_over=self.drain is not None,
            window_due=lease.window_due,
            alone=lease.alone,
            death=death,
            last_error=lease.last_error,
        )

    def _spec(self, action: StartWorker) -> WorkerSpec:
        plan, options = self.functions[action.function], self.options
        return WorkerSpec(
            worker=action.worker,
            handler=plan.handler,
            data_dir=str(self.folder.path),
            maps=tuple(streammap.encode(each) for each in plan.maps),
            epoch=options.epoch,
            previous_epoch_clean=options.previous_epoch_clean,
            region=options.region,
            account=options.account,
            retry_backoff_scale=options.retry_backoff_scale,
            timeout_s=plan.timeout_s,
            memory_mb=plan.memory_mb,
            environment=dict(plan.environment),
            init_in_invocation=action.function in self.supervisor.slow_inits,
            every_batch=self._plugins.wants("batch_done"),
        )

    def _arm(self, now: float) -> None:
        times = [t for t in (self.table.next_due(now), self.supervisor.next_deadline()) if t is not None]
        if not times:
            return
        due = min(times)
        if self._timer is not None and self._timer.call is not None:
            if self._timer.due <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._on_time)

    def _arm_by(self, due: float, now: float) -> None:
        """Arm for what a grant brings, the earliest of which is `due`: nothing to do where the timer fires before."""
        timer = self._timer
        if timer is None or timer.call is None or timer.due > due or self.table.is_short:
            self._arm(now)

    def _on_time(self) -> None:
        self.supervisor.kill_overdue(time.monotonic())
        self.dispatch()

    # ------------------------------------------------------------------ what the supervisor reports

    def running(self, handle: WorkerHandle, now: float) -> None:
        """An invocation, or the import, begins."""
        place = self.table.places[handle.id]
        if not place.start_s:
            place.start_s = now - handle.started_at
        self._arm(now)

    def returned(self, handle: WorkerHandle, message: messages.Returned, now: float) -> None:
        """The lease is given back: compare what was read with the shard's end at this moment."""
        lease = self.table.leases.get(message.lease)
        readable_end, next_counter = (0, 0) if lease is None else self.readable_end(lease)
        self.table.returned(handle.id, message, readable_end, next_counter, now)
        self.feed.lost(message.dropped)
        if lease is not None:
            self._trouble(lease, message.detail)
        if handle.broken:
            self.table.places[handle.id].state = PlaceState.STOPPING
        if self.drain is not None:
            if lease is not None and lease.reason == "window":  # granted before the drain began
                self.table.hurry(lease, now)
            self.drain.check(self.table)
        self.dispatch()

    def held(self, handle: WorkerHandle, detail: str) -> None:
        """The worker holds an outcome that the storage refuses."""
        lease = self.table.places[handle.id].lease
        if lease is not None:
            self._trouble(lease, detail)

    def _trouble(self, lease: Lease, detail: str) -> None:
        """Say what the storage refuses a lease, once; and when it is over."""
        if detail == lease.trouble:
            return
        where = f"{lease.function} {self.functions[lease.function].maps[lease.trigger].name}/{lease.shard}"
        if detail:
            self.notice("error", f"{where} waits for the storage: {detail}")
        else:
            self.notice("info", f"{where} goes on, the storage works again")
        lease.trouble = detail

    def redriven(self, handle: WorkerHandle, message: messages.Redriven, now: float) -> None:
        """A parked entry was sent to its function again."""
        self.table.redriven(handle.id, now)
        if handle.broken:
            self.table.places[handle.id].state = PlaceState.STOPPING
        self._answer_redrive(message.number, message.error)
        self.dispatch()

    def ended(self, handle: WorkerHandle, death: DeathNote | None, now: float, *, died: bool) -> None:
        """A worker is gone: its lease may be granted anew, with the note of its death."""
        redrive = self.table.places[handle.id].redrive
        self.table.ended(handle.id, death, now, died=died)
        if redrive is not None:
            self._redrive_died(redrive, death)
        self.dispatch()
        self._finish_if_done()

    # ------------------------------------------------------------------ redrive

    def redrive(self, function: str, number: int, trigger: int, answer: RedriveAnswer) -> None:
        """Have a parked entry sent to its function again, in a place of it; `answer` is called when it is done."""
        self._redrive_answers[number] = answer
        self.table.redrive(function, number, trigger)
        self.dispatch()

    def _redrive_died(self, number: int, death: DeathNote | None) -> None:
        """The worker died with a redrive: a failed attempt where its death counts as one, else the claim goes back."""
        try:
            if death is None:
                self.parked.unclaim(number)
            else:
                self.parked.failed_again(number, death.error, 1)
        except KflowError as error:
            log.warning("parked=%d its claim goes back at the next start: %s", number, error)
        self._answer_redrive(number, death.error if death else _INTERRUPTED)

    def _answer_redrive(self, number: int, error: FunctionError | None) -> None:
        answer = self._redrive_answers.pop(number, None)
        if answer is not None:
            answer({"number": number, "error": None if error is None else msgspec.to_builtins(error)})

    # ------------------------------------------------------------------ what people are told

    def notice(self, level: str, text: str) -> None:
        """Tell people something. From any thread."""
        self.feed.publish(lambda: self._listener.notice(level, text))

    def _hear_live(self, mask: int) -> bool:
        """Pass on what workers told; returns whether there was more than one round takes."""
        del mask
        for _ in range(_LIVE_PER_ROUND):
            try:
                data = self._live.recv(_LIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            outcome = _decode_outcome(data)
            self.feed.publish(lambda outcome=outcome: self._tell(outcome))  # type: ignore[misc]  # bound now
        return True

    def _tell(self, outcome: BatchOutcome) -> None:
        self._listener.outcome(outcome)
        self._plugins.call("batch_done", outcome=outcome)


_decode_outcome = msgspec.msgpack.Decoder(BatchOutcome).decode
