"""The node: one process per data folder. Supervisor of the workers, and the only writer of the log.

It wires the parts and carries out what the lease table plans; it decides nothing about batches (the engine does, in the
worker) and never runs user code. Its loop never waits for a disk, a worker or a terminal.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from kflow.broker import streammap
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.clock import SystemClock
from kflow.declarations import Handler
from kflow.errors import KflowError
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.lambda_ import payloads
from kflow.plugins.manager import PluginManager
from kflow.runtime import messages
from kflow.runtime.drain import DrainWatch
from kflow.runtime.feed import Feed, Listener
from kflow.runtime.ingest import Ingest
from kflow.runtime.leases import (
    Action,
    GrantLease,
    LeaseTable,
    PlaceState,
    RetireLease,
    SendRedrive,
    StartWorker,
    StopWorker,
)
from kflow.runtime.loop import READ, WRITE, Loop, Timer
from kflow.runtime.messages import Channel, DeathNote, Grant, WorkerSpec
from kflow.runtime.output import log_path, report, request_id_text
from kflow.runtime.workers import (
    Deadlines,
    DirectSpawner,
    WorkerHandle,
    ZygoteSpawner,
    timed_out,
    wait_gone,
)

log = logging.getLogger(__name__)

SILENCE_S = 10.0
"""A grant without a sign of life for this long gets its worker killed: an interruption, never an attempt."""
DEADLINE_SLACK_S = 0.5
"""The worker's own timer is the fast path; the node's deadline comes this much later."""
SYNC_S = 0.1
"""With `interval`: what was appended is synced at most this much later."""
RETAIN_S = 600.0
"""Looks at retention; the two that let a record expire are an hour apart."""
DISK_THREADS = 8
_LIVE_BYTES = 1 << 20
_LIVE_PER_ROUND = 64


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
    """What the node needs from the settings."""

    region: str
    account: str
    max_workers: int
    retry_backoff_scale: float
    worker_start: str
    plugins: tuple[str, ...]
    preload: tuple[str, ...]


class Node:
    """A running node. Everything but `stop` from a signal handler belongs to the thread that calls `run`."""

    def __init__(
        self,
        folder: DataFolder,
        store: Log,
        parked: ParkedStore,
        *,
        functions: Mapping[str, FunctionPlan],
        options: NodeOptions,
        environment: Mapping[str, str],
        epoch: int,
        previous_epoch_clean: bool,
        listener: Listener,
        plugins: PluginManager,
        loop: Loop,
        drain: DrainWatch | None,
    ) -> None:
        self.folder = folder
        self.log = store
        self.parked = parked
        self.functions = dict(functions)
        self.options = options
        self.loop = loop
        self.table = LeaseTable(options.max_workers)
        self.plugins = plugins
        self.feed = Feed()
        self.drain = drain
        self.epoch = epoch
        self.killing = False
        self.code = 0
        self._environment = dict(environment)
        self._previous_epoch_clean = previous_epoch_clean
        self._listener = listener
        self._handles: dict[int, WorkerHandle] = {}
        self._by_pid: dict[int, WorkerHandle] = {}
        self._deadlines = Deadlines(self._handles)
        self._slow_inits: set[str] = set()
        self._redrive_answers: dict[int, Callable[[dict[str, object]], None]] = {}
        self._appended: list[Callable[[StreamMap, int], None]] = []
        self._timer: Timer | None = None
        self._sync_timer: Timer | None = None
        self._spawner: ZygoteSpawner | DirectSpawner | None = None
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="kflow-disk")
        self._live, self._live_out = _live_pair()
        loop.add(self._live.fileno(), self._hear_live, priority=3)
        self.ingest: Ingest | None = None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the feed, the zygote and the timers; leases are granted from here on."""
        self.feed.start()
        self._start_spawner()
        self.loop.call_later(RETAIN_S, self._retain)
        self.dispatch()

    def request_stop(self, *, kill: bool = False) -> None:
        """Stop: politely first, so that running attempts end and are stored; a second time, or with `kill`, at once."""
        if self.table.stopping or kill:
            self.killing = True
            for handle in self._handles.values():
                handle.kill("stop")
        self.table.stopping = True
        self.dispatch()
        self._finish_if_done()

    def start_drain(self, ends: dict[int, int]) -> None:
        """From here on: stop as soon as every lease has settled up to its end; batching windows end at once."""
        if self.drain is None:
            return
        for lease in self.table.leases.values():
            if lease.reason == "window":
                self.table.hurry(lease, time.monotonic())
        self.drain.note(ends, self.table)
        self.dispatch()

    def pid_of(self, worker: int) -> int | None:
        """The process of a worker."""
        handle = self._handles.get(worker)
        return None if handle is None else handle.pid

    def close(self) -> None:
        """After `run`: end the zygote, tell the listener what is left to tell, close the sockets."""
        if self._spawner is not None:
            if isinstance(self._spawner, ZygoteSpawner):
                self.loop.remove(self._spawner.socket.fileno())
            self._spawner.close()
        self._disk.shutdown()
        self._hear_live(READ)
        self.feed.close()
        self.loop.remove(self._live.fileno())
        self._live.close()
        self._live_out.close()

    def _finish_if_done(self) -> None:
        if self.table.stopping and not self._handles:
            self.loop.stop()

    # ------------------------------------------------------------------ appends

    def on_append(self, stream: StreamMap, shard: int) -> None:
        """A block was committed: grant before the answer goes out."""
        writer = self.log.shard(stream, shard)
        if self.table.news(stream.id, shard, writer.tail, writer.next_counter, time.monotonic()):
            self.dispatch()
        for tell in self._appended:
            tell(stream, shard)
        if self._sync_timer is None and self.folder.fsync == "interval":
            self._sync_timer = self.loop.call_later(SYNC_S, self._sync)

    def watch_appends(self, tell: Callable[[StreamMap, int], None]) -> None:
        """Call `tell` after each append."""
        self._appended.append(tell)

    def _sync(self) -> None:
        self._sync_timer = None
        for task in self.log.sync_due():
            self._disk.submit(self._on_disk, task)

    def _retain(self) -> None:
        self.loop.call_later(RETAIN_S, self._retain)
        now = SystemClock().now()
        self._disk.submit(self._on_disk, lambda: self.log.retain(now))

    def _on_disk(self, work: Callable[[], object]) -> None:
        """In a thread: the loop never waits for a disk."""
        try:
            work()
        except KflowError as error:
            self.notice("error", str(error))

    # ------------------------------------------------------------------ the plan, carried out

    def dispatch(self) -> None:
        """Do what the table plans, and arm the one timer for what comes next."""
        now = time.monotonic()
        self.table.tick(now)
        for action in self.table.plan(now):
            self._carry_out(action, now)
        self._arm(now)

    def _carry_out(self, action: Action, now: float) -> None:
        if isinstance(action, GrantLease):
            lease = action.lease
            handle = self._handles[action.worker]
            handle.running = None
            handle.deadline = now + SILENCE_S
            grant = Grant(
                lease=lease.id,
                generation=lease.generation,
                trigger=lease.trigger,
                shard=lease.shard,
                since_completion_ms=int((now - lease.settled_at) * 1000),
                window_over=self.drain is not None,
                alone=lease.alone,
                death=lease.death,
            )
            lease.death = None
            self._post(handle, grant)
        elif isinstance(action, StartWorker):
            self._start_worker(action, now)
        elif isinstance(action, RetireLease):
            self._post(self._handles[action.worker], messages.Retire(action.generation))
        elif isinstance(action, StopWorker):
            handle = self._handles[action.worker]
            handle.asked_to_stop = True
            handle.deadline = now + SILENCE_S
            self._post(handle, messages.Stop())
        elif isinstance(action, SendRedrive):
            handle = self._handles[action.worker]
            handle.deadline = now + SILENCE_S
            self._post(handle, messages.Redrive(action.number, action.trigger))

    def _arm(self, now: float) -> None:
        times = [t for t in (self.table.next_due(now), self._deadlines.next()) if t is not None]
        if not times:
            return
        due = min(times)
        if self._timer is not None and self._timer.call is not None:
            if self._timer.due <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        now = time.monotonic()
        for handle in self._deadlines.overdue(now):
            handle.kill("timeout" if handle.running is not None else "silent")
            if handle.running is None:
                log.warning("worker=%d function=%s killed: no sign of life", handle.id, handle.function)
        self.dispatch()

    def _post(self, handle: WorkerHandle, message: msgspec.Struct) -> None:
        if not handle.watched:
            return
        self.loop.modify(handle.channel.fileno(), READ | WRITE if handle.channel.post(message) else READ)

    # ------------------------------------------------------------------ workers

    def _start_spawner(self) -> None:
        way = self.options.worker_start
        if way == "zygote" or (way == "auto" and sys.platform == "linux"):
            zygote = ZygoteSpawner(self._environment, self.options.preload)
            zygote.wait_ready()
            self.loop.add(zygote.socket.fileno(), self._hear_zygote, priority=0)
            self._spawner = zygote
        else:
            self._spawner = DirectSpawner(self._environment)

    def reap(self) -> None:
        """After SIGCHLD: collect the wait statuses of workers that are children of the node."""
        if isinstance(self._spawner, DirectSpawner):
            self._spawner.reap(self._reported)

    def _start_worker(self, action: StartWorker, now: float) -> None:
        plan = self.functions[action.function]
        spec = WorkerSpec(
            worker=action.worker,
            handler=plan.handler,
            data_dir=str(self.folder.path),
            maps=tuple(streammap.encode(each) for each in plan.maps),
            epoch=self.epoch,
            previous_epoch_clean=self._previous_epoch_clean,
            region=self.options.region,
            account=self.options.account,
            retry_backoff_scale=self.options.retry_backoff_scale,
            timeout_s=plan.timeout_s,
            memory_mb=plan.memory_mb,
            environment=dict(plan.environment),
            plugins=self.options.plugins if self._plugins_in_workers() else (),
            init_in_invocation=action.function in self._slow_inits,
            every_batch=self.plugins.wants("batch_done"),
        )
        ours, theirs = socket.socketpair()
        handle = WorkerHandle(action.worker, action.function, spec, Channel(ours, "from_worker"), now)
        self._handles[action.worker] = handle
        self.loop.add(ours.fileno(), lambda mask: self._hear_worker(handle, mask), priority=0)
        self._post(handle, spec)
        if self._spawner is None:
            self._start_spawner()
        if self._spawner is not None:
            with theirs:
                self._spawner.start(handle, theirs, self._live_out)
        if handle.pid is not None:
            self._by_pid[handle.pid] = handle

    def _plugins_in_workers(self) -> bool:
        return self.plugins.wants("worker_started") or self.plugins.wants("around_invocation")

    def _hear_zygote(self, mask: int) -> None:
        del mask
        zygote = self._spawner
        if not isinstance(zygote, ZygoteSpawner):
            return
        received = zygote.receive()
        if received is None:
            self._zygote_gone(zygote)
            return
        for message in received:
            if isinstance(message, messages.Ended):
                self._reported(message.pid, message.status)
            elif message.worker in self._handles:
                handle = self._handles[message.worker]
                handle.pid = message.pid
                self._by_pid[message.pid] = handle
                if handle.killed:
                    handle.kill(handle.killed)

    def _zygote_gone(self, zygote: ZygoteSpawner) -> None:
        """Its workers die with it, by the kernel; nobody reports their status, so none of it counts as an attempt."""
        log.warning("the zygote is gone; a new one is started")
        self.loop.remove(zygote.socket.fileno())
        zygote.close()
        self._spawner = None
        for handle in list(self._handles.values()):
            if handle.pid is not None:
                handle.kill("zygote")
                if not wait_gone(handle.identity(), SILENCE_S):
                    log.error("worker=%d pid=%d does not end", handle.id, handle.pid)
            self._forget(handle)
            self.table.ended(handle.id, None, time.monotonic(), died=False)
        if not self.table.stopping:
            self._start_spawner()
            self.dispatch()
        self._finish_if_done()

    def _hear_worker(self, handle: WorkerHandle, mask: int) -> None:
        if mask & WRITE and not handle.channel.flush():
            self.loop.modify(handle.channel.fileno(), READ)
        if mask & READ:
            self._hear(handle)
            if handle.channel.closed:
                # Not a proof of its death: its parent's report is. Until then nothing it held is granted.
                self._unwatch(handle)
                if not handle.asked_to_stop and not handle.broken:
                    handle.kill("")

    def _hear(self, handle: WorkerHandle) -> None:
        now = time.monotonic()
        for message in handle.channel.receive(wait=False):
            if isinstance(message, messages.Returned):
                self._returned(handle, message, now)
            elif isinstance(message, messages.Running):
                handle.running = message
                handle.deadline = now + message.deadline_ms / 1000 + DEADLINE_SLACK_S
                self._started(handle, now)
                self._arm(now)
            elif isinstance(message, messages.Alive):
                handle.running = None
                handle.deadline = now + SILENCE_S
            elif isinstance(message, messages.Redriven):
                self._redriven(handle, message, now)

    def _started(self, handle: WorkerHandle, now: float) -> None:
        place = self.table.places[handle.id]
        if not place.start_s:
            place.start_s = now - handle.started_at

    def _returned(self, handle: WorkerHandle, message: messages.Returned, now: float) -> None:
        handle.running = None
        handle.deadline = None
        lease = self.table.leases.get(message.lease)
        if lease is None:
            readable_end = next_counter = 0
        else:
            writer = self.log.shard(self.functions[lease.function].maps[lease.trigger], lease.shard)
            readable_end, next_counter = writer.tail, writer.next_counter
        self.table.returned(handle.id, message, readable_end, next_counter, now)
        if message.broken:
            self._expect_end(handle, now)
        if self.drain is not None:
            self.drain.check(self.table)
        self.dispatch()

    def _redriven(self, handle: WorkerHandle, message: messages.Redriven, now: float) -> None:
        handle.running = None
        handle.deadline = None
        self.table.redriven(handle.id, now)
        if message.broken:
            self._expect_end(handle, now)
        self._answer_redrive(message.number, message.error)
        self.dispatch()

    def _expect_end(self, handle: WorkerHandle, now: float) -> None:
        """The worker ends by itself, since its import failed: it gets nothing more."""
        handle.broken = True
        handle.deadline = now + SILENCE_S
        self.table.places[handle.id].state = PlaceState.STOPPING

    def _reported(self, pid: int, status: int) -> None:
        handle = self._by_pid.get(pid)
        if handle is None:
            return
        if not handle.channel.closed:
            self._hear(handle)  # what it said before it died comes first
        now = time.monotonic()
        place = self.table.places[handle.id]
        held = place.lease
        redrive = place.redrive
        expected = (handle.asked_to_stop or handle.broken) and held is None and redrive is None
        death = None if expected else self._judge(handle, status)
        self._forget(handle)
        self.table.ended(handle.id, death, now, died=not expected and handle.killed != "stop")
        if redrive is not None:
            self._redrive_died(redrive, death)
        self.dispatch()
        self._finish_if_done()

    def _judge(self, handle: WorkerHandle, status: int) -> DeathNote | None:
        """What a death that nobody asked for counts as: an attempt, or an interruption (None)."""
        running = handle.running
        request_id = request_id_text(running.request_id) if running else ""
        if timed_out(handle, status) and running is not None:
            if running.initialising:
                # Documented: init phase. The import is run again inside the attempt, under the function's timeout.
                self._slow_inits.add(handle.function)
                return None
            error = payloads.timed_out(request_id, handle.spec.timeout_s)
            self._log_death(handle, request_id, error.message, handle.spec.timeout_s * 1_000_000, "timeout")
            return DeathNote(handle.pid or 0, running.request_id, error)
        if handle.killed:
            return None
        error = payloads.exited(request_id, status)
        self._log_death(handle, request_id, error.message, 0, "error")
        return DeathNote(handle.pid or 0, None, error)

    def _log_death(self, handle: WorkerHandle, request_id: str, text: str, duration_us: int, status: str) -> None:
        lines = f"{text}\n" + report(request_id, duration_us, handle.spec.memory_mb, 0, status=status)
        try:
            with log_path(self.folder.path, handle.function).open("a") as file:
                file.write(lines)
        except OSError as error:
            log.warning("function=%s its log cannot be written: %s", handle.function, error)

    def _forget(self, handle: WorkerHandle) -> None:
        del self._handles[handle.id]
        if handle.pid is not None:
            self._by_pid.pop(handle.pid, None)
        self._unwatch(handle)
        handle.channel.close()

    def _unwatch(self, handle: WorkerHandle) -> None:
        if handle.watched:
            handle.watched = False
            self.loop.remove(handle.channel.fileno())

    # ------------------------------------------------------------------ redrive

    def redrive(self, function: str, number: int, trigger: int, answer: Callable[[dict[str, object]], None]) -> None:
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
        interrupted = FunctionError(type="Interrupted", message="the runtime ended the worker; try again")
        self._answer_redrive(number, death.error if death else interrupted)

    def _answer_redrive(self, number: int, error: object) -> None:
        answer = self._redrive_answers.pop(number, None)
        if answer is not None:
            answer({"number": number, "error": None if error is None else msgspec.to_builtins(error)})

    # ------------------------------------------------------------------ what people are told

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        self.feed.publish(lambda: self._listener.notice(level, text))

    def _hear_live(self, mask: int) -> None:
        del mask
        for _ in range(_LIVE_PER_ROUND):
            try:
                data = self._live.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            outcome = _decode_outcome(data)
            self.feed.publish(lambda outcome=outcome: self._tell(outcome))  # type: ignore[misc]  # bound now

    def _tell(self, outcome: BatchOutcome) -> None:
        self._listener.outcome(outcome)
        self.plugins.call("batch_done", outcome=outcome)
        if outcome.result is BatchResult.PARKED:
            self.plugins.call("records_parked", parked=outcome)


_decode_outcome = msgspec.msgpack.Decoder(BatchOutcome).decode


def _live_pair() -> tuple[socket.socket, socket.socket]:
    """One lossy channel for all workers: message boundaries are kept, a full one refuses."""
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LIVE_BYTES)
    return ours, theirs


def install_signals(node: Node) -> None:
    """Signals are noted in the handler and acted on in the loop."""

    def stop(signum: int, frame: object) -> None:
        del signum, frame
        node.loop.call_soon_threadsafe(node.request_stop)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: node.loop.call_soon_threadsafe(node.reap))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
