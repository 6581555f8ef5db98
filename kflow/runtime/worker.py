"""A worker: the execution environment of one function. Holds one lease at a time and runs the engine of it.

    starting --spec--> idle --grant--> busy --return--> idle --stop--> gone
                         ^              |
                         +--redrive-----+     killed, crashed or timed out: gone, and the parent reports how

One thread. Payloads come straight from the log; only grants and returns cross to the node. The user's module is
imported at the first invocation, after the first intent: a module that kills its process is an attempt like any other.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from kflow.broker import streammap
from kflow.broker.checkpoints import SlotFile
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.clock import SystemClock
from kflow.interfaces import BatchOutcome, BatchResult
from kflow.lambda_.mapping import Death, EventSourceMapping, StepKind
from kflow.lambda_.mapping import Grant as EngineGrant
from kflow.runtime import messages
from kflow.runtime.invoking import Environment, check_descriptors, identities
from kflow.runtime.lifeline import WorkerLock
from kflow.runtime.messages import Channel, WorkerSpec

_LOOK_MS = 5
"""Between batches a worker looks for a message at most this often: a look is a system call."""
_SIGN_MS = 2_000
"""A sign of life between invocations at least this often: parking thousands of records one by one takes its time."""
_SUM_MS = 100
"""Successes within this time are told as one."""


def main(control_fd: int, live_fd: int) -> NoReturn:
    """Run a worker until its node stops it or is gone, and end the process.

    It ends here, while the channel is still open: a channel that closes before the process has its exit status would
    make the node kill it, and the status would be lost.
    """
    os.setpgid(0, 0)
    channel = Channel(socket.socket(fileno=control_fd), "to_worker")
    live = socket.socket(fileno=live_fd)
    code = 1
    try:
        first = channel.receive(wait=True)
        code = Worker(first[0], channel, live, first[1:]).serve() if first else 0
    except SystemExit as exit_:
        code = _exit_code(exit_)
    except BaseException:  # noqa: BLE001 - the last frame of the process: said in the function's log, then it ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _exit_code(exit_: SystemExit) -> int:
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    sys.stderr.write(f"{exit_.code}\n")
    return 1


class Worker:
    """The worker's loop and what it holds."""

    def __init__(
        self, spec: WorkerSpec, channel: Channel, live: socket.socket, waiting: list[messages.ToWorker]
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._waiting: deque[messages.ToWorker] = deque(waiting)
        self._clock = SystemClock()
        self._folder = DataFolder.open(Path(spec.data_dir))
        self._lock = WorkerLock(self._folder.run_dir, spec.worker)
        self._parked = ParkedStore(self._folder.path, files=self._folder.files, fsync=self._folder.fsync)
        self._maps = tuple(streammap.decode(text) for text in spec.maps)
        self._slots: dict[int, SlotFile] = {}
        self._mappings: dict[tuple[int, int], tuple[EventSourceMapping, ShardReader]] = {}
        self._environment = Environment(spec, channel)
        self._environment.guard([channel.fileno()])
        self._live = Live(live, 0 if spec.every_batch else _SUM_MS, guarded=[live.fileno(), self._lock.fd])

    def serve(self) -> int:
        """Serve messages until told to stop, or until the node is gone."""
        while True:
            message = self._next()
            if message is None or isinstance(message, messages.Stop):
                return 0
            if isinstance(message, messages.Grant):
                self._run(message)
            elif isinstance(message, messages.Redrive):
                self._redrive(message)
            if self._environment.broken:
                return 0

    # ------------------------------------------------------------------ a lease

    def _run(self, grant: messages.Grant) -> None:
        mapping, reader = self._mapping(grant)
        environment = self._environment
        environment.enter(grant.generation, reader)
        death = grant.death
        mapping.resume(
            EngineGrant(
                epoch=self._spec.epoch,
                worker_pid=os.getpid(),
                since_completion_ms=grant.since_completion_ms,
                death=None if death is None else Death(death.worker_pid, death.request_id, death.error),
                window_over=grant.window_over,
                window_due=grant.window_due,
                alone=grant.alone,
                previous_epoch_clean=self._spec.previous_epoch_clean,
                last_error=grant.last_error,
            )
        )
        settled = False
        signed = self._clock.now().monotonic_ms
        look = signed + _LOOK_MS
        while True:
            now = self._clock.now()
            if now.monotonic_ms - signed > _SIGN_MS:
                signed = now.monotonic_ms
                self._channel.send(messages.Alive(grant.generation))
            step = mapping.step(now)
            for outcome in step.outcomes:
                self._live.tell(outcome, now.monotonic_ms)
                settled = settled or outcome.succeeded > 0 or outcome.result is not BatchResult.FAILED
            reason, due = step.reason, step.due_in_ms
            if step.kind is StepKind.AGAIN and not environment.broken:
                if now.monotonic_ms < look or not self._retired(grant.generation):
                    look = look if now.monotonic_ms < look else now.monotonic_ms + _LOOK_MS
                    continue
                reason, due = "retired", None
            elif step.kind is StepKind.HOLD:
                self._channel.send(messages.Alive(grant.generation, step.detail))
                select.select([self._channel], [], [], (due or 0) / 1000)
                self._retired(grant.generation)  # takes in what came: else the next wait would end at once
                if self._channel.closed:
                    return
                signed = now.monotonic_ms
                continue
            elif step.kind is StepKind.IDLE:
                reason, due = "idle", None
            elif step.kind is StepKind.AGAIN:
                reason, due = "retired", None
            break
        self._live.flush()
        self._channel.send(
            messages.Returned(
                lease=grant.lease,
                generation=grant.generation,
                reason=reason,
                due_ms=due,
                read_offset=step.read_offset,
                want_counter=step.want_counter,
                settled=settled,
                broken=environment.broken,
                last_error=mapping.last_error,
                detail=step.detail,
                dropped=self._live.take_dropped(),
            )
        )

    def _mapping(self, grant: messages.Grant) -> tuple[EventSourceMapping, ShardReader]:
        key = (grant.trigger, grant.shard)
        found = self._mappings.get(key)
        if found is not None:
            return found
        spec = self._spec
        stream = self._maps[grant.trigger]
        trigger = spec.handler.triggers[grant.trigger]
        slots = self._slots.get(grant.trigger)
        if slots is None:
            slots = SlotFile.open(
                self._folder.path, spec.handler.name, stream.id, stream=stream.name, files=self._folder.files
            )
            self._slots[grant.trigger] = slots
            self._environment.guard([fd for fd, _, _ in slots.fds()])
        reader = ShardReader(self._folder, stream, grant.shard)
        mapping = EventSourceMapping(
            options=trigger.options,
            function=spec.handler.name,
            stream=stream.name,
            stream_id=stream.id,
            shard=grant.shard,
            source=reader,
            slots=slots,
            invoker=self._environment,
            parking=self._parked,
            shape=self._environment.shape(stream, grant.shard),
            retry_backoff_scale=spec.retry_backoff_scale,
        )
        self._mappings[key] = (mapping, reader)
        return mapping, reader

    def _retired(self, generation: int) -> bool:
        for message in self._channel.receive(wait=False):
            self._waiting.append(message)
        if self._channel.closed:
            return True
        return any(isinstance(m, messages.Retire) and m.generation == generation for m in self._waiting)

    # ------------------------------------------------------------------ a redrive

    def _redrive(self, message: messages.Redrive) -> None:
        entry = self._parked.show(message.number)
        outcome = self._environment.redrive(entry, self._maps[message.trigger])
        if outcome.error is None:
            self._parked.drop(message.number)
        else:
            self._parked.failed_again(message.number, outcome.error, 1)
        self._channel.send(messages.Redriven(message.number, outcome.error, self._environment.broken))

    # ------------------------------------------------------------------ messages

    def _next(self) -> messages.ToWorker | None:
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                if not isinstance(message, messages.Retire):  # of a lease that has been returned since
                    return message
            received = self._channel.receive(wait=True)
            if not received:
                return None
            self._waiting.extend(received)


class Live:
    """Outcomes for people, over a socket that may lose them: the node is never waited for."""

    def __init__(self, sock: socket.socket, sum_ms: int, *, guarded: Iterable[int] = ()) -> None:
        """Tell over a socket.

        Args:
            sock: where to.
            sum_ms: successes within this time are told as one; 0 tells of each.
            guarded: descriptors that user code must not have touched; looked at before each message, which is less
                often than after each batch.
        """
        self._socket = sock
        self._guarded = identities(guarded)
        self._sum_ms = sum_ms
        self._sum: BatchOutcome | None = None
        self._since = 0
        self._dropped = 0

    def tell(self, outcome: BatchOutcome, now_ms: int) -> None:
        """Tell of an outcome, or add it to a sum of successes that is told soon."""
        if outcome.result is not BatchResult.OK or outcome.attempt > 1:
            self.flush()
            self._send(outcome)
            return
        total = self._sum
        if total is not None and (total.shard_id, total.stream) == (outcome.shard_id, outcome.stream):
            self._sum = add(total, outcome)
        else:
            self.flush()
            self._sum, self._since = outcome, now_ms
        if now_ms - self._since >= self._sum_ms:
            self.flush()

    def flush(self) -> None:
        """Send the sum."""
        if self._sum is not None:
            self._send(self._sum)
            self._sum = None

    def take_dropped(self) -> int:
        """How many were lost since this was asked last."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _send(self, outcome: BatchOutcome) -> None:
        check_descriptors(self._guarded)
        try:
            self._socket.send(messages.encode(outcome), socket.MSG_DONTWAIT)
        except OSError:  # full, or the node is gone: the slot holds what matters
            self._dropped += 1


def add(first: BatchOutcome, second: BatchOutcome) -> BatchOutcome:
    """Two successes of one shard as one."""
    return BatchOutcome(
        function=first.function,
        stream=first.stream,
        shard_id=first.shard_id,
        records=first.records + second.records,
        succeeded=first.succeeded + second.succeeded,
        result=BatchResult.OK,
        duration_us=first.duration_us + second.duration_us,
        attempts_allowed=first.attempts_allowed,
        batches=first.batches + second.batches,
    )


if __name__ == "__main__":
    # Started by itself where forking is not to be had: descriptors of the control and the live socket, the node's pid.
    from kflow.runtime.lifeline import die_with_parent

    control, node = socket.socket(fileno=os.dup(int(sys.argv[1]))), int(sys.argv[3])
    die_with_parent(node, control if sys.platform != "linux" else None)
    for signum in (signal.SIGINT,):
        signal.signal(signum, signal.SIG_IGN)
    main(int(sys.argv[1]), int(sys.argv[2]))
