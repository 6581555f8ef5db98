"""What a function prints, as Lambda's log shows it: START, the output, END and REPORT, in `logs/<function>.log`.

The worker appends to the file itself, on a descriptor opened with O_APPEND, so lines of several workers never overwrite
one another and none of them crosses to the node. Descriptors 1 and 2 are the log: output of C code and of child
processes lands there as well. Files are rotated by size (`logfiles`), between two invocations. A storage that is full
fails no handler: what cannot be written is lost, and the log says how much as soon as it can.

Source: recorded: the spec's section 9.10.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

from kflow.interfaces import FunctionError
from kflow.runtime.logfiles import LogFile, log_path

_LOOK_S = 0.2
"""How often a worker looks whether its log is full: a look is two system calls."""
_NBSP = "\xa0"


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


_START = re.compile(r"START RequestId: (\S+)")
_END = re.compile(r"END RequestId: (\S+)$")
_REPORT = re.compile(r"REPORT RequestId: (\S+)\t(.*)$")
_NUMBER = re.compile(r"([\d.]+) (?:ms|MB)")


def parse(line: str) -> dict[str, Any]:
    """What a line of the log says, for programs.

    Returns:
        `type`: `start`, `end`, `report` or `output`; with the first three `request_id`; with `report` its fields, named
        as in the line (`duration_ms`, `max_memory_used_mb` ...), numbers as numbers.
    """
    if match := _START.match(line):
        return {"type": "start", "request_id": match[1]}
    if match := _END.match(line):
        return {"type": "end", "request_id": match[1]}
    match = _REPORT.match(line)
    if match is None:
        return {"type": "output"}
    found: dict[str, Any] = {"type": "report", "request_id": match[1]}
    for part in match[2].split("\t"):
        name, _, text = part.partition(": ")
        if not text:
            continue
        key = name.lower().replace(" ", "_")
        number = _NUMBER.fullmatch(text)
        if number is None:
            found[key] = text
        else:
            unit = text.rpartition(" ")[2].lower()
            found[f"{key}_{unit}"] = float(number[1]) if "." in number[1] else int(number[1])
    return found


class FunctionLog:
    """The worker's side of the log. Made once per worker, after the fork."""

    def __init__(self, data_dir: Path, function: str, memory_mb: int) -> None:
        self._file = LogFile(log_path(data_dir, function))
        self._fd = self._file.fd
        self._look_due = 0.0
        self._memory_mb = memory_mb
        self._lost = 0
        self._why = ""
        self._init_us = 0
        self.request_id = ""

    def take_over(self) -> None:
        """Make descriptors 1 and 2, `sys.stdout`, `sys.stderr` and the root logger write to the log."""
        self._redirect()
        sys.stdout = _Output(1, self).text()
        sys.stderr = _Output(2, self).text()
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_LambdaFormatter(self))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)

    @property
    def identity(self) -> tuple[int, int, int]:
        """Descriptor, device and inode, to be checked after user code ran; a `start` may change the file."""
        return self._file.identity

    def initialised(self, duration_us: int) -> None:
        """The import took this long: the first REPORT says so."""
        self._init_us = duration_us

    def start(self, request_id: str, *, redrive: bool = False) -> None:
        """Write the START line. One small write: it must stand before anything the handler prints."""
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + _LOOK_S
            self._move_on()
        self.request_id = request_id
        mark = "  (redrive)" if redrive else ""
        self.write(self._fd, f"START RequestId: {request_id} Version: $LATEST{mark}\n".encode())

    def end(self, duration_us: int, error: FunctionError | None) -> None:
        """Write the error, if any, then END and REPORT, in one write."""
        sys.stdout.flush()
        used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _RSS_PER_MB
        text = report(self.request_id, duration_us, self._memory_mb, used_mb, self._init_us)
        if error is not None:
            text = error_text(error) + text
        self._init_us = 0
        self.request_id = ""
        self.write(self._fd, text.encode("utf-8", "surrogateescape"))

    def write(self, fd: int, data: bytes) -> None:
        """Write to the log, or count as lost.

        Raises:
            OSError: something else than the storage is wrong, such as a descriptor that user code has closed.
        """
        try:
            if self._lost:
                os.write(fd, f"[WARNING] {self._lost} bytes of this log were lost: {self._why}\n".encode())
                self._lost = 0
            written = os.write(fd, data)
        except OSError as error:
            if error.errno not in _STORAGE:
                raise
            self._why = os.strerror(error.errno)
            written = 0
        self._lost += len(data) - written

    def _move_on(self) -> None:
        try:
            if self._file.look():
                self._redirect()
        except OSError as error:  # nothing of the output is lost: it goes on into the full file
            self.write(self._fd, f"[WARNING] the log cannot be rotated: {error}\n".encode())

    def _redirect(self) -> None:
        os.dup2(self._fd, 1)
        os.dup2(self._fd, 2)


class _Output(io.FileIO):
    """Standard output or standard error of user code."""

    def __init__(self, fd: int, log: FunctionLog) -> None:
        super().__init__(fd, "w", closefd=False)
        self._log = log

    def write(self, data: Any, /) -> int:
        """Write all of it, or count it as lost."""
        whole = bytes(data)
        self._log.write(self.fileno(), whole)
        return len(whole)

    def text(self) -> io.TextIOWrapper:
        """As `sys.stdout` is: text by lines, with `buffer` for bytes."""
        buffered = io.BufferedWriter(self)
        return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)


_STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
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
