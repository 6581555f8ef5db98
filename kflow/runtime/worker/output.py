"""What a function prints, as Lambda's log shows it: START, the output, END and REPORT, in `logs/<function>.log`.

The worker appends to the file itself, on a descriptor opened with O_APPEND, so lines of several workers never overwrite
one another and none of them crosses to the node. Descriptors 1 and 2 are the log: output of C code and of child
processes lands there as well. Files are rotated by size (`logfiles`), between two invocations. A storage that is full
fails no handler: what cannot be written is lost, and the log says how much as soon as it can.

Source: recorded: the spec's section 9.10.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from kflow.broker.functionlogs import STORAGE, Index, stream_name
from kflow.interfaces import FunctionError
from kflow.runtime.worker.logfiles import LogFile, log_path

_LOOK_S = 0.2
"""How often a worker looks whether its log is full: a look is two system calls."""
TAIL_BYTES = 4096
"""So much of an invocation's log its caller gets. Source: documented: Invoke, LogType."""
_NBSP = "\xa0"
_write = os.write


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
    """The worker's side of the log. Made once per worker, after the fork.

    Args:
        data_dir: the data folder.
        function: its name, or its key: all its versions have one log.
        memory_mb: its memory, for REPORT.
        version: `$LATEST`, or a number.
        stream: name of its log stream; empty: a new one.
        group: the log group of that; empty: the function's own.

    Attributes:
        request_id: of the invocation that runs; empty: none does.
        stream: name of the log stream that all of this is in.
    """

    def __init__(
        self,
        data_dir: Path,
        function: str,
        memory_mb: int,
        *,
        version: str = "$LATEST",
        stream: str = "",
        group: str = "",
    ) -> None:
        path = log_path(data_dir, function)
        self._file = LogFile(path)
        self._fd = self._file.fd
        self.stream = stream or stream_name(version)
        self._index = Index(path, self._fd, self.stream, group=group)
        self._wrote = self._index.wrote
        self._version = version
        self._look_due = 0.0
        self._memory_mb = memory_mb
        self._lost = 0
        self._why = ""
        self._init_us = 0
        self._tail: bytearray | None = None
        self._texts: tuple[TextIO, TextIO] | None = None
        self.request_id = ""

    def take_over(self) -> None:
        """Make descriptors 1 and 2, `sys.stdout`, `sys.stderr` and the root logger write to the log."""
        self._redirect()
        # Kept, as the interpreter keeps its own: user code may wrap their buffers, and what is let go closes these.
        self._texts = (_Output(1, self).text(), _Output(2, self).text())
        sys.stdout, sys.stderr = self._texts
        handler = _EventHandler(self)
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
        self.write(self._fd, f"START RequestId: {request_id} Version: {self._version}{mark}\n".encode())

    def end(self, duration_us: int, error: FunctionError | None) -> None:
        """Write the error, if any; then END and REPORT, in one write."""
        flush_output()
        used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _RSS_PER_MB
        text = report(self.request_id, duration_us, self._memory_mb, used_mb, self._init_us)
        self._init_us = 0
        self.request_id = ""
        if error is not None:
            self.event(error_text(error).encode("utf-8", "surrogateescape"))
        self.write(self._fd, text.encode("utf-8", "surrogateescape"))

    def keep_tail(self) -> None:
        """Keep what is written from now on, for `take_tail`; what C code and other processes write is not in it."""
        self._tail = bytearray()

    def take_tail(self) -> bytes:
        """The last `TAIL_BYTES` of what has been written since."""
        kept, self._tail = self._tail, None
        return bytes(kept[-TAIL_BYTES:]) if kept else b""

    def event(self, data: bytes) -> None:
        """Write one event of the log stream, of however many lines; with its line end. Raises as `write`."""
        if self._tail is not None:
            self._tail += data
        written = self._write(self._fd, data)
        if data.find(b"\n") < len(data) - 1:
            self._index.wrote_event(written)
        else:
            self._index.wrote(written)

    def write(self, fd: int, data: bytes) -> None:
        """Write lines, or count them as lost; each is an event of the log stream.

        Raises:
            OSError: something else than the storage is wrong, such as a descriptor that user code has closed.
        """
        if self._tail is not None:
            self._tail += data
        if self._lost:
            self._index.wrote(self._write(fd, data), data)
            return
        try:
            written = _write(fd, data)
        except OSError as error:
            written = self._refused(error)
        if written != len(data):
            self._lost += len(data) - written
        self._wrote(written, data)

    def _write(self, fd: int, data: bytes) -> int:
        """How much of it was written; before it, how much was lost."""
        try:
            if self._lost:
                _write(fd, f"[WARNING] {self._lost} bytes of this log were lost: {self._why}\n".encode())
                self._lost = 0
            written = _write(fd, data)
        except OSError as error:
            written = self._refused(error)
        self._lost += len(data) - written
        return written

    def _refused(self, error: OSError) -> int:
        if error.errno not in STORAGE:
            raise error
        self._why = os.strerror(error.errno)
        return 0

    def _move_on(self) -> None:
        try:
            if self._file.look():
                self._redirect()
                self._index.follow()
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


def flush_output() -> None:
    """What was printed stands before what follows.

    User code may have put anything in the place of standard output, or closed it: that fails nobody, as AWS's client
    does not even flush.
    """
    with contextlib.suppress(Exception):
        if sys.stdout is not None:
            sys.stdout.flush()


class _EventHandler(logging.Handler):
    """What is logged is one event, with the traceback below it. Standard output that came before comes before."""

    def __init__(self, log: FunctionLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot be formatted is told as `logging` tells it."""
        try:
            text = f"{self.format(record)}\n"
            flush_output()
            self._log.event(text.encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001 # as every handler of `logging`: a record that is wrong stops no handler
            self.handleError(record)


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
