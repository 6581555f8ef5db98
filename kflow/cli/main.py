"""The entry of `kflow`: finds the command, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 1 the work failed, 2 usage, 130 interrupted. Only the module of the command that was asked for is
imported, so that a command costs what it needs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from kflow.cli.arguments import Command, Group
from kflow.cli.terminal import Terminal
from kflow.errors import (
    AwsError,
    Damaged,
    DataFolderBusy,
    ExpiredIterator,
    InternalError,
    KflowError,
    LimitExceeded,
    ProvisionedThroughputExceeded,
    StorageError,
    StorageFull,
    UsageError,
)
from kflow.settings import nearest

DISTRIBUTION = "kflow-streams"

TABLE: tuple[tuple[str, str], ...] = (
    ("demo", "run the packaged example on real flight data, end to end"),
    ("run", "run the handlers of a file, folder or module"),
    ("serve", "serve the AWS endpoint alone"),
    ("check", "load and validate everything, without running it"),
    ("put", "put records into a stream"),
    ("tail", "show the records of a stream"),
    ("pull", "copy real records into a local stream"),
    ("streams", "list, create, describe and delete streams"),
    ("status", "show handlers, shards, what is in flight, blocked and parked"),
    ("logs", "show what a handler printed"),
    ("invoke", "run a function once, with its log and its response"),
    ("event", "write a sample event of a service"),
    ("parked", "look at records that exhausted their retries, send them again, drop them"),
    ("checkpoints", "look at and move the positions of handlers"),
    ("reset", "empty the data"),
    ("stop", "stop the runtime of a data folder"),
    ("env", "write export lines that point SDKs at the endpoint"),
    ("config", "show the settings and where each comes from"),
    ("doctor", "say what is wrong on this machine"),
    ("plugins", "show the plugins that are loaded"),
)
"""Name and help of every command; the module of the same name in `kflow.cli` has it as `COMMAND`."""


def main(argv: Sequence[str] | None = None, *, terminal: Terminal | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words after `kflow`; those of the process where None.
        terminal: where to write; standard output and error where None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    terminal = terminal or Terminal()
    try:
        return _dispatch(words, terminal)
    except KeyboardInterrupt:
        terminal.status("")
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough of it (`kflow tail orders | head`). Closing standard output at exit would
        # fail again, and be reported, unless it leads somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InternalError as error:
        terminal.error(f"{error}\nThis is a fault of kflow: please report it, with the command line.")
        return 1
    except KflowError as error:
        terminal.error(str(error))
        return exit_code(error)
    except SystemExit as done:  # argparse's `--help`
        return done.code if isinstance(done.code, int) else 0


def exit_code(error: KflowError) -> int:
    """2 where the command line, the settings, the code or the folder must be mended first; 1 where the work failed."""
    if isinstance(error, (DataFolderBusy, StorageFull, Damaged)):
        return 1
    if isinstance(error, (ProvisionedThroughputExceeded, LimitExceeded, ExpiredIterator)):
        return 1
    if isinstance(error, AwsError):
        return 2 if error.sender_fault else 1
    return 2 if isinstance(error, (UsageError, StorageError)) else 1


def version() -> str:
    """Version of the installed distribution."""
    return importlib.metadata.version(DISTRIBUTION)


def command(name: str) -> Command | Group:
    """The command of that name, its module imported now.

    Raises:
        UsageError: there is none; names the nearest.
    """
    names = [known for known, _ in TABLE]
    if name not in names:
        kind = "option" if name.startswith("-") else "command"
        raise UsageError(f"unknown {kind} `{name}`{nearest(name, [*names, '--version', '--help'])}; see `kflow --help`")
    found: Command | Group = importlib.import_module(f"kflow.cli.{name}").COMMAND
    return found


def _dispatch(words: list[str], terminal: Terminal) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        terminal.line(_overview("kflow COMMAND [...]", "Event processing with Lambda's semantics.", TABLE))
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        terminal.line(f"kflow {version()}")
        return 0
    found = command(words[0])
    prog, rest = f"kflow {found.name}", words[1:]
    if isinstance(found, Group):
        table = [(each.name, each.help) for each in found.commands]
        if not rest or rest[0] in ("-h", "--help"):
            terminal.line(_overview(f"{prog} ACTION [...]", found.help, table))
            return 0 if rest else 2
        chosen = next((each for each in found.commands if each.name == rest[0]), None)
        if chosen is None:
            names = [name for name, _ in table]
            raise UsageError(f"unknown action `{prog} {rest[0]}`{nearest(rest[0], names)}; one of {', '.join(names)}")
        found, prog, rest = replace(chosen), f"{prog} {chosen.name}", rest[1:]
    return found.run(found.parser(prog).parse_all(rest), terminal)


def _overview(usage: str, text: str, table: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in table)
    lines = "\n".join(f"  {name.ljust(width)}  {help_}" for name, help_ in table)
    first = usage.split(" [", maxsplit=1)[0]
    return f"usage: {usage}\n\n{text}\n\n{lines}\n\n`{first} --help` shows the options of one, with examples."
