"""A worker: the execution environment of one function. Holds lanes of one shard at a time and runs their engines.

    starting --spec--> idle --grant--> busy --return--> idle --stop--> gone
                         ^              |
                         +--job---------+     killed, crashed or timed out: gone, and the parent reports how

One thread. Payloads come straight from the log; only grants and returns cross to the node. The user's module is
imported at the first invocation, after the first intent: a module that kills its process is an attempt like any other.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.clock import SystemClock
from kflow.errors import StorageError
from kflow.runtime import messages
from kflow.runtime.lifeline import WorkerLock
from kflow.runtime.messages import Channel, WorkerSpec
from kflow.runtime.worker.engines import Engines
from kflow.runtime.worker.environments import ExecutionEnvironment
from kflow.runtime.worker.holding import Holding, refused
from kflow.runtime.worker.inbox import Inbox
from kflow.runtime.worker.invoking import Environment
from kflow.runtime.worker.live import Live
from kflow.runtime.worker.output import flush_output

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
        code = _serve(first[0], channel, live, first[1:]) if first else 0
    except SystemExit as exit_:
        code = _exit_code(exit_)
    except BaseException:  # noqa: BLE001 - the last frame of the process: said in the function's log, then it ends
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(code)


def _serve(spec: WorkerSpec, channel: Channel, live: socket.socket, waiting: list[messages.ToWorker]) -> int:
    try:
        worker = Worker(spec, channel, live, waiting)
    except (OSError, StorageError) as error:  # a full disk: another one is started later, and nothing has run yet
        sys.stderr.write(f"error: a worker of {spec.handler.name} cannot start: {error}\n")
        return 1
    try:
        return worker.serve()
    finally:
        worker.close()


def environment_for(spec: WorkerSpec, channel: Channel) -> ExecutionEnvironment:
    """What runs the function: the fast lane for handlers of the project, a process of its own for any other."""
    if spec.handler.package is None:
        return Environment(spec, channel)
    # Sockets and processes, only where there is such a function.
    from kflow.runtime.worker.hosted.environment import HostedEnvironment

    return HostedEnvironment(spec, channel)


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
        self._inbox = Inbox(channel, waiting)
        self._clock = SystemClock()
        folder = DataFolder.open(Path(spec.data_dir))
        self._lock = WorkerLock(folder.run_dir, spec.worker)
        self._parked = ParkedStore(folder.path, files=folder.files, fsync=folder.fsync)
        self._environment = environment_for(spec, channel)
        self._environment.guard([channel.fileno()])
        self._engines = Engines(spec, folder, self._parked, self._environment, self._tell_parked)
        self._live = Live(live, 0 if spec.every_batch else _SUM_MS, guarded=[live.fileno(), self._lock.fd])

    def serve(self) -> int:
        """Serve messages until told to stop, or until the node is gone."""
        while True:
            message = self._inbox.next()
            if message is None or isinstance(message, messages.Stop):
                return 0
            if isinstance(message, messages.Grant):
                self._run(message)
            elif isinstance(message, messages.Map):
                self._engines.learn(message.trigger, message.text)
            elif isinstance(message, messages.Trigger):
                self._spec = message.added_to(self._spec)
                self._environment.reads(self._spec)
                self._engines.reads(self._spec, message.index)
            elif isinstance(message, messages.Redrive):
                self._redrive(message)
            elif isinstance(message, messages.Invoke):
                self._channel.send(self._environment.call(message))
            if self._environment.broken:
                return 0

    def close(self) -> None:
        """Leave nothing behind that runs."""
        self._environment.close()

    def _run(self, grant: messages.Grant) -> None:
        try:
            shard = self._engines.shard(grant.trigger, grant.shard)
            engines = [self._engines.lane(shard, lane.lane) for lane in grant.lanes]
        except StorageError as error:
            self._channel.send(*refused(grant, str(error)))
            return
        self._environment.enter(shard.reader)
        holding = Holding(
            self._spec,
            grant,
            engines,
            environment=self._environment,
            channel=self._channel,
            inbox=self._inbox,
            live=self._live,
            clock=self._clock,
        )
        holding.run()
        self._engines.returned(shard, holds=holding.holds)

    def _tell_parked(self, number: int) -> None:
        """Something has a failure document to be sent."""
        with suppress(ConnectionError):  # the node is gone: the next one looks for what is unsent
            self._channel.send(messages.Parked(number))

    def _redrive(self, message: messages.Redrive) -> None:
        entry = self._parked.show(message.number)
        outcome = self._environment.redrive(entry, self._engines.maps[message.trigger])
        if outcome.error is None:
            self._parked.drop(message.number)
        else:
            self._parked.failed_again(message.number, outcome.error, 1)
        self._channel.send(messages.Redriven(message.number, outcome.error, self._environment.broken))


if __name__ == "__main__":
    # Started by itself where forking is not to be had: descriptors of the control and the live socket, the node's pid.
    from kflow.runtime.lifeline import die_with_parent

    control, node = socket.socket(fileno=os.dup(int(sys.argv[1]))), int(sys.argv[3])
    die_with_parent(node, control if sys.platform != "linux" else None)
    for signum in (signal.SIGINT,):
        signal.signal(signum, signal.SIG_IGN)
    main(int(sys.argv[1]), int(sys.argv[2]))
