"""A progress bar on the status line, and log records written as lines above it."""

from __future__ import annotations

import logging
import time

from kflow.cli.terminal import Terminal

_SHOW_SECONDS = 0.1


def bar(done: int, total: int, width: int = 24) -> str:
    """`[######..................]`, full only when all is done."""
    filled = width if total <= 0 else min(width, done * width // total)
    return f"[{'#' * filled}{'.' * (width - filled)}]"


class Progress:
    """How far a piece of work is; shows itself at most ten times a second.

    Args:
        terminal: nothing is shown where it has no status line.
        noun: what is counted, in the plural.
        total: how many there will be; None where nobody knows.
    """

    def __init__(self, terminal: Terminal, noun: str, total: int | None = None) -> None:
        self._terminal = terminal
        self._noun = noun
        self._total = total
        self._started = time.monotonic()
        self._next = self._started

    def update(self, done: int, text: str = "") -> None:
        """Say how many are done, with more to say behind it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _SHOW_SECONDS
        rate = done / max(now - self._started, 0.001)
        if self._total is None:
            start = f"{done:,} {self._noun}"
        else:
            start = f"{bar(done, self._total)} {done:,} of {self._total:,} {self._noun}"
        self._terminal.status(f"{start}  {rate:,.0f}/s  {text}".rstrip())

    def finish(self) -> None:
        """Take the line away."""
        self._terminal.status("")


class TerminalHandler(logging.Handler):
    """Writes log records to standard error as lines that do not tear the status line."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._terminal.note(self.format(record))


def show_logs(terminal: Terminal) -> None:
    """From here on, warnings and errors that kflow logs are written to `terminal`."""
    logger = logging.getLogger("kflow")
    logger.handlers[:] = [TerminalHandler(terminal)]
    logger.propagate = False
