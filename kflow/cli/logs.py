"""`kflow logs [HANDLER]`: what handlers printed, between Lambda's START, END and REPORT lines, across rotations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError
from kflow.settings import nearest

_LOOK_SECONDS = 0.2


def logs(arguments: Arguments, terminal: Terminal) -> int:
    """Write the end of the logs, and with `--follow` what comes."""
    from kflow.runtime.worker.logfiles import Follower, log_path

    if arguments.lines < 0:
        raise UsageError(f"--lines must be 0 or more, not {arguments.lines}")
    data_dir = open_folder(arguments).path
    names = _names(data_dir, arguments.handler)
    writers = {name: _Writer(name, terminal, names, json=arguments.json) for name in names}
    with ExitStack() as stack:
        followers = {name: Follower(log_path(data_dir, name)) for name in names}
        for name, follower in followers.items():
            stack.callback(follower.close)
            writers[name].write(follower.last(arguments.lines))
            if not arguments.follow:
                writers[name].write(follower.unfinished())
        while arguments.follow:
            more = False
            for name, follower in followers.items():
                lines, rest = follower.look()
                writers[name].write(lines)
                more = more or rest
            if not more:
                time.sleep(_LOOK_SECONDS)
    return 0


def _names(data_dir: Path, wanted: Sequence[str]) -> list[str]:
    """The handlers that are meant: those named, else all that have a log."""
    from kflow.runtime.worker.logfiles import functions

    names = functions(data_dir)
    known = f"; handlers with a log: {', '.join(names)}" if names else "; no handler has run yet"
    for each in wanted:
        if each not in names:
            raise UsageError(f"no log of a handler `{each}`{nearest(each, names)}{known}")
    if not names:
        raise UsageError("there are no logs: no handler has run yet")
    return list(dict.fromkeys(wanted)) or names


class _Writer:
    """Writes the lines of one handler."""

    def __init__(self, name: str, terminal: Terminal, names: Sequence[str], *, json: bool) -> None:
        self._name = name
        self._terminal = terminal
        self._json = json
        # Several logs at once: a line says whose it is.
        self._head = f"{name.ljust(max(map(len, names)))}  " if len(names) > 1 else ""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, given without their ends."""
        for line in lines:
            text = line.decode("utf-8", "backslashreplace")
            if self._json:
                self._write_json(text)
            else:
                self._write_text(text)

    def _write_json(self, text: str) -> None:
        from kflow.runtime.worker.output import parse

        self._terminal.json({"function": self._name, **parse(text), "text": text})

    def _write_text(self, text: str) -> None:
        if text.startswith(("START RequestId: ", "END RequestId: ", "REPORT RequestId: ")):
            text = self._terminal.paint(text, "dim")
        elif text.startswith("[ERROR]") or "Task timed out after" in text:
            text = self._terminal.paint(text, "red")
        elif text.startswith("[WARNING]"):
            text = self._terminal.paint(text, "yellow")
        head = self._terminal.paint(self._head, "bold") if self._head else ""
        self._terminal.line(head + text)


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("handler", nargs="*", metavar="HANDLER", help="name of the function; several, or all of them")
    parser.add_argument("-f", "--follow", action="store_true", help="stay, and show what comes")
    parser.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="begin N lines before the end (100)")


COMMAND = Command(
    name="logs",
    help="show what handlers printed",
    run=logs,
    configure=configure,
    reads=True,
    examples=(
        ("kflow logs bill", "the last 100 lines"),
        ("kflow logs bill -f", "and what comes"),
        ("kflow logs -f", "of all handlers"),
        ("kflow logs bill -n 10000 --json | jq 'select(.type == \"report\").duration_ms'", "durations"),
    ),
)
