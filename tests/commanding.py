"""`kflow` commands in processes of their own that need not import it anew: forked from one that has.

Python takes several times as long to start and to import `kflow` as most commands take to work. `run` asks a process
that has imported everything and is started once for all tests of a process; it forks for each command, which has its
arguments, environment, folder, output and exit status as one that a shell starts, and ends as that one does. What a
test kills, limits or measures is started by `tests.project.KFLOW`.
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
_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ")
"""Python reads variables with these beginnings as it starts: those who differ in one share no process."""
_UNBUFFERED = "PYTHONUNBUFFERED"
"""All are: what a killed one has printed by then is shown."""
PIPE_BYTES = 16_384
"""A pipe takes so many wherever there are pipes."""
_lock = threading.Lock()
_forkers: dict[tuple[tuple[str, str], ...], _Forker] = {}


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
    told = tuple(sorted(each for each in env.items() if each[0].startswith(_READ_AT_START) and each[0] != _UNBUFFERED))
    with _lock:
        if told not in _forkers:
            _forkers[told] = _Forker(env)
    return _forkers[told].run(words, cwd=cwd, env=env, given=given, seconds=seconds)


class _Forker:
    """The process that forks, seen from here. It ends with this one: its end of the line tells it so."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._line, there = socket.socketpair()
        code = f"from tests.commanding import fork_for_each; fork_for_each({there.fileno()})"
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env={**env, _UNBUFFERED: "1"},
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._process.returncode = 0  # nobody waits for it

    def run(
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], given: str, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """As the function of this name."""
        asked = json.dumps([list(words), str(cwd), dict(env)]).encode()
        read, write = os.pipe()
        assert len(given) < PIPE_BYTES, "nobody reads it yet"
        os.write(write, given.encode())
        os.close(write)
        pipes = [os.pipe() for _ in range(3)]
        theirs = [read, *(there for _, there in pipes)]
        try:
            with _lock:
                socket.send_fds(self._line, [len(asked).to_bytes(4, "big")], theirs)
                self._line.sendall(asked)
        finally:
            for each in theirs:
                os.close(each)
        reading = _Reading([here for here, _ in pipes])
        try:
            in_time = reading.until(time.monotonic() + seconds)
            if not in_time:
                with suppress(ProcessLookupError):
                    os.kill(int(reading.texts[2].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(["kflow", *words], seconds, *reading.texts[:2])
        finally:
            reading.close()
        output, errors, told = reading.texts
        return subprocess.CompletedProcess(["kflow", *words], int(told.split()[1]), output, errors)


class _Reading:
    """Several pipes, read at once."""

    def __init__(self, pipes: list[int]) -> None:
        self._parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
        self._selector = selectors.DefaultSelector()
        for pipe in pipes:
            self._selector.register(pipe, selectors.EVENT_READ)

    def until(self, deadline: float) -> bool:
        """Read to the end of all; False where the deadline passed before."""
        while self._selector.get_map():
            ready = self._selector.select(max(0, deadline - time.monotonic()))
            if not ready:
                return False
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                self._parts[key.fd].append(part)
                if not part:
                    self._selector.unregister(key.fd)
        return True

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
    # What can be seen of the end of an interpreter. It would go on and take apart all objects of all modules, which costs
    # more than most commands: the standard library, where it forks, ends so too.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
