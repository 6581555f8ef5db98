"""The node: one process per data folder. Supervisor of the workers, and the only writer of the log.

It wires the parts and carries out what the lease table plans; it decides nothing about batches (the engine does, in the
worker) and never runs user code. Its loop never waits for a disk, a worker or a terminal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.lambda_.fleet import Interrupted, Replied, Reply, Request
from kflow.monitoring.measures import Measures
from kflow.plugins.manager import PluginManager
from kflow.runtime import messages
from kflow.runtime.consumers.resuming import Resumed
from kflow.runtime.feed import Listener
from kflow.runtime.loop import Loop
from kflow.runtime.measures.lambda_ import LambdaMeasures
from kflow.runtime.messages import DeathNote
from kflow.runtime.node.damaged import DamageWatch
from kflow.runtime.node.dispatching import Dispatcher
from kflow.runtime.node.drain import Beside, DrainWatch
from kflow.runtime.node.hearing import Hearing
from kflow.runtime.node.jobs import Jobs
from kflow.runtime.node.people import People
from kflow.runtime.node.reading import Reads
from kflow.runtime.node.redriving import Answer
from kflow.runtime.node.supervisor import SILENCE_S, Supervisor, SupervisorOptions
from kflow.runtime.node.workers import WorkerHandle
from kflow.runtime.plan.functions import FunctionPlan, NodeOptions
from kflow.runtime.plan.leases import Job, Lease, LeaseTable
from kflow.runtime.traces import worker_of
from kflow.runtime.upkeep import Upkeep

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
        self.people = People(listener, plugins, self.functions)
        self.feed = self.people.feed
        self.measures = Measures(store.folder)
        """CloudWatch's metrics."""
        self.function_measures = LambdaMeasures(self.measures)
        """Those of functions."""
        self.exposition: Callable[[], bytes] = bytes
        """Makes the Prometheus text, in a thread."""
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
        self.upkeep = Upkeep(store, loop, partial(self.people.notice, "error"))
        self._hearing = Hearing(loop, self.feed, self.people.outcome, self.function_measures.counted)
        self.supervisor = Supervisor(loop, workers, self._hearing.out, self)
        self._jobs = Jobs(parked)
        self._dispatcher = Dispatcher(
            self.table,
            self.supervisor,
            self._jobs,
            plans=self.functions,
            options=options,
            data_dir=str(store.folder.path),
            plugins=plugins,
            loop=loop,
        )
        self.reads = Reads(
            store,
            self.functions,
            table=self.table,
            supervisor=self.supervisor,
            dispatcher=self._dispatcher,
            upkeep=self.upkeep,
            notice=self.people.notice,
            loop=loop,
        )
        self._damage = DamageWatch(store, self.upkeep, self.people.notice, self.reads.looked_at_damage)
        self._appended: list[OnAppend] = []
        self._plans = False
        self._is_ending = False
        self.resumed = Resumed()
        """What the start found of mappings that the API made."""
        self.results: dict[tuple[str, int], str] = {}
        """By function and trigger: what became of the last batch that a lease was returned after."""

    def notice(self, level: str, text: str) -> None:
        """Tell people something. From any thread."""
        self.people.notice(level, text)

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
        self._dispatcher.dispatch()
        self._finish_if_done()

    def start_drain(self, ends: dict[int, int]) -> None:
        """From here on: stop as soon as every lease has settled up to its end; batching windows end at once."""
        self._dispatcher.drain = watch = DrainWatch(lambda: self.request_stop("drained"), ends, self._awaits)
        if self.beside is not None:
            self.beside.drain(lambda: watch.check(self.table))
        for lease in self.table.leases.values():
            if lease.reason == "window":
                self.table.hurry(lease, time.monotonic())
        self._dispatcher.go_on()
        self.loop.call_later(_DRAIN_LOOK_S, self._look_at_drain)

    def _awaits(self) -> bool:
        return self.reads.are_under_way or bool(self.beside is not None and self.beside.undrained())

    def undrained(self) -> list[str]:
        """What a drain waits for, for people."""
        drain = self._dispatcher.drain
        blocked = [] if drain is None else drain.blocked(self.table)
        names = [self.functions[lease.function].place(lease) for lease in blocked]
        return names if self.beside is None else [*names, *self.beside.undrained()]

    def _look_at_drain(self) -> None:
        """Where producers go on, a lease may never be read to its end: ask how far it has settled."""
        drain = self._dispatcher.drain
        if drain is None or self.table.stopping:
            return
        for place in self.table.places.values():
            for lease in place.leases.values():
                if drain.waits_for(lease):
                    self.supervisor.send(self.supervisor.handles[place.id], messages.Retire(lease.id, lease.generation))
        drain.check(self.table)
        self.loop.call_later(_DRAIN_LOOK_S, self._look_at_drain)

    @property
    def is_draining(self) -> bool:
        """Whether it stops once all is settled."""
        return self._dispatcher.drain is not None

    def dispatch(self) -> None:
        """Do what the table plans."""
        self._dispatcher.dispatch()

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
                self._dispatcher.carry_out(action, now)
            self._dispatcher.arm_by(now + SILENCE_S, now)
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

    # ------------------------------------------------------------------ damage

    def damaged(self, stream: StreamMap, shard: int, offset: int, told: Callable[[KflowError | None], None]) -> None:
        """A reader beside the node cannot read a block; it is told once the writer has looked at it."""
        self._damage.found(stream, shard, offset, told)

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
            self.reads.leaving.left(message.lease)
            return
        if message.last:
            self.results[lease.function, lease.trigger] = message.last
        if message.damaged_at >= 0:
            stream = self.functions[lease.function].maps[lease.trigger]
            self._damage.found(stream, lease.shard, message.damaged_at)
        else:
            self.people.trouble(lease, message.detail)
        drain = self._dispatcher.drain
        if drain is not None:
            drain.waits_for(lease)
            if lease.reason == "window":  # granted before the drain began
                self.table.hurry(lease, now)

    def heard(self, now: float) -> None:
        """All that a worker had to say is known: plan if that may change something."""
        if not self._plans:
            self._dispatcher.arm(now)
            return
        self._plans = False
        dispatcher = self._dispatcher
        if dispatcher.drain is not None:
            dispatcher.drain.check(self.table)
        dispatcher.dispatch()

    def held(self, handle: WorkerHandle, message: messages.Alive) -> None:
        """The worker holds an outcome that the storage refuses."""
        lease = self.table.places[handle.id].leases.get(message.lease)
        if lease is not None:
            self.people.trouble(lease, message.detail)

    def over_memory(self, handle: WorkerHandle, used_mb: int) -> None:
        """A worker is killed for its memory: an attempt like any other."""
        self.people.over_memory(handle, used_mb)

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
        """What workers are forked from ended before it could fork any."""
        self.people.no_zygote()

    def ended(self, gone: Sequence[WorkerHandle], death: DeathNote | None, now: float, *, died: bool) -> None:
        """Workers are gone: their leases may be granted anew, with the note of their death."""
        jobs: list[Job] = []
        for handle in gone:
            if died and any(each.options.on_failure for each in handle.spec.handler.triggers):
                self.look_for_parked()
            job = self.table.places[handle.id].job
            if job is not None:
                jobs.append(job)
            for lease in self.table.ended(handle.id, death, now, died=died):
                self.reads.leaving.left(lease.id)
        for job in jobs:  # whoever is told may ask for the next at once
            self._jobs.died(job, death)
        self._dispatcher.dispatch()
        self._finish_if_done()

    # ------------------------------------------------------------------ redrive

    def redrive(self, function: str, number: int, trigger: int, answer: Answer) -> None:
        """Have a parked entry sent to its function again, in a place of it; `answer` is called when it is done."""
        self.table.ask(function, self._jobs.redrive(number, trigger, answer))
        self._dispatcher.dispatch()

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
        self._dispatcher.dispatch()

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
            self._dispatcher.carry_out(action, now)
        self._dispatcher.dispatch()

    def _forget_jobs(self, function: str | None, why: str | None) -> None:
        for job in self.table.forget_jobs(function):
            self._jobs.refuse(job, why)

    def _renew(self, function: str) -> None:
        now = time.monotonic()
        self.supervisor.slow_inits.discard(function)
        for action in self.table.renew(function, now):
            self._dispatcher.carry_out(action, now)
        self._dispatcher.dispatch()
