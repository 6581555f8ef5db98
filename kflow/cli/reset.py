"""`kflow reset`: empty the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal, count

if TYPE_CHECKING:
    from kflow.broker.streammap import StreamMap


def reset(arguments: Arguments, terminal: Terminal) -> int:
    """Empty one stream or all, with the positions of their handlers and their parked records."""
    from kflow.runtime.tools import admin

    folder = open_folder(arguments)
    names = [folder.map(arguments.stream).name] if arguments.stream else [*map(_said, folder.live_maps())]
    if not names:
        terminal.answer(f"no streams in {folder.path}: nothing to empty", {"emptied": []}, json=arguments.json)
        return 0
    what = f"stream {names[0]}" if len(names) == 1 else f"all {len(names)} streams"
    question = f"Empty {what} in {folder.path}: records, positions and parked records?"
    if not terminal.confirm(question, yes=arguments.yes):
        terminal.answer("nothing was changed", {"emptied": []}, json=arguments.json)
        return 1
    admin.reset(folder, arguments.stream)
    text = f"emptied {count(len(names), 'stream')}: {', '.join(names)}"
    terminal.answer(text, {"emptied": names}, json=arguments.json)
    return 0


def _said(stream: StreamMap) -> str:
    """Its name, and the place where it is not the folder's own."""
    where = " ".join(each for each in (stream.account, stream.region) if each)
    return f"{stream.name} ({where})" if where else stream.name


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("--stream", metavar="NAME", help="this stream only")
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMAND = Command(
    name="reset",
    help="empty the streams, with the positions of handlers and their parked records; streams stay, logs stay",
    run=reset,
    configure=configure,
    reads=True,
    examples=(
        ("kflow reset", "everything; asks first"),
        ("kflow reset --stream orders --yes", "one stream, without asking"),
    ),
)
