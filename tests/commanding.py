"""`kflow` in processes of their own that need not import it anew: forked from one that has.

Python takes several times as long to start and to import `kflow` as most commands take to work. `run` and `start` ask a
process that has imported everything and is started once for all tests of a process; it forks for each command, which
has its arguments, environment, folder, streams and exit status as one that a shell starts, and ends as that one does.
Where the start itself is tested, and its limits, `tests.project.KFLOW` is what to run.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "kflow")
PIPE_BYTES = 16_384
"""A pipe takes so many wherever there are pipes."""
_lock = threading.Lock()
_line: socket.socket | None = None
"""To the process that forks."""


def read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """What Python reads as it starts: with other values than ours a command cannot be forked."""
    begin = ("PYTHON", "LC_", "LANG", "TZ")
    return {name: env[name] for name in env if name.startswith(begin) and name != "PYTHONUNBUFFERED"}


_OURS = read_at_start(os.environ)


def run(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], given: str = "", seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `kflow` with these words to its end, and to the end of all that holds its output.

    Args:
        words: the arguments.
        cwd: its folder.
        env: its environment, the whole of it.
        given: its standard input; not more than fits into a pipe.
        seconds: the deadline.

    Raises:
        subprocess.TimeoutExpired: it was not over by then, and has been killed.
    """
    if read_at_start(env) != _OURS:
        command = [*COMMAND, *words]
        return subprocess.run(
            command, cwd=cwd, env=env, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
    assert len(given) < PIPE_BYTES, "nobody reads it yet"
    stdin, write = os.pipe()
    os.write(write, given.encode())
    os.close(write)
    (here, output), (here_too, errors) = os.pipe(), os.pipe()
    forked = Started(words, cwd, env, [stdin, output, errors])
    for each in (stdin, output, errors):
        os.close(each)
    deadline = time.monotonic() + seconds
    reading = _Reading([here, here_too])
    try:
        if not reading.until(deadline):
            raise subprocess.TimeoutExpired(forked.args, seconds, *reading.texts)
        code = forked.wait(max(0, deadline - time.monotonic()))
    finally:
        forked.kill()
        reading.close()
    return subprocess.CompletedProcess(forked.args, code, *reading.texts)


def start(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path
) -> Started | subprocess.Popen[bytes]:
    """Start `kflow` with these words; all that it prints goes to a file."""
    if read_at_start(env) != _OURS:
        with output.open("wb") as file:
            return subprocess.Popen(
                [*COMMAND, *words], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
    with Path(os.devnull).open("rb") as nothing, output.open("wb") as file:
        return Started(words, cwd, env, [nothing.fileno(), file.fileno(), file.fileno()])


class Started:
    """A command that runs, as a `subprocess.Popen` has it.

    Attributes:
        args: its words.
        pid: of its process.
        returncode: its exit status, or the signal that ended it below zero; None before anybody asked.
    """

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], streams: list[int]) -> None:
        self.args = ["kflow", *words]
        self.returncode: int | None = None
        global _line  # noqa: PLW0603  # one for all tests of a process
        with _lock:
            _line = _line or _forker({**env, "PYTHONUNBUFFERED": "1"})  # what a killed one has printed is there
            here, there = os.pipe()
            asked = json.dumps([list(words), str(cwd), dict(env)]).encode()
            socket.send_fds(_line, [len(asked).to_bytes(4, "big")], [*streams, there])
            _line.sendall(asked)
            os.close(there)
        self._told = _Reading([here])
        self._told.once(None)
        self.pid = int(self._told.texts[0].split()[0])

    def poll(self) -> int | None:
        """Its exit status, where it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        if self.returncode is None:
            if not self._told.until(None if timeout is None else time.monotonic() + timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.texts[0].split()[1])
            self._told.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it as it stands."""
        self.send_signal(signal.SIGKILL)


def _forker(env: Mapping[str, str]) -> socket.socket:
    """Start the process that forks; it ends when this end of the line is closed, with this process at the latest."""
    here, there = socket.socketpair()
    with there:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from tests.commanding import fork_for_each; fork_for_each({there.fileno()})"],
            cwd=ROOT,
            env=env,
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    process.returncode = 0  # nobody waits for it
    return here


class _Reading:
    """Several pipes, read at once."""

    def __init__(self, pipes: list[int]) -> None:
        self._parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
        self._selector = selectors.DefaultSelector()
        for pipe in pipes:
            self._selector.register(pipe, selectors.EVENT_READ)

    def until(self, deadline: float | None) -> bool:
        """Read to the end of all; False where the deadline passed before."""
        while self._selector.get_map():
            if not self.once(deadline):
                return False
        return True

    def once(self, deadline: float | None) -> bool:
        """Read what there is, as soon as there is anything; False where the deadline passed before."""
        ready = self._selector.select(None if deadline is None else max(0, deadline - time.monotonic()))
        for key, _ in ready:
            part = os.read(key.fd, 1 << 16)
            self._parts[key.fd].append(part)
            if not part:
                self._selector.unregister(key.fd)
        return bool(ready)

    @property
    def texts(self) -> list[str]:
        """What has come by now."""
        return [b"".join(parts).decode() for parts in self._parts.values()]

    def close(self) -> None:
        self._selector.close()
        for pipe in self._parts:
            os.close(pipe)


# ---------------------------------------------------------------- in the process that forks


def fork_for_each(fd: int) -> None:
    """Fork for each command that is asked for, until nobody asks any more."""
    for name in ("sqlite3", "tomllib", "kflow.runtime.host"):
        importlib.import_module(name)
    for name in ("kflow.cli", "kflow.broker", "kflow.producing", "kflow.runtime.tools"):
        for each in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(each.name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who ask
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for who waits for a command
    gc.collect()
    gc.freeze()
    line = socket.socket(fileno=fd)
    while asked := _asked(line):
        (words, cwd, env), (*streams, told) = asked
        if os.fork() == 0:
            line.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (command := os.fork()) == 0:
                os.close(told)
                _become(words, cwd, env, streams)
            for each in streams:
                os.close(each)
            os.write(told, f"{command} ".encode())
            _, status = os.waitpid(command, 0)
            os.write(told, f"{os.waitstatus_to_exitcode(status)}".encode())
            os._exit(0)
        for each in (*streams, told):
            os.close(each)


def _asked(line: socket.socket) -> tuple[Any, list[int]] | None:
    begin, fds, _, _ = socket.recv_fds(line, 4, 4)
    if not begin:
        return None
    size, content = int.from_bytes(begin, "big"), b""
    while len(content) < size:
        content += line.recv(size - len(content))
    return json.loads(content), fds


def _become(words: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> None:
    """Be `python -m kflow` with these words, to the end of the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for place, fd in enumerate(streams):
        os.dup2(fd, place)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd
    sys.argv = ["kflow", *words]
    code: object = 1
    try:
        runpy.run_module("kflow", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
    # What can be seen of the end of an interpreter. It would go on and take apart all objects of all modules, which
    # costs more than most commands: the standard library, where it forks, ends so too.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
