"""`kflow serve`: the endpoint alone, without handlers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kflow.cli.arguments import Arguments, Command, Parser, add_endpoint_flags, add_setting_flags, settings_of
from kflow.cli.live import JsonLines, LiveLines
from kflow.cli.progress import show_logs
from kflow.cli.terminal import Terminal


def serve(arguments: Arguments, terminal: Terminal) -> int:
    """Serve until stopped."""
    from kflow.runtime import host

    settings = settings_of(arguments)
    show_logs(terminal)
    terminal.on_broken = lambda: os.kill(os.getpid(), signal.SIGTERM)
    listener = JsonLines(terminal) if arguments.json else LiveLines(terminal, Path.cwd())
    return host.run(settings, (), listener=listener)


def configure(parser: Parser) -> None:
    """Add the arguments."""
    add_endpoint_flags(parser)
    add_setting_flags(parser, "fsync", "region", "account", "plugins")


COMMAND = Command(
    name="serve",
    help="serve the AWS endpoint alone, without handlers; Ctrl-C stops",
    run=serve,
    configure=configure,
    reads=True,
    examples=(
        ("kflow serve", "at http://127.0.0.1:4566, or the next free port"),
        ("kflow serve --port 0 --json", "at any port, told in the first line"),
        ("kflow serve --fault 'kinesis.Put*: 10% ProvisionedThroughputExceeded'", "to see what clients do"),
    ),
)
