"""A kflow plugin that writes a line of JSON for each attempt at a batch, and for each change of shards.

The file is `metrics.jsonl` in the data folder, or what the environment variable `KFLOW_JSONL` names. Lines are
appended; nothing rotates or removes the file.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TextIO

from kflow.interfaces import BatchOutcome, RuntimeInfo
from kflow.plugins import hookimpl

_file: TextIO | None = None
"""Open between start and stop. One per process: one runtime runs per process, and one thread calls the hooks."""


@hookimpl
def runtime_started(info: RuntimeInfo) -> None:
    """Open the file. A folder that does not exist is the user's mistake, and is logged as this hook's exception."""
    global _file  # noqa: PLW0603 a plugin that is a module keeps its state in the module
    path = os.environ.get("KFLOW_JSONL") or Path(info.data_dir) / "metrics.jsonl"
    # By line, so that whoever follows the file sees whole lines; it stays open until the runtime stops.
    _file = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 see above


@hookimpl
def batch_done(outcome: BatchOutcome) -> None:
    """Write the line."""
    if _file is None:  # it could not be opened, which has been logged
        return
    line = {
        "time_ms": time.time_ns() // 1_000_000,
        "function": outcome.function,
        "stream": outcome.stream,
        "shard_id": outcome.shard_id,
        "result": outcome.result.value,
        "records": outcome.records,
        "succeeded": outcome.succeeded,
        "batches": outcome.batches,
        "attempt": outcome.attempt,
        "duration_us": outcome.duration_us,
        "error": outcome.error.type if outcome.error else None,
        "parked": outcome.parked or None,
    }
    _file.write(json.dumps(line) + "\n")


@hookimpl
def shards_changed(stream: str, closed: list[str], opened: list[str]) -> None:
    """Write a line: from here on the stream's lines name other shards."""
    if _file is not None:
        line = {"time_ms": time.time_ns() // 1_000_000, "stream": stream, "closed": closed, "opened": opened}
        _file.write(json.dumps(line) + "\n")


@hookimpl
def runtime_stopping() -> None:
    """Close the file."""
    global _file  # noqa: PLW0603 see runtime_started
    if _file is not None:
        _file.close()
        _file = None
