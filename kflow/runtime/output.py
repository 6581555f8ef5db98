"""What a function prints, as Lambda's log shows it: START, the output, END and REPORT, in `logs/<function>.log`.

The worker appends to the file itself, on a descriptor opened with O_APPEND, so lines of several workers never overwrite
one another and none of them crosses to the node. Descriptors 1 and 2 are the log: output of C code and of child
processes lands there as well.

Source: recorded: the spec's section 9.10.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from pathlib import Path

from kflow.interfaces import FunctionError

_NBSP = "\xa0"


def log_path(data_dir: Path, function: str) -> Path:
    """The log file of a function."""
    return data_dir / "logs" / f"{function}.log"


def request_id_text(request_id: bytes) -> str:
    """A request id as Lambda writes it. Once a batch: 0.5 us, where `uuid.UUID` takes 1.8."""
    text = request_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def report(request_id: str, duration_us: int, memory_mb: int, used_mb: int, init_us: int = 0, status: str = "") -> str:
    """The END and REPORT lines of an invocation."""
    milliseconds = duration_us / 1000
    billed = -(-duration_us // 1000)
    init = f"Init Duration: {init_us / 1000:.2f} ms\t" if init_us else ""
    state = f"Status: {status}\t" if status else ""
    return (
        f"END RequestId: {request_id}\n"
        f"REPORT RequestId: {request_id}\tDuration: {milliseconds:.2f} ms\tBilled Duration: {billed} ms\t"
        f"Memory Size: {memory_mb} MB\tMax Memory Used: {used_mb} MB\t{init}{state}\n"
    )


def error_text(error: FunctionError) -> str:
    """An uncaught error, as the Python runtime logs it: leading spaces of the trace are no-break spaces."""
    lines = [f"[ERROR] {error.type}: {error.message}" if error.message else f"[ERROR] {error.type}"]
    if error.trace:
        lines.append("Traceback (most recent call last):")
        for entry in error.trace:
            for line in entry.rstrip("\n").split("\n"):
                bare = line.lstrip(" ")
                lines.append(_NBSP * (len(line) - len(bare)) + bare)
    return "\n".join(lines) + "\n"


class FunctionLog:
    """The worker's side of the log. Made once per worker, after the fork."""

    def __init__(self, data_dir: Path, function: str, memory_mb: int) -> None:
        path = log_path(data_dir, function)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._memory_mb = memory_mb
        self._init_us = 0
        self.request_id = ""

    def take_over(self) -> None:
        """Make descriptors 1 and 2, `sys.stdout`, `sys.stderr` and the root logger write to the log."""
        os.dup2(self._fd, 1)
        os.dup2(self._fd, 2)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_LambdaFormatter(self))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)

    def fd(self) -> int:
        """The descriptor, to be checked after user code ran."""
        return self._fd

    def initialised(self, duration_us: int) -> None:
        """The import took this long: the first REPORT says so."""
        self._init_us = duration_us

    def start(self, request_id: str, *, redrive: bool = False) -> None:
        """Write the START line. One small write: it must stand before anything the handler prints."""
        self.request_id = request_id
        mark = "  (redrive)" if redrive else ""
        os.write(self._fd, f"START RequestId: {request_id} Version: $LATEST{mark}\n".encode())

    def end(self, duration_us: int, error: FunctionError | None) -> None:
        """Write the error, if any, then END and REPORT, in one write."""
        sys.stdout.flush()
        used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _RSS_PER_MB
        text = report(self.request_id, duration_us, self._memory_mb, used_mb, self._init_us)
        if error is not None:
            text = error_text(error) + text
        self._init_us = 0
        self.request_id = ""
        os.write(self._fd, text.encode("utf-8", "surrogateescape"))


_RSS_PER_MB = 1024 if sys.platform != "darwin" else 1024 * 1024


class _LambdaFormatter(logging.Formatter):
    """`[LEVEL]`, time, request id and message, tab-separated. Source: recorded: the spec's 9.10."""

    def __init__(self, log: FunctionLog) -> None:
        super().__init__()
        self._log = log

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, with the traceback below it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = f"[{record.levelname}]\t{moment}.{int(record.msecs):03d}Z\t{self._log.request_id}\t{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text
