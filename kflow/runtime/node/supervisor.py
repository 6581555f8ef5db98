"""Worker processes: started, listened to, timed, and judged when they die. Decides nothing about leases.

Whoever plans (the node) is told four things: a worker runs, returned its lease, finished a redrive, or has ended.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from kflow.errors import UsageError
from kflow.lambda_ import payloads
from kflow.runtime import messages
from kflow.runtime.lifeline import lock_path
from kflow.runtime.loop import READ, WRITE, Loop, Timer
from kflow.runtime.messages import Channel, DeathNote, WorkerSpec
from kflow.runtime.node.workers import BURIAL_S, DirectSpawner, WorkerHandle, ZygoteSpawner, timed_out, wait_gone
from kflow.runtime.worker.logfiles import log_path
from kflow.runtime.worker.memory import usage
from kflow.runtime.worker.output import report, request_id_text

log = logging.getLogger(__name__)

SILENCE_S = 10.0
"""A grant without a sign of life for this long gets its worker killed: an interruption, never an attempt."""
DEADLINE_SLACK_S = 0.5
"""The worker's own timer is the fast path; the node's deadline comes this much later."""
MEMORY_LOOK_S = 1.0
"""While something runs, the memory of the workers is looked at this often."""


class Reports(Protocol):
    """What the supervisor tells. All from the loop's thread."""

    def running(self, handle: WorkerHandle, message: messages.Running, now: float) -> None:
        """An invocation, or the import, begins."""
        ...

    def returned(self, handle: WorkerHandle, message: messages.Returned, now: float) -> None:
        """A lease is given back."""
        ...

    def held(self, handle: WorkerHandle, message: messages.Alive) -> None:
        """The worker holds an outcome that the storage refuses; told again and again until it is written."""
        ...

    def redriven(self, handle: WorkerHandle, message: messages.Redriven, now: float) -> None:
        """A parked entry was sent to its function again."""
        ...

    def invoked(self, handle: WorkerHandle, message: messages.Invoked, now: float) -> None:
        """An invocation has come to its end."""
        ...

    def was_parked(self, number: int) -> None:
        """Records were parked, and have a destination."""
        ...

    def heard(self, now: float) -> None:
        """All that a worker had said by now has been told: time to plan."""
        ...

    def over_memory(self, handle: WorkerHandle, used_mb: int) -> None:
        """A worker is killed for what its function holds beyond its memory."""
        ...

    def no_zygote(self) -> None:
        """What workers are forked from ended before it could fork any; its own words are on standard error."""
        ...

    def ended(self, gone: Sequence[WorkerHandle], death: DeathNote | None, now: float, *, died: bool) -> None:
        """Processes are gone for certain: all that are by now, or what is planned next would count on the others.

        Args:
            gone: which; one, or all that ended with the zygote.
            death: how, where that counts as an attempt.
            now: monotonic seconds.
            died: whether they ended otherwise than they were asked to.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """How workers are started."""

    worker_start: str
    preload: tuple[str, ...]
    environment: Mapping[str, str]
    data_dir: Path
    run_dir: Path


class Supervisor:
    """The workers of one node."""

    def __init__(self, loop: Loop, options: SupervisorOptions, live: socket.socket, reports: Reports) -> None:
        self.handles: dict[int, WorkerHandle] = {}
        self.slow_inits: set[str] = set()
        """Functions whose import took too long by itself: it runs inside the invocation from then on."""
        self._loop = loop
        self._options = options
        self._live = live
        self._reports = reports
        self._by_pid: dict[int, WorkerHandle] = {}
        self._spawner: ZygoteSpawner | DirectSpawner | None = None
        self._memory_timer: Timer | None = None
        self._is_given_up = False

    # ------------------------------------------------------------------ what the node asks for

    def check(self) -> None:
        """Look whether workers can be started as it is asked for.

        Raises:
            UsageError: not on this platform.
        """
        if self._options.worker_start == "zygote" and sys.platform != "linux":
            raise UsageError('worker_start = "zygote" needs Linux: use "auto" or "spawn"')

    def start(self, *, wait: bool = True) -> None:
        """Start what starts workers, where that has not been: a function that waits for a place may have been first.

        Args:
            wait: until it can. Without, what is asked of it meanwhile waits in its socket.

        Raises:
            UsageError: it cannot.
        """
        self.check()
        way = self._options.worker_start
        spawner = self._spawner
        if spawner is None and (way == "zygote" or (way == "auto" and sys.platform == "linux")):
            self._spawner = spawner = ZygoteSpawner(self._options.environment, self._options.preload)
            self._loop.add(spawner.socket.fileno(), self._hear_zygote, priority=0)
        elif spawner is None:
            self._spawner = DirectSpawner(self._options.environment)
        if wait and isinstance(spawner, ZygoteSpawner) and not spawner.is_ready:
            spawner.wait_ready()

    def start_worker(self, spec: WorkerSpec, now: float) -> None:
        """Start a worker. Messages may be sent to it at once."""
        ours, theirs = socket.socketpair()
        handle = WorkerHandle(spec.worker, spec.handler.name, spec, Channel(ours, "from_worker"), now)
        self.handles[handle.id] = handle
        self._loop.add(ours.fileno(), lambda mask: self._hear_worker(handle, mask), priority=0)
        self.send(handle, spec)
        if self._spawner is None:
            self.start(wait=False)
        with theirs:
            if self._spawner is not None:
                self._spawner.start(handle, theirs, self._live)
        if handle.pid is not None:
            self._by_pid[handle.pid] = handle

    def send(self, handle: WorkerHandle, message: msgspec.Struct) -> None:
        """Send a message; never waits."""
        if handle.watched:
            self._loop.modify(handle.channel.fileno(), READ | WRITE if handle.channel.post(message) else READ)

    def stop_worker(self, handle: WorkerHandle, now: float) -> None:
        """Ask an idle worker to end."""
        handle.asked_to_stop = True
        handle.deadline = now + SILENCE_S
        self.send(handle, messages.Stop())

    def kill_all(self) -> None:
        """End all at once: interruptions, no attempts."""
        for handle in self.handles.values():
            handle.kill("stop")

    def stop_starting(self) -> None:
        """Do not wait for what workers are forked from where it is not ready yet: none of them has run anything."""
        if isinstance(self._spawner, ZygoteSpawner) and not self._spawner.is_ready:
            self._is_given_up = True
            self._spawner.kill()

    def next_deadline(self) -> float | None:
        """The earliest moment at which a worker is overdue."""
        return min((h.deadline for h in self.handles.values() if h.deadline is not None), default=None)

    def kill_overdue(self, now: float) -> None:
        """Kill the workers that are past their deadline."""
        for handle in self.handles.values():
            if handle.deadline is None or handle.deadline > now:
                continue
            if handle.dying:
                self._unreported(handle, now)
            else:
                if handle.running is None:
                    log.warning("worker=%d function=%s killed: no sign of life", handle.id, handle.function)
                handle.kill("silent" if handle.running is None else "timeout")

    def _unreported(self, handle: WorkerHandle, now: float) -> None:
        """A worker was killed, or never came to be, and nobody says so: its parent is stopped, or hangs."""
        handle.deadline = now + BURIAL_S
        if isinstance(self._spawner, ZygoteSpawner):
            log.warning("the zygote does not answer, and is ended")
            self._spawner.kill()
        else:
            log.warning("worker=%d function=%s pid=%s does not end", handle.id, handle.function, handle.pid)

    def _look_at_memory(self) -> None:
        """Kill the workers whose function holds more than its memory; again in a second, as long as something runs."""
        self._memory_timer = None
        for handle in list(self.handles.values()):  # what is planned meanwhile may start others
            running = handle.running
            if running is None or not running.base_kb or handle.pid is None or handle.killed:
                continue
            found = usage(handle.pid)
            used_kb = 0 if found is None else found.private_kb - running.base_kb
            if used_kb > handle.spec.memory_mb * 1024:
                self._reports.over_memory(handle, used_kb // 1024)
                handle.kill("memory")
                self._reports.heard(time.monotonic())
        self._watch_memory()

    def _watch_memory(self) -> None:
        if self._memory_timer is None and any(handle.running is not None for handle in self.handles.values()):
            self._memory_timer = self._loop.call_later(MEMORY_LOOK_S, self._look_at_memory)

    def reap(self) -> None:
        """After SIGCHLD: collect the wait statuses of workers that are children of the node."""
        if isinstance(self._spawner, DirectSpawner):
            self._spawner.reap(self._reported)

    def close(self) -> None:
        """End the zygote, and with it whatever worker is left."""
        if isinstance(self._spawner, ZygoteSpawner):
            self._loop.remove(self._spawner.socket.fileno())
        if self._spawner is not None:
            self._spawner.close()
            self._spawner = None

    # ------------------------------------------------------------------ what is heard

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
            elif message.worker in self.handles:
                handle = self.handles[message.worker]
                handle.pid = message.pid
                self._by_pid[message.pid] = handle
                if handle.dying:
                    handle.kill(handle.killed)

    def _zygote_gone(self, zygote: ZygoteSpawner) -> None:
        """Its workers die with it, by the kernel; nobody reports their status, so none of it counts as an attempt."""
        if zygote.is_ready:
            log.warning("the zygote is gone")
        elif not self._is_given_up:
            self._reports.no_zygote()
        self._loop.remove(zygote.socket.fileno())
        zygote.close()
        self._spawner = None
        gone = list(self.handles.values())
        for handle in gone:
            if handle.pid is not None:
                handle.kill("zygote")
                if not wait_gone(handle.identity(), SILENCE_S):
                    log.error("worker=%d pid=%d does not end", handle.id, handle.pid)
            self._forget(handle)
        # The next worker brings a new zygote; one that cannot even begin is not tried in a circle.
        self._reports.ended(gone, None, time.monotonic(), died=not zygote.is_ready)

    def _hear_worker(self, handle: WorkerHandle, mask: int) -> None:
        if mask & WRITE and not handle.channel.flush():
            self._loop.modify(handle.channel.fileno(), READ)
        if mask & READ:
            self._hear(handle)
            if handle.channel.closed:
                # Not a proof of its death: its parent's report is. Until then nothing it held is granted.
                self._unwatch(handle)
                if not handle.asked_to_stop and not handle.broken:
                    handle.kill("")
                    self._reports.heard(time.monotonic())

    def _hear(self, handle: WorkerHandle) -> None:
        now = time.monotonic()
        heard = handle.channel.receive(wait=False)
        for message in heard:
            if isinstance(message, messages.Returned):
                self._freed(handle, now, broken=message.broken)
                self._reports.returned(handle, message, now)
            elif isinstance(message, messages.Running):
                handle.running = message
                handle.deadline = now + message.deadline_ms / 1000 + DEADLINE_SLACK_S
                self._reports.running(handle, message, now)
                if self._memory_timer is None:
                    self._watch_memory()
            elif isinstance(message, messages.Alive):
                handle.running = None
                handle.deadline = now + SILENCE_S
                if message.detail:
                    self._reports.held(handle, message)
            elif isinstance(message, messages.Redriven):
                self._freed(handle, now, broken=message.broken)
                self._reports.redriven(handle, message, now)
            elif isinstance(message, messages.Invoked):
                self._freed(handle, now, broken=message.broken)
                self._reports.invoked(handle, message, now)
            elif isinstance(message, messages.Parked):
                self._reports.was_parked(message.number)
        if handle.dying and handle.deadline is None:
            handle.deadline = now + BURIAL_S
        if heard:
            self._reports.heard(now)

    def _freed(self, handle: WorkerHandle, now: float, *, broken: bool) -> None:
        """It has given one of the things back that it held; with the last one, or broken, it has nothing to run."""
        handle.running = None
        handle.held -= 1
        handle.broken = handle.broken or broken  # a broken environment ends by itself
        handle.deadline = now + SILENCE_S if handle.held or handle.broken else None

    # ------------------------------------------------------------------ death

    def _reported(self, pid: int, status: int) -> None:
        handle = self._by_pid.get(pid)
        if handle is None:
            return
        if handle.watched:
            self._hear(handle)  # what it said before it died comes first
        expected = (handle.asked_to_stop or handle.broken) and handle.running is None
        death = None if expected else self._judge(handle, status)
        self._forget(handle)
        self._reports.ended([handle], death, time.monotonic(), died=not expected and handle.killed != "stop")

    def _judge(self, handle: WorkerHandle, status: int) -> DeathNote | None:
        """What a death that nobody asked for counts as: an attempt, or an interruption (None)."""
        running = handle.running
        request_id = request_id_text(running.request_id) if running else ""
        if timed_out(handle, status) and running is not None:
            if running.initialising:
                # Documented: init phase. The import is run again inside the attempt, under the function's timeout.
                self.slow_inits.add(handle.function)
                return None
            error = payloads.timed_out(request_id, handle.spec.timeout_s)
            self._log_death(handle, request_id, error.message, handle.spec.timeout_s * 1_000_000, "timeout")
            return DeathNote(handle.pid or 0, running.request_id, error)
        if running is None:
            log.warning(
                "a worker of %s ended (%s) with no handler running; `kflow logs %s` may say why",
                handle.function,
                payloads.exited("", status).message.partition("Error: ")[2],
                handle.function,
            )
        if handle.killed == "memory" and running is not None:
            error = payloads.exited(request_id, status)
            self._log_death(handle, request_id, error.message, 0, "error", handle.spec.memory_mb)
            return DeathNote(handle.pid or 0, running.request_id, error)
        if handle.killed or handle.spec.handler.package is not None:
            # Of a function in a runtime process only that process's end is an attempt, and its worker tells it.
            return None
        error = payloads.exited(request_id, status)
        self._log_death(handle, request_id, error.message, 0, "error")
        return DeathNote(handle.pid or 0, None, error)

    def _log_death(
        self, handle: WorkerHandle, request_id: str, text: str, duration_us: int, status: str, used_mb: int = 0
    ) -> None:
        lines = f"{text}\n" + report(request_id, duration_us, handle.spec.memory_mb, used_mb, status=status)
        try:
            with log_path(self._options.data_dir, handle.function).open("a") as file:
                file.write(lines)
        except OSError as error:
            log.warning("function=%s its log cannot be written: %s", handle.function, error)

    def _forget(self, handle: WorkerHandle) -> None:
        del self.handles[handle.id]
        if handle.pid is not None:
            self._by_pid.pop(handle.pid, None)
        self._unwatch(handle)
        handle.channel.close()
        lock_path(self._options.run_dir, handle.id).unlink(missing_ok=True)  # nobody holds it any more

    def _unwatch(self, handle: WorkerHandle) -> None:
        if handle.watched:
            handle.watched = False
            self._loop.remove(handle.channel.fileno())
