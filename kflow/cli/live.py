"""What people see while a runtime works: one line a batch, successes summed when they come fast, failures at once.

    bill orders/0  8 records  4 ok, failed at 49…386  1.4 ms  v1
         ZeroDivisionError  functions/app.py:11  {"id": 5, "qty": 0}

The feed's thread calls; a thread of this module writes sums that became due. Both write whole lines under one lock.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kflow.cli.terminal import Terminal, count, span
from kflow.interfaces import BatchOutcome, BatchResult
from kflow.runtime.feed import ReadyInfo, Summary

GAP_SECONDS = 0.1
"""How long successes of one handler and shard are summed. Grows with the lines, so that a second shows about ten."""

MOST_GAP_SECONDS = 1.0
MOST_LINES = 12
"""More handlers and shards than this in one gap: one line a handler and stream."""

CODE_VERSION = 1
"""Of the handlers' code: the first, for a runtime does not reload."""

_COLOURS = {BatchResult.PARTIAL: "yellow", BatchResult.FAILED: "yellow", BatchResult.BISECT: "yellow"}


@dataclass(slots=True)
class _Sum:
    """Successes of one handler and shard that were not shown yet."""

    records: int = 0
    batches: int = 0
    duration_us: int = 0


class LiveLines:
    """A runtime's listener that writes lines for people.

    Args:
        terminal: where to.
        folder: the folder that source files and data are named relative to.
        summary: whether to write the table of totals at the end.
    """

    def __init__(self, terminal: Terminal, folder: Path, *, summary: bool = True) -> None:
        self._terminal = terminal
        self._folder = folder
        self._summary = summary
        self._changed = threading.Condition()
        self._sums: dict[tuple[str, str, str], _Sum] = {}
        self._gap = GAP_SECONDS
        self._head = 0
        self._shown: dict[tuple[str, str], tuple[str, str, bytes]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._flush_when_due, name="kflow-lines", daemon=True)

    def ready(self, info: ReadyInfo) -> None:
        """Write what runs, and where from."""
        where = _relative(info.data_dir, self._folder)
        parts = (f"{self._terminal.paint('ready', 'green')} {info.seconds:.1f} s", f"data {where}", info.endpoint)
        self._terminal.line("   ".join(filter(None, parts)))
        names = [handler.name for handler in info.handlers]
        places = [_relative(handler.place, self._folder) for handler in info.handlers]
        for handler, place in zip(info.handlers, places, strict=True):
            is_queue = handler.source == "queue"
            what = "queue" if is_queue else count(handler.shards, "shard")
            head = f"{handler.name.ljust(max(map(len, names)))}  {place.ljust(max(map(len, places)))}"
            source = f"{handler.stream} ({'created, ' if handler.created else ''}{what})"
            self._terminal.line(f"{head}  <- {source}  {handler.options}".rstrip())
            last = "" if is_queue else str(handler.shards - 1)
            self._head = max(self._head, len(f"{handler.name} {_where(handler.stream, last)}"))
        if not self._thread.is_alive():
            self._thread.start()

    def outcome(self, outcome: BatchOutcome) -> None:
        """Sum a success, or write a failure after the successes before it."""
        key = (outcome.function, outcome.stream, outcome.shard_id)
        with self._changed:
            if outcome.result is BatchResult.OK:
                total = self._sums.setdefault(key, _Sum())
                total.records += outcome.records
                total.batches += outcome.batches
                total.duration_us += outcome.duration_us
                self._changed.notify()
                return
            before = self._sums.pop(key, None)
            if before is not None:
                self._write_sum(key, before)
            self._write_failure(outcome)

    def notice(self, level: str, text: str) -> None:
        """Write something to know."""
        if level == "info":
            self._terminal.line(text)
        else:
            self._terminal.note(self._terminal.paint(f"{level}: {text}", "red" if level == "error" else "yellow"))

    def stopped(self, summary: Summary) -> None:
        """Write what is left, and the totals."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
            self._flush()
        if self._thread.is_alive():
            self._thread.join()
        self._terminal.status("")
        if self._summary:
            write_summary(self._terminal, summary)

    def _flush_when_due(self) -> None:
        with self._changed:
            while not self._closing.is_set():
                if not self._sums:
                    self._changed.wait()
                    continue
                due = time.monotonic() + self._gap
                while not self._closing.is_set() and (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                lines = self._flush()
                self._gap = min(MOST_GAP_SECONDS, max(GAP_SECONDS, lines * 0.1))

    def _flush(self) -> int:
        """Write all sums; returns how many lines that took."""
        sums, self._sums = self._sums, {}
        if len(sums) > MOST_LINES:
            sums = _by_stream(sums)
        for key in sorted(sums):
            self._write_sum(key, sums[key])
        return len(sums)

    def _write_sum(self, key: tuple[str, str, str], total: _Sum) -> None:
        text = "ok" if total.batches == 1 else f"ok in {total.batches:,} invocations"
        self._write(key, total.records, text, total.duration_us)

    def _write_failure(self, outcome: BatchOutcome) -> None:
        key = (outcome.function, outcome.stream, outcome.shard_id)
        colour = _COLOURS.get(outcome.result, "red")
        if outcome.result is BatchResult.FAILED and outcome.attempts_allowed < 0 and outcome.attempt > 1:
            error = outcome.error.type if outcome.error else "failed"
            text = f"BLOCKED {outcome.function} {lane(outcome)} attempt {outcome.attempt} {error}"
            self._terminal.line(self._terminal.paint(text, "red"))
        else:
            self._write(key, outcome.records, failure_text(outcome), outcome.duration_us, colour)
        if outcome.error is None:
            return
        where = _relative(outcome.error.file, self._folder) if outcome.error.file else outcome.error.message
        detail = (outcome.error.type, where, outcome.sample)
        if self._shown.get(key[:2]) == detail:
            return  # the same record, on its way through retries and halves
        self._shown[key[:2]] = detail
        parts = [outcome.error.type, where, printable(outcome.sample)]
        text = "     " + "  ".join(part for part in parts if part)
        self._terminal.line(text[: self._terminal.width] if self._terminal.is_live else text)

    def _write(self, key: tuple[str, str, str], records: int, text: str, duration_us: int, colour: str = "") -> None:
        head = f"{key[0]} {_where(key[1], key[2])}"
        self._head = max(self._head, len(head))
        padded = text.ljust(24)
        took = f"{duration_us / 1000:.1f} ms" if duration_us else ""
        what = "record" if key[2] else "message"
        self._terminal.line(
            f"{head.ljust(self._head)}  {count(records, what).ljust(13)}  "
            f"{self._terminal.paint(padded, colour) if colour else padded}  {took.rjust(9)}  v{CODE_VERSION}"
        )


class JsonLines:
    """A runtime's listener that writes one JSON object a line, for programs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def ready(self, info: ReadyInfo) -> None:
        """`{"event": "ready", ...}`."""
        self._write("ready", msgspec.to_builtins(info))

    def outcome(self, outcome: BatchOutcome) -> None:
        """`{"event": "outcome", ...}`; the sample as text."""
        fields: dict[str, Any] = msgspec.to_builtins(outcome)
        fields["sample"] = printable(outcome.sample)
        self._write("outcome", fields)

    def notice(self, level: str, text: str) -> None:
        """`{"event": "notice", ...}`."""
        self._write("notice", {"level": level, "text": text})

    def stopped(self, summary: Summary) -> None:
        """`{"event": "stopped", ...}`."""
        self._write("stopped", msgspec.to_builtins(summary))

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self._terminal.json({"event": event, **fields})


