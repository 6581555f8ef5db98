"""`kflow logs HANDLER`: what a handler printed, between Lambda's START, END and REPORT lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal
from kflow.errors import UsageError
from kflow.settings import nearest

_LOOK_SECONDS = 0.2


def logs(arguments: Arguments, terminal: Terminal) -> int:
    """Write the end of the log, and with `--follow` what comes."""
    path = _path(open_folder(arguments).path / "logs", arguments.handler)
    with path.open("rb") as file:
        for line in deque(file, maxlen=arguments.lines):
            _write(line, arguments, terminal)
        if arguments.follow:
            for line in _following(path, file.tell()):
                _write(line, arguments, terminal)
    return 0


def _path(folder: Path, handler: str) -> Path:
    path = folder / f"{handler}.log"
    if not path.is_file():
        names = sorted(each.stem for each in folder.glob("*.log"))
        known = f"; handlers with a log: {', '.join(names)}" if names else "; no handler has run yet"
        raise UsageError(f"no log of a handler `{handler}`{nearest(handler, names)}{known}")
    return path


def _following(path: Path, offset: int) -> Iterator[bytes]:
    """Lines as they are written. A log that is shorter than before was begun anew."""
    rest = b""
    while True:
        if path.stat().st_size < offset:
            offset, rest = 0, b""
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read(1 << 20)
        if not piece:
            time.sleep(_LOOK_SECONDS)
            continue
        offset += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _write(line: bytes, arguments: Arguments, terminal: Terminal) -> None:
    text = line.rstrip(b"\n").decode("utf-8", "backslashreplace")
    if arguments.json:
        terminal.json({"function": arguments.handler, "text": text})
    else:
        terminal.line(text)


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("handler", metavar="HANDLER", help="name of the function")
    parser.add_argument("-f", "--follow", action="store_true", help="stay, and show what comes")
    parser.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="begin N lines before the end (100)")


COMMAND = Command(
    name="logs",
    help="show what a handler printed",
    run=logs,
    configure=configure,
    reads=True,
    examples=(
        ("kflow logs bill", "the last 100 lines"),
        ("kflow logs bill -f", "and what comes"),
        ("kflow logs bill -n 10000 | grep REPORT", "durations"),
    ),
)
