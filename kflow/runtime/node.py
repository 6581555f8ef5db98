"""The node: one process per data folder. Supervisor of the workers, and the only writer of the log.

It wires the parts and carries out what the lease table plans; it decides nothing about batches (the engine does, in the
worker) and never runs user code. Its loop never waits for a disk, a worker or a terminal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from kflow.broker import streammap
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.declarations import StreamTrigger
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome
from kflow.lambda_.fleet import Interrupted, Replied, Reply, Request
from kflow.monitoring.measures import Measures
from kflow.plugins.manager import PluginManager
from kflow.runtime import consumers, functions, messages
from kflow.runtime.children import Children, Reader
from kflow.runtime.damaged import DamageWatch
from kflow.runtime.drain import Beside, DrainWatch
from kflow.runtime.feed import Feed, Listener
from kflow.runtime.functions import FunctionPlan, NodeOptions
from kflow.runtime.hearing import Hearing
from kflow.runtime.jobs import Jobs
from kflow.runtime.lambdameasures import LambdaMeasures
from kflow.runtime.leases import (
    Action,
    GrantLease,
    Lease,
    LeaseTable,
    RefuseJob,
    RetireLease,
    SendJob,
    StartWorker,
    StopWorker,
)
from kflow.runtime.leaving import Leaving
from kflow.runtime.loop import Loop, Timer
from kflow.runtime.messages import DeathNote
from kflow.runtime.redriving import Answer
from kflow.runtime.resuming import Resumed
from kflow.runtime.supervisor import SILENCE_S, Supervisor, SupervisorOptions
from kflow.runtime.traces import worker_of
from kflow.runtime.upkeep import Upkeep
from kflow.runtime.workers import WorkerHandle

__all__ = ["FunctionPlan", "Node", "NodeOptions"]

log = logging.getLogger(__name__)

_DRAIN_LOOK_S = 1.0
"""In a drain, a worker that goes on and on returns its lease this often, to say how far it has settled."""

OnAppend = Callable[[StreamMap, int], None]


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
        self.measures = Measures(store.folder)
        """CloudWatch's metrics."""
        self.function_measures = LambdaMeasures(self.measures)
        """Those of functions."""
        self.exposition: Callable[[], bytes] = bytes
        """Makes the Prometheus text, in a thread."""
        self.drain: DrainWatch | None = None
        self.beside: Beside | None = None
        """Reads what is no stream."""
        self.code = 0
        self.reason = ""
        self.endpoint = ""
        """URL of the endpoint; empty where there is none."""
        self.before_end: Callable[[Callable[[], None]], None] = lambda end: end()
        """Called once, when all workers have gone: the node ends when what it was given is called."""
        self.on_parked: Callable[[int], object] = lambda _: None
        """Called with the number of what was parked and has a destination."""
        self.look_for_parked: Callable[[], object] = lambda: None
        """Called where a worker died that may have parked something and told nobody."""
        self.upkeep = Upkeep(store, loop, lambda text: self.notice("error", text))
        self._listener = listener
        self._plugins = plugins
        self._hearing = Hearing(loop, self.feed, self._tell)
        self.supervisor = Supervisor(loop, workers, self._hearing.out, self)
        self._jobs = Jobs(parked)
        self._children = Children(store, self.upkeep, loop, self.notice, self._add_children)
        self._damage = DamageWatch(store, self.upkeep, self.notice, self._looked_at_damage)
        self._appended: list[OnAppend] = []
        self._timer: Timer | None = None
        self._plans = False
        self._is_ending = False
        self._has_said_no_zygote = False
        self._last_lease = 0
        self._over_memory: set[str] = set()
        self.leaving = Leaving()
        self.resumed = Resumed()
        """What the start found of mappings that the API made."""
        self.results: dict[tuple[str, int], str] = {}
        """By function and trigger: what became of the last batch that a lease was returned after."""

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the feed, the zygote and the timers; leases are granted from the next `dispatch` on.

        Without functions there is no zygote yet: the first worker brings it.
        """
        self.supervisor.check()
        self.feed.start()
        if self.functions:
            self.supervisor.start()
        self.upkeep.start()

    def request_stop(self, reason: str, *, kill: bool = False) -> None:
        """Stop: politely first, so that running attempts end and are stored; a second time, or with `kill`, at once."""
        self.reason = reason
        if self._is_ending:
            self.loop.stop()
        if self.table.stopping or kill:
            self.supervisor.kill_all()
        self.table.stopping = True
        self.supervisor.stop_starting()
        self._forget_jobs(None, "the runtime stops: invoke it again")
        self.dispatch()
        self._finish_if_done()

    def start_drain(self, ends: dict[int, int]) -> None:
        """From here on: stop as soon as every lease has settled up to its end; batching windows end at once."""
        self.drain = watch = DrainWatch(lambda: self.request_stop("drained"), ends, self._awaits)
        if self.beside is not None:
            self.beside.drain(lambda: watch.check(self.table))
        for lease in self.table.leases.values():
            if lease.reason == "window":
                self.table.hurry(lease, time.monotonic())
        self.drain.check(self.table)
        self.dispatch()
        self.loop.call_later(_DRAIN_LOOK_S, self._look_at_drain)

    def _awaits(self) -> bool:
        return self._children.under_way or bool(self.beside is not None and self.beside.undrained())

    def undrained(self) -> list[str]:
        """What a drain waits for, for people."""
        blocked = [] if self.drain is None else self.drain.blocked(self.table)
        names = [self.functions[lease.function].place(lease) for lease in blocked]
        return names if self.beside is None else [*names, *self.beside.undrained()]

    def _look_at_drain(self) -> None:
        """Where producers go on, a lease may never be read to its end: ask how far it has settled."""
        if self.drain is None or self.table.stopping:
            return
        for place in self.table.places.values():
            for lease in place.leases.values():
                if self.drain.waits_for(lease):
                    self.supervisor.send(self.supervisor.handles[place.id], messages.Retire(lease.id, lease.generation))
        self.drain.check(self.table)
        self.loop.call_later(_DRAIN_LOOK_S, self._look_at_drain)

    def close(self) -> None:
        """After the loop: end the zygote, tell the listener what is left to tell, close the sockets."""
        self.supervisor.close()
        self.upkeep.close()
        self._hearing.close()
        self.feed.close()

    def _finish_if_done(self) -> None:
        if self.table.stopping and not self.supervisor.handles and not self._is_ending:
            self._is_ending = True
            self.before_end(self.loop.stop)

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
        """Where a lease's shard ends, as far as it may be read, and the counter of its next record.

        As told with the last append: no shard is opened for it, however many there are.
        """
        return self.table.ends.get(lease.place_in_log, (0, 0))

    # ------------------------------------------------------------------ leases and shards

    def add(
        self,
        leases: Iterable[Lease],
        ends: Mapping[tuple[int, int], tuple[int, int]],
        closed: Iterable[tuple[int, int]],
    ) -> None:
        """Take in leases; the ends of their shards as far as these are known, and which of those are closed.

        Leases without a number get one. Dispatch afterwards.
        """
        now = time.monotonic()
        for place, end in ends.items():
            self.table.ends[place] = max(end, self.table.ends.get(place, end))
        for lease in leases:
            lease.id = lease.id or self._last_lease + 1
            self._last_lease = max(self._last_lease, lease.id)
            self.table.add(lease)
            if self.drain is not None:
                self.drain.add(lease, self.readable_end(lease)[0])
        for stream_id, shard in closed:
            self.table.close_shard(stream_id, shard, now)

    def map_changed(self, old: StreamMap, new: StreamMap) -> None:
        """The shards of a stream have changed, and the new map is published. From the loop; never waits for a disk.

        Parents close here: what has settled all of one is drained. Children get their leases once their slots are
        durable; each waits until all lanes of all its parents are drained. Workers learn of the map before the first
        grant that needs it.
        """
        now = time.monotonic()
        text = b""
        readers = []
        for name, plan in list(self.functions.items()):
            for trigger in plan.triggers_on(new):
                self.functions[name] = self.functions[name].with_map(trigger, new)
                for handle in self.supervisor.handles.values():
                    if handle.function == name:
                        text = text or streammap.encode(new)
                        self.supervisor.send(handle, messages.Map(trigger, text))
                if plan.handler.triggers[trigger].enabled:
                    readers.append(Reader(plan.handler, trigger))
        known = {shard.index: shard for shard in old.shards}
        for shard in new.shards:
            if not shard.is_open and (shard.index not in known or known[shard.index].is_open):
                self._close_shard(new, shard.index, now)
        born = tuple(shard for shard in new.shards if shard.index not in known)
        self._children.born(new, born, tuple(readers))
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()

    def stream_gone(self, stream: StreamMap) -> list[str]:
        """A stream is about to be deleted: nothing of it is granted any more, and who holds a lease returns it.

        What a handler is in the middle of ends as it ends; its outcome is kept nowhere.

        Returns:
            The functions that read it.
        """
        readers = sorted(name for name, plan in self.functions.items() if plan.triggers_on(stream))
        now = time.monotonic()
        for action in self.table.remove_stream(stream.id):
            self._carry_out(action, now)
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()
        return readers

    def stream_born(self, stream: StreamMap) -> list[str]:
        """A home stream was made: functions that name it, and whose stream of that name is gone, read it from now on.

        From its beginning, whatever their starting position: they were there before it.

        Returns:
            Those functions.
        """
        text = streammap.encode(stream)
        readers = []
        for name, plan in list(self.functions.items()):
            for trigger, each in enumerate(plan.maps):
                if each.name != stream.name or each.id == stream.id:
                    continue
                self.functions[name] = self.functions[name].with_map(trigger, stream)
                for handle in self.supervisor.handles.values():
                    if handle.function == name:
                        self.supervisor.send(handle, messages.Map(trigger, text))
                if plan.handler.triggers[trigger].enabled:
                    readers.append(Reader(plan.handler, trigger))
        self._children.born(stream, stream.shards, tuple(readers))
        return sorted({reader.handler.name for reader in readers})

    def _close_shard(self, stream: StreamMap, index: int, now: float) -> None:
        try:
            writer = self.log.shard(stream, index)
            self.table.news(stream.id, index, writer.readable_end, writer.readable_counter, now)
        except KflowError as error:  # its end is what the last append told, and that is where it ends
            log.warning("closed shard cannot be opened stream=%s shard=%d: %s", stream.name, index, error)
        self.table.close_shard(stream.id, index, now)

    def _add_children(self, reader: Reader, stream: StreamMap, shards: tuple[ShardInfo, ...]) -> None:
        begin = consumers.Begin(reader.handler, reader.trigger, stream)
        if self._reads(begin):
            own = [each for each in shards if not self.table.has(reader.handler.name, stream.id, each.index)]
            self.add(consumers.leases_of(begin, own, self.table.ends, time.monotonic()), {}, ())
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()

    def _reads(self, begin: consumers.Begin) -> bool:
        """Whether a function reads a stream still: its mapping may have been stopped meanwhile."""
        plan = self.functions.get(begin.handler.name)
        if plan is None or not plan.handler.triggers[begin.trigger].enabled:
            return False
        return plan.maps[begin.trigger].id == begin.stream.id

    def set_trigger(self, function: str, index: int, trigger: StreamTrigger, stream: StreamMap, source: str) -> None:
        """A function reads this from now on, in place of what it read as that trigger, or beside all others.

        Its environments learn of it. Leases are added afterwards.

        Args:
            function: its key; where there is none, this waits for it.
            index: of the trigger.
            trigger: with its options.
            stream: that it reads.
            source: ARN that its events name.
        """
        plan = self.functions.get(function) or functions.absent(function)
        self.functions[function] = plan.with_trigger(index, trigger, stream, source)
        self.table.exists(function, time.monotonic(), exists=plan.exists)
        message = messages.Trigger(index, trigger, streammap.encode(stream), source)
        for handle in self.supervisor.handles.values():
            if handle.function == function:
                self.supervisor.send(handle, message)

    def stop_reading(self, function: str, index: int, then: Callable[[], object]) -> None:
        """A function reads nothing by a trigger any more; `then` is called once nothing that it read is running."""
        plan = self.functions[function]
        trigger, stream = plan.handler.triggers[index], plan.maps[index]
        off = msgspec.structs.replace(trigger, enabled=False)
        self.functions[function] = plan.with_trigger(index, off, stream, "")
        now = time.monotonic()
        held, actions = self.table.remove_consumer(function, stream.id)
        self.leaving.wait(held, then)
        for action in actions:
            self._carry_out(action, now)
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()

    def damaged(self, stream: StreamMap, shard: int, offset: int, told: Callable[[KflowError | None], None]) -> None:
        """A reader beside the node cannot read a block; it is told once the writer has looked at it."""
        self._damage.found(stream, shard, offset, told)

    def _looked_at_damage(self, stream_id: int, shard: int) -> None:
        for lease in self.table.leases.values():
            if lease.place_in_log == (stream_id, shard) and lease.reason == "damage":
                self.table.hurry(lease, time.monotonic())
        self.dispatch()

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
            handle.held = len(action.leases)
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, functions.grant(action, now, window_over=self.drain is not None))
        elif isinstance(action, StartWorker):
            supervisor.start_worker(
                functions.worker_spec(
                    action.worker,
                    self.functions[action.function],
                    self.options,
                    data_dir=str(self.folder.path),
                    init_in_invocation=action.function in supervisor.slow_inits,
                    every_batch=self._plugins.wants("batch_done"),
                ),
                now,
            )
        elif isinstance(action, RetireLease):
            supervisor.send(supervisor.handles[action.worker], messages.Retire(action.lease, action.generation))
        elif isinstance(action, StopWorker):
            supervisor.stop_worker(supervisor.handles[action.worker], now)
        elif isinstance(action, RefuseJob):
            refuse = partial(self._jobs.refuse, action.job, "no place was free in time: invoke it again")
            self.loop.call_later(0, refuse)
        elif isinstance(action, SendJob):
            handle = supervisor.handles[action.worker]
            handle.held = 1
            handle.deadline = now + SILENCE_S
            supervisor.send(handle, self._jobs.message(action.job))

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

    def running(self, handle: WorkerHandle, message: messages.Running, now: float) -> None:
        """An invocation, or the import, begins."""
        if self.table.running(handle.id, message.lease, now, handle.started_at):
            self._plans = True

    def returned(self, handle: WorkerHandle, message: messages.Returned, now: float) -> None:
        """A lease is given back: compare what was read with the shard's end at this moment."""
        lease = self.table.leases.get(message.lease)
        readable_end, next_counter = (0, 0) if lease is None else self.readable_end(lease)
        self.table.returned(handle.id, message, readable_end, next_counter, now)
        self.feed.lost(message.dropped)
        self._plans = True
        if lease is None:
            self.leaving.left(message.lease)
            return
        if message.last:
            self.results[lease.function, lease.trigger] = message.last
        if message.damaged_at >= 0:
            stream = self.functions[lease.function].maps[lease.trigger]
            self._damage.found(stream, lease.shard, message.damaged_at)
        else:
            self._trouble(lease, message.detail)
        if self.drain is not None:
            self.drain.waits_for(lease)
            if lease.reason == "window":  # granted before the drain began
                self.table.hurry(lease, now)

    def heard(self, now: float) -> None:
        """All that a worker had to say is known: plan if that may change something."""
        if not self._plans:
            self._arm(now)
            return
        self._plans = False
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()

    def held(self, handle: WorkerHandle, message: messages.Alive) -> None:
        """The worker holds an outcome that the storage refuses."""
        lease = self.table.places[handle.id].leases.get(message.lease)
        if lease is not None:
            self._trouble(lease, message.detail)

    def over_memory(self, handle: WorkerHandle, used_mb: int) -> None:
        """A worker is killed for its memory: an attempt like any other; people are told once why."""
        if handle.function not in self._over_memory:
            self._over_memory.add(handle.function)
            self.notice(
                "warning",
                f"{handle.function} was ended, as on Lambda: it holds {used_mb} MB more than at its start, and its "
                f"memory_size is {handle.spec.memory_mb} MB",
            )

    def _trouble(self, lease: Lease, detail: str) -> None:
        """Say what the storage refuses a lease, once; and when it is over."""
        if detail == lease.trouble:
            return
        where = self.functions[lease.function].place(lease)
        if detail:
            self.notice("error", f"{where} waits for the storage: {detail}")
        else:
            self.notice("info", f"{where} goes on, the storage works again")
        lease.trouble = detail

    def redriven(self, handle: WorkerHandle, message: messages.Redriven, now: float) -> None:
        """A parked entry was sent to its function again."""
        self.table.ran(handle.id, now, broken=message.broken)
        self._jobs.redriven(message)
        self._plans = True

    def invoked(self, handle: WorkerHandle, message: messages.Invoked, now: float) -> None:
        """An invocation has come to its end."""
        self.table.ran(handle.id, now, broken=message.broken)
        self._plans = True
        self._jobs.invoked(message)

    def was_parked(self, number: int) -> None:
        """Records were parked, and their failure document is to be sent."""
        self.on_parked(number)

    def no_zygote(self) -> None:
        """What workers are forked from ended before it could fork any. People are told once."""
        if self._has_said_no_zygote:
            return
        self._has_said_no_zygote = True
        self.notice(
            "error",
            "functions cannot be run: the process that workers are forked from ended at its start, for what is said "
            'on standard error; look at the setting `preload`, or set worker_start = "spawn"',
        )

    def ended(self, handle: WorkerHandle, death: DeathNote | None, now: float, *, died: bool) -> None:
        """A worker is gone: its lease may be granted anew, with the note of its death."""
        if died and any(each.options.on_failure for each in handle.spec.handler.triggers):
            self.look_for_parked()
        job = self.table.places[handle.id].job
        for lease in self.table.ended(handle.id, death, now, died=died):
            self.leaving.left(lease.id)
        if job is not None:
            self._jobs.died(job, death)
        self.dispatch()
        self._finish_if_done()

    # ------------------------------------------------------------------ redrive

    def redrive(self, function: str, number: int, trigger: int, answer: Answer) -> None:
        """Have a parked entry sent to its function again, in a place of it; `answer` is called when it is done."""
        self.table.ask(function, self._jobs.redrive(number, trigger, answer))
        self.dispatch()

    # ------------------------------------------------------------------ functions

    def invoke(self, function: str, request: Request, replied: Replied) -> None:
        """Run a function once, in a place of it.

        Args:
            function: its key; there is such a function.
            request: what it is given.
            replied: told what it came to, on the loop.
        """
        if self.table.stopping:
            replied(Interrupted("the runtime stops: invoke it again"))
            return
        caller = worker_of(request.trace)
        if caller is not None and self.table.waits(caller):
            replied = partial(self._nested_done, caller, replied)
        self.table.ask(function, self._jobs.invoke(request, replied))
        self.dispatch()

    def _nested_done(self, caller: int, replied: Replied, reply: Reply | KflowError) -> None:
        """What a function waited for is over."""
        self.table.goes_on(caller)
        replied(reply)

    def publish(self, plan: FunctionPlan) -> None:
        """A function is this from now on; environments of what it was end with what they run."""
        name = plan.handler.name
        is_known = name in self.functions
        self.functions[name] = plan
        self.table.exists(name, time.monotonic(), exists=plan.exists)
        if is_known:
            self._renew(name)

    def withdraw(self, function: str) -> None:
        """A function is no more; what runs ends as it ends, and who waits for a place is told. Its mappings wait."""
        plan = self.functions.pop(function, None)
        if plan is not None and plan.handler.triggers:
            self.functions[function] = plan.missing()
        self.table.exists(function, time.monotonic(), exists=False)
        self._forget_jobs(function, None)
        self._renew(function)

    def knows(self, function: str) -> bool:
        """Whether there is a function of this key."""
        plan = self.functions.get(function)
        return plan is not None and plan.exists

    def limit(self, function: str, most: int | None) -> None:
        """At most so many places of a function, over all its keys, are at its leases at once; None: as many as may."""
        now = time.monotonic()
        for action in self.table.limit(function, most, now):
            self._carry_out(action, now)
        self.dispatch()

    def _forget_jobs(self, function: str | None, why: str | None) -> None:
        for job in self.table.forget_jobs(function):
            self._jobs.refuse(job, why)

    def _renew(self, function: str) -> None:
        now = time.monotonic()
        self.supervisor.slow_inits.discard(function)
        for action in self.table.renew(function, now):
            self._carry_out(action, now)
        self.dispatch()

    # ------------------------------------------------------------------ what people are told

    def shards_changed(self, stream: str, closed: list[str], opened: list[str]) -> None:
        """Tell plugins which shards of a stream were closed, and which opened; it is durable."""
        self.feed.publish(lambda: self._plugins.call("shards_changed", stream=stream, closed=closed, opened=opened))

    def notice(self, level: str, text: str) -> None:
        """Tell people something. From any thread."""
        self.feed.publish(lambda: self._listener.notice(level, text))

    def tell(self, outcome: BatchOutcome) -> None:
        """Tell people and plugins of a batch whose outcome is durable. From any thread."""
        self.feed.publish(lambda: self._tell(outcome))

    def _tell(self, outcome: BatchOutcome) -> None:
        self._listener.outcome(outcome)
        self._plugins.call("batch_done", outcome=outcome)
