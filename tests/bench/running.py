"""What benches run against: a data folder of its own, a project with one handler, the real runtime in a process."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing

PATIENCE_S = 120.0
"""No step of a bench takes longer than this: whatever does, hangs."""
RECORDS_PER_CALL = 500
RECORD_BYTES = 100

Record = tuple[bytes, str]

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: where processes of a bench import from."""


@contextmanager
def data_folder(*, fsync: str | None = None) -> Iterator[DataFolder]:
    """An empty data folder that this process puts into; gone afterwards."""
    for name in [name for name in os.environ if name.startswith(("KFLOW_", "AWS_"))]:
        del os.environ[name]  # the user's own settings are no part of a bench
    with tempfile.TemporaryDirectory(prefix="kflow-bench-") as path:
        folder = DataFolder.open(Path(path, "data"), create=True, fsync=fsync)
        os.environ["KFLOW_DATA_DIR"] = str(folder.path)
        yield folder


def create_stream(folder: DataFolder, name: str, shards: int) -> StreamMap:
    """A stream, made while no node runs."""
    with writing(folder) as log:
        return log.create_stream(name, shards)


def records(count: int, size: int = RECORD_BYTES, keys: str = "user-") -> list[Record]:
    """Records of random bytes, each with a key of its own."""
    return [(os.urandom(size), f"{keys}{number}") for number in range(count)]


def record_sets(sets: int, count: int = RECORDS_PER_CALL, size: int = RECORD_BYTES) -> list[list[Record]]:
    """What several calls put: no two records of all of them have a key in common."""
    return [records(count, size, f"user-{number}-") for number in range(sets)]


def forget_checkpoints(folder: DataFolder) -> None:
    """Let every handler start anew. Only while no node runs."""
    for path in Path(folder.path, "checkpoints").rglob("*"):
        if path.is_file():
            path.unlink()


class Runtime:
    """A process that runs until it is told to stop. What it says on standard error is shown."""

    def __init__(self, command: Sequence[str | os.PathLike[str]], *, stdout: int = subprocess.DEVNULL) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended, and ended well."""
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if code:
            raise RuntimeError(f"the runtime ended with exit status {code}")

    def kill(self) -> None:
        """End it at once; what it has started ends with it."""
        self._process.kill()
        self._process.wait()


class Kflow(Runtime):
    """`kflow` as people start it, on the data folder that this process puts into."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(["kflow", *arguments])


class Node(Runtime):
    """The runtime without a command line, ready when the `with` block begins.

    Args:
        folder: its data.
        module: file of the handlers; None for the node alone.
        drain: end as soon as everything is settled.
        max_workers: the setting.
    """

    def __init__(
        self, folder: DataFolder, module: Path | None = None, *, drain: bool = False, max_workers: int = 8
    ) -> None:
        command = ["tests.bench.hosting", str(os.getpid()), str(folder.path), str(max_workers), *["--drain"] * drain]
        super().__init__(command if module is None else [*command, str(module)], stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the runtime has no standard output")
        with selectors.DefaultSelector() as selector, self._process.stdout as output:
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(PATIENCE_S) or output.readline() != b"ready\n":
                raise RuntimeError("the runtime did not get ready; what it said is above")


def run_to_end(module: str, arguments: Sequence[str | os.PathLike[str]]) -> None:
    """Run a module of the benches in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=True, timeout=PATIENCE_S)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Look every few milliseconds until `condition()` holds.

    Raises:
        TimeoutError: it does not; names `what`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.005)
