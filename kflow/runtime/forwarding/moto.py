"""A server of moto, started with the first call that goes there, and again where it died.

    none --url()--> starting: whoever calls waits --it says its port--> runs --it dies, reset()--> none
                        '--it ends, or says nothing--> none: whoever waits is told why

One thread looks after a child for all its life: the kernel ends a child when the thread that made it ends (Linux).
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kflow.runtime.environment import REMOVED
from kflow.runtime.forwarding.asking import Failed
from kflow.runtime.lifeline import kill_group

START_S: Final = 60.0
"""How long it is waited for: its import takes seconds. chosen."""
STOP_S: Final = 2.0
"""How long it has to end of its own accord. chosen."""
_TOLD_BYTES: Final = 2000
COMMAND: Final = (sys.executable, "-m", "kflow.runtime.forwarding.moto_child")
INSTALL: Final = "pip install 'kflow-streams[moto]'"


def missing() -> str:
    """What a server of moto lacks here; empty: nothing."""
    return next((name for name in ("moto", "flask", "werkzeug") if importlib.util.find_spec(name) is None), "")


class _Child:
    """One process, from its start to its end."""

    def __init__(self) -> None:
        self.is_told = threading.Event()
        self.url = ""
        self.problem = ""
        self.process: subprocess.Popen[bytes] | None = None


class Moto:
    """Any thread may use it, but the loop's, for `url` and `close` wait.

    Args:
        run_dir: what the child writes goes there, into `moto.log`.
        account: the account that it takes callers to be of.
        region: of callers that name none.
        notice: tells people, as (level, text); from any thread.
        command: what is started, with this process's pid behind it.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        account: str,
        region: str,
        notice: Callable[[str, str], object],
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self._log = run_dir / "moto.log"
        self._account = account
        self._region = region
        self._notice = notice
        self._command = command
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._is_closed = False

    def url(self) -> str:
        """Where it is; it is started, and waited for, where it is not.

        Raises:
            Failed: it cannot be had; the text says what to do.
        """
        with self._lock:
            if self._is_closed:
                raise Failed(503, "ServiceUnavailable", "the runtime ends")
            child = self._child
            if child is None:
                self._look()
                child = self._child = _Child()
                threading.Thread(target=self._keep, args=(child,), name="kflow-moto", daemon=True).start()
        if not child.is_told.wait(START_S):
            self._end(child)
            raise Failed(504, "UpstreamTimeout", f"moto did not start within {START_S:g} s: see {self._log}")
        if not child.url:
            raise Failed(502, "UpstreamUnreachable", child.problem or "moto was stopped before it answered")
        return child.url

    def reset(self) -> None:
        """Forget everything it keeps: the next call starts another."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            self._end(child)

    def close(self) -> None:
        """End it, for good."""
        with self._lock:
            self._is_closed = True
        self.reset()

    def _look(self) -> None:
        if self._command is not COMMAND:
            return
        if name := missing():
            raise Failed(
                501,
                "NotImplemented",
                f"calls of this service go to moto, and {name} is not installed beside kflow: {INSTALL}",
            )

    def _keep(self, child: _Child) -> None:
        """In its thread: start it, wait until it ends, forget it."""
        try:
            self._run(child)
        except OSError as error:
            child.problem = f"moto cannot be started: {error}"
        finally:
            with self._lock:
                is_mourned = self._child is child
                if is_mourned:
                    self._child = None
            was_told = child.is_told.is_set()
            child.is_told.set()
            if is_mourned and was_told and not self._is_closed:
                self._notice(
                    "warning", f"moto ended, and what it kept is gone; the next call starts it anew: {self._log}"
                )

    def _run(self, child: _Child) -> None:
        here, there = socket.socketpair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with here, self._log.open("wb") as log:
            with there:
                process = subprocess.Popen(
                    [*self._command, str(os.getpid())],
                    stdin=there.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=child_environment(os.environ, account=self._account, region=self._region),
                    start_new_session=True,
                )
            child.process = process
            assert process.stdout is not None
            with process.stdout as output:
                line = output.readline().strip()
                if self._is_forgotten(child):
                    kill_group(process.pid)
                elif line.isdigit():
                    child.url = f"http://127.0.0.1:{int(line)}"
                    self._notice("info", f"moto answers at {child.url}; what it keeps is gone when the runtime ends")
                    child.is_told.set()
                    process.wait()
                else:
                    kill_group(process.pid)
                    child.problem = f"moto does not start: {self._last_words()}"
            process.wait()

    def _is_forgotten(self, child: _Child) -> bool:
        with self._lock:
            return self._child is not child

    def _end(self, child: _Child) -> None:
        with self._lock:
            if self._child is child:
                self._child = None
        process = child.process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)

    def _last_words(self) -> str:
        try:
            text = self._log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip()
        except OSError:
            text = ""
        return f"{text.splitlines()[-1]} (all of it is in {self._log})" if text else "it ended without a word"


def child_environment(inherited: Mapping[str, str], *, account: str, region: str) -> dict[str, str]:
    """The variables of the child: nothing that leads to real credentials. Source: documented: moto's configuration."""
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in REMOVED and not name.startswith(("AWS_ENDPOINT_URL", "KFLOW_"))
    }
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "MOTO_ACCOUNT_ID": account,
    }
