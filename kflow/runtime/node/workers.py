"""Worker processes from the node's side: how they are started, what is known of each, how their end is learnt.

    STARTING --pid known--> LIVING --asked to stop, killed, or dead by itself--> ENDED
                                     (only when its parent has reported the wait status, or, where the parent is gone,
                                      when the process itself is gone)

Two ways to start one: forked by the zygote (Linux), or a fresh interpreter (elsewhere, or `worker_start = "spawn"`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kflow.errors import UsageError
from kflow.runtime.lifeline import Process, identify, kill_group, reap
from kflow.runtime.messages import DECODERS, Born, Channel, Ended, Running, Spawn, WorkerSpec, encode

_MESSAGE_BYTES = 65536
BURIAL_S = 5.0
"""The end of a killed worker is reported within this time, by a parent that does its work."""


@dataclass(slots=True)
class WorkerHandle:
    """What the node knows of a worker process.

    Attributes:
        deadline: monotonic time at which it is killed; None while it is idle.
        running: the invocation it announced last under the present grant.
        held: how many leases it holds, or 1 for a job.
        killed: why the node killed it: `timeout`, `memory`, `silent`, `stop`; empty where it did not.
        asked_to_stop: its end is expected.
        broken: its import failed: it ends by itself.
        dying: it was killed; `deadline` is when its parent should have reported it at the latest.
        watched: the loop listens to its channel.
    """

    id: int
    function: str
    spec: WorkerSpec
    channel: Channel
    started_at: float
    pid: int | None = None
    deadline: float | None = None
    running: Running | None = None
    held: int = 0
    killed: str = ""
    asked_to_stop: bool = False
    broken: bool = False
    dying: bool = False
    watched: bool = True

    def identity(self) -> Process | None:
        """The process, while it lives."""
        return None if self.pid is None else identify(self.pid)

    def kill(self, why: str) -> None:
        """Kill it and its process group. What its end means is decided when it is reported.

        Args:
            why: empty where it is dying already (its channel closed): its own wait status then says what happened.
        """
        self.killed = self.killed or why
        self.dying = True
        self.deadline = time.monotonic() + BURIAL_S
        if self.pid is not None:
            kill_group(self.pid)


class Spawner(Protocol):
    """A way to start workers."""

    def start(self, handle: WorkerHandle, control: socket.socket, live: socket.socket) -> None:
        """Start a worker; both sockets are its own from now on (the caller closes its copies)."""
        ...

    def close(self) -> None:
        """End what the spawner itself keeps running. Called when no worker is left, or when all may die."""
        ...


Reported = Callable[[int, int], None]
"""Called with a worker's pid and its wait status."""


class DirectSpawner:
    """Each worker is a fresh interpreter and a child of the node."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, handle: WorkerHandle, control: socket.socket, live: socket.socket) -> None:
        """Start an interpreter that runs `kflow.runtime.worker.process`."""
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "kflow.runtime.worker.process",
                str(control.fileno()),
                str(live.fileno()),
                str(os.getpid()),
            ],
            pass_fds=[control.fileno(), live.fileno()],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            process_group=0,  # a Ctrl-C in the terminal is the node's
        )
        self._children[child.pid] = child
        handle.pid = child.pid

    def reap(self, reported: Reported) -> None:
        """After SIGCHLD: report every child that has ended."""
        for pid in list(self._children):
            ended = reap(pid)
            if ended is not None:
                child = self._children.pop(pid)
                child.returncode = os.waitstatus_to_exitcode(ended[1])
                reported(*ended)

    def close(self) -> None:
        """Nothing of its own runs."""


class ZygoteSpawner:
    """Workers are forked by the zygote, which is a child of the node.

    Attributes:
        is_ready: it has imported what it preloads. Before that, what it is asked for waits in its socket.
    """

    def __init__(self, environment: Mapping[str, str], preload: Sequence[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kflow.runtime.node.zygote", str(theirs.fileno()), str(os.getpid()), *preload],
                pass_fds=[theirs.fileno()],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                process_group=0,  # a Ctrl-C in the terminal is the node's
            )
        self.pid = self._process.pid

    def wait_ready(self) -> None:
        """Wait until it has imported what it preloads.

        Raises:
            UsageError: it ended instead; its own words are on standard error.
        """
        if not self.socket.recv(_MESSAGE_BYTES):
            raise UsageError(
                f"the process that workers are forked from ended with exit status {self._process.wait()}, for what is "
                'said above; look at the setting `preload`, or set worker_start = "spawn"'
            )
        self.is_ready = True

    def start(self, handle: WorkerHandle, control: socket.socket, live: socket.socket) -> None:
        """Ask for a fork; the pid follows as a message."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the loop is about to hear that it is gone
            socket.send_fds(self.socket, [encode(Spawn(handle.id))], [control.fileno(), live.fileno()])

    def receive(self) -> list[Born | Ended] | None:
        """Messages that have arrived; None when the zygote is gone."""
        messages: list[Born | Ended] = []
        while True:
            try:
                data = self.socket.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                data = b""
            if not data:
                return messages or None
            self.is_ready = True  # it says that before anything else
            messages.append(DECODERS["from_zygote"].decode(data))

    def kill(self) -> None:
        """End it at once: it does not do its work. Its socket says so when it is gone."""
        self._process.kill()

    def close(self) -> None:
        """End it. Workers that still live are killed by the kernel with it."""
        if not self.is_ready:
            self._process.kill()  # it looks at its socket only once it has imported everything
        self.socket.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def gone(process: Process | None) -> bool:
    """Whether a process that was identified before is certainly no more."""
    return process is None or identify(process.pid) != process


def wait_gone(process: Process | None, patience_s: float) -> bool:
    """Wait until a process whose parent cannot report it any more is no more."""
    deadline = time.monotonic() + patience_s
    while not gone(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def timed_out(handle: WorkerHandle, status: int) -> bool:
    """Whether a death was a timeout: by the worker's own timer, or by the node's deadline."""
    by_timer = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return by_timer or handle.killed == "timeout"
