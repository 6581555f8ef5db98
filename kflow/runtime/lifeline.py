"""How processes of the tree know of each other's death, also across a kill -9.

Downwards: a child dies with its parent (Linux: the kernel sends SIGKILL; elsewhere a thread waits for the end of a
socket). Sideways: a worker's lock file in `run/` says which process it is (pid and start time), so that the next node
can tell a survivor from a stranger that got the same pid, and end it before it grants the lease anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from kflow.errors import StorageError

_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 10.0


def die_with_parent(parent: int, lifeline: socket.socket | None = None) -> None:
    """Make the kernel kill this process when `parent` ends; ends it now if that has happened already.

    Args:
        parent: pid of the process that made this one, read before the fork.
        lifeline: elsewhere than on Linux: a socket whose other end only the parent's side holds.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    elif lifeline is not None:
        threading.Thread(target=_watch, args=(lifeline,), daemon=True, name="kflow-lifeline").start()


def _watch(lifeline: socket.socket) -> None:
    poll = select.poll()
    poll.register(lifeline, 0)  # asks for nothing: returns only when the other side is gone, and reads nothing
    poll.poll()
    os._exit(1)


class Process(NamedTuple):
    """One process for sure: a pid alone may have been given to another since."""

    pid: int
    started: str


def identify(pid: int) -> Process | None:
    """The process that has this pid now; None where there is none, or only a zombie, or none can be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None if sys.platform == "linux" or not _alive(pid) else Process(pid, "")
    return None if fields[0] in "ZX" else Process(pid, fields[19])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lock_path(run_dir: Path, worker: int) -> Path:
    """The lock file of a worker."""
    return run_dir / f"worker-{worker}.lock"


class WorkerLock:
    """The lock file of a worker: held for its life, freed by the kernel, never handed to a child."""

    def __init__(self, run_dir: Path, worker: int) -> None:
        self.path = lock_path(run_dir, worker)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        me = identify(os.getpid())
        os.ftruncate(self.fd, 0)
        started = (me.started if me else "") or "-"
        os.pwrite(self.fd, f"{os.getpid()} {started} {_identity(self.fd)}\n".encode(), 0)


def _identity(fd: int) -> str:
    """Which file this is: a copy of a lock file names a process of the folder that it was copied from."""
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


def end_survivors(run_dir: Path) -> int:
    """End the workers of a node that is gone, and wait until they are. Returns how many there were.

    Raises:
        StorageError: one does not go.
    """
    found = 0
    for path in sorted(run_dir.glob("worker-*.lock")):
        if _end(path):
            found += 1
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return found


def _end(path: Path) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        words = os.pread(fd, 200, 0).decode("ascii", "replace").split()
        if len(words) > 2 and words[2] != _identity(fd):
            return False
        started = words[1] if len(words) > 1 and words[1] != "-" else ""
        named = Process(int(words[0]), started) if words and words[0].isdigit() else None
        survived = False
        while True:
            alive = named is not None and identify(named.pid) == named
            if not alive and _free(fd):
                return survived
            survived = True
            # Where it is gone, what it forked may hold the lock: until that ends too, nobody else gets its number.
            if named is not None and (alive or identify(named.pid) is None):
                kill_group(named.pid)
            if time.monotonic() >= deadline:
                who = f"process {named.pid}" if named else "a process this one cannot see"
                raise StorageError(f"{path}: {who} still holds this lock of an older runtime; end it, then start again")
            time.sleep(0.01)
    finally:
        os.close(fd)


def _free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def reap(child: int | None = None) -> tuple[int, int] | None:
    """Collect a child that has ended, and kill what it left running in its process group.

    Args:
        child: its pid; any child where it is not given.

    Returns:
        Its pid and its wait status; None where none has ended.

    Raises:
        ChildProcessError: there is no child.
    """
    if sys.platform != "linux":
        pid, status = os.waitpid(-1 if child is None else child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        return (pid, status) if pid else None
    else:  # noqa: RET505  # a type checker takes one platform's branch only
        which = (os.P_ALL, 0) if child is None else (os.P_PID, child)
        ended = os.waitid(*which, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        kill_group(ended.si_pid)  # before it is collected: until then no other group can have its number
        return os.waitpid(ended.si_pid, 0)


def kill_group(pid: int) -> None:
    """Kill a worker and what it started: each worker leads a process group of its own."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
