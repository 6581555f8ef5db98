"""A runtime process: started with an environment of its own, watched, killed with all that it started.

worker ──fork, exec──> runtime       leads a process group; the kernel kills it when the worker ends (Linux)
   └────────pipe────> guard          a shell that waits for the worker's end, then kills the group, and removes the
                                     folder for temporary files: so nothing is left behind, whoever is killed first
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from kflow.runtime.lifeline import kill_group, reap
from kflow.runtime.worker.memory import usage

_GUARD: Final = 'p=; while read -r n; do p=$n; done; [ -n "$p" ] && kill -s KILL -- "-$p" 2>/dev/null; rm -rf -- "$1"'
_PR_SET_PDEATHSIG: Final = 1
_GONE_MS: Final = 300
"""How long a killed process is waited for: less than the node's patience with an invocation that is over its time."""
_LOOK_S: Final = 0.005
_FAR_BYTES: Final = 1 << 30


class Guard:
    """Ends what the worker's runtime process started, once the worker is gone. One for each worker."""

    def __init__(self, temporary: Path) -> None:
        """Start it.

        Args:
            temporary: the folder to remove in the end.
        """
        reading, self._fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "kflow-guard", os.fspath(temporary)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        finally:
            os.close(reading)

    def watch(self, pid: int | None) -> None:
        """From here on this process group is the one to end; None: there is none, and its number may be another's."""
        # A guard that somebody killed is no reason to fail: the kernel still ends the process itself.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, b"\n" if pid is None else b"%d\n" % pid)

    def close(self) -> None:
        """End it, and what it watches, and wait."""
        os.close(self._fd)
        self._process.wait()


class Process:
    """One runtime process.

    Attributes:
        pid: of the process, and of its group.
        output: where what it writes can be read.
        fd: readable once it has ended; -1 where the system has no such descriptor, and `poll` must be asked.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str,
        guard: Guard,
        memory_mb: int,
        frames: bool,
    ) -> None:
        """Start it.

        Args:
            arguments: the command.
            environment: all of its variables.
            folder: where it runs.
            guard: of the worker.
            memory_mb: of the function; the kernel stops it far above, between two looks at it.
            frames: whether it knows a descriptor for frames of its log.

        Raises:
            OSError: it cannot be started.
        """
        self.output, writing = os.pipe()
        variables = dict(environment)
        extra = -1
        if frames:
            extra = os.dup(writing)
            variables["_LAMBDA_TELEMETRY_LOG_FD"] = str(extra)
        try:
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=folder,
                env=variables,
                pass_fds=(extra,) if frames else (),
                start_new_session=True,
                preexec_fn=_child(memory_mb),  # noqa: PLW1509 - a worker has one thread
            )
        except OSError:
            os.close(self.output)
            raise
        finally:
            os.close(writing)
            if frames:
                os.close(extra)
        self.pid = self._popen.pid
        self._guard = guard
        guard.watch(self.pid)
        os.set_blocking(self.output, False)
        self.fd = _pidfd(self.pid)
        self._status: int | None = None
        self._closed = False

    def poll(self) -> int | None:
        """Its wait status, once it has ended, and all that it had started with it; None while it runs."""
        if self._status is None:
            ended = reap(self.pid)
            if ended is not None:
                self._status = ended[1]
                self._popen.returncode = os.waitstatus_to_exitcode(ended[1])
        return self._status

    def kill(self) -> None:
        """Kill it and its group, and what left that group, and wait until it is gone, but not for ever."""
        if self.poll() is not None:
            return
        family = _family(self.pid)[1:]
        kill_group(self.pid)
        for each in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        deadline = time.monotonic() + _GONE_MS / 1000
        while self.poll() is None and (left := deadline - time.monotonic()) > 0:
            select.select([self.fd] if self.fd >= 0 else [], [], [], left if self.fd >= 0 else _LOOK_S)

    def read(self) -> bytes:
        """What it has written and nobody has read; empty where there is nothing."""
        try:
            return os.read(self.output, 65536)
        except BlockingIOError:
            return b""

    def memory_kb(self) -> tuple[int, int]:
        """What it and what it started holds: for itself, and in all, KiB; zeros where the system does not say."""
        found = [each for each in map(usage, _family(self.pid)) if each is not None]
        return sum(each.private_kb for each in found), sum(each.resident_kb for each in found)

    def close(self) -> None:
        """Kill what is left of it, and close its descriptors."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        self._guard.watch(None)
        os.close(self.output)
        if self.fd >= 0:
            os.close(self.fd)


def _family(pid: int) -> list[int]:
    """A process and its descendants, as far as the system says."""
    found = [pid]
    for each in found:
        try:
            text = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        found += map(int, text.split())
    return found


def _pidfd(pid: int) -> int:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1


def _child(memory_mb: int) -> Callable[[], None]:
    """What the child does before it becomes the runtime."""
    worker = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    limit = 2 * (memory_mb << 20) + _FAR_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != worker:
                os._exit(1)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        for signum in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)

    return prepare