def write_summary(terminal: Terminal, summary: Summary) -> None:
    """The table of totals."""
    # `dropped` only where somebody asked for it: elsewhere records are parked.
    extra = ("dropped",) if any(each.dropped for each in summary.handlers) else ()
    columns = ("processed", "redelivered", "parked", *extra, "lost")
    rows: list[tuple[Any, ...]] = [("handler", *columns)]
    rows += [(each.name, *(f"{getattr(each, column):,}" for column in columns)) for each in summary.handlers]
    terminal.line(f"stopped after {span(summary.seconds * 1000)}")
    if len(rows) > 1:
        terminal.table(rows, right=range(1, len(columns) + 1))
    if summary.dropped_lines:
        terminal.note(f"{count(summary.dropped_lines, 'line')} not shown: they came faster than they could be written")


def failure_text(outcome: BatchOutcome) -> str:
    """What became of a batch that did not succeed as a whole."""
    if outcome.result is BatchResult.LOST:
        return "gone from the log, LOST"
    if outcome.result is BatchResult.PARKED and not outcome.attempt:
        return f"never sent, PARKED #{outcome.parked}"
    if outcome.result is BatchResult.EXPIRED:
        return f"too old, PARKED #{outcome.parked}" if outcome.parked else "too old, DROPPED"
    if outcome.result is BatchResult.DROPPED and not outcome.attempt:
        return "never sent, DROPPED"
    of = f" {outcome.attempt} of {outcome.attempts_allowed}" if outcome.attempts_allowed > 0 else ""
    if outcome.result is BatchResult.DROPPED:
        return f"failed{of}, DROPPED"
    if outcome.result is BatchResult.PARKED:
        return f"failed{of}, PARKED #{outcome.parked}"
    if outcome.result is BatchResult.BISECT:
        return "failed, bisect"
    if outcome.result is BatchResult.PARTIAL:
        at = f" at {short(outcome.failed_sequence_number)}" if outcome.failed_sequence_number else ""
        return f"{outcome.succeeded:,} ok, failed{at}"
    return f"failed{of}"


def lane(outcome: BatchOutcome) -> str:
    """`orders/0`; of a queue its name."""
    return _where(outcome.stream, outcome.shard_id)


def _where(stream: str, shard: str) -> str:
    return f"{stream}/{shard_number(shard)}" if shard else stream


def shard_number(shard_id: str) -> str:
    """The number in a shard id; any other text as it is."""
    number = shard_id.removeprefix("shardId-")
    return str(int(number)) if number.isdigit() else shard_id


def short(sequence_number: str) -> str:
    """A sequence number for the eye: `49…386`."""
    return sequence_number if len(sequence_number) < 8 else f"{sequence_number[:2]}…{sequence_number[-3:]}"


def printable(data: bytes) -> str:
    """Payload as text on one line."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _relative(place: str, folder: Path) -> str:
    """A path (with or without `:line`) as short as it can be said from `folder`."""
    relative = os.path.relpath(place, folder)
    return place if relative.startswith("../..") or not Path(place).is_absolute() else relative


def _by_stream(sums: dict[tuple[str, str, str], _Sum]) -> dict[tuple[str, str, str], _Sum]:
    merged: dict[tuple[str, str, str], _Sum] = {}
    for (function, stream, _), each in sums.items():
        total = merged.setdefault((function, stream, "*"), _Sum())
        total.records += each.records
        total.batches += each.batches
        total.duration_us += each.duration_us
    return merged
