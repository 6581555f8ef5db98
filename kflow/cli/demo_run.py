"""The demo's moving parts: the producer's process, and what is shown meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.broker import linking
from kflow.cli.flights import RECORDS
from kflow.cli.live import LiveLines
from kflow.cli.progress import bar
from kflow.cli.terminal import Terminal
from kflow.errors import KflowError, NoNode
from kflow.interfaces import BatchOutcome

if TYPE_CHECKING:
    from kflow.runtime.feed import ReadyInfo, Summary

_END_SECONDS = 10.0
_SHOW_SECONDS = 0.1


class Producer:
    """The producer as seen from the demo: started when the runtime is ready; at its end the runtime drains and stops.

    Attributes:
        stored: how many records the stream holds, as last heard.
        put: how many of them this run put.
        failure: what the process said, where it failed.
    """

    def __init__(self, data_dir: Path, stream: str, rate: float) -> None:
        self.stored = 0
        self.put = 0
        self.failure = ""
        self._data_dir = data_dir
        self._command = [sys.executable, "-m", "kflow.cli.demo_producer", str(data_dir), stream, f"{rate:g}"]
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def start(self, _node: object = None) -> None:
        """Start the process, and a thread that listens to it. Called once, from the runtime's thread."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_ENDPOINT_URL")}
        environment |= {"KFLOW_DATA_DIR": str(self._data_dir), "KFLOW_TARGET": "local"}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            process_group=0,  # Ctrl-C is for the demo, which then ends it by its standard input
        )
        self._thread = threading.Thread(target=self._listen, args=(self._process,), name="kflow-producer", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Make sure that the process is gone."""
        self._ending = True
        if self._process is None or self._thread is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._thread.join(_END_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        stdout, stderr = process.stdout, process.stderr
        if stdout is None or stderr is None:
            return
        first: int | None = None
        for line in stdout:
            self.stored = int(line.split(maxsplit=1)[0])
            first = self.stored if first is None else first
            self.put = self.stored - first
        said = stderr.read()
        code = process.wait()
        stdout.close()
        stderr.close()
        if code != 0 and not self._ending:
            self.failure = said.strip() or f"exit status {code}"
        if not self._ending:
            self._stop_runtime()

    def _stop_runtime(self) -> None:
        try:
            linking.call(self._data_dir, "stop" if self.failure else "drain")
        except NoNode:
            return  # it was stopped meanwhile
        except KflowError as error:
            self.failure = self.failure or str(error)


class DemoListener:
    """A runtime's listener: the lines of `LiveLines`, a status line below them, and how long it took.

    Args:
        terminal: where to.
        producer: what is put is shown as well.
        lines: None for no lines: warnings and errors only.
        handled: records that each handler settled before, by name.
    """

    def __init__(
        self, terminal: Terminal, producer: Producer, lines: LiveLines | None, handled: dict[str, int]
    ) -> None:
        self.seconds = 0.0
        self._terminal = terminal
        self._producer = producer
        self._lines = lines
        self._begun = time.monotonic()
        self._shown = 0.0
        self._handled = dict(handled)

    def ready(self, info: ReadyInfo) -> None:
        """The clock starts."""
        self._begun = time.monotonic()
        if self._lines is not None:
            self._lines.ready(info)

    def outcome(self, outcome: BatchOutcome) -> None:
        """Show it, and how far all is."""
        self._handled[outcome.function] = self._handled.get(outcome.function, 0) + outcome.succeeded
        if self._lines is not None:
            self._lines.outcome(outcome)
        now = time.monotonic()
        if now - self._shown >= _SHOW_SECONDS:
            self._shown = now
            self._terminal.status(self._progress(now))

    def notice(self, level: str, text: str) -> None:
        """Pass it on."""
        if self._lines is not None:
            self._lines.notice(level, text)
        elif level != "info":
            self._terminal.note(f"{level}: {text}")

    def stopped(self, summary: Summary) -> None:
        """The clock stops."""
        self.seconds = time.monotonic() - self._begun
        if self._lines is not None:
            self._lines.stopped(summary)

    def _progress(self, now: float) -> str:
        stored = self._producer.stored
        rate = self._producer.put / max(now - self._begun, 0.001)
        handled = "  ".join(f"{name} {done:,}" for name, done in sorted(self._handled.items()))
        return f"{bar(stored, RECORDS)} {stored:,} of {RECORDS:,} put  {rate:,.0f}/s  {handled}"
