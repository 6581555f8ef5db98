"""Where the command line writes: lines, a status line below them, tables, questions.

Results go to standard output, errors and progress to standard error, so that output can be piped. Colour and the status
line only where a terminal is; `NO_COLOR` and `TERM=dumb` are respected. Any thread may write.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from kflow.errors import UsageError

_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_CLEAR = "\r\x1b[K"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Terminal:
    """Standard output and error, written to by line."""

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        stdin: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.stdin = sys.stdin if stdin is None else stdin
        environ = os.environ if environ is None else environ
        capable = environ.get("TERM") != "dumb"
        self.is_live = capable and self.out.isatty()
        self.has_status = capable and self.err.isatty()
        self.has_colour = self.is_live and not environ.get("NO_COLOR")
        self.on_broken: Callable[[], None] | None = None
        """What to do, once, when whoever reads the output has gone; further lines are then dropped. None: raise.

        Lines that find the disk full are dropped too, where this is set, and counted.
        """
        self._broken = False
        self._lost = 0
        self._status = ""
        self._lock = threading.Lock()

    @property
    def width(self) -> int:
        """Columns; 80 where nobody knows."""
        return shutil.get_terminal_size().columns

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour (`red green yellow dim bold`), where colour is wanted."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.has_colour else text

    def line(self, text: str = "") -> None:
        """Write one line (or several, with line ends in it) of output."""
        with self._lock:
            self._write(self.out, text)

    def json(self, value: Any) -> None:
        """Write one value as one line of compact JSON."""
        self.line(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    def answer(self, text: str, value: Any, *, json: bool) -> None:
        """Write what was done: a line for people, or a value for programs."""
        if json:
            self.json(value)
        else:
            self.line(text)

    def note(self, text: str) -> None:
        """Write one line beside the output: to standard error."""
        with self._lock:
            self._write(self.err, text)

    def error(self, text: str) -> None:
        """Write an error: `error: ` and the text, to standard error."""
        label = "\x1b[31merror:\x1b[0m" if self.has_status and self.has_colour else "error:"
        self.note(f"{label} {text}")

    def status(self, text: str) -> None:
        """Show `text` below the lines, in place of what was there; nothing where standard error is no terminal."""
        if not self.has_status:
            return
        with self._lock:
            self._status = text[: self.width - 1]
            self.err.write(_CLEAR + self._status)
            self.err.flush()

    def table(self, rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
        """Write rows in aligned columns, the first row being the heading; columns in `right` are aligned right."""
        texts = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))] if texts else []
        for number, row in enumerate(texts):
            cells = [
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text = "  ".join(cells).rstrip()
            self.line(self.paint(text, "dim") if number == 0 else text)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask before something is destroyed.

        Args:
            question: without the `[y/N]`.
            yes: the answer was given with `--yes`.

        Raises:
            UsageError: there is nobody to ask.
        """
        if yes:
            return True
        if not self.stdin.isatty():
            raise UsageError(f"{question} Say so with --yes: there is no terminal to ask at")
        with self._lock:
            self.err.write(f"{question} [y/N] ")
            self.err.flush()
        return self.stdin.readline().strip().lower() in ("y", "yes")

    def _write(self, stream: TextIO, text: str) -> None:
        if self._broken:
            return
        if self._status:
            self.err.write(_CLEAR)
            self.err.flush()
        try:
            stream.write(text + "\n")
            stream.flush()
        except BrokenPipeError:
            if self.on_broken is None:
                raise
            self._broken = True
            self.on_broken()
        except OSError as error:
            if self.on_broken is None or error.errno not in _FULL:
                raise
            self._lost += 1  # what goes on is not ended by it; said when there is room
        else:
            if self._lost:
                lost, self._lost = self._lost, 0
                self._write(self.err, f"{count(lost, 'line')} of output could not be written: the disk was full")
        if self._status:
            self.err.write(self._status)
            self.err.flush()


def count(number: int, noun: str) -> str:
    """`1 record`, `2,000 records`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """Bytes for people: `812 B`, `1.4 MiB`."""
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def span(milliseconds: float) -> str:
    """A length of time for people: `0.3 ms`, `12.0 s`, `2 h 5 min`."""
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def moment(epoch_ms: int) -> str:
    """A point in time for people, in their time zone: `2026-11-26 11:32:01`."""
    return datetime.fromtimestamp(epoch_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
