"""`kflow serve` for a test, and real boto3 clients of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import commanding
from tests.clients import client
from tests.commanding import Started
from tests.deadline import eventually
from tests.project import KFLOW

ACCOUNT = "123456789012"


class Served:
    """A process that serves an endpoint at a port of its own.

    Attributes:
        folder: working folder; the data folder is in it.
        process: the running one.
        url: of the endpoint, as the process says.
        lines: what it said first.
    """

    def __init__(
        self, folder: Path, *arguments: str, command: str = "serve", descriptors: int = 0, **environment: str
    ) -> None:
        self.folder = folder
        # by a shell, because a limit that is lowered here could not be raised again
        self._prefix = ("sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh") if descriptors else ()
        self._arguments = (command, "--json", *arguments)
        self._environment = environment
        self.started = 0
        self.start()

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return self.folder / ".kflow"

    @property
    def address(self) -> tuple[str, int]:
        """Of its port."""
        port = self.url.rpartition(":")[2]
        return "127.0.0.1", int(port)

    @property
    def rss(self) -> int:
        """Bytes of memory that its process has at this moment (Linux)."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of this process's own settings."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KFLOW_", "AWS_"))}
        return {**clean, "KFLOW_PORT": "0", "KFLOW_TRANSITION_MS": "0", **self._environment}

    @property
    def output(self) -> str:
        """All that the running process printed."""
        return self._output.read_text()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._output = self.folder / f"serve-{self.started}.txt"
        self.started += 1
        if self._prefix:
            with self._output.open("w") as output:
                self.process: Started | subprocess.Popen[bytes] = subprocess.Popen(
                    [*self._prefix, *KFLOW, *self._arguments],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        else:
            self.process = commanding.start(self._arguments, cwd=self.folder, env=self.environment, output=self._output)
        self.url: str = eventually(self._ready, seconds=60, what="the endpoint to be ready")["endpoint"]

    def _ready(self) -> Any:
        for event in self.events():
            if event["event"] == "ready":
                return event
        assert self.process.poll() is None, f"the runtime ended with {self.process.returncode}:\n{self.output}"
        return None

    def events(self) -> list[dict[str, Any]]:
        """What it has told by now; lines that are no JSON are left out, and stand in `output`."""
        lines = self.output.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def notices(self) -> list[str]:
        """What it told people."""
        return [event["text"] for event in self.events() if event["event"] == "notice"]

    def client(self, *, service: str = "kinesis", **arguments: Any) -> Any:
        """A client of it; `arguments` as `tests.clients.client` takes them."""
        return client(self.url, service, **arguments)

    def get(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """A plain request."""
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers or {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self, signum: int = signal.SIGINT) -> int:
        """End it, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(60)

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait(60)


@contextmanager
def served(folder: Path, *arguments: str, **options: Any) -> Iterator[Served]:
    """For fixtures: an endpoint that leaves no process behind."""
    (folder / "kflow.toml").touch()
    made = Served(folder, *arguments, **options)
    try:
        yield made
    finally:
        made.kill()
