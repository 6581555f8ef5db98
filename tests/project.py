"""A project of its own for a test, and `kflow` run in it through the public door: as processes, and from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import commanding
from tests.clients import client
from tests.commanding import Started
from tests.deadline import eventually

KFLOW = commanding.COMMAND


class Project:
    """A folder with handlers, settings and a data folder.

    Handlers leave what they saw in files below `seen`, one line an event, by `note`, which is put beside them.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.seen_file = folder / "seen.jsonl"
        self.processes: list[Started] = []
        lines = {"retry_backoff_scale": 0, "port": 0, **settings}
        (folder / "kflow.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))
        (folder / "functions").mkdir()
        (folder / "functions" / "note.py").write_text(
            textwrap.dedent(f"""\
                import json, os
                FD = os.open({str(self.seen_file)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                def note(**fields):
                    os.write(FD, json.dumps({{"pid": os.getpid(), **fields}}).encode() + b"\\n")
            """)
        )

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return self.folder / ".kflow"

    @property
    def url(self) -> str:
        """Of the endpoint of what runs."""
        return (self.data_dir / "endpoint").read_text().strip()

    def client(self, service: str) -> Any:
        """A boto3 client of what runs."""
        return client(self.url, service)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of processes: nothing of this process's own settings."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("KFLOW_", "AWS_"))}
        return {**clean, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}

    def handler(self, code: str, name: str = "app.py") -> None:
        """Write a module of handlers."""
        (self.folder / "functions" / name).write_text("from note import note\n" + textwrap.dedent(code))

    def run(self, *arguments: str, check: int | None = 0, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = commanding.run(arguments, cwd=self.folder, env=self.environment, seconds=seconds)
        if check is not None:
            assert done.returncode == check, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, *arguments: str) -> Started:
        """Start `kflow run`, and wait until it is ready."""
        output = self.folder / f"output-{len(self.processes)}.txt"
        process = commanding.start(["run", *arguments], cwd=self.folder, env=self.environment, output=output)
        self.processes.append(process)
        eventually(lambda: self._is_ready(process, output), seconds=60, what="the runtime to be ready")
        return process

    def _is_ready(self, process: Started, output: Path) -> bool:
        text = output.read_text()
        assert process.poll() is None or "ready" in text, f"the runtime ended with {process.returncode}:\n{text}"
        return "ready" in text

    def output(self) -> str:
        """All that the runtimes printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("output-*.txt")))

    def stop(self, process: Started) -> int:
        """Ctrl-C, and wait for its end."""
        process.send_signal(signal.SIGINT)
        return process.wait(60)

    def seen(self, **wanted: object) -> list[dict[str, Any]]:
        """What handlers noted, the notes with these fields only."""
        if not self.seen_file.exists():
            return []
        lines = self.seen_file.read_text().splitlines()
        notes = [json.loads(line) for line in lines]
        return [note for note in notes if all(note.get(name) == value for name, value in wanted.items())]

    def wait_for(self, condition: Callable[[], Any], what: str = "", seconds: float = 60) -> Any:
        """Wait, and show what the runtimes printed where the deadline passes."""
        try:
            return eventually(condition, seconds=seconds, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}\n{self.logs()}") from None

    def logs(self) -> str:
        """All function logs."""
        return "".join(path.read_text() for path in sorted(self.data_dir.glob("logs/*.log")))

    def json(self, *arguments: str) -> Any:
        """Run a command that answers in JSON."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def close(self) -> None:
        """End everything, and make sure that it has ended."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(30)


def project(tmp_path: Path, **settings: object) -> Iterator[Project]:
    """For fixtures: a project that leaves no process behind."""
    made = Project(tmp_path, **settings)
    try:
        yield made
    finally:
        made.close()
